use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
};

use super::*;
use crate::turn::Limits;

/// eth0 has the default route, eth1 is the inside, eth2 has no address.
fn host() -> Host {
    let interface = |name: &str, index, loopback, addresses: &[&str]| Interface {
        name: name.to_owned(),
        index,
        loopback,
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        passing: HashSet::new(),
    };
    Host {
        interfaces: vec![
            interface("lo", 1, true, &["127.0.0.1/8"]),
            interface("eth0", 2, false, &["198.51.100.7/24"]),
            interface("eth1", 3, false, &["10.0.0.5/24", "10.0.0.6/24"]),
            interface("eth2", 4, false, &[]),
        ],
        vlans: HashMap::new(),
        default_sources: vec![Ipv4Addr::new(198, 51, 100, 7).into()],
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
    for said in
        ["interfaces: eth0", "listen: udp://198.51.100.7:3478", "relay_address: 198.51.100.7", "realm: edge"]
    {
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

    let eth0_above_eth1 = HashMap::from([("eth0".to_owned(), "eth1".to_owned())]);
    let host = Host { vlans: eth0_above_eth1, ..host() };
    let settings = Settings::from_toml("f.toml", &format!("{written}[users]\nu = \"p\"\n")).unwrap();
    assert!(!warned(resolve(settings, &host).unwrap()), "frames to a VLAN device come in below it");
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
    assert!(message.starts_with("listen: eth2 has no address"), "{message}");
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
    let file =
        Settings::from_toml("f.toml", "realm = \"a\"\nrelay_ports = \"50000-50001\"\n[users]\nu = \"p\"\n")
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
    let host = Host { default_sources: Vec::new(), ..host() };
    let settings = Settings::from_toml("f.toml", "[users]\nu = \"p\"").unwrap();
    let message = resolve(settings, &host).unwrap_err().to_string();
    assert_eq!(
        message,
        "interfaces: there is no default route to tell which interface to serve: name one with --interface (lo, eth0, eth1, eth2)"
    );
}

/// `host()` with IPv6 on eth0, which has the default route, and unique local addresses on eth1.
fn dual_stack() -> Host {
    let mut host = host();
    let add = |interface: &mut Interface, nets: &[&str]| {
        interface.addresses.extend(nets.iter().map(|net| net.parse::<ipnet::IpNet>().unwrap()));
    };
    add(&mut host.interfaces[0], &["::1/128"]);
    add(&mut host.interfaces[1], &["2001:db8::bad/64", "2001:db8::7/64", "fe80::7/64"]);
    add(&mut host.interfaces[2], &["fd00::5/64"]);
    host.interfaces[1].passing.insert("2001:db8::bad".parse().unwrap());
    host.default_sources.push(ip("2001:db8::7"));
    host
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn resolved_on(host: &Host, toml: &str) -> Result<Configuration, ConfigErrors> {
    resolve(Settings::from_toml("f.toml", &format!("{toml}\n[users]\nu = \"p\"\n"))?, host)
}

fn relays(configuration: &Configuration) -> Vec<String> {
    configuration.relay_addresses.iter().map(ToString::to_string).collect()
}

fn warnings(configuration: &Configuration) -> String {
    let warnings = configuration.notes.iter().filter_map(|note| match note {
        Note::Warning(text) => Some(text.as_str()),
        Note::Default(_) => None,
    });
    warnings.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_dual_stack_host_serves_and_relays_both_families_from_lasting_addresses() {
    let configuration = resolved_on(&dual_stack(), "").unwrap();
    assert_eq!(configuration.interfaces, ["eth0"]);
    assert_eq!(listeners(&configuration), ["198.51.100.7:3478", "[2001:db8::7]:3478"]);
    assert_eq!(relays(&configuration), ["198.51.100.7", "2001:db8::7"]);
    let notes = format!("{:?}", configuration.notes);
    assert!(notes.contains("listen: udp://198.51.100.7:3478, udp://[2001:db8::7]:3478"), "{notes}");
    let link_local = ip("fe80::7").into();
    assert!(configuration.host_addresses.contains(&link_local), "no peer is on a link-local one either");

    let both = resolved_on(&dual_stack(), "interfaces = [\"eth0\", \"eth1\"]").unwrap();
    assert_eq!(relays(&both), ["198.51.100.7", "2001:db8::7"], "the external side of each family");
}

#[test]
fn each_familys_relay_address_is_chosen_by_itself() {
    let mapped = resolved_on(
        &dual_stack(),
        "interfaces = [\"eth0\", \"eth1\"]\nexternal_ip = [\"203.0.113.7/10.0.0.5\"]",
    );
    assert_eq!(relays(&mapped.unwrap()), ["10.0.0.5", "2001:db8::7"]);
    let mapped =
        resolved_on(&dual_stack(), "interfaces = [\"eth1\"]\nexternal_ip = [\"2001:db8:1::7/fd00::5\"]")
            .unwrap();
    assert_eq!(relays(&mapped), ["10.0.0.5", "fd00::5"]);
    assert_eq!(mapped.external_addresses[&ip("fd00::5")], ip("2001:db8:1::7"));

    let named = resolved_on(&dual_stack(), "relay_address = [\"2001:db8::7\"]").unwrap();
    assert_eq!(relays(&named), ["2001:db8::7"], "named ones alone");
    let inside = resolved_on(&dual_stack(), "interfaces = [\"eth1\"]").unwrap();
    assert_eq!(relays(&inside), ["10.0.0.5", "fd00::5"]);
    assert!(warnings(&inside).contains("relay_address fd00::5 is private"), "{}", warnings(&inside));
    let loopback = resolved_on(&dual_stack(), "listen = [\"udp://[::1]:3478\"]").unwrap();
    assert_eq!(relays(&loopback), ["::1"]);
}

#[test]
fn a_wildcard_stands_for_the_addresses_of_its_family() {
    let listen =
        |listen: &str| listeners(&resolved_on(&dual_stack(), &format!("listen = [{listen}]")).unwrap());
    assert_eq!(listen("\"udp://[::]:3500\""), ["[2001:db8::7]:3500"]);
    assert_eq!(listen("\"udp://0.0.0.0:3500\""), ["198.51.100.7:3500"]);
    assert_eq!(listen("\"udp://0.0.0.0\", \"udp://[::]\""), ["198.51.100.7:3478", "[2001:db8::7]:3478"]);
}

#[test]
fn an_ipv6_address_of_another_host_is_refused_like_an_ipv4_one() {
    for (key, value) in [
        ("listen", "udp://[2001:db8::9]:3478"),
        ("relay_address", "2001:db8::9"),
        ("external_ip", "2001:db8:1::7/2001:db8::9"),
    ] {
        let message = resolved_on(&dual_stack(), &format!("{key} = [\"{value}\"]")).unwrap_err().to_string();
        assert!(message.starts_with(&format!("f.toml:1: {key} {value}: ")), "{message}");
        assert!(message.contains("not on this host") && message.contains("2001:db8::7 (eth0)"), "{message}");
    }
}

#[test]
fn limits_have_defaults_and_mean_what_they_say() {
    let limits = |text: &str| resolved(&format!("[limits]\n{text}")).unwrap().limits;
    assert_eq!(resolved("").unwrap().limits, Limits::default());
    assert_eq!(limits("max_allocations_per_user = 7").allocations_per_user, 7);
    assert_eq!(limits("max_allocations_per_user = 7").channels, Limits::default().channels);
    let both = limits("bytes_per_second = 250000\nburst = 70000");
    assert_eq!((both.bytes_per_second, both.burst), (250_000, 70_000));

    for (text, said) in [
        ("burst = 2000", "f.toml:1: limits burst = 2000: there is no rate"),
        ("max_permissions = 0", "limits max_permissions = 0: nobody could relay anything: write 1 or more"),
        ("max_channels = 0", "limits max_channels = 0: nobody"),
    ] {
        let message = refusal(&format!("[limits]\n{text}"));
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn hairpins_are_there_unless_switched_off_with_a_warning() {
    let (on, off) = (resolved("").unwrap(), resolved("hairpin = false").unwrap());
    assert!(on.hairpin && !off.hairpin);
    assert!(
        warnings(&off).contains("hairpin: calls with both ends on this server fail"),
        "{}",
        warnings(&off)
    );
    assert!(!warnings(&on).contains("hairpin"));
}

#[test]
fn a_nonce_is_valid_for_an_hour_at_most() {
    assert_eq!(resolved("[lifetimes]\nnonce = 60").unwrap().lifetimes.nonce.get(), 60);
    assert_eq!(resolved("").unwrap().lifetimes.nonce.get(), 3600);
    let message = refusal("[lifetimes]\nnonce = 3601");
    assert_eq!(
        message,
        "f.toml:1: lifetimes nonce = 3601: a nonce is valid for an hour at most: write 3600 or less"
    );
}

#[test]
fn alternate_servers_are_one_of_each_family_and_never_this_one() {
    let two = resolved("alternate_server = [\"192.0.2.2\", \"[2001:db8::2]:3500\"]").unwrap();
    assert_eq!(
        two.alternate_servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["192.0.2.2:3478", "[2001:db8::2]:3500"]
    );
    assert!(warnings(&two).contains("192.0.2.2:3478, [2001:db8::2]:3500"), "{}", warnings(&two));
    let message = refusal("alternate_server = [\"192.0.2.2\", \"192.0.2.3\"]");
    assert!(message.contains("192.0.2.3:3478: there is another of its family"), "{message}");
    let message = refusal("alternate_server = [\"198.51.100.7\"]");
    assert!(message.contains("sent back here: udp://198.51.100.7:3478 is a listener"), "{message}");
}

#[test]
fn the_lowest_mtu_of_ipv6_is_what_every_link_has() {
    assert_eq!(resolved("").unwrap().min_ipv6_mtu, 1280);
    assert_eq!(resolved("min_ipv6_mtu = 1400").unwrap().min_ipv6_mtu, 1400);
    let message = refusal("min_ipv6_mtu = 1279");
    assert_eq!(message, "f.toml:1: min_ipv6_mtu 1279: every IPv6 link has 1280: write that or more");
}

#[test]
fn stun_146_147_software_and_its_version_are_said_unless_switched_off() {
    let software = concat!("turnpike ", env!("CARGO_PKG_VERSION"));
    assert_eq!(resolved("").unwrap().software.as_deref(), Some(software));
    assert_eq!(resolved("software = false").unwrap().software, None);
}

#[test]
fn secrets_come_from_key_and_file_one_to_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secrets");
    let toml = format!("auth_secret = [\"{}\"]\nauth_secret_file = {file:?}", "a".repeat(16));
    let resolved = || resolve(Settings::from_toml("f.toml", &toml)?, &host());
    let write = |text: &str, mode: u32| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };

    // As Windows writes it, with a byte order mark and line ends of its own.
    write(&format!("\u{feff}{}\r\n\n{}\n", "b".repeat(16), "c".repeat(16)), 0o640);
    let configuration = resolved().unwrap();
    let secrets = configuration.auth_secrets.iter().map(|secret| secret.0.as_str()).collect::<Vec<_>>();
    assert_eq!(secrets, ["a".repeat(16), "b".repeat(16), "c".repeat(16)]);
    assert!(configuration.users.is_empty(), "secrets alone will do");
    assert_eq!(warnings(&configuration), "");

    write("hunter2\n", 0o644);
    let warned = warnings(&resolved().unwrap());
    assert!(warned.contains(&format!("`chmod o= {}`", file.display())), "{warned}");
    assert!(warned.contains("shorter than 16 characters") && !warned.contains("hunter2"), "{warned}");

    let refusal = || resolved().unwrap_err().to_string();
    let place = format!("f.toml:2: auth_secret_file {}: ", file.display());
    write("\n\n", 0o600);
    assert!(
        refusal().starts_with(&format!("{place}there is no secret in it: `openssl rand")),
        "{}",
        refusal()
    );
    write("good enough to be one\nhunter2 \n", 0o600);
    assert!(refusal().starts_with(&format!("{place}line 2: ")), "{}", refusal());
    assert!(!refusal().contains("hunter2"));
    std::fs::remove_file(&file).unwrap();
    assert!(refusal().starts_with(&format!("{place}cannot be read: ")), "{}", refusal());
    assert_eq!(refusal().lines().count(), 1, "and nothing else is wrong: {}", refusal());
}

#[test]
fn a_file_with_passwords_that_everybody_reads_is_warned_of_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("turnpike.toml");
    std::fs::write(&file, "[users]\nu = \"p\"\nv = \"p\"\n").unwrap();
    let warned = |mode: u32| {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        warnings(&resolve(Settings::from_file(&file).unwrap(), &host()).unwrap())
    };
    assert_eq!(warned(0o644).matches("can be read by every user").count(), 1);
    assert_eq!(warned(0o640), "");
}
