//! Checksums: right stays right, wrong stays wrong, none stays none where that is allowed. `assert_forwards` computes
//! each from scratch; lengths and padding have their tests where they belong.

use relay_common::outcome::Outcome;
use relay_user::turn::Family;

use crate::{
    case::{Case, End, Form},
    frame::{Checksum, Frame, set_word, word},
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_006_a_wrong_ipv4_header_checksum_is_not_forwarded() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"data");
        if frame.family() == Family::V6 {
            continue;
        }
        let at = frame.ip_at() + 10;
        let right = word(&frame.bytes(), at);
        for wrong in [0, right ^ 1, right.wrapping_add(1), right.swap_bytes(), !right] {
            let mut bytes = frame.bytes();
            set_word(&mut bytes, at, wrong);
            relay.assert_outcome(case.ingress(), &bytes, Outcome::IpChecksum);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_057_dp_059_no_udp_checksum_stays_none_by_ipv4_and_is_the_slow_paths_towards_ipv6() {
    let relay = Relay::new();
    for case in Case::all() {
        let none = |frame| Frame { checksum: Checksum::None, ..frame };
        for len in [0, 1, 2, 3, 100] {
            let data = data(len);
            let (frame, expected) = (none(case.input(&data)), none(case.output(&data)));
            match (frame.family(), expected.family()) {
                (Family::V4, Family::V4) => relay.assert_forwards(&case, &frame, &expected),
                (Family::V4, Family::V6) => {
                    relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::ZeroChecksum);
                }
                (Family::V6, _) => {}
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_060_an_ipv6_packet_without_a_udp_checksum_is_dropped() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = Frame { checksum: Checksum::None, ..case.input(b"data") };
        if frame.family() == Family::V6 {
            relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::Ipv6ZeroChecksum);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_058_a_computed_checksum_of_0_is_sent_as_all_ones() {
    let mut relay = Relay::new();
    pin(0);
    for case in Case::all() {
        // A Data indication's transaction ID is part of it: each run makes the same one.
        relay.set_transactions(7);
        let sample = relay.run(case.ingress(), &case.input(&data(20)).bytes());
        let expected = with_own_fields(&case.output(&data(20)), &sample.frame).with_payload_summing_to_zero();
        let data = &expected.payload[expected.payload.len() - 20..];
        relay.set_transactions(7);
        relay.assert_forwards(&case, &case.input(data), &expected);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_058_all_ones_coming_in_is_a_checksum_like_any_other() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(&data(20)).with_payload_summing_to_zero();
        let data = frame.payload[frame.payload.len() - 20..].to_vec();
        relay.assert_forwards(&case, &frame, &case.output(&data));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_061_an_unfinished_checksum_is_the_slow_paths() {
    let relay = Relay::new();
    for case in Case::all() {
        for len in [0, 1, 2, 500, 1200] {
            let frame = Frame { checksum: Checksum::Unfinished, ..case.input(&data(len)) };
            relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::PartialChecksum);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_055_dp_056_of_all_checksums_only_the_right_one_leaves_right() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"data");
        let right = frame.right_checksum();
        // Each for the shortest way, some for each other.
        let step = if Case::ipv4(Form::ChannelData).contains(&case) { 1 } else { 61 };
        let (mut forwarded, mut not) = (0, 0);
        for checksum in (1..=0xffff).step_by(step).chain([right]) {
            let frame = Frame { checksum: Checksum::Exactly(checksum), ..frame.clone() };
            let run = relay.run(case.ingress(), &frame.bytes());
            if run.verdict == XDP_PASS {
                not += 1;
                continue;
            }
            forwarded += 1;
            let expected = with_own_fields(&case.output(b"data"), &run.frame);
            let out = word(&run.frame, expected.checksum_at());
            assert_eq!(
                (out == 0, out == expected.right_checksum()),
                (false, checksum == right),
                "{case:?}: {checksum:#06x} became {out:#06x}"
            );
        }
        // All but the one that looks unfinished.
        assert!(forwarded > 1000 && not <= 1, "{case:?}: {forwarded} forwarded, {not} not");
        assert!(step > 1 || not == 1);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_056_data_damaged_on_its_way_in_is_seen_to_be_damaged_on_its_way_out() {
    let relay = Relay::new();
    for case in Case::all() {
        let data = data(24);
        for bit in 0..data.len() * 8 {
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            let damage = |frame: &Frame| {
                let mut bytes = frame.bytes();
                let at = bytes.len() - data.len() + byte;
                bytes[at] ^= mask;
                bytes
            };
            let run = relay.run(case.ingress(), &damage(&case.input(&data)));
            assert_eq!(run.verdict, case.verdict());
            // As the undamaged packet but for the same bit.
            let expected = with_own_fields(&case.output(&data), &run.frame);
            assert_eq!(hex(&run.frame), hex(&damage(&expected)), "{case:?}");
        }
    }
}

// Bytes that leave the packet take their share of the checksum with them: headers, a Send indication's attributes
// and padding, whatever they hold.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_056_a_message_damaged_on_its_way_in_never_leaves_with_a_right_checksum() {
    let relay = Relay::new();
    let mut forwarded = 0;
    for case in Case::all().filter(|case| case.from != End::Peer) {
        let data = data(21);
        let frame = case.input(&data);
        let bytes = frame.bytes();
        for at in frame.payload_at()..bytes.len() {
            for mask in [1, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= mask;
                let run = relay.run(case.ingress(), &damaged);
                if run.verdict != case.verdict() {
                    continue;
                }
                forwarded += 1;
                let mut out = case.output(&data);
                out.destination.set_port(word(&run.frame, out.udp_at() + 2));
                out.payload = run.frame[out.payload_at()..].to_vec();
                let checksum = word(&run.frame, out.checksum_at());
                assert_ne!(checksum, out.right_checksum(), "{case:?}: byte {at} ^ {mask}");
            }
        }
    }
    assert!(forwarded > 1000, "{forwarded}");
}
