//! Addresses and numbers that must not be mixed up, each a type of its own.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use relay_common::channel_data::{CHANNEL_MAX, CHANNEL_MIN, RFC5766_CHANNEL_MAX};

/// How a client reaches the server (RFC 8656 section 2). Each transport makes a 5-tuple of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Plain UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp => f.write_str("udp"),
        }
    }
}

/// An address family, as REQUESTED-ADDRESS-FAMILY numbers them (RFC 8656 section 18.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4 = 1,
    /// IPv6.
    V6 = 2,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of this number, if it is one that is known here.
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }
}

/// The client's transport address as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddr(pub SocketAddr);

/// The server's transport address that the client sends to: one of the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerAddr(pub SocketAddr);

/// A relayed transport address: what peers see of an allocation, on the host itself (before any mapping to
/// an external address).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayedAddr(pub SocketAddr);

impl RelayedAddr {
    /// Its address family.
    pub const fn family(self) -> Family {
        Family::of(self.0.ip())
    }
}

/// A peer's transport address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerAddr(pub SocketAddr);

impl From<RelayedAddr> for PeerAddr {
    /// A relayed transport address as the peer of another allocation.
    fn from(RelayedAddr(address): RelayedAddr) -> Self {
        Self(address)
    }
}

macro_rules! display_address {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_address!(ClientAddr, ServerAddr, RelayedAddr, PeerAddr);

/// Client address and port, server address and port, and transport (RFC 8656 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    /// The client's side.
    pub client: ClientAddr,
    /// The listener's side.
    pub server: ServerAddr,
    /// How the two talk.
    pub transport: Transport,
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}->{}", self.transport, self.client, self.server)
    }
}

/// A channel number that a client may bind: 0x4000 to 0x4FFF (RFC 8656 section 12), or, where the server is so
/// configured, to 0x7FFF (RFC 5766 section 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The number, if it may be bound.
    pub const fn new(number: u16) -> Option<Self> {
        if number >= CHANNEL_MIN && number <= CHANNEL_MAX { Some(Self(number)) } else { None }
    }

    /// The number, if it may be bound by RFC 5766.
    pub const fn rfc5766(number: u16) -> Option<Self> {
        if number >= CHANNEL_MIN && number <= RFC5766_CHANNEL_MAX { Some(Self(number)) } else { None }
    }

    /// The number in host byte order.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ChannelNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_5_tuple_is_shown_with_its_transport_and_both_ends() {
        let five_tuple = FiveTuple {
            client: ClientAddr("[2001:db8::1]:4000".parse().unwrap()),
            server: ServerAddr("[2001:db8::2]:3478".parse().unwrap()),
            transport: Transport::Udp,
        };
        assert_eq!(five_tuple.to_string(), "udp:[2001:db8::1]:4000->[2001:db8::2]:3478");
    }
}
