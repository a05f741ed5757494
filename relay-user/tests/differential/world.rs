//! A server in some state, and the maps that its driver has filled accordingly.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use relay_common::meter::Rate;
use relay_user::{
    net::next_hop::Tag,
    turn::{
        ClientAddr, Config, Credentials, FiveTuple, Lifetimes, Limits, Output, PeerPolicy, Server,
        ServerAddr, Transport,
    },
};

use crate::{
    driver::Driver,
    program::{INTERFACES, METERS, Program, SERVED_LISTENER, SERVED_PORTS},
    receive::{Endpoint, Host},
};

pub const REALM: &str = "example.org";
pub const USER: &str = "alice";
pub const PASSWORD: &str = "wonderland";

pub const SECOND: u64 = 1_000_000_000;
/// Later than the clock of any machine that the tests run on.
const BEGINNING: u64 = 100_000_000 * SECOND;

/// Interfaces that the program may send on, mostly.
pub const SENDING: usize = 3;

/// A server with its clients, and the driver of its datapath.
pub struct World<'a> {
    pub server: Server,
    pub now: u64,
    pub driver: Driver<'a>,
    pub clients: Vec<Client>,
    /// Addresses of peers, of both families.
    pub peers: Vec<IpAddr>,
    pub relays: Vec<IpAddr>,
    pub external: HashMap<IpAddr, IpAddr>,
    pub listeners: Vec<SocketAddr>,
    pub ports: RangeInclusive<u16>,
    pub rfc5766_channels: bool,
    pub min_ipv6_mtu: u16,
    /// The daemon has died: its sockets are gone.
    pub daemon_gone: bool,
    pub macs: [Option<[u8; 6]>; INTERFACES],
    pub vlans: Vec<Vlan>,
    /// Most data is this client's, and much.
    pub busy: Option<FiveTuple>,
}

/// A VLAN device on an interface.
#[derive(Clone, Debug)]
pub struct Vlan {
    pub ingress: usize,
    pub tags: [Option<Tag>; 2],
    pub mac: [u8; 6],
}

pub struct Client {
    pub five_tuple: FiveTuple,
    pub nonce: Vec<u8>,
    pub transactions: u64,
    pub relayed: Vec<SocketAddr>,
}

/// The server's own words of its meters: what the kernel's must come out as.
struct Words(Vec<AtomicU64>);

impl AsRef<[AtomicU64]> for Words {
    fn as_ref(&self) -> &[AtomicU64] {
        &self.0
    }
}

impl<'a> World<'a> {
    /// The world of this seed, before its first phase.
    pub fn new(program: &'a mut Program, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let families = *[&[4, 6][..], &[4, 6], &[4, 6], &[4], &[6]].choose(rng).unwrap();
        let mut relays: Vec<IpAddr> = families.iter().map(|&family| address(rng, family, 1)).collect();
        if rng.random_bool(0.2) {
            let family = *families.choose(rng).unwrap();
            relays.push(address(rng, family, 2));
        }
        let mut external = HashMap::new();
        for &relay in &relays {
            if rng.random_bool(0.4) {
                external.insert(relay, address(rng, version(relay), 3));
            }
        }
        let daemon_gone = rng.random_bool(0.03);
        let (listener_port, ports) = if daemon_gone {
            (SERVED_LISTENER + 1, *SERVED_PORTS.start() + 1000..=*SERVED_PORTS.end() + 1000)
        } else {
            (SERVED_LISTENER, SERVED_PORTS)
        };
        // Clients come by either family, whatever is relayed.
        let listeners: Vec<SocketAddr> = [4, 6]
            .map(|family| {
                let shared = relays.iter().find(|&&relay| version(relay) == family);
                let ip = match shared {
                    Some(&relay) if rng.random_bool(0.4) => relay,
                    _ => address(rng, family, 4),
                };
                SocketAddr::new(ip, listener_port)
            })
            .into();

        let limits = if rng.random_bool(0.35) {
            let bytes_per_second = 10u64.pow(rng.random_range(4..8)) * rng.random_range(1..10);
            Limits { bytes_per_second, burst: rng.random_range(0..150_000), ..Limits::default() }
        } else {
            Limits::default()
        };
        let min_ipv6_mtu = *[1280, 1280, 1400, 1500].choose(rng).unwrap();
        let rfc5766_channels = rng.random_bool(0.3);
        let lifetime = |rng: &mut StdRng, longest: u64| Duration::from_secs(rng.random_range(2..=longest));
        let config = Config {
            realm: REALM.to_owned(),
            software: None,
            relay_addresses: relays.clone(),
            relay_ports: ports.clone(),
            external_addresses: external.clone(),
            listeners: listeners.clone(),
            host_addresses: Vec::new(),
            lifetimes: Lifetimes {
                default: lifetime(rng, 600),
                max: Duration::from_secs(3600),
                permission: lifetime(rng, 300),
                channel: lifetime(rng, 600),
                nonce: Duration::from_secs(3600),
            },
            limits: Limits { unauthenticated_per_second: 0, ..limits },
            alternate_servers: Vec::new(),
            min_ipv6_mtu,
            strict_expiry: false,
            strict_permissions: rng.random(),
            rfc5766_channels,
            hairpin: rng.random_bool(0.9),
            policy: PeerPolicy::default(),
        };
        let rate = Rate::new(limits.bytes_per_second.max(1), burst(&limits));
        program.set_limits(rate, min_ipv6_mtu);

        let mut credentials = Credentials::default();
        credentials.insert(USER, REALM, PASSWORD).unwrap();
        let mut server = Server::new(config, credentials, rng.random(), StdRng::from_rng(rng)).unwrap();
        let meters = if rng.random_bool(0.2) { rng.random_range(1..4) } else { METERS };
        let words = Arc::new(Words((0..meters).map(|_| AtomicU64::new(0)).collect()));
        server.share_meters(words.clone());

        let macs = std::array::from_fn(|place| (place < SENDING).then(|| mac(rng)));
        let vlans = vlans(rng);
        let mut driver = Driver::new(program, words, rng.random());
        driver.set_interfaces(&macs, &vlans);
        for &listener in &listeners {
            driver.add_listener(listener);
        }
        let peers = [4, 4, 4, 6, 6, 6].map(|family| address(rng, family, 5)).into();
        let mut world = Self {
            server,
            now: BEGINNING,
            driver,
            clients: Vec::new(),
            peers,
            relays,
            external,
            listeners,
            ports,
            rfc5766_channels,
            min_ipv6_mtu,
            daemon_gone,
            macs,
            vlans,
            busy: None,
        };
        for _ in 0..rng.random_range(3..7) {
            world.add_client(rng);
        }
        world
    }

    fn add_client(&mut self, rng: &mut StdRng) {
        let server = *self.listeners.choose(rng).unwrap();
        // Some clients are on a peer's host, some behind one NAT.
        let same: Vec<_> = self.clients.iter().map(|client| client.five_tuple.client.0.ip()).collect();
        let ip = match rng.random_range(0..6) {
            0 => same.choose(rng).copied(),
            1 => self.peers.choose(rng).copied(),
            _ => None,
        };
        let ip = ip.filter(|ip| ip.is_ipv4() == server.is_ipv4());
        let ip = ip.unwrap_or_else(|| address(rng, version(server.ip()), 6));
        let five_tuple = FiveTuple {
            client: ClientAddr(SocketAddr::new(ip, rng.random_range(1024..=65535))),
            server: ServerAddr(server),
            transport: Transport::Udp,
        };
        self.clients.push(Client { five_tuple, nonce: Vec::new(), transactions: 0, relayed: Vec::new() });
    }

    /// Somebody to talk to: a peer, or another client's or the same client's relayed address by either name.
    pub fn peer(&self, rng: &mut impl rand::Rng) -> SocketAddr {
        if rng.random_bool(0.55) {
            return SocketAddr::new(*self.peers.choose(rng).unwrap(), self.peer_port(rng));
        }
        let relayed: Vec<_> = self.clients.iter().flat_map(|client| &client.relayed).copied().collect();
        let relayed = match relayed.choose(rng) {
            Some(&relayed) if rng.random_bool(0.9) => relayed,
            _ => SocketAddr::new(*self.relays.choose(rng).unwrap(), rng.random_range(self.ports.clone())),
        };
        match self.external.get(&relayed.ip()) {
            Some(&external) if rng.random() => SocketAddr::new(external, relayed.port()),
            _ => relayed,
        }
    }

    pub fn peer_port(&self, rng: &mut impl rand::Rng) -> u16 {
        if rng.random_bool(0.7) { rng.random_range(6000..6003) } else { rng.random_range(1..=65535) }
    }

    /// Lets time pass.
    pub fn advance(&mut self, nanos: u64) {
        self.now += nanos;
        self.server.handle_timeout(self.now);
        self.drain(None);
    }

    /// Has the driver do what the server wants done. What is to be sent goes to `sent`.
    pub fn drain(&mut self, mut sent: Option<&mut Vec<Output>>) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::OpenRelayed { relayed, .. } => {
                    self.driver.open_relayed(relayed);
                    self.server.relayed_address_opened(self.now, relayed, Ok(()));
                }
                Output::ToClient { .. } | Output::ToPeer { .. } => {
                    if let Some(sent) = &mut sent {
                        sent.push(output);
                    }
                }
                Output::Icmp(_) | Output::Event(_) => {}
                Output::CloseRelayed { .. } | Output::InstallFlow(_) | Output::RemoveFlow(_) => {
                    self.driver.apply(output);
                }
            }
        }
    }

    /// The same from the datapath's side: the driver is late, and what has ended is still in the maps.
    pub fn begin_delay(&mut self) {
        self.driver.delay();
    }
}

impl Host for World<'_> {
    fn mac(&self, ingress: usize, tags: [Option<Tag>; 2]) -> Option<[u8; 6]> {
        if tags == [None; 2] {
            return self.macs[ingress];
        }
        // No tag but the outer one says of which kind it is.
        let same = |vlan: &&Vlan| vlan.ingress == ingress && vlan.tags == tags;
        self.vlans.iter().find(same).map(|vlan| vlan.mac)
    }

    fn endpoint(&self, address: SocketAddr) -> Option<Endpoint> {
        self.driver.endpoint(address)
    }
}

/// What the configuration means by its burst: a quarter of a second's worth unless it is set.
const fn burst(limits: &Limits) -> u64 {
    if limits.burst == 0 { limits.bytes_per_second / 4 } else { limits.burst }
}

/// An address that anybody may be a peer under; `place` keeps those of different use apart.
fn address(rng: &mut StdRng, version: u8, place: u8) -> IpAddr {
    if version == 4 {
        // 8.0.0.0/8 and the like: no special-purpose network.
        let octets: [u8; 3] = rng.random();
        Ipv4Addr::new(10 * place + 11, octets[0], octets[1], octets[2]).into()
    } else {
        let segments: [u16; 6] = rng.random();
        let [a, b, c, d, e, f] = segments;
        // Now and then the middle is zero, as in addresses that people write.
        let [b, c, d] = if rng.random() { [0; 3] } else { [b, c, d | 1] };
        Ipv6Addr::new(0x2a00 + u16::from(place), a, b, c, d, 1, e, f).into()
    }
}

pub const fn version(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 6,
    }
}

pub fn mac(rng: &mut impl rand::Rng) -> [u8; 6] {
    let mut mac: [u8; 6] = rng.random();
    // Locally administered, of one station.
    mac[0] = mac[0] & 0xfc | 2;
    mac
}

fn vlans(rng: &mut StdRng) -> Vec<Vlan> {
    let mut vlans: Vec<Vlan> = Vec::new();
    for ingress in 0..SENDING {
        for count in [1, 1, 2] {
            let outer = Tag { id: rng.random_range(1..4095), service: rng.random_bool(0.3) };
            let inner = (count == 2).then(|| Tag { id: rng.random_range(1..4095), service: false });
            let tags = [Some(outer), inner];
            if vlans.iter().all(|vlan| vlan.ingress != ingress || vlan.tags != tags) {
                vlans.push(Vlan { ingress, tags, mac: mac(rng) });
            }
        }
    }
    vlans
}
