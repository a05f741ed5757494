//! Keys of users, and the hash that stands for a user's name (RFC 8489 sections 9.2.2, 14.4 and 18.5.1).

use std::fmt;

use md5::{Digest, Md5};
use sha2::Sha256;

use super::stun::PasswordAlgorithm;

/// What a user proves to have: a hash over user name, realm and password. It opens everything the password
/// opens, so it is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LongTermKey {
    /// 16 bytes, for MD5.
    Md5([u8; 16]),
    /// 32 bytes, for SHA-256.
    Sha256([u8; 32]),
}

impl LongTermKey {
    /// The hash of `username ":" realm ":" password`, each in the form that OpaqueString gives it.
    pub fn new(algorithm: PasswordAlgorithm, username: &str, realm: &str, password: &str) -> Self {
        let text = format!("{username}:{realm}:{password}");
        match algorithm {
            PasswordAlgorithm::Md5 => Self::Md5(Md5::digest(text).into()),
            PasswordAlgorithm::Sha256 => Self::Sha256(Sha256::digest(text).into()),
        }
    }

    /// A key of nobody: what a request of an unknown user is verified with, so that it takes as long as
    /// another's.
    pub(super) const fn nobody(algorithm: PasswordAlgorithm) -> Self {
        match algorithm {
            PasswordAlgorithm::Md5 => Self::Md5([0; 16]),
            PasswordAlgorithm::Sha256 => Self::Sha256([0; 32]),
        }
    }

    /// The key of the HMAC.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Md5(key) => key,
            Self::Sha256(key) => key,
        }
    }
}

impl fmt::Debug for LongTermKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LongTermKey(..)")
    }
}

/// What USERHASH has for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct UserHash(pub(super) [u8; 32]);

impl UserHash {
    /// The hash of `username ":" realm`, each in the form that OpaqueString gives it.
    pub(super) fn new(username: &str, realm: &str) -> Self {
        Self(Sha256::digest(format!("{username}:{realm}")).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn stun_075_076_keys_of_the_rfcs_example() {
        let md5 = LongTermKey::new(PasswordAlgorithm::Md5, "user", "realm", "pass");
        assert_eq!(hex(md5.as_bytes()), "8493fbc53ba582fb4c044c456bdc40eb");
        let sha256 = LongTermKey::new(PasswordAlgorithm::Sha256, "user", "realm", "pass");
        assert_eq!(sha256.as_bytes(), &Sha256::digest("user:realm:pass")[..]);
    }

    #[test]
    fn vec_006_stun_106_userhash_of_the_rfcs_example() {
        let UserHash(hash) = UserHash::new("マトリックス", "example.org");
        assert_eq!(hex(&hash), "4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704");
    }
}
