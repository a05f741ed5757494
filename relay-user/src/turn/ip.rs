//! Fields of the IP header, as far as relaying carries them (RFC 8656 sections 13 and 14).

/// What is known of the IP header of a received datagram. The default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IpMeta {
    /// TTL or hop limit on arrival.
    pub ttl: Option<u8>,
    /// DSCP and ECN: IPv4's TOS octet, IPv6's traffic class.
    pub traffic_class: Option<u8>,
    /// IPv4's DF bit; `None` for IPv6, too.
    pub dont_fragment: Option<bool>,
}

/// The IP header of a datagram to be sent. The default is the system's: what a response leaves with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IpHeader {
    /// TTL or hop limit; `None` for the system's default.
    pub ttl: Option<u8>,
    /// DSCP and ECN: IPv4's TOS octet, IPv6's traffic class.
    pub traffic_class: u8,
    /// What becomes of it where it does not fit the link.
    pub fragmentation: Fragmentation,
}

/// What becomes of a datagram that does not fit the outgoing link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragmentation {
    /// It is sent in fragments that fit (IPv4: DF=0).
    #[default]
    Allowed,
    /// It is not sent (IPv4: DF=1).
    Never,
    /// IPv6 only: it is sent in fragments of at most so many bytes, since it came as IPv4 with DF=0 and nobody
    /// has asked for the path's MTU (RFC 7915 section 4.1).
    AtMost(u16),
}
