//! What this host has: interfaces, addresses, the default route and the name. Reading it changes nothing.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
};

use ipnet::Ipv4Net;
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// Interfaces and IPv4 addresses as they are now.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// In the kernel's order.
    pub interfaces: Vec<Interface>,
    /// Source address of a packet that takes the default route.
    pub default_source: Option<Ipv4Addr>,
    /// The host name.
    pub name: String,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// IPv4 addresses with their prefixes.
    pub addresses: Vec<Ipv4Net>,
}

impl Host {
    /// Reads the interfaces, addresses and routes of the network namespace that the process is in.
    pub fn read() -> io::Result<Self> {
        Ok(Self {
            interfaces: interfaces()?,
            default_source: default_source(),
            name: nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        })
    }

    /// The interface of this name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The interface that has this address.
    pub fn owner(&self, address: Ipv4Addr) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.has(address))
    }

    /// The addresses of all interfaces.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.interfaces.iter().flat_map(|interface| interface.addresses.iter().map(Ipv4Net::addr))
    }

    /// The addresses as a list to be shown to the operator: `198.18.1.1 (relc0), 127.0.0.1 (lo)`.
    pub fn addresses_text(&self) -> String {
        list(self.interfaces.iter().flat_map(|interface| {
            interface.addresses.iter().map(move |net| format!("{} ({})", net.addr(), interface.name))
        }))
    }

    /// The names of the interfaces as a list to be shown to the operator.
    pub fn names_text(&self) -> String {
        list(self.interfaces.iter().map(|interface| interface.name.clone()))
    }
}

impl Interface {
    /// Whether the kernel delivers this address here. On the loopback interface a prefix is local as a whole.
    fn has(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address || (self.loopback && net.contains(&address)))
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items = items.collect::<Vec<_>>();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn interfaces() -> io::Result<Vec<Interface>> {
    let mut by_index = BTreeMap::<u32, Interface>::new();
    for entry in getifaddrs()? {
        // The label of an alias address is not an interface of its own.
        let name = entry.interface_name.split(':').next().unwrap_or_default().to_owned();
        let Ok(index) = nix::net::if_::if_nametoindex(name.as_str()) else { continue };
        let interface = by_index.entry(index).or_insert_with(|| Interface {
            name,
            index,
            loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            addresses: Vec::new(),
        });
        let address = entry.address.as_ref().and_then(|address| address.as_sockaddr_in()).map(|a| a.ip());
        let netmask = entry.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in()).map(|mask| mask.ip());
        if let Some(address) = address {
            let netmask = netmask.unwrap_or(Ipv4Addr::BROADCAST);
            let net = Ipv4Net::with_netmask(address, netmask).map_err(io::Error::other)?;
            interface.addresses.push(net);
        }
    }
    Ok(by_index.into_values().collect())
}

/// Asks the kernel for the route to an address that is nobody's (TEST-NET-1); nothing is sent.
fn default_source() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(SocketAddr::from(([192, 0, 2, 1], 9))).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_unspecified() => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_and_owns_its_whole_prefix() {
        let host = Host::read().unwrap();
        let lo = host.interface("lo").expect("every namespace has lo");
        assert!(lo.loopback && lo.index == 1);
        if !lo.addresses.is_empty() {
            assert_eq!(host.owner(Ipv4Addr::new(127, 0, 0, 2)), Some(lo));
        }
        assert_eq!(host.owner(Ipv4Addr::new(192, 0, 2, 77)), None);
        assert!(host.names_text().contains("lo"));
    }
}
