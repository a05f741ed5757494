//! Strangers get little and cost nothing: no answer before authentication is larger than max(3 x request,
//! 160 bytes), which the driver in `pair` checks for every answer of every test, and none leaves state.

use std::ops::RangeInclusive;

use relay_user::turn::{ConfigError, Credentials, Server, Totals};

use crate::{
    pair::{self, PASSWORD, Pair, USER},
    wire::{self, Builder},
};

const METHODS: [u16; 5] =
    [wire::BINDING, wire::ALLOCATE, wire::REFRESH, wire::CREATE_PERMISSION, wire::CHANNEL_BIND];

/// Every way to be refused, or answered, without valid credentials.
fn requests(method: u16, realm: &str, nonce: &[u8]) -> Vec<(u16, Builder)> {
    let bare = || Builder::new(wire::REQUEST, method, [1; 12]);
    let unknown: Vec<_> = (0x7000..0x7060).map(|kind| (kind, vec![])).collect();
    let key = wire::long_term_key(USER, realm, PASSWORD);
    let is_binding = method == wire::BINDING;
    let code = |code| if is_binding { 0 } else { code };
    vec![
        (code(401), bare()),
        (code(401), bare().attribute(&wire::requested_transport(17))),
        (if is_binding { 420 } else { 401 }, bare().attributes(&unknown)),
        (if is_binding { 420 } else { 401 }, bare().attribute(&unknown[0])),
        (code(400), bare().integrity(&key)),
        (code(400), bare().attribute(&(0x0006, USER.into())).integrity(&key)),
        (400, bare().attribute(&(0x0008, vec![0; 4]))),
        (code(401), bare().credentials("nobody", realm, nonce).integrity(&key)),
        (code(401), bare().credentials("", "", b"").integrity(&key)),
        (code(401), bare().credentials(USER, realm, nonce).integrity(b"wrong")),
        (code(401), bare().credentials(USER, realm, nonce)),
        (code(438), bare().credentials(USER, realm, b"").integrity(&key)),
        (code(438), bare().credentials(USER, realm, b"stale").integrity(&key)),
    ]
}

#[test]
fn stun_029_039_answers_to_strangers_are_bounded_for_every_realm_and_leave_no_state() {
    for length in 1..=52 {
        let realm = "r".repeat(length);
        let mut pair = Pair::with(|config| config.realm = realm.clone());
        pair.build(0, wire::ALLOCATE, &[]);
        let nonce = pair.clients[0].nonce.clone().unwrap();
        for method in METHODS {
            for (code, request) in requests(method, &realm, &nonce) {
                for request in [request.clone(), request.fingerprint()] {
                    let request = request.build();
                    let response = pair.exchange(0, &request);
                    assert_eq!(if response.is_success() { 0 } else { response.error() }, code);
                    assert!(!response.has(0x0008) && !response.has(0x001c) && !response.has(0x8022));
                }
            }
        }
        assert_eq!(pair.server.totals(), Totals::default());
        assert_eq!(pair.server.poll_timeout(), None);
        assert!(pair.open.is_empty());
    }
}

#[test]
fn stun_140_turn_003_realms_that_would_not_do_are_refused() {
    let long = "r".repeat(53);
    for realm in ["", &long, "a\nb", "a\"b", "a\\b", "a\u{ad}b"] {
        let config = relay_user::turn::Config { realm: realm.to_owned(), ..pair::config() };
        let rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        let server = Server::new(config, Credentials::default(), [0; 32], rng);
        assert_eq!(server.err(), Some(ConfigError::Realm { realm: realm.to_owned() }));
    }
}

#[test]
fn stun_145_settings_that_contradict_each_other_are_refused_by_name() {
    let error = |change: &dyn Fn(&mut relay_user::turn::Config)| {
        let mut config = pair::config();
        change(&mut config);
        let rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        Server::new(config, Credentials::default(), [0; 32], rng).err().map(|error| error.to_string())
    };
    let names = |key: &str, change: &dyn Fn(&mut relay_user::turn::Config)| {
        let message = error(change).expect("an error");
        assert!(message.starts_with(key), "{message}");
    };
    assert_eq!(error(&|_| {}), None);
    names("relay_address", &|config| config.relay_addresses.clear());
    names("relay_address 0.0.0.0", &|config| config.relay_addresses = vec!["0.0.0.0".parse().unwrap()]);
    for ip in ["255.255.255.255", "224.0.0.1", "::", "ff02::1", "fe80::1", "::ffff:192.0.2.1", "::c000:201"] {
        names(&format!("relay_address {ip}"), &|config| config.relay_addresses = vec![ip.parse().unwrap()]);
    }
    names("relay_address 192.0.2.1", &|config| config.relay_addresses.push("192.0.2.1".parse().unwrap()));
    names("relay_ports", &|config| config.relay_ports = RangeInclusive::new(50_001, 50_000));
    names("relay_ports", &|config| config.relay_ports = 1000..=2000);
    names("listen udp://198.51.100.1:3478", &|config| config.relay_ports = 2000..=4000);
    names("software", &|config| config.software = Some("x".repeat(128)));
    names("lifetimes", &|config| config.lifetimes.permission = pair::seconds(0));
    names("lifetimes", &|config| config.lifetimes.max = pair::seconds(599));
    names("lifetimes", &|config| config.lifetimes.nonce = pair::seconds(3601));
    for server in ["0.0.0.0:3478", "[::]:3478", "239.1.1.1:3478", "203.0.113.9:0", pair::LISTENER] {
        names(&format!("alternate_server {server}"), &|config| {
            config.alternate_servers = vec![server.parse().unwrap()];
        });
    }
    names("alternate_server 203.0.113.8:3478", &|config| {
        config.alternate_servers = ["203.0.113.9:3478", "[2001:db8::9]:3478", "203.0.113.8:3478"]
            .map(|server| server.parse().unwrap())
            .to_vec();
    });
    names("external_ip 203.0.113.99", &|config| {
        config.external_addresses.insert("192.0.2.77".parse().unwrap(), "203.0.113.99".parse().unwrap());
    });
    names("external_ip 2a00::1", &|config| {
        config.external_addresses.insert("192.0.2.1".parse().unwrap(), "2a00::1".parse().unwrap());
    });
    names("limits", &|config| config.limits.permissions = 0);
    names("limits", &|config| config.limits.channels = 0);
    names("external_ip 192.0.2.1", &|config| {
        config.external_addresses.insert("192.0.2.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
    });
}
