//! What senders put into datagrams: data, ChannelData, STUN messages, right or wrong.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The UDP payload.
#[derive(Clone)]
pub enum Payload {
    /// A peer's data, or anything.
    Raw(Vec<u8>),
    ChannelData {
        number: u16,
        /// Added to the length.
        len_error: u16,
        data: Vec<u8>,
        /// Behind the data.
        padding: Vec<u8>,
    },
    Stun(Stun),
}

/// A STUN message.
#[derive(Clone)]
pub struct Stun {
    /// Class and method.
    pub kind: u16,
    pub transaction: [u8; 12],
    pub attributes: Vec<Attribute>,
    /// What attributes are padded with.
    pub padding: u8,
    /// Added to the length.
    pub len_error: u16,
    /// XORed with the magic cookie.
    pub cookie_error: u8,
    /// Behind the message.
    pub trailer: Vec<u8>,
}

#[derive(Clone)]
pub enum Attribute {
    /// XOR-PEER-ADDRESS.
    Peer(SocketAddr),
    /// FINGERPRINT, with bits of it changed.
    Fingerprint(u32),
    /// Type and value.
    Other(u16, Vec<u8>),
    /// Type, length and value that do not go together.
    Broken(u16, u16, Vec<u8>),
}

pub const DATA: u16 = 0x0013;
pub const SOFTWARE: u16 = 0x8022;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::ChannelData { number, len_error, data, padding } => {
                write!(f, "ChannelData {number:#06x}, length {} + {len_error}, ", data.len())?;
                write!(f, "{} bytes of padding", padding.len())
            }
            Self::Stun(message) => {
                let Stun { kind, attributes, padding, len_error, cookie_error, trailer, .. } = message;
                write!(f, "STUN {kind:#06x}, {attributes:?} padded with {padding:#04x}, ")?;
                write!(f, "length + {len_error}, cookie ^ {cookie_error}, {} bytes behind", trailer.len())
            }
        }
    }
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => write!(f, "XOR-PEER-ADDRESS {peer}"),
            Self::Fingerprint(error) => write!(f, "FINGERPRINT ^ {error:#x}"),
            Self::Other(kind, value) => write!(f, "{kind:#06x} of {} bytes", value.len()),
            Self::Broken(kind, len, value) => {
                write!(f, "{kind:#06x} of {} bytes that says {len}", value.len())
            }
        }
    }
}

impl Payload {
    pub fn len(&self) -> usize {
        match self {
            Self::Raw(bytes) => bytes.len(),
            Self::ChannelData { data, padding, .. } => 4 + data.len() + padding.len(),
            Self::Stun(message) => {
                let attributes =
                    message.attributes.iter().map(|attribute| attribute.len().next_multiple_of(4));
                20 + attributes.sum::<usize>() + message.trailer.len()
            }
        }
    }

    /// Appends it to the frame.
    pub fn write(&self, frame: &mut Vec<u8>) {
        match self {
            Self::Raw(bytes) => frame.extend_from_slice(bytes),
            Self::ChannelData { number, len_error, data, padding } => {
                frame.extend(number.to_be_bytes());
                frame.extend((data.len() as u16).wrapping_add(*len_error).to_be_bytes());
                frame.extend_from_slice(data);
                frame.extend_from_slice(padding);
            }
            Self::Stun(message) => message.write(frame),
        }
    }
}

impl Stun {
    fn write(&self, frame: &mut Vec<u8>) {
        let start = frame.len();
        let attributes: usize =
            self.attributes.iter().map(|attribute| attribute.len().next_multiple_of(4)).sum();
        frame.extend(self.kind.to_be_bytes());
        frame.extend((attributes as u16).wrapping_add(self.len_error).to_be_bytes());
        frame.extend(COOKIE);
        frame[start + 7] ^= self.cookie_error;
        frame.extend(self.transaction);
        for attribute in &self.attributes {
            let at = frame.len();
            attribute.write(frame, start);
            frame.resize(start + (frame.len() - start).next_multiple_of(4), self.padding);
            debug_assert_eq!(frame.len() - at, attribute.len().next_multiple_of(4));
        }
        frame.extend_from_slice(&self.trailer);
    }
}

impl Attribute {
    fn len(&self) -> usize {
        4 + match self {
            Self::Peer(SocketAddr::V4(_)) => 8,
            Self::Peer(SocketAddr::V6(_)) => 20,
            Self::Fingerprint(_) => 4,
            Self::Other(_, value) | Self::Broken(_, _, value) => value.len(),
        }
    }

    /// Appends the attribute to the message that starts at `start`.
    fn write(&self, frame: &mut Vec<u8>, start: usize) {
        let mut head = |kind: u16, len: usize| {
            frame.extend(kind.to_be_bytes());
            frame.extend((len as u16).to_be_bytes());
        };
        match self {
            Self::Peer(peer) => {
                head(0x0012, self.len() - 4);
                frame.extend([0, if peer.is_ipv4() { 1 } else { 2 }]);
                frame.extend((peer.port() ^ 0x2112).to_be_bytes());
                let at = frame.len();
                match peer.ip() {
                    IpAddr::V4(ip) => frame.extend(ip.octets()),
                    IpAddr::V6(ip) => frame.extend(ip.octets()),
                }
                // Cookie and transaction ID.
                for i in 0..frame.len() - at {
                    frame[at + i] ^= frame[start + 4 + i];
                }
            }
            Self::Fingerprint(error) => {
                let crc = crc32fast::hash(&frame[start..]) ^ 0x5354_554e ^ error;
                frame.extend(0x8028u16.to_be_bytes());
                frame.extend(4u16.to_be_bytes());
                frame.extend(crc.to_be_bytes());
            }
            Self::Other(kind, value) => {
                head(*kind, value.len());
                frame.extend_from_slice(value);
            }
            Self::Broken(kind, len, value) => {
                head(*kind, *len as usize);
                frame.extend_from_slice(value);
            }
        }
    }
}
