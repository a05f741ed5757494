//! The host's own traffic, and packets that the program does not read: to the kernel, as they came.

use std::net::{Ipv4Addr, SocketAddrV4};

use relay_common::{outcome::Outcome, port_class::PortClass};

use crate::{
    frame::{ETHERNET_LEN, FRAGMENT_AT, Frame, repair_ip_checksum, set_word},
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_other_ports_are_not_ours() {
    let mut relay = Relay::new();
    for port in [0, 53, LISTENER.port() - 1, LISTENER.port() + 1, RELAYED.port() - 1, RELAYED.port() + 1] {
        let destination = SocketAddrV4::new(*LISTENER.ip(), port);
        relay.assert_not_ours(Side::Client, &Frame { destination, ..from_client(b"data") }.bytes());
        let destination = SocketAddrV4::new(*RELAYED.ip(), port);
        relay.assert_not_ours(Side::Peer, &Frame { destination, ..from_peer(b"data") }.bytes());
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_our_port_on_another_address_of_the_host_is_not_ours() {
    let mut relay = Relay::new();
    let other = Ipv4Addr::new(198, 18, 2, 99);
    // As a DNS answer to an ephemeral port that happens to be relayed elsewhere, or a packet passing through.
    for daemon_is_alive in [true, false] {
        if !daemon_is_alive {
            relay.kill_daemon();
        }
        for (side, frame) in [(Side::Client, from_client(b"data")), (Side::Peer, from_peer(b"data"))] {
            let frame = Frame { destination: SocketAddrV4::new(other, frame.destination.port()), ..frame };
            for frame in [
                frame.clone(),
                Frame { ttl: 1, ..frame.clone() },
                Frame { options: vec![1; 4], ..frame.clone() },
                Frame { more_fragments: true, ..frame.clone() },
                Frame { destination_mac: [9; 6], ..frame.clone() },
                Frame { payload: vec![0xff; 20], ..frame.clone() },
                Frame { payload: vec![], ..frame },
            ] {
                relay.assert_not_ours(side, &frame.bytes());
                let mut wrong_length = frame.bytes();
                wrong_length.pop();
                relay.assert_not_ours(side, &wrong_length);
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_a_freed_relayed_port_is_the_hosts_again() {
    let mut relay = Relay::new();
    relay.set_port_class(RELAYED.port(), PortClass::Foreign);
    relay.assert_not_ours(Side::Peer, &from_peer(b"data").bytes());
    relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_REDIRECT, &at_peer(b"data"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_010_tagged_frames_and_other_ether_types_are_left_alone() {
    let mut relay = Relay::new();
    for frame in [from_client(b"data"), from_peer(b"data")] {
        let mut tagged = frame.bytes();
        tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        relay.assert_not_ours(Side::Client, &tagged);
        for ether_type in [0x0000, 0x0806, 0x86dd, 0x8847, 0x88a8, 0xffff] {
            let mut bytes = frame.bytes();
            set_word(&mut bytes, 12, ether_type);
            relay.assert_not_ours(Side::Client, &bytes);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_011_dp_013_every_protocol_but_udp_is_left_alone() {
    let mut relay = Relay::new();
    for protocol in (0..=255).filter(|&protocol| protocol != 17) {
        let mut bytes = from_peer(b"data").bytes();
        bytes[ETHERNET_LEN + 9] = protocol;
        repair_ip_checksum(&mut bytes);
        relay.assert_not_ours(Side::Peer, &bytes);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_another_ip_version_or_an_impossible_header_length_is_left_alone() {
    let mut relay = Relay::new();
    for version_ihl in [0x05, 0x15, 0x55, 0x65, 0xf5, 0x40, 0x41, 0x44] {
        let mut bytes = from_peer(b"data").bytes();
        bytes[ETHERNET_LEN] = version_ihl;
        repair_ip_checksum(&mut bytes);
        relay.assert_not_ours(Side::Peer, &bytes);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_005_ip_options_are_the_slow_paths() {
    let mut relay = Relay::new();
    // No-operation, and end of list: zeroes, which leave the checksum of the first 20 bytes right.
    for options in (4..=40).step_by(4).flat_map(|len| [vec![1; len], vec![0; len]]) {
        for (side, frame) in [(Side::Client, from_client(b"data")), (Side::Peer, from_peer(b"data"))] {
            let frame = Frame { options: options.clone(), ..frame };
            relay.assert_outcome(side, &frame.bytes(), Outcome::IpOptions);
            // The ports behind the options tell whose it is.
            let foreign = SocketAddrV4::new(*frame.destination.ip(), 53);
            relay.assert_not_ours(side, &Frame { destination: foreign, ..frame }.bytes());
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_005_options_made_up_as_a_udp_header_are_not_taken_for_one() {
    let mut relay = Relay::new();
    let len = 8 + 20u16;
    let options = [!len, 0, len, 0].map(u16::to_be_bytes).concat();
    for (side, frame) in [(Side::Client, from_client(&data(40))), (Side::Peer, from_peer(&data(40)))] {
        let frame = Frame { options: options.clone(), ..frame };
        relay.assert_outcome(side, &frame.bytes(), Outcome::IpOptions);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_003_a_first_fragment_is_the_slow_paths() {
    let mut relay = Relay::new();
    for (side, frame) in [(Side::Client, from_client(b"data")), (Side::Peer, from_peer(b"data"))] {
        let frame = Frame { more_fragments: true, dont_fragment: false, ..frame };
        relay.assert_outcome(side, &frame.bytes(), Outcome::Fragment);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_003_later_fragments_are_never_matched_by_what_lies_where_ports_would() {
    let mut relay = Relay::new();
    for (side, frame) in [(Side::Client, from_client(b"data")), (Side::Peer, from_peer(b"data"))] {
        for (fragment_offset, more_fragments) in [(1, false), (1, true), (185, true), (0x1fff, false)] {
            let frame = Frame { fragment_offset, more_fragments, dont_fragment: false, ..frame.clone() };
            relay.assert_not_ours(side, &frame.bytes());
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn the_reserved_flag_makes_no_fragment_and_is_not_passed_on() {
    let mut relay = Relay::new();
    let mut bytes = from_client(b"data").bytes();
    set_word(&mut bytes, FRAGMENT_AT, 0xc000);
    repair_ip_checksum(&mut bytes);
    let run = relay.run(Side::Client, &bytes);
    assert_eq!(run.verdict, XDP_REDIRECT);
    assert_eq!(run.frame[FRAGMENT_AT..FRAGMENT_AT + 2], [0x40, 0x00]);
}
