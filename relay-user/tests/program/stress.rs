//! Values under constant change (DP-067): one thread updates map entries in a loop while both CPUs look them up. The
//! kernel hands out pointers to elements that it uses again for other keys at once, and copies over array elements
//! without a lock, so values come torn and foreign. None may ever be acted upon.
//!
//! A run carries many packets, each made of the last ([`crate::loops`]), so all that a wrong value does to any of them
//! shows at the end: a packet with addresses of one value and ports or MAC addresses of another is no flow's, a wrong
//! checksum stays wrong, and a value of another key counts for that.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use aya::maps::{Array, HashMap, Map, MapData};
use relay_common::{
    counter::FlowCounter,
    flow::{FlowEntry, FlowKeyV4},
    maps,
    outcome::Outcome,
    path::Path,
};
use relay_user::{
    datapath::encode::{self, Key, Way},
    net::next_hop::{NextHop, Tag},
    turn::{ChannelNumber, Direction, Family, Flow, FlowForm, PeerAddr},
};

use crate::{
    frame::{Frame, sum, wire_tag},
    loops::{CHANNEL, LONGEST, PingPong, flow, looping},
    message::channel_data,
    relay::*,
    session::{listener, on_peer_side},
};

/// How many lookups of a changing flow there are: one for each packet.
const FLOW_LOOKUPS: u64 = 100_000_000;

/// How many lookups of a changing path, which is far more often torn, there are: one for every other packet.
const PATH_LOOKUPS: u64 = 20_000_000;

/// The UDP checksum of the packets is computed over this.
const DATA: &[u8] = b"sixteen bytes ..";

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_under_constant_update_no_foreign_and_no_torn_flow_is_acted_upon() {
    let mut relay = Relay::without_flows();
    // Both directions of a session in two versions each, by which other addresses, ports, paths and counters are used;
    // its packets are the only ones.
    let versions = [0, 1].map(|number| PingPong::new(Family::V4, Family::V4, number));
    for version in &versions {
        relay.add_ping_pong(version, CHANNEL);
    }
    // What a mixture of both would go by, to be counted there.
    let mixtures = [(0, 1), (1, 0)].map(|(address, port)| {
        let mut mixture = versions[address];
        mixture.relayed.set_port(versions[port].relayed.port());
        relay.add_ping_pong(&mixture, CHANNEL + 2)
    });
    // The same of another session, for the elements to be exchanged with.
    let foreign = [2, 3].map(|number| PingPong::new(Family::V4, Family::V4, number));
    let mut foreign_flows = Vec::new();
    let mut updates = Vec::new();
    let entry = |relay: &mut Relay, flow: &Flow| {
        let Some(Key::V4(key)) = encode::keys(flow).next() else { panic!("an IPv4 key") };
        let indices = relay.indices(flow);
        (key, encode::entry(flow, &Key::V4(key), indices))
    };
    for (version, foreign) in versions.iter().zip(&foreign) {
        relay.add_relayed(foreign.relayed);
        for direction in [Direction::ToPeer, Direction::ToClient] {
            let flow = foreign.flow(direction, CHANNEL + 1);
            updates.push(entry(&mut relay, &flow));
            foreign_flows.push(flow);
            updates.push(entry(&mut relay, &version.flow(direction, CHANNEL)));
        }
    }
    // What a packet may look like after any of its runs.
    let source_mac = Side::Client.mac();
    let first = Frame { source_mac, ..versions[0].frame(CHANNEL, DATA) };
    let out = |version: PingPong| Frame {
        source_mac,
        ..looping(Frame::new(version.relayed, version.relayed, DATA))
    };
    let frames = [first, out(versions[0]), out(versions[1])];
    let map = Map::HashMap(MapData::from_id(relay.map_id(maps::FLOWS_V4)).unwrap());
    let mut flows = HashMap::<_, FlowKeyV4, FlowEntry>::try_from(map).unwrap();

    relay.attach();
    let seen = hammer(&relay, &frames, FLOW_LOOKUPS, move |round| {
        let (key, value) = updates[round % updates.len()];
        flows.insert(key, value, 0).unwrap();
    });

    println!("flows: {seen}");
    for flow in foreign_flows.iter().chain(mixtures.iter().flatten()) {
        assert_eq!(seen.by(&mut relay, flow), 0, "packets by a flow that none was sent for: {flow:?}");
    }
    for version in versions {
        let packets = seen.by(&mut relay, &version.flow(Direction::ToPeer, CHANNEL));
        assert!(packets > 1000, "{packets} packets by {version:?}");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_under_constant_update_no_torn_path_is_acted_upon() {
    let mut relay = Relay::without_flows();
    let client = listener(Family::V4);
    // Two ways out of one path, which differ in every word; the sums of their addresses are the same, since the flow has
    // only one. By the first the packet comes back untagged, by the second by a VLAN.
    let ways = [(10, 20), (11, 19)].map(|(source, destination)| {
        (on_peer_side(Family::V4, source), on_peer_side(Family::V4, destination))
    });
    let (relayed_port, peer_port) = (50100, 50102);
    let tags = [Some(Tag { id: 77, service: false }), None];
    let vlan_mac = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54];
    relay.add_vlan(Side::Client, tags, vlan_mac);
    relay.loop_back(client);
    let at = |ip, port| SocketAddr::new(ip, port);
    let session = |direction, (source, destination)| {
        // From outside the peer is where the relayed address is and the other way round.
        let (relayed, peer) = match direction {
            Direction::ToPeer => (at(source, relayed_port), at(destination, peer_port)),
            Direction::ToClient => (at(destination, peer_port), at(source, relayed_port)),
        };
        let form = FlowForm::Channel {
            peer: PeerAddr(peer),
            number: ChannelNumber::new(CHANNEL).expect("a number"),
        };
        flow(direction, [client, client], relayed, form)
    };
    for way in ways {
        relay.loop_back(at(way.1, peer_port));
        relay.add_relayed(at(way.1, peer_port));
        relay.install(&session(Direction::ToClient, way));
    }
    let to_peer = session(Direction::ToPeer, ways[0]);
    relay.install(&to_peer);
    let index = relay.indices(&to_peer).path;
    let plain = relay.next_hop(Side::Client, Side::Client.mac());
    let tagged = NextHop {
        destination_mac: vlan_mac,
        source_mac: [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc],
        tags,
        mtu: 1400,
        ..plain
    };
    let values = [(ways[0], plain), (ways[1], tagged)].map(|((source, destination), next_hop)| {
        encode::path(index, Way::Out(source, destination), Some(&next_hop))
    });
    let source_mac = Side::Client.mac();
    let first = Frame { source_mac, ..looping(Frame::new(client, client, channel_data(CHANNEL, DATA))) };
    let out = |(source, destination)| {
        looping(Frame::new(at(source, relayed_port), at(destination, peer_port), DATA))
    };
    let frames = [
        first,
        Frame { source_mac, ..out(ways[0]) },
        Frame {
            source_mac: tagged.source_mac,
            destination_mac: vlan_mac,
            tags: vec![wire_tag(tags[0].expect("a tag"))],
            ..out(ways[1])
        },
    ];
    let map = Map::Array(MapData::from_id(relay.map_id(maps::PATHS)).unwrap());
    let mut paths = Array::<_, Path>::try_from(map).unwrap();

    // Every other packet is the way back.
    relay.attach();
    let seen = hammer(&relay, &frames, 2 * PATH_LOOKUPS, move |round| {
        paths.set(index, values[round % 2], 0).unwrap()
    });

    println!("paths: {seen}");
    for way in ways {
        let packets = seen.by(&mut relay, &session(Direction::ToClient, way));
        assert!(packets > 1000, "{packets} packets by {way:?}");
    }
}

/// What happened while values changed.
struct Seen {
    /// By counter.
    forwarded: Vec<u64>,
    torn: u64,
    missed: u64,
    updates: u64,
    seconds: f64,
}

impl Seen {
    /// Packets that a flow forwarded.
    fn by(&self, relay: &mut Relay, flow: &Flow) -> u64 {
        self.forwarded[relay.indices(flow).counter as usize]
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { forwarded, torn, missed, updates, seconds } = self;
        let forwarded: u64 = forwarded.iter().sum();
        write!(
            f,
            "{forwarded} packets forwarded, {torn} found a value torn or foreign, {missed} found none, {updates} updates, \
             {seconds:.1} s"
        )
    }
}

/// Has both CPUs process the first of these frames, and what it becomes, until there were so many packets, while `update`
/// is called over and over. Fails unless each packet was forwarded or punted, either since a value was not whole or since
/// there was none: a lookup misses an entry when the element it compares with the key becomes another's meanwhile and is the
/// last of its bucket (kernel/bpf/hashtab.c). What is left of each run must be one of these frames.
fn hammer(relay: &Relay, frames: &[Frame], packets: u64, mut update: impl FnMut(usize) + Send) -> Seen {
    let first = frames[0].bytes();
    let allowed: Vec<_> = frames.iter().map(without_own_fields).collect();
    let (stop, begun) = (AtomicBool::new(false), Instant::now());
    let runs = AtomicU64::new(0);
    let tally = Mutex::new(Tally::new(&relay.flow_counters));
    let updates = std::thread::scope(|scope| {
        let updates = scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                update(round);
                round += 1;
            }
            round as u64
        });
        let readers = [0, 1].map(|cpu| {
            let (first, allowed, runs, tally) = (&first, &allowed, &runs, &tally);
            scope.spawn(move || {
                pin(cpu);
                for number in 1.. {
                    let (run, _) = relay.run_repeatedly(Side::Client, first, LONGEST);
                    assert!(is_one_of(allowed, &run.frame), "{}", hex(&run.frame));
                    if number % 1000 == 0 {
                        tally.lock().expect("the other one").read(&relay.flow_counters);
                    }
                    if runs.fetch_add(u64::from(LONGEST), Ordering::Relaxed) > packets {
                        break;
                    }
                }
            })
        });
        let results = readers.map(|reader| reader.join());
        stop.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "a packet that nobody sent");
        updates.join().expect("updates")
    });
    let mut tally = tally.into_inner().expect("both are done");
    tally.read(&relay.flow_counters);
    let mut outcomes = relay.outcomes();
    let [torn, missed] =
        [Outcome::Torn, Outcome::NoFlow].map(|outcome| outcomes.remove(outcome.name()).unwrap_or_default());
    assert!(outcomes.is_empty(), "{outcomes:?}");
    let forwarded: u64 = tally.packets.iter().sum();
    assert_eq!(runs.into_inner(), forwarded + torn + missed, "packets in, and forwarded or punted");
    assert!(updates > 1000, "{updates} updates");
    Seen { forwarded: tally.packets, torn, missed, updates, seconds: begun.elapsed().as_secs_f64() }
}

/// Adds counters up, which wrap after 2^24 packets.
struct Tally {
    words: Vec<u64>,
    packets: Vec<u64>,
}

impl Tally {
    fn new(counters: &[AtomicU64]) -> Self {
        Self { words: values(counters), packets: vec![0; counters.len()] }
    }

    fn read(&mut self, counters: &[AtomicU64]) {
        let words = values(counters);
        for ((packets, &word), &earlier) in self.packets.iter_mut().zip(&words).zip(&self.words) {
            *packets += FlowCounter(word).since(FlowCounter(earlier)).0;
        }
        self.words = words;
    }
}

/// A frame's bytes but for Identification, TTL and header checksum, and where its IPv4 header lies.
fn without_own_fields(frame: &Frame) -> (Vec<u8>, usize) {
    let mut bytes = frame.bytes();
    zero_own_fields(&mut bytes, frame.ip_at());
    (bytes, frame.ip_at())
}

fn zero_own_fields(bytes: &mut [u8], ip_at: usize) {
    for at in [4, 5, 8, 10, 11] {
        bytes[ip_at + at] = 0;
    }
}

fn is_one_of(allowed: &[(Vec<u8>, usize)], frame: &[u8]) -> bool {
    allowed.iter().any(|(bytes, ip_at)| {
        let mut frame = frame.to_vec();
        if frame.len() != bytes.len() || sum(&frame[*ip_at..ip_at + 20]) != 0xffff {
            return false;
        }
        zero_own_fields(&mut frame, *ip_at);
        frame == *bytes
    })
}
