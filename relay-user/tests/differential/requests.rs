//! What clients ask of the server.

use std::net::SocketAddr;

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use relay_user::turn::{IpMeta, Output};

use crate::{
    wire::{self, Attribute, Builder, Message},
    world::{PASSWORD, REALM, SECOND, USER, World},
};

impl World<'_> {
    /// Time passes, and the clients ask for what they want.
    pub fn live(&mut self, rng: &mut StdRng) {
        self.driver.catch_up();
        self.driver.change_paths(rng);
        for client in 0..self.clients.len() {
            self.advance(rng.random_range(0..3 * SECOND));
            if self.clients[client].relayed.is_empty() || rng.random_bool(0.1) {
                self.allocate(rng, client);
            } else if rng.random_bool(0.3) {
                self.refresh(rng, client);
            }
        }
        for client in 0..self.clients.len() {
            for _ in 0..rng.random_range(0..5) {
                self.advance(rng.random_range(0..SECOND));
                let peer = self.peer(rng);
                self.request(client, wire::CREATE_PERMISSION, &[wire::peer_address(peer)]);
            }
            for _ in 0..rng.random_range(0..4) {
                self.advance(rng.random_range(0..SECOND));
                let most = if self.rfc5766_channels { 0x7fff } else { 0x4fff };
                let number = if rng.random() {
                    rng.random_range(0x4000..=most)
                } else {
                    rng.random_range(0x4000..0x4004)
                };
                let peer = self.peer(rng);
                self.bind(client, number, peer);
                if rng.random() {
                    self.bind_back(client, number, peer);
                }
            }
        }
        // Words that were handed out anew begin anew.
        self.driver.copy_meters();
    }

    fn bind(&mut self, client: usize, number: u16, peer: SocketAddr) {
        self.request(client, wire::CHANNEL_BIND, &[wire::channel_number(number), wire::peer_address(peer)]);
    }

    /// Whose relayed address `peer` is binds a channel to the client's.
    fn bind_back(&mut self, client: usize, number: u16, peer: SocketAddr) {
        let is_peer = |relayed: &SocketAddr| {
            *relayed == peer
                || self.external.get(&relayed.ip()) == Some(&peer.ip()) && relayed.port() == peer.port()
        };
        let other = self.clients.iter().position(|client| client.relayed.iter().any(is_peer));
        let mut own = self.clients[client].relayed.iter();
        let own = own.find(|relayed| relayed.is_ipv4() == peer.is_ipv4()).copied();
        if let (Some(other), Some(own)) = (other, own) {
            self.bind(other, number, own);
        }
    }

    /// Perhaps one client has more to send than the others, and more than it may.
    pub fn choose_busy(&mut self, rng: &mut StdRng) {
        let client = self.clients.choose(rng).filter(|_| rng.random_bool(0.12));
        self.busy = client.map(|client| client.five_tuple);
    }

    fn allocate(&mut self, rng: &mut StdRng, client: usize) {
        let mut attributes = vec![wire::requested_transport(17), wire::lifetime(rng.random_range(1..1000))];
        match rng.random_range(0..4) {
            0 => attributes.push(wire::requested_family(1)),
            1 => attributes.push(wire::requested_family(2)),
            _ => attributes.push(wire::additional_family(2)),
        }
        let Some(response) = self.request(client, wire::ALLOCATE, &attributes) else { return };
        if response.is_success() {
            let five_tuple = self.clients[client].five_tuple;
            let sessions: Vec<_> = self.server.sessions().filter(|s| s.five_tuple == five_tuple).collect();
            self.clients[client].relayed = sessions
                .iter()
                .flat_map(|session| &session.relayed)
                .map(|relayed| relayed.address.0)
                .collect();
        }
    }

    fn refresh(&mut self, rng: &mut StdRng, client: usize) {
        let lifetime = if rng.random_bool(0.3) { 0 } else { rng.random_range(1..1000) };
        let mut attributes = vec![wire::lifetime(lifetime)];
        if rng.random_bool(0.3) {
            attributes.push(wire::requested_family(rng.random_range(1..3)));
        }
        self.request(client, wire::REFRESH, &attributes);
        if !self.server.sessions().any(|s| s.five_tuple == self.clients[client].five_tuple) {
            self.clients[client].relayed.clear();
        }
    }

    /// A request with credentials, and its response.
    fn request(&mut self, client: usize, method: u16, attributes: &[Attribute]) -> Option<Message> {
        if self.clients[client].nonce.is_empty() {
            let stranger = Builder::new(wire::REQUEST, wire::ALLOCATE, self.transaction(client)).build();
            let challenge = self.exchange(client, &stranger)?;
            self.clients[client].nonce = challenge.attribute(0x0015).unwrap().to_vec();
        }
        let request = self.build(client, method, attributes);
        self.exchange(client, &request)
    }

    /// A request that the server may grant.
    pub fn build(&mut self, client: usize, method: u16, attributes: &[Attribute]) -> Vec<u8> {
        let transaction = self.transaction(client);
        Builder::new(wire::REQUEST, method, transaction)
            .attributes(attributes)
            .credentials(USER, REALM, &self.clients[client].nonce)
            .integrity(&wire::long_term_key(USER, REALM, PASSWORD))
            .build()
    }

    fn exchange(&mut self, client: usize, request: &[u8]) -> Option<Message> {
        let five_tuple = self.clients[client].five_tuple;
        self.server.handle_client(self.now, five_tuple, IpMeta::default(), request);
        let mut sent = Vec::new();
        self.drain(Some(&mut sent));
        sent.iter().find_map(|output| match output {
            Output::ToClient { five_tuple: to, datagram, .. } if *to == five_tuple => {
                Some(Message::parse(datagram))
            }
            _ => None,
        })
    }

    fn transaction(&mut self, client: usize) -> [u8; 12] {
        let state = &mut self.clients[client];
        state.transactions += 1;
        let mut transaction = [client as u8; 12];
        transaction[4..].copy_from_slice(&state.transactions.to_be_bytes());
        transaction
    }
}
