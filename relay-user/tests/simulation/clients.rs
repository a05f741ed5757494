//! What clients ask for: mostly what makes sense, now and then what does not.

use std::net::{IpAddr, SocketAddr};

use rand::{RngExt, seq::IndexedRandom};
use relay_user::turn::Family;

use crate::{
    ask::{Allocate, Ask, Flaw, Sent},
    world::{USERS, World},
};

pub const CHANNELS: [u16; 4] = [0x4000, 0x4001, 0x4002, 0x4fff];

/// Addresses that are no peers, whatever the port.
const FORBIDDEN: [&str; 16] = [
    "127.0.0.1:80",
    "10.0.0.1:80",
    "0.0.0.0:80",
    "224.0.0.1:80",
    "169.254.169.254:80",
    "192.0.2.1:22",
    "77.7.7.7:53",
    "198.51.100.1:3478",
    "[::]:80",
    "[::1]:80",
    "[fe80::1]:80",
    "[::ffff:127.0.0.1]:80",
    "[64:ff9b::7f00:1]:80",
    "[2002:7f00:1::1]:80",
    "[2a0a:1::1]:22",
    "[2a0a:2::1]:3478",
];

impl World {
    /// A client does what clients do, now and then badly.
    pub fn act(&mut self, client: usize) {
        let Some(mut by) = self.clients[client].sender() else { return self.ask_for_a_nonce(client) };
        let families = self.model.granted.get(&by.five_tuple).map_or(0, |granted| granted.relayed.len());
        let has = families > 0;
        let ask = match self.rng.random_range(0..100) {
            0..3 => Ask::Binding,
            3..10 => self.allocate(),
            10..95 if !has => self.allocate(),
            10..25 => Ask::Refresh { lifetime: self.lifetime(), family: self.family(0.15) },
            25..33 => {
                let family = self.family(if families > 1 { 0.8 } else { 0.1 });
                Ask::Refresh { lifetime: Some(0), family }
            }
            33..62 => {
                let peers = *[0, 1, 1, 1, 1, 1, 2, 3].choose(&mut self.rng).unwrap();
                Ask::CreatePermission { peers: (0..peers).map(|_| self.peer(client)).collect() }
            }
            _ => self.channel_bind(client),
        };
        let flaw =
            if self.rng.random_bool(0.1) { *Flaw::ALL.choose(&mut self.rng).unwrap() } else { Flaw::None };
        if self.rng.random_bool(0.03) {
            by.user = USERS.choose(&mut self.rng).unwrap();
        }
        let sent = Sent::new(by, self.transaction(), ask, flaw);
        self.network(sent, client);
    }

    pub fn allocate(&mut self) -> Ask {
        let lifetime = self.lifetime();
        let token = self.token.filter(|_| self.rng.random_bool(0.2));
        let serves_ipv4 = self.model.rules.relays[0].ip.is_ipv4();
        let family = match token {
            Some(_) => self.family(0.05),
            None if !serves_ipv4 && self.rng.random_bool(0.9) => Some(2),
            None => self.family(0.3),
        };
        let rng = &mut self.rng;
        let transport = match rng.random_range(0..100) {
            0 => None,
            1 => Some(6),
            _ => Some(17),
        };
        let likely = if token.is_some() { 0.05 } else { 0.2 };
        let even = rng.random_bool(likely).then(|| rng.random());
        let likely = if token.is_some() || family.is_some() || even == Some(true) { 0.05 } else { 0.4 };
        let additional = rng.random_bool(likely).then(|| if rng.random_bool(0.95) { 2 } else { 1 });
        let dont_fragment = rng.random_bool(0.1);
        Ask::Allocate(Allocate { transport, lifetime, family, additional, even, token, dont_fragment })
    }

    fn lifetime(&mut self) -> Option<u32> {
        match self.rng.random_range(0..6) {
            0..3 => None,
            3 => Some(u32::MAX),
            4 => Some(1),
            _ => Some(self.rng.random_range(1..5000)),
        }
    }

    fn family(&mut self, probability: f64) -> Option<u8> {
        self.rng.random_bool(probability).then(|| *[1, 1, 1, 2, 2, 2, 7].choose(&mut self.rng).unwrap())
    }

    fn channel_bind(&mut self, client: usize) -> Ask {
        let bound = self.bound(client);
        let (number, peer) = match self.rng.random_range(0..10) {
            0..3 if !bound.is_empty() => *bound.choose(&mut self.rng).unwrap(),
            0..8 => {
                let is_free = |number: &u16| bound.iter().all(|b| b.0 != *number);
                let free: Vec<_> = CHANNELS.into_iter().filter(is_free).collect();
                (free.choose(&mut self.rng).copied().unwrap_or(CHANNELS[0]), self.peer(client))
            }
            8 => (self.rng.random(), self.peer(client)),
            _ => (*CHANNELS.choose(&mut self.rng).unwrap(), self.peer(client)),
        };
        let is_given = |world: &mut Self| world.rng.random_bool(0.98);
        Ask::ChannelBind { number: is_given(self).then_some(number), peer: is_given(self).then_some(peer) }
    }

    /// The channels that a client has bound, and to whom.
    pub fn bound(&self, client: usize) -> Vec<(u16, SocketAddr)> {
        let granted = self.model.granted.get(&self.clients[client].five_tuple);
        let channels = granted.into_iter().flat_map(|granted| &granted.channels);
        channels.map(|(&number, &(peer, _))| (number, peer)).collect()
    }

    /// A peer outside, a relayed address of this server, or an address that is no peer; mostly of a family that
    /// the client has a relayed address of.
    pub fn peer(&mut self, client: usize) -> SocketAddr {
        let granted = self.model.granted.get(&self.clients[client].five_tuple);
        let families: Vec<_> =
            granted.into_iter().flat_map(|granted| granted.relayed.keys().copied()).collect();
        let family = match families.choose(&mut self.rng) {
            Some(&family) if self.rng.random_bool(0.95) => family,
            _ => *Family::ALL.choose(&mut self.rng).unwrap(),
        };
        match self.rng.random_range(0..20) {
            0..12 => {
                let last = self.rng.random_range(1..4u8);
                let ip = match family {
                    Family::V4 => [8, 8, 8, last].into(),
                    Family::V6 => [0x2600, 0, 0, 0, 0, 0, 0, last.into()].into(),
                };
                SocketAddr::new(ip, self.peer_port(ip))
            }
            12..18 => {
                let relays = &self.model.rules.relays;
                let same = relays.iter().find(|relay| Family::of(relay.ip) == family);
                let relay = *same.unwrap_or(&relays[0]);
                let ip = if self.rng.random() { relay.ip } else { relay.external };
                SocketAddr::new(ip, self.peer_port(ip))
            }
            18 => ([8, 8, 8, 8], 0).into(),
            _ => FORBIDDEN.choose(&mut self.rng).unwrap().parse().unwrap(),
        }
    }

    /// A peer that a client has a permission for, mostly.
    pub fn permitted_peer(&mut self, client: usize) -> SocketAddr {
        let granted = self.model.granted.get(&self.clients[client].five_tuple);
        let relayed = granted.into_iter().flat_map(|granted| granted.relayed.values());
        let ips: Vec<_> = relayed.flat_map(|relayed| relayed.permissions.keys().copied()).collect();
        match ips.choose(&mut self.rng) {
            Some(&ip) if self.rng.random_bool(0.7) => SocketAddr::new(ip, self.peer_port(ip)),
            _ => self.peer(client),
        }
    }

    fn peer_port(&mut self, ip: IpAddr) -> u16 {
        let is_relay = self.model.rules.relays.iter().any(|relay| [relay.ip, relay.external].contains(&ip));
        if is_relay {
            self.rng.random_range(self.model.rules.ports.clone())
        } else {
            5000 + self.rng.random_range(0..2)
        }
    }
}
