//! Interfaces, listeners and relay addresses.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::{
    super::{DEFAULT_PORT, ExternalIp, Given, Listen, Note, Origin, RelayPorts, Settings},
    Resolver, default,
};
use crate::{control::host::Interface, turn::Family};

impl<'a> Resolver<'a> {
    /// The named interfaces; else those that have the named addresses; and, where the wildcard or nothing is
    /// named, the default routes'.
    pub(super) fn interfaces(&mut self, settings: &Settings) -> Vec<&'a Interface> {
        let mut interfaces = Vec::<&Interface>::new();
        let mut add = |interface| {
            if !interfaces.contains(&interface) {
                interfaces.push(interface);
            }
        };
        let host = self.host;
        for Given { value: name, origin } in &settings.interfaces {
            match host.interface(name) {
                Some(interface) => add(interface),
                None => self.refuse(
                    origin.clone(),
                    "interfaces",
                    Some(name.clone()),
                    format!("there is no such interface: this host has {}", host.names_text()),
                ),
            }
        }
        if !settings.interfaces.is_empty() {
            return interfaces;
        }

        let listens = settings.listen.iter().map(|listen| listen.value.0.ip());
        let relays = settings.relay_address.iter().map(|relay| relay.value.0);
        let externals = settings.external_ip.iter().map(|external| external.value.private);
        let named = listens.chain(relays).chain(externals).collect::<Vec<_>>();
        let owners = named.iter().filter_map(|address| host.owner(*address));
        owners.filter(|owner| !owner.loopback).for_each(&mut add);
        if settings.listen.is_empty() || named.iter().any(|address| address.is_unspecified()) {
            host.default_sources.iter().filter_map(|&source| host.owner(source)).for_each(&mut add);
            if interfaces.is_empty() {
                self.refuse(
                    Origin::Default,
                    "interfaces",
                    None,
                    format!(
                        "there is no default route to tell which interface to serve: name one with --interface ({})",
                        host.names_text()
                    ),
                );
            }
        }
        if !interfaces.is_empty() {
            self.default_taken("interfaces", interfaces.iter().map(|interface| interface.name.as_str()));
        }
        interfaces
    }

    pub(super) fn listeners(
        &mut self,
        settings: &Settings,
        interfaces: &[&Interface],
    ) -> Vec<Given<SocketAddr>> {
        let everywhere = |port, families: &[Family]| {
            let addresses = interfaces.iter().flat_map(|interface| interface.lasting_addresses());
            let addresses = addresses.filter(|&address| families.contains(&Family::of(address)));
            addresses.map(|address| SocketAddr::new(address, port)).collect::<Vec<_>>()
        };
        let mut listeners = Vec::new();
        for Given { value: listen, origin } in &settings.listen {
            let address = listen.0.ip();
            let expanded = if address.is_unspecified() {
                let expanded = everywhere(listen.0.port(), &[Family::of(address)]);
                self.default_taken(
                    &format!("{listen} stands for"),
                    expanded.iter().map(|a| Listen(*a).to_string()),
                );
                expanded
            } else {
                if self.host.owner(address).is_none() {
                    self.not_here(origin.clone(), "listen", listen);
                }
                vec![listen.0]
            };
            listeners.extend(expanded.into_iter().map(|value| Given { value, origin: origin.clone() }));
        }
        if settings.listen.is_empty() {
            let addresses = everywhere(DEFAULT_PORT, &Family::ALL);
            self.default_taken("listen", addresses.iter().map(|address| Listen(*address).to_string()));
            listeners.extend(addresses.into_iter().map(default));
        }
        // Without an interface that error has been told already.
        if listeners.is_empty() && !interfaces.is_empty() {
            let names = interfaces.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>();
            self.refuse(
                Origin::Default,
                "listen",
                None,
                format!(
                    "{} has no address to listen on: give it one, or name a listener with --listen",
                    names.join(", ")
                ),
            );
        }
        let mut seen = HashSet::new();
        for Given { value, origin } in &listeners {
            if !seen.insert(*value) {
                self.refuse(
                    origin.clone(),
                    "listen",
                    Some(Listen(*value).to_string()),
                    "this listener is there twice: remove one of them",
                );
            }
        }
        listeners
    }

    pub(super) fn no_overlap(&mut self, listeners: &[Given<SocketAddr>], ports: &Given<RelayPorts>) {
        for Given { value, origin } in listeners {
            if !ports.value.0.contains(&value.port()) {
                continue;
            }
            let (origin, key, value, other) = match origin {
                Origin::Default => (
                    &ports.origin,
                    "relay_ports",
                    ports.value.to_string(),
                    format!("the listener {}", Listen(*value)),
                ),
                _ => (origin, "listen", Listen(*value).to_string(), format!("relay_ports {}", ports.value)),
            };
            self.refuse(
                origin.clone(),
                key,
                Some(value),
                format!("overlapping ports with {other}: choose a listener port outside the relayed ports, or another range"),
            );
        }
    }

    /// The named ones; else, of each family, those with an external address; else the default route's if an
    /// interface of ours has it; else the last interface's first.
    pub(super) fn relay_addresses(
        &mut self,
        settings: &Settings,
        interfaces: &[&Interface],
    ) -> Vec<Given<IpAddr>> {
        let mut relays = Vec::<Given<IpAddr>>::new();
        for Given { value, origin } in &settings.relay_address {
            if self.host.owner(value.0).is_none() {
                self.not_here(origin.clone(), "relay_address", value.0);
            } else if relays.iter().any(|relay| relay.value == value.0) {
                let problem = "this address is there twice: remove one of them";
                self.refuse(origin.clone(), "relay_address", Some(value.0.to_string()), problem);
            }
            relays.push(Given { value: value.0, origin: origin.clone() });
        }
        if !relays.is_empty() {
            return relays;
        }
        // Without any listener there may be none; that error has been told already.
        for family in Family::ALL {
            let (addresses, why) = self.default_relay_addresses(settings, interfaces, family);
            for address in addresses {
                self.notes.push(Note::Default(format!("relay_address: {address} ({why})")));
                relays.push(default(address));
            }
        }
        relays
    }

    fn default_relay_addresses(
        &self,
        settings: &Settings,
        interfaces: &[&Interface],
        family: Family,
    ) -> (Vec<IpAddr>, &'static str) {
        let of_family = |address: &IpAddr| Family::of(*address) == family;
        let externals = settings.external_ip.iter().map(|external| external.value.private);
        let externals = externals.filter(of_family).collect::<Vec<_>>();
        let ours = |address: &&IpAddr| {
            interfaces.iter().any(|interface| interface.lasting_addresses().any(|other| other == **address))
        };
        let last =
            || interfaces.iter().rev().find_map(|interface| interface.lasting_addresses().find(of_family));
        let mut listeners = settings.listen.iter().map(|listen| listen.value.0.ip());
        if !externals.is_empty() {
            (externals, "it has an external_ip")
        } else if let Some(&address) = self.host.default_sources.iter().filter(|a| of_family(a)).find(ours) {
            (vec![address], "the default route leaves from it")
        } else if let Some(address) = last() {
            (vec![address], "the first of the last interface")
        } else if let Some(address) = listeners.find(|ip| of_family(ip) && !ip.is_unspecified()) {
            (vec![address], "the first listener's")
        } else {
            (Vec::new(), "")
        }
    }

    pub(super) fn external_addresses(
        &mut self,
        externals: &[Given<ExternalIp>],
        relays: &[Given<IpAddr>],
    ) -> HashMap<IpAddr, IpAddr> {
        let mut by_private = HashMap::new();
        let mut publics = HashSet::new();
        for Given { value, origin } in externals {
            let problem = if self.host.owner(value.private).is_none() {
                self.not_here(origin.clone(), "external_ip", value);
                continue;
            } else if !relays.iter().any(|relay| relay.value == value.private) {
                let relays =
                    relays.iter().map(|relay| relay.value.to_string()).collect::<Vec<_>>().join(", ");
                format!(
                    "{} is no relay address: name one of {relays}, or add it to relay_address",
                    value.private
                )
            } else if relays.iter().any(|relay| relay.value == value.public) {
                format!(
                    "{} is itself a relay address: write PUBLIC/{} with the address that peers see, or leave it out",
                    value.public, value.private
                )
            } else if by_private.insert(value.private, value.public).is_some() {
                format!("{} has two external addresses: keep one", value.private)
            } else if !publics.insert(value.public) {
                format!("{} stands for two relay addresses: give each its own", value.public)
            } else {
                continue;
            };
            self.refuse(origin.clone(), "external_ip", Some(value.to_string()), problem);
        }
        for relay in relays {
            if is_behind_nat(relay.value) && !by_private.contains_key(&relay.value) {
                self.warn(format!(
                    "relay_address {0} is private and has no external_ip: peers outside that network cannot reach \
                     it; if it is mapped to a public address, add --external-ip PUBLIC/{0}",
                    relay.value
                ));
            }
        }
        by_private
    }

    /// Packets to an address reach the program only where it is attached. (An address on loopback is reached
    /// through other interfaces, one on a VLAN device through the one below.)
    pub(super) fn warn_of_bypasses(
        &mut self,
        interfaces: &[&Interface],
        addresses: impl Iterator<Item = IpAddr>,
    ) {
        let mut warned = HashSet::new();
        for address in addresses {
            let Some(owner) = self.host.owner(address) else { continue };
            let named = |name: &str| interfaces.iter().any(|interface| interface.name == name);
            if !owner.loopback && !self.host.on_the_way_to(owner).any(named) && warned.insert(address) {
                self.warn(format!(
                    "{address} is on {0}, which is not among the interfaces: the daemon carries what arrives there; \
                     add --interface {0}",
                    owner.name
                ));
            }
        }
    }

    pub(super) fn not_here(&mut self, origin: Origin, key: &str, value: impl fmt::Display) {
        let problem = format!("the address is not on this host, which has {}", self.host.addresses_text());
        self.refuse(origin, key, Some(value.to_string()), problem);
    }
}

/// RFC 1918 and RFC 6598 (carrier-grade NAT), RFC 4193 (unique local).
fn is_behind_nat(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}
