//! How many allocations a user and all users may have: 486 and 508.

use relay_user::turn::{Config, Totals};

use crate::{
    dual_stack::dual_stack,
    pair::{OTHER_PASSWORD, OTHER_USER, Pair, seconds},
    wire,
};

fn limits(allocations: u32, allocations_per_user: u32) -> Pair {
    Pair::with(|config: &mut Config| {
        dual_stack(config);
        config.limits.allocations = allocations;
        config.limits.allocations_per_user = allocations_per_user;
    })
}

fn client_of(pair: &mut Pair, user: (&'static str, &'static str), address: &str) -> usize {
    let client = pair.add_client(address);
    (pair.clients[client].username, pair.clients[client].password) = user;
    client
}

const OTHER: (&str, &str) = (OTHER_USER, OTHER_PASSWORD);

#[test]
fn turn_023_057_058_the_quota_is_the_users_wherever_its_clients_are() {
    let mut pair = limits(0, 2);
    let elsewhere = pair.add_client("198.51.100.77:9");
    pair.allocate(0);
    pair.allocate(elsewhere);
    let third = pair.add_client("203.0.113.3:4000");
    assert_eq!(pair.ask_allocate(third, &[]).error(), 486);
    assert_eq!(pair.server.totals().allocations, 2, "TURN-062");
    let same_host = client_of(&mut pair, OTHER, "203.0.113.1:4001");
    pair.allocate(same_host);

    pair.refresh(0, 0);
    pair.allocate(third);
    assert_eq!(pair.ask_allocate(0, &[]).error(), 486);
    pair.advance(seconds(600));
    for client in [0, third] {
        pair.allocate(client);
    }
    assert_eq!(pair.ask_allocate(elsewhere, &[]).error(), 486);
}

#[test]
fn turn_008_057_without_a_limit_one_user_may_have_many() {
    let mut pair = Pair::new();
    for n in 0..100 {
        let client = pair.add_client(&format!("203.0.113.7:{}", 1000 + n));
        pair.allocate(client);
    }
    assert_eq!(pair.server.totals().allocations, 100);
}

#[test]
fn turn_060_the_limit_of_all_users_gives_508() {
    let mut pair = limits(2, 0);
    let second = client_of(&mut pair, OTHER, "203.0.113.2:4000");
    let third = pair.add_client("203.0.113.3:4000");
    pair.allocate(0);
    pair.allocate(second);
    assert_eq!(pair.ask_allocate(third, &[]).error(), 508);
    pair.refresh(second, 0);
    pair.allocate(third);
}

#[test]
fn turn_057_a_dual_allocation_is_one_until_its_last_address_ends() {
    let mut pair = limits(0, 1);
    let second = pair.add_client("203.0.113.2:4000");
    pair.allocate_dual(0);
    let delete = |family| [wire::requested_family(family), wire::lifetime(0)];
    pair.request(0, wire::REFRESH, &delete(1));
    assert_eq!(pair.ask_allocate(second, &[]).error(), 486);
    pair.request(0, wire::REFRESH, &delete(2));
    pair.allocate(second);
}

#[test]
fn turn_057_062_refused_requests_count_nothing() {
    let mut pair = limits(0, 1);
    for attributes in [
        vec![wire::requested_family(9)],
        vec![(0x0022, vec![7; 8])],
        vec![wire::even_port(0x80), wire::additional_family(2)],
        vec![wire::even_port(0x80)],
    ] {
        pair.ask_allocate(0, &attributes).error();
        assert_eq!(pair.server.totals(), Totals::default());
    }
    pair.allocate(0);
}

#[test]
fn turn_057_068_a_reserved_port_counts_for_who_reserved_it_until_it_is_claimed() {
    let mut pair = limits(0, 2);
    let second = pair.add_client("203.0.113.2:4000");
    let third = pair.add_client("203.0.113.3:4000");
    let token = pair.ask_allocate(0, &[wire::even_port(0x80)]).attribute(0x0022).unwrap().to_vec();
    assert_eq!(pair.ask_allocate(second, &[]).error(), 486, "else a user could hold every port");
    assert!(pair.ask_allocate(second, &[(0x0022, token)]).is_success(), "a claim needs nothing more");
    assert_eq!(pair.ask_allocate(third, &[]).error(), 486);
    pair.refresh(second, 0);
    assert_eq!(pair.ask_allocate(third, &[wire::even_port(0x80)]).error(), 486, "for it is two");
    pair.allocate(third);
}

#[test]
fn turn_057_066_a_claim_that_is_refused_leaves_the_token_good() {
    let mut pair = limits(0, 2);
    let bob = client_of(&mut pair, OTHER, "203.0.113.2:4000");
    let bob_again = client_of(&mut pair, OTHER, "203.0.113.2:4001");
    let claimer = client_of(&mut pair, OTHER, "203.0.113.2:4002");
    let token = pair.ask_allocate(0, &[wire::even_port(0x80)]).attribute(0x0022).unwrap().to_vec();
    pair.allocate(bob);
    pair.allocate(bob_again);
    let claim = [(0x0022, token)];
    assert_eq!(pair.ask_allocate(claimer, &claim).error(), 486);
    pair.refresh(bob, 0);
    assert!(pair.ask_allocate(claimer, &claim).is_success());
    let alice = pair.add_client("203.0.113.3:4000");
    pair.allocate(alice);
}

#[test]
fn turn_057_an_unclaimed_reservation_stops_counting_when_it_expires() {
    let mut pair = limits(0, 2);
    let second = pair.add_client("203.0.113.2:4000");
    pair.ask_allocate(0, &[wire::even_port(0x80)]);
    pair.refresh(0, 0);
    assert_eq!(pair.ask_allocate(second, &[wire::even_port(0x80)]).error(), 486);
    pair.advance(seconds(60));
    assert!(pair.ask_allocate(second, &[wire::even_port(0x80)]).is_success());
}

#[test]
fn turn_058_users_of_time_limited_credentials_count_by_what_follows_the_time() {
    let limited = |config: &mut Config| config.limits.allocations_per_user = 1;
    let mut pair = Pair::with_users(limited, |credentials| credentials.add_secret("north").unwrap());
    pair.server.set_wall_clock(pair.now, seconds(1_700_000_000));
    let mut client = |username: &'static str, address| {
        let password = wire::time_limited_password("north", username).leak();
        client_of(&mut pair, (username, password), address)
    };
    let alice = client("1700003600:alice", "203.0.113.2:4000");
    let alice_later = client("1700003601:alice", "203.0.113.3:4000");
    let bob = client("1700003600:bob", "203.0.113.4:4000");
    pair.allocate(alice);
    assert_eq!(pair.ask_allocate(alice_later, &[]).error(), 486);
    pair.allocate(bob);
    pair.refresh(alice, 0);
    pair.allocate(alice_later);
}
