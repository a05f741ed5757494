//! What went wrong in servers of this kind, as far as messages and credentials go.

use crate::{
    pair::{Auth, Happened, PASSWORD, PEER, Pair, REALM, USER, seconds},
    wire::{self, Builder, Message},
};

const NONCE: u16 = 0x0015;

fn challenge(pair: &mut Pair, client: usize) -> Vec<u8> {
    let stranger = Builder::new(wire::REQUEST, wire::ALLOCATE, [1; 12]).build();
    pair.exchange(client, &stranger).attribute(NONCE).unwrap().to_vec()
}

/// Appends attributes behind everything, as somebody on the way could.
fn tampered(mut request: Vec<u8>, attributes: &[wire::Attribute]) -> Vec<u8> {
    let tail = Builder::new(0, 0, [0; 12]).attributes(attributes).build();
    request.extend(&tail[20..]);
    let length = (request.len() - 20) as u16;
    request[2..4].copy_from_slice(&length.to_be_bytes());
    request
}

// STUN-055, STUN-056
#[test]
fn attributes_after_message_integrity_change_nothing() {
    for auth in [Auth::RFC5389, Auth::RFC8489] {
        let mut pair = Pair::new();
        pair.clients[0].auth = auth;
        pair.allocate(0);
        let refresh = pair.build(0, wire::REFRESH, &[wire::lifetime(1200)]);
        let response = pair.exchange(0, &tampered(refresh, &[wire::lifetime(0), (0x7fff, vec![])]));
        assert_eq!((response.is_success(), response.lifetime()), (true, 1200), "{auth:?}");
        // What a request lacks, nobody can give it.
        let no_lifetime = pair.build(0, wire::REFRESH, &[]);
        assert_eq!(pair.exchange(0, &tampered(no_lifetime, &[wire::lifetime(3600)])).lifetime(), 600);
        let permit = pair.build(0, wire::CREATE_PERMISSION, &[wire::peer(PEER)]);
        let response =
            pair.exchange(0, &tampered(permit, &[wire::peer("9.9.9.9:9"), wire::peer("127.0.0.1:1")]));
        assert!(response.is_success());
        assert_eq!(pair.server.totals().permissions, 1);
        assert!(pair.send(0, "9.9.9.9:9", b"x").is_silence());
        let bind = pair.build(0, wire::CHANNEL_BIND, &[wire::peer(PEER)]);
        assert_eq!(pair.exchange(0, &tampered(bind, &[wire::channel_number(0x4000)])).error(), 400);
    }
}

// STUN-069, TURN-005
#[test]
fn nonces_cannot_be_predicted_from_nonces() {
    let mut pair = Pair::new();
    let (mine, own) = (0, challenge(&mut pair, 0));
    let victim = pair.add_client("203.0.113.1:4001");
    let victims = challenge(&mut pair, victim);
    // Same address but for the port, same second: nothing but the cookie and the time is common.
    let common = own.iter().zip(&victims).filter(|(a, b)| a == b).count();
    assert!(common < 13 + 6 + 8, "{common} bytes of {} in common", own.len());
    pair.advance(seconds(4));
    let later = challenge(&mut pair, mine);
    assert_ne!(own, later);
    // Time of one and MAC of another.
    let spliced = [&later[..18], &own[18..]].concat();
    let right = wire::long_term_key(USER, REALM, PASSWORD);
    for (nonce, code) in [(&victims, 438), (&spliced, 438), (&own, 437), (&later, 437)] {
        let transaction = pair.transaction(mine);
        let request = Builder::new(wire::REQUEST, wire::REFRESH, transaction);
        let request = request.credentials(USER, REALM, nonce).integrity(&right).build();
        assert_eq!(pair.exchange(mine, &request).error(), code);
    }
}

/// Two servers, one of which has seen a lot: their answers to the same are the same, byte by byte, and so have
/// nothing in them of what was in memory before.
#[test]
fn answers_hold_nothing_of_what_came_before() {
    let answers = |pair: &mut Pair| -> Vec<Happened> {
        let key = pair.key_of(0);
        let bare = |method| Builder::new(wire::REQUEST, method, [9; 12]);
        let requests = [
            bare(wire::BINDING).build(),
            bare(wire::BINDING).fingerprint().build(),
            bare(wire::BINDING).attributes(&[(0x7001, vec![]), (0x7002, vec![]), (0x7003, vec![])]).build(),
            bare(wire::ALLOCATE).build(),
            bare(wire::ALLOCATE).integrity(&key).build(),
            bare(wire::REFRESH).credentials(USER, REALM, b"x").integrity(&key).build(),
            pair.build(0, wire::REFRESH, &[(0x7001, vec![])]),
            pair.build(0, wire::REFRESH, &[]),
        ];
        requests.iter().map(|request| pair.deliver(0, request)).collect()
    };
    let mut fresh = Pair::new();
    let mut used = Pair::new();
    let other = used.add_client("203.0.113.77:7777");
    used.allocate(other);
    for byte in 0..=255 {
        used.deliver(other, &[byte; 700]);
        let soup = [(0x8022, vec![byte; 333]), (0x0006, vec![byte; 17]), (0x000a, vec![byte; 3])];
        used.deliver(
            other,
            &Builder::new(wire::REQUEST, wire::ALLOCATE, [byte; 12]).attributes(&soup).build(),
        );
    }
    used.refresh(other, 0);
    used.advance(seconds(10));
    fresh.advance(seconds(10));
    let (fresh, used) = (answers(&mut fresh), answers(&mut used));
    for (fresh, used) in fresh.iter().zip(&used) {
        assert_eq!(fresh.datagram(), used.datagram());
        // Which also finds padding that is not zero (STUN-126).
        Message::parse(fresh.datagram());
    }
}

// STUN-144
#[test]
fn the_list_of_unknown_attributes_is_bounded_and_has_each_once() {
    let mut pair = Pair::new();
    let unknown: Vec<_> = (0x1000..0x7000).step_by(2).map(|kind| (kind, vec![])).collect();
    let twice: Vec<_> = unknown.iter().chain(&unknown).cloned().collect();
    for attributes in [&unknown[..], &twice[..twice.len().min(14_000)]] {
        for request in [
            pair.build(0, wire::ALLOCATE, attributes),
            Builder::new(wire::REQUEST, wire::BINDING, [1; 12]).attributes(attributes).build(),
        ] {
            let response = pair.exchange(0, &request);
            assert_eq!(response.error(), 420);
            let list = response.attribute(0x000a).unwrap();
            assert_eq!(list.len(), 32);
            let first: Vec<_> = (0x1000u16..0x1020).step_by(2).flat_map(u16::to_be_bytes).collect();
            assert_eq!(list, first);
        }
    }
    // In a message that repeats itself, what is new is still found.
    let mut attributes = vec![(0x7001, vec![]); 1000];
    attributes.push((0x7002, vec![]));
    assert_eq!(pair.request(0, wire::REFRESH, &attributes).attribute(0x000a), Some(&[0x70, 1, 0x70, 2][..]));
}
