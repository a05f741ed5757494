//! What this host has: interfaces, addresses, the default route and the name. Reading it changes nothing.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use crate::turn::Family;

/// Interfaces and addresses as they are now.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// In the kernel's order.
    pub interfaces: Vec<Interface>,
    /// The names of VLAN devices, each with that of the device below it.
    pub vlans: HashMap<String, String>,
    /// Source addresses of packets that take the default routes: at most one of each family.
    pub default_sources: Vec<IpAddr>,
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
    /// Addresses with their prefixes.
    pub addresses: Vec<IpNet>,
    /// Those of the addresses that come and go: temporary and deprecated ones of IPv6.
    pub passing: HashSet<Ipv6Addr>,
}

/// IPv6 prefixes of point-to-point links, and single addresses, have no anycast address (RFC 6164).
const NO_ANYCAST_PREFIX_LEN: u8 = 127;

impl Host {
    /// Reads the interfaces, addresses and routes of the network namespace that the process is in.
    pub fn read() -> io::Result<Self> {
        let mut host = Self {
            interfaces: interfaces()?,
            vlans: vlans(&fs::read_to_string("/proc/thread-self/net/vlan/config").unwrap_or_default()),
            default_sources: Vec::new(),
            name: nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        };
        let sources = Family::ALL.into_iter().filter_map(default_source);
        host.default_sources = sources.filter_map(|source| host.lasting(source)).collect();
        Ok(host)
    }

    /// The interface of this name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The interface that has this address.
    pub fn owner(&self, address: IpAddr) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.has(address))
    }

    /// The interfaces that a frame to an interface comes in by: itself and, if it is a VLAN device, those below.
    pub fn on_the_way_to<'a>(&'a self, interface: &'a Interface) -> impl Iterator<Item = &'a str> {
        let below = |name: &&str| self.vlans.get(*name).map(String::as_str);
        // Linux stacks no more than eight devices.
        iter::successors(Some(interface.name.as_str()), below).take(8)
    }

    /// What the kernel delivers here: the addresses of all interfaces; those of loopback interfaces with their
    /// prefixes; and the subnet-router anycast addresses of IPv6 (RFC 4291 section 2.6.1), which are this host's
    /// while it forwards.
    pub fn local_networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.interfaces.iter().flat_map(|interface| {
            interface.addresses.iter().flat_map(|net| {
                let whole = interface.loopback.then(|| net.trunc());
                let has_anycast = net.addr().is_ipv6() && net.prefix_len() < NO_ANYCAST_PREFIX_LEN;
                let anycast = has_anycast.then(|| net.network().into());
                [Some(net.addr().into()), whole, anycast].into_iter().flatten()
            })
        })
    }

    /// The address, or another one of its interface and family if it is one that goes.
    fn lasting(&self, address: IpAddr) -> Option<IpAddr> {
        let family = Family::of(address);
        let mut lasting =
            self.owner(address)?.lasting_addresses().filter(|&other| Family::of(other) == family);
        let first = lasting.next()?;
        Some(if first == address || lasting.any(|other| other == address) { address } else { first })
    }

    /// The addresses as a list to be shown to the operator: `198.18.1.1 (relc0), 127.0.0.1 (lo)`.
    pub fn addresses_text(&self) -> String {
        list(self.interfaces.iter().flat_map(|interface| {
            let usable =
                interface.addresses.iter().map(IpNet::addr).filter(|&address| !is_link_local(address));
            usable.map(move |address| format!("{address} ({})", interface.name))
        }))
    }

    /// The names of the interfaces as a list to be shown to the operator.
    pub fn names_text(&self) -> String {
        list(self.interfaces.iter().map(|interface| interface.name.clone()))
    }
}

impl Interface {
    /// Addresses that clients and peers can be told: not those of one link, and none that will go.
    pub fn lasting_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(IpNet::addr).filter(|&address| {
            let passes = matches!(address, IpAddr::V6(address) if self.passing.contains(&address));
            !passes && !is_link_local(address)
        })
    }

    /// Whether the kernel delivers this address here. On the loopback interface a prefix is local as a whole.
    fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address || (self.loopback && net.contains(&address)))
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items = items.collect::<Vec<_>>();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn interfaces() -> io::Result<Vec<Interface>> {
    let mut by_index = BTreeMap::<u32, Interface>::new();
    let passing = passing_addresses();
    for entry in getifaddrs()? {
        // The label of an alias address is not an interface of its own.
        let name = entry.interface_name.split(':').next().unwrap_or_default().to_owned();
        let Ok(index) = nix::net::if_::if_nametoindex(name.as_str()) else { continue };
        let interface = by_index.entry(index).or_insert_with(|| Interface {
            name,
            index,
            loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            addresses: Vec::new(),
            passing: HashSet::new(),
        });
        let (Some(address), netmask) = (entry.address, entry.netmask) else { continue };
        if let Some(address) = address.as_sockaddr_in() {
            let netmask = netmask.as_ref().and_then(|mask| mask.as_sockaddr_in()).map(|mask| mask.ip());
            let net = Ipv4Net::with_netmask(address.ip(), netmask.unwrap_or(Ipv4Addr::BROADCAST));
            interface.addresses.push(IpNet::V4(net.map_err(io::Error::other)?));
        } else if let Some(address) = address.as_sockaddr_in6() {
            let netmask = netmask.as_ref().and_then(|mask| mask.as_sockaddr_in6()).map(|mask| mask.ip());
            let net = Ipv6Net::with_netmask(address.ip(), netmask.unwrap_or(Ipv6Addr::from_bits(u128::MAX)));
            interface.addresses.push(IpNet::V6(net.map_err(io::Error::other)?));
            if passing.contains(&address.ip()) {
                interface.passing.insert(address.ip());
            }
        }
    }
    Ok(by_index.into_values().collect())
}

/// From the kernel's list of VLAN devices; each line: name, VLAN identifier, device below. Without VLANs there is none, and it is root's to
/// read.
fn vlans(list: &str) -> HashMap<String, String> {
    let read = |line: &str| {
        let mut fields = line.split('|').map(str::trim);
        let (name, _, below) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name.to_owned(), below.to_owned()))
    };
    list.lines().filter_map(read).collect()
}

/// IPv6 addresses that are temporary, deprecated or found to be another host's. Without IPv6 there are none.
fn passing_addresses() -> HashSet<Ipv6Addr> {
    // The flags of include/uapi/linux/if_addr.h.
    const TEMPORARY: u32 = 0x01;
    const DUPLICATE: u32 = 0x08;
    const DEPRECATED: u32 = 0x20;
    // Each line: address, index, prefix length, scope, flags (all hexadecimal), name.
    let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    let passing = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        (flags & (TEMPORARY | DUPLICATE | DEPRECATED) != 0).then(|| Ipv6Addr::from_bits(address))
    });
    passing.collect()
}

/// Asks the kernel for the route to an address that is nobody's (TEST-NET-1 and its like of IPv6); nothing is
/// sent.
fn default_source(family: Family) -> Option<IpAddr> {
    let (unspecified, nobody): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        Family::V6 => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    };
    let socket = UdpSocket::bind((unspecified, 0)).ok()?;
    socket.connect(SocketAddr::new(nobody, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified()).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_and_owns_its_whole_prefix() {
        let host = Host::read().unwrap();
        let lo = host.interface("lo").expect("every namespace has lo");
        assert!(lo.loopback && lo.index == 1);
        for net in &lo.addresses {
            assert_eq!(host.owner(net.addr()), Some(lo));
            if net.addr().is_ipv4() {
                assert_eq!(host.owner(Ipv4Addr::new(127, 0, 0, 2).into()), Some(lo));
            }
        }
        assert_eq!(host.owner(Ipv4Addr::new(192, 0, 2, 77).into()), None);
        assert_eq!(host.owner("2001:db8::77".parse().unwrap()), None);
        assert!(host.names_text().contains("lo"));
    }

    #[test]
    fn frames_to_a_vlan_device_come_in_below_it() {
        let list = "VLAN Dev name\t | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                    eth0.7         | 7  | eth0\neth0.7.100     | 100  | eth0.7\n";
        let host = Host { vlans: vlans(list), ..Host::default() };
        let way = |name: &str| {
            let interface = Interface {
                name: name.to_owned(),
                index: 9,
                loopback: false,
                addresses: Vec::new(),
                passing: HashSet::new(),
            };
            host.on_the_way_to(&interface).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(way("eth0.7.100"), ["eth0.7.100", "eth0.7", "eth0"]);
        assert_eq!(way("eth1"), ["eth1"]);
        assert_eq!(host.vlans.len(), 2);
    }

    #[test]
    fn turn_242_what_reaches_this_host_is_more_than_its_addresses() {
        let interface = |name: &str, loopback, addresses: &[&str]| Interface {
            name: name.to_owned(),
            index: 1,
            loopback,
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
            passing: HashSet::new(),
        };
        let host = Host {
            interfaces: vec![
                interface("lo", true, &["127.0.0.1/8", "203.0.113.1/24"]),
                interface("eth0", false, &["198.51.100.7/24", "2001:db8::7/64", "2001:db8:1::3/127"]),
            ],
            ..Host::default()
        };
        let local: Vec<_> = host.local_networks().map(|net| net.to_string()).collect();
        assert_eq!(
            local,
            [
                "127.0.0.1/32",
                "127.0.0.0/8",
                "203.0.113.1/32",
                "203.0.113.0/24",
                "198.51.100.7/32",
                "2001:db8::7/128",
                "2001:db8::/128",
                "2001:db8:1::3/128",
            ]
        );
    }

    #[test]
    fn addresses_that_go_are_nobodys_default() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let eth0 = Interface {
            name: "eth0".to_owned(),
            index: 2,
            loopback: false,
            addresses: ["198.51.100.7/24", "fe80::7/64", "2001:db8::dead/64", "2001:db8::7/64"]
                .map(|net| net.parse().unwrap())
                .to_vec(),
            passing: HashSet::from(["2001:db8::dead".parse().unwrap()]),
        };
        let lasting = eth0.lasting_addresses().collect::<Vec<_>>();
        assert_eq!(lasting, [address("198.51.100.7"), address("2001:db8::7")]);
        let host = Host { interfaces: vec![eth0], ..Host::default() };
        assert_eq!(host.lasting(address("2001:db8::dead")), Some(address("2001:db8::7")));
        assert_eq!(host.lasting(address("2001:db8::7")), Some(address("2001:db8::7")));
        assert_eq!(host.lasting(address("198.51.100.7")), Some(address("198.51.100.7")));
        assert!(!host.addresses_text().contains("fe80::7"), "{}", host.addresses_text());
    }
}
