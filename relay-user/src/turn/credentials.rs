//! Who may use the server, by long-term credentials (RFC 8489 section 9.2): users with their keys, never
//! passwords, and secrets that time-limited credentials follow from.
//!
//! [`Credentials::find`] is all that the rest of the server asks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    long_term_key::{LongTermKey, UserHash},
    opaque_string::opaque_string,
    stun::PasswordAlgorithm,
    time_limited::{self, Secret},
};

/// The longest USERNAME that may be sent (RFC 8489 section 14.3: fewer than 509 bytes).
const MAX_USERNAME_LEN: usize = 508;

/// Who may use the server.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    users: HashMap<Arc<str>, Keys>,
    names: HashMap<UserHash, Arc<str>>,
    secrets: Vec<Secret>,
}

#[derive(Clone, Copy, Debug)]
struct Keys {
    md5: LongTermKey,
    sha256: LongTermKey,
}

/// Who a client says it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Identity<'a> {
    /// By USERNAME.
    Name(&'a [u8]),
    /// By USERHASH.
    Hash(UserHash),
}

/// The user that a client says it is, which it has yet to prove.
#[derive(Debug)]
pub(super) struct Candidate {
    /// The user name, as in USERNAME.
    pub(super) name: Arc<str>,
    /// Whom quotas count: the name without the time, for a time-limited credential.
    pub(super) quota_user: Arc<str>,
    /// Having any of these proves it.
    pub(super) keys: Vec<LongTermKey>,
    /// When a time-limited credential is over, since 1970.
    pub(super) expires: Option<Duration>,
}

/// Why a user or a secret was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The user name is empty or too long.
    #[error("user name of {length} bytes: it must have 1 to {MAX_USERNAME_LEN}")]
    UsernameLength {
        /// Bytes it has.
        length: usize,
    },
    /// The password is empty.
    #[error("user {username:?} has an empty password")]
    EmptyPassword {
        /// Whose.
        username: String,
    },
    /// OpaqueString allows no such user name.
    #[error("user {username:?}: a user name must not contain control, invisible or unassigned characters")]
    Username {
        /// As given.
        username: String,
    },
    /// OpaqueString allows no such password.
    #[error("user {username:?}: a password must not contain control, invisible or unassigned characters")]
    Password {
        /// Whose.
        username: String,
    },
    /// OpaqueString allows no such realm.
    #[error("realm {realm:?}: it must not contain control, invisible or unassigned characters")]
    Realm {
        /// As given.
        realm: String,
    },
    /// The user is there already.
    #[error("user {username:?} is given twice")]
    Duplicate {
        /// Who.
        username: String,
    },
    /// Anybody could guess the empty secret.
    #[error("a secret for time-limited credentials is empty")]
    EmptySecret,
}

impl Credentials {
    /// Adds a user with the keys that follow from the password, which is not kept. The three go through
    /// OpaqueString (RFC 8265 section 4.2) first.
    pub fn insert(&mut self, username: &str, realm: &str, password: &str) -> Result<(), CredentialError> {
        let given = || username.to_owned();
        if username.is_empty() {
            return Err(CredentialError::UsernameLength { length: 0 });
        }
        let name = opaque_string(username).ok_or_else(|| CredentialError::Username { username: given() })?;
        if name.len() > MAX_USERNAME_LEN {
            return Err(CredentialError::UsernameLength { length: name.len() });
        }
        if password.is_empty() {
            return Err(CredentialError::EmptyPassword { username: given() });
        }
        let password =
            opaque_string(password).ok_or_else(|| CredentialError::Password { username: given() })?;
        let realm = opaque_string(realm).ok_or_else(|| CredentialError::Realm { realm: realm.to_owned() })?;
        if self.users.contains_key(name.as_str()) {
            return Err(CredentialError::Duplicate { username: given() });
        }
        let key = |algorithm| LongTermKey::new(algorithm, &name, &realm, &password);
        let keys = Keys { md5: key(PasswordAlgorithm::Md5), sha256: key(PasswordAlgorithm::Sha256) };
        let hash = UserHash::new(&name, &realm);
        let name: Arc<str> = name.into();
        self.names.insert(hash, Arc::clone(&name));
        self.users.insert(name, keys);
        Ok(())
    }

    /// Adds a secret that time-limited credentials may follow from: user name `<seconds since 1970>:<name>`,
    /// password `base64(HMAC-SHA1(secret, username))`. There may be several, so that secrets can be changed.
    pub fn add_secret(&mut self, secret: impl Into<Vec<u8>>) -> Result<(), CredentialError> {
        let secret = secret.into();
        if secret.is_empty() {
            return Err(CredentialError::EmptySecret);
        }
        self.secrets.push(Secret::new(secret));
        Ok(())
    }

    /// The user that a client says it is, with the keys that `algorithm` makes; `realm` is the server's.
    ///
    /// A user with a time-limited credential is found by name only, for nobody knows the names that will come.
    pub(super) fn find(
        &self,
        identity: Identity<'_>,
        realm: &str,
        algorithm: PasswordAlgorithm,
    ) -> Option<Candidate> {
        let name = self.name(identity)?;
        if let Some((name, keys)) = self.users.get_key_value(name) {
            let key = match algorithm {
                PasswordAlgorithm::Md5 => keys.md5,
                PasswordAlgorithm::Sha256 => keys.sha256,
            };
            let (name, quota_user) = (Arc::clone(name), Arc::clone(name));
            return Some(Candidate { name, quota_user, keys: vec![key], expires: None });
        }
        if self.secrets.is_empty() {
            return None;
        }
        let (expires, quota_user) = time_limited::parse(name)?;
        let key = |secret: &Secret| LongTermKey::new(algorithm, name, realm, &secret.password(name));
        Some(Candidate {
            name: name.into(),
            quota_user: quota_user.into(),
            keys: self.secrets.iter().map(key).collect(),
            expires: Some(expires),
        })
    }

    /// The user name that a client means, where it is text, or the hash of a user's.
    pub(super) fn name<'a>(&'a self, identity: Identity<'a>) -> Option<&'a str> {
        match identity {
            Identity::Name(name) => str::from_utf8(name).ok(),
            Identity::Hash(hash) => self.names.get(&hash).map(|name| &**name),
        }
    }

    /// Whether every user can be found by USERHASH. A client must use it where it is announced (RFC 8489
    /// section 9.2.5), so it is announced only then.
    pub(super) const fn all_have_a_hash(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Number of users, those with time-limited credentials aside.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody may use the server.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.secrets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REALM: &str = "example.org";
    const BOTH: [PasswordAlgorithm; 2] = PasswordAlgorithm::OFFERED;

    #[test]
    fn turn_027_neither_password_nor_key_nor_secret_is_shown() {
        let mut credentials = Credentials::default();
        credentials.insert("alice", REALM, "wonderland").unwrap();
        credentials.add_secret("north").unwrap();
        let shown = format!("{credentials:?}");
        assert!(shown.contains("LongTermKey(..)") && shown.contains("Secret(..)"), "{shown}");
        assert!(!shown.contains("wonderland") && !shown.contains("110"), "{shown}");
    }

    #[test]
    fn users_that_could_never_log_in_are_refused() {
        let mut credentials = Credentials::default();
        let mut insert = |username: &str, password: &str| credentials.insert(username, REALM, password);
        let username = |username: &str| username.to_owned();
        assert_eq!(insert("", "x"), Err(CredentialError::UsernameLength { length: 0 }));
        assert_eq!(insert(&"u".repeat(509), "x"), Err(CredentialError::UsernameLength { length: 509 }));
        assert_eq!(insert("a", ""), Err(CredentialError::EmptyPassword { username: username("a") }));
        assert_eq!(insert("a", "x\n"), Err(CredentialError::Password { username: username("a") }));
        assert_eq!(insert("a\u{ad}", "x"), Err(CredentialError::Username { username: username("a\u{ad}") }));
        assert_eq!(insert("a", "x"), Ok(()));
        assert_eq!(insert("a", "y"), Err(CredentialError::Duplicate { username: username("a") }));
        assert_eq!(credentials.len(), 1);
        let realm = || "r\u{ad}".to_owned();
        assert_eq!(credentials.insert("b", &realm(), "x"), Err(CredentialError::Realm { realm: realm() }));
        assert_eq!(credentials.add_secret(""), Err(CredentialError::EmptySecret));
    }

    #[test]
    fn stun_078_106_140_user_names_realms_and_passwords_go_through_opaque_string() {
        let (mut given, mut formed) = (Credentials::default(), Credentials::default());
        given.insert("Zoe\u{308} A", "e\u{301}.example", "pass\u{a0}word").unwrap();
        formed.insert("Zo\u{eb} A", "\u{e9}.example", "pass word").unwrap();
        assert!(matches!(given.insert("Zo\u{eb} A", REALM, "x"), Err(CredentialError::Duplicate { .. })));
        let hash = UserHash::new("Zo\u{eb} A", "\u{e9}.example");
        for algorithm in BOTH {
            for identity in [Identity::Name("Zo\u{eb} A".as_bytes()), Identity::Hash(hash)] {
                let [given, formed] = [&given, &formed].map(|c| c.find(identity, REALM, algorithm).unwrap());
                assert_eq!(given.keys, formed.keys);
                assert_eq!((&*given.name, &*given.quota_user), ("Zo\u{eb} A", "Zo\u{eb} A"));
                assert_eq!(given.expires, None);
            }
        }
    }

    #[test]
    fn time_limited_users_are_found_by_name_with_a_key_for_each_secret() {
        let mut credentials = Credentials::default();
        credentials.add_secret("north").unwrap();
        assert!(!credentials.is_empty() && !credentials.all_have_a_hash());
        credentials.add_secret("south").unwrap();
        credentials.insert("1433895918:bob", REALM, "builder").unwrap();
        for algorithm in BOTH {
            let find = |name: &str| credentials.find(Identity::Name(name.as_bytes()), REALM, algorithm);
            let alice = find("1433895918:alice").unwrap();
            assert_eq!((&*alice.name, &*alice.quota_user), ("1433895918:alice", "alice"));
            assert_eq!(alice.expires, Some(Duration::from_secs(1_433_895_918)));
            let first =
                LongTermKey::new(algorithm, "1433895918:alice", REALM, "RqMvcGPYTJMGThVLSi4amT4zFtI=");
            assert_eq!((alice.keys[0], alice.keys.len()), (first, 2));
            assert_ne!(alice.keys[1], first);
            assert!(find("alice").is_none());
            // A user that is on the list is that user.
            assert_eq!(find("1433895918:bob").unwrap().expires, None);
            let hash = Identity::Hash(UserHash::new("1433895918:alice", REALM));
            assert!(credentials.find(hash, REALM, algorithm).is_none());
        }
    }

    #[test]
    fn without_a_secret_a_time_is_a_name_like_any_other() {
        let mut credentials = Credentials::default();
        credentials.insert("alice", REALM, "x").unwrap();
        assert!(credentials.all_have_a_hash());
        let find = |name: &[u8]| credentials.find(Identity::Name(name), REALM, PasswordAlgorithm::Md5);
        assert!(find(b"1433895918:alice").is_none());
        assert!(find(b"\xff").is_none());
        assert!(find(b"alice").is_some());
    }
}
