//! ICMP errors (RFC 8656 section 11.5, RFC 792, RFC 4443): those that come back for relayed data, and those that
//! the relay answers with.

use std::net::IpAddr;

use super::address::PeerAddr;

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
    /// Everything after the IP header. The checksum is right for ICMPv4; for ICMPv6 the kernel fills it in.
    pub bytes: Vec<u8>,
}
