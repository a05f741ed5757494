//! The limit of responses to a source before anybody is authenticated.

use crate::{
    pair::{PEER, Pair, USER, seconds},
    wire::{self, Builder},
};

const LIMIT: u32 = 5;

fn pair() -> Pair {
    Pair::with(|config| config.limits.unauthenticated_per_second = LIMIT)
}

fn binding() -> Vec<u8> {
    Builder::new(wire::REQUEST, wire::BINDING, [1; 12]).build()
}

/// How many of so many datagrams are answered.
fn answered(pair: &mut Pair, client: usize, datagram: &[u8], times: usize) -> usize {
    (0..times).map(|_| pair.deliver(client, datagram).to_client().count()).sum()
}

/// Every kind of response that needs no valid credentials.
fn unauthenticated(pair: &mut Pair) -> Vec<(&'static str, Vec<u8>)> {
    let request = |method| Builder::new(wire::REQUEST, method, [1; 12]);
    let key = pair.key_of(0);
    let mut malformed = request(wire::ALLOCATE).attribute(&wire::lifetime(1)).build();
    malformed[23] = 40;
    pair.clients[0].nonce = Some(b"stale".to_vec());
    let stale = pair.build(0, wire::REFRESH, &[]);
    pair.clients[0].nonce = None;
    vec![
        ("Binding", binding()),
        ("Binding, 420", request(wire::BINDING).attribute(&(0x7ffe, vec![])).build()),
        ("401", request(wire::ALLOCATE).build()),
        ("400, malformed", malformed),
        ("400, incomplete", request(wire::ALLOCATE).integrity(&key).build()),
        ("401, wrong", request(wire::REFRESH).credentials(USER, "example.org", b"x").integrity(b"x").build()),
        ("438", stale),
    ]
}

#[test]
fn a_source_gets_so_many_unauthenticated_responses_a_second_and_the_rest_is_counted() {
    let mut first = pair();
    for (what, request) in unauthenticated(&mut first) {
        let mut pair = pair();
        assert_eq!(answered(&mut pair, 0, &request, 20), LIMIT as usize, "{what}");
        assert_eq!(pair.drops("unauthenticated_rate"), 15);
        pair.advance(seconds(1));
        assert_eq!(answered(&mut pair, 0, &request, 20), LIMIT as usize, "{what}, a second later");
        // The port does not make another source, the address does.
        let other_port = pair.add_client("203.0.113.1:4001");
        assert_eq!(answered(&mut pair, other_port, &request, 20), 0);
        let other_address = pair.add_client("203.0.113.2:4000");
        assert_eq!(answered(&mut pair, other_address, &request, 20), LIMIT as usize);
    }
}

#[test]
fn users_are_served_whatever_comes_from_their_address() {
    let mut pair = pair();
    pair.allocate(0);
    answered(&mut pair, 0, &binding(), 100);
    for _ in 0..100 {
        assert!(pair.refresh(0, 600).is_success());
        assert_eq!(pair.request(0, wire::REFRESH, &[(0x7ffe, vec![])]).error(), 420);
    }
    assert!(pair.bind(0, 0x4000, PEER).is_success());
    assert_eq!(pair.channel_data(0, 0x4000, b"x").to_peer().2, b"x");
    pair.permit(0, PEER);
    assert_eq!(pair.send(0, PEER, b"x").to_peer().2, b"x");
}

/// Whoever has used up what strangers get, be it a neighbour behind the same NAT or somebody who forges their
/// address, must not keep users from the nonce that the rest of their session needs.
#[test]
fn turn_006_stun_097_a_user_gets_a_new_nonce_whatever_strangers_get() {
    let mut pair = pair();
    pair.allocate(0);
    pair.refresh(0, 3600);
    pair.advance(seconds(3599));
    let stranger = Builder::new(wire::REQUEST, wire::ALLOCATE, [1; 12]).build();
    assert_eq!(answered(&mut pair, 0, &stranger, 100), LIMIT as usize);
    pair.clients[0].nonce = Some(b"stale".to_vec());
    let challenge = pair.refresh(0, 3600);
    assert_eq!(challenge.error(), 438);
    pair.clients[0].nonce = Some(challenge.attribute(0x0015).unwrap().to_vec());
    assert!(pair.refresh(0, 3600).is_success());
    // Nor do users leave nothing to those who have yet to log in.
    pair.advance(seconds(1));
    pair.clients[0].nonce = Some(b"stale".to_vec());
    let stale = pair.build(0, wire::REFRESH, &[]);
    assert_eq!(answered(&mut pair, 0, &stale, 100), LIMIT as usize);
    assert_eq!(answered(&mut pair, 0, &stranger, 100), LIMIT as usize);
}

#[test]
fn without_a_limit_everything_is_answered() {
    let mut pair = Pair::with(|config| config.limits.unauthenticated_per_second = 0);
    assert_eq!(answered(&mut pair, 0, &binding(), 5_000), 5_000);
}

#[test]
fn stun_029_unauthenticated_packets_leave_nothing_to_remember() {
    let mut pair = pair();
    pair.allocate(0);
    let before: Vec<_> = pair.server.sessions().collect();
    let timeout = pair.server.poll_timeout();
    let requests = unauthenticated(&mut Pair::new());
    for address in 0..2_000u32 {
        let client = pair.add_client(&format!("100.64.{}.{}:5000", address >> 8, address & 0xff));
        for (_, request) in &requests {
            pair.deliver(client, request);
        }
    }
    assert_eq!(pair.server.sessions().collect::<Vec<_>>(), before);
    assert_eq!(pair.server.poll_timeout(), timeout);
}
