//! Peers that are relayed transport addresses of this same server: data stays inside.

use relay_user::turn::{Relayed, Traffic};

use crate::{
    pair::{CHANNEL, HOST_IP, LISTENER, Pair, RELAY_IP},
    wire,
};

const EXTERNAL: &str = "203.0.113.99";

struct Two {
    pair: Pair,
    a: usize,
    b: usize,
    /// As advertised.
    relayed_a: String,
    relayed_b: String,
}

fn two() -> Two {
    let mut pair = Pair::with(|config| {
        config.external_addresses.insert(RELAY_IP.parse().unwrap(), EXTERNAL.parse().unwrap());
    });
    let (a, b) = (0, pair.add_client("203.0.113.2:4000"));
    let relayed_a = pair.allocate(a).to_string();
    let relayed_b = pair.allocate(b).to_string();
    Two { pair, a, b, relayed_a, relayed_b }
}

fn local(advertised: &str) -> String {
    advertised.replace(EXTERNAL, RELAY_IP)
}

#[test]
fn dp_041_turn_128_the_receivers_permission_decides() {
    let Two { mut pair, a, b, relayed_a, relayed_b } = two();
    assert!(pair.send(a, &relayed_b, b"x").outputs.is_empty());
    assert_eq!(pair.drops("no_permission"), 1);
    assert!(pair.permit(a, &relayed_b).is_success());
    assert!(pair.send(a, &relayed_b, b"x").outputs.is_empty());
    assert_eq!(pair.drops("hairpin_not_permitted"), 1);
    assert!(pair.permit(b, &relayed_a).is_success());

    let happened = pair.send(a, &relayed_b, b"x");
    assert_eq!(happened.data_indication(), (relayed_a.parse().unwrap(), b"x".to_vec()));
    assert_eq!(happened.to_client().next().unwrap().0, pair.clients[b].five_tuple);
}

#[test]
fn dp_041_channels_meet_and_flows_name_local_addresses() {
    let Two { mut pair, a, b, relayed_a, relayed_b } = two();
    assert!(pair.bind(a, CHANNEL, &relayed_b).is_success());
    assert!(pair.bind(b, 0x4abc, &local(&relayed_a)).is_success(), "either form will do");
    assert_eq!(pair.bind(b, 0x4abd, &relayed_a).error(), 400, "for it is the same peer");

    let happened = pair.channel_data(a, CHANNEL, b"ping");
    assert_eq!(happened.datagram(), wire::channel_data(0x4abc, b"ping"));
    assert_eq!(happened.to_client().next().unwrap().0, pair.clients[b].five_tuple);
    assert_eq!(pair.channel_data(b, 0x4abc, b"pong").datagram(), wire::channel_data(CHANNEL, b"pong"));

    assert_eq!(pair.flows.len(), 4);
    for flow in pair.flows.keys().map(|id| pair.flows[id]) {
        assert!(flow.hairpin);
        assert_eq!(flow.id.peer.0.ip().to_string(), RELAY_IP);
    }
}

#[test]
fn counts_a_hairpin_once() {
    let Two { mut pair, a, b, relayed_a, relayed_b } = two();
    pair.bind(a, CHANNEL, &relayed_b);
    pair.channel_data(a, CHANNEL, b"lost");
    pair.permit(b, &relayed_a);
    pair.channel_data(a, CHANNEL, b"12345");
    let once = Traffic { packets: 1, bytes: 5 };
    let none = Traffic::default();
    assert_eq!(pair.server.relayed_traffic(), Relayed { to_peer: none, to_client: none, hairpin: once });
    let sessions: Vec<_> = pair.server.sessions().collect();
    assert_eq!((sessions[0].to_peer, sessions[0].to_client), (once, none));
    assert_eq!((sessions[1].to_peer, sessions[1].to_client), (none, once));
}

#[test]
fn an_allocation_may_be_its_own_peer() {
    let Two { mut pair, a, relayed_a, .. } = two();
    pair.bind(a, CHANNEL, &relayed_a);
    assert_eq!(pair.channel_data(a, CHANNEL, b"echo").datagram(), wire::channel_data(CHANNEL, b"echo"));
}

#[test]
fn data_for_a_relayed_address_without_allocation_goes_nowhere() {
    let Two { mut pair, a, b, relayed_b, .. } = two();
    pair.bind(a, CHANNEL, &relayed_b);
    pair.refresh(b, 0);
    assert!(pair.channel_data(a, CHANNEL, b"x").outputs.is_empty());
    assert!(pair.send(a, &relayed_b, b"x").outputs.is_empty());
    assert_eq!(pair.drops("hairpin_no_allocation"), 2);
}

#[test]
fn dp_028_turn_242_other_addresses_of_this_host_are_no_peers() {
    let Two { mut pair, a, relayed_b, .. } = two();
    assert!(pair.permit(a, &relayed_b).is_success());
    let host = format!("{HOST_IP}:53");
    for own in [format!("{RELAY_IP}:22"), format!("{EXTERNAL}:3478"), LISTENER.to_owned(), host] {
        assert_eq!(pair.bind(a, CHANNEL, &own).error(), 403, "{own}");
        assert!(pair.send(a, &own, b"x").outputs.is_empty(), "{own}");
    }
    assert_eq!(pair.drops("own_address"), 4);
}

#[test]
fn data_from_outside_that_claims_an_address_of_ours_is_dropped() {
    let Two { mut pair, a, relayed_a, relayed_b, .. } = two();
    pair.permit(a, &relayed_b);
    let to = local(&relayed_a).parse().unwrap();
    let host = format!("{HOST_IP}:53");
    let unmapped = format!("{RELAY_IP}:53");
    for claimed in [relayed_b.clone(), local(&relayed_b), unmapped, LISTENER.to_owned(), host] {
        assert!(pair.peer_sends(to, &claimed, b"x").outputs.is_empty(), "{claimed}");
    }
    assert_eq!(pair.drops("own_address"), 5);
}
