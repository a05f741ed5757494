//! What Linux would make of a frame, written from RFCs and the kernel's own rules, apart from the program: which
//! datagram a socket of the daemon would be given, if any, and which reasons there are not to forward the frame.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use relay_common::outcome::Outcome;
use relay_user::{net::next_hop::Tag, turn::IpMeta};

use crate::{
    packet::{
        CUSTOMER_TAG, IPV4, IPV6, MORE_FRAGMENTS, SERVICE_TAG, UDP, ones_sum, udp_checksum,
        unfinished_checksum,
    },
    reasons::Reasons,
};

/// What the host is to frames.
pub trait Host {
    /// The MAC address of an interface, or of the VLAN device with these tags on it, that the program serves.
    fn mac(&self, ingress: usize, tags: [Option<Tag>; 2]) -> Option<[u8; 6]>;
    /// Whether the relay uses a transport address, and as what.
    fn endpoint(&self, address: SocketAddr) -> Option<Endpoint>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Listener,
    Relayed,
}

/// Whether a frame is the program's to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    No,
    /// It is so broken, or so odd, that either is right.
    Perhaps,
    Yes,
}

/// What is known of a frame.
#[derive(Clone, Debug)]
pub struct Reception {
    pub ours: Ours,
    /// Each of these is a true reason not to forward it, whatever the flows are.
    pub reasons: Reasons,
    /// These are, too, but it may be forwarded all the same.
    pub excuses: Reasons,
    /// Where the UDP header ends.
    udp_end: usize,
    /// What a socket would be given.
    pub datagram: Option<Datagram>,
}

#[derive(Clone, Debug)]
pub struct Datagram {
    pub endpoint: Endpoint,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub meta: IpMeta,
    pub checksum: Came,
    /// Of the frame.
    pub payload: Range<usize>,
    /// The application data in the frame, if there are any that might be relayed.
    pub data: Option<Range<usize>>,
    /// Where everything ends that must be read to tell where the data goes: an attribute may stand behind them.
    pub headers_end: usize,
    /// Whom a client's data is for.
    pub to: Option<To>,
}

/// How a client says whom its data is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Channel(u16),
    Peer { is_ipv6: bool },
}

/// A client's data, within the datagram.
struct FromClient {
    data: Range<usize>,
    headers_end: usize,
    to: To,
}

/// How the UDP checksum came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    Right,
    None,
    Wrong,
}

const NOT_OURS: Reception =
    Reception { ours: Ours::No, reasons: Reasons::NONE, excuses: Reasons::NONE, udp_end: 0, datagram: None };

/// Receives a frame from an interface, so much of it in the first piece of memory. To the kernel it is all the same.
pub fn receive(frame: &[u8], (ingress, first_piece): (usize, usize), host: &impl Host) -> Reception {
    let mut tags = [None; 2];
    let mut count = 0;
    let mut priority = false;
    let mut at = 12;
    let kind = loop {
        let Some(kind) = word(frame, at) else { return NOT_OURS };
        at += 2;
        if kind != CUSTOMER_TAG && kind != SERVICE_TAG {
            break kind;
        }
        let Some(control) = word(frame, at) else { return NOT_OURS };
        at += 2;
        let id = control & 0xfff;
        // A priority tag: to the kernel, the frame is as if it had none.
        if id == 0 {
            priority = true;
            continue;
        }
        if count == 2 || count == 1 && kind == SERVICE_TAG {
            return NOT_OURS;
        }
        tags[count] = Some(Tag { id, service: kind == SERVICE_TAG });
        count += 1;
    };
    let mac = host.mac(ingress, tags);
    if count > 0 && mac.is_none() {
        return NOT_OURS;
    }
    let is_for_us = mac.is_some_and(|mac| frame[..6] == mac);
    let mut reception = match kind {
        IPV4 => receive_ipv4(frame, at, is_for_us, host),
        IPV6 => receive_ipv6(frame, at, is_for_us, host),
        _ => NOT_OURS,
    };
    if reception.ours == Ours::Yes && (priority || reception.udp_end > first_piece) {
        reception.ours = Ours::Perhaps;
    }
    // What lies in another piece cannot be read, whatever it is.
    // (Of a datagram that nobody is given nobody has said where its headers end.)
    let headers_end = reception.datagram.as_ref().map_or(frame.len(), |datagram| datagram.headers_end);
    reception.excuses.add_if(headers_end > first_piece, Outcome::Indication);
    reception.excuses.add_if(reception.udp_end + 4 > first_piece, Outcome::Control);
    reception.excuses.add_if(first_piece < frame.len(), Outcome::NonLinear);
    reception
}

fn receive_ipv4(frame: &[u8], at: usize, is_for_us: bool, host: &impl Host) -> Reception {
    let Some(header) = frame.get(at..at + 20) else { return NOT_OURS };
    let header_len = (header[0] & 15) as usize * 4;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if header[0] >> 4 != 4 || header_len < 20 || header[9] != UDP || fragment & 0x1fff != 0 {
        return NOT_OURS;
    }
    let ip = |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (source, destination) = (ip(12), ip(16));
    let mut reasons = Reasons::default();
    reasons.add_if(header_len > 20, Outcome::IpOptions);
    reasons.add_if(fragment & MORE_FRAGMENTS != 0, Outcome::Fragment);
    reasons.add_if(!is_for_us, Outcome::ForeignMac);
    reasons.add_if(header[8] <= 1, Outcome::Ttl);
    let whole_header = frame.get(at..at + header_len);
    let checksum_is_right = whole_header.is_some_and(|header| ones_sum(header, 0) == 0xffff);
    reasons.add_if(!checksum_is_right, Outcome::IpChecksum);
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let meta = IpMeta {
        ttl: Some(header[8]),
        traffic_class: Some(header[1]),
        dont_fragment: Some(fragment & 0x4000 != 0),
        fragmented: false,
    };
    let udp = (at + header_len, at + total_len);
    receive_udp(frame, udp, (source, destination), meta, reasons, host)
}

fn receive_ipv6(frame: &[u8], at: usize, is_for_us: bool, host: &impl Host) -> Reception {
    let Some(header) = frame.get(at..at + 40) else { return NOT_OURS };
    // Extension headers are the kernel's business.
    if header[0] >> 4 != 6 || header[6] != UDP {
        return NOT_OURS;
    }
    let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap());
    let (source, destination) = (ip(8), ip(24));
    let mut reasons = Reasons::default();
    reasons.add_if(!is_for_us, Outcome::ForeignMac);
    reasons.add_if(header[7] <= 1, Outcome::Ttl);
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let meta = IpMeta {
        ttl: Some(header[7]),
        traffic_class: Some(header[0] << 4 | header[1] >> 4),
        dont_fragment: None,
        fragmented: false,
    };
    receive_udp(frame, (at + 40, at + 40 + payload_len), (source, destination), meta, reasons, host)
}

/// The datagram whose header is at `at`, in an IP packet that says that it ends at `end`.
fn receive_udp(
    frame: &[u8],
    (at, end): (usize, usize),
    (source, destination): (IpAddr, IpAddr),
    meta: IpMeta,
    mut reasons: Reasons,
    host: &impl Host,
) -> Reception {
    let (Some(source_port), Some(destination_port)) = (word(frame, at), word(frame, at + 2)) else {
        return NOT_OURS;
    };
    let source = SocketAddr::new(source, source_port);
    let destination = SocketAddr::new(destination, destination_port);
    let Some(endpoint) = host.endpoint(destination) else { return NOT_OURS };
    let (Some(udp_len), Some(checksum)) = (word(frame, at + 4), word(frame, at + 6)) else {
        reasons.add(Outcome::UdpLength);
        return Reception { ours: Ours::Perhaps, reasons, ..NOT_OURS };
    };
    // A datagram over IPv6 with length 0 is a jumbogram, to the kernel; nothing in this packet says so (RFC 2675).
    let udp_end = at + udp_len as usize;
    if udp_len < 8 || udp_end > end || end > frame.len() {
        reasons.add(Outcome::UdpLength);
        return Reception { ours: Ours::Yes, reasons, udp_end: at + 8, ..NOT_OURS };
    }
    let addresses = (source.ip(), destination.ip());
    let came = match checksum {
        0 => Came::None,
        _ if checksum == udp_checksum(addresses, &frame[at..udp_end]) => Came::Right,
        // Minus zero, which nobody sends, is as good.
        0xffff if ones_sum(&frame[at..udp_end], unfinished_checksum(addresses, udp_len)) == 0xffff => {
            Came::Right
        }
        _ => Came::Wrong,
    };
    reasons.add_if(checksum == unfinished_checksum(addresses, udp_len), Outcome::PartialChecksum);
    reasons.add_if(came == Came::None && destination.is_ipv6(), Outcome::Ipv6ZeroChecksum);

    let payload = at + 8..udp_end;
    let mut excuses = Reasons::default();
    let (data, headers_end, to) = match endpoint {
        Endpoint::Relayed => {
            // Nobody can answer to port 0: the program leaves it to the slow path.
            reasons.add_if(source_port == 0, Outcome::NoFlow);
            (Some(payload.clone()), payload.start, None)
        }
        Endpoint::Listener => {
            let start = payload.start;
            match from_client(&frame[payload.clone()], &mut reasons, &mut excuses) {
                Some(FromClient { data, headers_end, to }) => {
                    (Some(start + data.start..start + data.end), start + headers_end, Some(to))
                }
                None => (None, start, None),
            }
        }
    };
    const NEVER_DELIVERED: [Outcome; 5] = [
        Outcome::IpOptions,
        Outcome::Fragment,
        Outcome::ForeignMac,
        Outcome::IpChecksum,
        Outcome::Ipv6ZeroChecksum,
    ];
    let is_delivered =
        !NEVER_DELIVERED.iter().any(|&reason| reasons.contains(reason)) && is_one_host(source.ip());
    let datagram =
        Datagram { endpoint, source, destination, meta, checksum: came, payload, data, headers_end, to };
    let datagram = is_delivered.then_some(datagram);
    Reception { ours: Ours::Yes, reasons, excuses, udp_end: at + 8, datagram }
}

/// The kernel takes nothing that says it comes from these (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7).
fn is_one_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !matches!(ip.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(ip) => !ip.is_multicast() && ![Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED].contains(&ip),
    }
}

/// What a client's datagram holds. Without data there is a reason.
fn from_client(payload: &[u8], reasons: &mut Reasons, excuses: &mut Reasons) -> Option<FromClient> {
    match payload.first() {
        Some(0..=3) => match send_indication(payload, excuses) {
            Some(sent) => return Some(sent),
            None => {
                let is_send = payload.starts_with(&[0, 0x16]) && payload.len() >= 4;
                reasons.add(if is_send { Outcome::Indication } else { Outcome::Control });
            }
        },
        Some(20..=63) => reasons.add(Outcome::Control),
        Some(64..=127) => {
            let Some(len) = word(payload, 2) else {
                reasons.add(Outcome::ChannelDataLength);
                return None;
            };
            let data = 4..4 + len as usize;
            if data.end > payload.len() {
                reasons.add(Outcome::ChannelDataLength);
                return None;
            }
            reasons.add_if(payload.len() - data.end > 3, Outcome::Trailer);
            return Some(FromClient { data, headers_end: 4, to: To::Channel(word(payload, 0)?) });
        }
        Some(4..=19 | 128..) | None => reasons.add(Outcome::NotTurn),
    }
    None
}

/// What a Send indication of the usual form holds: one XOR-PEER-ADDRESS, one DATA,
/// perhaps SOFTWARE, perhaps FINGERPRINT at the end, nothing else, and nothing behind.
fn send_indication(message: &[u8], excuses: &mut Reasons) -> Option<FromClient> {
    let (header, _) = message.split_at_checked(20)?;
    if header[..2] != [0, 0x16]
        || usize::from(word(header, 2)?) + 20 != message.len()
        || !message.len().is_multiple_of(4)
        || header[4..8] != [0x21, 0x12, 0xa4, 0x42]
    {
        return None;
    }
    let (mut peer, mut data, mut software) = (None, None, false);
    let mut headers_end = 0;
    let mut at = 20;
    while at < message.len() {
        let (kind, len) = (word(message, at)?, word(message, at + 2)? as usize);
        let value = at + 4..at + 4 + len;
        at = value.end.next_multiple_of(4);
        if at > message.len() {
            return None;
        }
        match kind {
            0x0012
                if peer.is_none()
                    && matches!((message.get(value.start + 1), len), (Some(1), 8) | (Some(2), 20)) =>
            {
                let port = word(message, value.start + 2)? ^ 0x2112;
                if port == 0 {
                    return None;
                }
                headers_end = headers_end.max(value.end);
                peer = Some(To::Peer { is_ipv6: len == 20 });
            }
            0x0013 if data.is_none() => {
                headers_end = headers_end.max(value.start);
                data = Some(value);
            }
            0x8022 => {
                // Clients with so much to say are rare, and of repeated ones only the first counts.
                excuses.add_if(software || len > 64, Outcome::Indication);
                headers_end = headers_end.max(value.end);
                software = true;
            }
            0x8028 if len == 4 && at == message.len() => headers_end = headers_end.max(value.end),
            _ => return None,
        }
    }
    Some(FromClient { data: data?, headers_end, to: peer? })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}
