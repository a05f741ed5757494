//! Time-limited credentials: users that nobody has listed, with passwords that follow from a secret.

use relay_user::turn::{AuthenticationFailure, Config, Event};

use crate::{
    pair::{Algorithm, Auth, PEER, Pair, seconds},
    wire,
};

const ALICE: &str = "1700003600:alice";
const SECRET: &str = "north";
const NEW_SECRET: &str = "south";
/// An hour before Alice's credential is over.
const NOW: u64 = 1_700_000_000;

fn pair(change: impl FnOnce(&mut Config)) -> Pair {
    let mut pair = Pair::with_users(change, |credentials| {
        credentials.add_secret(NEW_SECRET).unwrap();
        credentials.add_secret(SECRET).unwrap();
    });
    pair.server.set_wall_clock(pair.now, seconds(NOW));
    log_in(&mut pair, ALICE, SECRET);
    pair
}

fn log_in(pair: &mut Pair, username: &'static str, secret: &str) {
    pair.clients[0].username = username;
    pair.clients[0].password = wire::time_limited_password(secret, username).leak();
}

/// The code of an Allocate request, and what the log says of it; a success is 0.
fn allocate(pair: &mut Pair) -> (u16, Option<(Option<String>, AuthenticationFailure)>) {
    let request = pair.build(0, wire::ALLOCATE, &[wire::requested_transport(17)]);
    let happened = pair.deliver(0, &request);
    let failure = happened.events().find_map(|event| match event {
        Event::AuthenticationFailed { username, cause, .. } => Some((username.clone(), *cause)),
        _ => None,
    });
    let response = wire::Message::parse(happened.datagram());
    (if response.is_success() { 0 } else { response.error() }, failure)
}

#[test]
fn whoever_has_a_password_that_follows_from_a_secret_is_let_in() {
    for secret in [SECRET, NEW_SECRET] {
        for algorithm in [None, Some(Algorithm::Md5), Some(Algorithm::Sha256)] {
            for username in [ALICE, "1700003600"] {
                let mut pair = pair(|_| {});
                log_in(&mut pair, username, secret);
                pair.clients[0].auth = Auth { userhash: false, algorithm, sha256: algorithm.is_some() };
                assert_eq!(allocate(&mut pair), (0, None));
                assert_eq!(pair.server.sessions().next().unwrap().username, username);
                assert!(pair.refresh(0, 600).is_success());
            }
        }
    }
}

#[test]
fn nobody_else_is() {
    let mut pair = pair(|_| {});
    let named = |name: &str, cause| (401, Some((Some(name.to_owned()), cause)));
    log_in(&mut pair, ALICE, "guess");
    assert_eq!(allocate(&mut pair), named(ALICE, AuthenticationFailure::WrongPassword));
    log_in(&mut pair, "alice:1700003600", SECRET);
    assert_eq!(allocate(&mut pair), named("alice:1700003600", AuthenticationFailure::UnknownUser));
    // A name with another time has another password.
    log_in(&mut pair, ALICE, SECRET);
    pair.clients[0].username = "1700007200:alice";
    assert_eq!(allocate(&mut pair), named("1700007200:alice", AuthenticationFailure::WrongPassword));
    assert_eq!(pair.server.totals().allocations, 0);
}

#[test]
fn stun_065_074_username_anonymity_is_not_announced_where_names_cannot_be_found_by_hash() {
    let mut pair = pair(|_| {});
    pair.build(0, wire::REFRESH, &[]);
    assert!(pair.clients[0].nonce.as_ref().unwrap().starts_with(b"obMatJos2gAAA"));
    pair.clients[0].auth = Auth::RFC8489;
    assert_eq!(allocate(&mut pair), (401, Some((None, AuthenticationFailure::UnknownUser))));
    // The listed users can, if a client tries.
    pair.clients[0].username = crate::pair::USER;
    pair.clients[0].password = crate::pair::PASSWORD;
    assert_eq!(allocate(&mut pair), (0, None));
}

#[test]
fn the_end_of_a_credential_counts_at_allocate_only() {
    let mut pair = pair(|_| {});
    pair.advance(seconds(3598));
    pair.clients[0].nonce = None;
    pair.allocate(0);
    pair.advance(seconds(2));
    assert!(pair.refresh(0, 600).is_success());
    assert!(pair.permit(0, PEER).is_success());
    assert!(pair.bind(0, 0x4000, PEER).is_success());
    assert!(pair.refresh(0, 0).is_success());
    let expired = (401, Some((Some(ALICE.to_owned()), AuthenticationFailure::ExpiredCredential)));
    assert_eq!(allocate(&mut pair), expired);
    // Whoever does not know the password does not learn that it is over.
    log_in(&mut pair, ALICE, "guess");
    let wrong = (401, Some((Some(ALICE.to_owned()), AuthenticationFailure::WrongPassword)));
    assert_eq!(allocate(&mut pair), wrong);
}

#[test]
fn with_strict_expiry_it_counts_at_every_request() {
    let mut pair = pair(|config| config.strict_expiry = true);
    pair.allocate(0);
    pair.bind(0, 0x4000, PEER);
    pair.server.set_wall_clock(pair.now, seconds(NOW + 3600));
    for response in [pair.refresh(0, 0), pair.permit(0, PEER), pair.bind(0, 0x4000, PEER)] {
        assert_eq!(response.error(), 401);
        assert!(response.has(0x0015) && response.has(0x8002), "with a challenge");
    }
    assert_eq!(pair.channel_data(0, 0x4000, b"x").to_peer().2, b"x", "what is there stays");
}

#[test]
fn the_wall_clock_may_be_set_back_and_forth() {
    let mut pair = pair(|_| {});
    for (unix, code) in [(NOW + 3599, 0), (NOW + 3600, 401), (NOW - 1, 0)] {
        pair.server.set_wall_clock(pair.now, seconds(unix));
        assert_eq!(allocate(&mut pair).0, code, "{unix}");
        if code == 0 {
            pair.refresh(0, 0);
        }
    }
}

#[test]
fn turn_007_a_renewed_credential_is_another_username() {
    let mut pair = pair(|_| {});
    pair.allocate(0);
    log_in(&mut pair, "1700007200:alice", SECRET);
    assert_eq!(pair.refresh(0, 600).error(), 441);
    log_in(&mut pair, ALICE, SECRET);
    assert!(pair.refresh(0, 600).is_success());
}
