//! Every forwarded packet is counted once, by what was relayed of it.

use relay_common::{counter::FlowCounter, outcome::Outcome};

use crate::{frame::Frame, relay::*};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_074_packets_and_bytes_of_application_data_are_counted_by_flow() {
    let mut relay = Relay::new();
    let mut bytes = 0;
    for (packets, len) in (1..).zip([0, 1, 2, 3, 100, 999, 1468]) {
        bytes += len as u64;
        let data = data(len);
        // Neither headers nor padding count.
        let mut frame = Frame { ethernet_padding: vec![0; 9], ..from_client(&data) };
        frame.payload.extend([0; 3]);
        relay.assert_forwards(Side::Client, &frame, XDP_REDIRECT, &at_peer(&data));
        assert_eq!(relay.counted(TO_PEER_COUNTER), (packets, bytes));
        assert_eq!(relay.counted(TO_CLIENT_COUNTER).0, packets - 1);

        relay.assert_forwards(Side::Peer, &from_peer(&data), XDP_REDIRECT, &at_client(&data));
        assert_eq!(relay.counted(TO_CLIENT_COUNTER), (packets, bytes));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_full_counter_wraps_and_differences_stay_exact() {
    let mut relay = Relay::new();
    let full = FlowCounter(u64::MAX);
    relay.set_counter(TO_PEER_COUNTER, full.0);
    relay.assert_forwards(Side::Client, &from_client(b"data"), XDP_REDIRECT, &at_peer(b"data"));
    let (packets, bytes) = relay.counted(TO_PEER_COUNTER);
    let word = FlowCounter(packets << FlowCounter::PACKETS_SHIFT | bytes);
    assert_eq!(word.since(full), (1, 4));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn outcomes_add_up_over_packets() {
    let mut relay = Relay::new();
    let expired = Frame { ttl: 1, ..from_client(b"data") }.bytes();
    let not_turn = Frame { payload: vec![0xff; 4], ..from_client(b"") }.bytes();
    for _ in 0..3 {
        relay.assert_outcome(Side::Client, &expired, Outcome::Ttl);
    }
    for _ in 0..2 {
        relay.assert_outcome(Side::Client, &not_turn, Outcome::NotTurn);
    }
    let outcomes: Vec<_> = relay.outcomes().into_iter().collect();
    assert_eq!(outcomes, [(Outcome::NotTurn.name(), 2), (Outcome::Ttl.name(), 3)]);
}
