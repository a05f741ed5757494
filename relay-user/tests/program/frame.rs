//! Frames of both families from a description. etherparse computes every checksum from scratch, so what the program
//! updates step by step is compared with something that it has no code in common with.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpDscp, IpEcn, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, UdpHeader};
use relay_user::{net::next_hop::Tag, turn::Family};

pub const ETHERNET_LEN: usize = 14;
pub const TAG_LEN: usize = 4;
pub const UDP_LEN: usize = 8;
/// Where the EtherType lies in an untagged frame.
pub const ETHER_TYPE_AT: usize = 12;

/// Bytes of an IP header without options or extension headers.
pub const fn ip_header_len(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

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

/// A UDP datagram in an Ethernet frame. Fields that only one family has are left out in the other.
#[derive(Clone, Debug)]
pub struct Frame {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    /// EtherType and tag control information of each VLAN tag, the outer first.
    pub tags: Vec<[u16; 2]>,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// IPv4's.
    pub identification: u16,
    /// IPv4's.
    pub dont_fragment: bool,
    /// IPv4's.
    pub more_fragments: bool,
    /// IPv4's, in units of 8 bytes.
    pub fragment_offset: u16,
    /// IPv4's.
    pub options: Vec<u8>,
    /// IPv6's.
    pub flow_label: u32,
    /// IPv6's extension headers: protocol number, and the header but for its first byte, which names the next.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Or the hop limit.
    pub ttl: u8,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub payload: Vec<u8>,
    pub checksum: Checksum,
    /// Inside the IP packet, behind what the UDP length covers.
    pub surplus: Vec<u8>,
    /// Behind the IP packet.
    pub ethernet_padding: Vec<u8>,
}

impl Frame {
    pub fn new(source: SocketAddr, destination: SocketAddr, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            destination_mac: [0; 6],
            source_mac: [0; 6],
            tags: Vec::new(),
            traffic_class: 0,
            identification: 0x1234,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            options: Vec::new(),
            flow_label: 0,
            extensions: Vec::new(),
            ttl: 64,
            source,
            destination,
            payload: payload.into(),
            checksum: Checksum::Right,
            surplus: Vec::new(),
            ethernet_padding: Vec::new(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.destination_mac);
        bytes.extend(self.source_mac);
        for [ether_type, control] in &self.tags {
            bytes.extend(ether_type.to_be_bytes());
            bytes.extend(control.to_be_bytes());
        }
        match self.family() {
            Family::V4 => {
                bytes.extend(0x0800u16.to_be_bytes());
                bytes.extend(self.ipv4_header());
            }
            Family::V6 => {
                bytes.extend(0x86ddu16.to_be_bytes());
                bytes.extend(self.ipv6_header());
            }
        }
        let mut udp = self.udp_header();
        udp.checksum = match self.checksum {
            Checksum::Right => self.right_checksum(),
            Checksum::None => 0,
            Checksum::Unfinished => self.unfinished_checksum(),
            Checksum::Exactly(checksum) => checksum,
        };
        bytes.extend(udp.to_bytes());
        bytes.extend(&self.payload);
        bytes.extend(&self.surplus);
        bytes.extend(&self.ethernet_padding);
        bytes
    }

    pub const fn family(&self) -> Family {
        Family::of(self.source.ip())
    }

    /// Where the IP header begins.
    pub fn ip_at(&self) -> usize {
        ETHERNET_LEN + TAG_LEN * self.tags.len()
    }

    /// Where the UDP header begins.
    pub fn udp_at(&self) -> usize {
        let extensions: usize = self.extensions.iter().map(|(_, rest)| 1 + rest.len()).sum();
        self.ip_at() + ip_header_len(self.family()) + self.options.len() + extensions
    }

    /// Where the UDP checksum lies.
    pub fn checksum_at(&self) -> usize {
        self.udp_at() + 6
    }

    /// Where the UDP payload begins.
    pub fn payload_at(&self) -> usize {
        self.udp_at() + UDP_LEN
    }

    /// Bytes of the IP packet.
    pub fn packet_len(&self) -> usize {
        self.payload_at() - self.ip_at() + self.payload.len() + self.surplus.len()
    }

    /// The UDP checksum that this datagram should have.
    pub fn right_checksum(&self) -> u16 {
        let udp = self.udp_header();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                udp.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                udp.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &self.payload)
            }
            _ => panic!("{} and {} are of two families", self.source, self.destination),
        }
        .expect("a payload that fits")
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

    fn ipv4_header(&self) -> Vec<u8> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (self.source.ip(), self.destination.ip()) else {
            panic!("{} and {} are of two families", self.source, self.destination)
        };
        let mut ip = Ipv4Header {
            dscp: IpDscp::try_new(self.traffic_class >> 2).expect("6 bits"),
            ecn: IpEcn::try_new(self.traffic_class & 3).expect("2 bits"),
            total_len: self.packet_len() as u16,
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            more_fragments: self.more_fragments,
            fragment_offset: self.fragment_offset.try_into().expect("13 bits"),
            time_to_live: self.ttl,
            protocol: IpNumber::UDP,
            source: source.octets(),
            destination: destination.octets(),
            options: Ipv4Options::try_from(&self.options[..]).expect("up to 40 bytes in fours"),
            ..Ipv4Header::default()
        };
        ip.header_checksum = ip.calc_header_checksum();
        ip.to_bytes().to_vec()
    }

    fn ipv6_header(&self) -> Vec<u8> {
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (self.source.ip(), self.destination.ip()) else {
            panic!("{} and {} are of two families", self.source, self.destination)
        };
        let protocols: Vec<u8> = self.extensions.iter().map(|&(protocol, _)| protocol).chain([17]).collect();
        let ip = Ipv6Header {
            traffic_class: self.traffic_class,
            flow_label: self.flow_label.try_into().expect("20 bits"),
            payload_length: (self.packet_len() - Ipv6Header::LEN) as u16,
            next_header: IpNumber(protocols[0]),
            hop_limit: self.ttl,
            source: source.octets(),
            destination: destination.octets(),
        };
        let mut bytes = ip.to_bytes().to_vec();
        for ((_, rest), next) in self.extensions.iter().zip(&protocols[1..]) {
            bytes.push(*next);
            bytes.extend(rest);
        }
        bytes
    }

    /// Without a checksum.
    fn udp_header(&self) -> UdpHeader {
        UdpHeader {
            source_port: self.source.port(),
            destination_port: self.destination.port(),
            length: (UDP_LEN + self.payload.len()) as u16,
            checksum: 0,
        }
    }

    fn unfinished_checksum(&self) -> u16 {
        let mut pseudo_header = Vec::new();
        for address in [self.source.ip(), self.destination.ip()] {
            match address {
                IpAddr::V4(address) => pseudo_header.extend(address.octets()),
                IpAddr::V6(address) => pseudo_header.extend(address.octets()),
            }
        }
        pseudo_header.extend([0, 17]);
        pseudo_header.extend(self.udp_header().length.to_be_bytes());
        sum(&pseudo_header)
    }
}

/// A VLAN tag as it lies in a frame: EtherType, and tag control information of priority 0.
pub const fn wire_tag(tag: Tag) -> [u16; 2] {
    [if tag.service { 0x88a8 } else { 0x8100 }, tag.id]
}

/// Overwrites a 16-bit field of a frame.
pub fn set_word(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A 16-bit field of a frame.
pub fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// Makes the checksum of the IPv4 header at `ip_at` right after a change to the header, if the frame holds it all.
pub fn repair_ip_checksum(frame: &mut [u8], ip_at: usize) {
    let Some(first) = frame.get(ip_at) else { return };
    let header_len = (usize::from(first & 0xf) * 4).max(20);
    if let Some(header) = frame.get_mut(ip_at..ip_at + header_len) {
        set_word(header, 10, 0);
        let checksum = !sum(header);
        set_word(header, 10, checksum);
    }
}

/// RFC 1071's sum, word by word in network byte order.
pub fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
