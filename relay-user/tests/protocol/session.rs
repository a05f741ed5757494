//! What an operator may see of an allocation: while it lives, and what remains (RFC 8656 section 21.3.2).

use relay_user::turn::{EndReason, Event, SessionRecord, Totals, Traffic};

use crate::{
    dual_stack::{PEER_IPV6, dual_stack},
    pair::{CHANNEL, Happened, PEER, Pair, REALM, SECOND, USER, seconds},
    wire,
};

fn record(happened: &Happened) -> SessionRecord {
    let mut records = happened.events().filter_map(|event| match event {
        Event::AllocationEnded(record) => Some((**record).clone()),
        Event::AllocationCreated { .. } | Event::AuthenticationFailed { .. } => None,
    });
    let record = records.next().expect("a record");
    assert_eq!(records.next(), None, "one record");
    record
}

#[test]
fn turn_245_a_record_names_user_addresses_peers_amounts_and_times() {
    let mut pair = Pair::dual_stack();
    let started = pair.now;
    let relayed = pair.allocate_dual(0);
    pair.bind(0, CHANNEL, PEER);
    pair.permit(0, PEER_IPV6);
    pair.permit(0, "8.8.8.8:1");
    pair.channel_data(0, CHANNEL, b"12345");
    pair.peer_sends(relayed[1], PEER_IPV6, b"123");
    pair.advance(seconds(10));
    let session = pair.server.sessions().next().unwrap();
    assert_eq!(session.relayed.iter().map(|relayed| relayed.address.0).collect::<Vec<_>>(), relayed);
    assert_eq!((session.permissions.len(), session.channels.len()), (2, 1));

    let request = pair.build(0, wire::REFRESH, &[wire::lifetime(0)]);
    let record = record(&pair.deliver(0, &request));
    assert_eq!(record.allocation, session.allocation);
    assert_eq!((&*record.username, &*record.realm), (USER, REALM));
    assert_eq!(record.five_tuple, pair.clients[0].five_tuple);
    assert_eq!(record.relayed.iter().map(|relayed| relayed.address.0).collect::<Vec<_>>(), relayed);
    let peers = [PEER, PEER_IPV6].map(|peer| peer.parse::<std::net::SocketAddr>().unwrap().ip());
    assert_eq!((&record.peers[..], record.peer_count), (&peers[..], 2));
    assert_eq!((record.started, record.ended), (started, started + 10 * SECOND));
    assert_eq!(record.reason, EndReason::Deleted);
    let traffic = |packets, bytes| Traffic { packets, bytes };
    assert_eq!((record.to_peer, record.to_client), (traffic(1, 5), traffic(1, 3)));
}

#[test]
fn turn_245_peers_are_counted_up_to_a_bound_and_the_first_are_named() {
    let mut pair = Pair::with(|config| config.limits.permissions = 20);
    pair.allocate(0);
    pair.refresh(0, 3600);
    for group in 0..3 {
        for last in 1..=20 {
            assert!(pair.permit(0, &format!("9.9.{group}.{last}:1")).is_success());
        }
        pair.advance(seconds(300));
    }
    let record = record(&pair.advance(seconds(3600)));
    assert_eq!((record.peers.len(), record.peer_count), (SessionRecord::MAX_PEERS, 20));
    assert_eq!(record.peers[0].to_string(), "9.9.0.1");
}

#[test]
fn turn_030_a_record_says_when_it_ended_however_late_the_driver_is() {
    let mut pair = Pair::new();
    let started = pair.now;
    pair.allocate(0);
    pair.oversleep(seconds(5000));
    pair.server.handle_timeout(pair.now);
    let record = record(&pair.drain());
    assert_eq!((record.ended - started, record.reason), (600 * SECOND, EndReason::Expired));
    assert_eq!(record.relayed[0].expires, record.ended);
}

#[test]
fn totals_follow_what_lives() {
    let mut pair = Pair::with(dual_stack);
    assert_eq!(pair.server.totals(), Totals::default());
    pair.allocate_dual(0);
    pair.bind(0, CHANNEL, PEER);
    pair.bind(0, CHANNEL + 1, PEER_IPV6);
    let second = pair.add_client("203.0.113.2:4000");
    pair.ask_allocate(second, &[wire::even_port(0x80)]);
    let all = Totals { allocations: 2, permissions: 2, channels: 2, reservations: 1 };
    assert_eq!(pair.server.totals(), all);
    pair.request(0, wire::REFRESH, &[wire::requested_family(2), wire::lifetime(0)]);
    assert_eq!(pair.server.totals(), Totals { permissions: 1, channels: 1, ..all });
    pair.advance(seconds(600));
    assert_eq!(pair.server.totals(), Totals::default());
}
