//! A client of the real thing, which speaks the protocol tests' wire format.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
};

use relay_user::turn::Family;

use crate::{
    scene::{PASSWORD, REALM, Sender, USER},
    wire::{self, Attribute, Builder, Message},
};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const XOR_PEER_ADDRESS: u16 = 0x0012;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
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

fn xor_address(address: SocketAddr, transaction: [u8; 12]) -> Attribute {
    let [high, low] = (address.port() ^ 0x2112).to_be_bytes();
    let mask = [&COOKIE[..], &transaction].concat();
    let (family, octets) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut value = vec![0, family, high, low];
    value.extend(octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
    (XOR_PEER_ADDRESS, value)
}

fn address(message: &Message, kind: u16) -> SocketAddr {
    let value = message.attribute(kind).expect("the address is there");
    let mask = [&COOKIE[..], &message.transaction].concat();
    let port = u16::from_be_bytes([value[2], value[3]]) ^ 0x2112;
    let ip: IpAddr = match value[1] {
        1 => Ipv4Addr::from_octets(std::array::from_fn(|i| value[4 + i] ^ mask[i])).into(),
        _ => Ipv6Addr::from_octets(std::array::from_fn(|i| value[4 + i] ^ mask[i])).into(),
    };
    SocketAddr::new(ip, port)
}

pub fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let transaction = transaction();
    let attributes = [xor_address(peer, transaction), wire::data(data)];
    Builder::new(wire::INDICATION, wire::SEND, transaction).attributes(&attributes).build()
}

impl Client {
    pub fn new(socket: Sender, server: SocketAddr) -> Self {
        Self { socket, server, nonce: Vec::new() }
    }

    pub fn allocate(&mut self, family: Family) -> SocketAddr {
        let attributes = |_| vec![wire::requested_transport(17), wire::requested_family(family as u8)];
        let challenge = self.request(wire::ALLOCATE, attributes);
        assert_eq!(challenge.error(), 401);
        self.nonce = challenge.attribute(0x0015).expect("a nonce").to_vec();
        let response = self.request(wire::ALLOCATE, attributes);
        assert!(response.is_success(), "{response:?}");
        address(&response, XOR_RELAYED_ADDRESS)
    }

    pub fn channel_bind(&mut self, number: u16, peer: SocketAddr) {
        let attributes = |transaction| vec![wire::channel_number(number), xor_address(peer, transaction)];
        let response = self.request(wire::CHANNEL_BIND, attributes);
        assert!(response.is_success(), "{response:?}");
    }

    /// The next Data indication: peer and ICMP attribute.
    pub fn icmp_indication(&self) -> (SocketAddr, Vec<u8>) {
        let message = Message::parse(&self.socket.receive());
        assert_eq!((message.class, message.method), (wire::INDICATION, wire::DATA));
        let icmp = message.attribute(ICMP).expect("an ICMP attribute").to_vec();
        (address(&message, XOR_PEER_ADDRESS), icmp)
    }

    fn request(&mut self, method: u16, attributes: impl Fn([u8; 12]) -> Vec<Attribute>) -> Message {
        let transaction = transaction();
        let mut request =
            Builder::new(wire::REQUEST, method, transaction).attributes(&attributes(transaction));
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
