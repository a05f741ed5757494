//! Reading a message: its attributes hold together, or it is refused as a whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::Mac;

use super::{
    FINGERPRINT_XOR,
    attribute::AttributeType,
    header::{HEADER_LEN, Header, MAGIC_COOKIE, TransactionId},
    integrity,
};

/// A message whose attributes lie within it and whose FINGERPRINT, if any, is the last and right.
///
/// Its attributes are those that count: none from the first integrity attribute on (RFC 8489 section 9).
#[derive(Clone, Debug)]
pub struct Message<'a> {
    header: Header,
    bytes: &'a [u8],
    /// Where the attributes that count end.
    attributes_end: usize,
    sha1: Option<IntegrityAttribute<'a>>,
    sha256: Option<IntegrityAttribute<'a>>,
    fingerprint: bool,
    unknown: UnknownAttributes,
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type.
    pub kind: AttributeType,
    /// Its value, without padding.
    pub value: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct IntegrityAttribute<'a> {
    offset: usize,
    value: &'a [u8],
}

/// Whether a message is protected by a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// It has no integrity attribute.
    Absent,
    /// The attribute was made with this key over this message.
    Valid,
    /// It was not.
    Invalid,
}

/// Why a message with a good header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// FINGERPRINT is wrong or not the last attribute: not a STUN message after all.
    #[error("wrong FINGERPRINT")]
    Fingerprint,
    /// See [`Malformed`].
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// An attribute runs past the end of the message or has a length that its type cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed attribute")]
pub struct Malformed;

impl<'a> Message<'a> {
    /// Reads the attributes of `bytes`, which is what [`Header::parse`] returned beside `header`.
    pub fn parse(header: Header, bytes: &'a [u8]) -> Result<Self, MessageError> {
        Self::read(header, bytes, true)
    }

    /// As [`parse`](Self::parse), for messages that carry data: of a FINGERPRINT's value only the length counts. It tells
    /// STUN from other protocols on the same port, which TURN clients have none of, and to compute it is to go
    /// through all the data, which the kernel program has no time for.
    pub fn parse_without_crc(header: Header, bytes: &'a [u8]) -> Result<Self, MessageError> {
        Self::read(header, bytes, false)
    }

    fn read(header: Header, bytes: &'a [u8], with_crc: bool) -> Result<Self, MessageError> {
        let mut message = Self {
            header,
            bytes,
            attributes_end: bytes.len(),
            sha1: None,
            sha256: None,
            fingerprint: false,
            unknown: UnknownAttributes::default(),
        };
        let mut offset = HEADER_LEN;
        while offset < bytes.len() {
            let (Attribute { kind, value }, next) = attribute_at(bytes, offset).ok_or(Malformed)?;
            let is_protected = message.sha1.is_some() || message.sha256.is_some();
            match kind {
                AttributeType::FINGERPRINT => {
                    message.attributes_end = message.attributes_end.min(offset);
                    let crc = || (crc32fast::hash(&bytes[..offset]) ^ FINGERPRINT_XOR).to_be_bytes();
                    if next != bytes.len() || value.len() != 4 || with_crc && value != crc() {
                        return Err(MessageError::Fingerprint);
                    }
                    message.fingerprint = true;
                }
                AttributeType::MESSAGE_INTEGRITY if !is_protected => {
                    if value.len() != 20 {
                        return Err(Malformed.into());
                    }
                    message.attributes_end = offset;
                    message.sha1 = Some(IntegrityAttribute { offset, value });
                }
                AttributeType::MESSAGE_INTEGRITY_SHA256 if message.sha256.is_none() => {
                    message.attributes_end = message.attributes_end.min(offset);
                    message.sha256 = Some(IntegrityAttribute { offset, value });
                }
                kind if !is_protected && kind.is_comprehension_required() && !kind.is_known() => {
                    message.unknown.push(kind);
                }
                _ => {}
            }
            offset = next;
        }
        Ok(message)
    }

    /// The header.
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The attributes that count, in their order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let bytes = &self.bytes[..self.attributes_end];
        let mut offset = HEADER_LEN;
        std::iter::from_fn(move || {
            let (attribute, next) = attribute_at(bytes, offset)?;
            offset = next;
            Some(attribute)
        })
    }

    /// The value of an attribute: of the first, if it is repeated (RFC 8489 section 14).
    pub fn attribute(&self, kind: AttributeType) -> Option<&'a [u8]> {
        self.attributes().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// The value of an attribute whose length its type fixes.
    pub fn fixed<const N: usize>(&self, kind: AttributeType) -> Result<Option<[u8; N]>, Malformed> {
        self.attribute(kind).map(|value| value.try_into().map_err(|_| Malformed)).transpose()
    }

    /// The value of a XORed address attribute.
    pub fn xor_address(&self, kind: AttributeType) -> Result<Option<SocketAddr>, Malformed> {
        self.attribute(kind).map(|value| self.decode_xor_address(value)).transpose()
    }

    /// The values of an address attribute that may be repeated.
    pub fn xor_addresses(
        &self,
        kind: AttributeType,
    ) -> impl Iterator<Item = Result<SocketAddr, Malformed>> + '_ {
        self.attributes()
            .filter(move |attribute| attribute.kind == kind)
            .map(|attribute| self.decode_xor_address(attribute.value))
    }

    fn decode_xor_address(&self, value: &[u8]) -> Result<SocketAddr, Malformed> {
        let (&[_, family, port @ ..], address) = value.split_first_chunk::<4>().ok_or(Malformed)?;
        let port = u16::from_be_bytes(port) ^ (MAGIC_COOKIE >> 16) as u16;
        let mask = xor_mask(self.header.transaction_id);
        let ip: IpAddr = match (family, address.len()) {
            (1, 4) => Ipv4Addr::from_octets(std::array::from_fn(|i| address[i] ^ mask[i])).into(),
            (2, 16) => Ipv6Addr::from_octets(std::array::from_fn(|i| address[i] ^ mask[i])).into(),
            _ => return Err(Malformed),
        };
        Ok(SocketAddr::new(ip, port))
    }

    /// Whether there is an integrity attribute at all.
    pub const fn is_protected(&self) -> bool {
        self.sha1.is_some() || self.sha256.is_some()
    }

    /// Verifies the integrity attribute in constant time: MESSAGE-INTEGRITY-SHA256 alone if it is there
    /// (of exactly 32 bytes), else MESSAGE-INTEGRITY (RFC 8489 section 9.2.4).
    pub fn verify(&self, key: &[u8]) -> Integrity {
        let verified = if let Some(IntegrityAttribute { offset, value }) = self.sha256 {
            let length = (offset + 4 + value.len() - HEADER_LEN) as u16;
            integrity::sha256(key, &self.bytes[..offset], length).verify_slice(value)
        } else if let Some(IntegrityAttribute { offset, value }) = self.sha1 {
            let length = (offset + 4 + value.len() - HEADER_LEN) as u16;
            integrity::sha1(key, &self.bytes[..offset], length).verify_slice(value)
        } else {
            return Integrity::Absent;
        };
        if verified.is_ok() { Integrity::Valid } else { Integrity::Invalid }
    }

    /// Whether there is a FINGERPRINT (which is right then, unless it was parsed without).
    pub const fn has_fingerprint(&self) -> bool {
        self.fingerprint
    }

    /// Comprehension-required attributes that this server does not know.
    pub const fn unknown_attributes(&self) -> &UnknownAttributes {
        &self.unknown
    }
}

/// The attribute at `offset` and where the next one begins, if it lies within `bytes`.
fn attribute_at(bytes: &[u8], offset: usize) -> Option<(Attribute<'_>, usize)> {
    let (&[t0, t1, l0, l1], rest) = bytes.get(offset..)?.split_first_chunk::<4>()?;
    let length = u16::from_be_bytes([l0, l1]) as usize;
    let padded = length.next_multiple_of(4);
    if padded > rest.len() {
        return None;
    }
    let kind = AttributeType(u16::from_be_bytes([t0, t1]));
    Some((Attribute { kind, value: &rest[..length] }, offset + 4 + padded))
}

/// What addresses are XORed with: the cookie and the transaction ID (RFC 8489 section 14.2).
pub(super) fn xor_mask(transaction_id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&transaction_id.0);
    mask
}

/// The first few unknown comprehension-required attributes of a message, each once: a client needs to hear
/// of one to give up, and an answer must not grow with the request.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct UnknownAttributes {
    kinds: [u16; Self::MAX],
    len: usize,
}

impl UnknownAttributes {
    /// At most this many are kept.
    pub const MAX: usize = 16;

    /// A list of this one.
    pub fn one(kind: AttributeType) -> Self {
        let mut list = Self::default();
        list.push(kind);
        list
    }

    fn push(&mut self, kind: AttributeType) {
        if self.len < Self::MAX && !self.kinds().any(|known| known == kind) {
            self.kinds[self.len] = kind.0;
            self.len += 1;
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The list.
    pub fn kinds(&self) -> impl Iterator<Item = AttributeType> + '_ {
        self.kinds[..self.len].iter().copied().map(AttributeType)
    }
}

impl std::fmt::Debug for UnknownAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}
