//! Random and mutated frames: what is not forwarded is untouched, what is forwarded is what was sent.

use std::cell::{Cell, RefCell};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    frame::{ETHERNET_LEN, Frame, PAYLOAD_AT, UDP_CHECKSUM_AT, parse, repair_ip_checksum, set_word},
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_random_bytes_are_never_touched() {
    let relay = RefCell::new(Relay::new());
    runner(10_000)
        .run(&(side(), prop::collection::vec(any::<u8>(), ETHERNET_LEN..200)), |(side, frame)| {
            relay.borrow_mut().assert_not_ours(side, &frame);
            Ok(())
        })
        .unwrap();
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_002_dp_054_dp_056_mutated_frames_are_forwarded_right_or_not_touched() {
    let relay = RefCell::new(Relay::new());
    let [forwarded, stopped] = [0, 0].map(Cell::new);
    runner(40_000)
        .run(&(side(), mutated()), |(side, mutated)| {
            let mut relay = relay.borrow_mut();
            let input = mutated.bytes(side);
            let counted = relay.counted(TO_PEER_COUNTER).0 + relay.counted(TO_CLIENT_COUNTER).0;
            let outcomes: u64 = relay.outcomes().values().sum();

            let run = relay.run(side, &input);

            let counted = relay.counted(TO_PEER_COUNTER).0 + relay.counted(TO_CLIENT_COUNTER).0 - counted;
            let outcomes = relay.outcomes().values().sum::<u64>() - outcomes;
            if matches!(run.verdict, XDP_TX | XDP_REDIRECT) {
                forwarded.set(forwarded.get() + 1);
                prop_assert_eq!((counted, outcomes), (1, 0));
                check_forwarded(side, &input, &run.frame);
            } else {
                stopped.set(stopped.get() + 1);
                prop_assert!(matches!(run.verdict, XDP_PASS | XDP_DROP), "verdict {}", run.verdict);
                prop_assert_eq!(hex(&run.frame), hex(&input));
                prop_assert_eq!(counted, 0);
                prop_assert!(outcomes == 1 || (outcomes == 0 && run.verdict == XDP_PASS));
            }
            Ok(())
        })
        .unwrap();
    // Otherwise the generator misses the point.
    let [forwarded, stopped] = [forwarded.get(), stopped.get()];
    assert!(forwarded > 5_000 && stopped > 5_000, "{forwarded} forwarded, {stopped} not");
}

/// Reads the incoming frame without regard to the program's ways and builds what must come of it.
fn check_forwarded(side: Side, input: &[u8], output: &[u8]) {
    assert_eq!(input[..6], side.mac(), "for us");
    assert_eq!(input[ETHERNET_LEN], 0x45, "no options");
    let mut repaired = input.to_vec();
    repair_ip_checksum(&mut repaired);
    assert_eq!(repaired, input, "IPv4 header checksum");
    let word = |at: usize| u16::from_be_bytes([input[at], input[at + 1]]);
    assert_eq!(word(ETHERNET_LEN + 6) & 0x3fff, 0, "no fragment");

    let udp_len = usize::from(word(PAYLOAD_AT - 4));
    assert!(udp_len + 20 <= usize::from(word(ETHERNET_LEN + 2)), "UDP fits IP");
    assert!(usize::from(word(ETHERNET_LEN + 2)) + ETHERNET_LEN <= input.len(), "IP fits the frame");
    let payload = &input[PAYLOAD_AT..PAYLOAD_AT + udp_len - 8];
    let (data, expected) = match side {
        Side::Client => {
            assert_eq!(word(PAYLOAD_AT), CHANNEL);
            let data = &payload[4..4 + usize::from(word(PAYLOAD_AT + 2))];
            (data, at_peer(data))
        }
        Side::Peer => (payload, at_client(payload)),
    };
    let (ip, udp, _) = parse(output);
    let expected = Frame {
        tos: input[ETHERNET_LEN + 1],
        ttl: input[ETHERNET_LEN + 8] - 1,
        dont_fragment: input[ETHERNET_LEN + 6] & 0x40 != 0,
        identification: ip.identification,
        ..expected
    };
    // All but the UDP checksum, which is right, wrong or absent as it came.
    let mut ours = expected.bytes();
    ours[UDP_CHECKSUM_AT..UDP_CHECKSUM_AT + 2].copy_from_slice(&udp.checksum.to_be_bytes());
    assert_eq!(hex(output), hex(&ours), "{} bytes of data", data.len());

    let right_in = right_udp_checksum(side, input, payload);
    let came = word(UDP_CHECKSUM_AT);
    assert_eq!(udp.checksum == 0, came == 0);
    if came != 0 {
        assert_eq!(udp.checksum == expected.right_checksum(), came == right_in);
    }
}

fn right_udp_checksum(side: Side, input: &[u8], payload: &[u8]) -> u16 {
    let frame = if side == Side::Client { from_client(b"") } else { from_peer(b"") };
    assert_eq!(input[26..34], frame.bytes()[26..34], "addresses of the flow");
    Frame { payload: payload.to_vec(), ..frame }.right_checksum()
}

/// A good frame with a few things wrong.
#[derive(Clone, Debug)]
struct Mutated {
    data: Vec<u8>,
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
    padding: Vec<u8>,
    surplus: Vec<u8>,
    ethernet_padding: Vec<u8>,
    /// Position as a part of the frame, and what to XOR.
    changes: Vec<(prop::sample::Index, u8)>,
    repair_ip: bool,
    without_checksum: bool,
    cut: Option<prop::sample::Index>,
}

impl Mutated {
    fn bytes(&self, side: Side) -> Vec<u8> {
        let mut frame = if side == Side::Client { from_client(&self.data) } else { from_peer(&self.data) };
        frame.payload.extend(&self.padding);
        frame.tos = self.tos;
        frame.ttl = self.ttl;
        frame.dont_fragment = self.dont_fragment;
        frame.surplus = self.surplus.clone();
        frame.ethernet_padding = self.ethernet_padding.clone();
        let mut bytes = frame.bytes();
        if self.without_checksum {
            set_word(&mut bytes, UDP_CHECKSUM_AT, 0);
        }
        for (at, change) in &self.changes {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
        }
        if self.repair_ip {
            repair_ip_checksum(&mut bytes);
        }
        if let Some(cut) = self.cut {
            bytes.truncate(ETHERNET_LEN + cut.index(bytes.len() - ETHERNET_LEN));
        }
        bytes
    }
}

fn mutated() -> impl Strategy<Value = Mutated> {
    let few = |max| prop::collection::vec(any::<u8>(), 0..=max);
    (
        (few(200), any::<u8>(), prop_oneof![9 => 2..=255u8, 1 => 0..=1u8], any::<bool>()),
        (few(4), few(3), few(8)),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..=2),
        (prop::bool::weighted(0.9), prop::bool::weighted(0.2)),
        prop::option::weighted(0.05, any::<prop::sample::Index>()),
    )
        .prop_map(
            |(
                (data, tos, ttl, dont_fragment),
                (padding, surplus, ethernet_padding),
                changes,
                (repair_ip, without_checksum),
                cut,
            )| Mutated {
                data,
                tos,
                ttl,
                dont_fragment,
                padding,
                surplus,
                ethernet_padding,
                changes,
                repair_ip,
                without_checksum,
                cut,
            },
        )
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Peer)]
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}
