//! Nothing is forwarded past its end, whether or not a daemon is there to remove it.

use relay_common::outcome::Outcome;
use relay_user::turn::Direction;

use crate::relay::*;

const SECOND: u64 = 1_000_000_000;

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_018_dp_021_dp_031_a_flow_past_its_end_drops() {
    let mut relay = Relay::new();
    for expires in [0, 1, relay.now() - 60 * SECOND, relay.now() - SECOND] {
        relay.install(&flow(Direction::ToPeer, expires), TO_PEER_COUNTER, PEER_NEXT_HOP);
        relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::Expired);
        relay.install(&flow(Direction::ToClient, expires), TO_CLIENT_COUNTER, CLIENT_NEXT_HOP);
        relay.assert_outcome(Side::Peer, &from_peer(b"data").bytes(), Outcome::Expired);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_066_a_refreshed_flow_forwards_again() {
    let mut relay = Relay::new();
    relay.install(&flow(Direction::ToPeer, 0), TO_PEER_COUNTER, PEER_NEXT_HOP);
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::Expired);
    let expires = relay.now() + 60 * SECOND;
    relay.install(&flow(Direction::ToPeer, expires), TO_PEER_COUNTER, PEER_NEXT_HOP);
    relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_REDIRECT, &at_peer(b"data"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_063_suspended_time_counts() {
    let mut relay = Relay::new();
    relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_REDIRECT, &at_peer(b"data"));
    // As userspace publishes it after an hour of sleep.
    relay.set_clock_offset(relay.boot_offset() + 3600 * SECOND);
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::Expired);
    relay.assert_outcome(Side::Peer, &from_peer(b"data").bytes(), Outcome::Expired);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_071_without_a_daemon_flows_live_to_their_end_and_no_longer() {
    let mut relay = Relay::new();
    relay.kill_daemon();
    relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_REDIRECT, &at_peer(b"data"));
    relay.assert_forwards(Side::Peer, &from_peer(b"data"), XDP_REDIRECT, &at_client(b"data"));
    relay.set_clock_offset(relay.boot_offset() + 3600 * SECOND);
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::Expired);
    relay.assert_outcome(Side::Peer, &from_peer(b"data").bytes(), Outcome::Expired);
}
