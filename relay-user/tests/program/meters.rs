//! The limit of bytes per second of an allocation (DP-073), in time that the tests set: the program adds the boot offset
//! to the kernel's clock.

use std::sync::{
    Barrier,
    atomic::{AtomicBool, Ordering},
};

use relay_common::{meter::Rate, outcome::Outcome};
use relay_user::turn::{Family, Flow};

use crate::{
    case::{Case, End, Form},
    loops::{CHANNEL, LONGEST, PingPong},
    relay::*,
    session::Client,
};

const BYTES_PER_SECOND: u64 = 1_000_000;
const LEN: usize = 1000;
const METER: u32 = 3;

/// Gives all flows of a client this meter.
fn meter(relay: &mut Relay, client: Client, meter: u32) {
    for flow in client.flows() {
        relay.install(&Flow { meter: Some(meter), ..flow });
    }
}

/// Time as the program sees it.
fn program_now(relay: &Relay) -> u64 {
    coarse_now() + values(&relay.globals)[0]
}

/// Lets time pass.
fn advance(relay: &mut Relay, nanos: u64) {
    relay.set_clock_offset(values(&relay.globals)[0] + nanos);
}

/// Sends until a packet is dropped: how many are not.
fn send_all(relay: &Relay, case: &Case) -> u64 {
    let frame = case.input(&data(LEN)).bytes();
    (0..)
        .find(|_| {
            let verdict = relay.run(case.ingress(), &frame).verdict;
            assert!([case.verdict(), XDP_DROP].contains(&verdict), "verdict {verdict}");
            verdict == XDP_DROP
        })
        .expect("a limit")
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_073_over_a_second_the_rate_is_kept_within_5_percent_every_way() {
    let mut relay = Relay::new();
    for client in Client::ALL {
        meter(&mut relay, client, METER);
    }
    // The most that may come at once is a second's worth, so that no stall of the machine wastes any.
    relay.set_rate(Rate::new(BYTES_PER_SECOND, BYTES_PER_SECOND));
    let cases = Case::all().filter(|case| !case.is_hairpin());
    for case in cases {
        send_all(&relay, &case);
        let dropped = relay.outcomes()[Outcome::Bandwidth.name()];
        let counted = relay.counted(&case.flows()[0]).1;
        let begin = program_now(&relay);
        let mut packets = 0;
        for _ in 0..100 {
            advance(&mut relay, SECOND / 100);
            packets += send_all(&relay, &case);
        }
        let elapsed = program_now(&relay) - begin;
        let (bytes, right) = (packets * LEN as u64, BYTES_PER_SECOND * elapsed / SECOND);
        let of_it = bytes as f64 / right as f64;
        assert!((0.95..1.05).contains(&of_it), "{case:?}: {bytes} bytes where {right} were allowed");
        assert_eq!(relay.counted(&case.flows()[0]).1 - counted, bytes, "{case:?}");
        assert_eq!(relay.outcomes()[Outcome::Bandwidth.name()] - dropped, 100, "{case:?}");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_073_a_burst_is_bounded_however_long_nothing_came() {
    let mut relay = Relay::new();
    meter(&mut relay, Client::caller(Family::V4), METER);
    let [case, _] = Case::ipv4(Form::ChannelData);
    // Long enough that what the machine's own clock adds is little.
    let (rate, burst) = (100_000, 1_000_000);
    relay.set_rate(Rate::new(rate, burst));
    for idle in [0, SECOND, 3600 * SECOND, 48 * 3600 * SECOND] {
        advance(&mut relay, idle);
        let begin = program_now(&relay);
        let bytes = send_all(&relay, &case) * LEN as u64;
        let meanwhile = rate * (program_now(&relay) - begin) / SECOND;
        assert!(bytes <= burst + meanwhile, "{bytes} bytes at once after {idle} ns");
        if idle == 0 || idle > 10 * SECOND {
            assert!(bytes + 2 * LEN as u64 > burst, "only {bytes} bytes after {idle} ns");
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_073_what_is_beyond_the_limit_is_dropped_counted_and_not_charged() {
    let mut relay = Relay::new();
    for client in Client::ALL {
        meter(&mut relay, client, METER);
    }
    relay.set_rate(Rate::new(1, 0));
    relay.meters[METER as usize].store(u64::MAX / 2, Ordering::Relaxed);
    for case in Case::all() {
        let (outcomes, counters) = (relay.outcomes(), values(&relay.flow_counters));
        let run = relay.run(case.ingress(), &case.input(b"data").bytes());
        assert_eq!(run.verdict, XDP_DROP, "{case:?}");
        let mut expected = outcomes;
        *expected.entry(Outcome::Bandwidth.name()).or_default() += 1;
        assert_eq!(relay.outcomes(), expected, "{case:?}");
        assert_eq!(values(&relay.flow_counters), counters, "{case:?}");
        assert_eq!(values(&relay.meters)[METER as usize], u64::MAX / 2, "{case:?}");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_073_a_hairpin_is_charged_to_both_allocations() {
    let mut relay = Relay::new();
    let rate = Rate::new(BYTES_PER_SECOND, BYTES_PER_SECOND);
    relay.set_rate(rate);
    let (sender_meter, receiver_meter) = (4, 5);
    let cost = (LEN as u64 * rate.per_byte) >> 16;
    let full = u64::MAX / 2;
    for case in Case::hairpins() {
        let (End::Client(sender, _), End::Client(receiver, _)) = (case.from, case.to) else { continue };
        meter(&mut relay, sender, sender_meter);
        meter(&mut relay, receiver, receiver_meter);
        // Ahead of time already, so that the clock does not matter; or full.
        let later = program_now(&relay) + rate.burst / 2;
        let data = data(LEN);
        for (before, after, forwarded) in [
            ([later, later], [later + cost, later + cost], true),
            ([full, later], [full, later], false),
            // Whoever was charged before the other one refused stays charged.
            ([later, full], [later + cost, full], false),
        ] {
            for (meter, through) in [sender_meter, receiver_meter].into_iter().zip(before) {
                relay.meters[meter as usize].store(through, Ordering::Relaxed);
            }
            let run = relay.run(Side::Client, &case.input(&data).bytes());
            if forwarded {
                assert_run(&run, &case.input(&data), case.verdict(), &case.output(&data));
            } else {
                assert_eq!(run.verdict, XDP_DROP, "{case:?}");
            }
            let meters = values(&relay.meters);
            assert_eq!([meters[sender_meter as usize], meters[receiver_meter as usize]], after, "{case:?}");
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_073_only_what_is_sent_on_is_charged() {
    let mut relay = Relay::new();
    for client in Client::ALL {
        meter(&mut relay, client, METER);
    }
    let rate = Rate::new(BYTES_PER_SECOND, BYTES_PER_SECOND);
    relay.set_rate(rate);
    for case in Case::all() {
        let later = program_now(&relay) + rate.burst / 2;
        relay.meters[METER as usize].store(later, Ordering::Relaxed);
        relay.change_next_hop(&case, |next_hop| next_hop.mtu = 100);
        relay.assert_outcome(case.ingress(), &case.input(&data(LEN)).bytes(), Outcome::Mtu);
        relay.change_next_hop(&case, |next_hop| next_hop.mtu = MTU);
        if case.verdict() == XDP_REDIRECT {
            relay.remove_tx_port(case.egress());
            relay.assert_outcome(case.ingress(), &case.input(&data(LEN)).bytes(), Outcome::TxPort);
            relay.add_tx_port(case.egress());
        }
        let metadata = [0; Memory::HEADROOM];
        if case.growth() > 0 {
            let memory = Memory { metadata: &metadata, ..Memory::default() };
            let frame = case.input(&data(LEN)).bytes();
            relay.assert_outcome_from(memory, case.ingress(), &frame, Outcome::Headroom);
        }
        assert_eq!(values(&relay.meters)[METER as usize], later, "{case:?}");
    }
}

// Two CPUs take from one allocation at the same time, each as fast as it can, from what a burst has. A plain store in
// place of the compare-and-swap loses charges: more passes than the meter knows of.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_073_two_cpus_on_one_allocation_lose_no_charge_and_pass_no_more_than_is_allowed() {
    const STEPS: u64 = 100;
    const STEP: u64 = SECOND / 10;
    let mut relay = Relay::without_flows();
    // So much may come at once that no stall of the machine makes the meter forget what was not used.
    let rate = Rate::new(100_000_000, 100_000_000_000);
    relay.set_rate(rate);
    // Two channels of the allocation, one for each CPU, so that each knows what it sent.
    let sessions = [0, 1].map(|number| PingPong::new(Family::V4, Family::V4, number));
    let numbers = [CHANNEL, CHANNEL + 1];
    let flows = [0, 1].map(|cpu| {
        let flows = relay.add_ping_pong(&sessions[cpu], numbers[cpu]);
        flows.map(|flow| Flow { meter: Some(METER), ..flow })
    });
    for flow in flows.iter().flatten() {
        relay.install(flow);
    }
    let begin = program_now(&relay);
    // All that may come at once has come.
    relay.meters[METER as usize].store(begin + rate.burst, Ordering::Relaxed);

    relay.attach();
    let relay = &relay;
    let (start, stop, done) = (Barrier::new(3), Barrier::new(3), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for cpu in [0, 1] {
            let frame = sessions[cpu].frame(numbers[cpu], &data(LEN)).bytes();
            let (start, stop, done, flows) = (&start, &stop, &done, &flows[cpu]);
            scope.spawn(move || {
                pin(cpu);
                let sent = || flows.iter().map(|flow| relay.counted(flow).0).sum::<u64>();
                loop {
                    start.wait();
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    loop {
                        let before = sent();
                        relay.run_repeatedly(Side::Client, &frame, LONGEST);
                        if sent() - before < u64::from(LONGEST) {
                            break;
                        }
                    }
                    stop.wait();
                }
            });
        }
        for _ in 0..STEPS {
            let offset = values(&relay.globals)[0];
            relay.set_global(relay_common::globals::word::BOOT_OFFSET, offset + STEP);
            start.wait();
            stop.wait();
        }
        done.store(true, Ordering::Relaxed);
        start.wait();
    });

    let sent: Vec<u64> =
        flows.iter().map(|flows| flows.iter().map(|flow| relay.counted(flow).1).sum()).collect();
    let bytes: u64 = sent.iter().sum();
    let charged = values(&relay.meters)[METER as usize] - (begin + rate.burst);
    let elapsed = program_now(relay) - begin;
    println!("{sent:?} bytes by two CPUs in {elapsed} ns of their time, {charged} ns charged");
    assert_eq!(charged, bytes / LEN as u64 * ((LEN as u64 * rate.per_byte) >> 16));
    assert!(charged <= elapsed, "{charged} ns charged in {elapsed} ns");
    assert!(charged * 100 > STEPS * STEP * 95, "{charged} ns charged");
    let outcomes: Vec<_> =
        relay.outcomes().into_keys().filter(|&name| name != Outcome::Bandwidth.name()).collect();
    assert!(outcomes.is_empty(), "{outcomes:?}");
}
