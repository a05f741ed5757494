//! The values that options and keys take, parsed once: what stands in a [`super::Configuration`] needs no
//! further check of its form.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    num::NonZeroU32,
    ops::RangeInclusive,
    str::FromStr,
};

use ipnet::IpNet;

/// Port of a listener that names none (RFC 8489 section 8.1).
pub const DEFAULT_PORT: u16 = 3478;

/// Longest realm in bytes: with it a 401 response still fits the 160 bytes that an unauthenticated sender
/// may be answered with.
pub const REALM_MAX: usize = 64;

/// Longest user name in bytes (RFC 8489 section 14.3: less than 509).
const USERNAME_MAX: usize = 508;

/// Why a value is refused, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    /// This text: what is wrong, a colon, and the remedy.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A listener as the operator names it: `udp://IP:PORT`. The address may be the wildcard 0.0.0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen(pub SocketAddrV4);

impl FromStr for Listen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((scheme, address)) = text.split_once("://") else {
            return Err(ValueError::new(format!("the transport is missing: write udp://{text}")));
        };
        match scheme {
            "udp" => {}
            "tcp" | "tls" | "dtls" => {
                return Err(ValueError::new(format!(
                    "{scheme} listeners are not supported yet: write udp://{address}"
                )));
            }
            _ => return Err(ValueError::new(format!("unknown transport {scheme:?}: write udp://{address}"))),
        }
        if address.starts_with('[') || address.matches(':').count() > 1 {
            return Err(ValueError::new("IPv6 listeners are not supported yet: name an IPv4 address"));
        }
        let (ip, port) = match address.split_once(':') {
            Some((ip, port)) => (ip, parse_port(port)?),
            None => (address, DEFAULT_PORT),
        };
        let ip = ip.parse::<Ipv4Addr>().map_err(|_| {
            ValueError::new(format!(
                "{ip:?} is no IPv4 address: write udp://IP:PORT, as in udp://192.0.2.1:3478"
            ))
        })?;
        Ok(Self(SocketAddrV4::new(ip, port)))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp://{}", self.0)
    }
}

fn parse_port(text: &str) -> Result<u16, ValueError> {
    match text.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(ValueError::new(format!("{text:?} is no port: write a number from 1 to 65535"))),
    }
}

/// An address that relayed transport addresses are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayAddress(pub Ipv4Addr);

impl FromStr for RelayAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let address = parse_ipv4(text)?;
        if address.is_unspecified() {
            return Err(ValueError::new("peers need a real address to answer to: name one of this host's"));
        }
        Ok(Self(address))
    }
}

fn parse_ipv4(text: &str) -> Result<Ipv4Addr, ValueError> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(_)) => Err(ValueError::new("IPv6 is not supported yet: name an IPv4 address")),
        Err(_) => Err(ValueError::new(format!("{text:?} is no IPv4 address"))),
    }
}

/// A public address and the address of this host that it is mapped to one to one: `PUBLIC/PRIVATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExternalIp {
    /// What clients are told.
    pub public: Ipv4Addr,
    /// What the host has.
    pub private: Ipv4Addr,
}

impl FromStr for ExternalIp {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((public, private)) = text.split_once('/') else {
            return Err(ValueError::new(format!(
                "the private address is missing: write PUBLIC/PRIVATE, as in {text}/10.0.0.5"
            )));
        };
        let (public, private) = (parse_ipv4(public)?, parse_ipv4(private)?);
        if public.is_unspecified() || private.is_unspecified() {
            return Err(ValueError::new("0.0.0.0 is no address: write PUBLIC/PRIVATE"));
        }
        if public.is_multicast() || public.is_broadcast() || public.is_loopback() {
            return Err(ValueError::new(format!("{public} is no address of a host that peers can reach")));
        }
        Ok(Self { public, private })
    }
}

impl fmt::Display for ExternalIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.public, self.private)
    }
}

/// The ports that relayed transport addresses are taken from: `MIN-MAX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPorts(pub RangeInclusive<u16>);

impl Default for RelayPorts {
    /// The dynamic ports (RFC 8656 section 7.2).
    fn default() -> Self {
        Self(49152..=65535)
    }
}

impl FromStr for RelayPorts {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((min, max)) = text.split_once('-') else {
            return Err(ValueError::new("no range: write MIN-MAX, as in 49152-65535"));
        };
        let (min, max) = (parse_port(min.trim())?, parse_port(max.trim())?);
        if min > max {
            return Err(ValueError::new(format!("the range is empty: write {max}-{min}")));
        }
        if min < 1024 {
            return Err(ValueError::new(
                "ports below 1024 belong to the host's services: begin at 1024 or above",
            ));
        }
        Ok(Self(min..=max))
    }
}

impl fmt::Display for RelayPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

/// The realm of the long-term credentials (RFC 8489 section 14.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm(pub String);

impl FromStr for Realm {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::new(
                "a realm has at least one character: write the domain name of the service",
            ));
        }
        if text.len() > REALM_MAX {
            return Err(ValueError::new(format!(
                "{} bytes are too long: write at most {REALM_MAX}, as in example.org",
                text.len()
            )));
        }
        if text.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
            return Err(ValueError::new(
                "quotation marks, backslashes and control characters are not allowed: write a domain name",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A user and the password that the long-term key is made of. The password shows in no output.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The user name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl User {
    /// A user, if name and password can be used on the wire.
    pub fn new(name: &str, password: &str) -> Result<Self, ValueError> {
        if name.is_empty() || name.len() > USERNAME_MAX {
            return Err(ValueError::new(format!("a user name has 1 to {USERNAME_MAX} bytes")));
        }
        // The key is MD5(name:realm:password) (RFC 8489 section 9.2.2).
        if name.contains(':') || name.chars().any(char::is_control) {
            return Err(ValueError::new("a user name contains neither a colon nor control characters"));
        }
        if password.is_empty() {
            return Err(ValueError::new("the password is empty: make one with `openssl rand -hex 16`"));
        }
        if password.chars().any(char::is_control) {
            return Err(ValueError::new(
                "the password contains control characters: make one with `openssl rand -hex 16`",
            ));
        }
        Ok(Self { name: name.to_owned(), password: password.to_owned() })
    }
}

impl FromStr for User {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((name, password)) = text.split_once(':') else {
            return Err(ValueError::new("the password is missing: write NAME:PASSWORD"));
        };
        Self::new(name, password)
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A range of peer addresses: CIDR, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr(pub IpNet);

impl FromStr for Cidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.into()));
        }
        let net = text.parse::<IpNet>().map_err(|_| {
            ValueError::new(format!("{text:?} is no CIDR: write ADDRESS/BITS, as in 10.0.0.0/8"))
        })?;
        if net != net.trunc() {
            return Err(ValueError::new(format!(
                "the address has bits set beyond the prefix: write {} for the range or {} for the one address",
                net.trunc(),
                net.addr()
            )));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lifetimes in seconds, as RFC 8656 names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifetimeSeconds {
    /// Given to an allocation that asks for none or for less (section 3.2: 600).
    pub default: NonZeroU32,
    /// The longest that an allocation can have (section 7.2: 3600).
    pub max: NonZeroU32,
    /// Of a permission (section 9: 300).
    pub permission: NonZeroU32,
    /// Of a channel binding (section 12: 600).
    pub channel: NonZeroU32,
}

impl Default for LifetimeSeconds {
    fn default() -> Self {
        let seconds = |n| NonZeroU32::new(n).expect("the constants below are not zero");
        Self { default: seconds(600), max: seconds(3600), permission: seconds(300), channel: seconds(600) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err = ValueError> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().expect_err(text).to_string()
    }

    #[test]
    fn stun_052_a_listener_without_a_port_gets_3478() {
        assert_eq!("udp://192.0.2.1".parse::<Listen>().unwrap().to_string(), "udp://192.0.2.1:3478");
        assert_eq!("udp://192.0.2.1:5000".parse::<Listen>().unwrap().0.port(), 5000);
    }

    #[test]
    fn listeners_that_cannot_be_say_what_to_write() {
        assert!(refusal::<Listen>("192.0.2.1:3478").contains("udp://192.0.2.1:3478"));
        assert!(refusal::<Listen>("tcp://192.0.2.1:3478").contains("not supported yet"));
        assert!(refusal::<Listen>("tls://192.0.2.1:5349").contains("not supported yet"));
        assert!(
            refusal::<Listen>("udp://[2001:db8::1]:3478").contains("IPv6 listeners are not supported yet")
        );
        assert!(refusal::<Listen>("udp://example.org:3478").contains("udp://IP:PORT"));
        assert!(refusal::<Listen>("udp://192.0.2.1:0").contains("1 to 65535"));
        assert!(refusal::<Listen>("udp://192.0.2.1:99999").contains("1 to 65535"));
    }

    #[test]
    fn relay_ports_are_an_ordered_range_above_the_services() {
        assert_eq!("50000-50010".parse::<RelayPorts>().unwrap().0, 50000..=50010);
        assert!(refusal::<RelayPorts>("50000").contains("MIN-MAX"));
        assert!(refusal::<RelayPorts>("60000-50000").contains("50000-60000"));
        assert!(refusal::<RelayPorts>("80-50000").contains("1024"));
    }

    #[test]
    fn realms_fit_an_unauthenticated_response() {
        assert!("example.org".parse::<Realm>().is_ok());
        assert!(refusal::<Realm>("").contains("at least one"));
        assert!(refusal::<Realm>(&"x".repeat(REALM_MAX + 1)).contains("65 bytes are too long"));
        assert!(refusal::<Realm>("a\"b").contains("quotation"));
    }

    #[test]
    fn a_user_never_shows_the_password() {
        let user = "alice:se:cret".parse::<User>().unwrap();
        assert_eq!((user.name.as_str(), user.password.as_str()), ("alice", "se:cret"));
        assert!(!format!("{user:?}").contains("se:cret"));
        assert!(!refusal::<User>("hunter2").contains("hunter2"));
        assert!(refusal::<User>("alice:").contains("empty"));
        assert!(refusal::<User>("alice:hunter2\t").contains("the password contains control characters"));
    }

    #[test]
    fn cidrs_are_whole_prefixes_or_single_addresses() {
        assert_eq!("10.1.2.3".parse::<Cidr>().unwrap().to_string(), "10.1.2.3/32");
        assert!(refusal::<Cidr>("10.0.0.0/33").contains("ADDRESS/BITS"));
        let message = refusal::<Cidr>("10.1.2.3/8");
        assert!(message.contains("10.0.0.0/8") && message.contains("10.1.2.3"), "{message}");
    }

    #[test]
    fn external_addresses_come_in_pairs() {
        assert_eq!("203.0.113.7/10.0.0.5".parse::<ExternalIp>().unwrap().to_string(), "203.0.113.7/10.0.0.5");
        assert!(refusal::<ExternalIp>("203.0.113.7").contains("PUBLIC/PRIVATE"));
        assert!(refusal::<ExternalIp>("224.0.0.7/10.0.0.5").contains("224.0.0.7 is no address of a host"));
        assert!(refusal::<ExternalIp>("2001:db8::1/10.0.0.5").contains("IPv6 is not supported yet"));
    }
}
