//! The server's own addresses: what a destination is before anything is sent to it. Data for one of them
//! never leaves the relay, and reaches nothing but a live allocation.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

use super::{
    address::{PeerAddr, RelayedAddr},
    config::Config,
    flow::Hairpin,
    ipv4_in_ipv6::nat64,
    policy::PeerPolicy,
};

/// What a transport address is to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// Somebody else's.
    Peer(PeerAddr),
    /// A relayed transport address of this server, whether anybody has it or not. Unless there are hairpins these are
    /// [`Own`](Self::Own), too.
    Relayed(RelayedAddr),
    /// Another transport address of this host: nothing for a TURN client.
    Own,
}

impl Destination {
    /// The peer and whether it is a hairpin; `None` for what is nobody's.
    pub(super) fn peer(self) -> Option<(PeerAddr, bool)> {
        match self {
            Self::Peer(peer) => Some((peer, false)),
            Self::Relayed(relayed) => Some((relayed.into(), true)),
            Self::Own => None,
        }
    }
}

/// The host's addresses, those to relay from, and the external addresses that these are mapped to.
#[derive(Debug)]
pub(super) struct OwnAddresses {
    host: HashSet<IpAddr>,
    host_networks: Vec<IpNet>,
    relay: Vec<IpAddr>,
    ports: RangeInclusive<u16>,
    external_of: HashMap<IpAddr, IpAddr>,
    relay_of: HashMap<IpAddr, IpAddr>,
    hairpin: bool,
}

impl OwnAddresses {
    pub(super) fn new(config: &Config) -> Self {
        let external_of = config.external_addresses.clone();
        let listeners = config.listeners.iter().map(SocketAddr::ip);
        let is_address = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        let (addresses, networks): (Vec<_>, _) = config.host_addresses.iter().copied().partition(is_address);
        Self {
            host: addresses.iter().map(IpNet::addr).chain(listeners).collect(),
            host_networks: networks,
            relay: config.relay_addresses.clone(),
            ports: config.relay_ports.clone(),
            relay_of: external_of.iter().map(|(&relay, &external)| (external, relay)).collect(),
            external_of,
            hairpin: config.hairpin,
        }
    }

    /// What `address` is. External forms of relayed addresses become the addresses themselves.
    pub(super) fn resolve(&self, address: SocketAddr) -> Destination {
        let ip = self.local_form(address.ip());
        if self.relay.contains(&ip) {
            if self.hairpin && self.ports.contains(&address.port()) {
                Destination::Relayed(RelayedAddr(SocketAddr::new(ip, address.port())))
            } else {
                Destination::Own
            }
        } else if self.is_host(ip) {
            Destination::Own
        } else {
            Destination::Peer(PeerAddr(address))
        }
    }

    /// The relay address that an external address stands for, else the address itself.
    pub(super) fn local_form(&self, ip: IpAddr) -> IpAddr {
        self.relay_of.get(&ip).copied().unwrap_or(ip)
    }

    /// Whether a client may have this address (in its local form) for a peer. Relay addresses may be one whatever the
    /// policy says: that is the hairpin, unless there is none.
    pub(super) fn permits_peer(&self, ip: IpAddr, policy: &PeerPolicy) -> bool {
        if self.relay.contains(&ip) { self.hairpin } else { !self.is_host(ip) && policy.permits(ip) }
    }

    /// What a flow from a relayed address to a peer (in its local form) or back must know of it, if it is a hairpin.
    pub(super) fn hairpin(&self, relayed: RelayedAddr, peer: IpAddr) -> Option<Hairpin> {
        self.relay.contains(&peer).then(|| Hairpin {
            advertised: self.advertised(relayed).ip(),
            alias: self.external_of.get(&peer).copied(),
        })
    }

    /// Whether packets to this address (in its local form) reach the host and are no hairpin: its own addresses,
    /// and what NAT64 makes one of ours.
    fn is_host(&self, ip: IpAddr) -> bool {
        let by_nat64 = nat64(ip).map(|ip| self.local_form(ip.into()));
        let has =
            |ip| self.host.contains(&ip) || self.host_networks.iter().any(|network| network.contains(&ip));
        has(ip) || by_nat64.is_some_and(|ip| has(ip) || self.relay.contains(&ip))
    }

    /// The external form of a relayed address, if it has one.
    pub(super) fn external(&self, RelayedAddr(relayed): RelayedAddr) -> Option<SocketAddr> {
        self.external_of.get(&relayed.ip()).map(|&ip| SocketAddr::new(ip, relayed.port()))
    }

    /// The relayed address as clients and peers are told.
    pub(super) fn advertised(&self, relayed: RelayedAddr) -> SocketAddr {
        self.external(relayed).unwrap_or(relayed.0)
    }
}
