//! Which peers clients may reach (RFC 8656 sections 21.1.4, 21.2.2 and 21.4).
//!
//! Three layers. Some addresses are never a peer. Of the rest, the operator's networks and the special-purpose
//! networks, which are denied, compete: the most specific network that contains the address decides. The
//! operator's wins a tie against a special-purpose one, denial wins a tie among the operator's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::ipv4_in_ipv6::{is_tunneled, nat64};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(segments: [u16; 8], prefix: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix))
}

/// No peer, whatever the operator says.
const NEVER: &[IpNet] = &[
    v4(0, 0, 0, 0, 8),                     // this network, and the unspecified address
    v4(127, 0, 0, 0, 8),                   // loopback
    v4(169, 254, 0, 0, 16),                // link-local, and the metadata service of most clouds
    v4(224, 0, 0, 0, 4),                   // multicast
    v4(255, 255, 255, 255, 32),            // broadcast
    v4(100, 100, 100, 200, 32),            // metadata: Alibaba
    v4(168, 63, 129, 16, 32),              // metadata: Azure
    v4(192, 0, 0, 192, 32),                // metadata: Oracle
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96),      // unspecified, loopback, and IPv4-compatible
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), // IPv4-mapped: no packet on a wire has it
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), // IPv4-translated (RFC 2765)
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), // metadata: AWS
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),  // metadata: Google
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), // metadata: Oracle
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
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16),
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

    /// Whether the address may be a peer. Never one of a tunnel (RFC 8656 section 21.4). One that NAT64 translates
    /// must be permitted in both forms.
    pub fn permits(&self, ip: IpAddr) -> bool {
        !is_tunneled(ip)
            && self.permits_as_written(ip)
            && nat64(ip).is_none_or(|translated| self.permits_as_written(translated.into()))
    }

    fn permits_as_written(&self, ip: IpAddr) -> bool {
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
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "2001:0:1::1",
        ] {
            let host = format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 });
            assert!(!permits(&[&host], &[], ip), "{ip}");
        }
    }

    #[test]
    fn turn_242_248_250_ipv6_forms_of_ipv4_addresses_are_no_peers_whoever_they_carry() {
        for ip in [
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "2001:0:808:808::1",
            "2a00::5efe:8.8.8.8",
        ] {
            assert!(!permits(&[], &[], ip), "{ip}");
            assert!(!permits(&["::/0", &format!("{ip}/128")], &[], ip), "{ip}");
        }
    }

    #[test]
    fn turn_242_nat64_forms_are_judged_by_the_ipv4_address_too() {
        assert!(permits(&[], &[], "64:ff9b::8.8.8.8"));
        for ip in ["64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::0.0.0.0", "64:ff9b::224.0.0.1"]
        {
            assert!(!permits(&["::/0", &format!("{ip}/128")], &[], ip), "{ip}");
        }
        assert!(!permits(&["64:ff9b::/96"], &[], "64:ff9b::10.0.0.1"), "10.0.0.0/8 is still denied");
        assert!(permits(&["10.0.0.0/8"], &[], "64:ff9b::10.0.0.1"));
        assert!(!permits(&[], &["8.8.8.0/24"], "64:ff9b::8.8.8.8"));
        assert!(!permits(&["8.8.8.8/32"], &["64:ff9b::/96"], "64:ff9b::8.8.8.8"));
    }

    #[test]
    fn turn_241_242_ipv6_networks_are_compared_as_numbers() {
        let denied = |network: &str, ip: &str| !permits(&[], &[network], ip);
        // A prefix that ends inside a group, and inside a digit; and groups of fewer digits.
        assert!(denied("2a00:1230::/29", "2a00:1237:ffff::1"));
        assert!(!denied("2a00:1230::/29", "2a00:1238::1"));
        assert!(!denied("2a00:1230::/29", "2a00:122f:ffff::1"));
        assert!(denied("2a00::8000/113", "2a00::ffff"));
        assert!(!denied("2a00::8000/113", "2a00::7fff"));
        assert!(denied("2a00:1:0:10::/60", "2a00:1:0:1f::"));
        assert!(!denied("2a00:1:0:10::/60", "2a00:1:0:2::"));
        for (last, first_after) in [
            ("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
            ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("fe00::")),
            ("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:200::")),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:db9::")),
            ("2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("2003::")),
            ("3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Some("3fff:1000::")),
        ] {
            assert!(!permits(&[], &[], last), "{last}");
            assert!(first_after.is_none_or(|ip| permits(&[], &[], ip)), "{first_after:?}");
        }
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
