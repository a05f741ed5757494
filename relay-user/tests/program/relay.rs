//! A relay reduced to its kernel program: maps filled as the daemon fills them, one session between a client and
//! a peer, packets by `BPF_PROG_TEST_RUN`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
};

use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, xdp::DevMapHash},
    programs::Xdp,
};
use nix::sched::{CloneFlags, unshare};
use relay_common::{
    clock::{BootNanos, Clock},
    counter::FlowCounter,
    flow::{FlowKeyV4, FlowV4},
    interface::Interface,
    maps,
    next_hop::NextHop,
    outcome::{Outcome, Verdict},
    port_class::{self, PortClass},
};
use relay_user::{
    datapath::{
        encode,
        program::{PROGRAM, PROGRAM_NAME},
    },
    turn::{
        AllocationId, ChannelNumber, ClientAddr, Direction, FiveTuple, Flow, FlowId, PeerAddr, RelayedAddr,
        ServerAddr, Transport,
    },
};
use socket2::{Domain, Socket, Type};

use crate::frame::{Frame, channel_data};

pub const LISTENER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 1, 1), 3478);
pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 1, 2), 40000);
pub const RELAYED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 2, 1), 50000);
pub const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 2, 2), 6000);
pub const CHANNEL: u16 = 0x4001;

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];

pub const TO_PEER_COUNTER: u32 = 5;
pub const TO_CLIENT_COUNTER: u32 = 6;
pub const CLIENT_NEXT_HOP: u32 = 1;
pub const PEER_NEXT_HOP: u32 = 2;
pub const MTU: u32 = 1500;

const SECOND: u64 = 1_000_000_000;

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

/// The program, its maps, and a network namespace with the sockets of a daemon.
pub struct Relay {
    bpf: Ebpf,
    client_ifindex: u32,
    peer_ifindex: u32,
    sockets: Vec<Socket>,
}

impl Relay {
    /// A relay with one session: [`CLIENT`] has [`RELAYED`] and [`CHANNEL`] bound to [`PEER`].
    pub fn new() -> Self {
        let mut relay = Self::without_session();
        let now = relay.now();
        relay.install(&flow(Direction::ToPeer, now + 60 * SECOND), TO_PEER_COUNTER, PEER_NEXT_HOP);
        relay.install(&flow(Direction::ToClient, now + 60 * SECOND), TO_CLIENT_COUNTER, CLIENT_NEXT_HOP);
        relay
    }

    /// The same without the two flows.
    pub fn without_session() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let (client_ifindex, peer_ifindex) = veth_pair();
        let object = PROGRAM.expect("a build with the kernel program");
        let mut bpf = Ebpf::load(object).expect("the kernel takes the object");
        program(&mut bpf)
            .load()
            .unwrap_or_else(|error| panic!("the verifier accepts the program: {error:?}"));

        let mut relay = Self { bpf, client_ifindex, peer_ifindex, sockets: Vec::new() };
        relay.set_clock_offset(relay.boot_offset());
        for (side, mac) in [(Side::Client, CLIENT_MAC), (Side::Peer, PEER_MAC)] {
            let ifindex = relay.ifindex(side);
            relay.set_interface(ifindex, encode::interface(side.mac()));
            relay.add_tx_port(ifindex);
            let index = if side == Side::Client { CLIENT_NEXT_HOP } else { PEER_NEXT_HOP };
            relay.set_next_hop(index, encode::next_hop(index, ifindex, MTU, mac, side.mac()));
        }
        relay.add_listener(LISTENER);
        relay.add_relayed(RELAYED);
        relay
    }

    pub fn add_listener(&mut self, listener: SocketAddrV4) {
        self.add_endpoint(listener, PortClass::Listener, encode::listener_v4(listener));
    }

    pub fn add_relayed(&mut self, relayed: SocketAddrV4) {
        self.add_endpoint(relayed, PortClass::Relayed, encode::relayed_v4(relayed));
    }

    fn add_endpoint(&mut self, address: SocketAddrV4, class: PortClass, entry: (FlowKeyV4, FlowV4)) {
        self.set_port_class(address.port(), class);
        self.insert(entry);
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        // The namespace has none of the addresses.
        socket.set_freebind_v4(true).unwrap();
        socket.bind(&address.into()).unwrap();
        self.sockets.push(socket);
    }

    /// What a killed daemon leaves: no sockets, everything else.
    pub fn kill_daemon(&mut self) {
        self.sockets.clear();
    }

    pub fn install(&mut self, flow: &Flow, counter: u32, next_hop: u32) {
        self.insert(encode::flow_v4(flow, counter, next_hop).expect("IPv4"));
    }

    pub fn insert(&mut self, (key, value): (FlowKeyV4, FlowV4)) {
        self.flows().insert(key, value, 0).unwrap();
    }

    pub fn remove(&mut self, key: FlowKeyV4) {
        self.flows().remove(&key).unwrap();
    }

    pub fn entry(&mut self, key: FlowKeyV4) -> FlowV4 {
        self.flows().get(&key, 0).unwrap()
    }

    /// For another thread to open the flow table by.
    pub fn flow_table_id(&self) -> u32 {
        let Some(aya::maps::Map::HashMap(map)) = self.bpf.map(maps::FLOWS_V4) else { panic!("a hash map") };
        map.info().unwrap().id()
    }

    fn flows(&mut self) -> HashMap<&mut MapData, FlowKeyV4, FlowV4> {
        self.bpf.map_mut(maps::FLOWS_V4).unwrap().try_into().unwrap()
    }

    pub fn set_port_class(&mut self, port: u16, class: PortClass) {
        let mut words: Array<_, u64> = self.bpf.map_mut(maps::PORT_CLASSES).unwrap().try_into().unwrap();
        let index = port_class::word(port);
        let word = words.get(&index, 0).unwrap();
        words.set(index, port_class::with(word, port, class), 0).unwrap();
    }

    pub fn set_next_hop(&mut self, index: u32, next_hop: NextHop) {
        let mut next_hops: Array<_, NextHop> = self.bpf.map_mut(maps::NEXT_HOPS).unwrap().try_into().unwrap();
        next_hops.set(index, next_hop, 0).unwrap();
    }

    pub fn set_interface(&mut self, ifindex: u32, interface: Interface) {
        let mut interfaces: Array<_, Interface> =
            self.bpf.map_mut(maps::INTERFACES).unwrap().try_into().unwrap();
        interfaces.set(ifindex, interface, 0).unwrap();
    }

    pub fn add_tx_port(&mut self, ifindex: u32) {
        self.tx_ports().insert(ifindex, ifindex, None, 0).unwrap();
    }

    pub fn remove_tx_port(&mut self, side: Side) {
        let ifindex = self.ifindex(side);
        self.tx_ports().remove(ifindex).unwrap();
    }

    fn tx_ports(&mut self) -> DevMapHash<&mut MapData> {
        self.bpf.map_mut(maps::TX_PORTS).unwrap().try_into().unwrap()
    }

    pub fn set_clock_offset(&mut self, boot_offset: u64) {
        let mut clock: Array<_, Clock> = self.bpf.map_mut(maps::CLOCK).unwrap().try_into().unwrap();
        clock.set(0, Clock { boot_offset }, 0).unwrap();
    }

    pub fn set_counter(&mut self, index: u32, word: u64) {
        let mut counters: Array<_, u64> = self.bpf.map_mut(maps::FLOW_COUNTERS).unwrap().try_into().unwrap();
        counters.set(index, word, 0).unwrap();
    }

    /// Packets and bytes that a flow counted.
    pub fn counted(&self, index: u32) -> (u64, u64) {
        let counters: Array<_, u64> = self.bpf.map(maps::FLOW_COUNTERS).unwrap().try_into().unwrap();
        FlowCounter(counters.get(&index, 0).unwrap()).since(FlowCounter(0))
    }

    /// Every outcome that is not 0.
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let outcomes: PerCpuArray<_, u64> = self.bpf.map(maps::OUTCOMES).unwrap().try_into().unwrap();
        Outcome::ALL
            .iter()
            .map(|&outcome| (outcome.name(), outcomes.get(&(outcome as u32), 0).unwrap().iter().sum()))
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    /// CLOCK_BOOTTIME.
    pub fn now(&self) -> BootNanos {
        clock(nix::time::ClockId::CLOCK_BOOTTIME)
    }

    /// CLOCK_BOOTTIME less CLOCK_MONOTONIC.
    pub fn boot_offset(&self) -> u64 {
        self.now().saturating_sub(clock(nix::time::ClockId::CLOCK_MONOTONIC))
    }

    pub const fn ifindex(&self, side: Side) -> u32 {
        match side {
            Side::Client => self.client_ifindex,
            Side::Peer => self.peer_ifindex,
        }
    }

    /// Has the program process a frame that came in by `side`.
    pub fn run(&mut self, side: Side, frame: &[u8]) -> Run {
        self.run_behind(&[], side, frame)
    }

    /// The same with `metadata` before the frame, as a driver or an earlier program may put it.
    pub fn run_behind(&mut self, metadata: &[u8], side: Side, frame: &[u8]) -> Run {
        let data_in = [metadata, frame].concat();
        let context = self.context(metadata, side, frame);
        let mut data_out = vec![0; data_in.len() + 256];
        let result = program(&mut self.bpf)
            .test_run(TestRunOptions {
                data_in: Some(&data_in),
                data_out: Some(&mut data_out),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .expect("a test run");
        data_out.truncate(result.data_size_out as usize);
        data_out.drain(..metadata.len());
        Run { verdict: result.return_value, frame: data_out }
    }

    /// `struct xdp_md` of such a run: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    pub fn context(&self, metadata: &[u8], side: Side, frame: &[u8]) -> Vec<u8> {
        let end = metadata.len() + frame.len();
        let words = [metadata.len() as u32, end as u32, 0, self.ifindex(side), 0, 0];
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    pub fn program(&mut self) -> &mut Xdp {
        program(&mut self.bpf)
    }

    /// Asserts that the program forwards `frame` as `expected` and counts no outcome. The Identification is the
    /// relay's own: any will do.
    #[track_caller]
    pub fn assert_forwards(&mut self, side: Side, frame: &Frame, verdict: u32, expected: &Frame) {
        let before = self.outcomes();
        let run = self.run(side, &frame.bytes());
        assert_eq!(self.outcomes(), before, "outcomes after {frame:?}");
        assert_eq!(run.verdict, verdict, "verdict on {frame:?}");
        let identification = u16::from_be_bytes([run.frame[18], run.frame[19]]);
        let expected = Frame { identification, ..expected.clone() };
        assert_eq!(hex(&run.frame), hex(&expected.bytes()), "{frame:?} becomes {expected:?}");
    }

    /// Asserts that the program ends `frame` with `outcome` and nothing else: untouched when punted, counted
    /// once, no flow's count changed.
    #[track_caller]
    pub fn assert_outcome(&mut self, side: Side, frame: &[u8], outcome: Outcome) {
        let mut expected = self.outcomes();
        *expected.entry(outcome.name()).or_default() += 1;
        let counted = [self.counted(TO_PEER_COUNTER), self.counted(TO_CLIENT_COUNTER)];

        let run = self.run(side, frame);

        assert_eq!(self.outcomes(), expected, "outcomes after {}", hex(frame));
        let verdict = match outcome.verdict() {
            Verdict::Punt => XDP_PASS,
            Verdict::Drop => XDP_DROP,
        };
        assert_eq!(run.verdict, verdict, "verdict on {}", hex(frame));
        assert_eq!(hex(&run.frame), hex(frame), "the frame is untouched");
        assert_eq!(
            [self.counted(TO_PEER_COUNTER), self.counted(TO_CLIENT_COUNTER)],
            counted,
            "flow counters"
        );
    }

    /// Asserts that the program leaves `frame` to the kernel, untouched and uncounted.
    #[track_caller]
    pub fn assert_not_ours(&mut self, side: Side, frame: &[u8]) {
        let outcomes = self.outcomes();
        let run = self.run(side, frame);
        assert_eq!(run.verdict, XDP_PASS, "verdict on {}", hex(frame));
        assert_eq!(hex(&run.frame), hex(frame), "the frame is untouched");
        assert_eq!(self.outcomes(), outcomes, "outcomes after {}", hex(frame));
    }
}

/// One direction of the session.
pub fn flow(direction: Direction, expires: BootNanos) -> Flow {
    Flow {
        id: FlowId {
            direction,
            five_tuple: FiveTuple {
                client: ClientAddr(CLIENT.into()),
                server: ServerAddr(LISTENER.into()),
                transport: Transport::Udp,
            },
            relayed: RelayedAddr(RELAYED.into()),
            peer: PeerAddr(PEER.into()),
            channel: ChannelNumber::new(CHANNEL).unwrap(),
        },
        allocation: AllocationId(1),
        expires,
        hairpin: false,
    }
}

/// A frame of the client with ChannelData for the peer.
pub fn from_client(data: &[u8]) -> Frame {
    Frame {
        destination_mac: Side::Client.mac(),
        source_mac: CLIENT_MAC,
        ..Frame::new(CLIENT, LISTENER, channel_data(CHANNEL, data))
    }
}

/// What the peer gets of `from_client(data)`.
pub fn at_peer(data: &[u8]) -> Frame {
    Frame {
        destination_mac: PEER_MAC,
        source_mac: Side::Peer.mac(),
        ttl: 63,
        ..Frame::new(RELAYED, PEER, data)
    }
}

/// A frame of the peer with data for the client.
pub fn from_peer(data: &[u8]) -> Frame {
    Frame { destination_mac: Side::Peer.mac(), source_mac: PEER_MAC, ..Frame::new(PEER, RELAYED, data) }
}

/// What the client gets of `from_peer(data)`.
pub fn at_client(data: &[u8]) -> Frame {
    Frame {
        destination_mac: CLIENT_MAC,
        source_mac: Side::Client.mac(),
        ttl: 63,
        ..Frame::new(LISTENER, CLIENT, channel_data(CHANNEL, data))
    }
}

/// `len` bytes of which no two neighbours are alike.
pub fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn program(bpf: &mut Ebpf) -> &mut Xdp {
    bpf.program_mut(PROGRAM_NAME).expect("the program").try_into().expect("an XDP program")
}

fn clock(id: nix::time::ClockId) -> u64 {
    let time = nix::time::clock_gettime(id).unwrap();
    time.tv_sec() as u64 * SECOND + time.tv_nsec() as u64
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
