//! Which peers clients may reach (RFC 8656 sections 21.1.4, 21.2.2 and 21.4).
//!
//! Three layers. Some addresses are never a peer. Of the rest, the operator's networks and the special-purpose
//! networks, which are denied, compete: the most specific network that contains the address decides. The
//! operator's wins a tie against a special-purpose one, denial wins a tie among the operator's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(segments: [u16; 8], prefix: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix))
}

/// No peer, whatever the operator says.
const NEVER: &[IpNet] = &[
    v4(0, 0, 0, 0, 8),          // this network, and the unspecified address
    v4(127, 0, 0, 0, 8),        // loopback
    v4(169, 254, 0, 0, 16),     // link-local, and the metadata service of most clouds
    v4(224, 0, 0, 0, 4),        // multicast
    v4(255, 255, 255, 255, 32), // broadcast
    v4(100, 100, 100, 200, 32), // metadata: Alibaba
    v4(168, 63, 129, 16, 32),   // metadata: Azure
    v4(192, 0, 0, 192, 32),     // metadata: Oracle
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),          // Teredo
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), // metadata: AWS
];

/// Denied until the operator allows them: the other special-purpose networks (RFC 6890).
const SPECIAL: &[IpNet] = &[
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(240, 0, 0, 0, 4),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
];

/// The operator's say in who may be a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerPolicy {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl PeerPolicy {
    /// A policy of these networks, on top of what is denied by default.
    pub const fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self { allow, deny }
    }

    /// Whether the address may be a peer. An IPv6 address that carries an IPv4 address is judged by that.
    pub fn permits(&self, ip: IpAddr) -> bool {
        let ip = canonical(ip);
        if most_specific(NEVER, ip).is_some() {
            return false;
        }
        let allowed = most_specific(&self.allow, ip);
        let denied = most_specific(&self.deny, ip);
        let special = most_specific(SPECIAL, ip);
        match allowed {
            Some(allowed) => denied < Some(allowed) && special <= Some(allowed),
            None => denied.is_none() && special.is_none(),
        }
    }
}

/// The longest prefix among the networks that contain the address.
fn most_specific(networks: &[IpNet], ip: IpAddr) -> Option<u8> {
    networks.iter().filter(|network| network.contains(&ip)).map(IpNet::prefix_len).max()
}

/// The IPv4 address that a packet to this address would reach, if it is of a form that carries one:
/// v4-mapped, v4-compatible, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let octets = v6.octets();
    let embedded =
        |at: usize| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]).into();
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => embedded(12),
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => ip,
        [0, 0, 0, 0, 0, 0, ..] => embedded(12),
        [0x2002, ..] => embedded(2),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allow: &[&str], deny: &[&str], ip: &str) -> bool {
        let networks = |list: &[&str]| list.iter().map(|network| network.parse().unwrap()).collect();
        PeerPolicy::new(networks(allow), networks(deny)).permits(ip.parse().unwrap())
    }

    const EVERYTHING: &[&str] = &["0.0.0.0/0", "::/0"];

    #[test]
    fn turn_242_shipped_policy_refuses_what_is_no_host_on_the_internet() {
        for ip in ["8.8.8.8", "1.1.1.1", "2a00::1", "223.255.255.255", "100.128.0.1", "172.32.0.1"] {
            assert!(permits(&[], &[], ip), "{ip}");
        }
        for ip in
            ["10.1.2.3", "172.31.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1", "250.0.0.1", "fd00::1"]
        {
            assert!(!permits(&[], &[], ip), "{ip}");
            assert!(!permits(EVERYTHING, &[], ip), "{ip} is more specific than everything");
        }
    }

    #[test]
    fn turn_242_some_addresses_are_never_a_peer() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "2001:0:1::1",
        ] {
            let host = format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 });
            assert!(!permits(&[&host], &[], ip), "{ip}");
        }
    }

    #[test]
    fn turn_242_250_addresses_that_carry_an_ipv4_address_are_judged_by_it() {
        for ip in ["::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"] {
            assert!(!permits(&["::/0", &format!("{ip}/128")], &[], ip), "{ip}");
        }
        assert!(!permits(&[], &[], "::ffff:10.0.0.1"));
        assert!(permits(&["10.0.0.0/8"], &[], "::ffff:10.0.0.1"));
    }

    #[test]
    fn turn_241_most_specific_network_wins_and_denial_wins_a_tie() {
        assert!(permits(&["10.0.0.0/8"], &[], "10.1.2.3"), "a tie with a default is the operator's");
        assert!(permits(&["10.1.0.0/16"], &["10.0.0.0/8"], "10.1.2.3"));
        assert!(!permits(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3"));
        assert!(!permits(&["10.0.0.0/8"], &["10.0.0.0/8"], "10.1.2.3"));
        assert!(!permits(&[], &["8.8.8.0/24"], "8.8.8.8"));
        assert!(permits(&["8.8.8.8/32"], &["8.8.8.0/24"], "8.8.8.8"));
    }
}
