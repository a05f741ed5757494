//! With the daemon dead, what it would have got is dropped, so that nobody is told "port unreachable".

use relay_common::outcome::Outcome;

use crate::{
    frame::{Checksum, Frame, channel_data},
    relay::*,
};

/// Each of them is punted while there is a daemon.
fn punts() -> Vec<(Side, Frame, Outcome)> {
    let client = from_client(b"data");
    let peer = from_peer(b"data");
    let with = |frame: &Frame, payload: &[u8]| Frame { payload: payload.to_vec(), ..frame.clone() };
    vec![
        (Side::Client, with(&client, &[0x00, 0x01, 0x00, 0x00]), Outcome::Control),
        (Side::Client, with(&client, &channel_data(0x4444, b"data")), Outcome::NoFlow),
        (Side::Client, Frame { options: vec![1; 8], ..client.clone() }, Outcome::IpOptions),
        (Side::Client, Frame { more_fragments: true, ..client.clone() }, Outcome::Fragment),
        (Side::Client, Frame { ttl: 1, ..client.clone() }, Outcome::Ttl),
        (Side::Client, Frame { destination_mac: [9; 6], ..client.clone() }, Outcome::ForeignMac),
        (Side::Client, Frame { checksum: Checksum::Unfinished, ..client }, Outcome::PartialChecksum),
        (Side::Peer, Frame { source: CLIENT, ..peer.clone() }, Outcome::NoFlow),
        (Side::Peer, Frame { options: vec![1; 8], ..peer.clone() }, Outcome::IpOptions),
        (Side::Peer, Frame { more_fragments: true, ..peer }, Outcome::Fragment),
    ]
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn every_punt_is_dropped_once_no_socket_is_left() {
    let mut relay = Relay::new();
    for (side, frame, outcome) in punts() {
        relay.assert_outcome(side, &frame.bytes(), outcome);
    }
    relay.kill_daemon();
    for (side, frame, _) in punts() {
        relay.assert_outcome(side, &frame.bytes(), Outcome::DaemonGone);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn established_flows_outlive_the_daemon() {
    let mut relay = Relay::new();
    relay.kill_daemon();
    relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_REDIRECT, &at_peer(b"data"));
    relay.assert_forwards(Side::Peer, &from_peer(b"data"), XDP_REDIRECT, &at_client(b"data"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn the_hosts_own_ports_are_untouched_by_a_dead_daemon() {
    let mut relay = Relay::new();
    relay.kill_daemon();
    let mut frame = from_peer(b"data");
    frame.destination.set_port(53);
    relay.assert_not_ours(Side::Peer, &frame.bytes());
}
