//! A firewall in front of the relay: the peer's host becomes one, with a network of its own behind it.
//!
//! ```text
//!   [relay] relp0 ---- peer0 [firewall] fw0 ---- out0 [outside]
//!       198.18.2.1     .2.2      198.19.0.254     198.19.0.2
//!        fd00:2::1     ::2         fd00:3::fe     fd00:3::2
//! ```
//!
//! It maps one public address to the relay's, both ways, for IPv4. What the relay itself sends to that address is not
//! turned back ("no hairpin NAT"), as with most firewalls. IPv6 is forwarded as it is.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Stdio;

use anyhow::{Context, bail};

use super::{Family, Lab, Namespace, PEER_NIC, RELAY_ADDRESS, has_ipv6, link};
use crate::process;

/// The relay's address as the outside knows it.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// A host outside.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
/// [`OUTSIDE`] in IPv6.
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xFD00, 3, 0, 0, 0, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 254);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xFD00, 3, 0, 0, 0, 0, 0, 0xFE);
/// The outside's IPv6 network; its IPv4 network is among the lab's own.
pub const OUTSIDE_NETWORK_V6: &str = "fd00:3::/64";
/// The firewall's NIC on the outside.
const FIREWALL_NIC: &str = "fw0";
/// The outside host's NIC.
const OUTSIDE_NIC: &str = "out0";

/// The network outside of the firewall.
#[derive(Debug)]
pub struct Outside {
    host: Namespace,
}

impl Outside {
    /// Makes the peer's host of a lab the firewall.
    pub fn create(lab: &Lab) -> anyhow::Result<Self> {
        if process::find("nft").is_none() {
            bail!("the firewall needs `nft`: `cargo xtask test` installs it");
        }
        let host = Namespace::create(format!("turnpike-{}-outside", lab.id))?;
        let firewall = &lab.peer;
        link((&host, OUTSIDE_NIC), (firewall, FIREWALL_NIC))?;
        host.ip(&format!("address add {OUTSIDE}/24 dev {OUTSIDE_NIC}"))?;
        // The public address is the firewall's own: it answers ARP for it.
        for address in [GATEWAY, PUBLIC] {
            firewall.ip(&format!("address add {address}/24 dev {FIREWALL_NIC}"))?;
        }
        firewall.set_sysctl("net/ipv4/ip_forward", "1")?;
        if has_ipv6() {
            host.ip(&format!("address add {OUTSIDE_V6}/64 dev {OUTSIDE_NIC} nodad"))?;
            host.ip(&format!("route add default via {GATEWAY_V6}"))?;
            firewall.ip(&format!("address add {GATEWAY_V6}/64 dev {FIREWALL_NIC} nodad"))?;
            for interfaces in ["all", PEER_NIC, FIREWALL_NIC] {
                firewall.set_sysctl(&format!("net/ipv6/conf/{interfaces}/forwarding"), "1")?;
            }
        }
        translate(firewall)?;
        Ok(Self { host })
    }

    /// The host outside.
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// Its address.
    pub fn address(family: Family) -> IpAddr {
        family.choose(OUTSIDE, OUTSIDE_V6)
    }
}

/// Maps the public address to the relay's and back, where a packet comes from or goes to the outside.
fn translate(firewall: &Namespace) -> anyhow::Result<()> {
    let rules = format!(
        "table ip nat {{
            chain prerouting {{
                type nat hook prerouting priority dstnat
                iifname {FIREWALL_NIC} ip daddr {PUBLIC} dnat to {RELAY_ADDRESS}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat
                oifname {FIREWALL_NIC} ip saddr {RELAY_ADDRESS} snat to {PUBLIC}
            }}
        }}\n"
    );
    let mut nft = firewall.command("nft");
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("could not start nft")?;
    nft.stdin.take().expect("stdin is piped").write_all(rules.as_bytes())?;
    let status = nft.wait()?;
    if !status.success() {
        bail!("nft ended with {status} in namespace {}; it was given\n{rules}", firewall.name());
    }
    Ok(())
}
