//! From what was written to what will be done: checks against the host, and defaults.

mod addresses;
mod credentials;
mod limits;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::{
    ConfigError, ConfigErrors, Configuration, DEFAULT_ADMIN_SOCKET, DEFAULT_BPFFS, Given, Note, Origin,
    RelayPorts, Settings,
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
    let secrets = resolver.secrets(settings.auth_secret, settings.auth_secret_file);
    let users = resolver.users(settings.users, &secrets);
    let lifetimes = resolver.lifetimes(settings.lifetimes);
    let limits = resolver.limits(settings.limits);
    let min_ipv6_mtu = resolver.min_ipv6_mtu(settings.min_ipv6_mtu);
    let alternate_servers = resolver.alternate_servers(&settings.alternate_server, &listeners);
    let datapath = settings.datapath.unwrap_or(default(DatapathMode::Auto));
    let addresses = listeners.iter().map(|listener| listener.value.ip());
    let addresses = addresses.chain(relay_addresses.iter().map(|relay| relay.value)).collect::<Vec<_>>();
    resolver.what_is_in_the_kernel(&datapath, &interfaces, &addresses);
    let hairpin = resolver.hairpin(settings.hairpin);

    let Resolver { errors, notes, .. } = resolver;
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    Ok(Configuration {
        interfaces: interfaces.iter().map(|interface| interface.name.clone()).collect(),
        listeners: values(&listeners),
        relay_addresses: values(&relay_addresses),
        external_addresses,
        alternate_servers,
        host_addresses: host.local_networks().collect(),
        relay_ports: relay_ports.value.0,
        realm,
        users,
        auth_secrets: secrets,
        strict_expiry: settings.strict_expiry.unwrap_or(false),
        allow_peer: settings.allow_peer.iter().map(|cidr| cidr.value.0).collect(),
        deny_peer: settings.deny_peer.iter().map(|cidr| cidr.value.0).collect(),
        datapath: datapath.value,
        max_flows: settings.max_flows.map_or(DEFAULT_MAX_FLOWS, std::num::NonZeroU32::get),
        admin_socket: settings.admin_socket.unwrap_or_else(|| DEFAULT_ADMIN_SOCKET.into()),
        bpffs: settings.bpffs.unwrap_or_else(|| DEFAULT_BPFFS.into()),
        hairpin,
        strict_permissions: settings.strict_permissions.unwrap_or(false),
        rfc5766_channels: settings.rfc5766_channels.unwrap_or(false),
        lifetimes,
        limits,
        min_ipv6_mtu,
        software: settings.software.unwrap_or_default().0,
        log_addresses: settings.log_addresses.unwrap_or(false),
        log_format: settings.log_format.unwrap_or_default(),
        notes,
    })
}

const fn default<T>(value: T) -> Given<T> {
    Given { value, origin: Origin::Default }
}

fn values<T: Copy>(given: &[Given<T>]) -> Vec<T> {
    given.iter().map(|given| given.value).collect()
}

struct Resolver<'a> {
    host: &'a Host,
    errors: Vec<ConfigError>,
    notes: Vec<Note>,
}

impl Resolver<'_> {
    /// Whether clients of this server may be each other's peers.
    fn hairpin(&mut self, wanted: Option<bool>) -> bool {
        let wanted = wanted.unwrap_or(true);
        if !wanted {
            self.warn(
                "hairpin: calls with both ends on this server fail, as relayed addresses are refused as peers; \
                 remove the key to allow them"
                    .to_owned(),
            );
        }
        wanted
    }

    /// Whether there is something to attach to, and what the daemon will have to carry nevertheless.
    fn what_is_in_the_kernel(
        &mut self,
        datapath: &Given<DatapathMode>,
        interfaces: &[&Interface],
        addresses: &[IpAddr],
    ) {
        if datapath.value == DatapathMode::Userspace {
            return;
        }
        let wants_xdp = matches!(datapath.value, DatapathMode::XdpNative | DatapathMode::XdpGeneric);
        if wants_xdp && interfaces.is_empty() && self.errors.is_empty() {
            let names = self.host.names_text();
            self.refuse(
                datapath.origin.clone(),
                "datapath",
                Some(datapath.value.to_string()),
                format!("there is no interface to attach to: name one with --interface ({names})"),
            );
        }
        self.warn_of_bypasses(interfaces, addresses.iter().copied());
    }

    fn refuse(&mut self, origin: Origin, key: &str, value: Option<String>, problem: impl Into<String>) {
        self.errors.push(ConfigError { origin, key: key.to_owned(), value, problem: problem.into() });
    }

    fn warn(&mut self, text: String) {
        self.notes.push(Note::Warning(text));
    }

    fn default_taken<S: AsRef<str>>(&mut self, key: &str, values: impl IntoIterator<Item = S>) {
        let values = values.into_iter().map(|value| value.as_ref().to_owned()).collect::<Vec<_>>();
        self.notes.push(Note::Default(format!("{key}: {} (default)", values.join(", "))));
    }
}
