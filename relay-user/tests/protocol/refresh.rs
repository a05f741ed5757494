//! Refresh (RFC 8656 section 8.2).

use relay_user::turn::{EndReason, Event, Output};

use crate::{
    pair::{CHANNEL, PEER, Pair, SECOND, seconds},
    wire,
};

#[test]
fn turn_088_089_090_lifetime_counts_from_the_refresh() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.advance(seconds(100));
    for (requested, granted) in
        [(Some(1), 600), (Some(600), 600), (Some(777), 777), (Some(9999), 3600), (None, 600)]
    {
        let attributes: Vec<_> = requested.map(wire::lifetime).into_iter().collect();
        let response = pair.request(0, wire::REFRESH, &attributes);
        assert_eq!(response.lifetime(), granted);
        let expires = pair.server.sessions().next().unwrap().relayed[0].expires;
        assert_eq!(expires, pair.now + u64::from(granted) * SECOND);
        assert_eq!(pair.server.poll_timeout(), Some(expires));
    }
}

#[test]
fn turn_086_087_dp_065_lifetime_0_deletes_flows_first() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    pair.bind(0, CHANNEL, PEER);
    let request = pair.build(0, wire::REFRESH, &[wire::lifetime(0)]);
    let happened = pair.deliver(0, &request);
    let order: Vec<_> = happened
        .outputs
        .iter()
        .map(|output| match output {
            Output::RemoveFlow(_) => "remove",
            Output::CloseRelayed { .. } => "close",
            Output::Event(Event::AllocationEnded(record)) if record.reason == EndReason::Deleted => "event",
            Output::ToClient { .. } => "response",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [&["remove"; 5][..], &["close", "event", "response"]].concat());
    let response = wire::Message::parse(happened.datagram());
    assert!(response.is_success());
    assert_eq!(response.lifetime(), 0);
    assert!(pair.peer_sends(relayed, PEER, b"x").outputs.is_empty());
    assert_eq!(pair.server.poll_timeout(), None);
}

#[test]
fn turn_097_a_retransmitted_deleting_refresh_gets_437() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let request = pair.build(0, wire::REFRESH, &[wire::lifetime(0)]);
    assert!(pair.exchange(0, &request).is_success());
    assert_eq!(pair.exchange(0, &request).error(), 437);
}

#[test]
fn turn_022_a_retransmitted_refresh_gets_the_same_answer() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let request = pair.build(0, wire::REFRESH, &[wire::lifetime(1000)]);
    assert_eq!(pair.exchange(0, &request), pair.exchange(0, &request));
}

#[test]
fn turn_091_another_address_family_gets_443() {
    let mut pair = Pair::new();
    pair.allocate(0);
    for family in [2, 9] {
        let attributes = [wire::requested_family(family), wire::lifetime(0)];
        assert_eq!(pair.request(0, wire::REFRESH, &attributes).error(), 443);
    }
    assert!(pair.request(0, wire::REFRESH, &[wire::requested_family(1)]).is_success());
    assert_eq!(pair.request(0, wire::REFRESH, &[(0x0017, vec![1])]).error(), 400);
    assert_eq!(pair.request(0, wire::REFRESH, &[(0x000d, vec![])]).error(), 400);
    assert_eq!(pair.server.totals().allocations, 1);
}

#[test]
fn turn_098_refresh_prolongs_neither_permission_nor_channel() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    pair.permit(0, "9.9.9.9:1");
    pair.bind(0, CHANNEL, PEER);
    pair.advance(seconds(299));
    pair.refresh(0, 3600);
    pair.advance(seconds(1));
    assert!(pair.peer_sends(relayed, "9.9.9.9:1", b"x").is_silence());
    pair.advance(seconds(299));
    pair.refresh(0, 3600);
    pair.advance(seconds(1));
    assert!(pair.channel_data(0, CHANNEL, b"x").is_silence());
}

#[test]
fn turn_099_after_deletion_the_5_tuple_is_free() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let old = pair.server.sessions().next().unwrap().allocation;
    pair.refresh(0, 0);
    pair.allocate(0);
    assert_ne!(pair.server.sessions().next().unwrap().allocation, old, "names are never reused");
}
