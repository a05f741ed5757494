//! EVEN-PORT with R=1 and RESERVATION-TOKEN (RFC 8656 section 7.2).

use std::collections::BTreeSet;

use relay_user::turn::{Config, OpenError, ServerAddr, Totals};

use crate::{
    dual_stack::{CLIENT_IPV6, RELAY_IPV6, dual_stack},
    pair::{OTHER_PASSWORD, OTHER_USER, Pair, seconds},
    wire::{self, Attribute},
};

/// One pair of ports on each relay address.
fn one_pair(config: &mut Config) {
    config.relay_ports = 50_000..=50_001;
}

fn reserve() -> Attribute {
    wire::even_port(0x80)
}

fn with_token(token: &[u8]) -> Attribute {
    (0x0022, token.to_vec())
}

#[test]
fn turn_064_065_066_068_081_083_the_token_yields_the_next_port_once_to_anybody() {
    let mut pair = Pair::with(dual_stack);
    let request = pair.build(0, wire::ALLOCATE, &[wire::requested_transport(17), reserve()]);
    let response = pair.exchange(0, &request);
    let relayed = response.relayed();
    let token = response.attribute(0x0022).unwrap().to_vec();
    assert_eq!((relayed.port() % 2, token.len()), (0, 8));
    assert_eq!(pair.exchange(0, &request), response, "TURN-083: the same token");
    assert_eq!(pair.server.totals().reservations, 1);

    // Another user, another client address, another listener (TURN-065).
    let second = pair.add_client_of(CLIENT_IPV6);
    (pair.clients[second].username, pair.clients[second].password) = (OTHER_USER, OTHER_PASSWORD);
    let claim = pair.build(second, wire::ALLOCATE, &[wire::requested_transport(17), with_token(&token)]);
    let claimed = pair.exchange(second, &claim);
    assert_eq!((claimed.relayed().ip(), claimed.relayed().port()), (relayed.ip(), relayed.port() + 1));
    assert!(!claimed.has(0x0022), "TURN-081");
    assert_eq!(pair.exchange(second, &claim), claimed, "TURN-083");

    let third = pair.add_client("203.0.113.3:4000");
    assert_eq!(pair.ask_allocate(third, &[with_token(&token)]).error(), 508, "TURN-066");
    assert_eq!(pair.server.totals().reservations, 0);
    assert_eq!(pair.open.len(), 2);
    assert_eq!(pair.exchange(0, &request), response, "TURN-083: even now");
}

#[test]
fn turn_065_a_reserved_ipv6_port_is_claimed_without_naming_a_family() {
    let mut pair = Pair::with(|config| {
        dual_stack(config);
        one_pair(config);
    });
    let response = pair.ask_allocate(0, &[wire::requested_family(2), reserve()]);
    let token = response.attribute(0x0022).unwrap().to_vec();
    let second = pair.add_client("203.0.113.2:4000");
    pair.clients[second].five_tuple.server = ServerAddr("198.51.100.2:443".parse().unwrap());
    let claimed = pair.ask_allocate(second, &[with_token(&token)]);
    assert_eq!(claimed.relayed(), format!("[{RELAY_IPV6}]:50001").parse().unwrap());
}

#[test]
fn turn_046_069_070_071_a_reservation_is_held_for_a_minute_and_is_nobody_elses() {
    let mut pair = Pair::with(one_pair);
    let response = pair.ask_allocate(0, &[reserve()]);
    let token = response.attribute(0x0022).unwrap().to_vec();
    pair.refresh(0, 3600);
    let second = pair.add_client("203.0.113.2:4000");
    // The end of the allocation that it came with does not end it.
    for _ in 0..59 {
        assert_eq!(pair.ask_allocate(second, &[]).error(), 508);
        pair.advance(seconds(1));
    }
    pair.advance(seconds(1));
    assert_eq!(pair.server.totals().reservations, 0);
    assert_eq!(pair.ask_allocate(second, &[with_token(&token)]).error(), 508, "TURN-046");
    assert_eq!(pair.allocate(second).port(), 50_001, "it is free again");
}

#[test]
fn turn_069_086_the_reservation_outlives_its_allocation() {
    let mut pair = Pair::with(one_pair);
    let response = pair.ask_allocate(0, &[reserve()]);
    let token = response.attribute(0x0022).unwrap().to_vec();
    pair.refresh(0, 0);
    pair.advance(seconds(30));
    assert_eq!(pair.ask_allocate(0, &[with_token(&token)]).relayed().port(), 50_001);
    pair.refresh(0, 0);
    assert_eq!(pair.server.poll_timeout(), None, "no deadline is left");
}

#[test]
fn turn_051_052_068_a_pair_that_cannot_be_had_gives_508_and_leaves_nothing() {
    let mut pair = Pair::with(|config| config.relay_ports = 50_000..=50_002);
    let second = pair.add_client("203.0.113.2:4000");
    let third = pair.add_client("203.0.113.3:4000");
    assert!(pair.ask_allocate(second, &[reserve()]).is_success());
    assert_eq!(pair.ask_allocate(0, &[reserve()]).error(), 508, "50002 has no next port");
    assert_eq!(pair.ask_allocate(0, &[wire::even_port(0)]).relayed().port(), 50_002);
    assert_eq!(pair.ask_allocate(third, &[]).error(), 508);
    assert_eq!(pair.server.totals(), Totals { allocations: 2, reservations: 1, ..Totals::default() });
}

#[test]
fn turn_062_068_ports_that_cannot_be_opened_are_freed_with_their_siblings() {
    let mut pair = Pair::with(|config| {
        config.relay_ports = 50_000..=50_003;
        config.limits.allocations_per_user = 4;
    });
    for errors in [&[OpenError::Other][..], &[OpenError::Unavailable; 16]] {
        pair.open_errors.extend(errors);
        assert_eq!(pair.ask_allocate(0, &[reserve()]).error(), 508);
        pair.open_errors.clear();
        assert_eq!(pair.server.totals(), Totals::default());
        assert_eq!(pair.server.poll_timeout(), None);
    }
    pair.open_errors.push_back(OpenError::Unavailable);
    let response = pair.ask_allocate(0, &[reserve()]);
    let token = response.attribute(0x0022).unwrap().to_vec();

    // The reserved port is somebody else's now: the token is spent, the port free for who can have it.
    let second = pair.add_client("203.0.113.2:4000");
    pair.open_errors.push_back(OpenError::Unavailable);
    assert_eq!(pair.ask_allocate(second, &[with_token(&token)]).error(), 508);
    assert!(pair.open_errors.is_empty(), "no other port was tried");
    assert_eq!(pair.ask_allocate(second, &[with_token(&token)]).error(), 508);
    let ports: BTreeSet<_> = (0..3)
        .map(|n| {
            let client = pair.add_client(&format!("203.0.113.4:{}", 4000 + n));
            pair.allocate(client).port()
        })
        .collect();
    assert_eq!(ports.len(), 3, "no port was lost, and no quota");
}

/// A hole of servers of this kind: the odd port was held, or told of, though nobody asked for it.
#[test]
fn turn_067_081_even_port_with_r_0_leaks_no_sibling() {
    let mut pair = Pair::with(|config| {
        one_pair(config);
        config.limits.allocations_per_user = 2;
    });
    let response = pair.ask_allocate(0, &[wire::even_port(0x7f)]);
    assert_eq!(response.relayed().port(), 50_000);
    assert!(!response.has(0x0022));
    assert_eq!(pair.server.totals(), Totals { allocations: 1, ..Totals::default() });
    let expires = pair.server.sessions().next().unwrap().relayed[0].expires;
    assert_eq!(pair.server.poll_timeout(), Some(expires), "nothing else has a deadline");
    let second = pair.add_client("203.0.113.2:4000");
    assert_eq!(pair.allocate(second).port(), 50_001, "it is anybody's");
}

/// A hole of servers of this kind: tokens that follow from the port, or from each other.
#[test]
fn turn_068_235_tokens_are_random() {
    let mut pair = Pair::new();
    let tokens: Vec<_> = (0..200)
        .map(|n| {
            let client = pair.add_client(&format!("203.0.113.7:{}", 1000 + n));
            let response = pair.ask_allocate(client, &[reserve()]);
            u64::from_be_bytes(response.attribute(0x0022).unwrap().try_into().unwrap())
        })
        .collect();
    for bit in 0..64 {
        let set = tokens.iter().filter(|&&token| token >> bit & 1 == 1).count();
        assert!((50..150).contains(&set), "bit {bit} is set in {set} of 200");
    }
    let steps: BTreeSet<_> = tokens.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert_eq!(steps.len(), 199);
    // One bit off is as wrong as any.
    let client = pair.add_client("203.0.113.8:1");
    let wrong = with_token(&(tokens[0] ^ 1).to_be_bytes());
    assert_eq!(pair.ask_allocate(client, &[wrong]).error(), 508);
}

#[test]
fn shutdown_ends_reservations_too() {
    let mut pair = Pair::with(one_pair);
    pair.ask_allocate(0, &[reserve()]);
    pair.server.shutdown(pair.now);
    pair.drain();
    assert_eq!(pair.server.totals(), Totals::default());
    assert_eq!(pair.server.poll_timeout(), None);
    for client in [0, 1] {
        let client = if client == 0 { 0 } else { pair.add_client("203.0.113.2:4000") };
        pair.allocate(client);
    }
}
