//! Long-term credentials (RFC 8489 section 9.2.4, RFC 8656 section 5).

use relay_user::turn::{AuthenticationFailure, Event};

use crate::{
    pair::{OTHER_PASSWORD, OTHER_USER, PASSWORD, PASSWORD_ALGORITHMS, PEER, Pair, REALM, USER, seconds},
    wire::{self, Attribute, Builder, Message},
};

const METHODS: [u16; 4] = [wire::ALLOCATE, wire::REFRESH, wire::CREATE_PERMISSION, wire::CHANNEL_BIND];

const USERNAME: u16 = 0x0006;
const INTEGRITY: u16 = 0x0008;
const REALM_ATTRIBUTE: u16 = 0x0014;
const NONCE: u16 = 0x0015;

fn nonce(pair: &mut Pair) -> Vec<u8> {
    pair.build(0, wire::ALLOCATE, &[]);
    pair.clients[0].nonce.clone().unwrap()
}

fn ask(pair: &mut Pair, method: u16, attributes: &[Attribute], key: Option<&[u8]>) -> Message {
    let transaction = pair.transaction(0);
    let mut request = Builder::new(wire::REQUEST, method, transaction).attributes(attributes);
    if let Some(key) = key {
        request = request.integrity(key);
    }
    pair.exchange(0, &request.build())
}

fn credentials(username: &str, nonce: &[u8]) -> Vec<Attribute> {
    vec![(USERNAME, username.into()), (REALM_ATTRIBUTE, REALM.into()), (NONCE, nonce.to_vec())]
}

fn assert_challenge(response: &Message, code: u16) {
    assert_eq!(response.error(), code);
    assert_eq!(response.attribute(REALM_ATTRIBUTE), Some(REALM.as_bytes()));
    // STUN-072, STUN-073, STUN-079: the algorithms and the bit that tells of them, SHA-256 first.
    assert!(response.attribute(NONCE).unwrap().starts_with(b"obMatJos2wAAA"));
    assert_eq!(response.attribute(0x8002), Some(&PASSWORD_ALGORITHMS[..]));
    for absent in [USERNAME, INTEGRITY, 0x001c, 0x001e, 0x001d, 0x8022] {
        assert!(!response.has(absent), "{absent:#06x} in a challenge");
    }
}

#[test]
fn stun_083_084_085_turn_001_033_034_no_integrity_attribute_gives_401_with_realm_and_nonce() {
    let mut pair = Pair::new();
    let nonce = nonce(&mut pair);
    for method in METHODS {
        assert_challenge(&ask(&mut pair, method, &[], None), 401);
        assert_challenge(&ask(&mut pair, method, &credentials(USER, &nonce), None), 401);
    }
    assert_eq!(pair.server.totals().allocations, 0);
}

#[test]
fn stun_086_087_missing_attributes_give_a_bare_400() {
    let mut pair = Pair::new();
    let nonce = nonce(&mut pair);
    let key = wire::long_term_key(USER, REALM, PASSWORD);
    for missing in [USERNAME, REALM_ATTRIBUTE, NONCE] {
        let mut attributes = credentials(USER, &nonce);
        attributes.retain(|&(kind, _)| kind != missing);
        let response = ask(&mut pair, wire::ALLOCATE, &attributes, Some(&key));
        assert_eq!(response.error(), 400);
        assert_eq!(response.attributes.len(), 1, "ERROR-CODE alone: {response:?}");
    }
}

#[test]
fn stun_072_073_092_093_unknown_user_gives_401() {
    let mut pair = Pair::new();
    let nonce = nonce(&mut pair);
    let key = wire::long_term_key("mallory", REALM, PASSWORD);
    assert_challenge(&ask(&mut pair, wire::ALLOCATE, &credentials("mallory", &nonce), Some(&key)), 401);

    let other_realm = wire::long_term_key(USER, "example.com", PASSWORD);
    let mut attributes = credentials(USER, &nonce);
    attributes[1].1 = b"example.com".to_vec();
    assert_challenge(&ask(&mut pair, wire::ALLOCATE, &attributes, Some(&other_realm)), 401);

    let not_utf8 = [(USERNAME, vec![0xff, 0xfe]), attributes[1].clone(), attributes[2].clone()];
    assert_challenge(&ask(&mut pair, wire::ALLOCATE, &not_utf8, Some(&key)), 401);
}

#[test]
fn stun_095_096_wrong_password_gives_401() {
    let mut pair = Pair::new();
    let nonce = nonce(&mut pair);
    let key = wire::long_term_key(USER, REALM, "Wonderland");
    assert_challenge(&ask(&mut pair, wire::ALLOCATE, &credentials(USER, &nonce), Some(&key)), 401);
}

#[test]
fn stun_097_098_099_turn_006_stale_nonce_gives_438_whose_nonce_is_good_at_once() {
    let mut pair = Pair::new();
    pair.allocate(0);
    for _ in 0..7 {
        pair.advance(seconds(550));
        if pair.refresh(0, 600).class == wire::ERROR {
            break;
        }
    }
    let response = pair.refresh(0, 600);
    assert_challenge(&response, 438);
    pair.clients[0].nonce = Some(response.attribute(NONCE).unwrap().to_vec());
    assert!(pair.refresh(0, 600).is_success());
}

#[test]
fn stun_071_082_099_132_141_foreign_and_changed_nonces_give_438() {
    let mut pair = Pair::new();
    let good = nonce(&mut pair);
    let key = wire::long_term_key(USER, REALM, PASSWORD);
    let elsewhere = pair.add_client("203.0.113.1:4001");
    pair.build(elsewhere, wire::ALLOCATE, &[]);
    let foreign = pair.clients[elsewhere].nonce.clone().unwrap();
    assert_ne!(foreign, good, "STUN-067");

    let mut other_cookie = good.clone();
    other_cookie[9..13].copy_from_slice(b"gAAA");
    for bad in [foreign, other_cookie, b"f//499k954d6OL34oL9FSTvy64sA".to_vec(), vec![], vec![b'x'; 763]] {
        let response = ask(&mut pair, wire::REFRESH, &credentials(USER, &bad), Some(&key));
        assert_challenge(&response, 438);
    }
    let response = ask(&mut pair, wire::REFRESH, &credentials(USER, &[b'x'; 764]), Some(&key));
    assert_eq!(response.error(), 400, "STUN-141: up to 763 bytes are read");
    for (length, code) in [(763, 401), (764, 400)] {
        let response = ask(&mut pair, wire::REFRESH, &credentials(&"u".repeat(length), &good), Some(&key));
        assert_eq!(response.error(), code, "STUN-132");
    }
}

#[test]
fn stun_100_stale_nonce_and_wrong_password_give_401() {
    let mut pair = Pair::new();
    let nonce = nonce(&mut pair);
    pair.advance(seconds(3601));
    let key = wire::long_term_key(USER, REALM, "wrong");
    assert_challenge(&ask(&mut pair, wire::ALLOCATE, &credentials(USER, &nonce), Some(&key)), 401);
}

#[test]
fn turn_031_stale_nonce_leaves_the_allocation_alone() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.bind(0, 0x4000, PEER);
    let flows = pair.flows.clone();
    pair.clients[0].nonce = Some(b"obMatJos2AAAA".to_vec());
    for attributes in [[wire::lifetime(0)], [wire::lifetime(3600)]] {
        assert_eq!(pair.request(0, wire::REFRESH, &attributes).error(), 438);
    }
    assert_eq!(pair.flows, flows);
    assert_eq!(pair.channel_data(0, 0x4000, b"x").to_peer().2, b"x");
}

#[test]
fn stun_032_033_102_103_104_105_turn_013_every_answer_to_an_authenticated_request_is_protected() {
    let mut pair = Pair::new();
    let key = pair.key_of(0);
    let no_allocation: Vec<_> = METHODS[1..].iter().map(|&method| pair.request(0, method, &[])).collect();
    let refused = pair.request(0, wire::ALLOCATE, &[]);
    let allocated = pair.request(0, wire::ALLOCATE, &[wire::requested_transport(17)]);
    let granted = [
        allocated,
        pair.refresh(0, 600),
        pair.permit(0, PEER),
        pair.bind(0, 0x4000, PEER),
        pair.bind(0, 0x4001, PEER),
    ];
    for response in no_allocation.iter().chain([&refused]).chain(&granted) {
        assert!(response.is_protected_by(&key), "{response:?}");
        for absent in [USERNAME, REALM_ATTRIBUTE, NONCE, 0x001e] {
            assert!(!response.has(absent), "STUN-105: {absent:#06x}");
        }
        assert!(response.has(0x8022), "TURN-013: {response:?}");
    }
}

#[test]
fn stun_147_turn_251_software_can_be_switched_off() {
    let mut pair = Pair::with(|config| config.software = None);
    let response = pair.request(0, wire::ALLOCATE, &[wire::requested_transport(17)]);
    assert!(response.is_success() && !response.has(0x8022));
}

#[test]
fn turn_007_another_user_gets_441() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.bind(0, 0x4000, PEER);
    let before: Vec<_> = pair.server.sessions().collect();
    pair.clients[0].username = OTHER_USER;
    pair.clients[0].password = OTHER_PASSWORD;
    assert_eq!(pair.refresh(0, 0).error(), 441);
    assert_eq!(pair.permit(0, "9.9.9.9:1").error(), 441);
    assert_eq!(pair.bind(0, 0x4001, "9.9.9.9:1").error(), 441);
    let allocate = pair.request(0, wire::ALLOCATE, &[wire::requested_transport(17)]);
    assert_eq!(allocate.error(), 437);
    assert_eq!(pair.server.sessions().collect::<Vec<_>>(), before);
}

#[test]
fn turn_009_010_437_without_an_allocation_but_only_for_users() {
    let mut pair = Pair::new();
    for method in METHODS[1..].iter().copied() {
        assert_eq!(ask(&mut pair, method, &[], None).error(), 401);
        assert_eq!(pair.request(0, method, &[wire::peer(PEER)]).error(), 437);
    }
}

#[test]
fn turn_240_requests_without_valid_credentials_change_nothing() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.bind(0, 0x4000, PEER);
    let before: Vec<_> = pair.server.sessions().collect();
    let nonce = nonce(&mut pair);
    let wrong = wire::long_term_key(USER, REALM, "guess");
    for method in METHODS {
        let mut attributes = vec![wire::lifetime(0), wire::channel_number(0x4001), wire::peer("9.9.9.9:9")];
        assert_eq!(ask(&mut pair, method, &attributes, None).error(), 401);
        attributes.extend(credentials(USER, &nonce));
        assert_eq!(ask(&mut pair, method, &attributes, Some(&wrong)).error(), 401);
    }
    assert_eq!(pair.server.sessions().collect::<Vec<_>>(), before);
}

#[test]
fn turn_008_one_username_serves_several_clients_with_an_allocation_each() {
    let mut pair = Pair::new();
    let second = pair.add_client("203.0.113.2:4000");
    assert_ne!(pair.allocate(0), pair.allocate(second));
}

#[test]
fn failures_are_reported_with_their_cause() {
    let mut pair = Pair::new();
    let nonce = nonce(&mut pair);
    let cases = [
        ("mallory", PASSWORD, &nonce[..], AuthenticationFailure::UnknownUser),
        (USER, "wrong", &nonce, AuthenticationFailure::WrongPassword),
        (USER, PASSWORD, b"stale", AuthenticationFailure::StaleNonce),
    ];
    for (username, password, nonce, expected) in cases {
        let request = Builder::new(wire::REQUEST, wire::REFRESH, [1; 12])
            .credentials(username, REALM, nonce)
            .integrity(&wire::long_term_key(username, REALM, password))
            .build();
        let five_tuple = pair.clients[0].five_tuple;
        let happened = pair.deliver(0, &request);
        let expected =
            Event::AuthenticationFailed { five_tuple, username: Some(username.to_owned()), cause: expected };
        assert_eq!(happened.events().collect::<Vec<_>>(), [&expected]);
    }
}
