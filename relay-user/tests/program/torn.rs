//! A map value that is not whole is never used (DP-067). What happens under constant change is [`crate::stress`].

use relay_common::{
    flow::{FLOW_ENTRY_WORDS, FlowEntry},
    outcome::Outcome,
    path::Path,
};
use relay_user::{
    datapath::encode::{self, Indices, Key},
    turn::{Direction, Flow, FlowForm},
};

use crate::{
    case::{Case, End, Form},
    frame::Frame,
    message::data_indication,
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_flow_with_any_word_of_another_is_the_slow_paths() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for flow in involved(&case) {
            for key in encode::keys(&flow) {
                let entry = relay.entry(&key).unwrap();
                for word in 0..FLOW_ENTRY_WORDS {
                    for bit in [0, 31, 63] {
                        // SAFETY: FlowEntry is Pod, words without padding.
                        let mut words =
                            unsafe { std::mem::transmute::<FlowEntry, [u64; FLOW_ENTRY_WORDS]>(entry) };
                        words[word] ^= 1 << bit;
                        relay.insert(&key, FlowEntry::from_words(words));
                        relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), Outcome::Torn);
                    }
                }
                relay.insert(&key, entry);
            }
        }
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_flow_of_zeroes_or_of_another_key_is_the_slow_paths() {
    let mut relay = Relay::new();
    let all: Vec<Flow> = Case::all().flat_map(|case| involved(&case)).collect();
    for case in Case::all() {
        for flow in involved(&case) {
            for key in encode::keys(&flow) {
                let entry = relay.entry(&key).unwrap();
                // One of the same kind is the most dangerous.
                let same_kind = all.iter().find(|other| {
                    let form = |flow: &Flow| std::mem::discriminant(&flow.id.form);
                    **other != flow && other.id.direction == flow.id.direction && form(other) == form(&flow)
                });
                let other = encode::keys(same_kind.expect("many of a kind")).next().expect("a key");
                let other = relay.entry(&other).unwrap();
                for value in [FlowEntry::default(), other, FlowEntry { check: 0, ..entry }] {
                    relay.insert(&key, value);
                    relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), Outcome::Torn);
                }
                relay.insert(&key, entry);
            }
        }
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_whole_flow_of_another_kind_forwards_nothing() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for (index, flow) in case.flows().into_iter().enumerate() {
            for key in encode::keys(&flow) {
                let entry = relay.entry(&key).unwrap();
                for kind in (0..=8).filter(|&kind| kind != entry.kind) {
                    relay.insert(&key, sealed(FlowEntry { kind, ..entry }, &key));
                    let frame = case.input(b"data");
                    if flow.id.direction == Direction::ToClient
                        && matches!(flow.id.form, FlowForm::Channel { .. })
                    {
                        let payload = data_indication(case.shown(), b"data");
                        relay.assert_forwards(&case, &frame, &Frame { payload, ..case.output(b"data") });
                    } else {
                        let outcome = if index == 1 { Outcome::HairpinMiss } else { Outcome::NoFlow };
                        relay.assert_outcome(case.ingress(), &frame.bytes(), outcome);
                    }
                }
                relay.insert(&key, entry);
            }
        }
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_path_that_is_not_whole_is_the_slow_paths() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for flow in involved(&case) {
            // To the peer without a hairpin, and to the client, it is the path out; else an internal one. A hairpin's
            // indices are those of two.
            let index = relay.indices(&flow).path;
            let path = relay.get_path(index);
            let mut broken = vec![Path::default(), path.sealed(index + 1), Path { check: 0, ..path }];
            for word in 0..8 {
                // SAFETY: Path is Pod, words without padding.
                let mut words = unsafe { std::mem::transmute::<Path, [u64; 8]>(path) };
                words[word] ^= 1 << (word * 7);
                broken.push(Path::from_words(words));
            }
            for broken in broken {
                relay.set_path(index, broken);
                relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), Outcome::Torn);
            }
            relay.set_path(index, path);
        }
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_flow_without_a_counter_is_not_whole() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for flow in case.flows() {
            let indices = Indices { counter: u32::MAX, ..relay.indices(&flow) };
            for key in encode::keys(&flow) {
                relay.insert(&key, encode::entry(&flow, &key, indices));
            }
            relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), Outcome::Torn);
            relay.install(&flow);
        }
        relay.assert_relays(&case, b"data");
    }
}

// An internal path leads nowhere, whatever its bytes would be as MAC addresses.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn nothing_leaves_by_an_internal_path() {
    let mut relay = Relay::new();
    for case in Case::hairpins() {
        let [sending, receiving] = case.flows()[..] else { panic!("two flows") };
        let indices = relay.indices(&sending);
        // As if the hairpin's flag were missing.
        for key in encode::keys(&sending) {
            relay.insert(&key, encode::entry(&Flow { hairpin: None, ..sending }, &key, indices));
        }
        relay.assert_outcome(Side::Client, &case.input(b"data").bytes(), Outcome::NextHop);
        relay.install(&sending);
        let indices = Indices { path: indices.path, ..relay.indices(&receiving) };
        for key in encode::keys(&receiving) {
            relay.insert(&key, encode::entry(&receiving, &key, indices));
        }
        relay.assert_outcome(Side::Client, &case.input(b"data").bytes(), Outcome::NextHop);
        relay.install(&receiving);
        relay.assert_relays(&case, b"data");
    }
}

/// Every flow that a packet of this way looks up.
fn involved(case: &Case) -> Vec<Flow> {
    let mut flows = case.flows();
    if let End::Client(client, Form::Indication) = case.from {
        flows.push(client.allocation(case.relayed));
    }
    flows
}

fn sealed(entry: FlowEntry, key: &Key) -> FlowEntry {
    match key {
        Key::V4(key) => entry.sealed(key),
        Key::V6(key) => entry.sealed(key),
    }
}
