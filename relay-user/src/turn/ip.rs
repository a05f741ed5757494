//! Fields of the IP header, as far as relaying carries them: always RFC 8656's preferred behaviour (sections 13
//! and 14), which is RFC 7915's between families. The kernel program does the same.

use super::address::Family;

/// What is known of the IP header of a received datagram. The default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IpMeta {
    /// TTL or hop limit on arrival.
    pub ttl: Option<u8>,
    /// DSCP and ECN: IPv4's TOS octet, IPv6's traffic class.
    pub traffic_class: Option<u8>,
    /// IPv4's DF bit; `None` for IPv6, too.
    pub dont_fragment: Option<bool>,
    /// Whether it came in fragments (IPv6: with a Fragment header).
    pub fragmented: bool,
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
    /// IPv6 only: it is sent in fragments of at most so many bytes, since nobody has asked for the path's MTU.
    AtMost(u16),
}

/// The largest IPv4 packet that leaves with DF=0 for an IPv6 packet that came whole: what any IPv6 link carries,
/// less the difference of the headers (RFC 7915 section 5.1).
const FRAGMENTABLE_IPV4_LEN: usize = 1260;

const UDP_HEADER_LEN: usize = 8;

impl Family {
    /// Bytes of an IP header without options or extension headers.
    pub(super) const fn ip_header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// The most that fits into one UDP datagram: IPv4's length field counts its header, IPv6's does not.
    pub(super) const fn max_udp_payload(self) -> usize {
        match self {
            Self::V4 => 65_535 - 20 - UDP_HEADER_LEN,
            Self::V6 => 65_535 - UDP_HEADER_LEN,
        }
    }
}

impl IpMeta {
    /// The header of the datagram of `payload_len` bytes of UDP payload that carries on what came in with this
    /// one. `None`: the TTL or hop limit would reach 0 (RFC 8656 sections 13.1 to 13.3 and 21.1.7).
    pub(super) fn carried_on(
        self,
        (from, to): (Family, Family),
        payload_len: usize,
        min_ipv6_mtu: u16,
    ) -> Option<IpHeader> {
        let ttl = match self.ttl {
            Some(0 | 1) => return None,
            Some(ttl) => Some(ttl - 1),
            None => None,
        };
        Some(IpHeader {
            ttl,
            traffic_class: self.traffic_class.unwrap_or(0),
            fragmentation: self.fragmentation((from, to), payload_len, min_ipv6_mtu),
        })
    }

    /// What becomes of that datagram where it does not fit. An unknown DF bit counts as 0 (section 14).
    pub(super) fn fragmentation(
        self,
        (from, to): (Family, Family),
        payload_len: usize,
        min_ipv6_mtu: u16,
    ) -> Fragmentation {
        let dont_fragment = self.dont_fragment == Some(true);
        let packet_len = to.ip_header_len() + UDP_HEADER_LEN + payload_len;
        match (from, to) {
            (Family::V4, _) if dont_fragment => Fragmentation::Never,
            (Family::V4, Family::V4) => Fragmentation::Allowed,
            (Family::V4, Family::V6) => at_most(min_ipv6_mtu, packet_len),
            // With a Fragment header of its own it would have to leave, even where it fits, which no host should
            // send any more (RFC 8021), so it is the alternate behaviour.
            (Family::V6, Family::V6) if self.fragmented => Fragmentation::Allowed,
            (Family::V6, Family::V6) => Fragmentation::Never,
            (Family::V6, Family::V4) if self.fragmented || packet_len <= FRAGMENTABLE_IPV4_LEN => {
                Fragmentation::Allowed
            }
            (Family::V6, Family::V4) => Fragmentation::Never,
        }
    }
}

const fn at_most(mtu: u16, packet_len: usize) -> Fragmentation {
    if packet_len > mtu as usize { Fragmentation::AtMost(mtu) } else { Fragmentation::Allowed }
}
