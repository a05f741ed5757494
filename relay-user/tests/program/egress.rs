//! Where packets leave, whether they may, and whose they are.

use relay_common::{interface::Interface, next_hop::NextHop, outcome::Outcome};
use relay_user::{datapath::encode, turn::Direction};

use crate::{
    frame::{Frame, PAYLOAD_AT},
    relay::*,
};

const FAR: u64 = u64::MAX;

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_048_what_would_exceed_the_next_hops_mtu_is_the_slow_paths() {
    let mut relay = Relay::new();
    let mtu = 600;
    for (index, side, mac) in
        [(CLIENT_NEXT_HOP, Side::Client, CLIENT_MAC), (PEER_NEXT_HOP, Side::Peer, PEER_MAC)]
    {
        let hop = encode::next_hop(index, relay.ifindex(side), mtu, mac, side.mac());
        relay.set_next_hop(index, hop);
    }
    // To the peer: IPv4 and UDP headers and the data. To the client: 4 bytes more.
    let fits = data(mtu as usize - 28);
    relay.assert_forwards(Side::Client, &from_client(&fits), XDP_REDIRECT, &at_peer(&fits));
    relay.assert_outcome(Side::Client, &from_client(&data(fits.len() + 1)).bytes(), Outcome::Mtu);
    let fits = data(mtu as usize - 32);
    relay.assert_forwards(Side::Peer, &from_peer(&fits), XDP_REDIRECT, &at_client(&fits));
    relay.assert_outcome(Side::Peer, &from_peer(&data(fits.len() + 1)).bytes(), Outcome::Mtu);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_052_without_a_next_hop_the_slow_path_resolves_it() {
    let mut relay = Relay::new();
    relay.set_next_hop(PEER_NEXT_HOP, encode::unresolved_next_hop(PEER_NEXT_HOP));
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::NextHop);
    relay.assert_forwards(Side::Peer, &from_peer(b"data"), XDP_REDIRECT, &at_client(b"data"));

    for index in [NextHop::NONE, u32::MAX] {
        relay.install(&flow(Direction::ToPeer, FAR), TO_PEER_COUNTER, index);
        relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::NextHop);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_052_an_interface_that_the_program_may_not_send_on_is_the_slow_paths() {
    let mut relay = Relay::new();
    relay.remove_tx_port(Side::Peer);
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::TxPort);
    relay.assert_forwards(Side::Peer, &from_peer(b"data"), XDP_REDIRECT, &at_client(b"data"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_053_a_frame_for_another_mac_address_is_not_forwarded() {
    let mut relay = Relay::new();
    let own = Side::Client.mac();
    let mut others = vec![[0xff; 6], [0; 6], [0x01, 0, 0x5e, 0, 0, 1], Side::Peer.mac()];
    others.extend((0..6).map(|byte| {
        let mut mac = own;
        mac[byte] ^= 0x10;
        mac
    }));
    for destination_mac in others {
        let frame = Frame { destination_mac, ..from_client(b"data") };
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::ForeignMac);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_053_no_frame_is_for_an_interface_that_the_daemon_does_not_serve() {
    let mut relay = Relay::new();
    relay.set_interface(relay.ifindex(Side::Client), Interface::default());
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::ForeignMac);
    let frame = Frame { destination_mac: [0; 6], ..from_client(b"data") };
    relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::ForeignMac);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_frame_in_several_pieces_of_memory_is_the_slow_paths() {
    let mut relay = Relay::new();
    let hop = encode::next_hop(PEER_NEXT_HOP, relay.ifindex(Side::Peer), 9000, PEER_MAC, Side::Peer.mac());
    relay.set_next_hop(PEER_NEXT_HOP, hop);
    relay.assert_outcome(Side::Client, &from_client(&data(6000)).bytes(), Outcome::NonLinear);
    // Also when only padding lies outside the first one.
    let padded = Frame { ethernet_padding: vec![0; 6000], ..from_client(b"data") };
    relay.assert_outcome(Side::Client, &padded.bytes(), Outcome::NonLinear);
    relay.assert_forwards(Side::Client, &from_client(&data(3000)), XDP_REDIRECT, &at_peer(&data(3000)));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn without_headroom_a_frame_that_grows_is_the_slow_paths() {
    let mut relay = Relay::new();
    // Metadata as long as the kernel takes it leaves none of its 256 bytes of headroom.
    let metadata = [0; 216];
    let frame = from_peer(&data(100)).bytes();
    let padded = [&frame[..], &[0xee; 5]].concat();
    for frame in [frame, padded] {
        let run = relay.run_behind(&metadata, Side::Peer, &frame);
        assert_eq!(run, Run { verdict: XDP_PASS, frame });
    }
    assert_eq!(relay.outcomes().into_iter().collect::<Vec<_>>(), [(Outcome::Headroom.name(), 2)]);

    // One that shrinks needs none.
    let run = relay.run_behind(&metadata, Side::Client, &from_client(&data(100)).bytes());
    assert_eq!(run.verdict, XDP_REDIRECT);
    assert_eq!(run.frame[PAYLOAD_AT..], data(100));
}
