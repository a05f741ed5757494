//! A session between a client and a peer, with the daemon's sockets, around an open datapath.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use relay_user::{
    datapath::{Counts, Datapath, DatapathMode, Traffic, open},
    turn::{
        AllocationId, ChannelNumber, ClientAddr, Direction, FiveTuple, Flow, FlowForm, FlowId, PeerAddr,
        RelayedAddr, ServerAddr, Transport,
        channel_data::ChannelData,
        stun::{AttributeType, Class, Header, Message, MessageWriter, Method, TransactionId},
    },
};

use crate::network::{Host, Network, eventually};

/// The channel that is bound to the peer.
pub(crate) const CHANNEL: u16 = 0x4000;
/// Whose flows they are.
pub(crate) const ALLOCATION: AllocationId = AllocationId(1);

/// Where everybody is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) client: &'static str,
    pub(crate) server: &'static str,
    pub(crate) relayed: &'static str,
    pub(crate) peer: &'static str,
}

/// Client and peer are reached by IPv4.
pub(crate) const IPV4: Addresses = Addresses {
    client: "198.18.1.2:40000",
    server: "198.18.1.1:3478",
    relayed: "198.18.2.1:49152",
    peer: "198.18.2.2:3480",
};

/// By IPv6.
pub(crate) const IPV6: Addresses = Addresses {
    client: "[fd00:1::2]:40000",
    server: "[fd00:1::1]:3478",
    relayed: "[fd00:2::1]:49152",
    peer: "[fd00:2::2]:3480",
};

/// The client by IPv4, the peer by IPv6.
pub(crate) const IPV4_TO_IPV6: Addresses =
    Addresses { client: IPV4.client, server: IPV4.server, relayed: IPV6.relayed, peer: IPV6.peer };

/// The client by IPv6, the peer by IPv4.
pub(crate) const IPV6_TO_IPV4: Addresses =
    Addresses { client: IPV6.client, server: IPV6.server, relayed: IPV4.relayed, peer: IPV4.peer };

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn boot_now() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap()).as_nanos() as u64
}

impl Addresses {
    /// A flow that lasts longer than any test.
    pub(crate) fn flow(self, direction: Direction, form: FlowForm) -> Flow {
        let id = FlowId {
            direction,
            five_tuple: FiveTuple {
                client: ClientAddr(address(self.client)),
                server: ServerAddr(address(self.server)),
                transport: Transport::Udp,
            },
            relayed: RelayedAddr(address(self.relayed)),
            form,
        };
        let hour = Duration::from_secs(3600).as_nanos() as u64;
        Flow { id, allocation: ALLOCATION, expires: boot_now() + hour, hairpin: None, meter: None }
    }

    /// The flow of a channel to the peer.
    pub(crate) fn channel(self, direction: Direction, number: u16) -> Flow {
        let peer = PeerAddr(address(self.peer));
        self.flow(direction, FlowForm::Channel { peer, number: ChannelNumber::new(number).unwrap() })
    }

    /// The flows of the channel.
    pub(crate) fn channels(self) -> [Flow; 2] {
        [Direction::ToPeer, Direction::ToClient].map(|direction| self.channel(direction, CHANNEL))
    }

    /// The flows that Send and Data indications take.
    pub(crate) fn permission(self) -> [Flow; 3] {
        let form = FlowForm::Permission { peer: address(self.peer).ip() };
        [
            self.flow(Direction::ToPeer, FlowForm::Allocation),
            self.flow(Direction::ToPeer, form),
            self.flow(Direction::ToClient, form),
        ]
    }
}

pub(crate) fn channel_data(data: &[u8]) -> Vec<u8> {
    ChannelData { number: ChannelNumber::new(CHANNEL).unwrap(), data }.to_datagram()
}

/// A Send indication.
pub(crate) fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let header =
        Header { class: Class::Indication, method: Method::SEND, transaction_id: TransactionId([7; 12]) };
    let mut message = MessageWriter::new(header);
    message.xor_address(AttributeType::XOR_PEER_ADDRESS, peer).attribute(AttributeType::DATA, data);
    message.finish()
}

/// The peer and the data of a Data indication.
pub(crate) fn data_indication(datagram: &[u8]) -> (SocketAddr, Vec<u8>) {
    let (header, bytes) = Header::parse(datagram).unwrap();
    assert_eq!((header.class, header.method), (Class::Indication, Method::DATA));
    let message = Message::parse(header, bytes).unwrap();
    let peer = message.xor_address(AttributeType::XOR_PEER_ADDRESS).unwrap().expect("a peer");
    (peer, message.attribute(AttributeType::DATA).expect("data").to_vec())
}

/// The sockets of client, peer and daemon around an open datapath.
pub(crate) struct Session {
    pub(crate) addresses: Addresses,
    pub(crate) client: UdpSocket,
    pub(crate) peer: UdpSocket,
    /// The daemon's own: what is punted comes in here.
    pub(crate) listener: UdpSocket,
    pub(crate) relayed: UdpSocket,
    pub(crate) datapath: Box<dyn Datapath>,
}

impl Session {
    /// With a listener and a relayed address, and no flow. For the relay's namespace.
    pub(crate) async fn open(
        network: &Network,
        addresses: Addresses,
        mode: DatapathMode,
        max_flows: u32,
    ) -> Self {
        let mut options = network.options(mode);
        options.max_flows = max_flows;
        let opened = open(options).await.unwrap();
        assert_eq!((opened.mode, &opened.warnings[..]), (mode, &[][..]));
        let mut datapath = opened.datapath;
        datapath.add_listener(address(addresses.server)).unwrap();
        datapath.add_relayed(RelayedAddr(address(addresses.relayed))).unwrap();
        Self {
            addresses,
            client: bind(network, Host::Client, addresses.client),
            peer: bind(network, Host::Peer, addresses.peer),
            listener: bind(network, Host::Relay, addresses.server),
            relayed: bind(network, Host::Relay, addresses.relayed),
            datapath,
        }
    }

    /// The channel's flows in, and all its paths known. What that took is not in the counts returned.
    pub(crate) async fn establish(&mut self) -> Counts {
        for flow in self.addresses.channels() {
            self.datapath.install_flow(&flow).unwrap();
        }
        // Until a next hop is resolved, packets arrive at the daemon's sockets.
        eventually("both directions are forwarded", || {
            self.client.send_to(&channel_data(b"?"), address(self.addresses.server)).unwrap();
            self.peer.send_to(b"?", address(self.addresses.relayed)).unwrap();
            let forwarded = self.datapath.counts().forwarded;
            forwarded.to_peer.packets > 0 && forwarded.to_client.packets > 0
        });
        self.drain();
        self.datapath.counts()
    }

    /// Waits until what was sent before has arrived somewhere, and forgets it.
    fn drain(&mut self) {
        self.client.send_to(&channel_data(b"end"), address(self.addresses.server)).unwrap();
        self.peer.send_to(b"end", address(self.addresses.relayed)).unwrap();
        while receive(&self.peer).0 != b"end" {}
        while receive(&self.client).0 != channel_data(b"end") {}
        for socket in [&self.listener, &self.relayed] {
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut [0; 2048]).is_ok() {}
            socket.set_nonblocking(false).unwrap();
        }
    }

    /// Sends to the peer and waits until it has arrived there.
    pub(crate) fn to_peer(&self, data: &[u8]) {
        self.client.send_to(&channel_data(data), address(self.addresses.server)).unwrap();
        assert_eq!(receive(&self.peer), (data.to_vec(), address(self.addresses.relayed)));
    }

    /// Sends to the client and waits until it has arrived there.
    pub(crate) fn to_client(&self, data: &[u8]) {
        self.peer.send_to(data, address(self.addresses.relayed)).unwrap();
        assert_eq!(receive(&self.client), (channel_data(data), address(self.addresses.server)));
    }

    pub(crate) fn traffic(&mut self) -> (Traffic, Traffic) {
        self.datapath.allocation_traffic(ALLOCATION)
    }
}

pub(crate) fn bind(network: &Network, host: Host, to: &str) -> UdpSocket {
    let socket = network.enter(host, || UdpSocket::bind(address(to)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

pub(crate) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("arrives");
    (buffer[..length].to_vec(), from)
}

pub(crate) fn count(counts: &[(&str, u64)], reason: &str) -> u64 {
    counts.iter().find(|(name, _)| *name == reason).expect("a reason there is").1
}

pub(crate) fn bytes(data: &[&[u8]]) -> Traffic {
    Traffic { packets: data.len() as u64, bytes: data.iter().map(|data| data.len() as u64).sum() }
}
