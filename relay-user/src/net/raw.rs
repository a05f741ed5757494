//! IP packets that no UDP socket sends: ICMP errors, and IPv6 fragments smaller than the link would take.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, sendmsg};
use relay_common::checksum;
use socket2::{Domain, Protocol, Socket, Type};

use crate::turn::{IcmpMessage, IpHeader};

/// TTL and hop limit of what begins here.
const TTL: u8 = 64;
const ICMP: u8 = 1;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const IPV6_LEN: usize = 40;
const FRAGMENT_HEADER_LEN: usize = 8;
const UDP_LEN: usize = 8;

/// Sockets that send whole IP packets and receive nothing (`IPPROTO_RAW`).
pub(super) struct RawSockets {
    v4: Socket,
    /// `None` where the kernel has no IPv6.
    v6: Option<Socket>,
}

impl RawSockets {
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub(super) fn open() -> io::Result<Self> {
        let open = |domain| {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_nonblocking(true).map(|()| socket)
        };
        let v6 = match open(Domain::IPV6) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            socket => Some(socket?),
        };
        Ok(Self { v4: open(Domain::IPV4)?, v6 })
    }

    /// Sends an ICMP error.
    pub(super) fn send_icmp(&self, message: &IcmpMessage) -> io::Result<()> {
        match (message.source, message.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.send_v4(&icmp_packet(source, destination, &message.bytes), source, destination)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet = ipv6_header(source, destination, 0, TTL, ICMPV6, message.bytes.len());
                packet.extend(&message.bytes);
                self.send_v6(&packet, source, SocketAddrV6::new(destination, 0, 0, 0))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
        }
    }

    /// Sends a UDP datagram in IPv6 fragments of at most `mtu` bytes each.
    pub(super) fn send_fragments(
        &self,
        source: SocketAddrV6,
        destination: SocketAddrV6,
        ip: IpHeader,
        data: &[u8],
        mtu: u16,
    ) -> io::Result<()> {
        let to = SocketAddrV6::new(*destination.ip(), 0, 0, destination.scope_id());
        for packet in fragments(source, destination, ip, data, mtu, rand::random()) {
            self.send_v6(&packet, *source.ip(), to)?;
        }
        Ok(())
    }

    fn send_v4(&self, packet: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> io::Result<()> {
        // The route is found for this source, as for what the other sockets send.
        let from = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
        let control = [ControlMessage::Ipv4PacketInfo(&from)];
        sendmsg(self.v4.as_raw_fd(), &[IoSlice::new(packet)], &control, MsgFlags::empty(), Some(&to))?;
        Ok(())
    }

    fn send_v6(&self, packet: &[u8], source: Ipv6Addr, destination: SocketAddrV6) -> io::Result<()> {
        let socket = self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let from =
            libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: 0 };
        let to = SockaddrIn6::from(destination);
        let control = [ControlMessage::Ipv6PacketInfo(&from)];
        sendmsg(socket.as_raw_fd(), &[IoSlice::new(packet)], &control, MsgFlags::empty(), Some(&to))?;
        Ok(())
    }
}

/// The kernel fills in total length, Identification and header checksum.
fn icmp_packet(source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, TTL, ICMP, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(message);
    packet
}

/// Flow label 0, which is one of the two that RFC 8656 section 13.1 has.
fn ipv6_header(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    traffic_class: u8,
    hop_limit: u8,
    next_header: u8,
    payload_len: usize,
) -> Vec<u8> {
    let mut header = vec![0x60 | traffic_class >> 4, traffic_class << 4, 0, 0];
    header.extend((payload_len as u16).to_be_bytes());
    header.extend([next_header, hop_limit]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header
}

/// The fragments of a UDP datagram (RFC 8200 section 4.5).
fn fragments(
    source: SocketAddrV6,
    destination: SocketAddrV6,
    ip: IpHeader,
    data: &[u8],
    mtu: u16,
    identification: u32,
) -> Vec<Vec<u8>> {
    let datagram = udp_datagram(source, destination, data);
    // All but the last are of a multiple of 8 bytes.
    let room = (usize::from(mtu) - IPV6_LEN - FRAGMENT_HEADER_LEN) / 8 * 8;
    let packet = |(number, part): (usize, &[u8])| {
        let offset = number * room;
        let more = u16::from(offset + part.len() < datagram.len());
        let mut packet = ipv6_header(
            *source.ip(),
            *destination.ip(),
            ip.traffic_class,
            ip.ttl.unwrap_or(TTL),
            FRAGMENT,
            FRAGMENT_HEADER_LEN + part.len(),
        );
        packet.extend([UDP, 0]);
        packet.extend((offset as u16 | more).to_be_bytes());
        packet.extend(identification.to_be_bytes());
        packet.extend(part);
        packet
    };
    datagram.chunks(room).enumerate().map(packet).collect()
}

fn udp_datagram(source: SocketAddrV6, destination: SocketAddrV6, data: &[u8]) -> Vec<u8> {
    let length = UDP_LEN + data.len();
    let mut datagram = Vec::with_capacity(length);
    datagram.extend(source.port().to_be_bytes());
    datagram.extend(destination.port().to_be_bytes());
    datagram.extend((length as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    let mut pseudo = [source.ip().octets(), destination.ip().octets()].concat();
    pseudo.extend((length as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, UDP]);
    let sum = checksum::udp_nonzero(checksum::of(&datagram, u64::from(!checksum::of(&pseudo, 0))));
    datagram[6..8].copy_from_slice(&sum.to_ne_bytes());
    datagram
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportHeader, UdpHeader};

    use super::*;

    #[test]
    fn turn_182_fragments_are_within_the_mtu_and_put_together_make_the_datagram() {
        let source = "[2001:db8::1]:50000".parse().unwrap();
        let destination = "[2001:db8::2]:5000".parse().unwrap();
        let ip = IpHeader { ttl: Some(59), traffic_class: 0xb9, ..IpHeader::default() };
        for length in [1233, 1400, 2456, 2457, 65_000] {
            let data = (0..length).map(|i| (i * 7) as u8).collect::<Vec<_>>();
            let mut whole = Vec::new();
            let packets = fragments(source, destination, ip, &data, 1280, 77);
            for (number, packet) in packets.iter().enumerate() {
                assert!(packet.len() <= 1280);
                let sliced = SlicedPacket::from_ip(packet).unwrap();
                let Some(NetSlice::Ipv6(v6)) = sliced.net else { panic!("IPv6") };
                let header = v6.header();
                assert_eq!((header.hop_limit(), header.traffic_class()), (59, 0xb9));
                assert_eq!(packet[4..6], ((packet.len() - 40) as u16).to_be_bytes());
                assert_eq!(packet[40..42], [17, 0]);
                let offset = u16::from_be_bytes([packet[42], packet[43]]);
                assert_eq!(usize::from(offset & !7), whole.len());
                assert_eq!(offset & 7, u16::from(number + 1 < packets.len()));
                assert_eq!(packet[44..48], 77u32.to_be_bytes());
                whole.extend(&packet[48..]);
            }
            let (udp, payload) = UdpHeader::from_slice(&whole).unwrap();
            assert_eq!(payload, data);
            assert_eq!((udp.source_port, udp.destination_port), (50_000, 5000));
            let octets = [source, destination].map(|address: SocketAddrV6| address.ip().octets());
            let sum = udp.calc_checksum_ipv6_raw(octets[0], octets[1], payload).unwrap();
            assert_eq!(
                TransportHeader::Udp(udp.clone()),
                TransportHeader::Udp(UdpHeader { checksum: sum, ..udp })
            );
        }
    }
}
