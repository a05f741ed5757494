//! A relay reduced to its kernel program: maps filled as the daemon fills them, packets by `BPF_PROG_TEST_RUN`.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{
        Array, HashMap as BpfHashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, xdp::DevMapHash,
    },
    programs::Xdp,
};
use nix::{
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare},
    time::ClockId,
};
use relay_common::{
    clock::BootNanos,
    counter::FlowCounter,
    flow::{FlowEntry, FlowKeyV4, FlowKeyV6},
    globals,
    interface::{Interface, VlanKey},
    maps,
    meter::Rate,
    outcome::{Outcome, Verdict},
    path::Path,
    port_class::{self, PortClass},
};
use relay_user::{
    datapath::{
        encode::{self, Indices, Key, Way},
        program::{PROGRAM, PROGRAM_NAME},
    },
    net::next_hop::{NextHop, Tag},
    turn::{Family, Flow, FlowForm, FlowId},
};
use socket2::{Domain, Socket, Type};

use crate::{
    case::Case,
    frame::Frame,
    mapped::{self, Words},
    message::adopt_transaction_id,
    session::{Client, listener, peer},
};

pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];
pub const MTU: u32 = 1500;
/// The lowest MTU of IPv6 paths, as most configurations have it.
pub const MIN_IPV6_MTU: u64 = 1280;

pub const SECOND: u64 = 1_000_000_000;

/// Elements of the maps whose size the daemon chooses.
const SIZES: [(&str, u32); 5] = [
    (maps::FLOWS_V4, 512),
    (maps::FLOWS_V6, 512),
    (maps::FLOW_COUNTERS, 512),
    (maps::METERS, 16),
    (maps::PATHS, 256),
];

/// A side of the relay: one of its interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Peer,
}

impl Side {
    /// The MAC address of the relay's interface.
    pub const fn mac(self) -> [u8; 6] {
        match self {
            Self::Client => [2, 0, 0, 0, 1, 1],
            Self::Peer => [2, 0, 0, 0, 2, 1],
        }
    }
}

// enum xdp_action of the kernel's include/uapi/linux/bpf.h.
pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
pub const XDP_REDIRECT: u32 = 4;

/// What the program made of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub verdict: u32,
    pub frame: Vec<u8>,
}

/// How a frame lies in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory<'a> {
    /// What lies right before the frame, as a driver or an earlier program may put it. It takes from the headroom.
    pub metadata: &'a [u8],
    /// Bytes of the frame in its first piece. `None`: all, or as many as a page holds.
    pub first_piece: Option<usize>,
}

impl Memory<'_> {
    /// Bytes that the kernel leaves before the frame where there is no metadata: XDP_PACKET_HEADROOM, less what a
    /// `struct xdp_frame` takes of it.
    pub const HEADROOM: usize = 256 - 40;
    /// Bytes of the largest frame in one piece: a page, less the headroom and a `struct skb_shared_info` at its end.
    pub const PIECE: usize = 4096 - 256 - 320;
}

/// The program, its maps, and a network namespace with the sockets of a daemon.
pub struct Relay {
    bpf: Ebpf,
    client_ifindex: u32,
    peer_ifindex: u32,
    sockets: Vec<Socket>,
    pub globals: Words,
    pub flow_counters: Words,
    pub meters: Words,
    /// What a resolver would know, by destination.
    next_hops: BTreeMap<IpAddr, NextHop>,
    /// Indices that flows and paths have been given: kept when they are removed.
    counters: HashMap<FlowId, u32>,
    paths: HashMap<Way, u32>,
}

impl Relay {
    /// A relay with all the sessions of [`crate::session`].
    pub fn new() -> Self {
        let mut relay = Self::without_flows();
        for client in Client::ALL {
            for flow in client.flows() {
                relay.install(&flow);
            }
        }
        relay
    }

    /// The same without a flow: listeners, relayed addresses and next hops alone.
    pub fn without_flows() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let (client_ifindex, peer_ifindex) = veth_pair();
        let mut loader = EbpfLoader::new();
        for (map, size) in SIZES {
            loader.map_max_entries(map, size);
        }
        let object = PROGRAM.expect("a build with the kernel program");
        let mut bpf = loader.load(object).expect("the kernel takes the object");
        program_mut(&mut bpf)
            .load()
            .unwrap_or_else(|error| panic!("the verifier accepts the program: {error:?}"));

        let mut relay = Self {
            globals: words(&bpf, maps::GLOBALS),
            flow_counters: words(&bpf, maps::FLOW_COUNTERS),
            meters: words(&bpf, maps::METERS),
            bpf,
            client_ifindex,
            peer_ifindex,
            sockets: Vec::new(),
            next_hops: BTreeMap::new(),
            counters: HashMap::new(),
            paths: HashMap::new(),
        };
        relay.set_clock_offset(boot_offset());
        relay.set_global(globals::word::MIN_IPV6_MTU, MIN_IPV6_MTU);
        relay.set_transaction_key([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
        for side in [Side::Client, Side::Peer] {
            let ifindex = relay.ifindex(side);
            relay.set_interface(ifindex, encode::interface(side.mac()));
            relay.add_tx_port(side);
        }
        for family in Family::ALL {
            relay.set_next_hop(peer(family).ip(), Some(relay.next_hop(Side::Peer, PEER_MAC)));
            relay.add_listener(listener(family));
        }
        for client in Client::ALL {
            relay.set_next_hop(client.address().ip(), Some(relay.next_hop(Side::Client, client.mac())));
            for family in Family::ALL {
                relay.add_relayed(client.relayed(family));
            }
        }
        relay
    }

    pub fn add_listener(&mut self, listener: SocketAddr) {
        self.add_endpoint(listener, PortClass::Listener, encode::listener(listener));
    }

    pub fn add_relayed(&mut self, relayed: SocketAddr) {
        self.add_endpoint(relayed, PortClass::Relayed, encode::relayed(relayed));
    }

    fn add_endpoint(&mut self, address: SocketAddr, class: PortClass, (key, entry): (Key, FlowEntry)) {
        self.set_port_class(address.port(), class);
        self.insert(&key, entry);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
        // The namespace has none of the addresses.
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true).unwrap(),
            SocketAddr::V6(_) => {
                socket.set_only_v6(true).unwrap();
                socket.set_freebind_v6(true).unwrap();
            }
        }
        socket.bind(&address.into()).unwrap();
        self.sockets.push(socket);
    }

    /// What a killed daemon leaves: no sockets, everything else.
    pub fn kill_daemon(&mut self) {
        self.sockets.clear();
    }

    /// Closes the daemon's sockets of one family.
    pub fn close_sockets(&mut self, family: Family) {
        self.sockets.retain(|socket| {
            let address = socket.local_addr().unwrap().as_socket().expect("an IP address");
            Family::of(address.ip()) != family
        });
    }

    /// Installs a flow as the daemon does. Its counter and its path are its own ever after.
    pub fn install(&mut self, flow: &Flow) {
        let indices = self.indices(flow);
        for key in encode::keys(flow) {
            self.insert(&key, encode::entry(flow, &key, indices));
        }
    }

    /// Removes a flow.
    pub fn remove(&mut self, flow: &Flow) {
        for key in encode::keys(flow) {
            match key {
                Key::V4(key) => self.flows_v4().remove(&key).unwrap(),
                Key::V6(key) => self.flows_v6().remove(&key).unwrap(),
            }
        }
    }

    /// The indices that a flow has, or is given now.
    pub fn indices(&mut self, flow: &Flow) -> Indices {
        let next = self.counters.len() as u32 + 1;
        let counter = match flow.id.form {
            FlowForm::Allocation => 0,
            _ => *self.counters.entry(flow.id).or_insert(next),
        };
        Indices { counter, path: self.path(encode::way(flow)) }
    }

    /// The index of the path that leads this way.
    pub fn path(&mut self, way: Way) -> u32 {
        if let Some(&index) = self.paths.get(&way) {
            return index;
        }
        let index = self.paths.len() as u32 + 1;
        self.paths.insert(way, index);
        self.publish(index, way);
        index
    }

    /// Sets or takes away the next hop to a destination, as a resolver would for all paths to it.
    pub fn set_next_hop(&mut self, destination: IpAddr, next_hop: Option<NextHop>) {
        match next_hop {
            Some(next_hop) => self.next_hops.insert(destination, next_hop),
            None => self.next_hops.remove(&destination),
        };
        let paths: Vec<_> = self.paths.iter().map(|(&way, &index)| (index, way)).collect();
        for (index, way) in paths {
            if matches!(way, Way::Out(_, to) if to == destination) {
                self.publish(index, way);
            }
        }
    }

    /// Changes the next hop of everything that leaves this way of the table.
    pub fn change_next_hop(&mut self, case: &Case, change: impl FnOnce(&mut NextHop)) {
        let destination = case.output(b"").destination.ip();
        let mut next_hop = self.next_hops[&destination];
        change(&mut next_hop);
        self.set_next_hop(destination, Some(next_hop));
    }

    /// The next hop to a destination.
    pub fn next_hop_to(&self, destination: IpAddr) -> NextHop {
        self.next_hops[&destination]
    }

    fn publish(&mut self, index: u32, way: Way) {
        let next_hop = match way {
            Way::Out(_, destination) => self.next_hops.get(&destination),
            Way::Internal { .. } => None,
        };
        self.set_path(index, encode::path(index, way, next_hop));
    }

    /// A next hop on the link, untagged.
    pub const fn next_hop(&self, side: Side, destination_mac: [u8; 6]) -> NextHop {
        NextHop {
            ifindex: self.ifindex(side),
            mtu: MTU,
            destination_mac,
            source_mac: side.mac(),
            tags: [None; 2],
            scatter_gather: false,
        }
    }

    pub fn insert(&mut self, key: &Key, entry: FlowEntry) {
        self.try_insert(key, entry).unwrap();
    }

    pub fn try_insert(&mut self, key: &Key, entry: FlowEntry) -> Result<(), MapError> {
        match key {
            Key::V4(key) => self.flows_v4().insert(key, entry, 0),
            Key::V6(key) => self.flows_v6().insert(key, entry, 0),
        }
    }

    pub fn entry(&mut self, key: &Key) -> Result<FlowEntry, MapError> {
        match key {
            Key::V4(key) => self.flows_v4().get(key, 0),
            Key::V6(key) => self.flows_v6().get(key, 0),
        }
    }

    pub fn flows_v4(&mut self) -> BpfHashMap<&mut MapData, FlowKeyV4, FlowEntry> {
        self.bpf.map_mut(maps::FLOWS_V4).unwrap().try_into().unwrap()
    }

    pub fn flows_v6(&mut self) -> BpfHashMap<&mut MapData, FlowKeyV6, FlowEntry> {
        self.bpf.map_mut(maps::FLOWS_V6).unwrap().try_into().unwrap()
    }

    /// For another thread to open a map by.
    pub fn map_id(&self, name: &str) -> u32 {
        map_data(&self.bpf, name).info().unwrap().id()
    }

    pub fn set_port_class(&mut self, port: u16, class: PortClass) {
        let mut words: Array<_, u64> = self.bpf.map_mut(maps::PORT_CLASSES).unwrap().try_into().unwrap();
        let index = port_class::word(port);
        let word = words.get(&index, 0).unwrap();
        words.set(index, port_class::with(word, port, class), 0).unwrap();
    }

    pub fn set_path(&mut self, index: u32, path: Path) {
        let mut paths: Array<_, Path> = self.bpf.map_mut(maps::PATHS).unwrap().try_into().unwrap();
        paths.set(index, path, 0).unwrap();
    }

    pub fn get_path(&self, index: u32) -> Path {
        let paths: Array<_, Path> = self.bpf.map(maps::PATHS).unwrap().try_into().unwrap();
        paths.get(&index, 0).unwrap()
    }

    pub fn set_interface(&mut self, ifindex: u32, interface: Interface) {
        let mut interfaces: Array<_, Interface> =
            self.bpf.map_mut(maps::INTERFACES).unwrap().try_into().unwrap();
        interfaces.set(ifindex, interface, 0).unwrap();
    }

    /// A VLAN device with these tags on a side's interface.
    pub fn add_vlan(&mut self, side: Side, tags: [Option<Tag>; 2], mac: [u8; 6]) {
        self.set_vlan(encode::vlan_key(self.ifindex(side), tags), encode::interface(mac));
    }

    pub fn set_vlan(&mut self, key: VlanKey, interface: Interface) {
        let mut vlans: BpfHashMap<_, VlanKey, Interface> =
            self.bpf.map_mut(maps::VLANS).unwrap().try_into().unwrap();
        vlans.insert(key, interface, 0).unwrap();
    }

    pub fn add_tx_port(&mut self, side: Side) {
        let ifindex = self.ifindex(side);
        self.tx_ports().insert(ifindex, ifindex, None, 0).unwrap();
    }

    pub fn remove_tx_port(&mut self, side: Side) {
        let ifindex = self.ifindex(side);
        self.tx_ports().remove(ifindex).unwrap();
    }

    fn tx_ports(&mut self) -> DevMapHash<&mut MapData> {
        self.bpf.map_mut(maps::TX_PORTS).unwrap().try_into().unwrap()
    }

    /// CLOCK_BOOTTIME less CLOCK_MONOTONIC, as the program is told.
    pub fn set_clock_offset(&mut self, boot_offset: u64) {
        self.set_global(globals::word::BOOT_OFFSET, boot_offset);
    }

    pub fn set_rate(&mut self, rate: Rate) {
        self.set_global(globals::word::RATE_PER_BYTE, rate.per_byte);
        self.set_global(globals::word::RATE_BURST, rate.burst);
    }

    pub fn set_transaction_key(&mut self, [first, second]: [u64; 2]) {
        self.set_global(globals::word::TRANSACTION_KEY, first);
        self.set_global(globals::word::TRANSACTION_KEY + 1, second);
    }

    /// How many Data indications each CPU is to have made.
    pub fn set_transactions(&mut self, count: u64) {
        let mut counts: PerCpuArray<_, u64> =
            self.bpf.map_mut(maps::TRANSACTIONS).unwrap().try_into().unwrap();
        let values = vec![count; aya::util::nr_cpus().expect("the number of CPUs")];
        counts.set(0, PerCpuValues::try_from(values).unwrap(), 0).unwrap();
    }

    pub fn set_global(&self, word: u32, value: u64) {
        self.globals[word as usize].store(value, Ordering::Relaxed);
    }

    /// Packets and bytes that a flow counted.
    pub fn counted(&self, flow: &Flow) -> (u64, u64) {
        let index = self.counters[&flow.id];
        FlowCounter(self.flow_counters[index as usize].load(Ordering::Relaxed)).since(FlowCounter(0))
    }

    /// Every outcome that is not 0.
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        mapped::outcomes(map_data(&self.bpf, maps::OUTCOMES).fd().as_fd())
    }

    pub const fn ifindex(&self, side: Side) -> u32 {
        match side {
            Side::Client => self.client_ifindex,
            Side::Peer => self.peer_ifindex,
        }
    }

    /// Has the program process a frame that came in by `side`.
    pub fn run(&self, side: Side, frame: &[u8]) -> Run {
        self.run_from(Memory::default(), side, frame)
    }

    /// The same with the frame in memory as told.
    pub fn run_from(&self, memory: Memory<'_>, side: Side, frame: &[u8]) -> Run {
        let data_in = [memory.metadata, frame].concat();
        let mut data_out = vec![0; data_in.len() + 512];
        let result = self
            .program()
            .test_run(TestRunOptions {
                data_in: Some(&data_in),
                data_out: Some(&mut data_out),
                ctx_in: Some(&self.context(memory, side, frame.len())),
                ..TestRunOptions::default()
            })
            .expect("a test run");
        data_out.truncate(result.data_size_out as usize);
        data_out.drain(..memory.metadata.len());
        Run { verdict: result.return_value, frame: data_out }
    }

    /// `struct xdp_md` of such a run: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    pub fn context(&self, memory: Memory<'_>, side: Side, len: usize) -> Vec<u8> {
        let begin = memory.metadata.len();
        let end = begin + memory.first_piece.unwrap_or(len);
        let words = [begin as u32, end as u32, 0, self.ifindex(side), 0, 0];
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    pub fn program(&self) -> &Xdp {
        self.bpf.program(PROGRAM_NAME).expect("the program").try_into().expect("an XDP program")
    }

    pub fn program_mut(&mut self) -> &mut Xdp {
        program_mut(&mut self.bpf)
    }

    /// Asserts that the program forwards data this way of the table, all being in order.
    #[track_caller]
    pub fn assert_relays(&self, case: &Case, data: &[u8]) {
        self.assert_forwards(case, &case.input(data), &case.output(data));
    }

    /// Asserts that the program forwards `frame` this way of the table as `expected`, and counts no outcome.
    #[track_caller]
    pub fn assert_forwards(&self, case: &Case, frame: &Frame, expected: &Frame) {
        self.assert_sends(case.ingress(), frame, case.verdict(), expected);
    }

    /// Asserts that the program sends `frame` on as `expected`, by this verdict, and counts no outcome.
    /// Identification and transaction ID are the relay's own: any will do.
    #[track_caller]
    pub fn assert_sends(&self, side: Side, frame: &Frame, verdict: u32, expected: &Frame) {
        let before = self.outcomes();
        let run = self.run(side, &frame.bytes());
        assert_eq!(self.outcomes(), before, "outcomes after {frame:x?}");
        assert_run(&run, frame, verdict, expected);
    }

    /// Asserts that the program ends `frame` with `outcome` and nothing else: untouched when punted, counted
    /// once, no flow's count changed.
    #[track_caller]
    pub fn assert_outcome(&self, side: Side, frame: &[u8], outcome: Outcome) {
        self.assert_outcome_from(Memory::default(), side, frame, outcome);
    }

    /// The same with the frame in memory as told.
    #[track_caller]
    pub fn assert_outcome_from(&self, memory: Memory<'_>, side: Side, frame: &[u8], outcome: Outcome) {
        let mut expected = self.outcomes();
        *expected.entry(outcome.name()).or_default() += 1;
        let verdict = match outcome.verdict() {
            Verdict::Punt => XDP_PASS,
            Verdict::Drop => XDP_DROP,
        };
        self.assert_untouched(memory, side, frame, verdict, expected);
    }

    /// Asserts that the program leaves `frame` to the kernel, untouched and uncounted.
    #[track_caller]
    pub fn assert_not_ours(&self, side: Side, frame: &[u8]) {
        self.assert_untouched(Memory::default(), side, frame, XDP_PASS, self.outcomes());
    }

    #[track_caller]
    fn assert_untouched(
        &self,
        memory: Memory<'_>,
        side: Side,
        frame: &[u8],
        verdict: u32,
        outcomes: BTreeMap<&'static str, u64>,
    ) {
        let counted = values(&self.flow_counters);
        let run = self.run_from(memory, side, frame);
        assert_eq!(self.outcomes(), outcomes, "outcomes after {}", hex(frame));
        assert_eq!(run.verdict, verdict, "verdict on {}", hex(frame));
        assert_eq!(hex(&run.frame), hex(frame), "the frame is untouched");
        assert_eq!(values(&self.flow_counters), counted, "flow counters");
    }
}

/// Asserts that `run`, of `frame`, sent it on as `expected`.
#[track_caller]
pub fn assert_run(run: &Run, frame: &Frame, verdict: u32, expected: &Frame) {
    assert_eq!(run.verdict, verdict, "verdict on {frame:x?}");
    let expected = with_own_fields(expected, &run.frame);
    assert_eq!(hex(&run.frame), hex(&expected.bytes()), "{frame:x?}\nbecomes {expected:x?}");
}

/// `expected` with those fields that are the relay's own as they are in `frame`.
pub fn with_own_fields(expected: &Frame, frame: &[u8]) -> Frame {
    let mut expected = expected.clone();
    if let (Family::V4, Some(&[high, low])) = (
        expected.family(),
        frame.get(expected.ip_at() + 4..expected.ip_at() + 6).and_then(|bytes| bytes.first_chunk()),
    ) {
        expected.identification = u16::from_be_bytes([high, low]);
    }
    let message = frame.get(expected.payload_at()..).unwrap_or_default();
    adopt_transaction_id(&mut expected.payload, message);
    expected
}

/// `len` bytes of which no two neighbours are alike.
pub fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// CLOCK_BOOTTIME.
pub fn now() -> BootNanos {
    clock(ClockId::CLOCK_BOOTTIME)
}

/// CLOCK_BOOTTIME less CLOCK_MONOTONIC.
pub fn boot_offset() -> u64 {
    now().saturating_sub(clock(ClockId::CLOCK_MONOTONIC))
}

/// What `bpf_ktime_get_coarse_ns` would say.
pub fn coarse_now() -> u64 {
    clock(ClockId::CLOCK_MONOTONIC_COARSE)
}

fn clock(id: ClockId) -> u64 {
    let time = nix::time::clock_gettime(id).unwrap();
    time.tv_sec() as u64 * SECOND + time.tv_nsec() as u64
}

/// Keeps this thread on the `number`th of its CPUs, if there are so many.
pub fn pin(number: usize) {
    let this = nix::unistd::Pid::from_raw(0);
    let all = sched_getaffinity(this).unwrap();
    let cpus: Vec<_> = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap()).collect();
    let mut one = CpuSet::new();
    one.set(cpus[number % cpus.len()]).unwrap();
    sched_setaffinity(this, &one).unwrap();
}

pub fn values(words: &[AtomicU64]) -> Vec<u64> {
    words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
}

fn words(bpf: &Ebpf, name: &str) -> Words {
    let map = map_data(bpf, name);
    let info = map.info().unwrap();
    Words::new(map.fd().as_fd(), (info.max_entries() * info.value_size()) as usize / 8)
}

fn map_data<'a>(bpf: &'a Ebpf, name: &str) -> &'a MapData {
    match bpf.map(name) {
        Some(Map::Array(map) | Map::HashMap(map) | Map::PerCpuArray(map)) => map,
        _ => panic!("a map {name}"),
    }
}

fn program_mut(bpf: &mut Ebpf) -> &mut Xdp {
    bpf.program_mut(PROGRAM_NAME).expect("the program").try_into().expect("an XDP program")
}

/// Two interfaces in this thread's namespace, to come in by and to send on.
fn veth_pair() -> (u32, u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        handle.link().add(rtnetlink::LinkVeth::new("client", "peer").build()).execute().await.unwrap();
    });
    let ifindex = |name| nix::net::if_::if_nametoindex(name).unwrap();
    (ifindex("client"), ifindex("peer"))
}
