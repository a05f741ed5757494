//! The core as the configuration wants it.

use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;

use crate::{
    control::config::Configuration,
    turn::{self, Credentials, Lifetimes, PeerPolicy, Server},
};

/// A core that serves nobody yet, or why there cannot be one.
pub(super) fn build(configuration: &Configuration) -> anyhow::Result<Server> {
    let mut credentials = Credentials::default();
    for user in &configuration.users {
        credentials.insert(&user.name, &configuration.realm, &user.password).context("users")?;
    }
    for secret in &configuration.auth_secrets {
        credentials.add_secret(secret.0.as_str()).context("auth_secret")?;
    }
    let seconds = |seconds: std::num::NonZeroU32| Duration::from_secs(seconds.get().into());
    let lifetimes = configuration.lifetimes;
    let config = turn::Config {
        realm: configuration.realm.clone(),
        software: configuration.software.clone(),
        relay_addresses: configuration.relay_addresses.clone(),
        relay_ports: configuration.relay_ports.clone(),
        external_addresses: configuration.external_addresses.clone(),
        listeners: configuration.listeners.clone(),
        host_addresses: configuration.host_addresses.clone(),
        lifetimes: Lifetimes {
            default: seconds(lifetimes.default),
            max: seconds(lifetimes.max),
            permission: seconds(lifetimes.permission),
            channel: seconds(lifetimes.channel),
            nonce: seconds(lifetimes.nonce),
        },
        limits: configuration.limits,
        alternate_servers: configuration.alternate_servers.clone(),
        min_ipv6_mtu: configuration.min_ipv6_mtu,
        strict_expiry: configuration.strict_expiry,
        strict_permissions: configuration.strict_permissions,
        hairpin: configuration.hairpin,
        rfc5766_channels: configuration.rfc5766_channels,
        policy: PeerPolicy::new(configuration.allow_peer.clone(), configuration.deny_peer.clone()),
    };
    Ok(Server::new(config, credentials, rand::random(), rand::make_rng::<StdRng>())?)
}

#[cfg(test)]
mod tests {
    use relay_common::outcome::Outcome;

    use super::*;
    use crate::{
        control::{
            config::{Settings, resolve},
            host::Host,
        },
        turn::stun::ErrorCode,
    };

    const OPERATING: &str = include_str!("../../../docs/operating.md");

    #[test]
    fn every_reason_and_every_error_code_is_explained_to_operators() {
        let text = "listen = [\"udp://127.0.0.1\"]\nrealm = \"example.org\"\n[users]\nu = \"p\"\n";
        let settings = Settings::from_toml("turnpike.toml", text).unwrap();
        let server = build(&resolve(settings, &Host::read().unwrap()).unwrap()).unwrap();
        let reasons = server.drops().map(|(reason, _)| reason).collect::<Vec<_>>();
        assert!(!reasons.is_empty());
        let outcomes = Outcome::ALL.iter().map(|outcome| outcome.name());
        for reason in reasons.into_iter().chain(outcomes) {
            assert!(OPERATING.contains(&format!("`{reason}`")), "{reason} is not in docs/operating.md");
        }
        for code in ErrorCode::ALL.iter().map(|code| code.code().to_string()) {
            let explained = OPERATING
                .lines()
                .any(|line| line.starts_with("| ") && line.split(['|', ' ', ',']).any(|w| w == code));
            assert!(explained, "{code} is not in docs/operating.md");
        }
    }
}
