//! Every IP packet that crosses loopback.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::IoSliceMut,
    net::IpAddr,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use etherparse::{Icmpv6Slice, NetSlice, SlicedPacket, TransportSlice};
use nix::sys::socket::{LinkAddr, MsgFlags, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};

use crate::scene::PATIENCE;

#[derive(Clone, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub class: u8,
    /// IPv4's.
    pub dont_fragment: Option<bool>,
    /// IPv6's.
    pub flow_label: Option<u32>,
    pub is_fragment: bool,
    pub has_extension_headers: bool,
    pub length: usize,
    /// Source and destination; `None` in a fragment.
    pub ports: Option<(u16, u16)>,
    pub icmp: Option<Icmp>,
}

/// An ICMP or ICMPv6 error.
#[derive(Clone, Debug)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub word: u32,
    pub quoted: Vec<u8>,
    pub checksum_is_right: bool,
    /// Of the whole packet.
    pub length: usize,
}

impl Icmp {
    pub fn quoted_ports(&self) -> (u16, u16) {
        let at = if self.quoted[0] >> 4 == 4 { 20 } else { 40 };
        let port = |at: usize| u16::from_be_bytes([self.quoted[at], self.quoted[at + 1]]);
        (port(at), port(at + 2))
    }
}

/// A packet socket, and what it has received.
pub struct Packets {
    socket: Socket,
    fresh: RefCell<VecDeque<Packet>>,
    /// Taken, or passed over.
    old: RefCell<Vec<Packet>>,
}

impl Packets {
    pub fn open() -> Self {
        const EVERY_PROTOCOL: u16 = libc::ETH_P_ALL as u16;
        let protocol = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).unwrap();
        socket.set_recv_buffer_size(8 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket, fresh: RefCell::default(), old: RefCell::default() }
    }

    /// The next packet of this kind; those before it are passed over.
    pub fn next(&self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let packet = self.fresh.borrow_mut().pop_front();
            let Some(packet) = packet else {
                assert!(Instant::now() < deadline, "no such packet among {:#?}", self.old.borrow());
                self.receive(MsgFlags::empty());
                continue;
            };
            self.old.borrow_mut().push(packet.clone());
            if wanted(&packet) {
                return packet;
            }
        }
    }

    /// Passes over all that there is so far.
    pub fn pass_over(&self) {
        while self.receive(MsgFlags::MSG_DONTWAIT) {}
        self.old.borrow_mut().extend(self.fresh.borrow_mut().drain(..));
    }

    /// Whether there was any of this kind so far.
    pub fn seen(&self, wanted: impl FnMut(&Packet) -> bool) -> bool {
        self.old.borrow().iter().chain(&*self.fresh.borrow()).any(wanted)
    }

    /// Takes a packet from the socket, if there is one; with no flags, it waits a little for it.
    fn receive(&self, flags: MsgFlags) -> bool {
        let mut buffer = vec![0; 1 << 16];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let Ok(received) = recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut parts, None, flags) else {
            return false;
        };
        let (length, from) = (received.bytes, received.address);
        // Loopback shows each packet as it leaves and as it comes in.
        if from.is_none_or(|from| from.pkttype() != libc::PACKET_OUTGOING) {
            self.fresh.borrow_mut().extend(parse(&buffer[..length]));
        }
        true
    }
}

fn parse(bytes: &[u8]) -> Option<Packet> {
    let sliced = SlicedPacket::from_ip(bytes).ok()?;
    let length = bytes.len();
    let (ports, icmp) = match &sliced.transport {
        Some(TransportSlice::Udp(udp)) => (Some((udp.source_port(), udp.destination_port())), None),
        Some(TransportSlice::Icmpv4(icmp)) => {
            let sum = relay_common::checksum::of(icmp.slice(), 0);
            (None, Some(error(icmp.slice(), sum == 0, length)))
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            (None, Some(error(icmp.slice(), is_right(icmp, &sliced), length)))
        }
        _ => (None, None),
    };
    Some(match sliced.net.as_ref()? {
        NetSlice::Ipv4(v4) => Packet {
            source: v4.header().source_addr().into(),
            destination: v4.header().destination_addr().into(),
            ttl: v4.header().ttl(),
            class: bytes[1],
            dont_fragment: Some(v4.header().dont_fragment()),
            flow_label: None,
            is_fragment: v4.header().is_fragmenting_payload(),
            has_extension_headers: v4.header().slice().len() > 20,
            length,
            ports,
            icmp,
        },
        NetSlice::Ipv6(v6) => Packet {
            source: v6.header().source_addr().into(),
            destination: v6.header().destination_addr().into(),
            ttl: v6.header().hop_limit(),
            class: bytes[0] << 4 | bytes[1] >> 4,
            dont_fragment: None,
            flow_label: Some(v6.header().flow_label().value()),
            is_fragment: v6.is_payload_fragmented(),
            has_extension_headers: !v6.extensions().is_empty(),
            length,
            ports,
            icmp,
        },
        NetSlice::Arp(_) => return None,
    })
}

fn is_right(icmp: &Icmpv6Slice<'_>, sliced: &SlicedPacket<'_>) -> bool {
    let Some(NetSlice::Ipv6(v6)) = &sliced.net else { return false };
    icmp.is_checksum_valid(v6.header().source(), v6.header().destination())
}

fn error(message: &[u8], checksum_is_right: bool, length: usize) -> Icmp {
    Icmp {
        kind: message[0],
        code: message[1],
        word: u32::from_be_bytes([message[4], message[5], message[6], message[7]]),
        quoted: message[8..].to_vec(),
        checksum_is_right,
        length,
    }
}
