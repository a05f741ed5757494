//! Who is served: the realm, and what clients prove themselves with.

use std::{fmt, str::FromStr};

use super::ValueError;
use crate::turn::MAX_REALM_LEN;

/// Longest user name in bytes (RFC 8489 section 14.3: less than 509).
const USERNAME_MAX: usize = 508;

/// The realm of the long-term credentials (RFC 8489 section 14.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm(pub String);

impl FromStr for Realm {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::new(
                "a realm has at least one character: write the domain name of the service",
            ));
        }
        if text.len() > MAX_REALM_LEN {
            return Err(ValueError::new(format!(
                "{} bytes are too long: write at most {MAX_REALM_LEN}, as in example.org",
                text.len()
            )));
        }
        if text.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
            return Err(ValueError::new(
                "quotation marks, backslashes and control characters are not allowed: write a domain name",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A user and the password that the long-term key is made of. The password shows in no output.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The user name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl User {
    /// A user, if name and password can be used on the wire.
    pub fn new(name: &str, password: &str) -> Result<Self, ValueError> {
        if name.is_empty() || name.len() > USERNAME_MAX {
            return Err(ValueError::new(format!("a user name has 1 to {USERNAME_MAX} bytes")));
        }
        // The key is MD5(name:realm:password) (RFC 8489 section 9.2.2).
        if name.contains(':') || name.chars().any(char::is_control) {
            return Err(ValueError::new("a user name contains neither a colon nor control characters"));
        }
        if password.is_empty() {
            return Err(ValueError::new("the password is empty: make one with `openssl rand -hex 16`"));
        }
        if password.chars().any(char::is_control) {
            return Err(ValueError::new(
                "the password contains control characters: make one with `openssl rand -hex 16`",
            ));
        }
        Ok(Self { name: name.to_owned(), password: password.to_owned() })
    }
}

impl FromStr for User {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Some((name, password)) = text.split_once(':') else {
            return Err(ValueError::new("the password is missing: write NAME:PASSWORD"));
        };
        Self::new(name, password)
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A secret that time-limited credentials are made with. It shows in no output.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthSecret(pub String);

impl AuthSecret {
    /// Fewer characters can be found out by trying: each client has a name and a password that follows from it.
    const LENGTH_SAFE: usize = 16;

    /// Whether any client could find it out by trying.
    pub fn is_weak(&self) -> bool {
        self.0.len() < Self::LENGTH_SAFE
    }
}

impl FromStr for AuthSecret {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::new("the secret is empty: make one with `openssl rand -hex 32`"));
        }
        if text.chars().any(char::is_control) || text.trim() != text {
            return Err(ValueError::new(
                "the secret contains control characters, or blanks at an end: make one with `openssl rand -hex 32`",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for AuthSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::refusal, *};

    #[test]
    fn realms_fit_an_unauthenticated_response() {
        assert!("example.org".parse::<Realm>().is_ok());
        assert!(refusal::<Realm>("").contains("at least one"));
        assert!(refusal::<Realm>(&"x".repeat(MAX_REALM_LEN + 1)).contains("53 bytes are too long"));
        assert!(refusal::<Realm>("a\"b").contains("quotation"));
    }

    #[test]
    fn a_user_never_shows_the_password() {
        let user = "alice:se:cret".parse::<User>().unwrap();
        assert_eq!((user.name.as_str(), user.password.as_str()), ("alice", "se:cret"));
        assert!(!format!("{user:?}").contains("se:cret"));
        assert!(!refusal::<User>("hunter2").contains("hunter2"));
        assert!(refusal::<User>("alice:").contains("empty"));
        assert!(refusal::<User>("alice:hunter2\t").contains("the password contains control characters"));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = "hunter2".parse::<AuthSecret>().unwrap();
        assert!(!format!("{secret:?}").contains("hunter2") && secret.is_weak());
        assert!(!"0123456789abcdef".parse::<AuthSecret>().unwrap().is_weak());
        for text in ["", "hunter2\n", " hunter2"] {
            let message = refusal::<AuthSecret>(text);
            assert!(message.contains("openssl rand -hex 32") && !message.contains("hunter2"), "{message}");
        }
    }
}
