//! What clients send and get: ChannelData and the indications, byte by byte from RFC 8656 and RFC 8489, without the
//! daemon's codec.

use std::net::{IpAddr, SocketAddr};

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const SEND_INDICATION: u16 = 0x0016;
const DATA_INDICATION: u16 = 0x0017;

pub const XOR_PEER_ADDRESS: u16 = 0x0012;
pub const DATA: u16 = 0x0013;
pub const DONT_FRAGMENT: u16 = 0x001a;
pub const SOFTWARE: u16 = 0x8022;
pub const FINGERPRINT: u16 = 0x8028;

/// Where the transaction ID lies in a STUN message.
pub const TRANSACTION_ID: std::ops::Range<usize> = 8..20;
/// Bytes of the STUN header.
pub const STUN_HEADER_LEN: usize = 20;

/// ChannelData without padding.
pub fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(number.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
    message
}

/// A Send indication as most clients make it.
pub fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    Indication::send().xor_peer_address(peer).attribute(DATA, data).bytes
}

/// The Data indication that the server makes, with a transaction ID of zeroes.
pub fn data_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    let indication =
        Indication { bytes: header(DATA_INDICATION, [0; 12]), padding: 0, transaction_id: [0; 12] };
    indication.xor_peer_address(peer).attribute(DATA, data).bytes
}

/// Gives a message of [`data_indication`] the transaction ID of `other`, which nobody can foretell. An IPv6 peer's address
/// is XORed with it.
pub fn adopt_transaction_id(message: &mut [u8], other: &[u8]) {
    const ADDRESS_LEN: usize = STUN_HEADER_LEN + 3;
    const ADDRESS: std::ops::Range<usize> = 32..44;
    if !message.starts_with(&DATA_INDICATION.to_be_bytes()) || message[4..8] != MAGIC_COOKIE {
        return;
    }
    let Some(new) = other.get(TRANSACTION_ID) else { return };
    let old = message[TRANSACTION_ID].to_vec();
    message[TRANSACTION_ID].copy_from_slice(new);
    if message[ADDRESS_LEN] == 20 {
        for ((octet, old), new) in message[ADDRESS].iter_mut().zip(old).zip(new) {
            *octet ^= old ^ new;
        }
    }
}

/// An indication that grows attribute by attribute; its length field is always right.
#[derive(Clone, Debug)]
pub struct Indication {
    pub bytes: Vec<u8>,
    /// What attributes are padded with: any value (RFC 8489 section 14).
    pub padding: u8,
    pub transaction_id: [u8; 12],
}

impl Indication {
    /// A Send indication without attributes.
    pub fn send() -> Self {
        let transaction_id = *b"\x9bSend_ind\x80\xff\x01";
        Self { bytes: header(SEND_INDICATION, transaction_id), padding: 0, transaction_id }
    }

    pub fn xor_peer_address(self, peer: SocketAddr) -> Self {
        let value = self.xor(peer);
        self.attribute(XOR_PEER_ADDRESS, &value)
    }

    pub fn attribute(self, kind: u16, value: &[u8]) -> Self {
        let padding = vec![self.padding; value.len().next_multiple_of(4) - value.len()];
        let mut attribute = Vec::new();
        attribute.extend(kind.to_be_bytes());
        attribute.extend((value.len() as u16).to_be_bytes());
        attribute.extend(value);
        attribute.extend(padding);
        self.raw(&attribute)
    }

    /// Appends bytes and counts them in the message's length.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        let len = (self.bytes.len() - STUN_HEADER_LEN) as u16;
        self.bytes[2..4].copy_from_slice(&len.to_be_bytes());
        self
    }

    /// FINGERPRINT, right or wrong (RFC 8489 section 14.7).
    pub fn fingerprint(self, right: bool) -> Self {
        // It covers the length field as it is with itself.
        let with = self.clone().attribute(FINGERPRINT, &[0; 4]).bytes;
        let checksum = crc32fast::hash(&with[..self.bytes.len()]) ^ 0x5354_554e ^ u32::from(!right);
        self.attribute(FINGERPRINT, &checksum.to_be_bytes())
    }

    /// The value of an XOR-…-ADDRESS (RFC 8489 section 14.2).
    fn xor(&self, address: SocketAddr) -> Vec<u8> {
        let mask = [&MAGIC_COOKIE[..], &self.transaction_id].concat();
        let (family, octets) = match address.ip() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let mut value = vec![0, family];
        value.extend((address.port() ^ 0x2112).to_be_bytes());
        value.extend(octets.iter().zip(&mask).map(|(octet, mask)| octet ^ mask));
        value
    }
}

fn header(message_type: u16, transaction_id: [u8; 12]) -> Vec<u8> {
    [&message_type.to_be_bytes()[..], &[0, 0], &MAGIC_COOKIE, &transaction_id].concat()
}
