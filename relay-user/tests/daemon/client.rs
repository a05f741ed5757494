//! A TURN client (RFC 8489, RFC 8656) that is as small as can be, and shares no code with the server.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;

use crate::daemon::udp_socket;

pub(crate) const BINDING: u16 = 0x001;
pub(crate) const ALLOCATE: u16 = 0x003;
pub(crate) const REFRESH: u16 = 0x004;
pub(crate) const CREATE_PERMISSION: u16 = 0x008;
pub(crate) const CHANNEL_BIND: u16 = 0x009;
const SEND_INDICATION: u16 = 0x016;
const DATA_INDICATION: u16 = 0x017;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const CHANNEL_NUMBER: u16 = 0x000c;
const LIFETIME: u16 = 0x000d;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const XOR_RELAYED_ADDRESS: u16 = 0x0016;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

const COOKIE: u32 = 0x2112_a442;

pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    pub(crate) user: String,
    server: SocketAddrV4,
    requests: u32,
    realm: Vec<u8>,
    nonce: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) length: usize,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Client {
    pub(crate) fn new(address: Ipv4Addr, server: SocketAddrV4) -> Self {
        Self::with_socket(udp_socket(address), server)
    }

    pub(crate) fn with_socket(socket: UdpSocket, server: SocketAddrV4) -> Self {
        Self { socket, user: "alice".to_owned(), server, requests: 0, realm: Vec::new(), nonce: Vec::new() }
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        match self.socket.local_addr().unwrap() {
            std::net::SocketAddr::V4(address) => address,
            std::net::SocketAddr::V6(_) => unreachable!("bound to IPv4"),
        }
    }

    /// Learns realm and nonce from a 401 and allocates.
    pub(crate) fn allocate(&mut self) -> SocketAddrV4 {
        let challenge = self.request(ALLOCATE, &[udp_transport()], None);
        assert_eq!(challenge.error(), Some(401), "{challenge:?}");
        self.learn(&challenge);
        let response = self.request(ALLOCATE, &[udp_transport()], Some("secret"));
        assert_eq!(response.error(), None, "{response:?}");
        response.address(XOR_RELAYED_ADDRESS).unwrap()
    }

    pub(crate) fn learn(&mut self, challenge: &Message) {
        self.realm = challenge.find(REALM).unwrap().to_vec();
        self.nonce = challenge.find(NONCE).unwrap().to_vec();
    }

    pub(crate) fn refresh(&mut self, lifetime: u32) -> Message {
        self.request(REFRESH, &[(LIFETIME, lifetime.to_be_bytes().to_vec())], Some("secret"))
    }

    pub(crate) fn create_permission(&mut self, peer: SocketAddrV4) -> Message {
        self.request(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, xor_address(peer))], Some("secret"))
    }

    pub(crate) fn bind_channel(&mut self, number: u16, peer: SocketAddrV4) -> Message {
        let channel = (u32::from(number) << 16).to_be_bytes().to_vec();
        self.request(
            CHANNEL_BIND,
            &[(CHANNEL_NUMBER, channel), (XOR_PEER_ADDRESS, xor_address(peer))],
            Some("secret"),
        )
    }

    /// Sends a request and returns the response to it.
    pub(crate) fn request(
        &mut self,
        method: u16,
        attributes: &[(u16, Vec<u8>)],
        password: Option<&str>,
    ) -> Message {
        let mut attributes = attributes.to_vec();
        let key = password.map(|password| {
            let realm = String::from_utf8(self.realm.clone()).unwrap();
            Md5::digest(format!("{}:{realm}:{password}", self.user))
        });
        if key.is_some() {
            attributes.push((USERNAME, self.user.clone().into_bytes()));
            attributes.push((REALM, self.realm.clone()));
            attributes.push((NONCE, self.nonce.clone()));
        }
        let mut message = self.message(method, &attributes);
        if let Some(key) = key {
            let length = (message.len() - 20 + 24) as u16;
            message[2..4].copy_from_slice(&length.to_be_bytes());
            let mac = Hmac::<Sha1>::new_from_slice(&key).unwrap().chain_update(&message).finalize();
            append(&mut message, MESSAGE_INTEGRITY, &mac.into_bytes());
        }
        self.socket.send_to(&message, self.server).unwrap();
        loop {
            let received = self.receive();
            if received.len() >= 20 && received[4..20] == message[4..20] {
                return Message::parse(&received);
            }
        }
    }

    /// Sends data in a Send indication.
    pub(crate) fn send_indication(&mut self, peer: SocketAddrV4, data: &[u8]) {
        let attributes = [(XOR_PEER_ADDRESS, xor_address(peer)), (DATA, data.to_vec())];
        let message = self.message(SEND_INDICATION, &attributes);
        self.socket.send_to(&message, self.server).unwrap();
    }

    /// Receives a Data indication.
    pub(crate) fn data_indication(&self) -> (SocketAddrV4, Vec<u8>) {
        let message = Message::parse(&self.receive());
        assert_eq!(message.kind, DATA_INDICATION);
        (message.address(XOR_PEER_ADDRESS).unwrap(), message.find(DATA).unwrap().to_vec())
    }

    /// Sends data as ChannelData.
    pub(crate) fn send_channel(&self, number: u16, data: &[u8]) {
        let header = [number.to_be_bytes(), (data.len() as u16).to_be_bytes()].concat();
        self.socket.send_to(&[&header, data].concat(), self.server).unwrap();
    }

    /// Receives ChannelData.
    pub(crate) fn channel_data(&self) -> (u16, Vec<u8>) {
        let received = self.receive();
        let word = |at: usize| u16::from_be_bytes([received[at], received[at + 1]]);
        let length = usize::from(word(2));
        (word(0), received[4..4 + length].to_vec())
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, self.server.into());
        buffer.truncate(length);
        buffer
    }

    fn message(&mut self, kind: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        self.requests += 1;
        let mut message = [kind.to_be_bytes(), [0, 0]].concat();
        message.extend(COOKIE.to_be_bytes());
        message.extend([0x5a; 8]);
        message.extend(self.requests.to_be_bytes());
        for (kind, value) in attributes {
            append(&mut message, *kind, value);
        }
        message
    }
}

impl Message {
    fn parse(datagram: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
        let mut attributes = Vec::new();
        let mut at = 20;
        while at < datagram.len() {
            let length = usize::from(word(at + 2));
            attributes.push((word(at), datagram[at + 4..at + 4 + length].to_vec()));
            at += 4 + length.next_multiple_of(4);
        }
        Self { kind: word(0), length: datagram.len(), attributes }
    }

    fn find(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(k, _)| *k == kind).map(|(_, value)| value.as_slice())
    }

    /// The code of an error response.
    pub(crate) fn error(&self) -> Option<u16> {
        let value = self.find(ERROR_CODE)?;
        Some(u16::from(value[2]) * 100 + u16::from(value[3]))
    }

    pub(crate) fn mapped_address(&self) -> Option<SocketAddrV4> {
        self.address(XOR_MAPPED_ADDRESS)
    }

    fn address(&self, kind: u16) -> Option<SocketAddrV4> {
        let value = self.find(kind)?;
        let port = u16::from_be_bytes([value[2], value[3]]) ^ (COOKIE >> 16) as u16;
        let ip = u32::from_be_bytes([value[4], value[5], value[6], value[7]]) ^ COOKIE;
        Some(SocketAddrV4::new(ip.into(), port))
    }
}

pub(crate) fn udp_transport() -> (u16, Vec<u8>) {
    (REQUESTED_TRANSPORT, vec![17, 0, 0, 0])
}

fn xor_address(address: SocketAddrV4) -> Vec<u8> {
    let mut value = vec![0, 1];
    value.extend((address.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
    value.extend((u32::from(*address.ip()) ^ COOKIE).to_be_bytes());
    value
}

/// Adds an attribute and sets the header's length accordingly.
fn append(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let length = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}
