//! The bandwidth limit of an allocation.

use relay_user::turn::{Limits, Traffic};

use crate::pair::{CHANNEL, PEER, Pair, seconds};

const BURST: usize = 100_000;

fn limited() -> (Pair, std::net::SocketAddr) {
    let mut pair = Pair::with(|config| {
        config.limits = Limits { bytes_per_second: 1000, burst: BURST as u64, ..config.limits };
    });
    let relayed = pair.allocate(0);
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    (pair, relayed)
}

#[test]
fn turn_024_025_data_beyond_the_limit_of_both_directions_together_is_dropped() {
    let (mut pair, relayed) = limited();
    let half = vec![7; BURST / 2];
    assert!(!pair.channel_data(0, CHANNEL, &half).is_silence());
    assert!(!pair.peer_sends(relayed, PEER, &half).is_silence());
    assert!(pair.channel_data(0, CHANNEL, b"x").is_silence());
    assert!(pair.send(0, PEER, b"x").is_silence());
    assert!(pair.peer_sends(relayed, PEER, b"x").is_silence());
    assert!(!pair.channel_data(0, CHANNEL, b"").is_silence(), "no application data, nothing to limit");
    assert_eq!(pair.drops("bandwidth"), 3);

    pair.advance(seconds(2));
    assert!(!pair.channel_data(0, CHANNEL, &[7; 1500]).is_silence());
    assert!(pair.peer_sends(relayed, PEER, &[7; 501]).is_silence());
    assert!(!pair.peer_sends(relayed, PEER, &[7; 500]).is_silence());
    let session = pair.server.sessions().next().unwrap();
    let traffic = |packets, bytes: usize| Traffic { packets, bytes: bytes as u64 };
    assert_eq!(session.to_peer, traffic(3, BURST / 2 + 1500), "what was dropped is not counted");
    assert_eq!(session.to_client, traffic(2, BURST / 2 + 500));
}

#[test]
fn turn_024_each_allocation_has_its_own_bandwidth_and_a_hairpin_takes_from_both() {
    let (mut pair, relayed_a) = limited();
    let b = pair.add_client("203.0.113.2:4000");
    let relayed_b = pair.allocate(b).to_string();
    let relayed_a = relayed_a.to_string();
    assert!(pair.permit(b, &relayed_a).is_success() && pair.permit(b, PEER).is_success());
    assert!(pair.permit(0, &relayed_b).is_success());

    let half = vec![7; BURST / 2];
    assert!(!pair.send(0, &relayed_b, &half).is_silence());
    assert!(!pair.send(b, PEER, &half).is_silence());
    assert!(pair.send(b, PEER, b"x").is_silence(), "half went to the hairpin");
    assert!(pair.send(0, &relayed_b, b"x").is_silence(), "the receiver has none left");
    assert!(!pair.send(0, PEER, &half[1..]).is_silence(), "and the sender still has");
}

#[test]
fn turn_024_without_a_limit_everything_passes() {
    let mut pair = Pair::new();
    pair.allocate(0);
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    for _ in 0..100 {
        assert!(!pair.channel_data(0, CHANNEL, &[7; 60_000]).is_silence());
    }
}
