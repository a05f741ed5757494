//! Flows in the kernel, with packets of a client and a peer through them.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use relay_user::{
    datapath::{Counts, Datapath, DatapathMode, InstallError, Traffic, open},
    turn::{
        AllocationId, ChannelNumber, ClientAddr, Direction, FiveTuple, Flow, FlowId, PeerAddr, RelayedAddr,
        ServerAddr, Transport,
    },
};

use crate::network::{Host, Network, eventually};

const CLIENT: &str = "198.18.1.2:40000";
const SERVER: &str = "198.18.1.1:3478";
const RELAYED: &str = "198.18.2.1:49152";
const PEER: &str = "198.18.2.2:3480";
const CHANNEL: u16 = 0x4000;
const ALLOCATION: AllocationId = AllocationId(1);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn boot_now() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap()).as_nanos() as u64
}

/// A flow on `channel` that lasts longer than any test.
fn flow(direction: Direction, channel: u16) -> Flow {
    let id = FlowId {
        direction,
        five_tuple: FiveTuple {
            client: ClientAddr(address(CLIENT)),
            server: ServerAddr(address(SERVER)),
            transport: Transport::Udp,
        },
        relayed: RelayedAddr(address(RELAYED)),
        peer: PeerAddr(address(PEER)),
        channel: ChannelNumber::new(channel).unwrap(),
    };
    let hour = Duration::from_secs(3600).as_nanos() as u64;
    Flow { id, allocation: ALLOCATION, expires: boot_now() + hour, hairpin: false }
}

fn channel_data(data: &[u8]) -> Vec<u8> {
    let mut datagram = CHANNEL.to_be_bytes().to_vec();
    datagram.extend((data.len() as u16).to_be_bytes());
    datagram.extend(data);
    datagram
}

fn bytes(data: &[&[u8]]) -> Traffic {
    Traffic { packets: data.len() as u64, bytes: data.iter().map(|data| data.len() as u64).sum() }
}

/// The sockets of client, peer and daemon around an open datapath.
struct Session {
    client: UdpSocket,
    peer: UdpSocket,
    /// The daemon's own: what is punted comes in here.
    listener: UdpSocket,
    relayed: UdpSocket,
    datapath: Box<dyn Datapath>,
}

impl Session {
    /// With a listener and a relayed address, and no flow.
    async fn open(network: &Network, mode: DatapathMode, max_flows: u32) -> Self {
        let mut options = network.options(mode);
        options.max_flows = max_flows;
        let opened = open(options).await.unwrap();
        assert_eq!((opened.mode, &opened.warnings[..]), (mode, &[][..]));
        let mut datapath = opened.datapath;
        datapath.add_listener(address(SERVER)).unwrap();
        datapath.add_relayed(RelayedAddr(address(RELAYED))).unwrap();
        let socket = |host, from| {
            let socket = network.enter(host, || UdpSocket::bind(address(from)).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            socket
        };
        Self {
            client: socket(Host::Client, CLIENT),
            peer: socket(Host::Peer, PEER),
            listener: socket(Host::Relay, SERVER),
            relayed: socket(Host::Relay, RELAYED),
            datapath,
        }
    }

    /// Both flows in, and both next hops known. What that took is not in the counts returned.
    async fn establish(&mut self) -> Counts {
        for direction in [Direction::ToPeer, Direction::ToClient] {
            self.datapath.install_flow(&flow(direction, CHANNEL)).unwrap();
        }
        // Until a next hop is resolved, packets arrive at the daemon's sockets.
        eventually("both directions are forwarded", || {
            self.client.send_to(&channel_data(b"?"), address(SERVER)).unwrap();
            self.peer.send_to(b"?", address(RELAYED)).unwrap();
            let forwarded = self.datapath.counts().forwarded;
            forwarded.to_peer.packets > 0 && forwarded.to_client.packets > 0
        });
        self.drain();
        self.datapath.counts()
    }

    /// Waits until what was sent before has arrived somewhere, and forgets it.
    fn drain(&mut self) {
        self.client.send_to(&channel_data(b"end"), address(SERVER)).unwrap();
        self.peer.send_to(b"end", address(RELAYED)).unwrap();
        let mut buffer = [0; 2048];
        while self.peer.recv(&mut buffer).unwrap() != b"end".len() {}
        while self.client.recv(&mut buffer).unwrap() != channel_data(b"end").len() {}
        for socket in [&self.listener, &self.relayed] {
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut buffer).is_ok() {}
            socket.set_nonblocking(false).unwrap();
        }
    }

    /// Sends to the peer and waits until it has arrived there.
    fn to_peer(&self, data: &[u8]) {
        self.client.send_to(&channel_data(data), address(SERVER)).unwrap();
        assert_eq!(receive(&self.peer), (data.to_vec(), address(RELAYED)));
    }

    /// Sends to the client and waits until it has arrived there.
    fn to_client(&self, data: &[u8]) {
        self.peer.send_to(data, address(RELAYED)).unwrap();
        assert_eq!(receive(&self.client), (channel_data(data), address(SERVER)));
    }

    fn traffic(&mut self) -> (Traffic, Traffic) {
        self.datapath.allocation_traffic(ALLOCATION)
    }
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("arrives");
    (buffer[..length].to_vec(), from)
}

fn count(counts: &[(&str, u64)], reason: &str) -> u64 {
    counts.iter().find(|(name, _)| *name == reason).expect("a reason there is").1
}

fn counts_are_exact(mode: DatapathMode) {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, mode, 16).await;
        let before = session.establish().await;
        let first = session.traffic();
        assert_eq!((before.forwarded.to_peer, before.forwarded.to_client), first);

        let sizes: Vec<Vec<u8>> = (0..100).map(|size| vec![size as u8; size * 12]).collect();
        let sizes: Vec<&[u8]> = sizes.iter().map(Vec::as_slice).collect();
        for (index, data) in sizes.iter().enumerate() {
            session.to_peer(data);
            session.to_client(data);
            if index % 10 == 0 {
                // A refresh.
                session.datapath.install_flow(&flow(Direction::ToPeer, CHANNEL)).unwrap();
                session.datapath.tick(boot_now());
            }
        }
        let expected = |before: Traffic| {
            let mut traffic = bytes(&sizes);
            traffic += before;
            traffic
        };
        assert_eq!(session.traffic(), (expected(first.0), expected(first.1)));

        let after = session.datapath.counts();
        for direction in [Direction::ToPeer, Direction::ToClient] {
            session.datapath.remove_flow(&flow(direction, CHANNEL).id);
        }
        session.client.send_to(&channel_data(b"late"), address(SERVER)).unwrap();
        assert_eq!(receive(&session.listener), (channel_data(b"late"), address(CLIENT)));
        session.peer.send_to(b"late", address(RELAYED)).unwrap();
        assert_eq!(receive(&session.relayed), (b"late".to_vec(), address(PEER)));

        let last = session.datapath.counts();
        assert_eq!(last.forwarded, after.forwarded);
        assert_eq!(count(&last.punts, "no_flow"), count(&after.punts, "no_flow") + 2);
        session.datapath.forget_allocation(ALLOCATION);
        assert_eq!(session.datapath.counts().forwarded, after.forwarded, "totals remain");
        session.datapath.close();
        assert_eq!(session.datapath.counts().forwarded, after.forwarded, "also after the end");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn native_counts_are_exact_while_flows_come_change_and_go() {
    counts_are_exact(DatapathMode::XdpNative);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn generic_counts_are_exact_while_flows_come_change_and_go() {
    counts_are_exact(DatapathMode::XdpGeneric);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_hairpin_packet_is_counted_once_and_for_both_allocations() {
    // A second allocation of the same client, each the other's peer.
    const CLIENT_B: &str = "198.18.1.2:40001";
    const RELAYED_B: &str = "198.18.2.1:49153";
    const ALLOCATION_B: AllocationId = AllocationId(2);
    let hairpin = |mut flow: Flow, allocation, client, relayed, peer| {
        flow.id.five_tuple.client = ClientAddr(address(client));
        flow.id.relayed = RelayedAddr(address(relayed));
        flow.id.peer = PeerAddr(address(peer));
        Flow { allocation, hairpin: true, ..flow }
    };

    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, DatapathMode::XdpNative, 16).await;
        session.datapath.add_relayed(RelayedAddr(address(RELAYED_B))).unwrap();
        for direction in [Direction::ToPeer, Direction::ToClient] {
            let flow = flow(direction, CHANNEL);
            let a = hairpin(flow, ALLOCATION, CLIENT, RELAYED, RELAYED_B);
            let b = hairpin(flow, ALLOCATION_B, CLIENT_B, RELAYED_B, RELAYED);
            session.datapath.install_flow(&a).unwrap();
            session.datapath.install_flow(&b).unwrap();
        }
        let receiver = network.enter(Host::Client, || UdpSocket::bind(address(CLIENT_B)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        eventually("hairpins are forwarded", || {
            session.client.send_to(&channel_data(b"?"), address(SERVER)).unwrap();
            session.datapath.counts().forwarded.hairpin.packets > 0
        });

        session.client.send_to(&channel_data(b"end"), address(SERVER)).unwrap();
        while receive(&receiver) != (channel_data(b"end"), address(SERVER)) {}
        let forwarded = session.datapath.counts().forwarded;
        assert_eq!((forwarded.to_peer, forwarded.to_client), Default::default());
        let none = Traffic::default();
        assert_eq!(session.datapath.allocation_traffic(ALLOCATION), (forwarded.hairpin, none));
        assert_eq!(session.datapath.allocation_traffic(ALLOCATION_B), (none, forwarded.hairpin));
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_past_its_expiry_is_dropped_and_counted() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, DatapathMode::XdpNative, 16).await;
        let before = session.establish().await;
        let expired = Flow { expires: boot_now(), ..flow(Direction::ToPeer, CHANNEL) };
        session.datapath.install_flow(&expired).unwrap();
        // The program's clock is coarse: it may lag by a tick of the kernel's timer.
        eventually("dropped as expired", || {
            session.client.send_to(&channel_data(b"late"), address(SERVER)).unwrap();
            count(&session.datapath.counts().drops, "expired") > count(&before.drops, "expired")
        });
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn dp_068_a_full_table_refuses_new_flows_and_evicts_none() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, DatapathMode::XdpNative, 2).await;
        session.establish().await;
        for _ in 0..2 {
            let error = session.datapath.install_flow(&flow(Direction::ToPeer, 0x4001)).unwrap_err();
            assert!(matches!(error, InstallError::Full { capacity: 2 }), "{error}");
        }
        session.to_peer(b"still there");
        session.to_client(b"still there");
        session.datapath.remove_flow(&flow(Direction::ToClient, CHANNEL).id);
        session.datapath.install_flow(&flow(Direction::ToPeer, 0x4001)).expect("there is room again");
        session.to_peer(b"still there");
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_table_is_filled_emptied_and_filled_again_in_one_burst() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let channels = 0x4000..=0x4fff;
        let mut session = Session::open(&network, DatapathMode::XdpNative, 4096).await;
        for _ in 0..2 {
            for channel in channels.clone() {
                session.datapath.install_flow(&flow(Direction::ToPeer, channel)).unwrap();
            }
            for channel in channels.clone().skip(1) {
                session.datapath.remove_flow(&flow(Direction::ToPeer, channel).id);
            }
            // Room for as many at once is there only when the counters of the removed have been settled.
            let later = boot_now() + Duration::from_secs(3600).as_nanos() as u64;
            session.datapath.tick(later);
        }
        assert_eq!(session.datapath.counts().forwarded, Default::default());
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn datagrams_to_a_relayed_address_that_is_gone_are_no_longer_ours() {
    let network = Network::new();
    network.block_on(Host::Relay, async || {
        let mut session = Session::open(&network, DatapathMode::XdpNative, 16).await;
        session.peer.send_to(b"ours", address(RELAYED)).unwrap();
        assert_eq!(receive(&session.relayed).0, b"ours");
        let ours = count(&session.datapath.counts().punts, "no_flow");
        assert_eq!(ours, 1);
        session.datapath.remove_relayed(RelayedAddr(address(RELAYED)));
        session.peer.send_to(b"foreign", address(RELAYED)).unwrap();
        assert_eq!(receive(&session.relayed).0, b"foreign", "whoever has the port now gets it");
        assert_eq!(count(&session.datapath.counts().punts, "no_flow"), ours);
    });
}
