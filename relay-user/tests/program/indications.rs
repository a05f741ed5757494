//! Send indications as the program reads them, Data indications as it makes them (RFC 8656 sections 11.1 to 11.6).

use std::collections::HashSet;

use relay_common::outcome::Outcome;
use relay_user::turn::Family;

use crate::{
    case::{Case, End, Form},
    frame::Frame,
    message::*,
    relay::*,
    session::permitted_peer,
};

type Attribute<'a> = &'a dyn Fn(Indication) -> Indication;

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn attributes_may_come_in_any_order_with_software_and_fingerprint_beside_them() {
    let relay = Relay::new();
    for case in sends() {
        for len in [0, 1, 2, 3, 4, 101] {
            let data = data(len);
            let peer: Attribute<'_> = &|message| message.xor_peer_address(case.peer());
            let data_attribute: Attribute<'_> = &|message| message.attribute(DATA, &data);
            let software: Attribute<'_> = &|message| message.attribute(SOFTWARE, b"Coturn-4.6.1 'Gorst'");
            let orders: [&[Attribute<'_>]; 8] = [
                &[peer, data_attribute],
                &[data_attribute, peer],
                &[software, peer, data_attribute],
                &[software, data_attribute, peer],
                &[peer, software, data_attribute],
                &[data_attribute, software, peer],
                &[peer, data_attribute, software],
                &[data_attribute, peer, software],
            ];
            for order in orders {
                // The value of padding bytes is nobody's business, but counts in the checksum.
                for padding in [0, 0xd7] {
                    let message =
                        order.iter().fold(Indication { padding, ..Indication::send() }, |m, add| add(m));
                    for message in
                        [message.clone().fingerprint(true), message.clone().fingerprint(false), message]
                    {
                        let frame = Frame { payload: message.bytes, ..case.input(b"") };
                        relay.assert_forwards(&case, &frame, &case.output(&data));
                    }
                }
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn software_of_any_usual_length_is_read_past() {
    let relay = Relay::new();
    for case in sends() {
        for len in 0..=64 {
            let message = full(&case).attribute(SOFTWARE, &vec![b'x'; len]).fingerprint(true);
            let frame = Frame { payload: message.bytes, ..case.input(b"") };
            relay.assert_forwards(&case, &frame, &case.output(b"data"));
        }
        let frame = Frame { payload: full(&case).attribute(SOFTWARE, &[b'x'; 764]).bytes, ..case.input(b"") };
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::Indication);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn anything_else_in_a_send_indication_is_the_slow_paths() {
    let relay = Relay::new();
    for case in sends() {
        let peer = case.peer();
        let send = Indication::send;
        let without_peer = send().attribute(DATA, b"data");
        let without_data = send().xor_peer_address(peer);
        let address = without_data.bytes[STUN_HEADER_LEN + 4..].to_vec();
        let with_family = |family| {
            let mut address = address.clone();
            address[1] = family;
            without_peer.clone().attribute(XOR_PEER_ADDRESS, &address)
        };
        let other_family = if case.relayed == Family::V4 { 2 } else { 1 };
        for (what, message) in [
            ("nothing", send()),
            ("no peer", without_peer.clone()),
            ("no data", without_data.clone()),
            ("two peers", full(&case).xor_peer_address(peer)),
            ("two data", full(&case).attribute(DATA, b"more")),
            ("DONT-FRAGMENT", full(&case).attribute(DONT_FRAGMENT, b"")),
            ("an unknown attribute that must be understood", full(&case).attribute(0x0030, b"what")),
            ("an unknown attribute that need not be", full(&case).attribute(0xc001, b"what")),
            ("a username", full(&case).attribute(0x0006, b"user")),
            ("two fingerprints", full(&case).fingerprint(true).fingerprint(true)),
            ("a fingerprint that is not last", full(&case).fingerprint(true).attribute(SOFTWARE, b"soft")),
            ("a short fingerprint", full(&case).attribute(FINGERPRINT, &[1, 2, 3])),
            ("a long fingerprint", full(&case).attribute(FINGERPRINT, &[1, 2, 3, 4, 5])),
            ("a peer of no family", with_family(0)),
            ("a peer of the other family", with_family(other_family)),
            ("a short address", without_peer.clone().attribute(XOR_PEER_ADDRESS, &address[..7])),
            ("a long address", without_peer.attribute(XOR_PEER_ADDRESS, &[&address[..], &[0; 4]].concat())),
            ("data beyond the end", without_data.clone().raw(&[0x00, 0x13, 0x00, 0x05, 1, 2, 3, 4])),
            ("half an attribute", full(&case).raw(&[0x80, 0x22])),
            ("an attribute's type alone behind the end", without_data.raw(&[0x00, 0x13])),
        ] {
            let frame = Frame { payload: message.bytes, ..case.input(b"") };
            let run = relay.run(Side::Client, &frame.bytes());
            assert_eq!(run.verdict, XDP_PASS, "{case:?} with {what}");
            relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::Indication);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_send_indication_is_exactly_as_long_as_its_datagram() {
    let relay = Relay::new();
    for case in sends() {
        for message in [full(&case), full(&case).fingerprint(true), Indication::send()] {
            let bytes = &message.bytes;
            for more in 1..=8 {
                let payload = [&bytes[..], &[0, 1, 2, 3, 4, 5, 6, 7][..more]].concat();
                let frame = Frame { payload, ..case.input(b"") };
                relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::Indication);
            }
            for less in 1..=bytes.len() - 4 {
                let frame = Frame { payload: bytes[..bytes.len() - less].to_vec(), ..case.input(b"") };
                relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::Indication);
            }
            for difference in [1, 2, 3, 4, 0xff00] {
                let mut payload = bytes.clone();
                payload[2..4].copy_from_slice(
                    &((bytes.len() - STUN_HEADER_LEN) as u16).wrapping_add(difference).to_be_bytes(),
                );
                let frame = Frame { payload, ..case.input(b"") };
                relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::Indication);
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn stun_but_send_indications_is_the_control_planes() {
    let relay = Relay::new();
    for case in sends() {
        for message_type in
            [0x0001u16, 0x0003, 0x0004, 0x0006, 0x0007, 0x0008, 0x0009, 0x0017, 0x0116, 0x0011, 0x1600]
        {
            let mut payload = case.input(b"data").payload;
            payload[..2].copy_from_slice(&message_type.to_be_bytes());
            let outcome = if payload[0] <= 3 { Outcome::Control } else { continue };
            relay.assert_outcome(Side::Client, &Frame { payload, ..case.input(b"") }.bytes(), outcome);
        }
        // Without the magic cookie it is RFC 3489's, or nothing.
        let mut payload = case.input(b"data").payload;
        payload[4] ^= 1;
        relay.assert_outcome(
            Side::Client,
            &Frame { payload, ..case.input(b"") }.bytes(),
            Outcome::Indication,
        );
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_034_a_data_indications_padding_is_zero_whatever_lay_there() {
    let relay = Relay::new();
    for case in Case::all().filter(|case| matches!(case.to, End::Client(_, Form::Indication))) {
        for len in 0..=9 {
            for behind in 0..=5 {
                // Behind the data: bytes that become the padding, some or all of it.
                let frame = Frame { ethernet_padding: vec![0xee; behind], ..case.input(&data(len)) };
                relay.assert_forwards(&case, &frame, &case.output(&data(len)));
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_040_transaction_ids_do_not_come_again_and_every_bit_of_them_varies() {
    let relay = Relay::new();
    let mut seen = HashSet::new();
    let (mut ones, mut zeroes) = ([0; 12], [0; 12]);
    let mut count = 0;
    for _ in 0..100 {
        for case in Case::all().filter(|case| matches!(case.to, End::Client(_, Form::Indication))) {
            let id = transaction_id(&relay, &case);
            for (byte, octet) in id.iter().enumerate() {
                ones[byte] |= octet;
                zeroes[byte] |= !octet;
            }
            seen.insert(id);
            count += 1;
        }
    }
    assert_eq!(seen.len(), count);
    assert_eq!((ones, zeroes), ([0xff; 12], [0xff; 12]));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_040_transaction_ids_follow_from_a_secret_alone_that_each_load_has_of_its_own() {
    let mut relay = Relay::new();
    let case = Case::to_client()
        .find(|case| matches!(case.to, End::Client(_, Form::Indication)))
        .expect("one of all");
    // Each CPU counts its own.
    pin(0);
    let mut ids = HashSet::new();
    for key in [[1, 2], [1, 3], [2, 2], [0, 0], [1, 2]] {
        for count in [0, 1, 1 << 40] {
            relay.set_transaction_key(key);
            relay.set_transactions(count);
            ids.insert(transaction_id(&relay, &case));
        }
    }
    // The same for the same secret and count, and for no other. That half of the words is changed by changing one bit shows
    // that both words of the secret and the whole count have a part in it.
    assert_eq!(ids.len(), 4 * 3);
    let ids: Vec<_> = ids.into_iter().collect();
    for (index, one) in ids.iter().enumerate() {
        for other in &ids[index + 1..] {
            let different: u32 = one.iter().zip(other).map(|(one, other)| (one ^ other).count_ones()).sum();
            assert!((20..76).contains(&different), "{different} of 96 bits differ");
        }
    }
}

/// That of the Data indication made of a packet.
fn transaction_id(relay: &Relay, case: &Case) -> Vec<u8> {
    let run = relay.run(case.ingress(), &case.input(b"data").bytes());
    assert_eq!(run.verdict, case.verdict());
    run.frame[case.output(b"data").payload_at()..][TRANSACTION_ID].to_vec()
}

/// Everything that a Send indication must have.
fn full(case: &Case) -> Indication {
    Indication::send().xor_peer_address(case.peer()).attribute(DATA, b"data")
}

/// From Send indications.
fn sends() -> impl Iterator<Item = Case> {
    Case::all().filter(|case| matches!(case.from, End::Client(_, Form::Indication)))
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_client_without_a_relayed_address_of_the_peers_family_is_the_slow_paths() {
    let mut relay = Relay::new();
    for case in Case::to_peer() {
        let End::Client(client, Form::Indication) = case.from else { continue };
        let other = if case.relayed == Family::V4 { Family::V6 } else { Family::V4 };
        relay.remove(&client.allocation(case.relayed));
        let frame =
            Frame { payload: send_indication(permitted_peer(case.relayed), b"data"), ..case.input(b"") };
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::NoFlow);
        relay.assert_relays(&Case { relayed: other, ..case }, b"data");
        relay.install(&client.allocation(case.relayed));
    }
}
