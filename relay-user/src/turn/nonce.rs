//! Nonces that need no memory: the nonce cookie, the time of issue, and a MAC over both and the client's address
//! (RFC 8489 section 9.2, RFC 7616 section 5).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use relay_common::clock::BootNanos;
use sha2::Sha256;

use super::address::ClientAddr;

/// What every nonce cookie begins with; base64 of 24 security feature bits follows.
const COOKIE: &str = "obMatJos2";

/// Bytes of the nonce cookie.
const COOKIE_LEN: usize = 13;

/// Bytes of the MAC: 96 bits, so that a 401 with a realm of 52 bytes and FINGERPRINT stays within 160.
const MAC_LEN: usize = 12;

const SECOND: u64 = 1_000_000_000;

/// What a server supports, as its nonces tell (RFC 8489 section 18.1): bit 0 is the most significant of 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SecurityFeatures(u32);

impl SecurityFeatures {
    /// PASSWORD-ALGORITHMS comes with the nonce.
    pub(super) const PASSWORD_ALGORITHMS: Self = Self(0x80_0000);
    /// Clients are to send USERHASH for USERNAME.
    pub(super) const USERNAME_ANONYMITY: Self = Self(0x40_0000);

    pub(super) const fn and(self, Self(other): Self) -> Self {
        Self(self.0 | other)
    }

    pub(super) const fn contains(self, Self(other): Self) -> bool {
        self.0 & other == other
    }

    /// The features that a nonce tells, which may have been changed on its way; none if it has no cookie.
    pub(super) fn of_nonce(nonce: &[u8]) -> Self {
        let mut bits = [0; 4];
        let decoded = nonce
            .strip_prefix(COOKIE.as_bytes())
            .and_then(|rest| STANDARD.decode_slice_unchecked(rest.first_chunk::<4>()?, &mut bits[1..]).ok());
        Self(if decoded == Some(3) { u32::from_be_bytes(bits) } else { 0 })
    }

    fn cookie(self) -> String {
        let mut cookie = String::from(COOKIE);
        STANDARD.encode_string(&self.0.to_be_bytes()[1..], &mut cookie);
        cookie
    }
}

/// Issues and recognises nonces.
pub(super) struct Nonces {
    key: [u8; 32],
    lifetime: Duration,
}

impl Nonces {
    /// With a key that clients do not know. Nonces are good for `lifetime`, in whole seconds.
    pub(super) const fn new(key: [u8; 32], lifetime: Duration) -> Self {
        Self { key, lifetime }
    }

    /// A nonce for this client, good from now on.
    pub(super) fn issue(&self, now: BootNanos, client: ClientAddr, features: SecurityFeatures) -> String {
        let issued = ((now / SECOND) as u32).to_be_bytes();
        let mut nonce = features.cookie();
        let mac = self.mac(nonce.as_bytes(), issued, client).finalize().into_bytes();
        let mut token = [0; 4 + MAC_LEN];
        token[..4].copy_from_slice(&issued);
        token[4..].copy_from_slice(&mac[..MAC_LEN]);
        STANDARD_NO_PAD.encode_string(token, &mut nonce);
        nonce
    }

    /// Whether this is a nonce that was issued to this client and is still good, nonce cookie included.
    pub(super) fn is_valid(&self, now: BootNanos, client: ClientAddr, nonce: &[u8]) -> bool {
        let Some((cookie, token)) = nonce.split_at_checked(COOKIE_LEN) else { return false };
        let mut decoded = [0; 4 + MAC_LEN];
        if STANDARD_NO_PAD.decode_slice(token, &mut decoded) != Ok(decoded.len()) {
            return false;
        }
        let [i0, i1, i2, i3, mac @ ..] = decoded;
        let issued = [i0, i1, i2, i3];
        let age = ((now / SECOND) as u32).checked_sub(u32::from_be_bytes(issued));
        let is_young = age.is_some_and(|age| Duration::from_secs(age.into()) < self.lifetime);
        self.mac(cookie, issued, client).verify_truncated_left(&mac).is_ok() && is_young
    }

    fn mac(&self, cookie: &[u8], issued: [u8; 4], ClientAddr(client): ClientAddr) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(cookie);
        mac.update(&issued);
        mac.update(&client.port().to_be_bytes());
        match SocketAddr::ip(&client) {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: SecurityFeatures = SecurityFeatures(0);
    const ALGORITHMS: SecurityFeatures = SecurityFeatures::PASSWORD_ALGORITHMS;
    const ANONYMITY: SecurityFeatures = SecurityFeatures::USERNAME_ANONYMITY;

    fn client(address: &str) -> ClientAddr {
        ClientAddr(address.parse().unwrap())
    }

    fn nonces() -> Nonces {
        Nonces::new([1; 32], Duration::from_secs(3600))
    }

    #[test]
    fn stun_064_065_066_068_074_nonce_has_the_cookie_and_only_quotable_characters() {
        for (features, cookie) in [
            (NONE, "obMatJos2AAAA"),
            (ALGORITHMS, "obMatJos2gAAA"),
            (ANONYMITY, "obMatJos2QAAA"),
            (ALGORITHMS.and(ANONYMITY), "obMatJos2wAAA"),
        ] {
            let nonce = nonces().issue(5 * SECOND, client("192.0.2.1:1000"), features);
            assert!(nonce.starts_with(cookie));
            assert_eq!(nonce.len(), COOKIE_LEN + 22);
            assert!(nonce.len() < 128);
            assert!(nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'));
            assert_eq!(SecurityFeatures::of_nonce(nonce.as_bytes()), features);
            assert!(nonces().is_valid(5 * SECOND, client("192.0.2.1:1000"), nonce.as_bytes()));
        }
        for other in [
            "",
            "obMatJos2",
            "obMatJos2gAA",
            "obMatJos2!AAA",
            "obMatJos2gA==",
            "f//499k954d6OL34oL9FSTvy64sA",
        ] {
            assert_eq!(SecurityFeatures::of_nonce(other.as_bytes()), NONE, "{other}");
        }
    }

    #[test]
    fn stun_067_069_turn_005_nonce_is_bound_to_client_key_and_time() {
        let (nonces, client_a) = (nonces(), client("192.0.2.1:1000"));
        let now = 7_000 * SECOND;
        let nonce = nonces.issue(now, client_a, ALGORITHMS);
        let valid = |at, who, nonce: &str| nonces.is_valid(at, who, nonce.as_bytes());

        assert!(valid(now, client_a, &nonce));
        assert_ne!(nonce, nonces.issue(now + SECOND, client_a, ALGORITHMS));
        for other in ["192.0.2.1:1001", "192.0.2.2:1000", "[2001:db8::1]:1000"] {
            assert_ne!(nonce, nonces.issue(now, client(other), ALGORITHMS));
            assert!(!valid(now, client(other), &nonce));
        }
        let other_key = Nonces::new([2; 32], Duration::from_secs(3600));
        assert!(!other_key.is_valid(now, client_a, nonce.as_bytes()), "not predictable without the key");
        assert!(!valid(now - SECOND, client_a, &nonce), "from the future");
    }

    #[test]
    fn turn_006_nonce_is_good_for_less_than_its_lifetime() {
        for lifetime in [1, 60, 3600] {
            let nonces = Nonces::new([1; 32], Duration::from_secs(lifetime));
            let client = client("192.0.2.1:1000");
            let nonce = nonces.issue(SECOND, client, NONE);
            assert!(nonces.is_valid(lifetime * SECOND, client, nonce.as_bytes()));
            assert!(!nonces.is_valid((lifetime + 1) * SECOND, client, nonce.as_bytes()));
        }
    }

    #[test]
    fn stun_071_a_changed_nonce_is_not_valid() {
        let (nonces, client) = (nonces(), client("192.0.2.1:1000"));
        let nonce = nonces.issue(SECOND, client, ALGORITHMS.and(ANONYMITY)).into_bytes();
        for position in 0..nonce.len() {
            let mut changed = nonce.clone();
            changed[position] = if changed[position] == b'Q' { b'g' } else { b'Q' };
            assert!(!nonces.is_valid(SECOND, client, &changed), "position {position}");
        }
        for cookie in [NONE, ALGORITHMS, ANONYMITY] {
            let changed = [cookie.cookie().as_bytes(), &nonce[COOKIE_LEN..]].concat();
            assert!(!nonces.is_valid(SECOND, client, &changed), "a feature taken away");
        }
        assert!(!nonces.is_valid(SECOND, client, b""));
        assert!(!nonces.is_valid(SECOND, client, &nonce[..nonce.len() - 1]));
        assert!(!nonces.is_valid(SECOND, client, &[&nonce[..], b"A"].concat()));
    }
}
