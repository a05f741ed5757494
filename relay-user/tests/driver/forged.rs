//! ICMP errors as a router would send them, or somebody who pretends to be one.

use std::net::{IpAddr, SocketAddr};

use relay_common::checksum;
use socket2::{Domain, Protocol, Socket, Type};

/// An error about a UDP datagram, sent to its source.
#[derive(Clone, Copy)]
pub struct Error {
    pub kind: u8,
    pub code: u8,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Whether the quoted packet has an IPv6 Destination Options header before UDP.
    pub extension: bool,
    /// Bytes of the packet that are quoted, at most.
    pub quoted: usize,
}

impl Error {
    pub fn about(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { kind: 0, code: 0, source, destination, extension: false, quoted: usize::MAX }
    }

    pub fn send(&self) {
        // From an address of this host, or it would come from a host that is not there.
        let (from, to) = (self.source.ip(), self.source.ip());
        let mut message = vec![self.kind, self.code, 0, 0, 0, 0, 0, 0];
        let mut quote = self.quote();
        quote.truncate(self.quoted);
        message.extend(quote);
        let (protocol, pseudo) = match (from, to) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let length = (message.len() as u32).to_be_bytes();
                (58, [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, 58]].concat())
            }
            _ => (1, Vec::new()),
        };
        let sum = checksum::of(&message, u64::from(!checksum::of(&pseudo, 0)));
        message[2..4].copy_from_slice(&sum.to_ne_bytes());
        let packet = [ip_header(from, to, protocol, message.len()), message].concat();
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let to = SocketAddr::new(to, 0);
        let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(raw)).unwrap();
        socket.send_to(&packet, &to.into()).unwrap();
    }

    /// The packet that the error is about.
    fn quote(&self) -> Vec<u8> {
        let data = b"data";
        let length = 8 + data.len();
        let mut udp = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        udp.extend((length as u16).to_be_bytes());
        udp.extend([0x12, 0x34]);
        udp.extend(data);
        let (protocol, extension) = if self.extension {
            // UDP is next; 8 bytes, filled by PadN.
            (60, vec![17, 0, 1, 4, 0, 0, 0, 0])
        } else {
            (17, Vec::new())
        };
        let header =
            ip_header(self.source.ip(), self.destination.ip(), protocol, extension.len() + udp.len());
        [header, extension, udp].concat()
    }
}

fn ip_header(source: IpAddr, destination: IpAddr, protocol: u8, payload: usize) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + payload as u16).to_be_bytes());
            header.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            header.extend([source.octets(), destination.octets()].concat());
            let sum = checksum::of(&header, 0);
            header[10..12].copy_from_slice(&sum.to_ne_bytes());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((payload as u16).to_be_bytes());
            header.extend([protocol, 64]);
            header.extend([source.octets(), destination.octets()].concat());
            header
        }
        _ => unreachable!("addresses of one family"),
    }
}
