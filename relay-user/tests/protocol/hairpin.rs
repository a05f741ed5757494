//! Peers that are relayed transport addresses of this same server: data stays inside.

use std::net::IpAddr;

use relay_user::turn::{FlowForm, Hairpin, Relayed, Traffic};

use crate::{
    pair::{CHANNEL, HOST_IP, LISTENER, PEER, Pair, RELAY_IP},
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

    assert_eq!(pair.flow_counts(), [2, 4, 4]);
    for flow in pair.flows.values() {
        let peer = match flow.id.form {
            FlowForm::Channel { peer, .. } => peer.0.ip(),
            FlowForm::Permission { peer } => peer,
            FlowForm::Allocation => {
                assert_eq!(flow.hairpin, None);
                continue;
            }
        };
        assert_eq!(peer, RELAY_IP.parse::<IpAddr>().unwrap());
        let external = EXTERNAL.parse().unwrap();
        assert_eq!(flow.hairpin, Some(Hairpin { advertised: external, alias: Some(external) }));
    }
}

/// Two relay addresses, of which only the first is mapped to an external one.
#[test]
fn dp_041_a_flow_says_how_sender_and_peer_are_known_outside() {
    const UNMAPPED: &str = "192.0.2.2";
    let mut pair = Pair::with(|config| {
        config.relay_addresses.push(UNMAPPED.parse().unwrap());
        config.external_addresses.insert(RELAY_IP.parse().unwrap(), EXTERNAL.parse().unwrap());
    });
    let (mut mapped, mut unmapped) = (None, None);
    for port in 4000..4100 {
        let client = pair.add_client(&format!("203.0.113.9:{port}"));
        let relayed = pair.allocate(client).ip().to_string();
        *(if relayed == EXTERNAL { &mut mapped } else { &mut unmapped }) = Some(client);
    }
    let (mapped, unmapped) = (mapped.unwrap(), unmapped.unwrap());
    pair.flows.clear();
    // The address, not the port, makes a hairpin of a permission.
    assert!(pair.permit(mapped, &format!("{UNMAPPED}:1")).is_success());
    assert!(pair.permit(unmapped, &format!("{EXTERNAL}:1")).is_success());
    assert!(pair.permit(unmapped, "8.8.8.8:1").is_success());
    let external = EXTERNAL.parse().unwrap();
    for flow in pair.flows.values() {
        let FlowForm::Permission { peer } = flow.id.form else { panic!("{flow:?}") };
        let expected = match (flow.id.relayed.0.ip().to_string().as_str(), peer.to_string().as_str()) {
            (RELAY_IP, UNMAPPED) => Some(Hairpin { advertised: external, alias: None }),
            (UNMAPPED, RELAY_IP) => {
                Some(Hairpin { advertised: UNMAPPED.parse().unwrap(), alias: Some(external) })
            }
            (UNMAPPED, "8.8.8.8") => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(flow.hairpin, expected);
    }
    assert_eq!(pair.flows.len(), 6);
}

#[test]
fn dp_028_without_hairpins_relayed_addresses_are_no_peers_either() {
    let mut pair = Pair::with(|config| {
        config.hairpin = false;
        config.external_addresses.insert(RELAY_IP.parse().unwrap(), EXTERNAL.parse().unwrap());
    });
    let b = pair.add_client("203.0.113.2:4000");
    let relayed_a = pair.allocate(0);
    let relayed_b = pair.allocate(b).to_string();
    assert!(pair.permit(0, PEER).is_success());
    let flows = pair.flows.clone();
    for own in [relayed_b.clone(), local(&relayed_b), format!("{RELAY_IP}:22"), relayed_a.to_string()] {
        assert_eq!(pair.permit(0, &own).error(), 403, "{own}");
        let among_others = [wire::peer(PEER), wire::peer(&own)];
        assert_eq!(pair.request(0, wire::CREATE_PERMISSION, &among_others).error(), 403, "{own}");
        assert_eq!(pair.bind(0, CHANNEL, &own).error(), 403, "{own}");
        assert!(pair.send(0, &own, b"x").outputs.is_empty(), "{own}");
        let to = local(&relayed_a.to_string()).parse().unwrap();
        assert!(pair.peer_sends(to, &own, b"x").outputs.is_empty(), "{own}");
    }
    assert_eq!(pair.drops("own_address"), 8);
    assert_eq!(pair.flows, flows);
    assert_eq!(pair.send(0, PEER, b"x").to_peer().2, b"x", "others are peers as ever");
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
