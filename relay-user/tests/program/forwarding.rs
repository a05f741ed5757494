//! Data of an established channel, both ways; and what does not belong to it.

use std::net::{Ipv4Addr, SocketAddrV4};

use relay_common::outcome::Outcome;
use relay_user::{datapath::encode, turn::Direction};

use crate::{
    frame::{Checksum, Frame, channel_data},
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_025_channel_data_leaves_for_the_bound_peer_from_the_relayed_address() {
    let mut relay = Relay::new();
    relay.assert_forwards(Side::Client, &from_client(b"hello"), XDP_REDIRECT, &at_peer(b"hello"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_035_dp_037_peer_data_reaches_the_client_as_channel_data_from_the_server_address() {
    let mut relay = Relay::new();
    relay.assert_forwards(Side::Peer, &from_peer(b"hello"), XDP_REDIRECT, &at_client(b"hello"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_054_every_length_even_and_odd_is_forwarded_with_the_right_checksum() {
    let mut relay = Relay::new();
    for len in (0..=130).chain([1000, 1001, 1200, 1467, 1468]) {
        let data = data(len);
        relay.assert_forwards(Side::Client, &from_client(&data), XDP_REDIRECT, &at_peer(&data));
        relay.assert_forwards(Side::Peer, &from_peer(&data), XDP_REDIRECT, &at_client(&data));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_024_channel_data_of_length_0_becomes_an_empty_datagram() {
    let mut relay = Relay::new();
    relay.assert_forwards(Side::Client, &from_client(b""), XDP_REDIRECT, &at_peer(b""));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_036_an_empty_datagram_becomes_channel_data_of_length_0() {
    let mut relay = Relay::new();
    relay.assert_forwards(Side::Peer, &from_peer(b""), XDP_REDIRECT, &at_client(b""));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_052_a_next_hop_on_the_same_interface_is_sent_back_out_of_it() {
    let mut relay = Relay::new();
    let ifindex = relay.ifindex(Side::Client);
    let hop = encode::next_hop(PEER_NEXT_HOP, ifindex, MTU, PEER_MAC, Side::Client.mac());
    relay.set_next_hop(PEER_NEXT_HOP, hop);
    let expected = Frame { source_mac: Side::Client.mac(), ..at_peer(b"one arm") };
    relay.assert_forwards(Side::Client, &from_client(b"one arm"), XDP_TX, &expected);

    let arriving = Frame { destination_mac: Side::Client.mac(), ..from_peer(b"one arm") };
    relay.assert_forwards(Side::Client, &arriving, XDP_TX, &at_client(b"one arm"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_015_all_four_of_the_clients_tuple_must_match() {
    let mut relay = Relay::new();
    let other_listener = SocketAddrV4::new(*LISTENER.ip(), 3479);
    relay.add_listener(other_listener);
    let other_address = SocketAddrV4::new(Ipv4Addr::new(198, 18, 1, 9), LISTENER.port());
    relay.add_listener(other_address);

    let frame = from_client(b"data");
    for frame in [
        Frame { source: SocketAddrV4::new(*CLIENT.ip(), CLIENT.port() + 1), ..frame.clone() },
        Frame { source: SocketAddrV4::new(Ipv4Addr::new(198, 18, 1, 3), CLIENT.port()), ..frame.clone() },
        Frame { destination: other_listener, ..frame.clone() },
        Frame { destination: other_address, ..frame.clone() },
    ] {
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::NoFlow);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_020_an_unbound_channel_is_the_slow_paths() {
    let mut relay = Relay::new();
    for number in [0x4000, 0x4002, 0x4fff] {
        let frame = Frame { payload: channel_data(number, b"data"), ..from_client(b"") };
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::NoFlow);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_033_the_peers_address_and_port_must_both_match() {
    let mut relay = Relay::new();
    let other_relayed = SocketAddrV4::new(*RELAYED.ip(), RELAYED.port() + 2);
    relay.add_relayed(other_relayed);
    let frame = from_peer(b"data");
    for frame in [
        Frame { source: SocketAddrV4::new(*PEER.ip(), PEER.port() + 1), ..frame.clone() },
        Frame { source: SocketAddrV4::new(Ipv4Addr::new(198, 18, 2, 3), PEER.port()), ..frame.clone() },
        Frame { destination: other_relayed, ..frame.clone() },
    ] {
        relay.assert_outcome(Side::Peer, &frame.bytes(), Outcome::NoFlow);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_009_no_special_source_is_forwarded() {
    let mut relay = Relay::new();
    for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
        for port in [0, CLIENT.port(), PEER.port()] {
            let source = SocketAddrV4::new(address.into(), port);
            let frame = Frame { source, ..from_client(b"data") };
            relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::NoFlow);
            let frame = Frame { source, ..from_peer(b"data") };
            relay.assert_outcome(Side::Peer, &frame.bytes(), Outcome::NoFlow);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_039_what_a_peer_sends_is_data_whatever_it_looks_like() {
    let mut relay = Relay::new();
    let mut binding_request = vec![0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42];
    binding_request.extend([7; 12]);
    for data in [binding_request, channel_data(CHANNEL, b"nested"), vec![0x16, 0xfe, 0xfd], vec![0xff; 40]] {
        relay.assert_forwards(Side::Peer, &from_peer(&data), XDP_REDIRECT, &at_client(&data));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_062_traffic_changes_no_entry() {
    let mut relay = Relay::new();
    let keys = [Direction::ToPeer, Direction::ToClient]
        .map(|direction| encode::flow_key_v4(&flow(direction, 0).id).unwrap());
    let before = keys.map(|key| relay.entry(key));
    for _ in 0..10 {
        relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_REDIRECT, &at_peer(b"data"));
        relay.assert_forwards(Side::Peer, &from_peer(b"data"), XDP_REDIRECT, &at_client(b"data"));
    }
    assert_eq!(keys.map(|key| relay.entry(key)), before);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_071_a_removed_flow_is_the_slow_paths() {
    let mut relay = Relay::new();
    relay.remove(encode::flow_key_v4(&flow(Direction::ToPeer, 0).id).unwrap());
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::NoFlow);
    relay.assert_forwards(Side::Peer, &from_peer(b"data"), XDP_REDIRECT, &at_client(b"data"));
    relay.remove(encode::flow_key_v4(&flow(Direction::ToClient, 0).id).unwrap());
    relay.assert_outcome(Side::Peer, &from_peer(b"data").bytes(), Outcome::NoFlow);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_frame_is_forwarded_without_a_udp_checksum_too() {
    let mut relay = Relay::new();
    let without = |frame| Frame { checksum: Checksum::None, ..frame };
    relay.assert_forwards(
        Side::Client,
        &without(from_client(b"abc")),
        XDP_REDIRECT,
        &without(at_peer(b"abc")),
    );
    relay.assert_forwards(Side::Peer, &without(from_peer(b"abc")), XDP_REDIRECT, &without(at_client(b"abc")));
}
