//! Frames as senders make them, and as senders do not.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const CUSTOMER_TAG: u16 = 0x8100;
pub const SERVICE_TAG: u16 = 0x88a8;
pub const UDP: u8 = 17;

/// A UDP datagram in an Ethernet frame, with everything that a test may want wrong about it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// What it is meant to be, for the tally.
    pub kind: &'static str,
    /// The interface it comes in by: its place among [`crate::program::Program::ifindexes`].
    pub ingress: usize,
    /// Bytes of metadata before the frame, which leave so much less headroom.
    pub metadata: usize,
    /// Bytes of the frame in its first piece of memory, if that is not to have all that it has room for.
    pub first_piece: Option<usize>,
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    /// EtherType and tag control information, the outer first.
    pub tags: Vec<(u16, u16)>,
    pub ip: Ip,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub payload: Payload,
    /// Added to the UDP length.
    pub udp_len_error: u16,
    pub checksum: Checksum,
    /// Inside the IP packet, behind what the UDP length covers.
    pub surplus: Vec<u8>,
    /// Behind the IP packet.
    pub ethernet_padding: Vec<u8>,
    pub mutations: Vec<Mutation>,
}

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

/// Fields of the IP header, of either version.
#[derive(Clone, Debug)]
pub struct Ip {
    /// DSCP and ECN.
    pub traffic_class: u8,
    pub ttl: u8,
    /// Identification, or the flow label.
    pub identification: u32,
    /// The word of flags and offset, of IPv4.
    pub fragment: u16,
    /// A multiple of 4 bytes, of IPv4.
    pub options: Vec<u8>,
    /// Extension headers, of IPv6: the type of each, and its bytes but for the first, which is the next one's type.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Added to the length.
    pub len_error: u16,
    /// XORed with the header checksum, of IPv4.
    pub checksum_error: u16,
}

/// What the UDP checksum field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Right,
    /// 0: the sender made none.
    None,
    /// The folded pseudo-header sum, as a sender leaves it to its NIC.
    Unfinished,
    /// The right one with some bits changed.
    Wrong(u16),
}

/// A change to the bytes of the frame. A position is a fraction of the length, in 65536ths.
#[derive(Clone, Copy, Debug)]
pub enum Mutation {
    Xor {
        at: u16,
        bits: u8,
    },
    /// Within the headers: byte number.
    XorHeader {
        at: u8,
        bits: u8,
    },
    Cut {
        at: u16,
    },
    /// What the changes before have made wrong about the IPv4 header checksum is put right.
    RepairIp,
}

pub const DONT_FRAGMENT: u16 = 0x4000;
pub const MORE_FRAGMENTS: u16 = 0x2000;

impl Packet {
    /// A packet in good order.
    pub fn new(
        kind: &'static str,
        (source, destination): (SocketAddr, SocketAddr),
        payload: Payload,
    ) -> Self {
        Self {
            kind,
            ingress: 0,
            metadata: 0,
            first_piece: None,
            destination_mac: [0; 6],
            source_mac: [2, 9, 9, 9, 9, 9],
            tags: Vec::new(),
            ip: Ip {
                traffic_class: 0,
                ttl: 64,
                identification: 0x1234,
                fragment: DONT_FRAGMENT,
                options: Vec::new(),
                extensions: Vec::new(),
                len_error: 0,
                checksum_error: 0,
            },
            source,
            destination,
            payload,
            udp_len_error: 0,
            checksum: Checksum::Right,
            surplus: Vec::new(),
            ethernet_padding: Vec::new(),
            mutations: Vec::new(),
        }
    }

    /// Writes the frame, instead of what was in `frame`.
    pub fn write(&self, frame: &mut Vec<u8>) {
        frame.clear();
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        for (kind, control) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        let udp_len = (8 + self.payload.len()) as u16;
        let ip_payload = udp_len as usize + self.surplus.len();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(IPV4.to_be_bytes());
                let at = frame.len();
                let header_len = 20 + self.ip.options.len();
                let total_len = ((header_len + ip_payload) as u16).wrapping_add(self.ip.len_error);
                frame.extend([0x40 | (header_len / 4) as u8, self.ip.traffic_class]);
                frame.extend(total_len.to_be_bytes());
                frame.extend((self.ip.identification as u16).to_be_bytes());
                frame.extend(self.ip.fragment.to_be_bytes());
                frame.extend([self.ip.ttl, UDP, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(&self.ip.options);
                repair_ipv4(frame, at);
                for (byte, error) in frame[at + 10..].iter_mut().zip(self.ip.checksum_error.to_be_bytes()) {
                    *byte ^= error;
                }
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(IPV6.to_be_bytes());
                let extensions: usize = self.ip.extensions.iter().map(|(_, bytes)| 1 + bytes.len()).sum();
                let payload_len = ((extensions + ip_payload) as u16).wrapping_add(self.ip.len_error);
                let first =
                    6 << 28 | u32::from(self.ip.traffic_class) << 20 | self.ip.identification & 0xf_ffff;
                frame.extend(first.to_be_bytes());
                frame.extend(payload_len.to_be_bytes());
                frame.extend([self.ip.extensions.first().map_or(UDP, |&(kind, _)| kind), self.ip.ttl]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                for (place, (_, bytes)) in self.ip.extensions.iter().enumerate() {
                    frame.push(self.ip.extensions.get(place + 1).map_or(UDP, |&(kind, _)| kind));
                    frame.extend(bytes);
                }
            }
            _ => unreachable!("a packet has addresses of one family"),
        }
        let udp_at = frame.len();
        frame.extend(self.source.port().to_be_bytes());
        frame.extend(self.destination.port().to_be_bytes());
        frame.extend(udp_len.wrapping_add(self.udp_len_error).to_be_bytes());
        frame.extend([0, 0]);
        self.payload.write(frame);
        let addresses = (self.source.ip(), self.destination.ip());
        let checksum = match self.checksum {
            Checksum::None => 0,
            Checksum::Unfinished => unfinished_checksum(addresses, udp_len),
            Checksum::Right => udp_checksum(addresses, &frame[udp_at..]),
            Checksum::Wrong(bits) => udp_checksum(addresses, &frame[udp_at..]) ^ bits,
        };
        frame[udp_at + 6..udp_at + 8].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(&self.surplus);
        frame.extend(&self.ethernet_padding);
        for mutation in &self.mutations {
            self.mutate(frame, *mutation);
        }
    }

    fn mutate(&self, frame: &mut Vec<u8>, mutation: Mutation) {
        let place = |at: u16, len: usize| (at as usize * len) >> 16;
        match mutation {
            Mutation::Xor { at, bits } => {
                let at = place(at, frame.len());
                frame[at] ^= bits;
            }
            Mutation::XorHeader { at, bits } => {
                let at = at as usize % frame.len();
                frame[at] ^= bits;
            }
            // The kernel takes no frame that is shorter than its Ethernet header.
            Mutation::Cut { at } => frame.truncate(14 + place(at, frame.len() - 14)),
            Mutation::RepairIp => {
                let at = 14 + 4 * self.tags.len();
                if self.source.is_ipv4() && frame.len() >= at + 20 {
                    repair_ipv4(frame, at);
                }
            }
        }
    }
}

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

    fn write(&self, frame: &mut Vec<u8>) {
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

/// Makes the checksum of the IPv4 header at `at` right, if all of it is there.
fn repair_ipv4(frame: &mut [u8], at: usize) {
    let header_len = (frame[at] & 15) as usize * 4;
    let Some(header) = frame.get_mut(at..at + header_len.max(20)) else { return };
    header[10..12].fill(0);
    let checksum = !ones_sum(header, 0);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// RFC 1071's sum of the bytes, as a number, on top of `initial`.
pub fn ones_sum(bytes: &[u8], initial: u16) -> u16 {
    let mut sum = u64::from(initial.to_be());
    let (words, rest) = bytes.as_chunks::<4>();
    for &word in words {
        sum += u64::from(u32::from_ne_bytes(word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(sum as u16)
}

/// The folded sum of the pseudo-header.
pub fn unfinished_checksum((source, destination): (IpAddr, IpAddr), udp_len: u16) -> u16 {
    let mut sum = ones_sum(&udp_len.to_be_bytes(), u16::from(UDP));
    for ip in [source, destination] {
        sum = match ip {
            IpAddr::V4(ip) => ones_sum(&ip.octets(), sum),
            IpAddr::V6(ip) => ones_sum(&ip.octets(), sum),
        };
    }
    sum
}

/// What the checksum of a UDP datagram is to be, whatever its field holds.
pub fn udp_checksum(addresses: (IpAddr, IpAddr), datagram: &[u8]) -> u16 {
    let sum = ones_sum(&datagram[..6], unfinished_checksum(addresses, datagram.len() as u16));
    match !ones_sum(&datagram[8..], sum) {
        0 => 0xffff,
        checksum => checksum,
    }
}
