//! The values that options and keys take, parsed once: what stands in a [`super::Configuration`] needs no
//! further check of its form.

mod addresses;
mod credentials;
mod numbers;

pub use addresses::{AlternateServer, Cidr, DEFAULT_PORT, ExternalIp, Listen, RelayAddress, RelayPorts};
pub use credentials::{AuthSecret, Realm, User};
pub use numbers::{
    LifetimeSeconds, LimitSettings, LogFormat, MIN_IPV6_MTU, NONCE_LIFETIME_MAX, SOFTWARE_MAX, Software,
};

/// Why a value is refused, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    /// This text: what is wrong, a colon, and the remedy.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

#[cfg(test)]
fn refusal<T: std::str::FromStr<Err = ValueError> + std::fmt::Debug>(text: &str) -> String {
    text.parse::<T>().expect_err(text).to_string()
}
