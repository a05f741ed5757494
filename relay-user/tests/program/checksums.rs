//! Checksums: right stays right, wrong stays wrong, none stays none. `assert_forwards` computes each from
//! scratch; lengths and padding have their tests where they belong.

use relay_common::outcome::Outcome;

use crate::{
    frame::{Checksum, Frame, IP_CHECKSUM_AT, PAYLOAD_AT, UDP_CHECKSUM_AT, set_word},
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_006_a_wrong_ip_header_checksum_is_not_forwarded() {
    let mut relay = Relay::new();
    for (side, frame) in [(Side::Client, from_client(b"data")), (Side::Peer, from_peer(b"data"))] {
        let right = u16::from_be_bytes(
            frame.bytes()[IP_CHECKSUM_AT..IP_CHECKSUM_AT + 2].try_into().expect("two bytes"),
        );
        for wrong in [0, right ^ 1, right.wrapping_add(1), right.swap_bytes(), !right] {
            let mut bytes = frame.bytes();
            set_word(&mut bytes, IP_CHECKSUM_AT, wrong);
            relay.assert_outcome(side, &bytes, Outcome::IpChecksum);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_057_no_udp_checksum_stays_none() {
    let mut relay = Relay::new();
    let with = |frame| Frame { checksum: Checksum::None, ..frame };
    for len in [0, 1, 2, 3, 100] {
        let data = data(len);
        relay.assert_forwards(Side::Client, &with(from_client(&data)), XDP_REDIRECT, &with(at_peer(&data)));
        relay.assert_forwards(Side::Peer, &with(from_peer(&data)), XDP_REDIRECT, &with(at_client(&data)));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_058_a_computed_checksum_of_0_is_sent_as_all_ones() {
    let mut relay = Relay::new();

    let expected = at_peer(&data(20)).with_payload_summing_to_zero();
    relay.assert_forwards(Side::Client, &from_client(&expected.payload), XDP_REDIRECT, &expected);

    let expected = at_client(&data(20)).with_payload_summing_to_zero();
    relay.assert_forwards(Side::Peer, &from_peer(&expected.payload[4..]), XDP_REDIRECT, &expected);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_058_all_ones_coming_in_is_a_checksum_like_any_other() {
    let mut relay = Relay::new();

    let frame = from_client(&data(20)).with_payload_summing_to_zero();
    relay.assert_forwards(Side::Client, &frame, XDP_REDIRECT, &at_peer(&frame.payload[4..]));

    let frame = from_peer(&data(20)).with_payload_summing_to_zero();
    relay.assert_forwards(Side::Peer, &frame, XDP_REDIRECT, &at_client(&frame.payload));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_061_an_unfinished_checksum_is_the_slow_paths() {
    let mut relay = Relay::new();
    for len in [0, 1, 2, 500, 1200] {
        let data = data(len);
        for (side, frame) in [(Side::Client, from_client(&data)), (Side::Peer, from_peer(&data))] {
            let frame = Frame { checksum: Checksum::Unfinished, ..frame };
            relay.assert_outcome(side, &frame.bytes(), Outcome::PartialChecksum);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_056_of_all_checksums_only_the_right_one_leaves_right() {
    let mut relay = Relay::new();
    for (side, frame, expected) in [
        (Side::Client, from_client(b"data"), at_peer(b"data")),
        (Side::Peer, from_peer(b"data"), at_client(b"data")),
    ] {
        let right_in = frame.right_checksum();
        let right_out = expected.right_checksum();
        let mut forwarded = 0;
        for checksum in 0..=0xffff {
            let run =
                relay.run(side, &Frame { checksum: Checksum::Exactly(checksum), ..frame.clone() }.bytes());
            if run.verdict == XDP_PASS {
                continue;
            }
            forwarded += 1;
            let out = u16::from_be_bytes([run.frame[UDP_CHECKSUM_AT], run.frame[UDP_CHECKSUM_AT + 1]]);
            assert_eq!(out == 0, checksum == 0, "{checksum:#06x} became {out:#06x}");
            assert_eq!(out == right_out, checksum == right_in, "{checksum:#06x} became {out:#06x}");
        }
        // All but the one that looks unfinished.
        assert_eq!(forwarded, 0xffff);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_056_a_payload_damaged_on_its_way_in_is_seen_to_be_damaged_on_its_way_out() {
    let mut relay = Relay::new();
    let data = data(40);
    for bit in 0..data.len() * 8 {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        let mut damaged = data.clone();
        damaged[byte] ^= mask;

        let mut frame = from_client(&data).bytes();
        frame[PAYLOAD_AT + 4 + byte] ^= mask;
        let run = relay.run(Side::Client, &frame);
        assert_eq!(run.verdict, XDP_REDIRECT);
        // As the undamaged packet but for the same bit.
        assert_eq!(run.frame[PAYLOAD_AT..], damaged);
        let checksum = at_peer(&data).right_checksum();
        assert_eq!(run.frame[UDP_CHECKSUM_AT..UDP_CHECKSUM_AT + 2], checksum.to_be_bytes());
    }
}
