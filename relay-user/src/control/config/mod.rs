//! The configuration: a TOML file, options that override its keys, and defaults that come from the host.
//!
//! [`Settings`] is what was written, each value with the place it was written at; [`resolve`] checks it
//! against the [`Host`](super::host::Host) and fills in the defaults. Whatever stands in a
//! [`Configuration`] can be used as it is.

mod file;
mod resolve;
mod values;

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
};

use ipnet::IpNet;

use crate::{datapath::DatapathMode, turn::Limits};

pub use resolve::resolve;
pub use values::{
    AlternateServer, AuthSecret, Cidr, DEFAULT_PORT, ExternalIp, LifetimeSeconds, LimitSettings, Listen,
    LogFormat, MIN_IPV6_MTU, NONCE_LIFETIME_MAX, Realm, RelayAddress, RelayPorts, SOFTWARE_MAX, Software,
    User, ValueError,
};

/// Where the admin API listens unless told otherwise.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/turnpike/admin.sock";

/// The bpffs that holds the pins while the daemon runs, unless told otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// Everything the daemon needs to know, checked and complete.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Names of the interfaces that the datapath uses; no loopback unless it was named.
    pub interfaces: Vec<String>,
    /// UDP listeners, each with a real address.
    pub listeners: Vec<SocketAddr>,
    /// Addresses that relayed transport addresses are taken from.
    pub relay_addresses: Vec<IpAddr>,
    /// Relay address on this host -> address that clients are told.
    pub external_addresses: HashMap<IpAddr, IpAddr>,
    /// Where clients are sent instead of being served: at most one of each family.
    pub alternate_servers: Vec<SocketAddr>,
    /// Every address of this host at the start: no peer is on one.
    pub host_addresses: Vec<IpNet>,
    /// Ports of the relayed transport addresses.
    pub relay_ports: RangeInclusive<u16>,
    /// Realm of the long-term credentials.
    pub realm: String,
    /// Who may allocate. There is a user or a secret.
    pub users: Vec<User>,
    /// Secrets that time-limited credentials are made with.
    pub auth_secrets: Vec<AuthSecret>,
    /// Whether a time-limited credential must be valid at every request, not only at Allocate.
    pub strict_expiry: bool,
    /// Peer ranges that are allowed though they are special.
    pub allow_peer: Vec<IpNet>,
    /// Peer ranges that are refused.
    pub deny_peer: Vec<IpNet>,
    /// What is to carry the flows.
    pub datapath: DatapathMode,
    /// Capacity of the kernel's flow table.
    pub max_flows: u32,
    /// Path of the admin API's unix socket.
    pub admin_socket: PathBuf,
    /// Mount point of the bpffs for the pins.
    pub bpffs: PathBuf,
    /// Whether clients of this server may be each other's peers.
    pub hairpin: bool,
    /// Whether a channel's peer loses its permission after the permission's own lifetime.
    pub strict_permissions: bool,
    /// Whether clients may bind channels above 0x4FFF, as RFC 5766 allowed.
    pub rfc5766_channels: bool,
    /// Lifetimes of allocations, permissions, channels and nonces.
    pub lifetimes: LifetimeSeconds,
    /// How much clients may have.
    pub limits: Limits,
    /// The lowest MTU to expect on IPv6 paths, in bytes.
    pub min_ipv6_mtu: u16,
    /// What the server calls itself in responses; `None` to say nothing.
    pub software: Option<String>,
    /// Whether clients' addresses stand in the log.
    pub log_addresses: bool,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What the operator should be told at start.
    pub notes: Vec<Note>,
}

/// One line for the operator about what was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A default was taken.
    Default(String),
    /// Something will probably not work as intended.
    Warning(String),
}

/// What was written in a file or on the command line. An empty list is as good as none.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `interfaces`, `--interface`.
    pub interfaces: Vec<Given<String>>,
    /// `listen`.
    pub listen: Vec<Given<Listen>>,
    /// `relay_address`.
    pub relay_address: Vec<Given<RelayAddress>>,
    /// `external_ip`.
    pub external_ip: Vec<Given<ExternalIp>>,
    /// `relay_ports`.
    pub relay_ports: Option<Given<RelayPorts>>,
    /// `alternate_server`.
    pub alternate_server: Vec<Given<AlternateServer>>,
    /// `realm`.
    pub realm: Option<Given<Realm>>,
    /// `[users]`, `--user`.
    pub users: Vec<Given<User>>,
    /// `auth_secret`.
    pub auth_secret: Vec<Given<AuthSecret>>,
    /// `auth_secret_file`.
    pub auth_secret_file: Option<Given<PathBuf>>,
    /// `strict_expiry`.
    pub strict_expiry: Option<bool>,
    /// `allow_peer`.
    pub allow_peer: Vec<Given<Cidr>>,
    /// `deny_peer`.
    pub deny_peer: Vec<Given<Cidr>>,
    /// `datapath`.
    pub datapath: Option<Given<DatapathMode>>,
    /// `max_flows`.
    pub max_flows: Option<NonZeroU32>,
    /// `admin_socket`.
    pub admin_socket: Option<PathBuf>,
    /// `bpffs`.
    pub bpffs: Option<PathBuf>,
    /// `hairpin`, `--no-hairpin`.
    pub hairpin: Option<bool>,
    /// `strict_permissions`.
    pub strict_permissions: Option<bool>,
    /// `rfc5766_channels`.
    pub rfc5766_channels: Option<bool>,
    /// `log_addresses`.
    pub log_addresses: Option<bool>,
    /// `log_format`.
    pub log_format: Option<LogFormat>,
    /// `min_ipv6_mtu`.
    pub min_ipv6_mtu: Option<Given<u16>>,
    /// `software`.
    pub software: Option<Software>,
    /// `[lifetimes]`.
    pub lifetimes: Option<Given<LifetimeSeconds>>,
    /// `[limits]`.
    pub limits: Option<Given<LimitSettings>>,
}

impl Settings {
    /// These settings, and `other`'s for each key that these do not have.
    pub fn or(self, other: Self) -> Self {
        fn either<T>(ours: Vec<T>, theirs: Vec<T>) -> Vec<T> {
            if ours.is_empty() { theirs } else { ours }
        }
        Self {
            interfaces: either(self.interfaces, other.interfaces),
            listen: either(self.listen, other.listen),
            relay_address: either(self.relay_address, other.relay_address),
            external_ip: either(self.external_ip, other.external_ip),
            relay_ports: self.relay_ports.or(other.relay_ports),
            alternate_server: either(self.alternate_server, other.alternate_server),
            realm: self.realm.or(other.realm),
            users: either(self.users, other.users),
            auth_secret: either(self.auth_secret, other.auth_secret),
            auth_secret_file: self.auth_secret_file.or(other.auth_secret_file),
            strict_expiry: self.strict_expiry.or(other.strict_expiry),
            allow_peer: either(self.allow_peer, other.allow_peer),
            deny_peer: either(self.deny_peer, other.deny_peer),
            datapath: self.datapath.or(other.datapath),
            max_flows: self.max_flows.or(other.max_flows),
            admin_socket: self.admin_socket.or(other.admin_socket),
            bpffs: self.bpffs.or(other.bpffs),
            hairpin: self.hairpin.or(other.hairpin),
            strict_permissions: self.strict_permissions.or(other.strict_permissions),
            rfc5766_channels: self.rfc5766_channels.or(other.rfc5766_channels),
            log_addresses: self.log_addresses.or(other.log_addresses),
            log_format: self.log_format.or(other.log_format),
            min_ipv6_mtu: self.min_ipv6_mtu.or(other.min_ipv6_mtu),
            software: self.software.or(other.software),
            lifetimes: self.lifetimes.or(other.lifetimes),
            limits: self.limits.or(other.limits),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// The place.
    pub origin: Origin,
}

impl<T> Given<T> {
    /// A value from the command line.
    pub const fn option(value: T) -> Self {
        Self { value, origin: Origin::Option }
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is a default, or it is missing.
    Default,
    /// On the command line.
    Option,
    /// In a file.
    File {
        /// The file as the operator named it.
        path: Arc<str>,
        /// The line, from 1.
        line: usize,
    },
}

/// One thing that is wrong with a configuration: place, key and value, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was written.
    pub origin: Origin,
    /// The key in the file; the option is called likewise.
    pub key: String,
    /// What was written, if anything.
    pub value: Option<String>,
    /// What is wrong, and the remedy.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.key)?,
            Origin::Option => f.write_str(&option_name(&self.key))?,
            Origin::File { path, line } => write!(f, "{path}:{line}: {}", self.key)?,
        }
        match self.value.as_deref() {
            Some("") => f.write_str(" \"\"")?,
            Some(value) => write!(f, " {value}")?,
            None => {}
        }
        write!(f, ": {}", self.problem)
    }
}

/// The command line's name of a key.
fn option_name(key: &str) -> String {
    match key {
        "interfaces" => "--interface".to_owned(),
        "users" => "--user".to_owned(),
        _ => format!("--{}", key.replace('_', "-")),
    }
}

/// Everything that is wrong with a configuration, one to a line. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}
