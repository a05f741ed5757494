//! Packets as they come and go at a NIC, one by one: for what sockets do not tell of the IP header.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use xtask::lab::Namespace;

use crate::scene::PATIENCE;

/// An IP packet.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    /// IPv4's DF bit and Identification.
    pub(crate) ipv4: Option<(bool, u16)>,
    pub(crate) flow_label: Option<u32>,
    pub(crate) is_fragment: bool,
    /// Bytes, the IP header among them.
    pub(crate) length: usize,
    pub(crate) transport: Transport,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Not in a fragment.
    Udp {
        source: u16,
        destination: u16,
    },
    /// ICMP or ICMPv6: type, code, and the word after the checksum.
    Icmp(u8, u8, u32),
    Other,
}

impl Packet {
    /// A whole UDP datagram between these two.
    pub(crate) fn is_between(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let ports = Transport::Udp { source: from.port(), destination: to.port() };
        (self.source, self.destination) == (from.ip(), to.ip()) && self.transport == ports
    }
}

/// A packet socket on a NIC.
pub(crate) struct Tap(OwnedFd);

impl Tap {
    pub(crate) fn open(namespace: &Namespace, nic: &str) -> Self {
        const RECEIVE_BUFFER: usize = 8 << 20;
        let open = || -> nix::Result<OwnedFd> {
            let tap =
                socket(AddressFamily::Packet, SockType::Datagram, SockFlag::empty(), SockProtocol::EthAll)?;
            setsockopt(&tap, RcvBufForce, &RECEIVE_BUFFER)?;
            setsockopt(&tap, ReceiveTimeout, &TimeVal::seconds(PATIENCE.as_secs().cast_signed()))?;
            bind_to(&tap, nic)?;
            Ok(tap)
        };
        Self(namespace.run(open).expect("root may"))
    }

    /// The next packet of this kind; those before it are passed over.
    pub(crate) fn next(&self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        loop {
            let packet = self.receive(MsgFlags::empty()).expect("such a packet comes");
            if let Some(packet) = packet.filter(&wanted) {
                return packet;
            }
        }
    }

    /// All that have come so far.
    pub(crate) fn drain(&self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some(packet) = self.receive(MsgFlags::MSG_DONTWAIT) {
            packets.extend(packet);
        }
        packets
    }

    /// A packet, unless there is none; it may be none of IP's.
    fn receive(&self, flags: MsgFlags) -> Option<Option<Packet>> {
        let mut buffer = vec![0; 1 << 16];
        match recv(self.0.as_raw_fd(), &mut buffer, flags) {
            Ok(length) => Some(parse(&buffer[..length])),
            Err(Errno::EAGAIN) => None,
            Err(error) => panic!("the tap does not work: {error}"),
        }
    }
}

fn bind_to(tap: &OwnedFd, nic: &str) -> nix::Result<()> {
    // SAFETY: all zeros is a valid address of this kind.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = nix::net::if_::if_nametoindex(nic)?.cast_signed();
    // SAFETY: the address is whole, of its family, and lives for the call.
    let result = unsafe {
        libc::bind(tap.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    Errno::result(result).map(drop)
}

fn parse(bytes: &[u8]) -> Option<Packet> {
    let sliced = SlicedPacket::from_ip(bytes).ok()?;
    let word = |message: &[u8]| u32::from_be_bytes(message[4..8].try_into().expect("4 bytes"));
    let transport = match &sliced.transport {
        Some(TransportSlice::Udp(udp)) => {
            Transport::Udp { source: udp.source_port(), destination: udp.destination_port() }
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            Transport::Icmp(icmp.type_u8(), icmp.code_u8(), word(icmp.slice()))
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            Transport::Icmp(icmp.type_u8(), icmp.code_u8(), word(icmp.slice()))
        }
        _ => Transport::Other,
    };
    Some(match sliced.net.as_ref()? {
        NetSlice::Ipv4(ip) => Packet {
            source: ip.header().source_addr().into(),
            destination: ip.header().destination_addr().into(),
            ttl: ip.header().ttl(),
            traffic_class: bytes[1],
            ipv4: Some((ip.header().dont_fragment(), ip.header().identification())),
            flow_label: None,
            is_fragment: ip.header().is_fragmenting_payload(),
            length: bytes.len(),
            transport,
        },
        NetSlice::Ipv6(ip) => Packet {
            source: ip.header().source_addr().into(),
            destination: ip.header().destination_addr().into(),
            ttl: ip.header().hop_limit(),
            traffic_class: bytes[0] << 4 | bytes[1] >> 4,
            ipv4: None,
            flow_label: Some(ip.header().flow_label().value()),
            is_fragment: ip.is_payload_fragmented(),
            length: bytes.len(),
            transport,
        },
        NetSlice::Arp(_) => return None,
    })
}
