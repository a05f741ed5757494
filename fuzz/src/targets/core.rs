//! The core: any sequence of what clients, peers and time may bring, authenticated requests among it so that
//! every state is reached. The driver in `pair` checks what every driver relies on; here, that nothing passes
//! without a live permission and that one datagram brings at most one.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use relay_user::turn::{
    Config, Family, IcmpError, IpMeta, OpenError, Output, PeerAddr, Received, RelayedAddr, ServerAddr,
    Session,
};

use crate::{
    pair::{
        Algorithm, Auth, HOST_IP, Happened, LISTENER, OTHER_PASSWORD, OTHER_USER, PASSWORD, Pair, RELAY_IP,
        USER,
    },
    wire::{self, Builder, Message},
};

const CLIENTS: [&str; 3] = ["203.0.113.1:4000", "203.0.113.2:4000", "[2a0a:3::1]:4000"];
const RELAY_IPV6: &str = "2a0a:1::1";
const LISTENER_IPV6: &str = "[2a0a:2::1]:3478";
const MAX_STEPS: usize = 100;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    strict: bool,
    limited: bool,
    steps: Vec<Step<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    FromClient { client: u8, meta: Meta, bytes: &'a [u8] },
    Request { client: u8, method: Method, attributes: Vec<Attribute<'a>> },
    Indication { client: u8, attributes: Vec<Attribute<'a>> },
    ChannelData { client: u8, channel: u8, meta: Meta, data: &'a [u8] },
    FromPeer { client: u8, peer: Address, meta: Meta, data: &'a [u8] },
    Icmp { client: u8, peer: Address, kind: u8, code: u8, mtu: u32 },
    TooBig { client: u8, meta: Meta, ipv6: bool, mtu: u32, payload: &'a [u8] },
    Advance { seconds: u16 },
    Oversleep { seconds: u16 },
    SwitchUser { client: u8 },
    SwitchAuth { client: u8, userhash: bool, algorithm: Option<bool>, sha256: bool },
    CannotOpen { other_would_do: bool },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Meta {
    ttl: Option<u8>,
    traffic_class: Option<u8>,
    dont_fragment: Option<bool>,
    fragmented: bool,
}

#[derive(Arbitrary, Debug)]
enum Method {
    Binding,
    Allocate,
    Refresh,
    CreatePermission,
    ChannelBind,
    Other(u8),
}

#[derive(Arbitrary, Debug)]
enum Attribute<'a> {
    Udp,
    Lifetime(u16),
    Channel(u8),
    Peer(Address),
    Data(&'a [u8]),
    EvenPort(bool),
    /// The last token that the server gave out.
    Token,
    Family(bool),
    AdditionalFamily,
    DontFragment,
    Other(u16, &'a [u8]),
}

#[derive(Arbitrary, Debug)]
enum Address {
    Peer {
        ipv6: bool,
        ip: u8,
        port: u8,
    },
    /// The relayed address of a client, if it has one.
    Relayed(u8),
    Listener,
    Host,
    RelayIp(u16),
    V4([u8; 4], u16),
    V6([u8; 16], u16),
}

/// The server with its clients, and the last token that it gave out.
struct World {
    pair: Pair,
    token: [u8; 8],
}

pub fn check(data: &[u8]) {
    let Ok(Input { strict, limited, steps }) = Unstructured::new(data).arbitrary() else { return };
    let mut world = World::new(strict, limited);
    for step in steps.iter().take(MAX_STEPS) {
        let happened = world.take(step);
        world.learn(&happened);
        justified(&world.pair, &happened);
        if !limited {
            // With a limit those who get no meter have none.
            assert_eq!(world.pair.flow_counts(), flow_counts(&world.pair), "{step:?}");
        }
    }
    let Pair { mut server, now, mut open, mut flows, .. } = world.pair;
    server.shutdown(now);
    while let Some(output) = server.poll_output() {
        match output {
            Output::CloseRelayed { relayed } => assert!(open.remove(&relayed)),
            Output::RemoveFlow(id) => assert!(flows.remove(&id).is_some()),
            Output::Event(_) => {}
            other => panic!("{other:?} at the end"),
        }
    }
    assert!(open.is_empty() && flows.is_empty() && server.poll_timeout().is_none());
}

impl World {
    fn new(strict: bool, limited: bool) -> Self {
        let mut pair = Pair::with(|config| configure(config, strict, limited));
        if limited {
            // For one of the two allocations that there may be: the first word is nobody's.
            pair.share_meters(2);
        }
        for (index, client) in CLIENTS.into_iter().enumerate() {
            if index > 0 {
                pair.add_client(client);
            }
            if pair.clients[index].five_tuple.client.0.is_ipv6() {
                pair.clients[index].five_tuple.server = ServerAddr(parse(LISTENER_IPV6));
            }
        }
        Self { pair, token: [0; 8] }
    }

    fn take(&mut self, step: &Step<'_>) -> Happened {
        let which = |client: &u8| usize::from(*client) % CLIENTS.len();
        match step {
            Step::FromClient { client, meta, bytes } => self.client_sends(which(client), *meta, bytes),
            Step::Request { client, method, attributes } => {
                let attributes: Vec<_> = attributes.iter().map(|attribute| attribute.written(self)).collect();
                let request = self.pair.build(which(client), method.code(), &attributes);
                self.pair.deliver(which(client), &request)
            }
            Step::Indication { client, attributes } => {
                let attributes: Vec<_> = attributes.iter().map(|attribute| attribute.written(self)).collect();
                let send = Builder::new(wire::INDICATION, wire::SEND, [1; 12]).attributes(&attributes);
                self.pair.deliver(which(client), &send.build())
            }
            Step::ChannelData { client, channel, meta, data } => {
                self.client_sends(which(client), *meta, &wire::channel_data(number(*channel), data))
            }
            Step::FromPeer { client, peer, meta, data } => {
                let peer = peer.resolve(&self.pair);
                if let Some(relayed) = relayed(&self.pair, which(client), peer.ip()) {
                    let now = self.pair.now;
                    self.pair.server.handle_peer(now, relayed, PeerAddr(peer), meta.known(peer.ip()), data);
                }
                self.pair.drain()
            }
            Step::Icmp { client, peer, kind, code, mtu } => {
                let peer = peer.resolve(&self.pair);
                if let Some(relayed) = relayed(&self.pair, which(client), peer.ip()) {
                    let error = IcmpError { peer: PeerAddr(peer), kind: *kind, code: *code, mtu: *mtu };
                    self.pair.server.handle_icmp(self.pair.now, relayed, error);
                }
                self.pair.drain()
            }
            Step::TooBig { client, meta, ipv6, mtu, payload } => {
                let five_tuple = self.pair.clients[which(client)].five_tuple;
                let (source, destination) = (five_tuple.client.0, five_tuple.server.0);
                let received = Received { source, destination, meta: meta.known(source.ip()), payload };
                let link = if *ipv6 { Family::V6 } else { Family::V4 };
                self.pair.server.handle_too_big(self.pair.now, &received, link, *mtu);
                self.pair.drain()
            }
            Step::Advance { seconds } => self.pair.advance(Duration::from_secs((*seconds).into())),
            Step::Oversleep { seconds } => {
                self.pair.oversleep(Duration::from_secs((*seconds).into()));
                Happened::default()
            }
            Step::SwitchUser { client } => {
                let client = &mut self.pair.clients[which(client)];
                let users = [(USER, PASSWORD), (OTHER_USER, OTHER_PASSWORD)];
                (client.username, client.password) = users[usize::from(client.username == USER)];
                Happened::default()
            }
            Step::SwitchAuth { client, userhash, algorithm, sha256 } => {
                let algorithm = algorithm.map(|md5| if md5 { Algorithm::Md5 } else { Algorithm::Sha256 });
                let auth = Auth { userhash: *userhash, algorithm, sha256: *sha256 };
                self.pair.clients[which(client)].auth = auth;
                Happened::default()
            }
            Step::CannotOpen { other_would_do } => {
                let error = if *other_would_do { OpenError::Unavailable } else { OpenError::Other };
                self.pair.open_errors.push_back(error);
                Happened::default()
            }
        }
    }

    fn client_sends(&mut self, client: usize, meta: Meta, datagram: &[u8]) -> Happened {
        let five_tuple = self.pair.clients[client].five_tuple;
        let meta = meta.known(five_tuple.client.0.ip());
        self.pair.server.handle_client(self.pair.now, five_tuple, meta, datagram);
        let happened = self.pair.drain();
        for (_, answer) in happened.to_client().filter(|(to, answer)| *to == five_tuple && answer[0] == 1) {
            let message = Message::parse(answer);
            let is_protected = message.has(0x0008) || message.has(0x001c);
            assert!(is_protected || answer.len() <= (3 * datagram.len()).max(160), "an amplifier");
        }
        happened
    }

    /// A client reads its answer: a new nonce, a token.
    fn learn(&mut self, happened: &Happened) {
        for (to, datagram) in happened.to_client().filter(|(_, datagram)| datagram[0] & 0xc0 == 0) {
            let message = Message::parse(datagram);
            if let Some(token) = message.attribute(0x0022) {
                self.token = token.try_into().expect("TURN-068");
            }
            if let Some(nonce) = message.attribute(0x0015)
                && let Some(client) = self.pair.clients.iter_mut().find(|client| client.five_tuple == to)
            {
                client.nonce = Some(nonce.to_vec());
            }
        }
    }
}

fn configure(config: &mut Config, strict: bool, limited: bool) {
    config.relay_ports = 50_000..=50_003;
    config.relay_addresses.push(parse(RELAY_IPV6));
    config.listeners.push(parse(LISTENER_IPV6));
    config.strict_permissions = strict;
    config.limits.unauthenticated_per_second = 0;
    if limited {
        config.limits.permissions = 2;
        config.limits.channels = 2;
        config.limits.allocations = 2;
        config.limits.bytes_per_second = 1000;
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a constant")
}

impl Meta {
    /// What can be known of a datagram of this family.
    fn known(self, source: IpAddr) -> IpMeta {
        let Self { ttl, traffic_class, dont_fragment, fragmented } = self;
        let dont_fragment = dont_fragment.filter(|_| source.is_ipv4());
        IpMeta { ttl, traffic_class, dont_fragment, fragmented }
    }
}

/// How many flows there must be: of allocations, of permissions, of channels.
fn flow_counts(pair: &Pair) -> [usize; 3] {
    let mut counts = [0; 3];
    for session in pair.server.sessions() {
        let has_permission = |ip| session.permissions.iter().any(|&(permitted, _)| permitted == ip);
        let channels = session.channels.iter().filter(|channel| has_permission(channel.peer.0.ip()));
        counts[0] += session.relayed.len();
        counts[1] += 2 * session.permissions.len();
        counts[2] += 2 * channels.count();
    }
    counts
}

/// Whatever carries data has a live permission, and there is little of it.
fn justified(pair: &Pair, happened: &Happened) {
    let sent =
        happened.outputs.iter().filter(|o| matches!(o, Output::ToClient { .. } | Output::ToPeer { .. }));
    assert!(sent.count() <= 1, "{happened:?}");
    for output in &happened.outputs {
        match output {
            Output::ToPeer { relayed, peer, .. } => {
                let mut sessions = pair.server.sessions();
                let has = |session: &Session| session.relayed.iter().any(|own| own.address == *relayed);
                let session = sessions.find(has).expect("a live allocation");
                assert!(permitted(pair, &session.permissions, peer.0.ip()), "{output:?}");
            }
            Output::ToClient { five_tuple, datagram, .. } => {
                let mut sessions = pair.server.sessions();
                let session = sessions.find(|session| session.five_tuple == *five_tuple);
                let peer = if datagram[0] & 0xc0 == 0x40 {
                    let session = session.as_ref().expect("ChannelData goes to an allocation's client");
                    let number = u16::from_be_bytes([datagram[0], datagram[1]]);
                    let channel = session.channels.iter().find(|channel| channel.number.get() == number);
                    channel.expect("a bound channel").peer.0
                } else {
                    let message = Message::parse(datagram);
                    if message.class != wire::INDICATION {
                        continue;
                    }
                    message.address(0x0012)
                };
                let session = session.expect("data goes to an allocation's client");
                assert!(permitted(pair, &session.permissions, peer.ip()), "{output:?}");
            }
            _ => {}
        }
    }
}

fn permitted(pair: &Pair, permissions: &[(IpAddr, u64)], ip: IpAddr) -> bool {
    permissions.iter().any(|&(permitted, until)| permitted == ip && until > pair.now)
}

/// The relayed address of a client that is of the family of `peer`, if it has one.
fn relayed(pair: &Pair, client: usize, peer: IpAddr) -> Option<RelayedAddr> {
    let five_tuple = pair.clients[client].five_tuple;
    let session = pair.server.sessions().find(|session| session.five_tuple == five_tuple)?;
    let mut addresses = session.relayed.into_iter().map(|relayed| relayed.address);
    addresses.find(|address| address.family() == Family::of(peer))
}

/// A channel number: mostly one of a few, so that they meet.
fn number(channel: u8) -> u16 {
    if channel < 0xf0 { 0x4000 + u16::from(channel % 4) } else { u16::from(channel) << 8 }
}

impl Method {
    fn code(&self) -> u16 {
        match self {
            Self::Binding => wire::BINDING,
            Self::Allocate => wire::ALLOCATE,
            Self::Refresh => wire::REFRESH,
            Self::CreatePermission => wire::CREATE_PERMISSION,
            Self::ChannelBind => wire::CHANNEL_BIND,
            Self::Other(code) => u16::from(code % 16),
        }
    }
}

impl Attribute<'_> {
    fn written(&self, world: &World) -> wire::Attribute {
        match self {
            Self::Udp => wire::requested_transport(17),
            Self::Lifetime(seconds) => wire::lifetime((*seconds).into()),
            Self::Channel(channel) => wire::channel_number(number(*channel)),
            Self::Peer(address) => wire::peer_address(address.resolve(&world.pair)),
            Self::Data(data) => wire::data(data),
            Self::Token => (0x0022, world.token.to_vec()),
            Self::EvenPort(reserve) => wire::even_port(if *reserve { 0x80 } else { 0 }),
            Self::Family(ipv6) => wire::requested_family(if *ipv6 { 2 } else { 1 }),
            Self::AdditionalFamily => wire::additional_family(2),
            Self::DontFragment => wire::dont_fragment(),
            Self::Other(kind, value) => (*kind, value.to_vec()),
        }
    }
}

impl Address {
    fn resolve(&self, pair: &Pair) -> SocketAddr {
        let own = |ip: &str, port| SocketAddr::new(parse(ip), port);
        match *self {
            Self::Peer { ipv6: false, ip, port } => ([8, 8, 8, ip % 4], 5000 + u16::from(port % 3)).into(),
            Self::Peer { ipv6: true, ip, port } => {
                ([0x2600, 0, 0, 0, 0, 0, 0, u16::from(ip % 4)], 5000 + u16::from(port % 3)).into()
            }
            Self::Relayed(client) => {
                let family = if client & 0x80 == 0 { RELAY_IP } else { RELAY_IPV6 };
                let relayed = relayed(pair, usize::from(client) % CLIENTS.len(), parse(family));
                relayed.map_or(own(family, 50_000), |RelayedAddr(relayed)| relayed)
            }
            Self::Listener => parse(LISTENER),
            Self::Host => own(HOST_IP, 53),
            Self::RelayIp(port) => own(RELAY_IP, port),
            Self::V4(ip, port) => (ip, port).into(),
            Self::V6(ip, port) => (ip, port).into(),
        }
    }
}
