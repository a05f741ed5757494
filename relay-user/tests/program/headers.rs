//! What becomes of the IPv4 header's fields.

use std::collections::HashSet;

use relay_common::outcome::Outcome;

use crate::{
    frame::{Frame, parse},
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_042_the_ttl_is_decremented_and_one_that_would_reach_0_is_the_slow_paths() {
    let mut relay = Relay::new();
    for ttl in 0..=255 {
        for (side, frame, expected) in [
            (Side::Client, from_client(b"data"), at_peer(b"data")),
            (Side::Peer, from_peer(b"data"), at_client(b"data")),
        ] {
            let frame = Frame { ttl, ..frame };
            if ttl <= 1 {
                relay.assert_outcome(side, &frame.bytes(), Outcome::Ttl);
            } else {
                relay.assert_forwards(side, &frame, XDP_REDIRECT, &Frame { ttl: ttl - 1, ..expected });
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_043_dp_044_dscp_and_ecn_are_preserved() {
    let mut relay = Relay::new();
    for tos in 0..=255 {
        let with = |frame| Frame { tos, ..frame };
        relay.assert_forwards(Side::Client, &with(from_client(b"x")), XDP_REDIRECT, &with(at_peer(b"x")));
        relay.assert_forwards(Side::Peer, &with(from_peer(b"x")), XDP_REDIRECT, &with(at_client(b"x")));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_045_df_is_preserved() {
    let mut relay = Relay::new();
    for dont_fragment in [false, true] {
        let with = |frame| Frame { dont_fragment, ..frame };
        relay.assert_forwards(Side::Client, &with(from_client(b"x")), XDP_REDIRECT, &with(at_peer(b"x")));
        relay.assert_forwards(Side::Peer, &with(from_peer(b"x")), XDP_REDIRECT, &with(at_client(b"x")));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_050_the_identification_is_our_own_and_never_repeats_within_a_flow() {
    let mut relay = Relay::new();
    for (side, frame) in [(Side::Client, from_client(b"x")), (Side::Peer, from_peer(b"x"))] {
        // The senders' never changes.
        let frame = Frame { dont_fragment: false, ..frame }.bytes();
        let seen: HashSet<u16> =
            (0..1000).map(|_| parse(&relay.run(side, &frame).frame).0.identification).collect();
        assert_eq!(seen.len(), 1000);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_050_two_flows_do_not_count_identifications_in_step() {
    let mut relay = Relay::new();
    let mut identification =
        |side, frame: Frame| parse(&relay.run(side, &frame.bytes()).frame).0.identification;
    let to_peer = identification(Side::Client, from_client(b"x"));
    let to_client = identification(Side::Peer, from_peer(b"x"));
    assert!(to_peer.abs_diff(to_client) > 1000, "{to_peer} {to_client}");
}
