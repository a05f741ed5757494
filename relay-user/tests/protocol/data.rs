//! Data between clients and peers by the slow path (RFC 8656 sections 11 and 12.4 to 12.7).

use relay_user::turn::{Relayed, Traffic};

use crate::{
    pair::{CHANNEL, PEER, Pair, seconds},
    wire::{self, Message},
};

const LARGE: usize = 1200;

fn ready() -> (Pair, std::net::SocketAddr) {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    assert!(pair.permit(0, PEER).is_success());
    (pair, relayed)
}

fn bound() -> (Pair, std::net::SocketAddr) {
    let (mut pair, relayed) = ready();
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    (pair, relayed)
}

#[test]
fn turn_004_121_125_send_indication_becomes_a_datagram_from_the_relayed_address() {
    let (mut pair, relayed) = ready();
    for data in [&b""[..], b"x", &[7; LARGE]] {
        let happened = pair.send(0, PEER, data);
        assert_eq!(happened.to_peer(), (relayed, PEER.parse().unwrap(), data));
        let other_order = pair.send_indication(0, &[wire::data(data), wire::peer(PEER), wire::software()]);
        assert_eq!(other_order.to_peer().2, data);
    }
}

#[test]
fn turn_120_123_126_sends_that_are_discarded() {
    let (mut pair, _) = ready();
    let (to, data) = (wire::peer(PEER), wire::data(b"x"));
    let mut silent = |attributes: &[wire::Attribute]| pair.send_indication(0, attributes).outputs.is_empty();
    assert!(silent(std::slice::from_ref(&to)));
    assert!(silent(std::slice::from_ref(&data)));
    assert!(silent(&[(0x0012, vec![0, 1, 1, 1]), data.clone()]));
    assert!(silent(&[wire::peer("8.8.8.8:0"), data.clone()]));
    assert!(silent(&[to.clone(), data.clone(), (0x001a, vec![0])]), "TURN-234: its length is 0");
    assert!(silent(&[to, data.clone(), (0x7fff, vec![])]));
    assert!(silent(&[wire::peer("9.9.9.9:1"), data.clone()]));
    assert!(silent(&[wire::peer("[2001:4860::1]:1"), data]));
    assert_eq!(pair.drops("malformed_indication"), 5);
    assert_eq!(pair.drops("unknown_attribute"), 1);
    assert_eq!(pair.drops("no_permission"), 1);
    assert_eq!(pair.drops("address_family"), 1);
}

#[test]
fn turn_127_send_works_beside_a_channel() {
    let (mut pair, relayed) = bound();
    assert_eq!(pair.send(0, PEER, b"x").to_peer(), (relayed, PEER.parse().unwrap(), &b"x"[..]));
}

#[test]
fn turn_129_130_peer_data_becomes_a_data_indication() {
    let (mut pair, relayed) = ready();
    for data in [&b""[..], b"xyz", &[7; LARGE]] {
        let happened = pair.peer_sends(relayed, PEER, data);
        assert_eq!(happened.data_indication(), (PEER.parse().unwrap(), data.to_vec()));
        assert!(happened.to_client().all(|(five_tuple, _)| five_tuple == pair.clients[0].five_tuple));
    }
}

#[test]
fn turn_103_104_dp_029_030_034_any_port_of_a_permitted_address_is_heard_and_nobody_else() {
    let (mut pair, relayed) = ready();
    for port in [1, 5000, 65_535] {
        let peer = format!("8.8.8.8:{port}");
        assert_eq!(pair.peer_sends(relayed, &peer, b"x").data_indication().0, peer.parse().unwrap());
    }
    // Permitted by another client.
    let other = pair.add_client("203.0.113.2:4000");
    pair.allocate(other);
    assert!(pair.permit(other, "9.9.9.9:9").is_success());
    for peer in ["9.9.9.9:9", "8.8.8.9:5000"] {
        assert!(pair.peer_sends(relayed, peer, b"x").outputs.is_empty(), "{peer}: not even ICMP");
    }
    assert_eq!(pair.drops("peer_not_permitted"), 2);
}

#[test]
fn turn_132_dp_039_peer_data_is_never_interpreted() {
    let (mut pair, relayed) = ready();
    let stun = wire::Builder::new(wire::REQUEST, wire::BINDING, [1; 12]).build();
    let refresh = pair.build(0, wire::REFRESH, &[wire::lifetime(0)]);
    for data in [stun, refresh, wire::channel_data(CHANNEL, b"x")] {
        assert_eq!(pair.peer_sends(relayed, PEER, &data).data_indication().1, data);
    }
    assert_eq!(pair.server.totals().allocations, 1);
}

#[test]
fn turn_161_166_171_172_channel_data_becomes_a_datagram_to_the_bound_peer() {
    let (mut pair, relayed) = bound();
    for data in [&b""[..], b"x", b"xyz", &[7; LARGE]] {
        let happened = pair.channel_data(0, CHANNEL, data);
        assert_eq!(happened.to_peer(), (relayed, PEER.parse().unwrap(), data));
    }
    let padded = [wire::channel_data(CHANNEL, b"xyz"), vec![0xff]].concat();
    assert_eq!(pair.deliver(0, &padded).to_peer().2, b"xyz");
}

#[test]
fn turn_167_168_169_channel_data_that_is_discarded() {
    let (mut pair, _) = bound();
    let mut short = wire::channel_data(CHANNEL, b"xyz");
    short.pop();
    assert!(pair.deliver(0, &short).outputs.is_empty());
    assert!(pair.deliver(0, &[0x40]).outputs.is_empty());
    assert!(pair.deliver(0, &[0x40, 0, 0]).outputs.is_empty());
    assert_eq!(pair.drops("channel_data_length"), 3);
    assert!(pair.channel_data(0, 0x4001, b"x").outputs.is_empty());
    assert_eq!(pair.drops("no_channel"), 1);
    for reserved in [0x5000, 0x7fff, 0xffff] {
        assert!(pair.channel_data(0, reserved, b"x").outputs.is_empty());
    }
}

#[test]
fn turn_162_130_data_from_a_bound_peer_becomes_channel_data() {
    let (mut pair, relayed) = bound();
    for data in [&b""[..], b"xyz", &[7; LARGE]] {
        assert_eq!(pair.peer_sends(relayed, PEER, data).datagram(), wire::channel_data(CHANNEL, data));
    }
}

#[test]
fn turn_011_dp_017_data_without_an_allocation_is_ignored() {
    let mut pair = Pair::new();
    assert!(pair.channel_data(0, CHANNEL, b"x").outputs.is_empty());
    assert!(pair.send(0, PEER, b"x").outputs.is_empty());
    assert_eq!(pair.drops("no_allocation"), 2);
}

#[test]
fn turn_170_channel_data_prolongs_nothing() {
    let (mut pair, relayed) = bound();
    pair.refresh(0, 3600);
    for _ in 0..599 {
        pair.advance(seconds(1));
        assert!(!pair.channel_data(0, CHANNEL, b"x").is_silence());
        assert!(!pair.peer_sends(relayed, PEER, b"x").is_silence());
    }
    pair.advance(seconds(1));
    assert!(pair.channel_data(0, CHANNEL, b"x").is_silence());
    assert!(pair.peer_sends(relayed, PEER, b"x").is_silence());
}

#[test]
fn peer_data_that_fits_no_datagram_to_the_client_is_dropped() {
    let (mut pair, relayed) = bound();
    let most = 65_535 - 20 - 8;
    assert_eq!(pair.peer_sends(relayed, PEER, &vec![1; most - 4]).datagram().len(), most);
    assert!(pair.peer_sends(relayed, PEER, &vec![1; most - 3]).is_silence());
    let other_port = "8.8.8.8:1";
    let indication = pair.peer_sends(relayed, other_port, &vec![1; most - 39]);
    assert_eq!(Message::parse(indication.datagram()).len, most - 3);
    assert!(pair.peer_sends(relayed, other_port, &vec![1; most - 30]).is_silence());
    assert_eq!(pair.drops("too_long"), 2);
}

#[test]
fn counts_are_of_application_data_in_both_directions() {
    let (mut pair, relayed) = bound();
    pair.channel_data(0, CHANNEL, &[1; 100]);
    pair.send(0, PEER, &[1; 10]);
    pair.peer_sends(relayed, PEER, &[1; 1000]);
    pair.peer_sends(relayed, "8.8.8.8:1", &[]);
    pair.peer_sends(relayed, "9.9.9.9:1", &[1; 5]);
    let to_peer = Traffic { packets: 2, bytes: 110 };
    let to_client = Traffic { packets: 2, bytes: 1000 };
    assert_eq!(pair.server.relayed_traffic(), Relayed { to_peer, to_client, hairpin: Traffic::default() });
    let session = pair.server.sessions().next().unwrap();
    assert_eq!((session.to_peer, session.to_client), (to_peer, to_client));
}
