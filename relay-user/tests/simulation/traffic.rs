//! Data between clients and peers, and what ICMP says of it.

use std::net::SocketAddr;

use rand::{RngExt, seq::IndexedRandom};
use relay_user::turn::{IcmpError, PeerAddr, RelayedAddr};

use crate::{
    check,
    clients::CHANNELS,
    kernel,
    model::Route,
    pair::Happened,
    wire::{self, Builder, Message},
    world::World,
};

impl World {
    pub fn channel_data(&mut self, client: usize) {
        let from = self.clients[client].five_tuple;
        let bound = self.bound(client);
        let number = match bound.choose(&mut self.rng) {
            Some(&(number, _)) if self.rng.random_bool(0.9) => number,
            _ => *CHANNELS.choose(&mut self.rng).unwrap(),
        };
        let route = self.model.route_channel(from, number);
        let fast = kernel::channel_data(self, from, number);
        check::fast_path_agrees(self, fast, &route);
        let happened = self.deliver(from, &wire::channel_data(number, b"data"));
        self.assert_routed(&route, &happened, "channel data");
    }

    pub fn send(&mut self, client: usize) {
        let from = self.clients[client].five_tuple;
        let (peer, transaction) = (self.permitted_peer(client), self.transaction());
        let send = Builder::new(wire::INDICATION, wire::SEND, transaction)
            .attributes(&[wire::peer_address(peer), wire::data(b"data")]);
        let route = self.model.route_send(from, peer);
        let fast = kernel::send(self, from, peer);
        check::fast_path_agrees(self, fast, &route);
        let happened = self.deliver(from, &send.build());
        self.assert_routed(&route, &happened, "send");
    }

    pub fn peer_sends(&mut self, client: usize) {
        let Some((relayed, peer)) = self.peer_of(client) else { return };
        let route = self.model.route_from_peer(relayed, peer);
        let fast = kernel::from_peer(self, relayed, peer);
        check::fast_path_agrees(self, fast, &route);
        let happened = self.pair.peer_sends(relayed, &peer.to_string(), b"data");
        self.assert_routed(&route, &happened, "from peer");
    }

    /// A router or the peer itself complains about data from a relayed address.
    pub fn icmp(&mut self, client: usize) {
        let Some((relayed, peer)) = self.peer_of(client) else { return };
        let error = IcmpError {
            peer: PeerAddr(peer),
            kind: *[1, 2, 3, 3, 4, 8, 11].choose(&mut self.rng).unwrap(),
            code: self.rng.random_range(0..5),
            mtu: 1400,
        };
        let route = self.model.route_icmp(relayed, peer, error.kind);
        self.pair.server.handle_icmp(self.pair.now, RelayedAddr(relayed), error);
        let happened = self.pair.drain();
        let Some(five_tuple) = route else {
            assert!(happened.is_silence(), "ICMP without a live permission: {happened:?}");
            return self.tally.count("icmp: dropped");
        };
        assert!(happened.to_client().all(|(to, _)| to == five_tuple), "TURN-142");
        let indication = Message::parse(happened.datagram());
        assert_eq!(
            (indication.class, indication.method),
            (wire::INDICATION, wire::DATA),
            "TURN-139, TURN-141"
        );
        assert_eq!(indication.address(0x0012), peer, "TURN-140");
        assert_eq!(indication.attribute(0x8004).unwrap()[2..4], [error.kind, error.code], "TURN-139");
        assert!(!indication.has(0x0013), "TURN-139");
        self.tally.count("icmp: to client");
    }

    /// A relayed address of a client, and a peer of the same family.
    fn peer_of(&mut self, client: usize) -> Option<(SocketAddr, SocketAddr)> {
        let peer = self.permitted_peer(client);
        let granted = self.model.granted.get(&self.clients[client].five_tuple)?;
        let mut relayed = granted.relayed.values().map(|relayed| relayed.address);
        relayed.find(|relayed| relayed.is_ipv4() == peer.is_ipv4()).map(|relayed| (relayed, peer))
    }

    fn assert_routed(&mut self, route: &Route, happened: &Happened, what: &str) {
        let how = match *route {
            Route::Nowhere => {
                assert!(happened.is_silence(), "data without a live permission: {happened:?}");
                "dropped"
            }
            Route::ToPeer { relayed, peer } => {
                assert_eq!(happened.to_peer(), (relayed, peer, &b"data"[..]));
                if peer.is_ipv4() { "to peer, IPv4" } else { "to peer, IPv6" }
            }
            Route::ToClient { five_tuple, channel: Some(number), .. } => {
                assert!(happened.to_client().all(|(to, _)| to == five_tuple));
                assert_eq!(happened.datagram(), wire::channel_data(number, b"data"));
                "to a client's channel"
            }
            Route::ToClient { five_tuple, channel: None, shown } => {
                assert!(happened.to_client().all(|(to, _)| to == five_tuple));
                assert_eq!(happened.data_indication(), (shown, b"data".to_vec()));
                "to a client in an indication"
            }
        };
        self.tally.count(&format!("{what}: {how}"));
    }
}
