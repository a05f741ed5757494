//! Addresses, ports and ranges.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
};

use ipnet::IpNet;

use super::ValueError;
use crate::turn::Family;

/// Port of a listener that names none (RFC 8489 section 8.1).
pub const DEFAULT_PORT: u16 = 3478;

/// A listener as the operator names it: `udp://IP:PORT`, an IPv6 address in brackets. The address may be a
/// wildcard, 0.0.0.0 or `[::]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen(pub SocketAddr);

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
        let address = parse_transport_address(address, "udp://")?;
        refuse_scoped(address.ip())?;
        Ok(Self(address))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp://{}", self.0)
    }
}

/// `IP[:PORT]`, an IPv6 address in brackets where a port follows. `prefix` is what stands before it.
fn parse_transport_address(text: &str, prefix: &str) -> Result<SocketAddr, ValueError> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(ValueError::new(format!(
            "an IPv6 address stands in brackets: write {prefix}[{text}]:{DEFAULT_PORT}"
        )));
    }
    let no_address = |text: &str| {
        ValueError::new(format!(
            "{text:?} is no IP address: write {prefix}IP:PORT, as in {prefix}192.0.2.1:3478 or \
             {prefix}[2001:db8::1]:3478"
        ))
    };
    let (ip, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((ip, port))) => (IpAddr::V6(ip.parse().map_err(|_| no_address(ip))?), port),
        Some(None) => return Err(no_address(text)),
        None => {
            let (ip, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (IpAddr::V4(ip.parse().map_err(|_| no_address(ip))?), port)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(port) => parse_port(port)?,
        None if port.is_empty() => DEFAULT_PORT,
        None => return Err(no_address(text)),
    };
    Ok(SocketAddr::new(ip, port))
}

fn parse_port(text: &str) -> Result<u16, ValueError> {
    match text.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(ValueError::new(format!("{text:?} is no port: write a number from 1 to 65535"))),
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| ValueError::new(format!("{text:?} is no IP address")))
}

/// Addresses that mean nothing without an interface, or that IPv4 has another form for.
fn refuse_scoped(ip: IpAddr) -> Result<(), ValueError> {
    let IpAddr::V6(ip) = ip else { return Ok(()) };
    if let Some(ipv4) = ip.to_ipv4_mapped() {
        return Err(ValueError::new(format!("{ip} is an IPv4 address: write {ipv4}")));
    }
    if ip.is_unicast_link_local() {
        return Err(ValueError::new(format!(
            "{ip} is valid on one link only: name a global or unique local address"
        )));
    }
    Ok(())
}

/// An address that relayed transport addresses are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayAddress(pub IpAddr);

impl FromStr for RelayAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let address = parse_ip(text)?;
        refuse_scoped(address)?;
        if address.is_unspecified() {
            return Err(ValueError::new("peers need a real address to answer to: name one of this host's"));
        }
        Ok(Self(address))
    }
}

/// A public address and the address of this host that it is mapped to one to one: `PUBLIC/PRIVATE`, both of
/// one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExternalIp {
    /// What clients are told.
    pub public: IpAddr,
    /// What the host has.
    pub private: IpAddr,
}

impl FromStr for ExternalIp {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((public, private)) = text.split_once('/') else {
            let example = if text.contains(':') { "fd00::5" } else { "10.0.0.5" };
            return Err(ValueError::new(format!(
                "the private address is missing: write PUBLIC/PRIVATE, as in {text}/{example}"
            )));
        };
        let (public, private) = (parse_ip(public)?, parse_ip(private)?);
        if Family::of(public) != Family::of(private) {
            return Err(ValueError::new(format!(
                "{public} and {private} are of two families: write a pair for each family"
            )));
        }
        refuse_scoped(public)?;
        refuse_scoped(private)?;
        if public.is_unspecified() || private.is_unspecified() {
            let unspecified = if public.is_unspecified() { public } else { private };
            return Err(ValueError::new(format!("{unspecified} is no address: write PUBLIC/PRIVATE")));
        }
        if public.is_multicast() || public == IpAddr::V4(Ipv4Addr::BROADCAST) || public.is_loopback() {
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

/// A server that clients are sent to: `IP[:PORT]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AlternateServer(pub SocketAddr);

impl FromStr for AlternateServer {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let address = parse_transport_address(text, "")?;
        refuse_scoped(address.ip())?;
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(ValueError::new("clients need the address of one server: write IP:PORT"));
        }
        Ok(Self(address))
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

#[cfg(test)]
mod tests {
    use super::{super::refusal, *};

    #[test]
    fn stun_052_a_listener_without_a_port_gets_3478() {
        let shown = |text: &str| text.parse::<Listen>().unwrap().to_string();
        assert_eq!(shown("udp://192.0.2.1"), "udp://192.0.2.1:3478");
        assert_eq!(shown("udp://192.0.2.1:5000"), "udp://192.0.2.1:5000");
        assert_eq!(shown("udp://[2001:db8::1]"), "udp://[2001:db8::1]:3478");
        assert_eq!(shown("udp://[::1]:5000"), "udp://[::1]:5000");
    }

    #[test]
    fn listeners_that_cannot_be_say_what_to_write() {
        for (text, said) in [
            ("192.0.2.1:3478", "udp://192.0.2.1:3478"),
            ("tcp://192.0.2.1:3478", "not supported yet"),
            ("tls://192.0.2.1:5349", "not supported yet"),
            ("udp://example.org:3478", "udp://IP:PORT"),
            ("udp://192.0.2.1:0", "1 to 65535"),
            ("udp://192.0.2.1:99999", "1 to 65535"),
            ("udp://2001:db8::1", "stands in brackets: write udp://[2001:db8::1]:3478"),
            ("udp://[2001:db8::1", "udp://IP:PORT"),
            ("udp://[2001:db8::1]3478", "udp://IP:PORT"),
            ("udp://[192.0.2.1]:3478", "udp://IP:PORT"),
            ("udp://[fe80::1]:3478", "one link only"),
            ("udp://[fe80::1%eth0]:3478", "udp://IP:PORT"),
            ("udp://[::ffff:192.0.2.1]:3478", "write 192.0.2.1"),
        ] {
            let message = refusal::<Listen>(text);
            assert!(message.contains(said), "{text}: {message}");
        }
    }

    #[test]
    fn relay_addresses_are_real_addresses_of_either_family() {
        assert_eq!("2001:db8::5".parse::<RelayAddress>().unwrap().0.to_string(), "2001:db8::5");
        for text in ["0.0.0.0", "::"] {
            assert!(refusal::<RelayAddress>(text).contains("name one of this host's"), "{text}");
        }
        assert!(refusal::<RelayAddress>("fe80::1").contains("one link only"));
        assert!(refusal::<RelayAddress>("10.0.0").contains("is no IP address"));
    }

    #[test]
    fn relay_ports_are_an_ordered_range_above_the_services() {
        assert_eq!("50000-50010".parse::<RelayPorts>().unwrap().0, 50000..=50010);
        assert!(refusal::<RelayPorts>("50000").contains("MIN-MAX"));
        assert!(refusal::<RelayPorts>("60000-50000").contains("50000-60000"));
        assert!(refusal::<RelayPorts>("80-50000").contains("1024"));
    }

    #[test]
    fn cidrs_are_whole_prefixes_or_single_addresses() {
        assert_eq!("10.1.2.3".parse::<Cidr>().unwrap().to_string(), "10.1.2.3/32");
        assert!(refusal::<Cidr>("10.0.0.0/33").contains("ADDRESS/BITS"));
        let message = refusal::<Cidr>("10.1.2.3/8");
        assert!(message.contains("10.0.0.0/8") && message.contains("10.1.2.3"), "{message}");
    }

    #[test]
    fn external_addresses_come_in_pairs_of_one_family() {
        for pair in ["203.0.113.7/10.0.0.5", "2001:db8::7/fd00::5"] {
            assert_eq!(pair.parse::<ExternalIp>().unwrap().to_string(), pair);
        }
        for (text, said) in [
            ("203.0.113.7", "PUBLIC/PRIVATE"),
            ("224.0.0.7/10.0.0.5", "224.0.0.7 is no address of a host"),
            ("ff02::7/fd00::5", "ff02::7 is no address of a host"),
            ("2001:db8::1/10.0.0.5", "are of two families: write a pair for each"),
            ("0.0.0.0/10.0.0.5", "0.0.0.0 is no address"),
            ("::/fd00::5", ":: is no address"),
            ("fe80::1/fd00::5", "one link only"),
        ] {
            let message = refusal::<ExternalIp>(text);
            assert!(message.contains(said), "{text}: {message}");
        }
    }

    #[test]
    fn alternate_servers_are_addresses_with_a_port_by_default() {
        assert_eq!("192.0.2.2".parse::<AlternateServer>().unwrap().0.to_string(), "192.0.2.2:3478");
        let ipv6 = "[2001:db8::2]:3500".parse::<AlternateServer>().unwrap();
        assert_eq!(ipv6.0.to_string(), "[2001:db8::2]:3500");
        assert!(refusal::<AlternateServer>("example.org").contains("write IP:PORT"));
        assert!(refusal::<AlternateServer>("0.0.0.0").contains("one server"));
        assert!(refusal::<AlternateServer>("2001:db8::2").contains("[2001:db8::2]:3478"));
    }
}
