//! The configuration file: read, and checked against a host. Each mistake is told with its line.

use std::collections::HashSet;

use relay_user::control::{
    config::{ConfigErrors, Origin, Settings, resolve},
    host::{Host, Interface},
};

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let errors = match Settings::from_toml("fuzz.toml", text) {
        // No file is read: what stands in it is no business of this input's.
        Ok(settings) => match resolve(Settings { auth_secret_file: None, ..settings }, &host()) {
            Ok(configuration) => {
                assert!(!configuration.users.is_empty() || !configuration.auth_secrets.is_empty());
                assert!(!configuration.listeners.is_empty());
                return;
            }
            Err(errors) => errors,
        },
        Err(errors) => errors,
    };
    told(&errors, text.lines().count() + 1);
}

fn told(ConfigErrors(errors): &ConfigErrors, lines: usize) {
    assert!(!errors.is_empty());
    for error in errors {
        assert!(!error.to_string().is_empty());
        if let Origin::File { line, .. } = error.origin {
            assert!((1..=lines).contains(&line), "line {line} of {lines}: {error}");
        }
    }
}

/// One that a small configuration fits.
fn host() -> Host {
    let interface = |name: &str, index, loopback, networks: [&str; 2]| Interface {
        name: name.to_owned(),
        index,
        loopback,
        addresses: networks.map(|network| network.parse().expect("a network")).into(),
        passing: HashSet::new(),
    };
    Host {
        interfaces: vec![
            interface("lo", 1, true, ["127.0.0.1/8", "::1/128"]),
            interface("eth0", 2, false, ["192.0.2.1/24", "2001:db8::1/64"]),
        ],
        default_sources: ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address")).into(),
        name: "fuzz".to_owned(),
        ..Host::default()
    }
}
