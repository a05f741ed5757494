//! Sending clients to another server (RFC 8489 section 10, RFC 8656 section 7.2).

use relay_user::turn::Totals;

use crate::{
    pair::{Auth, PASSWORD, PEER, Pair, REALM, USER},
    wire::{self, Builder, Message},
};

const ALTERNATE_SERVER: u16 = 0x8023;
const V4: &str = "203.0.113.9:3479";
const V6: &str = "[2001:db8::9]:3479";
/// The two as MAPPED-ADDRESS has them: a zero, the family, port and address, nothing XORed.
const V4_VALUE: [u8; 8] = [0, 1, 0x0d, 0x97, 203, 0, 113, 9];
const V6_VALUE: [u8; 20] = [0, 2, 0x0d, 0x97, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

fn pair(servers: &[&str]) -> Pair {
    let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
    Pair::with(|config| config.alternate_servers = servers)
}

fn allocate(pair: &mut Pair, client: usize) -> Message {
    pair.request(client, wire::ALLOCATE, &[wire::requested_transport(17)])
}

fn alternates(response: &Message) -> Vec<&[u8]> {
    let is_alternate = |&&(kind, _): &&wire::Attribute| kind == ALTERNATE_SERVER;
    response.attributes.iter().filter(is_alternate).map(|(_, value)| &value[..]).collect()
}

#[test]
fn stun_109_110_111_113_turn_059_allocate_is_answered_300_with_the_clients_family_first() {
    for servers in [[V4, V6], [V6, V4]] {
        let mut pair = pair(&servers);
        let on_ipv6 = pair.add_client("[2001:db8::1]:4000");
        for auth in [Auth::RFC5389, Auth::RFC8489] {
            pair.clients[0].auth = auth;
            pair.clients[on_ipv6].auth = auth;
            let response = allocate(&mut pair, 0);
            assert_eq!(response.error(), 300);
            assert_eq!(alternates(&response), [&V4_VALUE[..], &V6_VALUE]);
            let key = pair.key_of(0);
            assert!(response.is_protected_by(&key) || response.is_sha256_protected_by(&key));
            let response = allocate(&mut pair, on_ipv6);
            assert_eq!(alternates(&response), [&V6_VALUE[..], &V4_VALUE]);
        }
        assert_eq!(pair.server.totals(), Totals::default(), "TURN-062");
        assert!(pair.open.is_empty());
    }
}

#[test]
fn stun_110_a_client_that_cannot_reach_the_other_server_is_served_here() {
    let mut pair = pair(&[V4]);
    let on_ipv6 = pair.add_client("[2001:db8::1]:4000");
    assert_eq!(alternates(&allocate(&mut pair, 0)), [V4_VALUE]);
    assert!(allocate(&mut pair, on_ipv6).is_success());
}

#[test]
fn stun_108_strangers_are_not_sent_anywhere() {
    let mut pair = pair(&[V4, V6]);
    let stranger = Builder::new(wire::REQUEST, wire::ALLOCATE, [1; 12]).build();
    let response = pair.exchange(0, &stranger);
    assert_eq!((response.error(), response.has(ALTERNATE_SERVER)), (401, false));
    let nonce = response.attribute(0x0015).unwrap().to_vec();
    let wrong = wire::long_term_key(USER, REALM, "guess");
    let request = Builder::new(wire::REQUEST, wire::ALLOCATE, [2; 12])
        .attribute(&wire::requested_transport(17))
        .credentials(USER, REALM, &nonce)
        .integrity(&wrong);
    let response = pair.exchange(0, &request.build());
    assert_eq!((response.error(), response.has(ALTERNATE_SERVER)), (401, false));
    let right = wire::long_term_key(USER, REALM, PASSWORD);
    let no_name = Builder::new(wire::REQUEST, wire::ALLOCATE, [3; 12])
        .attributes(&[(0x0014, REALM.into()), (0x0015, nonce)])
        .integrity(&right);
    assert_eq!(pair.exchange(0, &no_name.build()).error(), 400);
}

#[test]
fn stun_115_binding_is_not_redirected() {
    let mut pair = pair(&[V4, V6]);
    let binding = Builder::new(wire::REQUEST, wire::BINDING, [1; 12]).build();
    assert!(pair.exchange(0, &binding).is_success());
}

#[test]
fn turn_059_only_what_would_be_granted_is_redirected() {
    let mut pair = pair(&[V4, V6]);
    assert_eq!(pair.request(0, wire::ALLOCATE, &[]).error(), 400, "3. REQUESTED-TRANSPORT comes before 11");
    let tcp = [wire::requested_transport(6)];
    assert_eq!(pair.request(0, wire::ALLOCATE, &tcp).error(), 442);
    // And only Allocate: allocations that were adopted from before are kept up.
    assert_eq!(pair.refresh(0, 600).error(), 437);
    assert_eq!(pair.permit(0, PEER).error(), 437);
    assert_eq!(pair.bind(0, 0x4000, PEER).error(), 437);
}
