//! Every forwarded packet is counted once for each flow, by what was relayed of it.

use std::sync::atomic::Ordering;

use relay_common::{counter::FlowCounter, outcome::Outcome};

use crate::{
    case::{Case, End, Form},
    frame::Frame,
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_074_packets_and_bytes_of_application_data_are_counted_by_flow_and_no_other() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for word in relay.flow_counters.iter() {
            word.store(0, Ordering::Relaxed);
        }
        let mut bytes = 0;
        for (packets, len) in (1..).zip([0, 1, 2, 3, 100, 999]) {
            bytes += len as u64;
            let data = data(len);
            // Neither headers nor padding count.
            let mut frame = Frame { ethernet_padding: vec![0; 9], ..case.input(&data) };
            if matches!(case.from, End::Client(_, Form::ChannelData)) {
                frame.payload.extend([0; 3]);
            }
            relay.assert_forwards(&case, &frame, &case.output(&data));
            for flow in case.flows() {
                assert_eq!(relay.counted(&flow), (packets, bytes), "{case:?}: {flow:?}");
            }
        }
        let counters: Vec<_> = case.flows().iter().map(|flow| relay.indices(flow).counter as usize).collect();
        for (index, word) in values(&relay.flow_counters).into_iter().enumerate() {
            assert_eq!(word != 0, counters.contains(&index), "{case:?}: counter {index} of {counters:?}");
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_full_counter_wraps_and_differences_stay_exact() {
    let mut relay = Relay::new();
    let [case, _] = Case::ipv4(Form::ChannelData);
    let [flow] = case.flows()[..] else { panic!("one flow") };
    let full = FlowCounter(u64::MAX);
    let index = relay.indices(&flow).counter as usize;
    relay.flow_counters[index].store(full.0, Ordering::Relaxed);
    relay.assert_relays(&case, b"data");
    assert_eq!(FlowCounter(values(&relay.flow_counters)[index]).since(full), (1, 4));
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn outcomes_add_up_over_packets() {
    let relay = Relay::new();
    let [case, _] = Case::ipv4(Form::ChannelData);
    let ttl = Frame { ttl: 1, ..case.input(b"data") }.bytes();
    let not_turn = Frame { payload: vec![0xff; 4], ..case.input(b"") }.bytes();
    for _ in 0..3 {
        relay.assert_outcome(Side::Client, &ttl, Outcome::Ttl);
    }
    for _ in 0..2 {
        relay.assert_outcome(Side::Client, &not_turn, Outcome::NotTurn);
    }
    let outcomes: Vec<_> = relay.outcomes().into_iter().collect();
    assert_eq!(outcomes, [(Outcome::NotTurn.name(), 2), (Outcome::Ttl.name(), 3)]);
}
