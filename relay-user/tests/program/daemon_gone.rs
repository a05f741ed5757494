//! With the daemon dead, what it would have got is dropped, so that nobody is told "port unreachable".

use std::net::SocketAddr;

use relay_common::outcome::Outcome;
use relay_user::turn::Family;

use crate::{
    case::{Case, End, Form},
    frame::{Checksum, Frame},
    message::{Indication, channel_data},
    relay::*,
    session::on_peer_side,
};

/// Each of them is punted while there is a daemon.
fn punts() -> Vec<(Side, Frame, Outcome)> {
    let mut punts = Vec::new();
    for case in Case::all().filter(|case| !case.is_hairpin()) {
        let frame = case.input(b"data");
        let mut punt = |frame, outcome| punts.push((case.ingress(), frame, outcome));
        punt(Frame { ttl: 1, ..frame.clone() }, Outcome::Ttl);
        punt(Frame { destination_mac: [9; 6], ..frame.clone() }, Outcome::ForeignMac);
        punt(Frame { checksum: Checksum::Unfinished, ..frame.clone() }, Outcome::PartialChecksum);
        if frame.family() == Family::V4 {
            punt(Frame { options: vec![1; 8], ..frame.clone() }, Outcome::IpOptions);
            punt(Frame { more_fragments: true, ..frame.clone() }, Outcome::Fragment);
        }
        if case.from == End::Peer {
            let source = SocketAddr::new(on_peer_side(case.relayed, 33), 7);
            punt(Frame { source, ..frame }, Outcome::NoFlow);
        } else {
            let with = |payload| Frame { payload, ..frame.clone() };
            punt(with(vec![0x00, 0x01, 0x00, 0x00]), Outcome::Control);
            punt(with(channel_data(0x4444, b"data")), Outcome::NoFlow);
            punt(with(Indication::send().bytes), Outcome::Indication);
        }
    }
    punts
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
fn dp_071_established_flows_outlive_the_daemon() {
    let mut relay = Relay::new();
    relay.kill_daemon();
    for case in Case::all() {
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn the_hosts_own_ports_are_untouched_by_a_dead_daemon() {
    let mut relay = Relay::new();
    relay.kill_daemon();
    for case in Case::all() {
        let mut frame = case.input(b"data");
        frame.destination.set_port(53);
        relay.assert_not_ours(case.ingress(), &frame.bytes());
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_socket_of_the_other_family_is_not_the_daemons() {
    let mut relay = Relay::new();
    let [to_peer, _] = Case::ipv4(Form::ChannelData);
    let by_ipv6 =
        Case::to_peer().find(|case| case.families() == [Family::V6, Family::V6]).expect("one of all");
    relay.close_sockets(Family::V4);
    for (case, outcome) in [(to_peer, Outcome::DaemonGone), (by_ipv6, Outcome::Ttl)] {
        let frame = Frame { ttl: 1, ..case.input(b"data") };
        relay.assert_outcome(Side::Client, &frame.bytes(), outcome);
    }
}
