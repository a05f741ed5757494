//! Frames as senders make them, and as senders do not.

use std::net::{IpAddr, SocketAddr};

use crate::payload::Payload;

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
