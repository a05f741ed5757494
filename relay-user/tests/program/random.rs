//! Random and mutated frames: what is not forwarded is untouched, what is forwarded is in order and goes to nobody new.
//! (That it is what the slow path would send is the differential test's.)

use std::cell::{Cell, RefCell};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use relay_user::turn::Family;

use crate::{
    case::{Case, End, Form},
    frame::{Checksum, ETHERNET_LEN, Frame, repair_ip_checksum, sum, word},
    relay::*,
    session::Client,
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
fn dp_002_dp_054_dp_056_mutated_frames_are_forwarded_in_order_or_not_touched() {
    let relay = RefCell::new(Relay::new());
    let [forwarded, stopped] = [0, 0].map(Cell::new);
    runner(60_000)
        .run(&mutated(), |mutated| {
            let relay = relay.borrow();
            let Mutated { case, .. } = &mutated;
            let input = mutated.bytes();
            let before = (values(&relay.flow_counters), relay.outcomes());
            let run = relay.run(case.ingress(), &input);
            let after = (values(&relay.flow_counters), relay.outcomes());
            if matches!(run.verdict, XDP_TX | XDP_REDIRECT) {
                forwarded.set(forwarded.get() + 1);
                prop_assert_eq!(&before.1, &after.1);
                let counted = before.0.iter().zip(&after.0).filter(|(before, after)| before != after).count();
                prop_assert!(
                    counted == 1 || case.from != End::Peer && counted == 2,
                    "{counted} flows counted"
                );
                check_forwarded(&mutated, &input, run.verdict, &run.frame);
            } else {
                stopped.set(stopped.get() + 1);
                let outcomes = after.1.values().sum::<u64>() - before.1.values().sum::<u64>();
                prop_assert!(matches!(run.verdict, XDP_PASS | XDP_DROP), "verdict {}", run.verdict);
                prop_assert_eq!(hex(&run.frame), hex(&input));
                prop_assert_eq!(before.0, after.0);
                prop_assert!(outcomes == 1 || (outcomes == 0 && run.verdict == XDP_PASS));
            }
            Ok(())
        })
        .unwrap();
    // Otherwise the generator misses the point.
    let [forwarded, stopped] = [forwarded.get(), stopped.get()];
    assert!(forwarded > 10_000 && stopped > 10_000, "{forwarded} forwarded, {stopped} not");
}

/// What leaves is for whom it may be, from whom it should be, in order from end to end, and its checksum is right if and only
/// if the one that came was.
fn check_forwarded(mutated: &Mutated, input: &[u8], verdict: u32, output: &[u8]) {
    let case = mutated.case;
    assert_eq!(input[..6], case.ingress().mac(), "for us");
    // From the same sender to somebody that it may send to: a change may have made it another channel or port. Callers
    // permit each other, and themselves.
    let callers =
        Family::ALL.map(|family| Case { to: End::Client(Client::caller(family), Form::Indication), ..case });
    let expected = Case::all()
        .chain(callers.into_iter().filter(|_| case.from != End::Peer))
        .filter(|other| other.from == case.from && other.verdict() == verdict)
        .map(|other| with_own_fields(&other.output(&mutated.data), output))
        .find(|expected| {
            let addresses_at = expected.ip_at() + if expected.family() == Family::V4 { 12 } else { 8 };
            let bytes = expected.bytes();
            let same = |range: std::ops::Range<usize>| output.get(range.clone()) == bytes.get(range);
            same(0..ETHERNET_LEN) && same(addresses_at..expected.udp_at() + 2)
        });
    let expected = expected.unwrap_or_else(|| panic!("{case:?}: {} from {}", hex(output), hex(input)));
    let packet = SlicedPacket::from_ethernet(output).expect("a packet in order");
    match packet.net.expect("an IP header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().slice();
            assert_eq!(sum(header), 0xffff, "IPv4 header checksum");
            assert_eq!(output.len() - ETHERNET_LEN, usize::from(ip.header().total_len()), "{case:?}");
        }
        NetSlice::Ipv6(ip) => {
            assert_eq!(
                output.len() - ETHERNET_LEN - 40,
                usize::from(ip.header().payload_length()),
                "{case:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
    assert_eq!(usize::from(udp.length()), output.len() - expected.udp_at());
    let mut incoming = Frame {
        payload: input[mutated.frame().payload_at()..][..udp_len(mutated, input) - 8].to_vec(),
        ..mutated.frame()
    };
    incoming.source.set_port(word(input, incoming.udp_at()));
    incoming.destination.set_port(word(input, incoming.udp_at() + 2));
    let mut outgoing = expected;
    outgoing.destination.set_port(udp.destination_port());
    outgoing.payload = udp.payload().to_vec();
    let came = word(input, incoming.checksum_at());
    assert_eq!(udp.checksum() == 0, came == 0, "{case:?}");
    if came != 0 {
        let (right, was_right) = (outgoing.right_checksum(), incoming.right_checksum());
        assert_eq!(
            udp.checksum() == right,
            came == was_right,
            "{case:?}: {} from {}",
            hex(output),
            hex(input)
        );
    }
}

/// What the frame says.
fn udp_len(mutated: &Mutated, input: &[u8]) -> usize {
    word(input, mutated.frame().udp_at() + 4).into()
}

/// A good frame with a few things wrong.
#[derive(Clone, Debug)]
struct Mutated {
    case: Case,
    data: Vec<u8>,
    traffic_class: u8,
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
    /// Before what is wrong with it.
    fn frame(&self) -> Frame {
        let mut frame = Frame {
            traffic_class: self.traffic_class,
            ttl: self.ttl,
            dont_fragment: self.dont_fragment,
            surplus: self.surplus.clone(),
            ethernet_padding: self.ethernet_padding.clone(),
            checksum: if self.without_checksum { Checksum::None } else { Checksum::Right },
            ..self.case.input(&self.data)
        };
        if matches!(self.case.from, End::Client(_, Form::ChannelData)) {
            frame.payload.extend(&self.padding);
        }
        frame
    }

    fn bytes(&self) -> Vec<u8> {
        let frame = self.frame();
        let mut bytes = frame.bytes();
        for (at, change) in &self.changes {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
        }
        if self.repair_ip && frame.family() == Family::V4 {
            repair_ip_checksum(&mut bytes, frame.ip_at());
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
        prop::sample::select(Case::all().collect::<Vec<_>>()),
        (few(200), any::<u8>(), prop_oneof![9 => 2..=255u8, 1 => 0..=1u8], any::<bool>()),
        (few(3), few(3), few(8)),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..=2),
        (prop::bool::weighted(0.9), prop::bool::weighted(0.2)),
        prop::option::weighted(0.05, any::<prop::sample::Index>()),
    )
        .prop_map(
            |(
                case,
                (data, traffic_class, ttl, dont_fragment),
                (padding, surplus, ethernet_padding),
                changes,
                (repair_ip, without_checksum),
                cut,
            )| Mutated {
                case,
                data,
                traffic_class,
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
