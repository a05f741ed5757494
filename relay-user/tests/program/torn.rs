//! A map value that is not whole is never used (DP-067).

use std::sync::atomic::{AtomicBool, Ordering};

use aya::maps::{HashMap, Map, MapData};
use relay_common::{
    flow::{FLOW_V4_WORDS, FlowKeyV4, FlowV4},
    next_hop::NextHop,
    outcome::Outcome,
};
use relay_user::{
    datapath::encode,
    turn::{Direction, Flow, PeerAddr},
};

use crate::{frame::parse, relay::*};

const FAR: u64 = u64::MAX;

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_flow_with_any_word_of_another_is_the_slow_paths() {
    let mut relay = Relay::new();
    let (key, value) =
        encode::flow_v4(&flow(Direction::ToPeer, FAR), TO_PEER_COUNTER, PEER_NEXT_HOP).unwrap();
    for word in 0..FLOW_V4_WORDS {
        for bit in [0, 31, 63] {
            // SAFETY: FlowV4 is Pod, 7 words without padding.
            let mut words = unsafe { std::mem::transmute::<FlowV4, [u64; FLOW_V4_WORDS]>(value) };
            words[word] ^= 1 << bit;
            relay.insert((key, FlowV4::from_words(words)));
            relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::Torn);
        }
    }
    relay.insert((key, value));
    relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_REDIRECT, &at_peer(b"data"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_flow_of_zeroes_or_of_another_key_is_the_slow_paths() {
    let mut relay = Relay::new();
    let (to_peer_key, to_peer) = encode::flow_v4(&flow(Direction::ToPeer, FAR), 1, PEER_NEXT_HOP).unwrap();
    let (to_client_key, to_client) =
        encode::flow_v4(&flow(Direction::ToClient, FAR), 1, CLIENT_NEXT_HOP).unwrap();
    for value in [FlowV4::default(), to_peer, FlowV4 { check: 0, ..to_client }] {
        relay.insert((to_client_key, value));
        relay.assert_outcome(Side::Peer, &from_peer(b"data").bytes(), Outcome::Torn);
    }
    relay.insert((to_peer_key, to_client));
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::Torn);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_whole_value_of_another_kind_forwards_nothing() {
    let mut relay = Relay::new();
    let (to_peer_key, to_peer) = encode::flow_v4(&flow(Direction::ToPeer, FAR), 1, PEER_NEXT_HOP).unwrap();
    let (to_client_key, to_client) =
        encode::flow_v4(&flow(Direction::ToClient, FAR), 1, CLIENT_NEXT_HOP).unwrap();
    relay.insert((to_client_key, to_peer.sealed(&to_client_key)));
    relay.assert_outcome(Side::Peer, &from_peer(b"data").bytes(), Outcome::NoFlow);
    relay.insert((to_peer_key, to_client.sealed(&to_peer_key)));
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::NoFlow);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_next_hop_that_is_not_whole_is_the_slow_paths() {
    let mut relay = Relay::new();
    let hop = encode::next_hop(PEER_NEXT_HOP, relay.ifindex(Side::Peer), MTU, PEER_MAC, Side::Peer.mac());
    for broken in [
        NextHop::default(),
        NextHop { ifindex: hop.ifindex + 1, ..hop },
        NextHop { mtu: hop.mtu + 1, ..hop },
        NextHop { macs: [7; 12], ..hop },
        NextHop { check: hop.check ^ 1, ..hop },
        hop.sealed(CLIENT_NEXT_HOP),
    ] {
        relay.set_next_hop(PEER_NEXT_HOP, broken);
        relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::Torn);
    }
    relay.set_next_hop(PEER_NEXT_HOP, hop);
    relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_REDIRECT, &at_peer(b"data"));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_flow_without_a_counter_is_not_whole() {
    let mut relay = Relay::new();
    relay.install(&flow(Direction::ToPeer, FAR), u32::MAX, PEER_NEXT_HOP);
    relay.assert_outcome(Side::Client, &from_client(b"data").bytes(), Outcome::Torn);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_under_constant_replacement_every_packet_goes_to_the_one_or_the_other_peer() {
    let mut relay = Relay::new();
    let peers = [6000, 6001].map(|port| std::net::SocketAddrV4::new(*PEER.ip(), port));
    let entries = peers.map(|peer| {
        let mut flow = flow(Direction::ToPeer, FAR);
        flow.id.peer = PeerAddr(peer.into());
        let next_hop = if peer.port() == 6000 { PEER_NEXT_HOP } else { CLIENT_NEXT_HOP };
        encode::flow_v4(&flow, TO_PEER_COUNTER, next_hop).unwrap()
    });
    let expected = [(peers[0], PEER_MAC, XDP_REDIRECT), (peers[1], CLIENT_MAC, XDP_TX)];
    let bystander = bystander();
    let id = relay.flow_table_id();
    let frame = from_client(b"data").bytes();

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let map = Map::HashMap(MapData::from_id(id).unwrap());
            let mut flows = HashMap::<_, FlowKeyV4, FlowV4>::try_from(map).unwrap();
            while !stop.load(Ordering::Relaxed) {
                for (key, value) in entries {
                    flows.insert(key, value, 0).unwrap();
                    // Its element is freed and used again for the flow, and the other way round.
                    flows.insert(bystander.0, bystander.1, 0).unwrap();
                    flows.remove(&bystander.0).unwrap();
                }
            }
        });
        for _ in 0..100_000 {
            let run = relay.run(Side::Client, &frame);
            if run.verdict == XDP_PASS {
                assert_eq!(run.frame, frame);
                continue;
            }
            let (ip, udp, payload) = parse(&run.frame);
            let destination = std::net::SocketAddrV4::new(ip.destination.into(), udp.destination_port);
            let mac = run.frame[..6].try_into().unwrap();
            assert!(expected.contains(&(destination, mac, run.verdict)), "{}", hex(&run.frame));
            assert_eq!(payload, b"data");
            crate::frame::assert_checksums(&run.frame);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let outcomes = relay.outcomes();
    assert!(outcomes.keys().all(|&name| name == Outcome::Torn.name()), "{outcomes:?}");
}

/// A flow of somebody else, with an address that no packet may ever go to.
fn bystander() -> (FlowKeyV4, FlowV4) {
    let mut other: Flow = flow(Direction::ToClient, FAR);
    other.id.peer = PeerAddr("203.0.113.9:9".parse().unwrap());
    other.id.relayed.0.set_port(50001);
    encode::flow_v4(&other, TO_CLIENT_COUNTER, CLIENT_NEXT_HOP).unwrap()
}
