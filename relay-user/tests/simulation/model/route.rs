//! Where data must go (RFC 8656 sections 11 and 12.6).

use std::net::SocketAddr;

use relay_user::turn::{Family, FiveTuple};

use super::{Granted, Model, addresses::Peer};

/// Where data must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Nowhere,
    /// From a relayed address to a peer outside.
    ToPeer {
        relayed: SocketAddr,
        peer: SocketAddr,
    },
    /// Over a channel, or in a Data indication that shows the peer.
    ToClient {
        five_tuple: FiveTuple,
        channel: Option<u16>,
        shown: SocketAddr,
    },
}
impl Model {
    /// ChannelData from a client.
    pub fn route_channel(&self, from: FiveTuple, number: u16) -> Route {
        let channel = self.granted.get(&from).and_then(|granted| granted.channels.get(&number));
        channel.map_or(Route::Nowhere, |&(peer, _)| self.route_to_peer(from, peer))
    }

    /// A Send indication from a client.
    pub fn route_send(&self, from: FiveTuple, peer: SocketAddr) -> Route {
        if peer.port() == 0 { Route::Nowhere } else { self.route_to_peer(from, peer) }
    }

    fn route_to_peer(&self, from: FiveTuple, peer: SocketAddr) -> Route {
        let Some(granted) = self.granted.get(&from) else { return Route::Nowhere };
        let Some(relayed) = granted.relayed.get(&Family::of(peer.ip())) else { return Route::Nowhere };
        if granted.permission(self.local(peer.ip())).is_none() {
            return Route::Nowhere;
        }
        match self.peer(peer) {
            Peer::Outside => Route::ToPeer { relayed: relayed.address, peer },
            Peer::Hairpin(to) => self.deliver(to, relayed.address, self.advertised(relayed.address)),
            Peer::Forbidden => Route::Nowhere,
        }
    }

    /// A datagram from outside to a relayed address.
    pub fn route_from_peer(&self, relayed: SocketAddr, peer: SocketAddr) -> Route {
        let own = self.rules.relays.iter().any(|relay| [relay.ip, relay.external].contains(&peer.ip()));
        if own || self.rules.own.contains(&peer.ip()) {
            Route::Nowhere
        } else {
            self.deliver(relayed, peer, peer)
        }
    }

    /// An ICMP error for a datagram from a relayed address to a peer: whose client hears of it.
    pub fn route_icmp(&self, relayed: SocketAddr, peer: SocketAddr, kind: u8) -> Option<FiveTuple> {
        let is_told = if relayed.is_ipv4() { matches!(kind, 3 | 11) } else { matches!(kind, 1..=3) };
        let (&five_tuple, granted) = self.owner(relayed)?;
        (is_told && granted.permission(peer.ip()).is_some()).then_some(five_tuple)
    }

    fn owner(&self, relayed: SocketAddr) -> Option<(&FiveTuple, &Granted)> {
        let has = |granted: &Granted| granted.relayed.values().any(|own| own.address == relayed);
        self.granted.iter().find(|(_, granted)| has(granted))
    }

    fn deliver(&self, relayed: SocketAddr, peer: SocketAddr, shown: SocketAddr) -> Route {
        let Some((&five_tuple, granted)) = self.owner(relayed) else { return Route::Nowhere };
        if granted.permission(peer.ip()).is_none() {
            return Route::Nowhere;
        }
        let channel =
            granted.channels.iter().find(|(_, (bound, _))| *bound == peer).map(|(&number, _)| number);
        Route::ToClient { five_tuple, channel, shown }
    }
}
