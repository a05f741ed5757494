//! The kernel program in a network namespace of its own, run by `BPF_PROG_TEST_RUN` at any time one likes.

use std::{io, os::fd::AsFd as _};

use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions, TestRunResult,
    maps::{Array, HashMap, Map, MapData, MapError, xdp::DevMapHash},
    programs::{ProgramError, Xdp},
};
use nix::{
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};
use relay_common::{
    clock::BootNanos,
    flow::{FlowEntry, FlowKeyV4, FlowKeyV6},
    globals::word,
    interface::{Interface, VlanKey},
    maps,
    meter::Rate,
    outcome,
    path::Path,
    port_class::{self, PortClass},
};
use relay_user::datapath::{
    encode::Key,
    program::{PROGRAM, PROGRAM_NAME},
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{batch::lookup_batch, mapped::Mapped, packet::Packet};

/// Interfaces that frames come in by.
pub const INTERFACES: usize = 4;
pub const PATHS: u32 = 4096;
pub const COUNTERS: u32 = 4096;
pub const METERS: usize = 16;

/// Ports that sockets are bound to, as a daemon's are.
pub const SERVED_LISTENER: u16 = 3478;
pub const SERVED_PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_031;

/// What the kernel leaves of its 256 bytes of headroom to the program: `struct xdp_frame` lies there.
pub const HEADROOM: usize = 216;
/// How much of a frame is in one piece: a page less headroom and `struct skb_shared_info`.
pub const LINEAR: usize = 4096 - 256 - 320;
const ETHERNET_LEN: usize = 14;

// enum xdp_action of the kernel's include/uapi/linux/bpf.h.
pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
pub const XDP_REDIRECT: u32 = 4;

/// Counts by outcome.
pub type Outcomes = [u64; outcome::COUNT as usize];

/// The program and its maps.
pub struct Program {
    bpf: Ebpf,
    flows_v4: HashMap<MapData, FlowKeyV4, FlowEntry>,
    flows_v6: HashMap<MapData, FlowKeyV6, FlowEntry>,
    paths: Array<MapData, Path>,
    interfaces: Array<MapData, Interface>,
    vlans: HashMap<MapData, VlanKey, Interface>,
    tx_ports: DevMapHash<MapData>,
    pub counters: Mapped,
    pub meters: Mapped,
    port_classes: Mapped,
    globals: Mapped,
    outcomes: MapData,
    outcome_words: Vec<u64>,
    pub ifindexes: [u32; INTERFACES],
    _sockets: Vec<Socket>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The kernel (6.18 or later) lets the caller say how much of the frame is in its first piece of memory.
    may_split: bool,
}

/// What the program made of a frame.
pub struct Run<'a> {
    pub verdict: u32,
    pub frame: &'a [u8],
}

impl Program {
    /// Loads the program in a new namespace of this thread's.
    pub fn load(transaction_key: [u64; 2]) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let ifindexes = veth_pairs();
        let most = ifindexes.into_iter().max().unwrap();
        let mut bpf = EbpfLoader::new()
            .map_max_entries(maps::FLOWS_V4, 1 << 14)
            .map_max_entries(maps::FLOWS_V6, 1 << 14)
            .map_max_entries(maps::FLOW_COUNTERS, COUNTERS)
            .map_max_entries(maps::METERS, METERS as u32)
            .map_max_entries(maps::PATHS, PATHS)
            .map_max_entries(maps::INTERFACES, most + 1)
            .map_max_entries(maps::VLANS, 64)
            .map_max_entries(maps::TX_PORTS, INTERFACES as u32)
            .load(PROGRAM.expect("a build with the kernel program"))
            .unwrap();
        let xdp: &mut Xdp = bpf.program_mut(PROGRAM_NAME).unwrap().try_into().unwrap();
        xdp.load().unwrap_or_else(|error| panic!("the verifier accepts the program: {error:?}"));

        let mut map = |name: &str| bpf.take_map(name).unwrap_or_else(|| panic!("no map {name}"));
        let words = |map: Map, len: u32| match map {
            Map::Array(data) => Mapped::new(data.fd().as_fd(), len),
            other => panic!("no array: {other:?}"),
        };
        let Map::PerCpuArray(outcomes) = map(maps::OUTCOMES) else { panic!("an array for each CPU") };
        let cpus = aya::util::nr_cpus().unwrap();
        let globals = words(map(maps::GLOBALS), word::COUNT);
        for (i, key) in transaction_key.into_iter().enumerate() {
            globals.store(word::TRANSACTION_KEY as usize + i, key);
        }
        let mut program = Self {
            flows_v4: map(maps::FLOWS_V4).try_into().unwrap(),
            flows_v6: map(maps::FLOWS_V6).try_into().unwrap(),
            paths: map(maps::PATHS).try_into().unwrap(),
            interfaces: map(maps::INTERFACES).try_into().unwrap(),
            vlans: map(maps::VLANS).try_into().unwrap(),
            tx_ports: map(maps::TX_PORTS).try_into().unwrap(),
            counters: words(map(maps::FLOW_COUNTERS), COUNTERS),
            meters: words(map(maps::METERS), METERS as u32),
            port_classes: words(map(maps::PORT_CLASSES), port_class::WORDS),
            globals,
            outcomes,
            outcome_words: vec![0; outcome::COUNT as usize * cpus],
            ifindexes,
            _sockets: sockets(),
            input: Vec::new(),
            output: vec![0; 1 << 17],
            may_split: true,
            bpf,
        };
        program.may_split = program.try_run((0, 0), &[0; 60], 20).is_ok();
        program
    }

    /// Bytes of the frame that will be in its first piece of memory.
    pub fn first_piece(&self, packet: &Packet, frame_len: usize) -> usize {
        let wanted = packet.first_piece.filter(|_| self.may_split).unwrap_or(usize::MAX);
        // A piece holds an Ethernet header at least.
        wanted.max(ETHERNET_LEN).min(frame_len).min(LINEAR)
    }

    /// Has the program process a frame that came in by an interface at `now`. `undo` is called if a tick of the
    /// clock makes it uncertain what the program took the time for: the frame is processed again then.
    pub fn run(
        &mut self,
        packet: &Packet,
        frame: &[u8],
        now: BootNanos,
        mut undo: impl FnMut(&mut Self),
    ) -> Run<'_> {
        let first_piece = self.first_piece(packet, frame.len());
        let result = loop {
            let coarse = coarse_now();
            self.globals.store(word::BOOT_OFFSET as usize, now.wrapping_sub(coarse));
            let result = self
                .try_run((packet.ingress, packet.metadata), frame, first_piece)
                .unwrap_or_else(|error| panic!("{packet:?}: {error:?}"));
            if coarse_now() == coarse {
                break result;
            }
            undo(self);
        };
        let frame = &self.output[packet.metadata..result.data_size_out as usize];
        Run { verdict: result.return_value, frame }
    }

    fn try_run(
        &mut self,
        (ingress, metadata): (usize, usize),
        frame: &[u8],
        first_piece: usize,
    ) -> Result<TestRunResult, ProgramError> {
        self.input.clear();
        self.input.resize(metadata, 0);
        self.input.extend_from_slice(frame);
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        // More than one piece can hold goes into others by itself.
        let first_end = if first_piece < LINEAR { metadata + first_piece } else { self.input.len() };
        let words = [metadata as u32, first_end as u32, 0, self.ifindexes[ingress], 0, 0];
        let mut context = [0; 24];
        for (bytes, word) in context.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_ne_bytes();
        }
        let xdp: &Xdp = self.bpf.program(PROGRAM_NAME).unwrap().try_into().unwrap();
        xdp.test_run(TestRunOptions {
            data_in: Some(&self.input),
            data_out: Some(&mut self.output),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })
    }

    /// Everything that was counted up to now.
    pub fn outcomes(&mut self) -> Outcomes {
        lookup_batch(self.outcomes.fd().as_fd(), outcome::COUNT as usize, &mut self.outcome_words)
            .expect("the map of outcomes");
        let cpus = self.outcome_words.len() / outcome::COUNT as usize;
        let mut counts = [0; outcome::COUNT as usize];
        for (count, words) in counts.iter_mut().zip(self.outcome_words.chunks_exact(cpus)) {
            *count = words.iter().sum();
        }
        counts
    }

    /// The limits that the program is to keep to.
    pub fn set_limits(&mut self, rate: Rate, min_ipv6_mtu: u16) {
        self.globals.store(word::RATE_PER_BYTE as usize, rate.per_byte);
        self.globals.store(word::RATE_BURST as usize, rate.burst);
        self.globals.store(word::MIN_IPV6_MTU as usize, min_ipv6_mtu.into());
    }

    pub fn insert_flow(&mut self, key: &Key, entry: &FlowEntry) {
        persist(|| match key {
            Key::V4(key) => self.flows_v4.insert(key, entry, 0),
            Key::V6(key) => self.flows_v6.insert(key, entry, 0),
        });
    }

    pub fn remove_flow(&mut self, key: &Key) {
        persist(|| match key {
            Key::V4(key) => self.flows_v4.remove(key),
            Key::V6(key) => self.flows_v6.remove(key),
        });
    }

    pub fn set_path(&mut self, index: u32, path: Path) {
        self.paths.set(index, path, 0).unwrap();
    }

    pub fn set_port_class(&mut self, port: u16, class: PortClass) {
        let index = port_class::word(port) as usize;
        let word = port_class::with(self.port_classes.load(index), port, class);
        self.port_classes.store(index, word);
    }

    pub fn set_interface(&mut self, ingress: usize, interface: Interface) {
        self.interfaces.set(self.ifindexes[ingress], interface, 0).unwrap();
    }

    pub fn insert_vlan(&mut self, key: VlanKey, interface: Interface) {
        self.vlans.insert(key, interface, 0).unwrap();
    }

    /// Forgets every VLAN.
    pub fn clear_vlans(&mut self) {
        let keys: Vec<_> = self.vlans.keys().collect::<Result<_, _>>().unwrap();
        for key in keys {
            self.vlans.remove(&key).unwrap();
        }
    }

    /// Whether the program may send on an interface.
    pub fn set_tx_port(&mut self, place: usize, may_send: bool) {
        let ifindex = self.ifindexes[place];
        if may_send {
            self.tx_ports.insert(ifindex, ifindex, None, 0).unwrap();
        } else {
            match self.tx_ports.remove(ifindex) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(error)) if is(&error.io_error, libc::ENOENT) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

/// A hash map without preallocation may refuse an update for the moment (`ENOMEM`, `EBUSY`).
fn persist(mut update: impl FnMut() -> Result<(), MapError>) {
    for _ in 0..100 {
        match update() {
            Err(MapError::SyscallError(error))
                if is(&error.io_error, libc::ENOMEM) || is(&error.io_error, libc::EBUSY) =>
            {
                std::thread::yield_now();
            }
            result => return result.unwrap(),
        }
    }
    panic!("the kernel has no room for a flow");
}

fn is(error: &io::Error, number: i32) -> bool {
    error.raw_os_error() == Some(number)
}

/// CLOCK_MONOTONIC at the last tick, as `bpf_ktime_get_coarse_ns` tells it.
fn coarse_now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Two pairs of interfaces in this thread's namespace.
fn veth_pairs() -> [u32; INTERFACES] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        for (one, other) in [("a", "b"), ("c", "d")] {
            handle.link().add(rtnetlink::LinkVeth::new(one, other).build()).execute().await.unwrap();
        }
    });
    ["a", "b", "c", "d"].map(|name| nix::net::if_::if_nametoindex(name).unwrap())
}

/// Sockets that a datagram to a served port, by either family, would reach.
fn sockets() -> Vec<Socket> {
    std::iter::once(SERVED_LISTENER)
        .chain(SERVED_PORTS)
        .map(|port| {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
            socket.set_only_v6(false).unwrap();
            let any = std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
            socket.bind(&SockAddr::from(any)).unwrap();
            socket
        })
        .collect()
}
