//! What the operator decides about the core.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use ipnet::IpNet;
use relay_common::meter::Rate;

use super::{address::Family, opaque_string::opaque_string, policy::PeerPolicy};

/// Settings of a [`Server`](super::Server), which checks them.
#[derive(Clone, Debug)]
pub struct Config {
    /// The realm of all users: 1 to 52 bytes in the form that OpaqueString (RFC 8265) gives it, so that a 401 fits
    /// 160 bytes.
    pub realm: String,
    /// SOFTWARE in authenticated responses; `None` to send none (RFC 8489 section 16.1.2).
    pub software: Option<String>,
    /// Relayed transport addresses are on these. A family without one is not relayed (440).
    pub relay_addresses: Vec<IpAddr>,
    /// And have these ports.
    pub relay_ports: RangeInclusive<u16>,
    /// Relay address to the address of the same family that it is reached by from outside, where that differs.
    pub external_addresses: HashMap<IpAddr, IpAddr>,
    /// The server's listeners. No peer is on their addresses, relayed transport addresses aside.
    pub listeners: Vec<SocketAddr>,
    /// What the host receives packets for, with or without the addresses above: single addresses, and networks
    /// that are local as a whole. No peer is on them either: what listens there is not for TURN clients, whatever
    /// the policy says.
    pub host_addresses: Vec<IpNet>,
    /// How long things last.
    pub lifetimes: Lifetimes,
    /// How much clients may have.
    pub limits: Limits,
    /// Where Allocate requests are sent instead (300 with ALTERNATE-SERVER, RFC 8489 section 10); empty to
    /// serve them here. At most one address of each family.
    pub alternate_servers: Vec<SocketAddr>,
    /// The lowest MTU to expect on IPv6 paths: what came as IPv4 with DF=0 is sent in fragments of at most so
    /// many bytes (RFC 7915 section 4.1).
    pub min_ipv6_mtu: u16,
    /// The end of a time-limited credential counts at every request, and not only at Allocate.
    pub strict_expiry: bool,
    /// A bound peer's permission ends after the permission lifetime, as RFC 8656 section 9 has it, and not
    /// with its channel.
    pub strict_permissions: bool,
    /// Clients of this server may be peers of each other: data goes from one relayed address to another inside. If not,
    /// relayed addresses and their external forms are refused as peers like any other address of the host.
    pub hairpin: bool,
    /// Clients may bind channels 0x5000 to 0x7FFF too, as RFC 5766 section 11 had it.
    pub rfc5766_channels: bool,
    /// Who may be a peer.
    pub policy: PeerPolicy,
}

/// How long things last unless refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// An allocation whose client asks for nothing, or for less.
    pub default: Duration,
    /// An allocation whose client asks for more.
    pub max: Duration,
    /// A permission.
    pub permission: Duration,
    /// A channel.
    pub channel: Duration,
    /// A nonce: at most an hour (RFC 8656 section 5).
    pub nonce: Duration,
}

/// How much clients may have. Zero is no limit, except where said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Allocations of all users: 508 beyond.
    pub allocations: u32,
    /// Allocations of one user: 486 beyond. Users of time-limited credentials are told apart by the part after
    /// the time.
    pub allocations_per_user: u32,
    /// Permissions of one allocation at a time, at least 1: 508 beyond.
    pub permissions: u32,
    /// Channels of one allocation at a time, at least 1: 508 beyond.
    pub channels: u32,
    /// Application bytes per second of one allocation, both directions together: what exceeds it is dropped.
    pub bytes_per_second: u64,
    /// Application bytes that may come at once on top of that rate: at least one datagram's 65,535 and 20 ms' worth.
    /// Zero for a quarter of a second's worth.
    pub burst: u64,
    /// Responses per second to unauthenticated requests of one source (IPv4 address, IPv6 /64).
    pub unauthenticated_per_second: u32,
    /// ICMP errors per second that the server makes (TTL used up, packet too big); zero to make none.
    pub icmp_per_second: u32,
}

impl Limits {
    /// Of [`bytes_per_second`](Self::bytes_per_second) with its burst: the rate that the core and the kernel program hold
    /// each allocation to. `None`: no limit.
    pub const fn rate(&self) -> Option<Rate> {
        match (self.bytes_per_second, self.burst) {
            (0, _) => None,
            (per_second, 0) => Some(Rate::new(per_second, per_second / 4)),
            (per_second, burst) => Some(Rate::new(per_second, burst)),
        }
    }

    /// ICMP errors that the server makes, each of them one unit, and up to a second's worth at once. `None`: it makes none.
    pub(super) const fn icmp_rate(&self) -> Option<Rate> {
        match self.icmp_per_second {
            0 => None,
            per_second => Some(Rate { per_byte: (SECOND << 16).div_ceil(per_second as u64), burst: SECOND }),
        }
    }
}

impl Default for Limits {
    /// 1024 permissions and channels (more than any ICE agent has candidates to try), 200 unauthenticated
    /// responses and 100 ICMP errors per second; the rest without limit.
    fn default() -> Self {
        Self {
            allocations: 0,
            allocations_per_user: 0,
            permissions: 1024,
            channels: 1024,
            bytes_per_second: 0,
            burst: 0,
            unauthenticated_per_second: 200,
            icmp_per_second: 100,
        }
    }
}

impl Default for Lifetimes {
    /// RFC 8656's: 600 s, at most 3600 s, 300 s, 600 s; nonces an hour.
    fn default() -> Self {
        Self {
            default: Duration::from_secs(600),
            max: Duration::from_secs(3600),
            permission: Duration::from_secs(300),
            channel: Duration::from_secs(600),
            nonce: Duration::from_secs(3600),
        }
    }
}

/// Why a [`Config`] will not do. Names are those of the configuration keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The realm is empty, too long, or not plain text.
    #[error(
        "realm {realm:?}: it must have 1 to {MAX_REALM_LEN} bytes and no control, invisible or unassigned \
         characters, quotes or backslashes"
    )]
    Realm {
        /// As configured.
        realm: String,
    },
    /// SOFTWARE must be shorter than 128 characters.
    #[error("software: its text must have 1 to 127 bytes")]
    Software,
    /// There is no relay address.
    #[error("relay_address: at least one is needed")]
    NoRelayAddress,
    /// A relay address cannot be one.
    #[error(
        "relay_address {ip}: it must be an address of this host that others can reach: no wildcard, no multicast, \
         no IPv6 link-local or IPv4-mapped address"
    )]
    RelayAddress {
        /// As configured.
        ip: IpAddr,
    },
    /// The same relay address would give out each port twice.
    #[error("relay_address {ip} is given twice")]
    DuplicateRelayAddress {
        /// As configured.
        ip: IpAddr,
    },
    /// The range of relayed ports is empty or reaches into the well-known ports.
    #[error("relay_ports {}-{}: the range must not be empty nor go below 1024", ports.start(), ports.end())]
    RelayPorts {
        /// As configured.
        ports: RangeInclusive<u16>,
    },
    /// A listener is inside the range of relayed ports.
    #[error("listen udp://{listener}: the port is inside relay_ports; change one of them")]
    ListenerInRelayPorts {
        /// As configured.
        listener: SocketAddr,
    },
    /// An external address must stand for one relay address of its family, and be nothing else.
    #[error(
        "external_ip {external}: it must belong to exactly one relay_address, be of the same family and be none itself"
    )]
    ExternalAddress {
        /// As configured.
        external: IpAddr,
    },
    /// A lifetime is zero, the maximum is below the default, or nonces are good for more than an hour.
    #[error("lifetimes: none may be zero, max not be below default, and nonce not be above 3600")]
    Lifetimes,
    /// Allocations that may have no permission or no channel are of no use.
    #[error("limits: permissions and channels must be at least 1")]
    Limits,
    /// An alternate server must be another, and one of each address family is enough.
    #[error(
        "alternate_server {server}: it must be a unicast address and port that is no listener of this server, \
         and there can be only one of each address family"
    )]
    AlternateServer {
        /// As configured.
        server: SocketAddr,
    },
}

/// The longest realm with which a 401 (20 bytes of header, 24 of ERROR-CODE, 40 of NONCE, 12 of
/// PASSWORD-ALGORITHMS, 8 of FINGERPRINT, 4 before the realm) has at most 160 bytes.
pub const MAX_REALM_LEN: usize = 52;

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The longest that a nonce may be good for (RFC 8656 section 5).
const MAX_NONCE_LIFETIME: Duration = Duration::from_secs(3600);

impl Config {
    /// The same, with the realm as it is sent, if it will do.
    pub(super) fn check(mut self) -> Result<Self, ConfigError> {
        let realm = opaque_string(&self.realm)
            .filter(|realm| realm.len() <= MAX_REALM_LEN && !realm.contains(['"', '\\']));
        let Some(realm) = realm else { return Err(ConfigError::Realm { realm: self.realm }) };
        self.realm = realm;
        if self.software.as_ref().is_some_and(|software| software.is_empty() || software.len() > 127) {
            return Err(ConfigError::Software);
        }
        if self.relay_addresses.is_empty() {
            return Err(ConfigError::NoRelayAddress);
        }
        for (position, &ip) in self.relay_addresses.iter().enumerate() {
            if self.relay_addresses[..position].contains(&ip) {
                return Err(ConfigError::DuplicateRelayAddress { ip });
            }
            if !is_unicast(ip) {
                return Err(ConfigError::RelayAddress { ip });
            }
        }
        if self.relay_ports.is_empty() || *self.relay_ports.start() < 1024 {
            return Err(ConfigError::RelayPorts { ports: self.relay_ports.clone() });
        }
        if let Some(&listener) = self.listeners.iter().find(|l| self.relay_ports.contains(&l.port())) {
            return Err(ConfigError::ListenerInRelayPorts { listener });
        }
        for (relay, &external) in &self.external_addresses {
            let same = self.external_addresses.values().filter(|&&other| other == external).count();
            let stands_for_one = same == 1 && self.relay_addresses.contains(relay);
            let is_apt = is_unicast(external) && Family::of(*relay) == Family::of(external);
            if !stands_for_one || self.relay_addresses.contains(&external) || !is_apt {
                return Err(ConfigError::ExternalAddress { external });
            }
        }
        let Lifetimes { default, max, permission, channel, nonce } = self.lifetimes;
        let is_zero = [default, permission, channel, nonce].contains(&Duration::ZERO);
        if max < default || is_zero || nonce > MAX_NONCE_LIFETIME {
            return Err(ConfigError::Lifetimes);
        }
        if self.limits.permissions == 0 || self.limits.channels == 0 {
            return Err(ConfigError::Limits);
        }
        for (position, &server) in self.alternate_servers.iter().enumerate() {
            let ip = server.ip();
            let is_address = server.port() != 0 && !ip.is_unspecified() && !ip.is_multicast();
            let mut earlier = self.alternate_servers[..position].iter();
            let is_only = earlier.all(|other| other.is_ipv4() != server.is_ipv4());
            if !is_address || !is_only || self.listeners.contains(&server) {
                return Err(ConfigError::AlternateServer { server });
            }
        }
        Ok(self)
    }
}

/// Whether datagrams can be sent from the address to hosts elsewhere. IPv6 link-local addresses mean nothing
/// without an interface; those of ::/96 and ::ffff:0:0/96 are IPv4 addresses written otherwise, or loopback.
fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
        IpAddr::V6(ip) => {
            let carries_ipv4 = ip.to_ipv4().is_some();
            !(carries_ipv4 && !ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_a_quarter_of_a_second_unless_it_is_said() {
        let rate = |bytes_per_second, burst| Limits { bytes_per_second, burst, ..Limits::default() }.rate();
        assert_eq!(rate(0, 5), None);
        assert_eq!(rate(4_000_000, 0), Some(Rate::new(4_000_000, 1_000_000)));
        assert_eq!(rate(4_000_000, 70_000), Some(Rate::new(4_000_000, 70_000)));
        assert_eq!(rate(1000, 0), Some(Rate::new(1000, 65_535)), "a largest datagram at least");
    }

    #[test]
    fn icmp_errors_have_a_second_at_once_and_then_their_rate() {
        assert_eq!(Limits { icmp_per_second: 0, ..Limits::default() }.icmp_rate(), None);
        for icmp_per_second in [1, 3, 7, 100, 1_000_000] {
            let rate = Limits { icmp_per_second, ..Limits::default() }.icmp_rate().unwrap();
            let (mut through, mut admitted) = (0, 0);
            for now in (1..=11).map(|seconds| seconds * SECOND) {
                for _ in 0..=icmp_per_second {
                    if let Some(next) = rate.admit(through, now, 1) {
                        (through, admitted) = (next, admitted + 1);
                    }
                }
            }
            assert_eq!(admitted, 11 * icmp_per_second);
        }
    }
}
