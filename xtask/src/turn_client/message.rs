//! STUN messages as a client writes and reads them (RFC 8489 section 5, RFC 8656 sections 17 and 18).

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// RFC 8489 section 5, network byte order.
const MAGIC_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();
/// Bytes before the first attribute.
pub const HEADER_LEN: usize = 20;

/// Identifies a request and its response.
pub type TransactionId = [u8; 12];

/// Methods (RFC 8489 section 18.2, RFC 8656 section 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names are the RFCs'")]
pub enum Method {
    Binding = 0x001,
    Allocate = 0x003,
    Refresh = 0x004,
    Send = 0x006,
    Data = 0x007,
    CreatePermission = 0x008,
    ChannelBind = 0x009,
}

/// Classes (RFC 8489 section 5), as bits of the message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Class {
    Request = 0x000,
    Indication = 0x010,
    SuccessResponse = 0x100,
    ErrorResponse = 0x110,
}

/// Attribute types that this client uses.
#[expect(missing_docs, reason = "the names are the RFCs'")]
pub mod attribute {
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const CHANNEL_NUMBER: u16 = 0x000C;
    pub const LIFETIME: u16 = 0x000D;
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub const DATA: u16 = 0x0013;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
}

/// A message being written.
#[derive(Clone, Debug)]
pub struct MessageBuilder {
    bytes: Vec<u8>,
}

impl MessageBuilder {
    /// Starts a message.
    pub fn new(class: Class, method: Method, transaction: TransactionId) -> Self {
        // Methods below 16 have no bit above the class bits.
        let message_type = class as u16 | method as u16;
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&message_type.to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&MAGIC_COOKIE);
        bytes.extend_from_slice(&transaction);
        Self { bytes }
    }

    /// Appends an attribute, padded to 4 bytes.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len()).expect("attributes are written from datagrams");
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_length(0);
        self
    }

    /// Appends an address attribute, XORed with magic cookie and transaction ID (RFC 8489 section 14.2).
    pub fn xor_address(self, kind: u16, address: impl Into<SocketAddr>) -> Self {
        let address = address.into();
        let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }];
        value.extend(address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => value.extend(ip.octets()),
            IpAddr::V6(ip) => value.extend(ip.octets()),
        }
        xor(&mut value, &self.bytes);
        self.attribute(kind, &value)
    }

    /// Appends MESSAGE-INTEGRITY under `key` (RFC 8489 section 14.5).
    pub fn integrity(mut self, key: &[u8]) -> Self {
        self.set_length(24);
        let tag = integrity(key, &self.bytes);
        self.attribute(attribute::MESSAGE_INTEGRITY, &tag)
    }

    /// The message's bytes.
    pub fn build(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes the length field, as if `more` bytes followed.
    fn set_length(&mut self, more: usize) {
        let length = u16::try_from(self.bytes.len() - HEADER_LEN + more).expect("a message fits a datagram");
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// A received message, whose framing is sound.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Parses a whole datagram. `None` if it is not a STUN message.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_LEN)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let sound = header[0] & 0xC0 == 0
            && header[4..8] == MAGIC_COOKIE
            && length.is_multiple_of(4)
            && bytes.len() == HEADER_LEN + length;
        let message = Self { bytes };
        // The attributes have to fill the message exactly.
        let filled =
            message.attributes().map(|(_, value)| 4 + value.len().next_multiple_of(4)).sum::<usize>();
        (sound && filled == length).then_some(message)
    }

    /// Whether it is of this class and method.
    pub fn is(&self, class: Class, method: Method) -> bool {
        self.message_type() == class as u16 | method as u16
    }

    /// Whether it is an error response.
    pub fn is_error(&self) -> bool {
        self.message_type() & Class::ErrorResponse as u16 == Class::ErrorResponse as u16
    }

    /// Its transaction ID.
    pub fn transaction(&self) -> TransactionId {
        self.bytes[8..HEADER_LEN].try_into().expect("12 bytes")
    }

    /// The first attribute of this type.
    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The first address attribute of this type, which is XORed with magic cookie and transaction ID.
    pub fn xor_address(&self, kind: u16) -> Option<SocketAddr> {
        self.xor_addresses(kind).next()
    }

    /// All of them that are sound.
    pub fn xor_addresses(&self, kind: u16) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let bytes = self.bytes;
        let values = self.attributes().filter(move |(found, _)| *found == kind);
        values.filter_map(move |(_, value)| Self::address(value, bytes))
    }

    fn address(value: &[u8], message: &[u8]) -> Option<SocketAddr> {
        let mut value = value.to_vec();
        xor(&mut value, message);
        let (&[_, family, high, low], address) = value.split_first_chunk::<4>()?;
        let address = match family {
            1 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
            2 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
            _ => return None,
        };
        Some(SocketAddr::new(address, u16::from_be_bytes([high, low])))
    }

    /// The LIFETIME attribute, in seconds.
    pub fn lifetime(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.attribute(attribute::LIFETIME)?.try_into().ok()?))
    }

    /// The number of an ERROR-CODE attribute, such as 401.
    pub fn error_code(&self) -> Option<u16> {
        let [_, _, class, number, ..] = *self.attribute(attribute::ERROR_CODE)? else { return None };
        Some(u16::from(class & 7) * 100 + u16::from(number))
    }

    /// Whether MESSAGE-INTEGRITY is present and right under `key`.
    pub fn has_integrity(&self, key: &[u8]) -> bool {
        let Some(tag) = self.attribute(attribute::MESSAGE_INTEGRITY) else { return false };
        // The tag covers what stands before it, with a length field that ends after it.
        let before = tag.as_ptr() as usize - self.bytes.as_ptr() as usize - 4;
        let mut covered = self.bytes[..before].to_vec();
        let length = u16::try_from(before + 24 - HEADER_LEN).expect("a message fits a datagram");
        covered[2..4].copy_from_slice(&length.to_be_bytes());
        integrity(key, &covered) == tag
    }

    fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut rest = self.bytes.get(HEADER_LEN..).unwrap_or_default();
        std::iter::from_fn(move || {
            let header = rest.get(..4)?;
            let kind = u16::from_be_bytes([header[0], header[1]]);
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let value = rest.get(4..4 + length)?;
            rest = rest.get(4 + length.next_multiple_of(4)..)?;
            Some((kind, value))
        })
    }

    fn message_type(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }
}

/// XORs port and address of an address attribute with what stands in the message's header.
fn xor(value: &mut [u8], message: &[u8]) {
    let cookie_and_transaction = &message[4..HEADER_LEN];
    for field in [2..4, 4..value.len()] {
        for (byte, mask) in value.get_mut(field).into_iter().flatten().zip(cookie_and_transaction) {
            *byte ^= mask;
        }
    }
}

fn integrity(key: &[u8], covered: &[u8]) -> [u8; 20] {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(covered);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 section 2.2: sample IPv4 response.
    const SAMPLE_RESPONSE: [u8; 80] = [
        0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa,
        0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f,
        0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43, 0x00, 0x08, 0x00,
        0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53,
        0xf0, 0x6b, 0xe7, 0xd7, 0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
    ];

    #[test]
    fn sample_response_is_read() {
        let message = Message::parse(&SAMPLE_RESPONSE).unwrap();
        assert!(message.is(Class::SuccessResponse, Method::Binding));
        let mapped = message.xor_address(attribute::XOR_MAPPED_ADDRESS).unwrap();
        assert_eq!(mapped, "192.0.2.1:32853".parse().unwrap());
        assert!(message.has_integrity(b"VOkJxbRl1RmTxUk/WvJxBt"));
        assert!(!message.has_integrity(b"another password"));
    }

    #[test]
    fn what_is_written_is_read() {
        let peers: [SocketAddr; 2] =
            ["198.18.2.2:3480", "[fd00:2::2]:3481"].map(|peer| peer.parse().unwrap());
        let bytes = MessageBuilder::new(Class::Request, Method::CreatePermission, [7; 12])
            .xor_address(attribute::XOR_PEER_ADDRESS, peers[0])
            .xor_address(attribute::XOR_RELAYED_ADDRESS, peers[1])
            .attribute(attribute::USERNAME, b"demo!")
            .integrity(b"key")
            .build();
        let message = Message::parse(&bytes).unwrap();
        assert!(message.is(Class::Request, Method::CreatePermission));
        assert_eq!(message.transaction(), [7; 12]);
        assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(peers[0]));
        assert_eq!(message.xor_address(attribute::XOR_RELAYED_ADDRESS), Some(peers[1]));
        assert_eq!(message.attribute(attribute::USERNAME), Some(&b"demo!"[..]));
        assert!(message.has_integrity(b"key"));
    }

    #[test]
    fn broken_framing_is_refused() {
        for len in 0..SAMPLE_RESPONSE.len() {
            assert!(Message::parse(&SAMPLE_RESPONSE[..len]).is_none(), "{len} bytes");
        }
        let mut overlong_attribute = SAMPLE_RESPONSE;
        overlong_attribute[23] = 0xFF;
        assert!(Message::parse(&overlong_attribute).is_none());
    }
}
