//! Long-term credentials (RFC 8489 section 9.2): keys, never passwords.

use std::{collections::HashMap, fmt, sync::Arc};

use md5::{Digest, Md5};

/// The longest USERNAME that may be sent (RFC 8489 section 14.3: fewer than 509 bytes).
const MAX_USERNAME_LEN: usize = 508;

/// The key of a user: MD5 over user name, realm and password. It opens everything the password opens, so
/// it is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LongTermKey([u8; 16]);

impl LongTermKey {
    /// `MD5(username ":" realm ":" password)`, for text in the form that RFC 8265's OpaqueString asks for.
    pub fn new(username: &str, realm: &str, password: &str) -> Self {
        Self(Md5::digest(format!("{username}:{realm}:{password}")).into())
    }

    /// The key of the HMAC.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for LongTermKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LongTermKey(..)")
    }
}

/// Who may use the server.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    users: HashMap<Arc<str>, LongTermKey>,
}

/// Why a user was not accepted.
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
    /// OpaqueString allows no control characters.
    #[error("user {username:?}: user name and password must not contain control characters")]
    ControlCharacter {
        /// Whose.
        username: String,
    },
    /// The user is there already.
    #[error("user {username:?} is given twice")]
    Duplicate {
        /// Who.
        username: String,
    },
}

impl Credentials {
    /// Adds a user with the key that follows from the password, which is not kept. Text beyond ASCII is taken
    /// as it is: it must be in the form that OpaqueString (RFC 8265 section 4.2) gives it.
    pub fn insert(&mut self, username: &str, realm: &str, password: &str) -> Result<(), CredentialError> {
        let length = username.len();
        if length == 0 || length > MAX_USERNAME_LEN {
            return Err(CredentialError::UsernameLength { length });
        }
        let owned = || username.to_owned();
        if password.is_empty() {
            return Err(CredentialError::EmptyPassword { username: owned() });
        }
        if username.chars().chain(password.chars()).any(char::is_control) {
            return Err(CredentialError::ControlCharacter { username: owned() });
        }
        if self.users.contains_key(username) {
            return Err(CredentialError::Duplicate { username: owned() });
        }
        self.users.insert(username.into(), LongTermKey::new(username, realm, password));
        Ok(())
    }

    /// The user's name, shared, and key.
    pub(super) fn find(&self, username: &[u8]) -> Option<(Arc<str>, LongTermKey)> {
        let username = str::from_utf8(username).ok()?;
        self.users.get_key_value(username).map(|(username, key)| (Arc::clone(username), *key))
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody may use the server.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stun_075_md5_key_of_the_rfcs_example() {
        let key = LongTermKey::new("user", "realm", "pass");
        assert_eq!(*key.as_bytes(), 0x8493_fbc5_3ba5_82fb_4c04_4c45_6bdc_40eb_u128.to_be_bytes());
    }

    #[test]
    fn turn_027_neither_password_nor_key_is_shown() {
        let mut credentials = Credentials::default();
        credentials.insert("alice", "example.org", "wonderland").unwrap();
        let shown = format!("{credentials:?}");
        assert!(shown.contains("LongTermKey(..)") && !shown.contains("wonderland"), "{shown}");
    }

    #[test]
    fn users_that_could_never_log_in_are_refused() {
        let mut credentials = Credentials::default();
        let mut insert =
            |username: &str, password: &str| credentials.insert(username, "example.org", password);
        assert_eq!(insert("", "x"), Err(CredentialError::UsernameLength { length: 0 }));
        assert_eq!(insert(&"u".repeat(509), "x"), Err(CredentialError::UsernameLength { length: 509 }));
        assert_eq!(insert("a", ""), Err(CredentialError::EmptyPassword { username: "a".into() }));
        assert_eq!(insert("a", "x\n"), Err(CredentialError::ControlCharacter { username: "a".into() }));
        assert_eq!(insert("a", "x"), Ok(()));
        assert_eq!(insert("a", "y"), Err(CredentialError::Duplicate { username: "a".into() }));
        assert_eq!(credentials.len(), 1);
    }
}
