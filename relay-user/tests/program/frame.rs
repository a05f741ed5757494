//! Frames from a description. etherparse computes every checksum from scratch, so what the program updates
//! step by step is compared with something that it has no code in common with.

use std::net::SocketAddrV4;

use etherparse::{IpNumber, Ipv4Header, Ipv4Options, UdpHeader};

pub const ETHERNET_LEN: usize = 14;
pub const IPV4_LEN: usize = 20;
pub const UDP_LEN: usize = 8;
pub const PAYLOAD_AT: usize = ETHERNET_LEN + IPV4_LEN + UDP_LEN;

// Where fields lie in a frame without IPv4 options.
pub const TOTAL_LEN_AT: usize = ETHERNET_LEN + 2;
pub const FRAGMENT_AT: usize = ETHERNET_LEN + 6;
pub const IP_CHECKSUM_AT: usize = ETHERNET_LEN + 10;
pub const UDP_LEN_AT: usize = ETHERNET_LEN + IPV4_LEN + 4;
pub const UDP_CHECKSUM_AT: usize = ETHERNET_LEN + IPV4_LEN + 6;

/// What the UDP checksum field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Right,
    /// 0: the sender made none.
    None,
    /// The folded pseudo-header sum, as a sender leaves it to its NIC.
    Unfinished,
    Exactly(u16),
}

/// A UDP datagram over IPv4 in an Ethernet frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    /// DSCP and ECN.
    pub tos: u8,
    pub identification: u16,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In units of 8 bytes.
    pub fragment_offset: u16,
    pub ttl: u8,
    pub options: Vec<u8>,
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    pub payload: Vec<u8>,
    pub checksum: Checksum,
    /// Inside the IP packet, behind what the UDP length covers.
    pub surplus: Vec<u8>,
    /// Behind the IP packet.
    pub ethernet_padding: Vec<u8>,
}

impl Frame {
    pub fn new(source: SocketAddrV4, destination: SocketAddrV4, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            destination_mac: [0; 6],
            source_mac: [0; 6],
            tos: 0,
            identification: 0x1234,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            options: Vec::new(),
            source,
            destination,
            payload: payload.into(),
            checksum: Checksum::Right,
            surplus: Vec::new(),
            ethernet_padding: Vec::new(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut udp = UdpHeader {
            source_port: self.source.port(),
            destination_port: self.destination.port(),
            length: (UDP_LEN + self.payload.len()) as u16,
            checksum: 0,
        };
        let mut ip = Ipv4Header {
            time_to_live: self.ttl,
            protocol: IpNumber::UDP,
            source: self.source.ip().octets(),
            destination: self.destination.ip().octets(),
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            more_fragments: self.more_fragments,
            fragment_offset: self.fragment_offset.try_into().unwrap(),
            options: Ipv4Options::try_from(&self.options[..]).unwrap(),
            ..Ipv4Header::default()
        };
        ip.total_len = (ip.header_len() + UDP_LEN + self.payload.len() + self.surplus.len()) as u16;
        ip.header_checksum = ip.calc_header_checksum();
        udp.checksum = match self.checksum {
            Checksum::Right => right_checksum(&udp, &ip, &self.payload),
            Checksum::None => 0,
            // Without header and payload only the pseudo-header is left; its length is set by hand.
            Checksum::Unfinished => pseudo_header_sum(&udp, &ip),
            Checksum::Exactly(checksum) => checksum,
        };

        let mut bytes = Vec::new();
        bytes.extend(self.destination_mac);
        bytes.extend(self.source_mac);
        bytes.extend(0x0800u16.to_be_bytes());
        bytes.extend(&ip.to_bytes()[..]);
        // etherparse takes DSCP and ECN apart; here they are one byte, which the checksum covers.
        bytes[ETHERNET_LEN + 1] = self.tos;
        let ip_checksum = ipv4_checksum(&bytes[ETHERNET_LEN..ETHERNET_LEN + ip.header_len()]);
        bytes[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&ip_checksum.to_be_bytes());
        bytes.extend(udp.to_bytes());
        bytes.extend(&self.payload);
        bytes.extend(&self.surplus);
        bytes.extend(&self.ethernet_padding);
        bytes
    }

    /// The UDP checksum that this datagram should have.
    pub fn right_checksum(&self) -> u16 {
        let bytes = Self { checksum: Checksum::Right, ..self.clone() }.bytes();
        let at = ETHERNET_LEN + IPV4_LEN + self.options.len() + 6;
        u16::from_be_bytes([bytes[at], bytes[at + 1]])
    }

    /// The payload changed at its end so that the UDP checksum comes out as 0, which is sent as 0xFFFF.
    pub fn with_payload_summing_to_zero(mut self) -> Self {
        self.payload.truncate(self.payload.len() & !1);
        let end = self.payload.len();
        self.payload[end - 2..].fill(0);
        let word = self.right_checksum();
        self.payload[end - 2..].copy_from_slice(&word.to_be_bytes());
        assert_eq!(self.right_checksum(), 0xffff);
        self
    }
}

/// ChannelData without padding.
pub fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(number.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
    message
}

/// Overwrites a 16-bit field of a frame.
pub fn set_word(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Makes the IPv4 header checksum right after a change to the header.
pub fn repair_ip_checksum(frame: &mut [u8]) {
    let header_len = (usize::from(frame[ETHERNET_LEN] & 0xf) * 4).max(IPV4_LEN);
    if let Some(header) = frame.get(ETHERNET_LEN..ETHERNET_LEN + header_len) {
        let checksum = ipv4_checksum(header);
        set_word(frame, IP_CHECKSUM_AT, checksum);
    }
}

/// Fails unless IPv4 header and UDP checksum of a frame are right, computed from its bytes alone. A UDP checksum
/// of 0 passes.
pub fn assert_checksums(frame: &[u8]) {
    assert_eq!(ipv4_sum(&frame[ETHERNET_LEN..ETHERNET_LEN + IPV4_LEN]), 0xffff, "IPv4 header checksum");
    let (ip, udp, payload) = parse(frame);
    assert!(
        udp.checksum == 0 || udp.checksum == right_checksum(&udp, &ip, payload),
        "UDP checksum {:#06x} instead of {:#06x}",
        udp.checksum,
        right_checksum(&udp, &ip, payload)
    );
}

/// Takes a forwarded frame apart, which has nothing behind its UDP payload.
pub fn parse(frame: &[u8]) -> (Ipv4Header, UdpHeader, &[u8]) {
    let (ip, rest) = Ipv4Header::from_slice(&frame[ETHERNET_LEN..]).expect("an IPv4 header");
    let (udp, payload) = UdpHeader::from_slice(rest).expect("a UDP header");
    assert_eq!(udp.length as usize, UDP_LEN + payload.len(), "UDP length");
    assert_eq!(ip.total_len as usize, frame.len() - ETHERNET_LEN, "IPv4 total length");
    (ip, udp, payload)
}

fn right_checksum(udp: &UdpHeader, ip: &Ipv4Header, payload: &[u8]) -> u16 {
    udp.calc_checksum_ipv4(ip, payload).expect("a payload that fits")
}

fn pseudo_header_sum(udp: &UdpHeader, ip: &Ipv4Header) -> u16 {
    let mut pseudo_header = Vec::new();
    pseudo_header.extend(ip.source);
    pseudo_header.extend(ip.destination);
    pseudo_header.extend([0, 17]);
    pseudo_header.extend(udp.length.to_be_bytes());
    ipv4_sum(&pseudo_header)
}

fn ipv4_checksum(header: &[u8]) -> u16 {
    let mut header = header.to_vec();
    header[10..12].fill(0);
    !ipv4_sum(&header)
}

/// RFC 1071's sum, word by word in network byte order.
fn ipv4_sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
