//! Values of options and keys: what is accepted is shown as it may be written, and an error says something.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use relay_user::control::config::{
    AlternateServer, AuthSecret, Cidr, ExternalIp, Listen, LogFormat, Realm, RelayAddress, RelayPorts,
    Software, User,
};

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    accepted::<AlternateServer>(text);
    accepted::<AuthSecret>(text);
    accepted::<LogFormat>(text);
    round_trip::<Cidr>(text);
    round_trip::<ExternalIp>(text);
    round_trip::<Listen>(text);
    round_trip::<RelayPorts>(text);
    accepted::<Realm>(text);
    accepted::<RelayAddress>(text);
    accepted::<Software>(text);
    if let Some(User { name, password }) = accepted(text) {
        assert_eq!(format!("{name}:{password}"), text);
    }
}

fn round_trip<T: FromStr<Err: Display> + Display + Debug + PartialEq>(text: &str) {
    if let Some(value) = accepted::<T>(text) {
        assert_eq!(accepted(&value.to_string()), Some(value));
    }
}

fn accepted<T: FromStr<Err: Display>>(text: &str) -> Option<T> {
    text.parse().inspect_err(|error: &T::Err| assert!(!error.to_string().is_empty())).ok()
}
