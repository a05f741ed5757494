//! From one allocation of this server to another, without leaving it (DP-041).

use std::net::{Ipv4Addr, SocketAddrV4};

use relay_common::outcome::Outcome;
use relay_user::{
    datapath::encode,
    turn::{ChannelNumber, ClientAddr, Direction, Flow, PeerAddr, RelayedAddr},
};

use crate::{
    frame::{Checksum, Frame, channel_data},
    relay::*,
};

const OTHER_CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 1, 3), 41000);
const OTHER_RELAYED: SocketAddrV4 = SocketAddrV4::new(*RELAYED.ip(), 50002);
const OTHER_CHANNEL: u16 = 0x4abc;
const OTHER_CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 3];
const OTHER_NEXT_HOP: u32 = 9;
const OTHER_COUNTER: u32 = 11;
const FAR: u64 = u64::MAX;

/// The client's channel to the other allocation.
fn sending(expires: u64) -> Flow {
    let mut flow = Flow { hairpin: true, ..flow(Direction::ToPeer, expires) };
    flow.id.peer = PeerAddr(OTHER_RELAYED.into());
    flow
}

/// The other allocation's channel to the client's relayed address.
fn receiving(expires: u64) -> Flow {
    let mut flow = Flow { hairpin: true, ..flow(Direction::ToClient, expires) };
    flow.id.five_tuple.client = ClientAddr(OTHER_CLIENT.into());
    flow.id.relayed = RelayedAddr(OTHER_RELAYED.into());
    flow.id.peer = PeerAddr(RELAYED.into());
    flow.id.channel = ChannelNumber::new(OTHER_CHANNEL).unwrap();
    flow
}

fn relay() -> Relay {
    let mut relay = Relay::new();
    relay.add_relayed(OTHER_RELAYED);
    let ifindex = relay.ifindex(Side::Client);
    let hop = encode::next_hop(OTHER_NEXT_HOP, ifindex, MTU, OTHER_CLIENT_MAC, Side::Client.mac());
    relay.set_next_hop(OTHER_NEXT_HOP, hop);
    relay.install(&sending(FAR), TO_PEER_COUNTER, PEER_NEXT_HOP);
    relay.install(&receiving(FAR), OTHER_COUNTER, OTHER_NEXT_HOP);
    relay
}

fn at_other_client(data: &[u8]) -> Frame {
    Frame {
        destination_mac: OTHER_CLIENT_MAC,
        source_mac: Side::Client.mac(),
        ttl: 63,
        ..Frame::new(LISTENER, OTHER_CLIENT, channel_data(OTHER_CHANNEL, data))
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_channel_data_becomes_the_other_clients_channel_data_in_one_pass() {
    let mut relay = relay();
    for len in (0..=40).chain([1000, 1001, 1468]) {
        let data = data(len);
        for padding in 0..=3 {
            let mut frame = from_client(&data);
            frame.payload.extend(&[0xab, 0xcd, 0xef][..padding]);
            relay.assert_forwards(Side::Client, &frame, XDP_TX, &at_other_client(&data));
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_checksums_follow_the_same_rules() {
    let mut relay = relay();
    let with = |checksum, frame| Frame { checksum, ..frame };
    relay.assert_forwards(
        Side::Client,
        &with(Checksum::None, from_client(b"data")),
        XDP_TX,
        &with(Checksum::None, at_other_client(b"data")),
    );
    let frame = with(Checksum::Unfinished, from_client(b"data"));
    relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::PartialChecksum);
    let expected = at_other_client(&data(20)).with_payload_summing_to_zero();
    relay.assert_forwards(Side::Client, &from_client(&expected.payload[4..]), XDP_TX, &expected);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_074_a_hairpin_counts_for_both_allocations() {
    let mut relay = relay();
    let mut frame = from_client(&data(100));
    frame.payload.extend([0; 2]);
    for packets in 1..=3 {
        relay.assert_forwards(Side::Client, &frame, XDP_TX, &at_other_client(&data(100)));
        assert_eq!(relay.counted(TO_PEER_COUNTER), (packets, packets * 100));
        assert_eq!(relay.counted(OTHER_COUNTER), (packets, packets * 100));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_without_the_other_allocations_live_channel_it_is_the_slow_paths() {
    let mut relay = relay();
    let frame = from_client(b"data").bytes();
    relay.install(&receiving(0), OTHER_COUNTER, OTHER_NEXT_HOP);
    relay.assert_outcome(Side::Client, &frame, Outcome::HairpinMiss);
    relay.remove(encode::flow_key_v4(&receiving(0).id).unwrap());
    relay.assert_outcome(Side::Client, &frame, Outcome::HairpinMiss);
    assert_eq!(relay.counted(OTHER_COUNTER), (0, 0));

    relay.install(&receiving(FAR), OTHER_COUNTER, OTHER_NEXT_HOP);
    relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_TX, &at_other_client(b"data"));
    relay.install(&sending(0), TO_PEER_COUNTER, PEER_NEXT_HOP);
    relay.assert_outcome(Side::Client, &frame, Outcome::Expired);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_the_receiving_clients_next_hop_decides() {
    let mut relay = relay();
    relay.set_next_hop(OTHER_NEXT_HOP, encode::unresolved_next_hop(OTHER_NEXT_HOP));
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::NextHop);
    let hop = encode::next_hop(
        OTHER_NEXT_HOP,
        relay.ifindex(Side::Client),
        100,
        OTHER_CLIENT_MAC,
        Side::Client.mac(),
    );
    relay.set_next_hop(OTHER_NEXT_HOP, hop);
    relay.assert_forwards(Side::Client, &from_client(&data(68)), XDP_TX, &at_other_client(&data(68)));
    relay.assert_outcome(Side::Client, &from_client(&data(69)).bytes(), Outcome::Mtu);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_nothing_from_a_relayed_address_of_ours_comes_in_by_a_wire() {
    let mut relay = relay();
    let forged = Frame { source: RELAYED, destination: OTHER_RELAYED, ..from_peer(b"forged") };
    relay.assert_outcome(Side::Peer, &forged.bytes(), Outcome::NoFlow);
}
