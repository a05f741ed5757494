//! Nothing is forwarded past its end, whether or not a daemon is there to remove it.

use relay_common::outcome::Outcome;
use relay_user::turn::{Direction, Flow, FlowForm};

use crate::{
    case::{Case, End, Form},
    frame::Frame,
    message::data_indication,
    relay::*,
};

const HOUR: u64 = 3600 * SECOND;

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_018_dp_021_dp_031_a_flow_past_its_end_carries_nothing() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for (index, flow) in case.flows().into_iter().enumerate() {
            for expires in [0, 1, now() - HOUR, now() - SECOND] {
                relay.install(&Flow { expires, ..flow });
                let frame = case.input(b"data");
                if is_channel_to_client(&flow) {
                    // The permission remains.
                    let payload = data_indication(case.shown(), b"data");
                    relay.assert_forwards(&case, &frame, &Frame { payload, ..case.output(b"data") });
                    continue;
                }
                let outcome = if index == 1 { Outcome::HairpinMiss } else { Outcome::Expired };
                relay.assert_outcome(case.ingress(), &frame.bytes(), outcome);
            }
            relay.install(&flow);
            relay.assert_relays(&case, b"data");
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_018_a_send_indication_needs_a_live_allocation() {
    let mut relay = Relay::new();
    for case in Case::all() {
        let End::Client(client, Form::Indication) = case.from else { continue };
        let allocation = client.allocation(case.relayed);
        for expires in [0, now() - SECOND] {
            relay.install(&Flow { expires, ..allocation });
            relay.assert_outcome(Side::Client, &case.input(b"data").bytes(), Outcome::Expired);
        }
        relay.install(&allocation);
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_032_with_channel_and_permission_both_past_their_end_nothing_reaches_the_client() {
    let mut relay = Relay::new();
    for case in Case::all() {
        let End::Client(client, _) = case.to else { continue };
        for flow in [
            client.bound(Direction::ToClient, case.shown()),
            client.permitted(Direction::ToClient, case.shown().ip()),
        ] {
            relay.install(&Flow { expires: now() - SECOND, ..flow });
        }
        let outcome = if case.is_hairpin() { Outcome::HairpinMiss } else { Outcome::Expired };
        relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), outcome);
        for flow in client.flows() {
            relay.install(&flow);
        }
        if case.to == End::Client(client, Form::Indication) {
            relay.remove(&client.bound(Direction::ToClient, case.shown()));
        }
        relay.assert_relays(&case, b"data");
    }
}

// Also in the minutes after a channel's end in which its number cannot be bound to another peer (RFC 8656 section 12).
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_066_what_is_refreshed_after_its_end_forwards_again_as_before() {
    let mut relay = Relay::new();
    for case in Case::all() {
        for flow in case.flows() {
            relay.install(&Flow { expires: now() - 60 * SECOND, ..flow });
        }
        let run = relay.run(case.ingress(), &case.input(b"data").bytes());
        let relayed = with_own_fields(&case.output(b"data"), &run.frame).bytes();
        assert_ne!(hex(&run.frame), hex(&relayed), "{case:?}");
        for flow in case.flows() {
            relay.install(&Flow { expires: now() + 600 * SECOND, ..flow });
        }
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_063_dp_071_flows_live_to_their_end_in_time_that_counts_sleep_and_without_a_daemon() {
    for daemon_is_alive in [true, false] {
        let mut relay = Relay::new();
        for case in Case::all() {
            if let End::Client(client, _) = case.from {
                relay.install(&Flow { expires: now() + HOUR, ..client.allocation(case.relayed) });
            }
            for flow in case.flows() {
                relay.install(&Flow { expires: now() + HOUR, ..flow });
            }
            if let End::Client(client, Form::ChannelData) = case.to {
                let flow = client.permitted(Direction::ToClient, case.shown().ip());
                relay.install(&Flow { expires: now() + HOUR, ..flow });
            }
        }
        if !daemon_is_alive {
            relay.kill_daemon();
        }
        for case in Case::all() {
            relay.assert_relays(&case, b"data");
        }
        // As userspace publishes it after a sleep of two hours.
        relay.set_clock_offset(boot_offset() + 2 * HOUR);
        for case in Case::all() {
            relay.assert_outcome(case.ingress(), &case.input(b"data").bytes(), Outcome::Expired);
        }
    }
}

fn is_channel_to_client(flow: &Flow) -> bool {
    flow.id.direction == Direction::ToClient && matches!(flow.id.form, FlowForm::Channel { .. })
}
