//! Time-limited credentials, as the REST API for TURN services has them: whoever knows a secret gives out user
//! names that say how long they are good, and the passwords that follow from them; nobody keeps a list of users.
//!
//! `username = <seconds since 1970>[":" <name>]`, `password = base64(HMAC-SHA1(secret, username))`.

use std::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// What passwords follow from; never shown.
#[derive(Clone)]
pub(super) struct Secret(Vec<u8>);

impl Secret {
    pub(super) const fn new(secret: Vec<u8>) -> Self {
        Self(secret)
    }

    pub(super) fn password(&self, username: &str) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(username.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Until when such a user name is good, since 1970, and who is meant: the name behind the time, or where there
/// is none, the whole.
pub(super) fn parse(username: &str) -> Option<(Duration, &str)> {
    let (time, name) = username.split_once(':').unwrap_or((username, ""));
    if !time.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let expires = Duration::from_secs(time.parse().ok()?);
    Some((expires, if name.is_empty() { username } else { name }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_what_other_servers_make_of_the_secret() {
        // printf 1433895918:alice | openssl dgst -sha1 -hmac north -binary | base64
        let secret = Secret::new(b"north".to_vec());
        assert_eq!(secret.password("1433895918:alice"), "RqMvcGPYTJMGThVLSi4amT4zFtI=");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn username_is_a_time_and_perhaps_a_name() {
        let seconds = Duration::from_secs;
        assert_eq!(parse("1433895918:alice"), Some((seconds(1_433_895_918), "alice")));
        assert_eq!(parse("1433895918:a:b"), Some((seconds(1_433_895_918), "a:b")));
        assert_eq!(parse("1433895918"), Some((seconds(1_433_895_918), "1433895918")));
        assert_eq!(parse("1433895918:"), Some((seconds(1_433_895_918), "1433895918:")));
        for other in
            ["", ":alice", "alice", "alice:1433895918", "+1:alice", "-1:a", "1e9:a", "99999999999999999999:a"]
        {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
