//! Reading a TOML file into [`Settings`].

use std::{collections::BTreeMap, fmt, fs, num::NonZeroU32, ops::Range, path::Path, str::FromStr, sync::Arc};

use serde::Deserialize;
use toml::Spanned;

use super::{
    AuthSecret, ConfigError, ConfigErrors, Given, LifetimeSeconds, LimitSettings, Origin, Settings, Software,
    User, ValueError,
};
use crate::datapath::{DatapathMode, ParseDatapathModeError};

impl Settings {
    /// Reads a file. All its values are checked, so that every mistake is told at once.
    pub fn from_file(path: &Path) -> Result<Self, ConfigErrors> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError {
            origin: Origin::Option,
            key: "config".to_owned(),
            value: Some(path.display().to_string()),
            problem: format!("cannot be read: {error}"),
        })?;
        Self::from_toml(&path.to_string_lossy(), &text)
    }

    /// Reads the text of a file named `path`.
    pub fn from_toml(path: &str, text: &str) -> Result<Self, ConfigErrors> {
        let mut reader = Reader { path: path.into(), text, errors: Vec::new() };
        let file = toml::from_str::<File>(text).map_err(|error| reader.syntax_error(&error))?;
        let settings = Self {
            interfaces: reader.list("interfaces", file.interfaces, |name| Ok(name.to_owned())),
            listen: reader.list("listen", file.listen, parse),
            relay_address: reader.list("relay_address", file.relay_address, parse),
            external_ip: reader.list("external_ip", file.external_ip, parse),
            relay_ports: reader.one("relay_ports", file.relay_ports, parse),
            alternate_server: reader.list("alternate_server", file.alternate_server, parse),
            realm: reader.one("realm", file.realm, parse),
            users: reader.users(file.users),
            auth_secret: reader.secrets(file.auth_secret),
            auth_secret_file: file.auth_secret_file.map(|path| reader.given(path)),
            strict_expiry: file.strict_expiry,
            allow_peer: reader.list("allow_peer", file.allow_peer, parse),
            deny_peer: reader.list("deny_peer", file.deny_peer, parse),
            datapath: reader.one("datapath", file.datapath, parse_mode),
            max_flows: file.max_flows,
            admin_socket: file.admin_socket.map(Into::into),
            bpffs: file.bpffs.map(Into::into),
            hairpin: file.hairpin,
            strict_permissions: file.strict_permissions,
            rfc5766_channels: file.rfc5766_channels,
            log_addresses: file.log_addresses,
            log_format: reader.one("log_format", file.log_format, parse).map(|format| format.value),
            min_ipv6_mtu: file.min_ipv6_mtu.map(|mtu| reader.given(mtu)),
            software: reader.software(file.software),
            lifetimes: file.lifetimes.map(|lifetimes| reader.given(lifetimes)),
            limits: file.limits.map(|limits| reader.given(limits)),
        };
        if reader.errors.is_empty() { Ok(settings) } else { Err(ConfigErrors(reader.errors)) }
    }
}

/// The file's keys. Values that are more than numbers stay text here: their errors are told with their line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    interfaces: Vec<Spanned<String>>,
    #[serde(default)]
    listen: Vec<Spanned<String>>,
    #[serde(default)]
    relay_address: Vec<Spanned<String>>,
    #[serde(default)]
    external_ip: Vec<Spanned<String>>,
    relay_ports: Option<Spanned<String>>,
    #[serde(default)]
    alternate_server: Vec<Spanned<String>>,
    realm: Option<Spanned<String>>,
    #[serde(default)]
    users: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    auth_secret: Vec<Spanned<String>>,
    auth_secret_file: Option<Spanned<String>>,
    strict_expiry: Option<bool>,
    #[serde(default)]
    allow_peer: Vec<Spanned<String>>,
    #[serde(default)]
    deny_peer: Vec<Spanned<String>>,
    datapath: Option<Spanned<String>>,
    max_flows: Option<NonZeroU32>,
    admin_socket: Option<String>,
    bpffs: Option<String>,
    hairpin: Option<bool>,
    strict_permissions: Option<bool>,
    rfc5766_channels: Option<bool>,
    log_addresses: Option<bool>,
    log_format: Option<Spanned<String>>,
    min_ipv6_mtu: Option<Spanned<u16>>,
    software: Option<Spanned<FileSoftware>>,
    lifetimes: Option<Spanned<FileLifetimes>>,
    limits: Option<Spanned<FileLimits>>,
}

/// The names of [`File`]'s keys.
const KEYS: [&str; 26] = [
    "interfaces",
    "listen",
    "relay_address",
    "external_ip",
    "relay_ports",
    "alternate_server",
    "realm",
    "users",
    "auth_secret",
    "auth_secret_file",
    "strict_expiry",
    "allow_peer",
    "deny_peer",
    "datapath",
    "max_flows",
    "admin_socket",
    "bpffs",
    "hairpin",
    "strict_permissions",
    "rfc5766_channels",
    "log_addresses",
    "log_format",
    "min_ipv6_mtu",
    "software",
    "lifetimes",
    "limits",
];

/// What to do about one of [`KEYS`] below a `[table]`, where TOML takes it for a key of that table.
const MISPLACED: &str = "this key belongs above the first [table]: move the line up";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLifetimes {
    default: Option<NonZeroU32>,
    max: Option<NonZeroU32>,
    permission: Option<NonZeroU32>,
    channel: Option<NonZeroU32>,
    nonce: Option<NonZeroU32>,
}

impl From<FileLifetimes> for LifetimeSeconds {
    fn from(file: FileLifetimes) -> Self {
        let standard = Self::default();
        Self {
            default: file.default.unwrap_or(standard.default),
            max: file.max.unwrap_or(standard.max),
            permission: file.permission.unwrap_or(standard.permission),
            channel: file.channel.unwrap_or(standard.channel),
            nonce: file.nonce.unwrap_or(standard.nonce),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    max_allocations: Option<u32>,
    max_allocations_per_user: Option<u32>,
    max_permissions: Option<u32>,
    max_channels: Option<u32>,
    bytes_per_second: Option<u64>,
    burst: Option<u64>,
    unauthenticated_per_second: Option<u32>,
    icmp_per_second: Option<u32>,
}

impl From<FileLimits> for LimitSettings {
    fn from(file: FileLimits) -> Self {
        Self {
            max_allocations: file.max_allocations,
            max_allocations_per_user: file.max_allocations_per_user,
            max_permissions: file.max_permissions,
            max_channels: file.max_channels,
            bytes_per_second: file.bytes_per_second,
            burst: file.burst,
            unauthenticated_per_second: file.unauthenticated_per_second,
            icmp_per_second: file.icmp_per_second,
        }
    }
}

/// `false`, `true`, or what to call the server.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true, false or a text")]
enum FileSoftware {
    Wanted(bool),
    Text(String),
}

fn parse_mode(text: &str) -> Result<DatapathMode, ValueError> {
    text.parse().map_err(|error: ParseDatapathModeError| ValueError::new(error.to_string()))
}

fn parse<T: FromStr<Err = ValueError>>(text: &str) -> Result<T, ValueError> {
    text.parse()
}

struct Reader<'a> {
    path: Arc<str>,
    text: &'a str,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn list<T>(
        &mut self,
        key: &str,
        items: Vec<Spanned<String>>,
        parse: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Vec<Given<T>> {
        items.into_iter().filter_map(|item| self.one(key, Some(item), &parse)).collect()
    }

    fn one<T>(
        &mut self,
        key: &str,
        item: Option<Spanned<String>>,
        parse: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<Given<T>> {
        let item = item?;
        let origin = self.origin(&item.span());
        match parse(item.get_ref()) {
            Ok(value) => Some(Given { value, origin }),
            Err(error) => {
                self.refuse(origin, key, Some(item.get_ref().clone()), error);
                None
            }
        }
    }

    fn given<A, B: From<A>>(&self, item: Spanned<A>) -> Given<B> {
        let origin = self.origin(&item.span());
        Given { value: item.into_inner().into(), origin }
    }

    fn software(&mut self, software: Option<Spanned<FileSoftware>>) -> Option<Software> {
        let span = software.as_ref()?.span();
        match software?.into_inner() {
            FileSoftware::Wanted(wanted) => Some(wanted.into()),
            FileSoftware::Text(text) => {
                self.one("software", Some(Spanned::new(span, text)), parse).map(|software| software.value)
            }
        }
    }

    fn users(&mut self, users: BTreeMap<String, Spanned<String>>) -> Vec<Given<User>> {
        let mut given = Vec::new();
        for (name, password) in users {
            let origin = self.origin(&password.span());
            if KEYS.contains(&name.as_str()) {
                let problem = format!("{MISPLACED} (no user in a file can have this name)");
                self.refuse(origin, &name, None, problem);
                continue;
            }
            match User::new(&name, password.get_ref()) {
                Ok(value) => given.push(Given { value, origin }),
                Err(error) => self.refuse(origin, "users", Some(name), error),
            }
        }
        given
    }

    /// As [`Self::list`], without the value in any message.
    fn secrets(&mut self, secrets: Vec<Spanned<String>>) -> Vec<Given<AuthSecret>> {
        let mut given = Vec::new();
        for secret in secrets {
            let origin = self.origin(&secret.span());
            match secret.get_ref().parse() {
                Ok(value) => given.push(Given { value, origin }),
                Err(error) => self.refuse(origin, "auth_secret", None, error),
            }
        }
        given
    }

    fn refuse(&mut self, origin: Origin, key: &str, value: Option<String>, problem: impl fmt::Display) {
        let problem = problem.to_string();
        self.errors.push(ConfigError { origin, key: key.to_owned(), value, problem });
    }

    fn origin(&self, span: &Range<usize>) -> Origin {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Origin::File { path: Arc::clone(&self.path), line }
    }

    fn syntax_error(&self, error: &toml::de::Error) -> ConfigErrors {
        let span = error.span().unwrap_or_default();
        let origin = self.origin(&span);
        if let Some((unknown, known)) = unknown_field(error.message()) {
            let problem = match nearest(unknown, &known) {
                _ if KEYS.contains(&unknown) => MISPLACED.to_owned(),
                Some(near) => format!("unknown key: did you mean {near}?"),
                None => format!("unknown key: the keys here are {}", known.join(", ")),
            };
            return ConfigError { origin, key: unknown.to_owned(), value: None, problem }.into();
        }
        let message = error.message();
        // A value of the wrong type may stand some lines below its key, in a list.
        let lines = if message.starts_with("invalid ") { usize::MAX } else { 1 };
        let key = self.key_at(span.start, lines);
        let mut problem = without_value(message);
        if key.is_some_and(|key| KEYS.contains(&key)) && self.is_in_users(span.start) {
            problem = MISPLACED.to_owned();
        } else if problem.ends_with("expected a sequence") {
            problem.push_str(": write a list, as in [\"…\"]");
        } else if problem.ends_with("expected a string") {
            problem.push_str(": write it in quotation marks");
            if self.is_in_users(span.start) {
                problem.push_str("; a key that is no user belongs above [users]");
            }
        } else if let Some((found, _)) =
            problem.split_once("expected struct").or(problem.split_once("expected a map"))
        {
            problem = format!("{found}expected a table: write [{}]", key.unwrap_or("KEY"));
        }
        let key = key.unwrap_or("not TOML").to_owned();
        ConfigError { origin, key, value: None, problem }.into()
    }

    /// The key on the line that holds this offset, or on one before it, of so many `lines`.
    fn key_at(&self, offset: usize, lines: usize) -> Option<&str> {
        let end = self.text.get(offset..)?.find('\n').map_or(self.text.len(), |newline| offset + newline);
        self.text.get(..end)?.rsplit('\n').take(lines).find_map(|line| {
            let (key, _) = line.split_once('=')?;
            // Not a text with a sign in it.
            Some(key.trim()).filter(|key| !key.is_empty() && key.matches('"').count() % 2 == 0)
        })
    }

    fn is_in_users(&self, offset: usize) -> bool {
        let mut before = self.text.get(..offset).unwrap_or_default().rsplit('\n').map(str::trim);
        before.find(|line| line.starts_with('[') && line.ends_with(']')) == Some("[users]")
    }
}

/// The field and the known ones of serde's message for `deny_unknown_fields`.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let names = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2).collect::<Vec<_>>();
    let (unknown, known) = names.split_first()?;
    Some((unknown, known.to_vec()))
}

fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let similar = |name: &&str| strsim::jaro_winkler(unknown, name);
    known.iter().copied().filter(|name| similar(name) > 0.8).max_by(|a, b| similar(a).total_cmp(&similar(b)))
}

/// A message without what was found where text belongs, or the text that was found where something else does:
/// it may be a password.
fn without_value(message: &str) -> String {
    match (message.find("string \""), message.rfind("\", expected")) {
        (Some(start), Some(end)) if start < end => {
            format!("{}a string{}", &message[..start], &message[end + 1..])
        }
        _ if message.ends_with(", expected a string") => "invalid type, expected a string".to_owned(),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(text: &str) -> String {
        Settings::from_toml("turnpike.toml", text).expect_err(text).to_string()
    }

    #[test]
    fn every_key_is_read() {
        let settings = Settings::from_toml(
            "turnpike.toml",
            r#"
            interfaces = ["eth0", "eth1"]
            listen = ["udp://192.0.2.1:3478"]
            relay_address = ["10.0.0.5"]
            external_ip = ["203.0.113.7/10.0.0.5"]
            relay_ports = "50000-50010"
            realm = "example.org"
            allow_peer = ["10.0.0.0/8"]
            deny_peer = ["10.1.0.0/16"]
            datapath = "userspace"
            max_flows = 1000
            admin_socket = "/tmp/a.sock"
            bpffs = "/tmp/bpf"
            hairpin = false
            strict_permissions = true
            rfc5766_channels = true
            log_addresses = true
            alternate_server = ["192.0.2.2"]
            log_format = "json"
            auth_secret = ["0123456789abcdef", "fedcba9876543210"]
            auth_secret_file = "/etc/turnpike/secret"
            strict_expiry = true
            min_ipv6_mtu = 1400
            software = "relay"
            [users]
            alice = "secret"
            [lifetimes]
            default = 5
            permission = 3
            nonce = 60
            [limits]
            max_allocations = 1
            max_allocations_per_user = 2
            max_permissions = 3
            max_channels = 4
            bytes_per_second = 5
            burst = 6
            unauthenticated_per_second = 7
            icmp_per_second = 8
            "#,
        )
        .unwrap();
        assert_eq!(settings.interfaces.len(), 2);
        assert_eq!(settings.listen[0].origin, Origin::File { path: "turnpike.toml".into(), line: 3 });
        assert_eq!(settings.users[0].value.name, "alice");
        assert_eq!(settings.max_flows.unwrap().get(), 1000);
        let lifetimes = settings.lifetimes.unwrap().value;
        assert_eq!(
            (lifetimes.default.get(), lifetimes.permission.get(), lifetimes.channel.get()),
            (5, 3, 600)
        );
        assert_eq!(lifetimes.nonce.get(), 60);
        assert_eq!(settings.alternate_server[0].value.0.to_string(), "192.0.2.2:3478");
        assert_eq!(settings.log_format, Some(super::super::LogFormat::Json));
        assert_eq!(settings.auth_secret[1].value.0, "fedcba9876543210");
        assert_eq!(settings.auth_secret_file.unwrap().value, Path::new("/etc/turnpike/secret"));
        assert_eq!((settings.strict_expiry, settings.hairpin), (Some(true), Some(false)));
        assert_eq!(settings.min_ipv6_mtu.unwrap().value, 1400);
        assert_eq!(settings.software.unwrap().0.as_deref(), Some("relay"));
        let limits = LimitSettings {
            max_allocations: Some(1),
            max_allocations_per_user: Some(2),
            max_permissions: Some(3),
            max_channels: Some(4),
            bytes_per_second: Some(5),
            burst: Some(6),
            unauthenticated_per_second: Some(7),
            icmp_per_second: Some(8),
        };
        assert_eq!(settings.limits.unwrap().value, limits);
    }

    #[test]
    fn the_shipped_example_is_right_and_every_key_is_documented() {
        let example = include_str!("../../../../deploy/turnpike.toml");
        let is_setting = |line: &str| line.starts_with('[') || line.contains(" = ");
        let uncommented = example.lines().map(|line| match line.strip_prefix('#') {
            Some(setting) if is_setting(setting) => setting,
            _ => line,
        });
        let settings =
            Settings::from_toml("turnpike.toml", &uncommented.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!(settings.users.len(), 1);
        assert_eq!(settings.limits.unwrap().value.max_channels, Some(1024));
        assert_eq!(settings.max_flows.unwrap().get(), crate::datapath::DEFAULT_MAX_FLOWS);

        let keys = keys_of::<File>();
        assert_eq!(keys, KEYS);
        let documentation = include_str!("../../../../docs/configuration.md");
        for key in keys {
            let documented =
                documentation.contains(&format!("| `{key}`")) || documentation.contains(&format!("[{key}]"));
            assert!(documented, "{key} is not in docs/configuration.md");
            assert!(example.contains(&key), "{key} is not in deploy/turnpike.toml");
        }
        for key in [keys_of::<FileLifetimes>(), keys_of::<FileLimits>()].concat() {
            assert!(
                documentation.contains(&format!("\n{key} = "))
                    || documentation.contains(&format!("\n#{key} = ")),
                "{key}"
            );
        }
    }

    /// The keys that a table may have.
    fn keys_of<T: serde::de::DeserializeOwned>() -> Vec<String> {
        let message = toml::from_str::<T>("no_such_key = 0").map(drop).unwrap_err().message().to_owned();
        let (_, keys) = unknown_field(&message).unwrap();
        keys.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn unknown_keys_are_named_with_their_line_and_the_nearest_key() {
        assert_eq!(
            refusals("realm = \"a\"\nlisen = []\n"),
            "turnpike.toml:2: lisen: unknown key: did you mean listen?"
        );
        let message = refusals("[lifetimes]\nbogus = 1\n");
        assert!(
            message.starts_with("turnpike.toml:2: bogus: unknown key: the keys here are default, max"),
            "{message}"
        );
    }

    #[test]
    fn every_bad_value_is_told_with_key_line_and_remedy() {
        let message = refusals(
            "relay_ports = \"9-8\"\nlisten = [\n  \"udp://192.0.2.1\",\n  \"tcp://192.0.2.1\",\n]\n",
        );
        assert_eq!(
            message,
            "turnpike.toml:4: listen tcp://192.0.2.1: tcp listeners are not supported yet: write udp://192.0.2.1\n\
             turnpike.toml:1: relay_ports 9-8: the range is empty: write 8-9"
        );
    }

    #[test]
    fn wrong_types_name_the_key() {
        assert_eq!(
            refusals("\nlisten = \"udp://192.0.2.1\"\n"),
            "turnpike.toml:2: listen: invalid type: a string, expected a sequence: write a list, as in [\"…\"]"
        );
        assert_eq!(
            refusals("relay_ports = 49152"),
            "turnpike.toml:1: relay_ports: invalid type, expected a string: write it in quotation marks"
        );
        let message = refusals("interfaces = [\n  \"eth0\",\n  5,\n]");
        assert!(
            message.starts_with("turnpike.toml:3: interfaces: invalid type, expected a string"),
            "{message}"
        );
        let message = refusals("[users]\nalice = \"p\"\nbob = true");
        assert!(message.contains("belongs above [users]"), "{message}");
        let message = refusals("lifetimes = 5");
        assert!(message.contains("expected a table: write [lifetimes]"), "{message}");
        let message = refusals("max_flows = 0");
        assert!(message.starts_with("turnpike.toml:1: max_flows: "), "{message}");
        let message = refusals("realm = \"a\nlisten = []");
        assert!(message.starts_with("turnpike.toml:1: "), "{message}");
    }

    #[test]
    fn stun_147_software_is_switched_off_or_named() {
        let software =
            |value: &str| Settings::from_toml("f.toml", &format!("software = {value}")).unwrap().software;
        assert_eq!(software("false").unwrap().0, None);
        assert_eq!(software("true"), Some(Software::default()));
        assert_eq!(software("\"relay\"").unwrap().0.as_deref(), Some("relay"));
        assert_eq!(
            refusals("software = \"\""),
            "turnpike.toml:1: software \"\": the text is empty: write false to send none"
        );
        assert_eq!(refusals("software = 5"), "turnpike.toml:1: software: expected true, false or a text");
    }

    #[test]
    fn numbers_that_do_not_fit_are_told_with_their_key() {
        for (text, key) in [
            ("min_ipv6_mtu = 65536", "1: min_ipv6_mtu: "),
            ("[limits]\nmax_channels = -1", "2: max_channels: "),
            ("log_format = \"xml\"", "1: log_format xml: unknown format \"xml\": write text or json"),
            ("[lifetimes]\nnonce = 0", "2: nonce: "),
        ] {
            let message = refusals(text);
            assert!(message.starts_with(&format!("turnpike.toml:{key}")), "{message}");
        }
        let message = refusals("[limits]\nmax_channel = 1");
        assert!(message.contains("max_channel: unknown key: did you mean max_channels?"), "{message}");
    }

    #[test]
    fn a_key_below_a_table_is_no_user_and_its_value_is_not_shown() {
        for line in ["datapath = \"hunter2\"", "listen = [\"hunter2\"]", "log_addresses = true"] {
            let (key, value) = line.split_once(" = ").unwrap();
            let message = refusals(&format!("[users]\nalice = \"secret\"\n{line}\n"));
            assert!(message.starts_with(&format!("turnpike.toml:3: {key}: ")), "{message}");
            assert!(message.contains("belongs above the first [table]"), "{message}");
            assert!(!message.contains(value) && !message.contains("hunter2"), "{message}");
        }
        assert_eq!(
            refusals("[lifetimes]\ndefault = 5\nrealm = \"example.org\"\n"),
            "turnpike.toml:3: realm: this key belongs above the first [table]: move the line up"
        );
    }

    #[test]
    fn no_message_shows_a_password() {
        for text in
            ["users = \"alice:hunter2\"", "[users]\nalice = [\"hunter2\"]", "[users]\n\"a:b\" = \"hunter2\""]
        {
            let message = refusals(text);
            assert!(!message.contains("hunter2"), "{message}");
            assert!(message.contains("users") || message.contains("alice"), "{message}");
        }
        for text in
            ["auth_secret = [\"hunter2\\n\"]", "auth_secret = \"hunter2\"", "auth_secret = [[\"hunter2\"]]"]
        {
            let message = refusals(text);
            assert!(message.contains(":1: auth_secret: ") && !message.contains("hunter2"), "{message}");
        }
        for password in ["271828", "2.71828", "1979-05-27"] {
            let message = refusals(&format!("[users]\nalice = {password}"));
            assert!(!message.contains(password), "{message}");
            assert!(message.contains(":2: alice: ") && message.contains("quotation marks"), "{message}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = Settings::from_file(Path::new("/nonexistent/turnpike.toml")).unwrap_err().to_string();
        assert!(message.starts_with("--config /nonexistent/turnpike.toml: cannot be read: "), "{message}");
    }
}
