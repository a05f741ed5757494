//! What holds for every STUN message (RFC 8489 sections 6 and 14), and Binding.

use crate::{
    pair::{Auth, Happened, PEER, Pair, REALM, USER},
    wire::{self, Builder, Message},
};

fn binding() -> Builder {
    Builder::new(wire::REQUEST, wire::BINDING, [5; 12])
}

#[test]
fn stun_035_116_119_120_binding_tells_the_source_address_without_credentials() {
    let mut pair = Pair::new();
    let response = pair.exchange(0, &binding().build());
    assert!(response.is_success());
    assert_eq!(response.address(0x0020), pair.clients[0].five_tuple.client.0);
    assert!(!response.has(0x8022), "no SOFTWARE for strangers");
}

#[test]
fn turn_002_stun_026_028_binding_is_the_same_again_and_beside_an_allocation() {
    let mut pair = Pair::new();
    let first = pair.exchange(0, &binding().build());
    pair.allocate(0);
    assert_eq!(pair.exchange(0, &binding().build()), first);
}

#[test]
fn stun_025_binding_indication_has_no_effect_and_no_answer() {
    let mut pair = Pair::new();
    let happened = pair.deliver(0, &Builder::new(wire::INDICATION, wire::BINDING, [1; 12]).build());
    assert!(happened.outputs.is_empty());
    assert_eq!(pair.server.drops().map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn stun_011_012_013_014_turn_239_only_defined_methods_and_classes_are_answered() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let requests =
        [wire::BINDING, wire::ALLOCATE, wire::REFRESH, wire::CREATE_PERMISSION, wire::CHANNEL_BIND];
    for method in 0..0x10 {
        for class in [wire::REQUEST, wire::INDICATION, wire::SUCCESS, wire::ERROR] {
            let message = Builder::new(class, method, [1; 12]).build();
            let happened = pair.deliver(0, &message);
            let is_answered = class == wire::REQUEST && requests.contains(&method);
            assert_eq!(happened.to_client().count(), is_answered as usize, "{class:#x} {method:#x}");
        }
    }
    assert!(pair.drops("unsupported_method") > 0);
}

#[test]
fn turn_016_stun_005_messages_without_the_cookie_are_discarded() {
    let mut pair = Pair::new();
    let mut classic = binding().build();
    classic[4..8].copy_from_slice(&[1, 2, 3, 4]);
    assert!(pair.deliver(0, &classic).outputs.is_empty());
    assert_eq!(pair.drops("not_stun"), 1);
}

#[test]
fn stun_006_007_014_lengths_that_cannot_be_are_discarded() {
    let mut pair = Pair::new();
    for length in [1, 2, 3, 4, 5, 0xffff] {
        let mut message = binding().build();
        message[2..4].copy_from_slice(&u16::to_be_bytes(length));
        assert!(pair.deliver(0, &message).outputs.is_empty(), "{length}");
    }
    // What follows the message is not read: here an unknown attribute that would give 420.
    let trailed = [binding().build(), vec![0x7f, 0xff, 0, 0]].concat();
    assert!(pair.exchange(0, &trailed).is_success());
}

#[test]
fn stun_019_020_optional_and_unexpected_attributes_are_ignored() {
    let mut pair = Pair::new();
    let message = binding().attribute(&(0xfff0, vec![1, 2, 3])).attribute(&wire::lifetime(1)).build();
    assert!(pair.exchange(0, &message).is_success());
    let relayed = pair.request(
        0,
        wire::ALLOCATE,
        &[wire::requested_transport(17), (0xfff0, vec![]), wire::channel_number(1), wire::software()],
    );
    assert!(relayed.is_success());
}

#[test]
fn stun_015_021_144_unknown_required_attributes_are_listed() {
    let mut pair = Pair::new();
    let message = binding().attribute(&(0x7ffe, vec![1])).attribute(&(0x0024, vec![0; 4])).build();
    let response = pair.exchange(0, &message);
    assert_eq!(response.error(), 420);
    assert_eq!(response.attribute(0x000a), Some(&[0x7f, 0xfe, 0x00, 0x24][..]));

    let response = pair.request(0, wire::REFRESH, &[(0x7ffe, vec![])]);
    assert_eq!(response.error(), 420, "before 437 (STUN-015)");
    assert_eq!(response.attribute(0x000a), Some(&[0x7f, 0xfe][..]));
    assert!(response.is_protected_by(&pair.key_of(0)));
}

#[test]
fn stun_022_strangers_get_401_before_420() {
    let mut pair = Pair::new();
    let message = Builder::new(wire::REQUEST, wire::ALLOCATE, [1; 12]).attribute(&(0x7ffe, vec![])).build();
    assert_eq!(pair.exchange(0, &message).error(), 401);
}

#[test]
fn stun_023_024_indication_with_unknown_required_attributes_is_discarded() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.permit(0, PEER);
    let attributes = [wire::peer(PEER), wire::data(b"x"), (0x7ffe, vec![])];
    assert!(pair.send_indication(0, &attributes).outputs.is_empty());
    assert_eq!(pair.drops("unknown_attribute"), 1);
    assert!(pair.send_indication(0, &attributes[..2]).to_peer().2 == b"x");
}

#[test]
fn stun_127_138_malformed_request_gets_400() {
    let mut pair = Pair::new();
    for method in [wire::BINDING, wire::ALLOCATE, wire::REFRESH] {
        let mut message = Builder::new(wire::REQUEST, method, [1; 12]).attribute(&wire::lifetime(1)).build();
        message[23] = 40;
        assert_eq!(pair.exchange(0, &message).error(), 400);
    }
    let short_integrity =
        Builder::new(wire::REQUEST, wire::ALLOCATE, [1; 12]).attribute(&(0x0008, vec![0; 12])).build();
    assert_eq!(pair.exchange(0, &short_integrity).error(), 400);
}

#[test]
fn stun_046_turn_015_fingerprint_is_answered_with_fingerprint() {
    let mut pair = Pair::new();
    let key = pair.key_of(0);
    assert!(!pair.exchange(0, &binding().build()).has(0x8028));
    assert!(pair.exchange(0, &binding().fingerprint().build()).has(0x8028));

    let stranger = Builder::new(wire::REQUEST, wire::ALLOCATE, [1; 12]).fingerprint().build();
    let challenge = pair.exchange(0, &stranger);
    assert!(challenge.has(0x8028));
    let request = Builder::new(wire::REQUEST, wire::ALLOCATE, [2; 12])
        .attribute(&wire::requested_transport(17))
        .credentials(USER, REALM, challenge.attribute(0x0015).unwrap())
        .integrity(&key)
        .fingerprint()
        .build();
    let response = pair.exchange(0, &request);
    assert!(response.is_success() && response.has(0x8028) && response.is_protected_by(&key));
}

#[test]
fn stun_050_051_wrong_fingerprint_is_discarded_and_none_is_needed() {
    let mut pair = Pair::new();
    let mut message = binding().fingerprint().build();
    *message.last_mut().unwrap() ^= 1;
    assert!(pair.deliver(0, &message).outputs.is_empty());
    assert_eq!(pair.drops("fingerprint"), 1);

    pair.allocate(0);
    let mut refresh = Builder::new(wire::REQUEST, wire::REFRESH, [2; 12]).fingerprint().build();
    *refresh.last_mut().unwrap() ^= 1;
    assert!(pair.deliver(0, &refresh).outputs.is_empty());
    assert_eq!(pair.drops("fingerprint"), 2);
}

/// The kernel program, which carries most of them, does not go through their data.
#[test]
fn stun_049_050_of_a_send_indications_fingerprint_only_place_and_length_count() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.permit(0, PEER);
    let send = |attributes: &[wire::Attribute]| {
        Builder::new(wire::INDICATION, wire::SEND, [3; 12]).attributes(attributes)
    };
    let attributes = [wire::data(b"x"), wire::peer(PEER), wire::software()];
    let mut message = send(&attributes).fingerprint().build();
    assert_eq!(pair.deliver(0, &message).to_peer().2, b"x");
    *message.last_mut().unwrap() ^= 1;
    assert_eq!(pair.deliver(0, &message).to_peer().2, b"x", "the value is not computed");

    let last = send(&attributes).attribute(&(0x8028, vec![0; 5])).build();
    assert!(pair.deliver(0, &last).outputs.is_empty());
    let early = [wire::data(b"x"), (0x8028, vec![0; 4]), wire::peer(PEER)];
    assert!(pair.deliver(0, &send(&early).build()).outputs.is_empty());
    assert_eq!(pair.drops("fingerprint"), 2);
}

#[test]
fn stun_055_attributes_after_the_integrity_attribute_do_not_count() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let request = pair.build(0, wire::REFRESH, &[wire::lifetime(1200)]);
    let mut tail = wire::lifetime(0).1;
    tail.splice(0..0, [0x00, 0x0d, 0, 4]);
    let mut request = [request, vec![0x7f, 0xff, 0, 0], tail].concat();
    let length = (request.len() - 20) as u16;
    request[2..4].copy_from_slice(&length.to_be_bytes());
    let response = pair.exchange(0, &request);
    assert!(response.is_success(), "the unknown attribute gives no 420");
    assert_eq!(response.lifetime(), 1200, "the second LIFETIME does not delete");
}

#[test]
fn stun_010_data_indications_have_new_transaction_ids() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    pair.permit(0, PEER);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let happened = pair.peer_sends(relayed, PEER, b"x");
        assert!(seen.insert(Message::parse(happened.datagram()).transaction));
    }
}

const ANSWERED: [u16; 5] =
    [wire::BINDING, wire::ALLOCATE, wire::REFRESH, wire::CREATE_PERMISSION, wire::CHANNEL_BIND];

/// Refused and granted, of every method, for strangers and users.
fn responses(pair: &mut Pair) -> Vec<(u16, [u8; 12], Happened)> {
    let mut requests = Vec::new();
    for method in ANSWERED {
        requests.push(Builder::new(wire::REQUEST, method, [method as u8; 12]).build());
        requests.push(pair.build(0, method, &[(0x7ffe, vec![])]));
    }
    requests.push(pair.build(0, wire::ALLOCATE, &[wire::requested_transport(17)]));
    requests.push(pair.build(0, wire::CREATE_PERMISSION, &[wire::peer(PEER)]));
    requests.push(pair.build(0, wire::CHANNEL_BIND, &[wire::channel_number(0x4000), wire::peer(PEER)]));
    requests.push(pair.build(0, wire::REFRESH, &[wire::lifetime(0)]));
    let answer = |request: Vec<u8>| {
        let method = u16::from_be_bytes([request[0], request[1]]);
        (method, request[8..20].try_into().unwrap(), pair.deliver(0, &request))
    };
    requests.into_iter().map(answer).collect()
}

#[test]
fn stun_004_009_030_034_036_039_turn_082_every_response_belongs_to_its_request() {
    let mut pair = Pair::new();
    let responses = responses(&mut pair);
    let mut successes = 0;
    for (method, transaction, happened) in responses {
        let [(five_tuple, datagram)] = happened.to_client().collect::<Vec<_>>()[..] else {
            panic!("one response, not {happened:?}");
        };
        assert_eq!(five_tuple, pair.clients[0].five_tuple, "STUN-036: from where it was sent to");
        assert_eq!(datagram[4..8], [0x21, 0x12, 0xa4, 0x42], "STUN-004");
        assert_eq!(datagram[8..20], transaction, "STUN-009");
        let response = Message::parse(datagram);
        assert_eq!(response.method, method, "STUN-034");
        assert_eq!(response.has(0x0009), !response.is_success(), "STUN-030");
        successes += usize::from(response.is_success());
    }
    assert_eq!(successes, 5, "Binding and one of each method");
}

#[test]
fn stun_016_017_145_147_the_largest_responses_fit_any_path() {
    for sha256 in [false, true] {
        let mut pair = Pair::with(|config| {
            config.software = Some("s".repeat(127));
            config.realm = "r".repeat(52);
        });
        if sha256 {
            pair.clients[0].auth = Auth::RFC8489;
        }
        // More unknown attributes than anybody needs to hear of.
        let unknown: Vec<_> = (0x7000..0x7200).map(|kind| (kind, vec![])).collect();
        let mut request = pair.build(0, wire::ALLOCATE, &unknown);
        let largest = pair.exchange(0, &request).len;
        assert!((240..548).contains(&largest), "{largest} bytes");
        request = pair.build(0, wire::ALLOCATE, &[wire::requested_transport(17)]);
        assert!(pair.exchange(0, &request).len < 548);
    }
}

#[test]
fn stun_035_120_130_131_binding_over_ipv6_tells_the_ipv6_address() {
    let mut pair = Pair::new();
    let client = pair.add_client("[2001:db8::1:2]:4000");
    let response = pair.exchange(client, &binding().build());
    // Cookie and transaction ID over the address, the cookie's first half over the port.
    let mut expected =
        vec![0, 2, 0x0f ^ 0x21, 0xa0 ^ 0x12, 0x20 ^ 0x21, 0x01 ^ 0x12, 0x0d ^ 0xa4, 0xb8 ^ 0x42];
    expected.extend([5, 5, 5, 5, 5, 5, 5, 5, 5, 5 ^ 1, 5, 5 ^ 2]);
    assert_eq!(response.attribute(0x0020), Some(&expected[..]));
}

#[test]
fn stun_125_126_padding_of_any_value_is_accepted() {
    let mut pair = Pair::new();
    pair.allocate(0);
    for padding in [0x00, 0x20, 0xff] {
        let request = Builder::new(wire::REQUEST, wire::REFRESH, pair.transaction(0))
            .padded(&(0x8022, b"abcde".to_vec()), padding);
        let nonce = pair.clients[0].nonce.clone().unwrap();
        let request = request.credentials(USER, REALM, &nonce).integrity(&pair.key_of(0)).build();
        assert!(request.windows(4).any(|bytes| bytes == [b'e', padding, padding, padding]));
        assert!(pair.exchange(0, &request).is_success(), "{padding:#x}");
    }
}

#[test]
fn stun_128_138_fixed_attributes_of_another_length_give_400() {
    let mut pair = Pair::new();
    let transport = wire::requested_transport(17);
    for (kind, length) in [(0x0019, 4), (0x0018, 1), (0x0022, 8), (0x0017, 4), (0x8000, 4), (0x000d, 4)] {
        for wrong in [length - 1, length + 1] {
            // First of two: only the first counts (STUN-129).
            let attributes = [(kind, vec![0; wrong]), transport.clone()];
            assert_eq!(
                pair.request(0, wire::ALLOCATE, &attributes).error(),
                400,
                "{kind:#06x}: {wrong} bytes"
            );
        }
    }
    pair.allocate(0);
    for wrong in [0, 3, 5, 8] {
        assert_eq!(pair.request(0, wire::REFRESH, &[(0x000d, vec![0; wrong])]).error(), 400);
        assert_eq!(pair.request(0, wire::REFRESH, &[(0x0017, vec![1; wrong])]).error(), 400);
        let bind = [(0x000c, vec![0x40; wrong]), wire::peer(PEER)];
        assert_eq!(pair.request(0, wire::CHANNEL_BIND, &bind).error(), 400);
    }
    for wrong in [0, 4, 7, 9, 20] {
        let peer = (0x0012, [&[0, 1][..], &[7; 18]].concat()[..wrong].to_vec());
        assert_eq!(pair.request(0, wire::CREATE_PERMISSION, std::slice::from_ref(&peer)).error(), 400);
        let bind = [wire::channel_number(0x4000), peer];
        assert_eq!(pair.request(0, wire::CHANNEL_BIND, &bind).error(), 400, "{wrong} bytes");
    }
    assert_eq!(pair.server.totals().permissions, 0);
}

#[test]
fn stun_129_the_first_of_repeated_attributes_counts() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let twice = [wire::lifetime(900), wire::lifetime(0)];
    assert_eq!(pair.request(0, wire::REFRESH, &twice).lifetime(), 900);
    // Credentials too: those that `build` appends come second.
    let impostor = [(0x0006, b"mallory".to_vec())];
    assert_eq!(pair.request(0, wire::REFRESH, &impostor).error(), 401);
    assert_eq!(pair.request(0, wire::REFRESH, &[(0x0015, b"stale".to_vec())]).error(), 438);
}
