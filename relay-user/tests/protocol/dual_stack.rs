//! Both address families: clients and peers of each, and dual allocations (RFC 8656 sections 7.2, 8.1 and 10.1).

use std::net::{IpAddr, SocketAddr};

use relay_user::turn::{Config, EndReason, Event, Family, FlowForm, Hairpin, OpenError, Output, ServerAddr};

use crate::{
    pair::{CHANNEL, Happened, LISTENER, PEER, Pair, RELAY_IP, SECOND, seconds},
    wire::{self, Attribute, Message},
};

pub const RELAY_IPV6: &str = "2a0a:1::1";
pub const LISTENER_IPV6: &str = "[2a0a:2::1]:3478";
pub const CLIENT_IPV6: &str = "[2a0a:3::1]:4000";
pub const PEER_IPV6: &str = "[2606:4700::8]:5000";

const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// A server with a relay address and a listener of each family.
pub fn dual_stack(config: &mut Config) {
    config.relay_addresses.push(RELAY_IPV6.parse().unwrap());
    config.listeners.push(LISTENER_IPV6.parse().unwrap());
}

impl Pair {
    pub fn dual_stack() -> Self {
        Self::with(dual_stack)
    }

    /// A client that talks to the listener of its own family.
    pub fn add_client_of(&mut self, address: &str) -> usize {
        let client = self.add_client(address);
        let five_tuple = &mut self.clients[client].five_tuple;
        if five_tuple.client.0.is_ipv6() {
            five_tuple.server = ServerAddr(LISTENER_IPV6.parse().unwrap());
        }
        client
    }

    /// The answer to an Allocate for UDP with these attributes besides.
    pub fn ask_allocate(&mut self, client: usize, attributes: &[Attribute]) -> Message {
        let attributes = [&[wire::requested_transport(17)], attributes].concat();
        self.request(client, wire::ALLOCATE, &attributes)
    }

    /// A dual allocation: its IPv4 and its IPv6 relayed address.
    pub fn allocate_dual(&mut self, client: usize) -> [SocketAddr; 2] {
        let response = self.ask_allocate(client, &[wire::additional_family(IPV6)]);
        response.addresses(0x0016).try_into().expect("two addresses")
    }
}

fn ip(ip: &str) -> IpAddr {
    ip.parse().unwrap()
}

fn address_error(response: &Message) -> (u8, u16) {
    let Some([family, 0, class, number, reason @ ..]) = response.attribute(0x8001) else {
        panic!("TURN-236: {response:?}")
    };
    assert!(!str::from_utf8(reason).unwrap().is_empty(), "TURN-236");
    (*family, *class as u16 * 100 + *number as u16)
}

#[test]
fn turn_021_039_048_230_clients_of_each_family_reach_peers_of_each() {
    for client in ["203.0.113.7:4000", CLIENT_IPV6] {
        for (family, relay, peer) in [(IPV4, RELAY_IP, PEER), (IPV6, RELAY_IPV6, PEER_IPV6)] {
            let mut pair = Pair::dual_stack();
            let client = pair.add_client_of(client);
            let response = pair.ask_allocate(client, &[wire::requested_family(family)]);
            let [relayed] = response.addresses(0x0016)[..] else { panic!("one address: {response:?}") };
            assert_eq!(relayed.ip(), ip(relay));
            assert_eq!(response.address(0x0020), pair.clients[client].five_tuple.client.0, "TURN-080");

            assert!(pair.bind(client, CHANNEL, peer).is_success());
            let peer_address: SocketAddr = peer.parse().unwrap();
            let happened = pair.channel_data(client, CHANNEL, b"ping");
            assert_eq!(happened.to_peer(), (relayed, peer_address, &b"ping"[..]));
            let happened = pair.peer_sends(relayed, peer, b"pong");
            assert_eq!(happened.datagram(), wire::channel_data(CHANNEL, b"pong"));

            let another = SocketAddr::new(peer_address.ip(), 7);
            let happened = pair.peer_sends(relayed, &another.to_string(), b"hello");
            assert_eq!(happened.data_indication(), (another, b"hello".to_vec()));
            assert_eq!(pair.flow_counts(), [1, 2, 2]);
        }
    }
}

#[test]
fn turn_048_049_050_the_family_that_is_asked_for_or_ipv4_or_440() {
    for client in ["203.0.113.7:4000", CLIENT_IPV6] {
        let mut pair = Pair::dual_stack();
        let client = pair.add_client_of(client);
        assert_eq!(pair.ask_allocate(client, &[]).relayed().ip(), ip(RELAY_IP), "TURN-050");
    }
    let mut only_ipv6 = Pair::with(|config| {
        dual_stack(config);
        config.relay_addresses.remove(0);
    });
    assert_eq!(only_ipv6.ask_allocate(0, &[]).error(), 440, "TURN-049");
    assert_eq!(only_ipv6.ask_allocate(0, &[wire::requested_family(IPV4)]).error(), 440);
    assert_eq!(only_ipv6.ask_allocate(0, &[wire::additional_family(IPV6)]).error(), 440);
    assert_eq!(only_ipv6.ask_allocate(0, &[wire::requested_family(3)]).error(), 440);
    assert!(only_ipv6.ask_allocate(0, &[wire::requested_family(IPV6)]).is_success());
}

#[test]
fn turn_056_078_082_083_a_dual_allocation_has_an_address_of_each_family() {
    let mut pair = Pair::dual_stack();
    let attributes = [wire::requested_transport(17), wire::additional_family(IPV6), wire::lifetime(1000)];
    let request = pair.build(0, wire::ALLOCATE, &attributes);
    let response = pair.exchange(0, &request);
    let relayed = response.addresses(0x0016);
    assert_eq!(relayed.iter().map(SocketAddr::ip).collect::<Vec<_>>(), [ip(RELAY_IP), ip(RELAY_IPV6)]);
    assert!(!response.has(0x8001) && !response.has(0x0022));
    assert_eq!(response.lifetime(), 1000);
    assert_eq!(pair.open.len(), 2);
    assert_eq!(pair.server.totals().allocations, 1);
    assert_eq!(pair.exchange(0, &request), response, "TURN-083");
    assert_eq!(pair.open.len(), 2);
}

#[test]
fn a_dual_allocation_may_be_asked_for_by_coturns_number() {
    let mut pair = Pair::dual_stack();
    let response = pair.ask_allocate(0, &[(0x8032, vec![IPV6, 0, 0, 0])]);
    assert_eq!(response.addresses(0x0016).len(), 2);
    let client = pair.add_client("203.0.113.7:1000");
    assert_eq!(pair.ask_allocate(client, &[(0x8032, vec![1, 0, 0, 0])]).error(), 400, "TURN-053");
}

#[test]
fn turn_067_056_an_even_port_is_asked_for_both_families() {
    let mut pair = Pair::dual_stack();
    for n in 0..20 {
        let client = pair.add_client(&format!("203.0.113.7:{}", 1000 + n));
        let response = pair.ask_allocate(client, &[wire::additional_family(IPV6), wire::even_port(0)]);
        let relayed = response.addresses(0x0016);
        assert!(relayed.len() == 2 && relayed.iter().all(|relayed| relayed.port() % 2 == 0), "{relayed:?}");
    }
}

#[test]
fn turn_055_083_236_one_family_alone_is_given_with_the_reason_for_the_other() {
    let one_port = |config: &mut Config| {
        dual_stack(config);
        config.relay_ports = 50_000..=50_000;
    };
    for (taken, missing) in [(IPV4, (IPV4, 508)), (IPV6, (IPV6, 508))] {
        let mut pair = Pair::with(one_port);
        let first = pair.add_client("203.0.113.2:4000");
        assert!(pair.ask_allocate(first, &[wire::requested_family(taken)]).is_success());

        let attributes = [wire::requested_transport(17), wire::additional_family(IPV6)];
        let request = pair.build(0, wire::ALLOCATE, &attributes);
        let response = pair.exchange(0, &request);
        assert_eq!(address_error(&response), missing);
        let [relayed] = response.addresses(0x0016)[..] else { panic!("one address") };
        assert_eq!(relayed.is_ipv4(), taken == IPV6);
        // Neither that the family could be had now nor anything else makes the retransmission another request.
        assert!(pair.refresh(first, 0).is_success());
        assert_eq!(pair.exchange(0, &request), response, "TURN-083");
        assert_eq!(pair.open.len(), 1);
    }

    let mut pair = Pair::new();
    let response = pair.ask_allocate(0, &[wire::additional_family(IPV6)]);
    assert_eq!(address_error(&response), (IPV6, 440));
    assert_eq!(response.relayed().ip(), ip(RELAY_IP));
}

#[test]
fn turn_054_055_062_addresses_that_cannot_be_opened_leave_nothing_behind() {
    let dual = [wire::additional_family(IPV6)];
    // Each list: what the driver says to one attempt after the other.
    for (errors, missing) in [(&[OpenError::Other][..], IPV4), (&[OpenError::Unavailable; 16], IPV4)] {
        let mut pair = Pair::dual_stack();
        pair.open_errors.extend(errors);
        let response = pair.ask_allocate(0, &dual);
        assert_eq!(address_error(&response), (missing, 508));
        assert_eq!(response.relayed().ip(), ip(RELAY_IPV6));
        assert_eq!(pair.open.len(), 1);
    }

    let mut pair = Pair::with(|config| {
        dual_stack(config);
        config.relay_ports = 50_000..=50_003;
    });
    for errors in [&[OpenError::Other; 2][..], &[OpenError::Unavailable; 32]] {
        pair.open_errors.extend(errors);
        assert_eq!(pair.ask_allocate(0, &dual).error(), 508, "TURN-054");
        assert!(pair.open_errors.is_empty() || errors.len() > 2);
        pair.open_errors.clear();
        assert!(pair.open.is_empty());
        assert_eq!(pair.server.poll_timeout(), None);
    }
    for port in 0..4 {
        let client = pair.add_client(&format!("203.0.113.9:{port}"));
        pair.allocate_dual(client);
    }
    assert_eq!(pair.open.len(), 8, "no port was lost");
}

fn ended(happened: &Happened) -> Vec<EndReason> {
    happened
        .events()
        .filter_map(|event| match event {
            Event::AllocationEnded(record) => Some(record.reason),
            Event::AllocationCreated { .. } | Event::AuthenticationFailed { .. } => None,
        })
        .collect()
}

/// A dual allocation with a channel and another permission in each family.
fn dual_with_channels(pair: &mut Pair) -> [SocketAddr; 2] {
    let relayed = pair.allocate_dual(0);
    for (number, bound, permitted) in
        [(CHANNEL, PEER, "9.9.9.9:9"), (CHANNEL + 1, PEER_IPV6, "[2606:4700::9]:9")]
    {
        assert!(pair.bind(0, number, bound).is_success());
        assert!(pair.permit(0, permitted).is_success());
    }
    assert_eq!(pair.flow_counts(), [2, 8, 4]);
    relayed
}

#[test]
fn turn_092_refresh_without_family_is_for_both() {
    let mut pair = Pair::dual_stack();
    pair.allocate_dual(0);
    pair.advance(seconds(100));
    assert_eq!(pair.refresh(0, 1000).lifetime(), 1000);
    let session = pair.server.sessions().next().unwrap();
    assert!(session.relayed.iter().all(|relayed| relayed.expires == pair.now + 1000 * SECOND));
    assert_eq!(session.relayed.len(), 2);

    let request = pair.build(0, wire::REFRESH, &[wire::lifetime(0)]);
    let happened = pair.deliver(0, &request);
    assert_eq!(ended(&happened), [EndReason::Deleted]);
    assert!(pair.open.is_empty());
    assert_eq!(pair.exchange(0, &request).error(), 437, "TURN-097");
}

#[test]
fn turn_093_refresh_with_a_family_is_for_that_alone() {
    let mut pair = Pair::dual_stack();
    let [_, relayed_v6] = dual_with_channels(&mut pair);
    pair.advance(seconds(100));
    let attributes = [wire::requested_family(IPV6), wire::lifetime(3600)];
    assert_eq!(pair.request(0, wire::REFRESH, &attributes).lifetime(), 3600);
    let session = pair.server.sessions().next().unwrap();
    assert_eq!(session.relayed[0].expires, pair.now + 500 * SECOND);
    assert_eq!(session.relayed[1].expires, pair.now + 3600 * SECOND);

    let happened = pair.advance(seconds(500));
    assert!(ended(&happened).is_empty(), "the allocation lives on");
    assert_eq!(pair.open.iter().map(|relayed| relayed.0).collect::<Vec<_>>(), [relayed_v6]);
    assert_eq!(pair.server.totals().permissions, 0, "they ended by themselves at the same moment, or before");
    assert!(pair.permit(0, PEER_IPV6).is_success());
    assert_eq!(pair.permit(0, PEER).error(), 443, "TURN-114");

    let end = pair.now + 3100 * SECOND;
    let happened = pair.advance(seconds(3100));
    let Some(Event::AllocationEnded(record)) = happened.events().last() else { panic!("{happened:?}") };
    assert_eq!((record.reason, record.ended, record.relayed.len()), (EndReason::Expired, end, 2));
    assert_eq!(record.relayed[0].expires, end - 3100 * SECOND);
}

#[test]
fn turn_094_095_096_097_109_dp_070_deleting_one_family_leaves_the_other_as_it_was() {
    for (family, other_peers, own_number, other_number) in [
        (IPV4, [PEER_IPV6, "[2606:4700::9]:9"], CHANNEL, CHANNEL + 1),
        (IPV6, [PEER, "9.9.9.9:9"], CHANNEL + 1, CHANNEL),
    ] {
        let mut pair = Pair::dual_stack();
        let relayed = dual_with_channels(&mut pair);
        let [gone, left] = if family == IPV4 { relayed } else { [relayed[1], relayed[0]] };
        let before = pair.server.sessions().next().unwrap();

        let request = pair.build(0, wire::REFRESH, &[wire::requested_family(family), wire::lifetime(0)]);
        let happened = pair.deliver(0, &request);
        assert!(ended(&happened).is_empty(), "the allocation lives on");
        let order: Vec<_> = happened
            .outputs
            .iter()
            .map(|output| match output {
                Output::RemoveFlow(flow) if flow.relayed.0 == gone => "remove",
                Output::CloseRelayed { relayed } if relayed.0 == gone => "close",
                Output::ToClient { .. } => "response",
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [&["remove"; 7][..], &["close", "response"]].concat());
        let response = Message::parse(happened.datagram());
        assert!(response.is_success() && response.lifetime() == 0, "TURN-087");

        let after = pair.server.sessions().next().unwrap();
        let of_other =
            |ip: &IpAddr| other_peers.iter().any(|peer| peer.parse::<SocketAddr>().unwrap().ip() == *ip);
        let kept: Vec<_> = before.permissions.into_iter().filter(|(ip, _)| of_other(ip)).collect();
        assert_eq!((after.permissions, after.channels.len()), (kept, 1), "TURN-094, TURN-095");
        assert!(pair.channel_data(0, own_number, b"x").is_silence());
        assert_eq!(pair.channel_data(0, other_number, b"x").to_peer().0, left);
        assert!(!pair.peer_sends(left, other_peers[1], b"x").is_silence());
        assert_eq!(pair.flow_counts(), [1, 4, 2]);

        assert_eq!(pair.exchange(0, &request), response, "TURN-097: sent again");
        let attributes = [wire::requested_family(family), wire::lifetime(0)];
        assert_eq!(pair.request(0, wire::REFRESH, &attributes).error(), 443, "TURN-096");
        let attributes = [wire::requested_family(family), wire::lifetime(900)];
        assert_eq!(pair.request(0, wire::REFRESH, &attributes).error(), 443, "TURN-096");
        assert_eq!(pair.refresh(0, 900).lifetime(), 900, "what is left can be refreshed");

        let happened = {
            let request = pair.build(0, wire::REFRESH, &[wire::lifetime(0)]);
            pair.deliver(0, &request)
        };
        assert_eq!(ended(&happened), [EndReason::Deleted]);
        assert!(pair.open.is_empty() && pair.flows.is_empty());
        assert_eq!(pair.server.poll_timeout(), None, "no deadline is left");
        assert_eq!(pair.exchange(0, &request).error(), 437);
    }
}

#[test]
fn turn_091_refresh_with_the_family_of_a_single_allocation() {
    let mut pair = Pair::dual_stack();
    assert!(pair.ask_allocate(0, &[wire::requested_family(IPV6)]).is_success());
    assert_eq!(pair.request(0, wire::REFRESH, &[wire::requested_family(IPV4)]).error(), 443);
    assert!(pair.request(0, wire::REFRESH, &[wire::requested_family(IPV6)]).is_success());
}

#[test]
fn turn_109_113_114_115_permissions_of_both_families_in_one_request() {
    let mut pair = Pair::dual_stack();
    let [relayed_v4, relayed_v6] = pair.allocate_dual(0);
    let both = [wire::peer(PEER_IPV6), wire::peer(PEER)];
    assert!(pair.request(0, wire::CREATE_PERMISSION, &both).is_success());
    assert!(!pair.peer_sends(relayed_v4, PEER, b"x").is_silence());
    assert!(!pair.peer_sends(relayed_v6, PEER_IPV6, b"x").is_silence());

    for family in [IPV4, IPV6] {
        let client = pair.add_client(&format!("203.0.113.8:{family}"));
        assert!(pair.ask_allocate(client, &[wire::requested_family(family)]).is_success());
        assert_eq!(pair.request(client, wire::CREATE_PERMISSION, &both).error(), 443);
        let foreign = if family == IPV4 { PEER_IPV6 } else { PEER };
        assert_eq!(pair.bind(client, CHANNEL, foreign).error(), 443, "TURN-154");
        let session = pair.server.sessions().last().unwrap();
        assert!(session.permissions.is_empty() && session.channels.is_empty(), "TURN-113, TURN-159");
    }
}

#[test]
fn turn_117_156_limits_count_both_families_together() {
    let mut pair = Pair::with(|config| {
        dual_stack(config);
        config.limits.permissions = 2;
        config.limits.channels = 1;
    });
    pair.allocate_dual(0);
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    assert_eq!(pair.bind(0, CHANNEL + 1, PEER_IPV6).error(), 508);
    assert_eq!(pair.server.totals().permissions, 1, "TURN-159");
    assert!(pair.bind(0, CHANNEL, PEER).is_success(), "what there is can be refreshed");
    assert!(pair.permit(0, PEER_IPV6).is_success());
    assert_eq!(pair.permit(0, "[2606:4700::9]:1").error(), 508);
    let one_new = [wire::peer(PEER), wire::peer("9.9.9.9:9")];
    assert_eq!(pair.request(0, wire::CREATE_PERMISSION, &one_new).error(), 508);
    assert!(pair.permit(0, PEER).is_success());
}

#[test]
fn turn_078_external_addresses_of_both_families_are_advertised_and_hairpins_meet() {
    const EXTERNAL_IPV6: &str = "2a0a:9::9";
    let mut pair = Pair::with(|config| {
        dual_stack(config);
        config.external_addresses.insert(ip(RELAY_IP), ip("203.0.113.99"));
        config.external_addresses.insert(ip(RELAY_IPV6), ip(EXTERNAL_IPV6));
    });
    let second = pair.add_client_of(CLIENT_IPV6);
    let [a_v4, a_v6] = pair.allocate_dual(0);
    let [b_v4, b_v6] = pair.allocate_dual(second);
    assert_eq!((a_v4.ip(), a_v6.ip()), (ip("203.0.113.99"), ip(EXTERNAL_IPV6)));
    for (number, a, b) in [(CHANNEL, a_v4, b_v4), (CHANNEL + 1, a_v6, b_v6)] {
        assert!(pair.bind(0, number, &b.to_string()).is_success());
        assert!(pair.channel_data(0, number, b"x").is_silence(), "DP-041: the receiver permits nobody");
        assert!(pair.permit(second, &a.to_string()).is_success());
        assert_eq!(pair.channel_data(0, number, b"x").data_indication(), (a, b"x".to_vec()));
    }
    for flow in pair.flows.values().filter(|flow| flow.id.form != FlowForm::Allocation) {
        let shown = if flow.id.relayed.0.is_ipv4() { a_v4.ip() } else { a_v6.ip() };
        assert_eq!(
            flow.hairpin,
            Some(Hairpin { advertised: shown, alias: Some(shown) }),
            "all are on one address"
        );
    }
    let session = pair.server.sessions().next().unwrap();
    assert_eq!(session.relayed[1].external, Some(a_v6));
    assert_eq!(session.relayed[1].address.family(), Family::V6);
}

#[test]
fn turn_012_one_client_address_at_two_listeners_is_two_clients() {
    let mut pair = Pair::dual_stack();
    let first = pair.add_client_of(CLIENT_IPV6);
    let second = pair.add_client_of(CLIENT_IPV6);
    pair.clients[second].five_tuple.server = ServerAddr(LISTENER.parse().unwrap());
    pair.allocate(first);
    pair.allocate(second);
    assert_eq!(pair.server.totals().allocations, 2);
}
