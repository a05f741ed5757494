//! Password algorithms, MESSAGE-INTEGRITY-SHA256 and USERHASH (RFC 8489 sections 9.2 and 14.4 to 14.12).

use relay_user::turn::{AuthenticationFailure, Event};

use crate::{
    pair::{
        Algorithm, Auth, OTHER_PASSWORD, OTHER_USER, PASSWORD, PASSWORD_ALGORITHMS, PEER, Pair, REALM, USER,
        seconds,
    },
    wire::{self, Attribute, Builder, Message},
};

const USERNAME: u16 = 0x0006;
const INTEGRITY: u16 = 0x0008;
const REALM_ATTRIBUTE: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const INTEGRITY_SHA256: u16 = 0x001c;
const ALGORITHM: u16 = 0x001d;
const USERHASH: u16 = 0x001e;
const ALGORITHMS: u16 = 0x8002;

fn every_auth() -> impl Iterator<Item = Auth> {
    let algorithms = [None, Some(Algorithm::Md5), Some(Algorithm::Sha256)];
    algorithms.into_iter().flat_map(|algorithm| {
        [(false, false), (false, true), (true, false), (true, true)].map(|(userhash, sha256)| Auth {
            userhash,
            algorithm,
            sha256,
        })
    })
}

/// A nonce of the first client, and what it is asked with when nothing is wrong.
fn prepared(pair: &mut Pair) -> Vec<Attribute> {
    pair.build(0, wire::REFRESH, &[]);
    vec![
        (USERNAME, USER.into()),
        (REALM_ATTRIBUTE, REALM.into()),
        (NONCE, pair.clients[0].nonce.clone().unwrap()),
        (ALGORITHMS, PASSWORD_ALGORITHMS.to_vec()),
        (ALGORITHM, vec![0, 2, 0, 0]),
    ]
}

/// Sends a Refresh, for which a valid client without an allocation gets 437.
fn ask(pair: &mut Pair, attributes: &[Attribute], key: &[u8]) -> (Message, Option<AuthenticationFailure>) {
    let transaction = pair.transaction(0);
    let request = Builder::new(wire::REQUEST, wire::REFRESH, transaction).attributes(attributes);
    let happened = pair.deliver(0, &request.integrity_sha256(key).build());
    let cause = happened.events().find_map(|event| match event {
        Event::AuthenticationFailed { cause, .. } => Some(*cause),
        _ => None,
    });
    (Message::parse(happened.datagram()), cause)
}

fn key() -> [u8; 32] {
    wire::long_term_key_sha256(USER, REALM, PASSWORD)
}

fn with(attributes: &[Attribute], kind: u16, value: &[u8]) -> Vec<Attribute> {
    let mut changed = without(attributes, kind);
    changed.push((kind, value.to_vec()));
    changed
}

fn without(attributes: &[Attribute], kind: u16) -> Vec<Attribute> {
    attributes.iter().filter(|&&(other, _)| other != kind).cloned().collect()
}

#[test]
fn stun_076_077_088_102_103_104_either_key_verifies_with_either_attribute_and_protects_the_responses() {
    for auth in every_auth() {
        let mut pair = Pair::new();
        pair.clients[0].auth = auth;
        let key = pair.key_of(0);
        let responses = [
            pair.request(0, wire::REFRESH, &[]),
            pair.request(0, wire::ALLOCATE, &[(0x7ffe, vec![])]),
            pair.request(0, wire::ALLOCATE, &[wire::requested_transport(17)]),
            pair.permit(0, PEER),
            pair.bind(0, 0x4000, PEER),
            pair.bind(0, 0x4001, PEER),
            pair.refresh(0, 0),
        ];
        let outcomes: Vec<_> =
            responses.iter().map(|r| if r.is_success() { 200 } else { r.error() }).collect();
        assert_eq!(outcomes, [437, 420, 200, 200, 200, 400, 200], "{auth:?}");
        for response in &responses {
            let is_protected = if auth.algorithm.is_some() {
                response.is_sha256_protected_by(&key)
            } else {
                response.is_protected_by(&key)
            };
            assert!(is_protected, "{auth:?} {response:?}");
            // STUN-105, STUN-143
            for absent in [USERNAME, USERHASH, REALM_ATTRIBUTE, NONCE, ALGORITHM] {
                assert!(!response.has(absent), "{absent:#06x}");
            }
        }
    }
}

#[test]
fn stun_089_090_091_143_password_algorithms_that_are_not_the_offer_give_400() {
    let mut pair = Pair::new();
    let good = prepared(&mut pair);
    assert_eq!(ask(&mut pair, &good, &key()).0.error(), 437);
    let bad = [
        ("only the algorithm", without(&good, ALGORITHMS)),
        ("only the offer", without(&good, ALGORITHM)),
        ("another order", with(&good, ALGORITHMS, &[0, 1, 0, 0, 0, 2, 0, 0])),
        ("one is missing", with(&good, ALGORITHMS, &[0, 2, 0, 0])),
        ("one more", with(&good, ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0])),
        ("parameters", with(&good, ALGORITHMS, &[0, 2, 0, 4, 1, 2, 3, 4, 0, 1, 0, 0])),
        ("no offer", with(&good, ALGORITHMS, &[])),
        ("no entry of it", with(&good, ALGORITHM, &[0, 3, 0, 0])),
        ("reserved", with(&good, ALGORITHM, &[0, 0, 0, 0])),
        ("its parameters", with(&good, ALGORITHM, &[0, 2, 0, 4, 1, 2, 3, 4])),
        ("cut short", with(&good, ALGORITHM, &[0, 2])),
    ];
    for (what, attributes) in bad {
        let (response, _) = ask(&mut pair, &attributes, &key());
        assert_eq!(response.error(), 400, "{what}");
        assert_eq!(response.attributes.len(), 1, "ERROR-CODE alone: {response:?}");
    }
}

#[test]
fn stun_074_106_turn_007_userhash_stands_for_the_username() {
    let mut pair = Pair::new();
    pair.clients[0].auth = Auth::RFC8489;
    pair.allocate(0);
    assert_eq!(pair.server.sessions().next().unwrap().username, USER);
    pair.clients[0].auth = Auth::RFC5389;
    assert!(pair.permit(0, PEER).is_success(), "by name what was made by hash");
    pair.clients[0].auth = Auth::RFC8489;
    assert!(pair.refresh(0, 600).is_success(), "and by hash again");

    pair.clients[0].username = OTHER_USER;
    pair.clients[0].password = OTHER_PASSWORD;
    assert_eq!(pair.refresh(0, 0).error(), 441);
    assert_eq!(pair.server.totals().allocations, 1);
}

#[test]
fn stun_092_093_106_userhash_of_nobody_gives_401_and_of_another_length_400() {
    let mut pair = Pair::new();
    let good = without(&prepared(&mut pair), USERNAME);
    let hash = wire::userhash(USER, REALM).1;
    assert_eq!(ask(&mut pair, &with(&good, USERHASH, &hash), &key()).0.error(), 437);
    let nobody = [wire::userhash("mallory", REALM).1, wire::userhash(USER, "example.com").1, vec![0; 32]];
    for hash in nobody {
        let (response, cause) = ask(&mut pair, &with(&good, USERHASH, &hash), &key());
        assert_eq!((response.error(), cause), (401, Some(AuthenticationFailure::UnknownUser)));
        assert!(response.has(NONCE) && response.has(ALGORITHMS) && response.has(REALM_ATTRIBUTE));
        assert!(!response.has(USERHASH) && !response.has(USERNAME));
    }
    for length in [0, 31] {
        let attributes = with(&good, USERHASH, &hash[..length]);
        assert_eq!(ask(&mut pair, &attributes, &key()).0.error(), 400, "{length} bytes");
    }
}

#[test]
fn a_wrong_password_is_reported_with_the_name_that_the_hash_stands_for() {
    let mut pair = Pair::new();
    pair.clients[0].auth = Auth::RFC8489;
    pair.clients[0].password = "guess";
    let request = pair.build(0, wire::ALLOCATE, &[wire::requested_transport(17)]);
    let five_tuple = pair.clients[0].five_tuple;
    let happened = pair.deliver(0, &request);
    let expected = Event::AuthenticationFailed {
        five_tuple,
        username: Some(USER.to_owned()),
        cause: AuthenticationFailure::WrongPassword,
    };
    assert_eq!(happened.events().collect::<Vec<_>>(), [&expected]);
}

/// Each request has every fault from its own on; the first one in the order of RFC 8489 decides.
#[test]
fn stun_082_the_first_fault_in_the_order_of_the_rfc_decides() {
    let mut pair = Pair::new();
    let good = prepared(&mut pair);
    let stale = with(&good, NONCE, b"obMatJos2wAAAstale");
    let guess = wire::long_term_key_sha256(USER, REALM, "guess");
    let unknown = with(&stale, USERNAME, b"mallory");
    let algorithms = with(&unknown, ALGORITHM, &[0, 3, 0, 0]);
    let missing = without(&algorithms, REALM_ATTRIBUTE);

    let unprotected = Builder::new(wire::REQUEST, wire::REFRESH, [1; 12]).attributes(&missing).build();
    assert_eq!(pair.exchange(0, &unprotected).error(), 401, "no integrity attribute");
    let outcome = |(response, cause): (Message, _)| (response.error(), cause);
    // A 400 has no challenge, a 401 for the lack of an integrity attribute has no cause.
    assert_eq!(outcome(ask(&mut pair, &missing, &guess)), (400, None), "a required attribute");
    assert_eq!(outcome(ask(&mut pair, &algorithms, &guess)), (400, None), "password algorithms");
    let unknown = outcome(ask(&mut pair, &unknown, &guess));
    assert_eq!(unknown, (401, Some(AuthenticationFailure::UnknownUser)));
    let wrong = outcome(ask(&mut pair, &stale, &guess));
    assert_eq!(wrong, (401, Some(AuthenticationFailure::WrongPassword)), "STUN-100");
    let stale = outcome(ask(&mut pair, &stale, &key()));
    assert_eq!(stale, (438, Some(AuthenticationFailure::StaleNonce)));
    assert_eq!(outcome(ask(&mut pair, &good, &key())), (437, None), "nothing is wrong");
}

/// Somebody on the way takes the bits from the nonce cookie, so that the client falls back to MD5.
#[test]
fn stun_071_073_taking_features_from_the_nonce_cookie_is_noticed() {
    for cookie in [b"AAAA", b"gAAA", b"QAAA"] {
        let mut pair = Pair::new();
        prepared(&mut pair);
        let nonce = pair.clients[0].nonce.as_mut().unwrap();
        assert_eq!(&nonce[9..13], b"wAAA", "STUN-065");
        nonce[9..13].copy_from_slice(cookie);
        let response = pair.request(0, wire::ALLOCATE, &[wire::requested_transport(17)]);
        assert_eq!(response.error(), 438);
        assert_eq!(response.attribute(ALGORITHMS), Some(&PASSWORD_ALGORITHMS[..]));
        // With the algorithm it had been told of, the client hears of the fraud too.
        pair.clients[0].auth = Auth::RFC8489;
        let response = pair.request(0, wire::ALLOCATE, &[wire::requested_transport(17)]);
        assert_eq!(response.error(), 438);
        pair.clients[0].nonce = Some(response.attribute(NONCE).unwrap().to_vec());
        pair.allocate(0);
    }
}

#[test]
fn stun_094_107_135_a_valid_sha1_integrity_does_not_save_a_corrupt_sha256_one() {
    let mut pair = Pair::new();
    let good = prepared(&mut pair);
    let key = key();
    let request =
        |pair: &mut Pair| Builder::new(wire::REQUEST, wire::REFRESH, pair.transaction(0)).attributes(&good);
    let both = request(&mut pair).integrity(&key).integrity_sha256(&key).build();
    assert_eq!(pair.exchange(0, &both).error(), 437, "both are right");
    // Every byte of the value counts.
    for position in both.len() - 32..both.len() {
        let mut corrupt = both.clone();
        corrupt[position] ^= 0x80;
        assert_eq!(pair.exchange(0, &corrupt).error(), 401, "byte {position}");
    }
    let other = request(&mut pair).integrity(&key).integrity_sha256(b"another").build();
    assert_eq!(pair.exchange(0, &other).error(), 401);
    let sha256_alone = request(&mut pair).integrity(b"another").integrity_sha256(&key).build();
    assert_eq!(pair.exchange(0, &sha256_alone).error(), 437, "SHA-256 alone counts");
    for length in [0, 4, 16, 28, 31, 36] {
        let mut value = both[both.len() - 32..].to_vec();
        value.resize(length, 0);
        let truncated = request(&mut pair).integrity(&key).attribute(&(INTEGRITY_SHA256, value)).build();
        assert_eq!(pair.exchange(0, &truncated).error(), 401, "{length} bytes");
    }
    let mut sha1 = request(&mut pair).integrity(&key).build();
    assert_eq!(pair.exchange(0, &sha1).error(), 437);
    let last = sha1.len() - 1;
    assert!(sha1[last - 23..][..4] == [0, INTEGRITY as u8, 0, 20]);
    sha1[last] ^= 1;
    assert_eq!(pair.exchange(0, &sha1).error(), 401);
}

#[test]
fn turn_031_stun_097_099_a_stale_nonce_is_replaced_for_every_way_to_authenticate() {
    for auth in every_auth() {
        let mut pair = Pair::with(|config| config.lifetimes.nonce = seconds(60));
        pair.clients[0].auth = auth;
        pair.allocate(0);
        pair.advance(seconds(61));
        let response = pair.refresh(0, 600);
        assert_eq!(response.error(), 438, "TURN-006: nonces are good for a minute here");
        assert_eq!(response.attribute(ALGORITHMS), Some(&PASSWORD_ALGORITHMS[..]));
        for absent in [USERNAME, USERHASH, INTEGRITY, INTEGRITY_SHA256] {
            assert!(!response.has(absent), "STUN-098");
        }
        pair.clients[0].nonce = Some(response.attribute(NONCE).unwrap().to_vec());
        assert!(pair.refresh(0, 600).is_success());
    }
}
