//! Allocate (RFC 8656 section 7.2).

use std::collections::BTreeSet;

use relay_user::turn::{EndReason, Event, FlowForm, OpenError, Output};

use crate::{
    pair::{CHANNEL, PEER, Pair, RELAY_IP, SECOND, seconds},
    wire::{self, Attribute, Message},
};

const UDP: u8 = 17;

fn allocate(pair: &mut Pair, attributes: &[Attribute]) -> Message {
    let attributes = [&[wire::requested_transport(UDP)], attributes].concat();
    pair.request(0, wire::ALLOCATE, &attributes)
}

/// The error code, and that the refusal left nothing behind (TURN-062).
fn refused(attributes: &[Attribute]) -> u16 {
    let mut pair = Pair::new();
    let code = pair.request(0, wire::ALLOCATE, attributes).error();
    assert_eq!(pair.server.totals().allocations, 0);
    assert_eq!(pair.server.poll_timeout(), None);
    assert!(pair.open.is_empty());
    assert!(allocate(&mut pair, &[]).is_success(), "the 5-tuple is still free");
    code
}

#[test]
fn turn_017_032_039_078_079_080_230_success_has_relayed_address_lifetime_and_mapped_address() {
    let mut pair = Pair::new();
    let response = allocate(&mut pair, &[]);
    assert_eq!(response.relayed().ip(), RELAY_IP.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(response.lifetime(), 600);
    assert_eq!(response.address(0x0020), pair.clients[0].five_tuple.client.0, "TURN-032");
    assert!(!response.has(0x0022), "TURN-081");
    assert_eq!(pair.open.len(), 1);
}

#[test]
fn turn_078_external_address_is_advertised() {
    let external = "203.0.113.99".parse().unwrap();
    let mut pair = Pair::with(|config| {
        config.external_addresses.insert(RELAY_IP.parse().unwrap(), external);
    });
    let response = allocate(&mut pair, &[]);
    assert_eq!(response.relayed().ip(), external);
    let session = pair.server.sessions().next().unwrap();
    assert_eq!(session.relayed[0].external, Some(response.relayed()));
    assert_eq!(session.relayed[0].address.0.ip(), RELAY_IP.parse::<std::net::IpAddr>().unwrap());
}

#[test]
fn turn_036_037_038_233_requested_transport() {
    assert_eq!(refused(&[]), 400);
    assert_eq!(refused(&[(0x0019, vec![UDP])]), 400);
    assert_eq!(refused(&[(0x0019, vec![UDP, 0, 0, 0, 0, 0, 0, 0])]), 400);
    assert_eq!(refused(&[wire::requested_transport(6)]), 442);
    assert_eq!(refused(&[wire::requested_transport(0)]), 442);
    let mut pair = Pair::new();
    let reserved_bits = (0x0019, vec![UDP, 0xff, 0xff, 0xff]);
    assert!(pair.request(0, wire::ALLOCATE, &[reserved_bits]).is_success(), "TURN-233");
}

#[test]
fn turn_042_234_dont_fragment_is_accepted() {
    let mut pair = Pair::new();
    assert!(allocate(&mut pair, &[wire::dont_fragment()]).is_success());
    assert_eq!(refused(&[wire::requested_transport(UDP), (0x001a, vec![0])]), 400);
}

#[test]
fn turn_043_044_045_046_062_235_reservation_token() {
    let udp = wire::requested_transport(UDP);
    let token = (0x0022, vec![1; 8]);
    assert_eq!(refused(&[udp.clone(), token.clone(), wire::even_port(0)]), 400);
    assert_eq!(refused(&[udp.clone(), token.clone(), wire::requested_family(1)]), 400);
    assert_eq!(refused(&[udp.clone(), token.clone(), wire::additional_family(2)]), 400);
    assert_eq!(refused(&[udp.clone(), token]), 508);
    assert_eq!(refused(&[udp, (0x0022, vec![1; 7])]), 400);
}

#[test]
fn turn_047_048_050_053_055_231_address_families() {
    let udp = wire::requested_transport(UDP);
    assert_eq!(refused(&[udp.clone(), wire::requested_family(1), wire::additional_family(2)]), 400);
    assert_eq!(refused(&[udp.clone(), wire::requested_family(2)]), 440);
    assert_eq!(refused(&[udp.clone(), wire::requested_family(7)]), 440);
    assert_eq!(refused(&[udp.clone(), (0x0017, vec![1])]), 400);
    assert_eq!(refused(&[udp.clone(), wire::additional_family(1)]), 400);
    assert_eq!(refused(&[udp, wire::additional_family(7)]), 400);

    let mut pair = Pair::new();
    assert!(allocate(&mut pair, &[(0x0017, vec![1, 0xff, 0xff, 0xff])]).is_success());

    let mut pair = Pair::new();
    let response = allocate(&mut pair, &[wire::additional_family(2)]);
    assert!(response.is_success() && response.relayed().is_ipv4());
    let [family, 0, class, number, ..] = response.attribute(0x8001).unwrap() else {
        panic!("TURN-236: {response:?}")
    };
    assert_eq!((*family, *class, *number), (2, 4, 40));
}

#[test]
fn turn_051_052_062_067_232_even_port() {
    let udp = wire::requested_transport(UDP);
    assert_eq!(refused(&[udp.clone(), wire::even_port(0x80), wire::additional_family(2)]), 400);
    assert_eq!(refused(&[udp.clone(), (0x0018, vec![0, 0])]), 400);
    for bits in [0x00, 0x7f] {
        let mut pair = Pair::new();
        for n in 0..20 {
            let client = pair.add_client(&format!("203.0.113.7:{}", 1000 + n));
            let response = pair.request(client, wire::ALLOCATE, &[udp.clone(), wire::even_port(bits)]);
            assert_eq!(response.relayed().port() % 2, 0);
        }
    }
}

#[test]
fn turn_052_060_062_no_port_left_gives_508() {
    let mut pair = Pair::with(|config| config.relay_ports = 50_001..=50_001);
    let even = [wire::requested_transport(UDP), wire::even_port(0)];
    assert_eq!(pair.request(0, wire::ALLOCATE, &even).error(), 508);
    let relayed = pair.allocate(0);
    let second = pair.add_client("203.0.113.2:4000");
    let response = pair.request(second, wire::ALLOCATE, &[wire::requested_transport(UDP)]);
    assert_eq!(response.error(), 508);
    assert!(pair.refresh(0, 0).is_success());
    assert_eq!(pair.allocate(second), relayed, "the port is free again");
}

#[test]
fn turn_026_060_062_ports_in_use_by_others_are_passed_over() {
    let mut pair = Pair::with(|config| config.relay_ports = 50_000..=50_003);
    pair.open_errors.extend([OpenError::Unavailable, OpenError::Unavailable]);
    pair.allocate(0);
    assert_eq!(pair.open.len(), 1);

    let second = pair.add_client("203.0.113.2:4000");
    pair.open_errors.extend([OpenError::Unavailable; 100]);
    let response = pair.request(second, wire::ALLOCATE, &[wire::requested_transport(UDP)]);
    assert_eq!(response.error(), 508);
    assert!(pair.open_errors.len() >= 100 - 16, "attempts are bounded");

    pair.open_errors.clear();
    pair.open_errors.push_back(OpenError::Other);
    let response = pair.request(second, wire::ALLOCATE, &[wire::requested_transport(UDP)]);
    assert_eq!(response.error(), 508);

    let clients: Vec<_> = (0..3).map(|n| pair.add_client(&format!("203.0.113.3:{}", 4000 + n))).collect();
    let ports: BTreeSet<_> = clients.into_iter().map(|client| pair.allocate(client).port()).collect();
    assert_eq!(ports.len(), 3, "no port was lost");
}

#[test]
fn turn_072_073_074_246_ports_are_random_and_in_range() {
    let mut pair = Pair::new();
    let ports: Vec<_> = (0..50)
        .map(|n| {
            let client = pair.add_client(&format!("203.0.113.7:{}", 1000 + n));
            pair.allocate(client).port()
        })
        .collect();
    assert!(ports.iter().all(|port| (49_152..=65_535).contains(port)));
    let steps: BTreeSet<_> = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.len() > 40, "{ports:?}");
}

#[test]
fn turn_028_075_076_077_229_lifetimes() {
    let granted = |requested: Option<u32>| {
        let mut pair = Pair::new();
        let attributes: Vec<_> = requested.map(wire::lifetime).into_iter().collect();
        let granted = allocate(&mut pair, &attributes).lifetime();
        let expires = pair.server.sessions().next().unwrap().relayed[0].expires;
        assert_eq!(expires, pair.now + u64::from(granted) * SECOND);
        granted
    };
    assert_eq!(granted(None), 600);
    assert_eq!(granted(Some(0)), 600);
    assert_eq!(granted(Some(599)), 600);
    assert_eq!(granted(Some(777)), 777);
    assert_eq!(granted(Some(3600)), 3600);
    assert_eq!(granted(Some(u32::MAX)), 3600);
    assert_eq!(refused(&[wire::requested_transport(UDP), (0x000d, vec![0, 0])]), 400);
}

#[test]
fn turn_022_083_084_a_retransmission_gets_the_same_allocation() {
    let mut pair = Pair::new();
    let attributes = [wire::requested_transport(UDP), wire::lifetime(1000), wire::additional_family(2)];
    let request = pair.build(0, wire::ALLOCATE, &attributes);
    let first = pair.exchange(0, &request);
    assert_eq!(pair.exchange(0, &request), first);
    pair.advance(seconds(20));
    let later = pair.exchange(0, &request);
    assert_eq!((later.relayed(), later.lifetime()), (first.relayed(), 980));
    assert!(later.has(0x8001));
    assert_eq!(pair.server.totals().allocations, 1);
    assert_eq!(pair.open.len(), 1);
}

#[test]
fn turn_035_085_another_allocate_on_the_5_tuple_gets_437() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    assert_eq!(allocate(&mut pair, &[]).error(), 437);
    assert_eq!(allocate(&mut pair, &[wire::requested_transport(6)]).error(), 437, "before any other check");
    assert_eq!(pair.server.sessions().next().unwrap().relayed[0].address.0, relayed);
}

#[test]
fn turn_012_each_5_tuple_has_its_own_allocation() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let other_port = pair.add_client("203.0.113.1:4001");
    let other_server = pair.add_client("203.0.113.1:4000");
    pair.clients[other_server].five_tuple.server.0.set_port(3479);
    let relayed: BTreeSet<_> = [other_port, other_server].map(|client| pair.allocate(client)).into();
    assert_eq!(relayed.len(), 2);
    assert_eq!(pair.server.totals().allocations, 3);
}

#[test]
fn turn_030_everything_ends_with_the_allocation() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    pair.advance(seconds(500));
    pair.bind(0, CHANNEL, PEER);
    pair.permit(0, "9.9.9.9:1");
    pair.advance(seconds(99));
    assert_eq!(pair.channel_data(0, CHANNEL, b"x").to_peer().2, b"x");
    let happened = pair.advance(seconds(1));
    assert!(pair.flows.is_empty() && pair.open.is_empty());
    assert!(
        happened.events().any(
            |event| matches!(event, Event::AllocationEnded(record) if record.reason == EndReason::Expired)
        )
    );
    assert!(pair.channel_data(0, CHANNEL, b"x").outputs.is_empty());
    assert!(pair.send(0, "9.9.9.9:1", b"x").outputs.is_empty());
    assert!(pair.peer_sends(relayed, PEER, b"x").outputs.is_empty());
    assert_eq!(pair.server.poll_timeout(), None, "no deadline is left");
    assert_eq!(pair.drops("no_relayed_address"), 1);
    assert_eq!(pair.drops("no_allocation"), 2);
}

#[test]
fn turn_030_029_an_allocation_ends_on_time_even_if_the_driver_is_late() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    pair.refresh(0, 3600);
    pair.bind(0, CHANNEL, PEER);
    for _ in 0..599 {
        pair.oversleep(seconds(1));
        assert!(!pair.channel_data(0, CHANNEL, b"x").is_silence());
    }
    pair.oversleep(seconds(1));
    let happened = pair.channel_data(0, CHANNEL, b"x");
    assert!(happened.is_silence(), "the channel ended this very moment");
    assert!(happened.outputs.iter().any(|output| matches!(output, Output::RemoveFlow(_))));
    pair.oversleep(seconds(3000));
    assert!(pair.peer_sends(relayed, PEER, b"x").is_silence());
    assert!(pair.open.is_empty());
}

#[test]
fn turn_063_dp_069_a_port_given_again_has_no_permission_or_channel_of_its_last_owner() {
    let mut pair = Pair::with(|config| config.relay_ports = 50_000..=50_000);
    let relayed = pair.allocate(0);
    pair.bind(0, CHANNEL, PEER);
    pair.refresh(0, 0);
    let second = pair.add_client("203.0.113.2:4000");
    assert_eq!(pair.allocate(second), relayed);
    assert!(pair.peer_sends(relayed, PEER, b"x").outputs.is_empty());
    assert!(pair.channel_data(second, CHANNEL, b"x").outputs.is_empty());
    let flows: Vec<_> = pair.flows.keys().map(|flow| (flow.five_tuple, flow.form)).collect();
    assert_eq!(flows, [(pair.clients[second].five_tuple, FlowForm::Allocation)]);
}

#[test]
fn shutdown_ends_every_allocation() {
    let mut pair = Pair::new();
    let second = pair.add_client("203.0.113.2:4000");
    for client in [0, second] {
        pair.allocate(client);
        pair.bind(client, CHANNEL, PEER);
    }
    pair.server.shutdown(pair.now);
    let happened = pair.drain();
    assert!(pair.flows.is_empty() && pair.open.is_empty());
    assert_eq!(happened.events().count(), 2);
    assert_eq!(pair.server.poll_timeout(), None);
    assert_eq!(pair.server.totals(), relay_user::turn::Totals::default());
}
