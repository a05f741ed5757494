//! A server, its clients and their peers on a simulated network with a simulated clock, and a driver that
//! checks what every driver may rely on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ipnet::IpNet;
use rand::{SeedableRng, rngs::StdRng};
use relay_user::turn::{
    ClientAddr, Config, Credentials, Event, FiveTuple, Flow, FlowForm, FlowId, IpMeta, Lifetimes, Limits,
    OpenError, Output, PeerAddr, PeerPolicy, RelayedAddr, Server, ServerAddr, Transport,
};

use crate::wire::{self, Attribute, Builder, Message};

pub const REALM: &str = "example.org";
pub const USER: &str = "alice";
pub const PASSWORD: &str = "wonderland";
pub const OTHER_USER: &str = "bob";
pub const OTHER_PASSWORD: &str = "builder";
pub const LISTENER: &str = "198.51.100.1:3478";
pub const RELAY_IP: &str = "192.0.2.1";
/// An address of the host that no listener and no relayed address is on.
pub const HOST_IP: &str = "77.7.7.7";
pub const PEER: &str = "8.8.8.8:5000";
pub const CHANNEL: u16 = 0x4000;
/// What the server offers: SHA-256, then MD5, without parameters.
pub const PASSWORD_ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

pub const SECOND: u64 = 1_000_000_000;

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn config() -> Config {
    Config {
        realm: REALM.to_owned(),
        software: Some("Turnpike test".to_owned()),
        relay_addresses: vec![RELAY_IP.parse().unwrap()],
        relay_ports: 49_152..=65_535,
        external_addresses: HashMap::new(),
        listeners: vec![LISTENER.parse().unwrap()],
        host_addresses: vec![HOST_IP.parse::<IpAddr>().unwrap().into()],
        lifetimes: Lifetimes::default(),
        limits: Limits::default(),
        alternate_servers: Vec::new(),
        min_ipv6_mtu: 1280,
        strict_expiry: false,
        strict_permissions: false,
        hairpin: true,
        rfc5766_channels: false,
        policy: PeerPolicy::default(),
    }
}

/// One client and the server between it and its peers; more clients can be added.
pub struct Pair {
    pub server: Server,
    pub now: u64,
    pub clients: Vec<Client>,
    /// What a kernel would have installed.
    pub flows: BTreeMap<FlowId, Flow>,
    /// What a driver would have open.
    pub open: BTreeSet<RelayedAddr>,
    /// Answers to the next attempts to open a relayed address; success when there are none.
    pub open_errors: VecDeque<OpenError>,
    own_ips: BTreeSet<IpAddr>,
    realm: String,
}

pub struct Client {
    pub five_tuple: FiveTuple,
    pub username: &'static str,
    pub password: &'static str,
    pub nonce: Option<Vec<u8>>,
    pub auth: Auth,
    transactions: u64,
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth {
    /// USERHASH for USERNAME.
    pub userhash: bool,
    /// The password algorithm it names, and the server's offer with it.
    pub algorithm: Option<Algorithm>,
    /// MESSAGE-INTEGRITY-SHA256 for MESSAGE-INTEGRITY.
    pub sha256: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Md5 = 1,
    Sha256 = 2,
}

impl Auth {
    pub const RFC5389: Self = Self { userhash: false, algorithm: None, sha256: false };
    pub const RFC8489: Self = Self { userhash: true, algorithm: Some(Algorithm::Sha256), sha256: true };
}

/// What came of one input.
#[derive(Debug, Default)]
pub struct Happened {
    pub outputs: Vec<Output>,
}

impl Pair {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_users(change, |_| {})
    }

    /// Beside the usual users.
    pub fn with_users(change: impl FnOnce(&mut Config), add: impl FnOnce(&mut Credentials)) -> Self {
        let mut config = config();
        change(&mut config);
        let own_ips = config
            .relay_addresses
            .iter()
            .copied()
            .chain(config.external_addresses.values().copied())
            .chain(config.listeners.iter().map(SocketAddr::ip))
            .chain(config.host_addresses.iter().map(IpNet::addr))
            .collect();
        let realm = config.realm.clone();
        let mut credentials = Credentials::default();
        credentials.insert(USER, &config.realm, PASSWORD).unwrap();
        credentials.insert(OTHER_USER, &config.realm, OTHER_PASSWORD).unwrap();
        add(&mut credentials);
        let server = Server::new(config, credentials, [7; 32], StdRng::seed_from_u64(1)).unwrap();
        let mut pair = Self {
            server,
            now: 1_000 * SECOND,
            clients: Vec::new(),
            flows: BTreeMap::new(),
            open: BTreeSet::new(),
            open_errors: VecDeque::new(),
            own_ips,
            realm,
        };
        pair.add_client("203.0.113.1:4000");
        pair
    }

    /// Shares so many meters with a kernel, the first of which is nobody's. To be called at once.
    pub fn share_meters(&mut self, words: usize) -> Arc<Vec<AtomicU64>> {
        let words: Arc<Vec<_>> = Arc::new((0..words).map(|_| AtomicU64::new(0)).collect());
        self.server.share_meters(words.clone());
        words
    }

    /// A client of the first user; returns its number. The first one is there from the beginning.
    pub fn add_client(&mut self, address: &str) -> usize {
        let five_tuple = FiveTuple {
            client: ClientAddr(address.parse().unwrap()),
            server: ServerAddr(LISTENER.parse().unwrap()),
            transport: Transport::Udp,
        };
        self.clients.push(Client {
            five_tuple,
            username: USER,
            password: PASSWORD,
            nonce: None,
            auth: Auth::RFC5389,
            transactions: 0,
        });
        self.clients.len() - 1
    }

    // The driver.

    /// Gives the server a datagram from a client.
    pub fn deliver(&mut self, client: usize, datagram: &[u8]) -> Happened {
        let five_tuple = self.clients[client].five_tuple;
        self.server.handle_client(self.now, five_tuple, IpMeta::default(), datagram);
        let happened = self.drain();
        for (to, answer) in happened.to_client() {
            // ChannelData and Data indications come from hairpins, which need an allocation.
            let is_protected = |message: Message| message.has(0x0008) || message.has(0x001c);
            if answer[0] & 0x41 == 0x01 && !is_protected(Message::parse(answer)) {
                assert_eq!(to, five_tuple);
                let most = (3 * datagram.len()).max(160);
                assert!(answer.len() <= most, "{} bytes for {}", answer.len(), datagram.len());
            }
        }
        happened
    }

    /// Gives the server a datagram from a peer.
    pub fn peer_sends(&mut self, relayed: SocketAddr, peer: &str, data: &[u8]) -> Happened {
        let peer = PeerAddr(peer.parse().unwrap());
        self.server.handle_peer(self.now, RelayedAddr(relayed), peer, IpMeta::default(), data);
        self.drain()
    }

    /// Lets time pass, as a driver that is never late sees it.
    pub fn advance(&mut self, duration: Duration) -> Happened {
        let end = self.now + duration.as_nanos() as u64;
        let mut happened = Happened::default();
        while let Some(deadline) = self.server.poll_timeout().filter(|&deadline| deadline <= end) {
            self.now = self.now.max(deadline);
            self.server.handle_timeout(self.now);
            happened.outputs.extend(self.drain().outputs);
            assert!(
                self.server.poll_timeout().is_none_or(|next| next > self.now),
                "poll_timeout is in the past"
            );
        }
        self.now = end;
        happened
    }

    /// Lets time pass while the driver sleeps.
    pub fn oversleep(&mut self, duration: Duration) {
        self.now += duration.as_nanos() as u64;
    }

    pub fn drain(&mut self) -> Happened {
        let mut happened = Happened::default();
        while let Some(output) = self.server.poll_output() {
            match &output {
                Output::OpenRelayed { relayed, .. } => {
                    let relayed = *relayed;
                    assert!(!self.open.contains(&relayed), "TURN-026: {relayed} is somebody's");
                    let result = self.open_errors.pop_front().map_or(Ok(()), Err);
                    if result.is_ok() {
                        self.open.insert(relayed);
                    }
                    self.server.relayed_address_opened(self.now, relayed, result);
                }
                Output::CloseRelayed { relayed } => {
                    assert!(self.open.remove(relayed), "{relayed} is not open");
                    let left = self.flows.keys().find(|flow| flow.relayed == *relayed);
                    assert_eq!(left, None, "a flow outlives its relayed address");
                }
                Output::InstallFlow(flow) => {
                    assert!(flow.expires > self.now, "a flow is installed that has expired");
                    assert!(self.open.contains(&flow.id.relayed));
                    self.flows.insert(flow.id, *flow);
                }
                Output::RemoveFlow(id) => {
                    assert!(self.flows.remove(id).is_some(), "a flow is removed that was not installed");
                }
                Output::ToPeer { relayed, peer, .. } => {
                    assert!(self.open.contains(relayed), "data leaves from a closed relayed address");
                    assert!(!self.own_ips.contains(&peer.0.ip()), "data leaves for an address of our own");
                }
                Output::ToClient { .. } | Output::Icmp(_) | Output::Event(_) => {}
            }
            happened.outputs.push(output);
        }
        happened
    }

    // The clients.

    /// Sends a request with credentials, after a first one without if there is no nonce yet.
    pub fn request(&mut self, client: usize, method: u16, attributes: &[Attribute]) -> Message {
        let request = self.build(client, method, attributes);
        self.exchange(client, &request)
    }

    /// A request as [`request`](Self::request) would send it.
    pub fn build(&mut self, client: usize, method: u16, attributes: &[Attribute]) -> Vec<u8> {
        if self.clients[client].nonce.is_none() {
            let stranger = Builder::new(wire::REQUEST, wire::ALLOCATE, self.transaction(client)).build();
            let challenge = self.exchange(client, &stranger);
            assert_eq!(challenge.error(), 401);
            self.clients[client].nonce = Some(challenge.attribute(0x0015).unwrap().to_vec());
        }
        let transaction = self.transaction(client);
        let key = self.key_of(client);
        let Client { username, ref nonce, auth, .. } = self.clients[client];
        let mut request = Builder::new(wire::REQUEST, method, transaction)
            .attributes(attributes)
            .attribute(&(0x0014, self.realm.clone().into()))
            .attribute(&(0x0015, nonce.clone().unwrap()))
            .attribute(&if auth.userhash {
                wire::userhash(username, &self.realm)
            } else {
                (0x0006, username.into())
            });
        if let Some(algorithm) = auth.algorithm {
            request = request
                .attribute(&(0x8002, PASSWORD_ALGORITHMS.to_vec()))
                .attribute(&(0x001d, vec![0, algorithm as u8, 0, 0]));
        }
        if auth.sha256 { request.integrity_sha256(&key) } else { request.integrity(&key) }.build()
    }

    /// Sends a request and returns its response, having checked what holds for each.
    pub fn exchange(&mut self, client: usize, request: &[u8]) -> Message {
        let happened = self.deliver(client, request);
        let responses: Vec<_> = happened.to_client().collect();
        let [(five_tuple, response)] = responses[..] else {
            panic!("STUN-039: one response, not {}", responses.len());
        };
        assert_eq!(five_tuple, self.clients[client].five_tuple, "STUN-036, TURN-082");
        let response = Message::parse(response);
        assert_eq!(response.transaction, request[8..20], "STUN-009");
        assert_eq!(response.method, u16::from_be_bytes([request[0], request[1]]), "STUN-034");
        assert!(response.is_success() || response.class == wire::ERROR, "STUN-034");
        assert!(response.len < 548, "STUN-017");
        response
    }

    pub fn transaction(&mut self, client: usize) -> [u8; 12] {
        let state = &mut self.clients[client];
        state.transactions += 1;
        let mut transaction = [client as u8; 12];
        transaction[4..].copy_from_slice(&state.transactions.to_be_bytes());
        transaction
    }

    pub fn key_of(&self, client: usize) -> Vec<u8> {
        let Client { username, password, auth, .. } = self.clients[client];
        match auth.algorithm {
            Some(Algorithm::Sha256) => wire::long_term_key_sha256(username, &self.realm, password).to_vec(),
            Some(Algorithm::Md5) | None => wire::long_term_key(username, &self.realm, password).to_vec(),
        }
    }

    pub fn allocate(&mut self, client: usize) -> SocketAddr {
        let response = self.request(client, wire::ALLOCATE, &[wire::requested_transport(17)]);
        assert!(response.is_success(), "{response:?}");
        response.relayed()
    }

    pub fn refresh(&mut self, client: usize, lifetime: u32) -> Message {
        self.request(client, wire::REFRESH, &[wire::lifetime(lifetime)])
    }

    pub fn permit(&mut self, client: usize, peer: &str) -> Message {
        self.request(client, wire::CREATE_PERMISSION, &[wire::peer(peer)])
    }

    pub fn bind(&mut self, client: usize, number: u16, peer: &str) -> Message {
        self.request(client, wire::CHANNEL_BIND, &[wire::channel_number(number), wire::peer(peer)])
    }

    pub fn channel_data(&mut self, client: usize, number: u16, data: &[u8]) -> Happened {
        self.deliver(client, &wire::channel_data(number, data))
    }

    pub fn send_indication(&mut self, client: usize, attributes: &[Attribute]) -> Happened {
        let transaction = self.transaction(client);
        let message = Builder::new(wire::INDICATION, wire::SEND, transaction).attributes(attributes).build();
        self.deliver(client, &message)
    }

    pub fn send(&mut self, client: usize, peer: &str, data: &[u8]) -> Happened {
        self.send_indication(client, &[wire::peer(peer), wire::data(data)])
    }

    // What can be seen.

    /// How many flows are installed: of allocations, of permissions, of channels.
    pub fn flow_counts(&self) -> [usize; 3] {
        let count = |is: fn(&FlowForm) -> bool| self.flows.keys().filter(|id| is(&id.form)).count();
        [
            count(|form| matches!(form, FlowForm::Allocation)),
            count(|form| matches!(form, FlowForm::Permission { .. })),
            count(|form| matches!(form, FlowForm::Channel { .. })),
        ]
    }

    pub fn drops(&self, reason: &str) -> u64 {
        self.server.drops().find(|&(name, _)| name == reason).expect("a reason there is").1
    }
}

impl Happened {
    pub fn to_client(&self) -> impl Iterator<Item = (FiveTuple, &[u8])> {
        self.outputs.iter().filter_map(|output| match output {
            Output::ToClient { five_tuple, datagram, .. } => Some((*five_tuple, &datagram[..])),
            _ => None,
        })
    }

    /// The one datagram that went to a client.
    pub fn datagram(&self) -> &[u8] {
        let datagrams: Vec<_> = self.to_client().collect();
        let [(_, datagram)] = datagrams[..] else { panic!("one datagram to a client, not {self:?}") };
        datagram
    }

    /// The one datagram that went to a peer: from, to, data.
    pub fn to_peer(&self) -> (SocketAddr, SocketAddr, &[u8]) {
        let mut sent = self.outputs.iter().filter_map(|output| match output {
            Output::ToPeer { relayed, peer, data, .. } => Some((relayed.0, peer.0, &data[..])),
            _ => None,
        });
        let (Some(first), None) = (sent.next(), sent.next()) else {
            panic!("one datagram to a peer, not {self:?}");
        };
        first
    }

    /// The one datagram to a client, which is a Data indication: peer and data.
    pub fn data_indication(&self) -> (SocketAddr, Vec<u8>) {
        let message = Message::parse(self.datagram());
        assert_eq!((message.class, message.method), (wire::INDICATION, wire::DATA));
        (message.address(0x0012), message.attribute(0x0013).unwrap().to_vec())
    }

    /// Nothing was sent to anybody.
    pub fn is_silence(&self) -> bool {
        !self.outputs.iter().any(|o| matches!(o, Output::ToClient { .. } | Output::ToPeer { .. }))
    }

    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.outputs.iter().filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        })
    }
}
