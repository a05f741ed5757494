//! A client's view of the wire, written apart from the server's codec so that the two check each other.

use std::net::{IpAddr, SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

pub const BINDING: u16 = 0x001;
pub const ALLOCATE: u16 = 0x003;
pub const REFRESH: u16 = 0x004;
pub const SEND: u16 = 0x006;
pub const DATA: u16 = 0x007;
pub const CREATE_PERMISSION: u16 = 0x008;
pub const CHANNEL_BIND: u16 = 0x009;

pub const REQUEST: u16 = 0x000;
pub const INDICATION: u16 = 0x010;
pub const SUCCESS: u16 = 0x100;
pub const ERROR: u16 = 0x110;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// An attribute: type and value.
pub type Attribute = (u16, Vec<u8>);

pub fn requested_transport(protocol: u8) -> Attribute {
    (0x0019, vec![protocol, 0, 0, 0])
}

pub fn lifetime(seconds: u32) -> Attribute {
    (0x000d, seconds.to_be_bytes().to_vec())
}

pub fn even_port(bits: u8) -> Attribute {
    (0x0018, vec![bits])
}

pub fn requested_family(family: u8) -> Attribute {
    (0x0017, vec![family, 0, 0, 0])
}

pub fn additional_family(family: u8) -> Attribute {
    (0x8000, vec![family, 0, 0, 0])
}

pub fn channel_number(number: u16) -> Attribute {
    let [high, low] = number.to_be_bytes();
    (0x000c, vec![high, low, 0xff, 0xff])
}

pub fn data(data: &[u8]) -> Attribute {
    (0x0013, data.to_vec())
}

pub fn dont_fragment() -> Attribute {
    (0x001a, vec![])
}

pub fn software() -> Attribute {
    (0x8022, b"a test client".to_vec())
}

pub fn peer(address: &str) -> Attribute {
    peer_address(address.parse().unwrap())
}

/// XOR-PEER-ADDRESS. That an IPv6 address is XORed with the transaction ID too is [`Builder::attribute`]'s.
pub fn peer_address(address: SocketAddr) -> Attribute {
    let [high, low] = (address.port() ^ 0x2112).to_be_bytes();
    let value = match address.ip() {
        IpAddr::V4(ip) => {
            let mut value = vec![0, 1, high, low];
            value.extend(ip.octets().iter().zip(COOKIE).map(|(octet, mask)| octet ^ mask));
            value
        }
        IpAddr::V6(ip) => {
            let mut value = [&[0, 2, high, low][..], &ip.octets()].concat();
            value[4..8].iter_mut().zip(COOKIE).for_each(|(octet, mask)| *octet ^= mask);
            value
        }
    };
    (0x0012, value)
}

/// A message being built.
#[derive(Clone)]
pub struct Builder(Vec<u8>);

impl Builder {
    pub fn new(class: u16, method: u16, transaction: [u8; 12]) -> Self {
        // Methods up to 0x00f have their bits below the class bits.
        assert!(method < 0x10);
        let mut bytes = (class | method).to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(transaction);
        Self(bytes)
    }

    pub fn attribute(mut self, (kind, value): &Attribute) -> Self {
        self.0.extend(kind.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        if (*kind, value.len()) == (0x0012, 20) {
            let start = self.0.len() - 12;
            (0..12).for_each(|i| self.0[start + i] ^= self.0[8 + i]);
        }
        // Padding may have any value (STUN-126).
        self.0.resize(self.0.len().next_multiple_of(4), 0x20);
        self.with_length(0)
    }

    /// An attribute whose padding has this value.
    pub fn padded(self, attribute: &Attribute, padding: u8) -> Self {
        let end = self.0.len() + 4 + attribute.1.len();
        let mut message = self.attribute(attribute);
        message.0[end..].fill(padding);
        message
    }

    pub fn attributes(self, attributes: &[Attribute]) -> Self {
        attributes.iter().fold(self, Self::attribute)
    }

    pub fn credentials(self, username: &str, realm: &str, nonce: &[u8]) -> Self {
        self.attribute(&(0x0006, username.into()))
            .attribute(&(0x0014, realm.into()))
            .attribute(&(0x0015, nonce.into()))
    }

    pub fn integrity(self, key: &[u8]) -> Self {
        let counted = self.with_length(24);
        let mac = hmac_sha1(key, &counted.0);
        counted.attribute(&(0x0008, mac.to_vec()))
    }

    pub fn integrity_sha256(self, key: &[u8]) -> Self {
        let counted = self.with_length(36);
        let mac = hmac_sha256(key, &counted.0);
        counted.attribute(&(0x001c, mac.to_vec()))
    }

    pub fn fingerprint(self) -> Self {
        let counted = self.with_length(8);
        let crc = crc32fast::hash(&counted.0) ^ 0x5354_554e;
        counted.attribute(&(0x8028, crc.to_be_bytes().to_vec()))
    }

    pub fn build(self) -> Vec<u8> {
        self.0
    }

    fn with_length(mut self, more: usize) -> Self {
        let length = (self.0.len() - 20 + more) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
        self
    }
}

pub fn long_term_key(username: &str, realm: &str, password: &str) -> [u8; 16] {
    Md5::digest(format!("{username}:{realm}:{password}")).into()
}

pub fn long_term_key_sha256(username: &str, realm: &str, password: &str) -> [u8; 32] {
    Sha256::digest(format!("{username}:{realm}:{password}")).into()
}

pub fn userhash(username: &str, realm: &str) -> Attribute {
    (0x001e, Sha256::digest(format!("{username}:{realm}")).to_vec())
}

/// The password of a time-limited user name.
pub fn time_limited_password(secret: &str, username: &str) -> String {
    STANDARD.encode(hmac_sha1(secret.as_bytes(), username.as_bytes()))
}

fn hmac_sha256(key: &[u8], bytes: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

fn hmac_sha1(key: &[u8], bytes: &[u8]) -> [u8; 20] {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

/// A message from the server. Reading panics on anything that a server must not send.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub class: u16,
    pub method: u16,
    pub transaction: [u8; 12],
    pub attributes: Vec<Attribute>,
    pub len: usize,
    bytes: Vec<u8>,
}

impl Message {
    pub fn parse(bytes: &[u8]) -> Self {
        let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
        assert_eq!(kind & 0xc000, 0, "STUN-002");
        assert_eq!(bytes[4..8], COOKIE, "STUN-004");
        assert_eq!(u16::from_be_bytes([bytes[2], bytes[3]]) as usize, bytes.len() - 20);
        let mut attributes = Vec::new();
        let mut rest = &bytes[20..];
        while !rest.is_empty() {
            assert!(attributes.last().is_none_or(|&(kind, _)| kind != 0x8028), "FINGERPRINT is last");
            let kind = u16::from_be_bytes([rest[0], rest[1]]);
            let length = u16::from_be_bytes([rest[2], rest[3]]) as usize;
            let padded = length.next_multiple_of(4);
            assert!(rest[4 + length..4 + padded].iter().all(|&byte| byte == 0), "STUN-126: zero padding");
            if kind == 0x8028 {
                let crc = crc32fast::hash(&bytes[..bytes.len() - 8]) ^ 0x5354_554e;
                assert_eq!(rest[4..8], crc.to_be_bytes(), "STUN-047");
            }
            attributes.push((kind, rest[4..4 + length].to_vec()));
            rest = &rest[4 + padded..];
        }
        Self {
            class: kind & 0x110,
            method: kind & 0x00f,
            transaction: bytes[8..20].try_into().unwrap(),
            attributes,
            len: bytes.len(),
            bytes: bytes.to_vec(),
        }
    }

    pub fn attribute(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|&&(k, _)| k == kind).map(|(_, value)| &value[..])
    }

    pub fn has(&self, kind: u16) -> bool {
        self.attribute(kind).is_some()
    }

    pub fn is_success(&self) -> bool {
        self.class == SUCCESS
    }

    /// The error code, of an error response.
    pub fn error(&self) -> u16 {
        assert_eq!(self.class, ERROR, "{self:?}");
        let value = self.attribute(0x0009).expect("STUN-030: every error response has ERROR-CODE");
        assert_eq!(value[..2], [0, 0], "STUN-137");
        assert!((3..=6).contains(&value[2]) && value[3] < 100, "STUN-136");
        let reason = str::from_utf8(&value[4..]).unwrap();
        assert!(!reason.is_empty() && reason.chars().count() < 128, "STUN-031");
        value[2] as u16 * 100 + value[3] as u16
    }

    pub fn lifetime(&self) -> u32 {
        u32::from_be_bytes(self.attribute(0x000d).unwrap().try_into().unwrap())
    }

    pub fn address(&self, kind: u16) -> SocketAddr {
        self.addresses(kind)[0]
    }

    /// The addresses of every XORed address attribute of the type.
    pub fn addresses(&self, kind: u16) -> Vec<SocketAddr> {
        let of_kind = self.attributes.iter().filter(|&&(k, _)| k == kind);
        of_kind.map(|(_, value)| self.decode_address(value)).collect()
    }

    fn decode_address(&self, value: &[u8]) -> SocketAddr {
        let mask = [&COOKIE[..], &self.transaction].concat();
        let octet = |i: usize| value[4 + i] ^ mask[i];
        let ip = match (value[0], value[1], value.len()) {
            (0, 1, 8) => IpAddr::from(std::array::from_fn::<u8, 4, _>(octet)),
            (0, 2, 20) => IpAddr::from(std::array::from_fn::<u8, 16, _>(octet)),
            other => panic!("no address: {other:?}"),
        };
        SocketAddr::new(ip, u16::from_be_bytes([value[2], value[3]]) ^ 0x2112)
    }

    pub fn relayed(&self) -> SocketAddr {
        self.address(0x0016)
    }

    /// Whether MESSAGE-INTEGRITY, and no other, was made with this key.
    pub fn is_protected_by(&self, key: &[u8]) -> bool {
        let Some((counted, value)) = self.counted(0x0008) else { return false };
        !self.has(0x001c) && hmac_sha1(key, &counted)[..] == *value
    }

    /// Whether MESSAGE-INTEGRITY-SHA256, and no other, was made with this key.
    pub fn is_sha256_protected_by(&self, key: &[u8]) -> bool {
        let Some((counted, value)) = self.counted(0x001c) else { return false };
        !self.has(0x0008) && hmac_sha256(key, &counted)[..] == *value
    }

    /// What an integrity attribute covers, and its value.
    fn counted(&self, kind: u16) -> Option<(Vec<u8>, &[u8])> {
        let value = self.attribute(kind)?;
        let whole = [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat();
        let start = self.bytes.windows(whole.len()).position(|window| window == whole).unwrap();
        let mut counted = self.bytes[..start].to_vec();
        counted[2..4].copy_from_slice(&((start + whole.len() - 20) as u16).to_be_bytes());
        Some((counted, value))
    }
}

pub fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}
