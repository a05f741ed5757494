//! A client of the real thing, which speaks the protocol tests' wire format.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use relay_user::turn::Family;

use crate::{
    scene::{PASSWORD, REALM, Sender, USER},
    wire::{self, Attribute, Builder, Message},
};

const XOR_PEER_ADDRESS: u16 = 0x0012;
const ICMP: u16 = 0x8004;

pub struct Client {
    pub socket: Sender,
    pub server: SocketAddr,
    nonce: Vec<u8>,
}

fn transaction() -> [u8; 12] {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let mut transaction = [0x5a; 12];
    transaction[4..].copy_from_slice(&LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    transaction
}

pub fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let transaction = transaction();
    let attributes = [wire::peer_address(peer), wire::data(data)];
    Builder::new(wire::INDICATION, wire::SEND, transaction).attributes(&attributes).build()
}

impl Client {
    pub fn new(socket: Sender, server: SocketAddr) -> Self {
        Self { socket, server, nonce: Vec::new() }
    }

    pub fn allocate(&mut self, family: Family) -> SocketAddr {
        let attributes = [wire::requested_transport(17), wire::requested_family(family as u8)];
        let challenge = self.request(wire::ALLOCATE, &attributes);
        assert_eq!(challenge.error(), 401);
        self.nonce = challenge.attribute(0x0015).expect("a nonce").to_vec();
        let response = self.request(wire::ALLOCATE, &attributes);
        assert!(response.is_success(), "{response:?}");
        response.relayed()
    }

    pub fn channel_bind(&mut self, number: u16, peer: SocketAddr) {
        let attributes = [wire::channel_number(number), wire::peer_address(peer)];
        let response = self.request(wire::CHANNEL_BIND, &attributes);
        assert!(response.is_success(), "{response:?}");
    }

    /// The next Data indication: peer and ICMP attribute.
    pub fn icmp_indication(&self) -> (SocketAddr, Vec<u8>) {
        let message = Message::parse(&self.socket.receive());
        assert_eq!((message.class, message.method), (wire::INDICATION, wire::DATA));
        let icmp = message.attribute(ICMP).expect("an ICMP attribute").to_vec();
        (message.address(XOR_PEER_ADDRESS), icmp)
    }

    fn request(&mut self, method: u16, attributes: &[Attribute]) -> Message {
        let transaction = transaction();
        let mut request = Builder::new(wire::REQUEST, method, transaction).attributes(attributes);
        if !self.nonce.is_empty() {
            let key = wire::long_term_key(USER, REALM, PASSWORD);
            request = request.credentials(USER, REALM, &self.nonce).integrity(&key);
        }
        self.socket.send_to(&request.build(), self.server);
        let response = Message::parse(&self.socket.receive());
        assert_eq!(response.transaction, transaction);
        response
    }
}
