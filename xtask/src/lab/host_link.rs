//! The way from the host into the lab: a veth pair to the client's namespace, which forwards to the relay.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::bail;
use serde::Deserialize;

use super::{CLIENT_NIC, CLIENTS, HOST, LISTENER, Lab, RELAY_ADDRESS, RELAY_CLIENT_NIC};
use crate::process;

/// The lab's end of the link.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 3, 2);
/// The link itself: the host's address and the gateway's.
const HOST_NETWORK: &str = "198.18.3.0/30";
/// All of the lab's addresses.
const RANGE: &str = "198.18.0.0/15";

/// Makes the link. The janitor removes it.
pub(super) fn create(lab: &Lab) -> anyhow::Result<()> {
    refuse_if_routed()?;
    let nic = format!("tpk-{}", lab.id);
    let client = lab.client.name();
    // Each command that touches the host names our own interface.
    host(&format!("link add {nic} type veth peer name host0 netns {client}"))?;
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{nic}/disable_ipv6");
    if std::path::Path::new(&ipv6).exists() {
        std::fs::write(&ipv6, "1")?;
    }
    process::output(Command::new("ethtool").args(["-K", &nic, "tx", "off", "gro", "on"]))?;
    lab.client.ethtool("-K host0 tx off gro on")?;
    host(&format!("address add {HOST}/30 dev {nic}"))?;
    host(&format!("link set {nic} up"))?;
    lab.client.ip(&format!("address add {GATEWAY}/30 dev host0"))?;
    lab.client.ip("link set host0 up")?;
    lab.client.set_sysctl("net/ipv4/conf/host0/forwarding", "1")?;
    lab.client.set_sysctl(&format!("net/ipv4/conf/{CLIENT_NIC}/forwarding"), "1")?;
    for address in [LISTENER, RELAY_ADDRESS] {
        host(&format!("route add {address}/32 via {GATEWAY} dev {nic}"))?;
    }
    lab.relay.ip(&format!("route add {HOST_NETWORK} via {} dev {RELAY_CLIENT_NIC}", CLIENTS[0]))?;
    Ok(())
}

#[derive(Deserialize)]
struct Route {
    dst: String,
    dev: Option<String>,
}

/// Fails if the host has a route, other than its default route, for any of the lab's addresses.
fn refuse_if_routed() -> anyhow::Result<()> {
    for selector in ["root", "match"] {
        let routes = host(&format!("-json route show table all to {selector} {RANGE}"))?;
        // ip prints nothing at all, not an empty list, when a table is empty.
        let routes: Vec<Route> =
            if routes.trim().is_empty() { Vec::new() } else { serde_json::from_str(&routes)? };
        if let Some(route) = routes.iter().find(|route| route.dst != "default") {
            bail!(
                "the host already routes {} (by {}), which overlaps the lab's addresses {RANGE}: \
                 another lab may be linked to the host; stop it, or do without the host link",
                route.dst,
                route.dev.as_deref().unwrap_or("no device"),
            );
        }
    }
    Ok(())
}

fn host(words: &str) -> anyhow::Result<String> {
    process::output(Command::new("ip").args(words.split_whitespace()))
}
