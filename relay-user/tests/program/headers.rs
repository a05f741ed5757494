//! What becomes of the IP header's fields (RFC 8656 sections 13 and 14).

use std::collections::HashSet;

use relay_common::outcome::Outcome;
use relay_user::turn::Family;

use crate::{
    case::{Case, End},
    frame::{Frame, ip_header_len, word},
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_042_ttl_or_hop_limit_is_decremented_and_one_that_would_reach_0_is_the_slow_paths() {
    let relay = Relay::new();
    for case in Case::all() {
        for ttl in 0..=255 {
            let frame = Frame { ttl, ..case.input(b"data") };
            if ttl <= 1 {
                relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::Ttl);
            } else {
                let expected = Frame { ttl: ttl - 1, ..case.output(b"data") };
                relay.assert_forwards(&case, &frame, &expected);
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_043_dp_044_dscp_and_ecn_are_preserved() {
    let relay = Relay::new();
    for case in Case::all() {
        for traffic_class in 0..=255 {
            let with = |frame| Frame { traffic_class, ..frame };
            relay.assert_forwards(&case, &with(case.input(b"x")), &with(case.output(b"x")));
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_045_between_ipv4_packets_df_is_preserved() {
    let relay = Relay::new();
    for case in Case::all().filter(|case| case.families().iter().all(|&family| family == Family::V4)) {
        for dont_fragment in [false, true] {
            for len in [1, 1300] {
                let with = |frame| Frame { dont_fragment, ..frame };
                let data = data(len);
                relay.assert_forwards(&case, &with(case.input(&data)), &with(case.output(&data)));
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_046_from_ipv6_to_ipv4_df_is_0_up_to_1260_bytes_of_packet_and_1_above() {
    let relay = Relay::new();
    let mut seen = HashSet::new();
    for case in Case::all().filter(|case| !case.is_hairpin()) {
        if case.families() != [Family::V6, Family::V4] {
            continue;
        }
        let overhead = case.output(b"").packet_len();
        for len in (1200..=1232).chain([1, 1300]) {
            let data = data(len);
            let expected = case.output(&data);
            let dont_fragment = expected.packet_len() > 1260;
            assert_eq!(
                expected.packet_len() - overhead,
                expected.payload.len() - case.output(b"").payload.len()
            );
            seen.insert((expected.packet_len(), dont_fragment));
            relay.assert_forwards(&case, &case.input(&data), &Frame { dont_fragment, ..expected });
        }
    }
    assert!(seen.contains(&(1260, false)) && seen.contains(&(1261, true)), "{seen:?}");
}

// In a hairpin the packet that would have gone from one relayed address to the other has a DF bit, too.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_045_dp_046_dp_047_in_a_hairpin_the_rules_apply_one_after_the_other() {
    let relay = Relay::new();
    let mut seen = HashSet::new();
    for case in Case::hairpins() {
        for dont_fragment in [false, true] {
            for len in [1, 1180, 1200, 1228, 1232, 1233, 1240, 1300] {
                let data = data(len);
                let frame = Frame { dont_fragment, ..case.input(&data) };
                let output = case.output(&data);
                match case.dont_fragment(&frame, &output, &data) {
                    Some(dont_fragment) => {
                        seen.insert((case.families(), dont_fragment));
                        relay.assert_forwards(&case, &frame, &Frame { dont_fragment, ..output });
                    }
                    None => relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::Mtu),
                }
            }
        }
    }
    // Where the last packet is IPv4, either is right for some.
    assert_eq!(seen.iter().filter(|(families, _)| families[2] == Family::V4).count(), 4 * 2);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_047_made_of_an_ipv4_packet_with_df_0_an_ipv6_packet_is_at_most_the_lowest_mtu() {
    let relay = Relay::new();
    for case in Case::all().filter(|case| !case.is_hairpin()) {
        if case.families() != [Family::V4, Family::V6] {
            continue;
        }
        for mtu in [1280, 1400] {
            relay.set_global(relay_common::globals::word::MIN_IPV6_MTU, mtu);
            let longest = (0..1500).rfind(|&len| case.output(&data(len)).packet_len() <= mtu as usize);
            let longest = longest.expect("some length fits");
            for (len, fits) in [(longest, true), (longest + 1, false)] {
                let data = data(len);
                let (frame, expected) = (case.input(&data), case.output(&data));
                relay.assert_forwards(&case, &Frame { dont_fragment: true, ..frame.clone() }, &expected);
                let frame = Frame { dont_fragment: false, ..frame };
                if fits {
                    relay.assert_forwards(&case, &frame, &expected);
                } else {
                    relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::Mtu);
                }
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_049_a_flow_label_is_never_copied() {
    let relay = Relay::new();
    for case in Case::all() {
        // Both to the same: to 0, as the frames of these tests have it.
        for flow_label in [1, 0x1_2345, 0xf_ffff] {
            let frame = Frame { flow_label, ..case.input(b"data") };
            relay.assert_forwards(&case, &frame, &case.output(b"data"));
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_050_the_identification_is_our_own_and_never_repeats_within_a_flow() {
    let relay = Relay::new();
    for case in Case::all().filter(|case| case.output(b"").family() == Family::V4) {
        // The senders' never changes.
        let frame = Frame { dont_fragment: false, ..case.input(b"x") }.bytes();
        let at = case.output(b"x").ip_at() + 4;
        let seen: HashSet<u16> =
            (0..1000).map(|_| word(&relay.run(case.ingress(), &frame).frame, at)).collect();
        assert_eq!(seen.len(), 1000, "{case:?}");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_050_two_flows_do_not_count_identifications_in_step() {
    let relay = Relay::new();
    let seen: HashSet<u16> = Case::all()
        .filter(|case| !case.is_hairpin() && case.output(b"").family() == Family::V4)
        .map(|case| {
            let run = relay.run(case.ingress(), &case.input(b"x").bytes());
            word(&run.frame, case.output(b"x").ip_at() + 4) / 100
        })
        .collect();
    assert_eq!(seen.len(), Case::all().filter(|case| !case.is_hairpin()).count() / 2, "{seen:?}");
}

// Everything else in the header of what leaves is compared byte by byte with etherparse's in every test.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_051_what_leaves_has_a_plain_header_and_the_right_lengths() {
    let relay = Relay::new();
    for case in Case::all() {
        let data = data(33);
        let run = relay.run(case.ingress(), &case.input(&data).bytes());
        let expected = case.output(&data);
        let ip = expected.ip_at();
        match expected.family() {
            Family::V4 => {
                assert_eq!(run.frame[ip], 0x45, "{case:?}: version and header length");
                assert_eq!(usize::from(word(&run.frame, ip + 2)), run.frame.len() - ip, "{case:?}: length");
                assert_eq!(word(&run.frame, ip + 6) & 0xbfff, 0, "{case:?}: flags and offset but for DF");
                assert_eq!(crate::frame::sum(&run.frame[ip..ip + 20]), 0xffff, "{case:?}: checksum");
            }
            Family::V6 => {
                assert_eq!(run.frame[ip] >> 4, 6, "{case:?}: version");
                let payload_len = run.frame.len() - ip - ip_header_len(Family::V6);
                assert_eq!(usize::from(word(&run.frame, ip + 4)), payload_len, "{case:?}: length");
                assert_eq!(run.frame[ip + 6], 17, "{case:?}: next header");
            }
        }
        let udp = expected.udp_at();
        assert_eq!(usize::from(word(&run.frame, udp + 4)), run.frame.len() - udp, "{case:?}: UDP length");
        assert_eq!(run.frame[run.frame.len() - expected.payload.len()..].len(), expected.payload.len());
        assert!(
            case.from == End::Peer || run.frame.ends_with(&expected.payload[expected.payload.len() - 4..])
        );
    }
}
