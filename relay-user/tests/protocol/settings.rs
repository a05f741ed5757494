//! What an operator may decide about the core, to the very edge of it. What is beyond it is refused by name
//! (`amplification`).

use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use relay_user::turn::{Config, CredentialError, Credentials, Server};

use crate::pair::{Pair, REALM, SECOND, config, seconds};

#[test]
fn turn_006_073_077_stun_140_145_settings_at_the_edge_will_do() {
    let changes: [fn(&mut Config); 12] = [
        |config| config.realm = "r".into(),
        |config| config.realm = "r".repeat(52),
        |config| config.software = Some("s".into()),
        |config| config.software = Some("s".repeat(127)),
        |config| config.software = None,
        |config| config.relay_ports = 1024..=1024,
        |config| config.relay_ports = 3479..=65_535,
        |config| config.relay_addresses = ["127.0.0.1", "::1"].map(|ip| ip.parse().unwrap()).into(),
        |config| config.lifetimes.max = config.lifetimes.default,
        |config| config.lifetimes.nonce = seconds(3600),
        |config| (config.limits.permissions, config.limits.channels) = (1, 1),
        |config| {
            config.alternate_servers =
                vec!["203.0.113.9:1".parse().unwrap(), "[2a0a:9::9]:1".parse().unwrap()]
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut config = config();
        change(&mut config);
        let server = Server::new(config, Credentials::default(), [7; 32], StdRng::seed_from_u64(1));
        assert_eq!(server.err(), None, "change {index}");
    }
}

#[test]
fn stun_132_users_are_counted_and_their_names_have_a_length() {
    let mut credentials = Credentials::default();
    assert!(credentials.is_empty());
    let refused = credentials.insert(&"u".repeat(509), REALM, "x");
    assert_eq!(refused, Err(CredentialError::UsernameLength { length: 509 }));
    for length in [1, 508] {
        assert_eq!(credentials.insert(&"u".repeat(length), REALM, "x"), Ok(()));
    }
    assert_eq!((credentials.len(), credentials.is_empty()), (2, false));
}

#[test]
fn lifetimes_may_have_a_fraction_of_a_second() {
    let mut pair = Pair::with(|config| config.lifetimes.default = Duration::from_millis(600_500));
    pair.allocate(0);
    assert_eq!(pair.server.poll_timeout(), Some(pair.now + 600 * SECOND + SECOND / 2));
}
