//! The host's own traffic, and packets that the program does not read: to the kernel, as they came.

use std::net::SocketAddr;

use relay_common::{interface::Interface, outcome::Outcome, port_class::PortClass};
use relay_user::turn::Family;

use crate::{
    case::{Case, Form},
    frame::{ETHER_TYPE_AT, Frame, repair_ip_checksum, set_word},
    relay::*,
    session::{Client, on_peer_side, relayed_ip},
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_other_ports_are_not_ours() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"data");
        let own = frame.destination.port();
        for port in [0, 53, own - 1, own + 1, own.swap_bytes(), u16::MAX] {
            let destination = SocketAddr::new(frame.destination.ip(), port);
            relay.assert_not_ours(case.ingress(), &Frame { destination, ..frame.clone() }.bytes());
        }
    }
}

// As a DNS answer to an ephemeral port that happens to be relayed elsewhere, or a packet passing through.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_our_port_on_another_address_of_the_host_is_not_ours() {
    let mut relay = Relay::new();
    for daemon_is_alive in [true, false] {
        if !daemon_is_alive {
            relay.kill_daemon();
        }
        for case in Case::all() {
            let frame = case.input(b"data");
            let destination = SocketAddr::new(on_peer_side(frame.family(), 99), frame.destination.port());
            let frame = Frame { destination, ..frame };
            for frame in [
                frame.clone(),
                Frame { ttl: 1, ..frame.clone() },
                Frame { options: vec![1; 4], ..frame.clone() },
                Frame { more_fragments: true, ..frame.clone() },
                Frame { destination_mac: [9; 6], ..frame.clone() },
                Frame { payload: vec![0xff; 20], ..frame.clone() },
                Frame { payload: vec![], ..frame },
            ] {
                let frame = without_options_in_ipv6(frame);
                relay.assert_not_ours(case.ingress(), &frame.bytes());
                let mut wrong_length = frame.bytes();
                wrong_length.pop();
                relay.assert_not_ours(case.ingress(), &wrong_length);
            }
        }
    }
}

// The host's own name resolution and address configuration, from ports or to ports that relayed addresses have, too.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_the_hosts_own_dns_and_dhcp_packets_in_the_relayed_range_are_left_alone() {
    let mut relay = Relay::new();
    let port = Client::caller(Family::V4).relayed(Family::V4).port();
    for client_port in [68, 546] {
        relay.set_port_class(client_port, PortClass::Relayed);
    }
    let frames = [
        ("198.18.2.53:53", SocketAddr::new(on_peer_side(Family::V4, 99), port)),
        ("[fd00:2::53]:53", SocketAddr::new(on_peer_side(Family::V6, 99), port)),
        ("198.18.2.254:67", "255.255.255.255:68".parse().unwrap()),
        ("198.18.2.254:67", SocketAddr::new(relayed_ip(Family::V4), 68)),
        ("[fe80::1]:547", "[fe80::2]:546".parse().unwrap()),
        ("198.18.2.254:67", SocketAddr::new("255.255.255.255".parse().unwrap(), port)),
        ("[fe80::1]:547", SocketAddr::new("ff02::1:2".parse().unwrap(), port)),
        ("198.18.2.254:5353", SocketAddr::new("224.0.0.251".parse().unwrap(), port)),
    ];
    for daemon_is_alive in [true, false] {
        if !daemon_is_alive {
            relay.kill_daemon();
        }
        for (source, destination) in frames {
            let broadcast = Frame {
                destination_mac: [0xff; 6],
                ..Frame::new(source.parse().unwrap(), destination, data(300))
            };
            relay.assert_not_ours(Side::Peer, &broadcast.bytes());
            let unicast = Frame { destination_mac: Side::Peer.mac(), ..broadcast };
            relay.assert_not_ours(Side::Peer, &unicast.bytes());
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_a_freed_relayed_port_is_the_hosts_again() {
    let mut relay = Relay::new();
    for case in Case::to_client() {
        let port = case.input(b"").destination.port();
        relay.set_port_class(port, PortClass::Foreign);
        relay.assert_not_ours(Side::Peer, &case.input(b"data").bytes());
        relay.set_port_class(port, PortClass::Relayed);
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_010_other_ether_types_are_left_alone() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"data");
        let other_family = match frame.family() {
            Family::V4 => 0x86dd,
            Family::V6 => 0x0800,
        };
        for ether_type in [0x0000, 0x0806, 0x8847, 0x8863, 0x8864, 0x9100, 0xffff, other_family] {
            let mut bytes = frame.bytes();
            set_word(&mut bytes, ETHER_TYPE_AT, ether_type);
            relay.assert_not_ours(case.ingress(), &bytes);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_011_dp_013_every_protocol_but_udp_is_left_alone() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"data");
        let protocol_at = match frame.family() {
            Family::V4 => 9,
            Family::V6 => 6,
        };
        for protocol in (0..=255).filter(|&protocol| protocol != 17) {
            let mut bytes = frame.bytes();
            bytes[frame.ip_at() + protocol_at] = protocol;
            if frame.family() == Family::V4 {
                repair_ip_checksum(&mut bytes, frame.ip_at());
            }
            relay.assert_not_ours(case.ingress(), &bytes);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_another_ip_version_or_an_impossible_header_length_is_left_alone() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"data");
        let firsts: &[u8] = match frame.family() {
            Family::V4 => &[0x05, 0x15, 0x55, 0x65, 0xf5, 0x40, 0x41, 0x44],
            Family::V6 => &[0x00, 0x10, 0x40, 0x45, 0x50, 0x70, 0xf0],
        };
        for &first in firsts {
            let mut bytes = frame.bytes();
            bytes[frame.ip_at()] = first;
            if frame.family() == Family::V4 {
                repair_ip_checksum(&mut bytes, frame.ip_at());
            }
            relay.assert_not_ours(case.ingress(), &bytes);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_005_ipv4_options_are_the_slow_paths() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"data");
        if frame.family() == Family::V6 {
            continue;
        }
        // No-operation, and end of list: zeroes, which leave the checksum of the first 20 bytes right.
        for options in (4..=40).step_by(4).flat_map(|len| [vec![1; len], vec![0; len]]) {
            let frame = Frame { options, ..frame.clone() };
            relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::IpOptions);
            // The ports behind the options tell whose it is.
            let foreign = SocketAddr::new(frame.destination.ip(), 53);
            relay.assert_not_ours(case.ingress(), &Frame { destination: foreign, ..frame }.bytes());
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_005_options_made_up_as_a_udp_header_are_not_taken_for_one() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(&data(40));
        let len = frame.payload.len() as u16;
        let ports = [frame.source.port(), frame.destination.port()];
        for options in [[!len, 0, len, 0], [ports[0], ports[1], len, 0]] {
            let options = options.map(u16::to_be_bytes).concat();
            if frame.family() == Family::V4 {
                let frame = Frame { options, ..frame.clone() };
                relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::IpOptions);
            }
        }
    }
}

// Without a walk along the headers nobody knows the ports behind them: these go to the kernel uncounted.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_004_ipv6_extension_headers_are_the_slow_paths() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(&data(40));
        if frame.family() == Family::V4 {
            continue;
        }
        let [source, destination] =
            [frame.source, frame.destination].map(|address| address.port().to_be_bytes());
        // Hop-by-hop, routing, fragment (a whole packet's, the first's, a later one's), destination options; the
        // rest of each begins as its length or its reserved byte, and where it can looks like a UDP header.
        let plain = vec![0; 7];
        let like_udp = [&[0][..], &source[1..], &destination, &[0, 48], &[0]].concat();
        let extensions: [&[(u8, Vec<u8>)]; 7] = [
            &[(0, plain.clone())],
            &[(43, plain.clone())],
            &[(44, plain.clone())],
            &[(44, vec![0, 0, 1, 0, 0, 0, 1])],
            &[(44, vec![0, 5, 0xa8, 0, 0, 0, 1])],
            &[(60, like_udp)],
            &[(0, plain.clone()), (60, plain.clone()), (44, plain)],
        ];
        for extensions in extensions {
            let frame = Frame { extensions: extensions.to_vec(), ..frame.clone() };
            relay.assert_not_ours(case.ingress(), &frame.bytes());
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_003_a_first_fragment_is_the_slow_paths() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = Frame { more_fragments: true, dont_fragment: false, ..case.input(b"data") };
        if frame.family() == Family::V4 {
            relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::Fragment);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_003_later_fragments_are_never_matched_by_what_lies_where_ports_would() {
    let relay = Relay::new();
    for case in Case::all() {
        for (fragment_offset, more_fragments) in [(1, false), (1, true), (185, true), (0x1fff, false)] {
            let frame =
                Frame { fragment_offset, more_fragments, dont_fragment: false, ..case.input(b"data") };
            if frame.family() == Family::V4 {
                relay.assert_not_ours(case.ingress(), &frame.bytes());
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn the_reserved_flag_makes_no_fragment_and_is_not_passed_on() {
    let relay = Relay::new();
    for case in Case::ipv4(Form::ChannelData).into_iter().chain(Case::ipv4(Form::Indication)) {
        let frame = case.input(b"data");
        let mut bytes = frame.bytes();
        set_word(&mut bytes, frame.ip_at() + 6, 0xc000);
        repair_ip_checksum(&mut bytes, frame.ip_at());
        let run = relay.run(case.ingress(), &bytes);
        assert_run(&run, &frame, case.verdict(), &case.output(b"data"));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_053_a_frame_for_another_mac_address_is_not_forwarded() {
    let relay = Relay::new();
    for case in Case::all() {
        let own = case.ingress().mac();
        let other_side = if case.ingress() == Side::Client { Side::Peer } else { Side::Client };
        let mut others =
            vec![[0xff; 6], [0; 6], [0x01, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], other_side.mac()];
        others.extend((0..6).map(|byte| {
            let mut mac = own;
            mac[byte] ^= 0x10;
            mac
        }));
        for destination_mac in others {
            let frame = Frame { destination_mac, ..case.input(b"data") };
            relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::ForeignMac);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_053_no_frame_is_for_an_interface_that_the_daemon_does_not_serve() {
    let mut relay = Relay::new();
    relay.set_interface(relay.ifindex(Side::Client), Interface::default());
    for case in Case::all().filter(|case| case.ingress() == Side::Client) {
        relay.assert_outcome(Side::Client, &case.input(b"data").bytes(), Outcome::ForeignMac);
        // An entry of zeroes is no interface with a MAC address of zeroes.
        let frame = Frame { destination_mac: [0; 6], ..case.input(b"data") };
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::ForeignMac);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_017_for_a_client_without_an_allocation_nothing_is_forwarded() {
    let relay = Relay::without_flows();
    for case in Case::all() {
        relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), Outcome::NoFlow);
    }
}

fn without_options_in_ipv6(frame: Frame) -> Frame {
    if frame.family() == Family::V6 { Frame { options: Vec::new(), ..frame } } else { frame }
}
