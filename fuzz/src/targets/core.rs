//! The core: any sequence of what clients, peers and time may bring, authenticated requests among it so that
//! every state is reached. The driver in `pair` checks what every driver relies on; here, that nothing passes
//! without a live permission and that one datagram brings at most one.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use relay_user::turn::{OpenError, Output, Session};

use crate::{
    pair::{HOST_IP, Happened, LISTENER, OTHER_PASSWORD, OTHER_USER, PASSWORD, Pair, RELAY_IP, USER},
    wire::{self, Builder, Message},
};

const CLIENTS: u8 = 3;
const MAX_STEPS: usize = 100;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    FromClient { client: u8, bytes: &'a [u8] },
    Request { client: u8, method: Method, attributes: Vec<Attribute<'a>> },
    Indication { client: u8, attributes: Vec<Attribute<'a>> },
    ChannelData { client: u8, channel: u8, data: &'a [u8] },
    FromPeer { client: u8, peer: Address, data: &'a [u8] },
    Advance { seconds: u16 },
    Oversleep { seconds: u16 },
    SwitchUser { client: u8 },
    CannotOpen { other_would_do: bool },
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
    Family(bool),
    AdditionalFamily,
    DontFragment,
    Other(u16, &'a [u8]),
}

#[derive(Arbitrary, Debug)]
enum Address {
    Peer {
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

pub fn check(data: &[u8]) {
    let mut pair = Pair::with(|config| config.relay_ports = 50_000..=50_003);
    for client in 1..CLIENTS {
        pair.add_client(&format!("203.0.113.{}:4000", client + 1));
    }
    let mut input = Unstructured::new(data);
    for _ in 0..MAX_STEPS {
        let Ok(step) = input.arbitrary() else { break };
        take(&mut pair, &step);
        if input.is_empty() {
            break;
        }
    }
    let now = pair.now;
    pair.server.shutdown(now);
    pair.drain();
    assert!(pair.open.is_empty() && pair.flows.is_empty() && pair.server.poll_timeout().is_none());
}

fn take(pair: &mut Pair, step: &Step<'_>) {
    let which = |client: &u8| usize::from(client % CLIENTS);
    let happened = match step {
        Step::FromClient { client, bytes } => pair.deliver(which(client), bytes),
        Step::Request { client, method, attributes } => {
            let attributes: Vec<_> = attributes.iter().map(|attribute| attribute.written(pair)).collect();
            let request = pair.build(which(client), method.code(), &attributes);
            pair.deliver(which(client), &request)
        }
        Step::Indication { client, attributes } => {
            let attributes: Vec<_> = attributes.iter().map(|attribute| attribute.written(pair)).collect();
            let send = Builder::new(wire::INDICATION, wire::SEND, [1; 12]).attributes(&attributes);
            pair.deliver(which(client), &send.build())
        }
        Step::ChannelData { client, channel, data } => {
            pair.channel_data(which(client), number(*channel), data)
        }
        Step::FromPeer { client, peer, data } => {
            let peer = peer.resolve(pair).to_string();
            relayed(pair, which(client)).map_or_else(Happened::default, |to| pair.peer_sends(to, &peer, data))
        }
        Step::Advance { seconds } => pair.advance(Duration::from_secs((*seconds).into())),
        Step::Oversleep { seconds } => {
            pair.oversleep(Duration::from_secs((*seconds).into()));
            return;
        }
        Step::SwitchUser { client } => {
            let client = &mut pair.clients[which(client)];
            let users = [(USER, PASSWORD), (OTHER_USER, OTHER_PASSWORD)];
            (client.username, client.password) = users[usize::from(client.username == USER)];
            return;
        }
        Step::CannotOpen { other_would_do } => {
            let error = if *other_would_do { OpenError::Unavailable } else { OpenError::Other };
            pair.open_errors.push_back(error);
            return;
        }
    };
    justified(pair, &happened);
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

fn relayed(pair: &Pair, client: usize) -> Option<SocketAddr> {
    let five_tuple = pair.clients[client].five_tuple;
    let session = pair.server.sessions().find(|session| session.five_tuple == five_tuple)?;
    Some(session.relayed[0].address.0)
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
    fn written(&self, pair: &Pair) -> wire::Attribute {
        match self {
            Self::Udp => wire::requested_transport(17),
            Self::Lifetime(seconds) => wire::lifetime((*seconds).into()),
            Self::Channel(channel) => wire::channel_number(number(*channel)),
            Self::Peer(address) => wire::peer_address(address.resolve(pair)),
            Self::Data(data) => wire::data(data),
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
        let own = |ip: &str, port| SocketAddr::new(ip.parse().expect("an address"), port);
        match *self {
            Self::Peer { ip, port } => ([8, 8, 8, ip % 4], 5000 + u16::from(port % 3)).into(),
            Self::Relayed(client) => {
                relayed(pair, usize::from(client % CLIENTS)).unwrap_or(own(RELAY_IP, 50_000))
            }
            Self::Listener => LISTENER.parse().expect("an address"),
            Self::Host => own(HOST_IP, 53),
            Self::RelayIp(port) => own(RELAY_IP, port),
            Self::V4(ip, port) => (ip, port).into(),
            Self::V6(ip, port) => (ip, port).into(),
        }
    }
}
