//! What addresses are to this server, and which of its own are free.

use std::net::{IpAddr, SocketAddr};

use relay_user::turn::Family;

use super::Model;

/// What a transport address is to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Outside,
    /// A relayed transport address, in its form on the host.
    Hairpin(SocketAddr),
    Forbidden,
}
impl Model {
    pub(super) fn peer(&self, address: SocketAddr) -> Peer {
        let local = self.local_form(address);
        if self.rules.relays.iter().any(|relay| relay.ip == local.ip()) {
            if self.rules.hairpin && self.rules.ports.contains(&local.port()) {
                Peer::Hairpin(local)
            } else {
                Peer::Forbidden
            }
        } else if self.permits(address.ip()) {
            Peer::Outside
        } else {
            Peer::Forbidden
        }
    }

    /// In these worlds, hosts outside are at addresses that begin with 8 or 2600.
    pub(super) fn permits(&self, ip: IpAddr) -> bool {
        let is_outside = match ip {
            IpAddr::V4(ip) => ip.octets()[0] == 8,
            IpAddr::V6(ip) => ip.segments()[0] == 0x2600,
        };
        let mut relays = self.rules.relays.iter();
        is_outside || self.rules.hairpin && relays.any(|relay| [relay.ip, relay.external].contains(&ip))
    }

    pub(super) fn local_form(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.local(address.ip()), address.port())
    }

    /// A relay address for its external form, else the address itself.
    pub(super) fn local(&self, ip: IpAddr) -> IpAddr {
        let relay = self.rules.relays.iter().find(|relay| relay.external == ip);
        relay.map_or(ip, |relay| relay.ip)
    }

    /// A relayed address as clients and peers are told.
    pub fn advertised(&self, relayed: SocketAddr) -> SocketAddr {
        let relay = self.rules.relays.iter().find(|relay| relay.ip == relayed.ip());
        relay.map_or(relayed, |relay| SocketAddr::new(relay.external, relayed.port()))
    }

    pub(super) fn has_free_port(&self, family: Family, even: Option<bool>) -> bool {
        let mut relays = self.rules.relays.iter().filter(|relay| Family::of(relay.ip) == family);
        relays.any(|relay| {
            let is_free = |port| self.is_free(SocketAddr::new(relay.ip, port));
            let mut ports = self.rules.ports.clone();
            ports.any(|port| match even {
                None => is_free(port),
                Some(false) => port.is_multiple_of(2) && is_free(port),
                Some(true) => port.is_multiple_of(2) && is_free(port) && is_free(port + 1),
            })
        })
    }

    pub(super) fn is_free(&self, address: SocketAddr) -> bool {
        let taken = self.granted.values().flat_map(|granted| granted.relayed.values());
        self.rules.ports.contains(&address.port())
            && !taken.map(|relayed| relayed.address).any(|taken| taken == address)
            && !self.reservations.values().any(|held| held.address == address)
    }
}
