//! Writing a message into one buffer.

use std::net::{IpAddr, SocketAddr};

use hmac::Mac;

use super::{
    FINGERPRINT_XOR,
    attribute::AttributeType,
    error_code::ErrorCode,
    header::{HEADER_LEN, Header, MAGIC_COOKIE, TransactionId},
    integrity,
    message::{UnknownAttributes, xor_mask},
};

/// A message being written. The header's length is right after every step.
#[derive(Clone, Debug)]
pub struct MessageWriter {
    bytes: Vec<u8>,
    transaction_id: TransactionId,
}

impl MessageWriter {
    /// A message without attributes.
    pub fn new(header: Header) -> Self {
        Self::with_capacity(header, 128)
    }

    /// A message without attributes in a buffer that takes `capacity` bytes before it grows.
    pub fn with_capacity(header: Header, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(&header.encode(0));
        Self { bytes, transaction_id: header.transaction_id }
    }

    /// Appends an attribute, zero-padded to a multiple of 4 bytes.
    ///
    /// # Panics
    ///
    /// If the message grows past 65,535 bytes of attributes: callers bound what they write.
    pub fn attribute(&mut self, kind: AttributeType, value: &[u8]) -> &mut Self {
        self.append(kind, value.iter().copied())
    }

    /// Appends an attribute whose value is a 32-bit number.
    pub fn number(&mut self, kind: AttributeType, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends a XORed address attribute.
    pub fn xor_address(&mut self, kind: AttributeType, address: SocketAddr) -> &mut Self {
        let mask = xor_mask(self.transaction_id);
        let port = (address.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes();
        let head = |family| [0, family, port[0], port[1]];
        let xor = |(octet, mask): (u8, u8)| octet ^ mask;
        match address.ip() {
            IpAddr::V4(ip) => {
                self.append(kind, head(1).into_iter().chain(ip.octets().into_iter().zip(mask).map(xor)))
            }
            IpAddr::V6(ip) => {
                self.append(kind, head(2).into_iter().chain(ip.octets().into_iter().zip(mask).map(xor)))
            }
        }
    }

    /// Appends an address attribute in clear, encoded as MAPPED-ADDRESS is.
    pub fn address(&mut self, kind: AttributeType, address: SocketAddr) -> &mut Self {
        let port = address.port().to_be_bytes();
        let head = |family| [0, family, port[0], port[1]];
        match address.ip() {
            IpAddr::V4(ip) => self.append(kind, head(1).into_iter().chain(ip.octets())),
            IpAddr::V6(ip) => self.append(kind, head(2).into_iter().chain(ip.octets())),
        }
    }

    /// Appends ERROR-CODE.
    pub fn error_code(&mut self, code: ErrorCode) -> &mut Self {
        self.append(AttributeType::ERROR_CODE, code.value())
    }

    /// Appends ADDRESS-ERROR-CODE (RFC 8656 section 18.12): the family that could not be had, and why.
    pub fn address_error_code(&mut self, family: u8, code: ErrorCode) -> &mut Self {
        let value = std::iter::once(family).chain(code.value().skip(1));
        self.append(AttributeType::ADDRESS_ERROR_CODE, value)
    }

    /// Appends UNKNOWN-ATTRIBUTES.
    pub fn unknown_attributes(&mut self, unknown: &UnknownAttributes) -> &mut Self {
        self.append(AttributeType::UNKNOWN_ATTRIBUTES, unknown.kinds().flat_map(|kind| kind.0.to_be_bytes()))
    }

    /// Appends MESSAGE-INTEGRITY over what is there.
    pub fn integrity(&mut self, key: &[u8]) -> &mut Self {
        let length = (self.bytes.len() + 4 + 20 - HEADER_LEN) as u16;
        let mac = integrity::sha1(key, &self.bytes, length).finalize().into_bytes();
        self.attribute(AttributeType::MESSAGE_INTEGRITY, &mac)
    }

    /// Appends MESSAGE-INTEGRITY-SHA256 over what is there.
    pub fn integrity_sha256(&mut self, key: &[u8]) -> &mut Self {
        let length = (self.bytes.len() + 4 + 32 - HEADER_LEN) as u16;
        let mac = integrity::sha256(key, &self.bytes, length).finalize().into_bytes();
        self.attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &mac)
    }

    /// Appends FINGERPRINT over what is there. Nothing may follow.
    pub fn fingerprint(&mut self) -> &mut Self {
        // The CRC covers a length that already counts FINGERPRINT (RFC 8489 section 14.7).
        self.set_length(self.bytes.len() + 8 - HEADER_LEN);
        let crc = crc32fast::hash(&self.bytes) ^ FINGERPRINT_XOR;
        self.number(AttributeType::FINGERPRINT, crc)
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn append(&mut self, kind: AttributeType, value: impl Iterator<Item = u8>) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&kind.0.to_be_bytes());
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend(value);
        let length = u16::try_from(self.bytes.len() - start - 4).expect("callers bound what they write");
        self.bytes[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_length(self.bytes.len() - HEADER_LEN);
        self
    }

    fn set_length(&mut self, length: usize) {
        let length = u16::try_from(length).expect("callers bound what they write");
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}
