//! Numbers, and how the server names itself and writes its log.

use std::{num::NonZeroU32, str::FromStr};

use super::ValueError;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(ValueError::new(format!("unknown format {text:?}: write text or json"))),
        }
    }
}

/// The longest that a nonce may be valid, in seconds (RFC 8656 section 5).
pub const NONCE_LIFETIME_MAX: u32 = 3600;

/// The MTU that every IPv6 link has (RFC 8200 section 5).
pub const MIN_IPV6_MTU: u16 = 1280;

/// Longest SOFTWARE in bytes (RFC 8489 section 14.14: less than 128 characters).
pub const SOFTWARE_MAX: usize = 127;

/// What the server calls itself in responses; `None` to say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Software(pub Option<String>);

impl Default for Software {
    fn default() -> Self {
        Self(Some(concat!("turnpike ", env!("CARGO_PKG_VERSION")).to_owned()))
    }
}

impl From<bool> for Software {
    fn from(wanted: bool) -> Self {
        if wanted { Self::default() } else { Self(None) }
    }
}

impl FromStr for Software {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::new("the text is empty: write false to send none"));
        }
        if text.len() > SOFTWARE_MAX {
            return Err(ValueError::new(format!(
                "{} bytes are too long: write at most {SOFTWARE_MAX}",
                text.len()
            )));
        }
        if text.chars().any(char::is_control) {
            return Err(ValueError::new("control characters are not allowed: write plain text"));
        }
        Ok(Self(Some(text.to_owned())))
    }
}

/// Lifetimes in seconds, as RFC 8656 names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifetimeSeconds {
    /// Given to an allocation that asks for none or for less (section 3.2: 600).
    pub default: NonZeroU32,
    /// The longest that an allocation can have (section 7.2: 3600).
    pub max: NonZeroU32,
    /// Of a permission (section 9: 300).
    pub permission: NonZeroU32,
    /// Of a channel binding (section 12: 600).
    pub channel: NonZeroU32,
    /// Of a nonce (section 5: at most [`NONCE_LIFETIME_MAX`]).
    pub nonce: NonZeroU32,
}

impl Default for LifetimeSeconds {
    fn default() -> Self {
        let seconds = |n| NonZeroU32::new(n).expect("the constants below are not zero");
        Self {
            default: seconds(600),
            max: seconds(3600),
            permission: seconds(300),
            channel: seconds(600),
            nonce: seconds(NONCE_LIFETIME_MAX),
        }
    }
}

/// The `[limits]` table as written; [`Limits`](crate::turn::Limits) says what each means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Allocations of all users.
    pub max_allocations: Option<u32>,
    /// Allocations of one user.
    pub max_allocations_per_user: Option<u32>,
    /// Permissions of one allocation.
    pub max_permissions: Option<u32>,
    /// Channels of one allocation.
    pub max_channels: Option<u32>,
    /// Application bytes per second of one allocation.
    pub bytes_per_second: Option<u64>,
    /// Application bytes at once on top of that rate.
    pub burst: Option<u64>,
    /// Responses per second to unauthenticated requests of one source.
    pub unauthenticated_per_second: Option<u32>,
    /// ICMP errors that the relay makes per second.
    pub icmp_per_second: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::{super::refusal, *};

    #[test]
    fn software_is_a_short_text() {
        assert_eq!("relay".parse::<Software>().unwrap().0.as_deref(), Some("relay"));
        assert!(Software::from(true).0.unwrap().starts_with("turnpike "));
        assert_eq!(Software::from(false).0, None);
        assert!(refusal::<Software>("").contains("write false"));
        assert!(refusal::<Software>(&"x".repeat(SOFTWARE_MAX + 1)).contains("128 bytes are too long"));
        assert!(refusal::<Software>("a\u{1b}[0m").contains("control characters"));
    }
}
