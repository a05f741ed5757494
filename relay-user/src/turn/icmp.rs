//! ICMP errors (RFC 8656 section 11.5, RFC 792, RFC 4443): those that come back for relayed data, and those that
//! the relay answers with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use relay_common::{checksum, clock::BootNanos};

use super::{
    address::{Family, PeerAddr, RelayedAddr},
    drops::DropReason,
    ip::{IpHeader, IpMeta},
    output::Output,
    own_addresses::Destination,
    server::Server,
    stun::{AttributeType, Class, Header, MessageWriter, Method, TransactionId},
};

/// An ICMP or ICMPv6 error about a datagram that left from a relayed transport address. Its family is the
/// peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// The destination of the quoted datagram; port 0 if it is not known.
    pub peer: PeerAddr,
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The next hop's MTU in bytes, where the error tells it; else 0.
    pub mtu: u32,
}

/// An ICMP or ICMPv6 error to be sent. Its family is that of both addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpMessage {
    /// Our address that the offending packet was for.
    pub source: IpAddr,
    /// Who sent the offending packet.
    pub destination: IpAddr,
    /// Everything after the IP header.
    pub bytes: Vec<u8>,
}

/// A received datagram, as far as an ICMP error quotes it. Addresses are as they were on the wire of this host:
/// a NAT in front of it that maps an external address mends the quote as it does the error's own header.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// The listener or relayed address that it was for.
    pub destination: SocketAddr,
    /// What its IP header said.
    pub meta: IpMeta,
    /// All of the UDP payload.
    pub payload: &'a [u8],
}

/// The room that a Data indication needs beside the data, by which a peer is told of a smaller MTU (RFC 8656
/// sections 13.2 and 13.3).
const DATA_INDICATION_ROOM: u32 = 48;

/// By which a packet grows from IPv4 to IPv6.
const IPV6_GROWTH: u32 = 20;

/// The longest ICMPv4 error (RFC 1812 section 4.3.2.3).
const MAX_ICMPV4_LEN: usize = 576;

/// The longest ICMPv6 error (RFC 4443 section 2.4(c)).
const MAX_ICMPV6_LEN: usize = 1280;

const ICMP_HEADER_LEN: usize = 8;
const UDP_PROTOCOL: u8 = 17;
const ICMPV6_PROTOCOL: u8 = 58;

/// Type and code of the errors that the server makes, by family.
const fn time_exceeded(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (11, 0),
        Family::V6 => (3, 0),
    }
}

const fn too_big(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (3, 4),
        Family::V6 => (2, 0),
    }
}

impl Server {
    /// An ICMP error for its client (RFC 8656 section 11.5). Who sent it is not asked.
    pub(super) fn relay_icmp(&mut self, relayed: RelayedAddr, error: IcmpError) -> Result<(), DropReason> {
        let IcmpError { peer: PeerAddr(peer), kind, code, mtu } = error;
        let family = relayed.family();
        let is_relayed = match family {
            Family::V4 => matches!(kind, 3 | 11),
            Family::V6 => matches!(kind, 1..=3),
        };
        if !is_relayed || Family::of(peer.ip()) != family {
            return Err(DropReason::IcmpType);
        }
        let allocation = self.allocations.of_relayed(relayed).ok_or(DropReason::NoRelayedAddress)?;
        if !allocation.permits(peer.ip()) {
            return Err(DropReason::PeerNotPermitted);
        }
        let mut transaction_id = TransactionId([0; 12]);
        self.rng.fill_bytes(&mut transaction_id.0);
        let mut indication =
            MessageWriter::new(Header { class: Class::Indication, method: Method::DATA, transaction_id });
        let tells_mtu = match family {
            Family::V4 => (kind, code) == too_big(family),
            Family::V6 => kind == too_big(family).0,
        };
        let error_data = if tells_mtu { mtu } else { 0 };
        let [d0, d1, d2, d3] = error_data.to_be_bytes();
        indication
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer)
            .attribute(AttributeType::ICMP, &[0, 0, kind, code, d0, d1, d2, d3]);
        self.effects.outputs.push_back(Output::ToClient {
            five_tuple: allocation.origin.five_tuple,
            ip: IpHeader::default(),
            datagram: indication.finish(),
        });
        Ok(())
    }

    /// Tells the sender that the TTL or hop limit was used up here.
    pub(super) fn answer_time_exceeded(&mut self, now: BootNanos, received: &Received<'_>) {
        self.answer_icmp(now, received, time_exceeded(Family::of(received.source.ip())), 0);
    }

    /// Tells the sender the MTU of the link, on which the other family or the client's overhead leaves less for
    /// its data. An IPv4 sender that did not set DF has not asked.
    pub(super) fn answer_too_big(
        &mut self,
        now: BootNanos,
        received: &Received<'_>,
        link: Family,
        link_mtu: u32,
    ) {
        let family = Family::of(received.source.ip());
        if family == Family::V4 && received.meta.dont_fragment != Some(true) {
            return;
        }
        let from_peer = matches!(self.own.resolve(received.destination), Destination::Relayed(_));
        let room = if from_peer { DATA_INDICATION_ROOM } else { 0 };
        let growth = if (family, link) == (Family::V4, Family::V6) { IPV6_GROWTH } else { 0 };
        let mtu = link_mtu.saturating_sub(room + growth);
        let word = if family == Family::V4 { mtu.min(u16::MAX.into()) } else { mtu };
        self.answer_icmp(now, received, too_big(family), word);
    }

    /// Makes an ICMP error, unless it must not be (RFC 4443 section 2.4(e) and (f), RFC 1122 section 3.2.2). A
    /// datagram is no ICMP message, and came to an address of ours, so its source decides.
    fn answer_icmp(&mut self, now: BootNanos, received: &Received<'_>, (kind, code): (u8, u8), word: u32) {
        let (source, destination) = (received.destination.ip(), received.source.ip());
        if !is_one_host(destination) || !is_one_host(source) {
            return;
        }
        let Some(rate) = self.config.limits.icmp_rate() else { return };
        let Some(through) = rate.admit(self.icmp_through, now, 1) else { return };
        self.icmp_through = through;
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(word.to_be_bytes());
        bytes.extend(quote(received));
        let pseudo = match (source, destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut pseudo = [source.octets(), destination.octets()].concat();
                pseudo.extend((bytes.len() as u32).to_be_bytes());
                pseudo.extend([0, 0, 0, ICMPV6_PROTOCOL]);
                pseudo
            }
            _ => Vec::new(),
        };
        let sum = checksum::of(&bytes, u64::from(!checksum::of(&pseudo, 0)));
        bytes[2..4].copy_from_slice(&sum.to_ne_bytes());
        self.effects.outputs.push_back(Output::Icmp(IcmpMessage { source, destination, bytes }));
    }
}

/// Whether the address is that of one host, other than this one.
fn is_one_host(ip: IpAddr) -> bool {
    let not_one = ip.is_unspecified() || ip.is_multicast() || ip.is_loopback();
    match ip {
        // 0.0.0.0/8 is this network, 240.0.0.0/4 is reserved and holds the broadcast address.
        IpAddr::V4(v4) => !not_one && !matches!(v4.octets()[0], 0 | 240..),
        IpAddr::V6(v6) => !not_one && v6.to_ipv4_mapped().is_none(),
    }
}

/// The packet as it came, as much of it as an error may quote: header fields that are not known here (the IPv4
/// Identification, the flow label) are 0.
fn quote(received: &Received<'_>) -> Vec<u8> {
    let (mut packet, most) = match (received.source.ip(), received.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (ipv4_header(received, source, destination), MAX_ICMPV4_LEN - 20 - ICMP_HEADER_LEN)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (ipv6_header(received, source, destination), MAX_ICMPV6_LEN - 40 - ICMP_HEADER_LEN)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("a datagram has addresses of one family")
        }
    };
    packet.extend(udp_header(received));
    packet.extend(received.payload);
    packet.truncate(most);
    packet
}

fn ipv4_header(received: &Received<'_>, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let IpMeta { ttl, traffic_class, dont_fragment, .. } = received.meta;
    let total_len = (20 + udp_len(received)) as u16;
    let flags = if dont_fragment == Some(true) { 0x40 } else { 0 };
    let mut header = vec![0x45, traffic_class.unwrap_or(0)];
    header.extend(total_len.to_be_bytes());
    header.extend([0, 0, flags, 0, ttl.unwrap_or(0), UDP_PROTOCOL, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = checksum::of(&header, 0);
    header[10..12].copy_from_slice(&sum.to_ne_bytes());
    header
}

fn ipv6_header(received: &Received<'_>, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let IpMeta { ttl, traffic_class, .. } = received.meta;
    let traffic_class = traffic_class.unwrap_or(0);
    let mut header = vec![0x60 | traffic_class >> 4, traffic_class << 4, 0, 0];
    header.extend((udp_len(received) as u16).to_be_bytes());
    header.extend([UDP_PROTOCOL, ttl.unwrap_or(0)]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

fn udp_header(received: &Received<'_>) -> Vec<u8> {
    let udp_len = udp_len(received) as u16;
    let mut header = Vec::with_capacity(8);
    header.extend(received.source.port().to_be_bytes());
    header.extend(received.destination.port().to_be_bytes());
    header.extend(udp_len.to_be_bytes());
    header.extend([0, 0]);
    let mut pseudo = Vec::with_capacity(48);
    for address in [received.source.ip(), received.destination.ip()] {
        match address {
            IpAddr::V4(ip) => pseudo.extend(ip.octets()),
            IpAddr::V6(ip) => pseudo.extend(ip.octets()),
        }
    }
    pseudo.extend([0, UDP_PROTOCOL]);
    pseudo.extend(udp_len.to_be_bytes());
    pseudo.extend(&header);
    // All that comes before the payload is of even length.
    let before = !checksum::of(&pseudo, 0);
    let sum = checksum::udp_nonzero(checksum::of(received.payload, before.into()));
    header[6..8].copy_from_slice(&sum.to_ne_bytes());
    header
}

const fn udp_len(received: &Received<'_>) -> usize {
    8 + received.payload.len()
}
