//! IPv6 addresses that carry an IPv4 address: packets to them leave IPv6 somewhere on the way.

use std::net::{IpAddr, Ipv4Addr};

/// Whether the address belongs to a tunnel between IPv4 and IPv6 as its form alone tells (RFC 8656 section 21.4):
/// Teredo (RFC 4380), 6to4 (RFC 3056), ISATAP (RFC 5214) and IPv4-compatible addresses (RFC 4291, for automatic
/// tunnels; `::` and `::1` are none of these).
pub(super) fn is_tunneled(ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => false,
        [0x2001, 0, ..] | [0x2002, ..] | [0, 0, 0, 0, 0, 0, ..] => true,
        // The modified EUI-64 of an IPv4 address, globally unique or not (RFC 5214 section 6.1).
        [_, _, _, _, 0x0000 | 0x0200, 0x5efe, ..] => true,
        _ => false,
    }
}

/// The IPv4 address that a packet to this address ends up at, if NAT64 translates it: that of the well-known
/// prefix 64:ff9b::/96 (RFC 6052 section 2.1). Other prefixes cannot be known.
pub(super) fn nat64(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = ip.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_247_248_249_tunnels_are_known_by_their_addresses() {
        let tunneled = |ip: &str| is_tunneled(ip.parse().unwrap());
        for ip in [
            "2001::",
            "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
            "2002::",
            "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::8.8.8.8",
            "2a00::5efe:8.8.8.8",
            "fe80::200:5efe:8.8.8.8",
        ] {
            assert!(tunneled(ip), "{ip}");
        }
        for ip in [
            "2000:ffff::1",
            "2001:1::",
            "2003::1",
            "2a00::1",
            "::ffff:8.8.8.8",
            "2a00::8.8.8.8",
            "8.8.8.8",
            "::",
            "::1",
        ] {
            assert!(!tunneled(ip), "{ip}");
        }
    }

    #[test]
    fn turn_242_nat64_addresses_of_the_well_known_prefix_are_read() {
        let nat64 = |ip: &str| nat64(ip.parse().unwrap());
        assert_eq!(nat64("64:ff9b::8.8.4.4"), Some(Ipv4Addr::new(8, 8, 4, 4)));
        for other in ["64:ff9b::1:8.8.4.4", "64:ff9b:1::8.8.4.4", "64:ff9a::8.8.4.4", "8.8.4.4"] {
            assert_eq!(nat64(other), None, "{other}");
        }
    }
}
