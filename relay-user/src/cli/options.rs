//! The options that `run` and `check` share: each is also a key of the file, which it overrides.

use std::{path::PathBuf, str::FromStr};

use clap::Args;

use crate::{
    control::{
        config::{
            AlternateServer, Cidr, ConfigError, ConfigErrors, Configuration, ExternalIp, Given, Listen,
            LogFormat, Origin, Realm, RelayAddress, RelayPorts, Settings, ValueError, resolve,
        },
        host::Host,
    },
    datapath::DatapathMode,
};

/// Options of the server.
#[derive(Args, Debug)]
pub(super) struct ServerOptions {
    /// Configuration file (TOML); options override its keys
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Interface that clients or peers are on [default: from the addresses, else the default route's]
    #[arg(short, long, value_name = "IFACE")]
    interface: Vec<String>,
    /// Address to serve clients on, as udp://IP:PORT [default: port 3478 on each address of the interfaces]
    #[arg(long, value_name = "URL")]
    listen: Vec<Listen>,
    /// Address to relay from [default: of each family the one with an external address, else the default route's]
    #[arg(long, value_name = "IP")]
    relay_address: Vec<RelayAddress>,
    /// Public address that a relay address is mapped to one to one
    #[arg(long, value_name = "PUBLIC/PRIVATE")]
    external_ip: Vec<ExternalIp>,
    /// Ports to relay from [default: 49152-65535]
    #[arg(long, value_name = "MIN-MAX")]
    relay_ports: Option<RelayPorts>,
    /// Server to send all clients to instead of serving them; one of each family
    #[arg(long, value_name = "IP[:PORT]")]
    alternate_server: Vec<AlternateServer>,
    /// Realm of the credentials [default: the host name]
    #[arg(long, value_name = "NAME")]
    realm: Option<Realm>,
    /// User and password; visible to all users of this host, so better in the file
    // A string here: clap's error would show the password.
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Vec<String>,
    /// Secret shared with an application that makes time-limited credentials; better in a file
    // A string here, too.
    #[arg(long, value_name = "SECRET")]
    auth_secret: Vec<String>,
    /// File with such secrets, one a line
    #[arg(long, value_name = "FILE")]
    auth_secret_file: Option<PathBuf>,
    /// Peers to allow though their network is special, such as 10.0.0.0/8
    #[arg(long, value_name = "CIDR")]
    allow_peer: Vec<Cidr>,
    /// Peers to refuse
    #[arg(long, value_name = "CIDR")]
    deny_peer: Vec<Cidr>,
    /// Refuse relayed addresses of this server as peers: its clients cannot reach each other through it
    #[arg(long)]
    no_hairpin: bool,
    /// What carries the media: auto, xdp-native, xdp-generic or userspace [default: auto]
    #[arg(long, value_name = "MODE")]
    datapath: Option<DatapathMode>,
    /// Unix socket for `turnpike status` and others [default: /run/turnpike/admin.sock]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Mounted bpffs [default: /sys/fs/bpf]
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,
    /// How to write the log: text, or json for one object a line [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl ServerOptions {
    /// Reads the file, lays the options over it and checks both against the host.
    pub(super) fn configuration(self) -> anyhow::Result<Configuration> {
        let file = self.config.as_deref().map(Settings::from_file).transpose()?.unwrap_or_default();
        let host = Host::read()?;
        Ok(resolve(self.settings()?.or(file), &host)?)
    }

    fn settings(self) -> Result<Settings, ConfigErrors> {
        fn given<T>(values: Vec<T>) -> Vec<Given<T>> {
            values.into_iter().map(Given::option).collect()
        }
        Ok(Settings {
            interfaces: given(self.interface),
            listen: given(self.listen),
            relay_address: given(self.relay_address),
            external_ip: given(self.external_ip),
            relay_ports: self.relay_ports.map(Given::option),
            alternate_server: given(self.alternate_server),
            realm: self.realm.map(Given::option),
            users: self.user.iter().map(|user| parse_secret("users", user)).collect::<Result<_, _>>()?,
            auth_secret: self
                .auth_secret
                .iter()
                .map(|secret| parse_secret("auth_secret", secret))
                .collect::<Result<_, _>>()?,
            auth_secret_file: self.auth_secret_file.map(Given::option),
            allow_peer: given(self.allow_peer),
            deny_peer: given(self.deny_peer),
            hairpin: self.no_hairpin.then_some(false),
            datapath: self.datapath.map(Given::option),
            admin_socket: self.admin_socket,
            bpffs: self.bpffs,
            log_format: self.log_format,
            ..Settings::default()
        })
    }
}

/// Parses what no message may show.
fn parse_secret<T: FromStr<Err = ValueError>>(key: &str, text: &str) -> Result<Given<T>, ConfigError> {
    match text.parse() {
        Ok(value) => Ok(Given::option(value)),
        Err(error) => Err(ConfigError {
            origin: Origin::Option,
            key: key.to_owned(),
            value: None,
            problem: error.to_string(),
        }),
    }
}
