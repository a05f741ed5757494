//! From what was written to what will be done: checks against the host, and defaults.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    num::NonZeroU32,
};

use super::{
    ConfigError, ConfigErrors, Configuration, DEFAULT_ADMIN_SOCKET, DEFAULT_BPFFS, DEFAULT_PORT, ExternalIp,
    Given, Listen, Note, Origin, Realm, RelayPorts, Settings, User,
};
use crate::{
    control::host::{Host, Interface},
    datapath::{DEFAULT_MAX_FLOWS, DatapathMode},
};

/// Checks `settings` against `host` and fills in the defaults. All mistakes are told at once.
pub fn resolve(settings: Settings, host: &Host) -> Result<Configuration, ConfigErrors> {
    let mut resolver = Resolver { host, errors: Vec::new(), notes: Vec::new() };

    let interfaces = resolver.interfaces(&settings);
    let relay_ports = settings.relay_ports.clone().unwrap_or(default(RelayPorts::default()));
    let listeners = resolver.listeners(&settings, &interfaces);
    resolver.no_overlap(&listeners, &relay_ports);
    let relay_addresses = resolver.relay_addresses(&settings, &interfaces);
    let external_addresses = resolver.external_addresses(&settings.external_ip, &relay_addresses);
    let realm = resolver.realm(settings.realm);
    let users = resolver.users(settings.users);
    let lifetimes = settings.lifetimes.unwrap_or(default(Default::default()));
    if lifetimes.value.default > lifetimes.value.max {
        let value = format!("default = {}, max = {}", lifetimes.value.default, lifetimes.value.max);
        resolver.refuse(
            lifetimes.origin,
            "lifetimes",
            Some(value),
            "default is above max: raise max or lower default",
        );
    }
    let datapath = settings.datapath.unwrap_or(default(DatapathMode::Auto));
    let wants_xdp = matches!(datapath.value, DatapathMode::XdpNative | DatapathMode::XdpGeneric);
    if wants_xdp && interfaces.is_empty() && resolver.errors.is_empty() {
        resolver.refuse(
            datapath.origin,
            "datapath",
            Some(datapath.value.to_string()),
            format!("there is no interface to attach to: name one with --interface ({})", host.names_text()),
        );
    }

    if datapath.value != DatapathMode::Userspace {
        let addresses = listeners.iter().map(|listener| *listener.value.ip());
        resolver
            .warn_of_bypasses(&interfaces, addresses.chain(relay_addresses.iter().map(|relay| relay.value)));
    }

    let Resolver { errors, notes, .. } = resolver;
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    Ok(Configuration {
        interfaces: interfaces.iter().map(|interface| interface.name.clone()).collect(),
        listeners: listeners.iter().map(|listener| SocketAddr::V4(listener.value)).collect(),
        relay_addresses: relay_addresses.iter().map(|address| IpAddr::V4(address.value)).collect(),
        external_addresses,
        host_addresses: host.addresses().map(IpAddr::V4).collect(),
        relay_ports: relay_ports.value.0,
        realm,
        users,
        allow_peer: settings.allow_peer.iter().map(|cidr| cidr.value.0).collect(),
        deny_peer: settings.deny_peer.iter().map(|cidr| cidr.value.0).collect(),
        datapath: datapath.value,
        max_flows: settings.max_flows.map_or(DEFAULT_MAX_FLOWS, NonZeroU32::get),
        admin_socket: settings.admin_socket.unwrap_or_else(|| DEFAULT_ADMIN_SOCKET.into()),
        bpffs: settings.bpffs.unwrap_or_else(|| DEFAULT_BPFFS.into()),
        strict_permissions: settings.strict_permissions.unwrap_or(false),
        rfc5766_channels: settings.rfc5766_channels.unwrap_or(false),
        lifetimes: lifetimes.value,
        log_addresses: settings.log_addresses.unwrap_or(false),
        notes,
    })
}

const fn default<T>(value: T) -> Given<T> {
    Given { value, origin: Origin::Default }
}

struct Resolver<'a> {
    host: &'a Host,
    errors: Vec<ConfigError>,
    notes: Vec<Note>,
}

impl<'a> Resolver<'a> {
    /// The named interfaces; else those that have the named addresses; and, where the wildcard or nothing is
    /// named, the default route's.
    fn interfaces(&mut self, settings: &Settings) -> Vec<&'a Interface> {
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

        let listens = settings.listen.iter().map(|listen| *listen.value.0.ip());
        let relays = settings.relay_address.iter().map(|relay| relay.value.0);
        let externals = settings.external_ip.iter().map(|external| external.value.private);
        let named = listens.chain(relays).chain(externals).collect::<Vec<_>>();
        let owners = named.iter().filter_map(|address| host.owner(*address));
        owners.filter(|owner| !owner.loopback).for_each(&mut add);
        if settings.listen.is_empty() || named.iter().any(|address| address.is_unspecified()) {
            match host.default_source.and_then(|address| host.owner(address)) {
                Some(interface) => add(interface),
                None if interfaces.is_empty() => self.refuse(
                    Origin::Default,
                    "interfaces",
                    None,
                    format!(
                        "there is no default route to tell which interface to serve: name one with --interface ({})",
                        host.names_text()
                    ),
                ),
                None => {}
            }
        }
        if !interfaces.is_empty() {
            self.default_taken("interfaces", interfaces.iter().map(|interface| interface.name.as_str()));
        }
        interfaces
    }

    fn listeners(&mut self, settings: &Settings, interfaces: &[&Interface]) -> Vec<Given<SocketAddrV4>> {
        let everywhere = |port| {
            let addresses = interfaces.iter().flat_map(|interface| &interface.addresses);
            addresses.map(move |net| SocketAddrV4::new(net.addr(), port)).collect::<Vec<_>>()
        };
        let mut listeners = Vec::new();
        for Given { value: listen, origin } in &settings.listen {
            let address = *listen.0.ip();
            let expanded = if address.is_unspecified() {
                let expanded = everywhere(listen.0.port());
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
            let addresses = everywhere(DEFAULT_PORT);
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
                    "{} has no IPv4 address to listen on: give it one, or name a listener with --listen",
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

    fn no_overlap(&mut self, listeners: &[Given<SocketAddrV4>], ports: &Given<RelayPorts>) {
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

    /// The named ones; else those with an external address; else the default route's if an interface of
    /// ours has it; else the last interface's first.
    fn relay_addresses(&mut self, settings: &Settings, interfaces: &[&Interface]) -> Vec<Given<Ipv4Addr>> {
        let mut relays = Vec::<Given<Ipv4Addr>>::new();
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

        let externals =
            settings.external_ip.iter().map(|external| external.value.private).collect::<Vec<_>>();
        let ours = |address: &Ipv4Addr| {
            interfaces.iter().any(|interface| interface.addresses.iter().any(|net| net.addr() == *address))
        };
        let last = || interfaces.iter().rev().find_map(|interface| interface.addresses.first());
        let listener =
            || settings.listen.iter().map(|listen| *listen.value.0.ip()).find(|ip| !ip.is_unspecified());
        let (addresses, why) = if !externals.is_empty() {
            (externals, "it has an external_ip")
        } else if let Some(address) = self.host.default_source.filter(ours) {
            (vec![address], "the default route leaves from it")
        } else if let Some(net) = last() {
            (vec![net.addr()], "the first of the last interface")
        } else if let Some(address) = listener() {
            (vec![address], "the first listener's")
        } else {
            // Without any listener that error has been told already.
            return relays;
        };
        for address in &addresses {
            self.notes.push(Note::Default(format!("relay_address: {address} ({why})")));
        }
        addresses.into_iter().map(default).collect()
    }

    fn external_addresses(
        &mut self,
        externals: &[Given<ExternalIp>],
        relays: &[Given<Ipv4Addr>],
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
            } else if by_private.insert(IpAddr::V4(value.private), IpAddr::V4(value.public)).is_some() {
                format!("{} has two external addresses: keep one", value.private)
            } else if !publics.insert(value.public) {
                format!("{} stands for two relay addresses: give each its own", value.public)
            } else {
                continue;
            };
            self.refuse(origin.clone(), "external_ip", Some(value.to_string()), problem);
        }
        for relay in relays {
            if is_behind_nat(relay.value) && !by_private.contains_key(&IpAddr::V4(relay.value)) {
                self.notes.push(Note::Warning(format!(
                    "relay_address {0} is private and has no external_ip: peers outside that network cannot reach \
                     it; if it is mapped to a public address, add --external-ip PUBLIC/{0}",
                    relay.value
                )));
            }
        }
        by_private
    }

    /// Packets to an address reach the program only where it is attached. (An address on loopback is reached
    /// through other interfaces.)
    fn warn_of_bypasses(&mut self, interfaces: &[&Interface], addresses: impl Iterator<Item = Ipv4Addr>) {
        let mut warned = HashSet::new();
        for address in addresses {
            let Some(owner) = self.host.owner(address) else { continue };
            if !owner.loopback && !interfaces.contains(&owner) && warned.insert(address) {
                self.notes.push(Note::Warning(format!(
                    "{address} is on {0}, which is not among the interfaces: the daemon carries what arrives there; \
                     add --interface {0}",
                    owner.name
                )));
            }
        }
    }

    fn realm(&mut self, realm: Option<Given<Realm>>) -> String {
        if let Some(realm) = realm {
            return realm.value.0;
        }
        match self.host.name.parse::<Realm>() {
            Ok(realm) => {
                self.default_taken("realm", [realm.0.as_str()]);
                realm.0
            }
            Err(error) => {
                let problem = format!("the host name cannot be the realm: {error}; name one with --realm");
                self.refuse(Origin::Default, "realm", Some(self.host.name.clone()), problem);
                String::new()
            }
        }
    }

    fn users(&mut self, users: Vec<Given<User>>) -> Vec<User> {
        if users.is_empty() {
            self.refuse(
                Origin::Default,
                "users",
                None,
                "no credentials, so nobody could be served: give one with --user NAME:PASSWORD, or write \
                 NAME = \"PASSWORD\" into the [users] table of the configuration (`openssl rand -hex 16` makes a \
                 password)",
            );
        }
        let mut names = HashSet::new();
        for Given { value, origin } in &users {
            if !names.insert(&value.name) {
                let problem = "this user is there twice: remove one of them";
                self.refuse(origin.clone(), "users", Some(value.name.clone()), problem);
            }
        }
        users.into_iter().map(|user| user.value).collect()
    }

    fn not_here(&mut self, origin: Origin, key: &str, value: impl fmt::Display) {
        let problem = format!("the address is not on this host, which has {}", self.host.addresses_text());
        self.refuse(origin, key, Some(value.to_string()), problem);
    }

    fn refuse(&mut self, origin: Origin, key: &str, value: Option<String>, problem: impl Into<String>) {
        self.errors.push(ConfigError { origin, key: key.to_owned(), value, problem: problem.into() });
    }

    fn default_taken<S: AsRef<str>>(&mut self, key: &str, values: impl IntoIterator<Item = S>) {
        let values = values.into_iter().map(|value| value.as_ref().to_owned()).collect::<Vec<_>>();
        self.notes.push(Note::Default(format!("{key}: {} (default)", values.join(", "))));
    }
}

/// RFC 1918, and RFC 6598 (carrier-grade NAT).
fn is_behind_nat(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private() || (a == 100 && (64..128).contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// eth0 has the default route, eth1 is the inside, eth2 has no address.
    fn host() -> Host {
        let interface = |name: &str, index, loopback, addresses: &[&str]| Interface {
            name: name.to_owned(),
            index,
            loopback,
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        };
        Host {
            interfaces: vec![
                interface("lo", 1, true, &["127.0.0.1/8"]),
                interface("eth0", 2, false, &["198.51.100.7/24"]),
                interface("eth1", 3, false, &["10.0.0.5/24", "10.0.0.6/24"]),
                interface("eth2", 4, false, &[]),
            ],
            default_source: Some(Ipv4Addr::new(198, 51, 100, 7)),
            name: "edge.example.org".to_owned(),
        }
    }

    fn resolved(toml: &str) -> Result<Configuration, ConfigErrors> {
        let toml =
            if toml.contains("[users]") { toml.to_owned() } else { format!("{toml}\n[users]\nu = \"p\"\n") };
        resolve(Settings::from_toml("f.toml", &toml)?, &host())
    }

    fn refusal(toml: &str) -> String {
        resolved(toml).expect_err(toml).to_string()
    }

    fn listeners(configuration: &Configuration) -> Vec<String> {
        configuration.listeners.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn with_nothing_but_a_user_the_default_route_is_served_and_every_default_is_said() {
        let configuration = resolved("").unwrap();
        assert_eq!(configuration.interfaces, ["eth0"]);
        assert_eq!(listeners(&configuration), ["198.51.100.7:3478"]);
        assert_eq!(configuration.relay_addresses, [IpAddr::from([198, 51, 100, 7])]);
        assert_eq!(configuration.relay_ports, 49152..=65535);
        assert_eq!(configuration.realm, "edge.example.org");
        let notes = configuration.notes.iter().map(|note| format!("{note:?}")).collect::<String>();
        for said in [
            "interfaces: eth0",
            "listen: udp://198.51.100.7:3478",
            "relay_address: 198.51.100.7",
            "realm: edge",
        ] {
            assert!(notes.contains(said), "{said} in {notes}");
        }
    }

    #[test]
    fn every_listener_allocates_on_the_external_side() {
        let both = resolved("interfaces = [\"eth0\", \"eth1\"]").unwrap();
        assert_eq!(listeners(&both), ["198.51.100.7:3478", "10.0.0.5:3478", "10.0.0.6:3478"]);
        assert_eq!(both.relay_addresses, [IpAddr::from([198, 51, 100, 7])]);

        let mapped =
            resolved("interfaces = [\"eth0\", \"eth1\"]\nexternal_ip = [\"203.0.113.7/10.0.0.6\"]").unwrap();
        assert_eq!(mapped.relay_addresses, [IpAddr::from([10, 0, 0, 6])]);
        assert_eq!(mapped.external_addresses[&IpAddr::from([10, 0, 0, 6])], IpAddr::from([203, 0, 113, 7]));

        let inside = resolved("interfaces = [\"eth1\"]").unwrap();
        assert_eq!(inside.relay_addresses, [IpAddr::from([10, 0, 0, 5])]);
        assert!(
            inside
                .notes
                .iter()
                .any(|note| matches!(note, Note::Warning(text) if text.contains("PUBLIC/10.0.0.5")))
        );
    }

    #[test]
    fn the_wildcard_stands_for_the_addresses_of_the_interfaces() {
        let configuration = resolved("interfaces = [\"eth1\"]\nlisten = [\"udp://0.0.0.0:3500\"]").unwrap();
        assert_eq!(listeners(&configuration), ["10.0.0.5:3500", "10.0.0.6:3500"]);
        let configuration = resolved("listen = [\"udp://0.0.0.0:3500\"]").unwrap();
        assert_eq!(listeners(&configuration), ["198.51.100.7:3500"]);
    }

    #[test]
    fn interfaces_follow_from_the_addresses_but_never_loopback() {
        let configuration =
            resolved("listen = [\"udp://10.0.0.5:3478\"]\nrelay_address = [\"198.51.100.7\"]").unwrap();
        assert_eq!(configuration.interfaces, ["eth1", "eth0"]);
        let configuration = resolved("listen = [\"udp://127.0.0.9:3478\"]").unwrap();
        assert!(configuration.interfaces.is_empty());
        assert_eq!(configuration.relay_addresses, [IpAddr::from([127, 0, 0, 9])]);
        let message = refusal("listen = [\"udp://127.0.0.9:3478\"]\ndatapath = \"xdp-native\"");
        assert!(message.starts_with("f.toml:2: datapath xdp-native: there is no interface"), "{message}");
    }

    #[test]
    fn addresses_beside_the_interfaces_are_warned_of() {
        let written = "interfaces = [\"eth1\"]\nrelay_address = [\"198.51.100.7\"]\n";
        let warned = |configuration: Configuration| {
            configuration
                .notes
                .iter()
                .any(|note| matches!(note, Note::Warning(text) if text.contains("--interface eth0")))
        };
        assert!(warned(resolved(written).unwrap()));
        assert!(!warned(resolved(&format!("{written}datapath = \"userspace\"")).unwrap()));
        assert!(!warned(resolved(&written.replace("eth1", "eth0")).unwrap()));
    }

    #[test]
    fn without_credentials_the_message_says_how_to_make_one() {
        let message = refusal("[users]");
        assert!(
            message.starts_with("users: no credentials") && message.contains("--user NAME:PASSWORD"),
            "{message}"
        );
    }

    #[test]
    fn absent_interfaces_and_addresses_are_told_with_those_that_are_there() {
        assert_eq!(
            refusal("interfaces = [\"eth9\"]"),
            "f.toml:1: interfaces eth9: there is no such interface: this host has lo, eth0, eth1, eth2"
        );
        for (key, text) in [
            ("listen", "listen = [\"udp://192.0.2.9\"]"),
            ("relay_address", "relay_address = [\"192.0.2.9\"]"),
            ("external_ip", "external_ip = [\"203.0.113.7/192.0.2.9\"]"),
        ] {
            let message = refusal(text);
            assert!(message.starts_with(&format!("f.toml:1: {key} ")), "{message}");
            assert!(
                message.contains("not on this host, which has 127.0.0.1 (lo), 198.51.100.7 (eth0)"),
                "{message}"
            );
        }
        let message = refusal("interfaces = [\"eth2\"]");
        assert!(message.starts_with("listen: eth2 has no IPv4 address"), "{message}");
    }

    #[test]
    fn overlapping_ports_are_refused_where_they_were_written() {
        let message = refusal("listen = [\"udp://10.0.0.5:50000\"]");
        assert!(
            message.starts_with(
                "f.toml:1: listen udp://10.0.0.5:50000: overlapping ports with relay_ports 49152-65535"
            ),
            "{message}"
        );
        let message = refusal("relay_ports = \"3000-4000\"");
        assert!(
            message.starts_with(
                "f.toml:1: relay_ports 3000-4000: overlapping ports with the listener udp://198.51.100.7:3478"
            ),
            "{message}"
        );
    }

    #[test]
    fn duplicates_are_refused() {
        for (text, says) in [
            (
                "listen = [\"udp://10.0.0.5\", \"udp://10.0.0.5:3478\"]",
                "listen udp://10.0.0.5:3478: this listener is there twice",
            ),
            (
                "relay_address = [\"10.0.0.5\", \"10.0.0.5\"]",
                "relay_address 10.0.0.5: this address is there twice",
            ),
            (
                "external_ip = [\"203.0.113.7/10.0.0.5\", \"203.0.113.8/10.0.0.5\"]",
                "10.0.0.5 has two external addresses",
            ),
            (
                "external_ip = [\"203.0.113.7/10.0.0.5\", \"203.0.113.7/10.0.0.6\"]",
                "203.0.113.7 stands for two relay addresses",
            ),
            (
                "relay_address = [\"10.0.0.5\", \"10.0.0.6\"]\nexternal_ip = [\"10.0.0.6/10.0.0.5\"]",
                "10.0.0.6 is itself a relay address: write PUBLIC/10.0.0.5 with the address that peers see",
            ),
            ("external_ip = [\"10.0.0.5/10.0.0.5\"]", "10.0.0.5 is itself a relay address"),
            (
                "relay_address = [\"10.0.0.6\"]\nexternal_ip = [\"203.0.113.7/10.0.0.5\"]",
                "10.0.0.5 is no relay address: name one of 10.0.0.6",
            ),
        ] {
            let message = refusal(text);
            assert!(message.contains(says), "{says} in {message}");
        }
        let twice = Settings {
            users: ["u:p", "u:q"].map(|user| Given::option(user.parse().unwrap())).to_vec(),
            ..Settings::default()
        };
        let message = resolve(twice, &host()).unwrap_err().to_string();
        assert_eq!(message, "--user u: this user is there twice: remove one of them");
    }

    #[test]
    fn options_replace_keys() {
        let file = Settings::from_toml(
            "f.toml",
            "realm = \"a\"\nrelay_ports = \"50000-50001\"\n[users]\nu = \"p\"\n",
        )
        .unwrap();
        let options = Settings { realm: Some(Given::option("b".parse().unwrap())), ..Settings::default() };
        let configuration = resolve(options.or(file), &host()).unwrap();
        assert_eq!((configuration.realm.as_str(), configuration.relay_ports), ("b", 50000..=50001));
    }

    #[test]
    fn a_host_name_that_cannot_be_a_realm_asks_for_one() {
        let host = Host { name: "x".repeat(65), ..host() };
        let settings = Settings::from_toml("f.toml", "[users]\nu = \"p\"").unwrap();
        let message = resolve(settings, &host).unwrap_err().to_string();
        assert!(message.starts_with("realm ") && message.ends_with("name one with --realm"), "{message}");
    }

    #[test]
    fn lifetimes_are_consistent() {
        let message = refusal("[lifetimes]\ndefault = 700\nmax = 600");
        assert!(message.contains("lifetimes default = 700, max = 600: default is above max"), "{message}");
    }

    #[test]
    fn without_a_default_route_the_interfaces_are_asked_for() {
        let host = Host { default_source: None, ..host() };
        let settings = Settings::from_toml("f.toml", "[users]\nu = \"p\"").unwrap();
        let message = resolve(settings, &host).unwrap_err().to_string();
        assert_eq!(
            message,
            "interfaces: there is no default route to tell which interface to serve: name one with --interface (lo, eth0, eth1, eth2)"
        );
    }
}
