//! The 20-byte header (RFC 8489 section 5).

/// Bytes of the header.
pub const HEADER_LEN: usize = 20;

/// In every message, bytes 4 to 7.
pub const MAGIC_COOKIE: u32 = 0x2112_a442;

/// Names a transaction; a response has its request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// What a message is to its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for none.
    Indication,
    /// A request was granted.
    Success,
    /// A request was refused.
    Error,
}

/// A 12-bit method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method(pub u16);

impl Method {
    /// What is my address? (RFC 8489)
    pub const BINDING: Self = Self(0x001);
    /// Makes an allocation.
    pub const ALLOCATE: Self = Self(0x003);
    /// Prolongs or ends an allocation.
    pub const REFRESH: Self = Self(0x004);
    /// Data from the client for a peer.
    pub const SEND: Self = Self(0x006);
    /// Data from a peer for the client.
    pub const DATA: Self = Self(0x007);
    /// Installs permissions.
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// Binds a channel.
    pub const CHANNEL_BIND: Self = Self(0x009);
}

/// What the first 20 bytes say, the length aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Request, indication or response.
    pub class: Class,
    /// Of what.
    pub method: Method,
    /// Which one.
    pub transaction_id: TransactionId,
}

/// Why a datagram is not a STUN message. Such input is discarded without an answer (RFC 8489 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than a header, or than its length field says.
    #[error("shorter than its header says")]
    Truncated,
    /// One of the two most significant bits is set.
    #[error("the first two bits are not zero")]
    NotStun,
    /// Another magic cookie: not STUN, or STUN as of RFC 3489, which TURN does not speak.
    #[error("no magic cookie")]
    Cookie,
    /// The length field is not a multiple of 4.
    #[error("the length is not a multiple of 4")]
    Length,
}

impl Header {
    /// Reads the header and cuts the datagram to the length the header states: what follows is never read.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), HeaderError> {
        let header: &[u8; HEADER_LEN] = datagram.first_chunk().ok_or(HeaderError::Truncated)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, transaction_id @ ..] = *header;
        let (class, method) = decode_type(u16::from_be_bytes([t0, t1])).ok_or(HeaderError::NotStun)?;
        if u32::from_be_bytes([c0, c1, c2, c3]) != MAGIC_COOKIE {
            return Err(HeaderError::Cookie);
        }
        let length = u16::from_be_bytes([l0, l1]) as usize;
        if !length.is_multiple_of(4) {
            return Err(HeaderError::Length);
        }
        let message = datagram.get(..HEADER_LEN + length).ok_or(HeaderError::Truncated)?;
        Ok((Self { class, method, transaction_id: TransactionId(transaction_id) }, message))
    }

    /// The header of a message with `length` bytes of attributes.
    pub(super) fn encode(self, length: u16) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..2].copy_from_slice(&encode_type(self.class, self.method).to_be_bytes());
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        header[8..].copy_from_slice(&self.transaction_id.0);
        header
    }
}

/// The message type: 12 method bits around the class bits C0 = 0x0010 and C1 = 0x0100.
const fn encode_type(class: Class, method: Method) -> u16 {
    let Method(method) = method;
    let class = match class {
        Class::Request => 0,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    (method & 0x000f) | (method & 0x0070) << 1 | (method & 0x0f80) << 2 | class
}

const fn decode_type(message_type: u16) -> Option<(Class, Method)> {
    if message_type & 0xc000 != 0 {
        return None;
    }
    let class = match message_type & 0x0110 {
        0 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    let method = (message_type & 0x000f) | (message_type & 0x00e0) >> 1 | (message_type & 0x3e00) >> 2;
    Some((class, Method(method)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [Class; 4] = [Class::Request, Class::Indication, Class::Success, Class::Error];

    #[test]
    fn stun_003_type_packs_method_around_class_for_every_method() {
        for method in 0..=0xfff {
            for class in CLASSES {
                let encoded = encode_type(class, Method(method));
                assert_eq!(encoded & 0xc000, 0, "STUN-002: the top bits stay 0");
                assert_eq!(decode_type(encoded), Some((class, Method(method))));
            }
        }
        // Table "Wire constants" of the RFC's section 18.2 and RFC 8656 section 17.
        for (class, method, expected) in [
            (Class::Request, Method::BINDING, 0x0001),
            (Class::Success, Method::ALLOCATE, 0x0103),
            (Class::Error, Method::REFRESH, 0x0114),
            (Class::Indication, Method::SEND, 0x0016),
            (Class::Indication, Method::DATA, 0x0017),
            (Class::Error, Method::CHANNEL_BIND, 0x0119),
        ] {
            assert_eq!(encode_type(class, method), expected);
        }
    }

    fn header(length: u16) -> [u8; HEADER_LEN] {
        Header { class: Class::Request, method: Method::BINDING, transaction_id: TransactionId([7; 12]) }
            .encode(length)
    }

    #[test]
    fn stun_001_header_fields_are_big_endian() {
        let bytes = header(0x0104);
        assert_eq!(bytes[..8], [0x00, 0x01, 0x01, 0x04, 0x21, 0x12, 0xa4, 0x42]);
        assert_eq!(bytes[8..], [7; 12]);
    }

    #[test]
    fn stun_002_005_006_007_input_that_is_not_stun_is_told_apart() {
        let parse = |bytes: &[u8]| Header::parse(bytes).map(|_| ());
        assert_eq!(parse(&header(0)), Ok(()));
        assert_eq!(parse(&header(0)[..19]), Err(HeaderError::Truncated));
        assert_eq!(parse(&[]), Err(HeaderError::Truncated));
        assert_eq!(parse(&header(4)), Err(HeaderError::Truncated));
        assert_eq!(parse(&[&header(3)[..], &[0; 8]].concat()), Err(HeaderError::Length));

        for bit in [0x80, 0x40] {
            let mut bytes = header(0);
            bytes[0] |= bit;
            assert_eq!(parse(&bytes), Err(HeaderError::NotStun));
        }
        let mut bytes = header(0);
        bytes[7] ^= 1;
        assert_eq!(parse(&bytes), Err(HeaderError::Cookie));
    }

    #[test]
    fn stun_007_bytes_beyond_the_stated_length_are_cut_off() {
        let bytes = [&header(4)[..], &[1; 4], &[2; 9]].concat();
        assert_eq!(Header::parse(&bytes).unwrap().1.len(), 24);
    }
}
