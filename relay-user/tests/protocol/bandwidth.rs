//! The bandwidth limit of an allocation.

use std::sync::atomic::Ordering;

use relay_user::turn::{Limits, Traffic};

use crate::pair::{CHANNEL, PEER, Pair, SECOND, seconds};

const BURST: usize = 100_000;

fn unused() -> Pair {
    Pair::with(|config| {
        config.limits = Limits { bytes_per_second: 1000, burst: BURST as u64, ..config.limits };
    })
}

fn limited() -> (Pair, std::net::SocketAddr) {
    let mut pair = unused();
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
fn dp_073_what_the_kernel_carries_and_what_the_core_carries_have_one_limit() {
    let mut pair = unused();
    let words = pair.share_meters(3);
    let relayed = pair.allocate(0);
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    assert_eq!(pair.flow_counts(), [1, 2, 2]);
    assert!(pair.flows.values().all(|flow| flow.meter == Some(1)));

    // The kernel has carried half of what may come at once.
    words[1].store(pair.now + BURST as u64 / 2 * (SECOND / 1000), Ordering::Relaxed);
    assert!(!pair.channel_data(0, CHANNEL, &[7; 20_000]).is_silence());
    assert!(!pair.peer_sends(relayed, PEER, &[7; 30_000]).is_silence());
    assert!(pair.peer_sends(relayed, PEER, b"x").is_silence());
    assert_eq!(words[1].load(Ordering::Relaxed), pair.now + BURST as u64 * (SECOND / 1000));
    pair.advance(seconds(1));
    assert!(!pair.send(0, PEER, &[7; 1000]).is_silence());
    assert!(pair.send(0, PEER, b"x").is_silence());
    assert_eq!(pair.drops("bandwidth"), 2);
    let others = [&words[0], &words[2]].map(|word| word.load(Ordering::Relaxed));
    assert_eq!(others, [0, 0]);
}

/// Neither path could tell alone how much the other has carried.
#[test]
fn dp_073_without_a_meter_to_share_an_allocation_has_no_flows() {
    let mut pair = unused();
    pair.share_meters(3);
    let clients = [0, pair.add_client("203.0.113.2:4000"), pair.add_client("203.0.113.3:4000")];
    for client in clients {
        pair.allocate(client);
        assert!(pair.bind(client, CHANNEL, PEER).is_success());
    }
    let has_flows = |pair: &Pair, client: usize| {
        pair.flows.keys().any(|flow| flow.five_tuple == pair.clients[client].five_tuple)
    };
    assert_eq!(clients.map(|client| has_flows(&pair, client)), [true, true, false]);
    let all = vec![7; 60_000];
    for client in clients {
        assert!(!pair.channel_data(client, CHANNEL, &all).is_silence());
        assert!(pair.channel_data(client, CHANNEL, &all).is_silence(), "but all are limited");
    }
    pair.refresh(clients[2], 900);
    assert!(!has_flows(&pair, clients[2]));

    // Who comes next gets what the first had, with nothing used up.
    pair.refresh(clients[0], 0);
    let next = pair.add_client("203.0.113.4:4000");
    pair.allocate(next);
    assert!(pair.bind(next, CHANNEL, PEER).is_success());
    let of_next = |flow: &&relay_user::turn::Flow| flow.id.five_tuple == pair.clients[next].five_tuple;
    assert!(pair.flows.values().filter(of_next).all(|flow| flow.meter == Some(1)));
    assert!(has_flows(&pair, next) && !has_flows(&pair, clients[2]));
    assert!(!pair.channel_data(next, CHANNEL, &all).is_silence());

    // Where nothing is shared nothing is given to anybody else.
    let (pair, _) = limited();
    assert!(pair.flows.is_empty());
}

#[test]
fn turn_024_dp_073_a_hairpins_sender_pays_even_if_the_receiver_cannot() {
    let (mut pair, relayed_a) = limited();
    let b = pair.add_client("203.0.113.2:4000");
    let relayed_b = pair.allocate(b).to_string();
    assert!(pair.permit(b, &relayed_a.to_string()).is_success() && pair.permit(0, &relayed_b).is_success());
    let half = vec![7; BURST / 2];
    assert!(pair.permit(b, PEER).is_success());
    assert!(!pair.send(b, PEER, &half).is_silence() && !pair.send(b, PEER, &half).is_silence());
    assert!(pair.send(0, &relayed_b, &half).is_silence());
    assert!(!pair.send(0, PEER, &half).is_silence());
    assert!(pair.send(0, PEER, b"x").is_silence(), "half of it went nowhere");
    assert_eq!(pair.drops("bandwidth"), 2);
}

#[test]
fn turn_024_without_a_limit_everything_passes() {
    let mut pair = Pair::new();
    pair.share_meters(3);
    pair.allocate(0);
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    assert!(pair.flows.values().all(|flow| flow.meter.is_none()));
    for _ in 0..100 {
        assert!(!pair.channel_data(0, CHANNEL, &[7; 60_000]).is_silence());
    }
}
