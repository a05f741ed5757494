//! Nonces that need no memory: the time of issue and a MAC over it and the client's address (RFC 8489
//! section 9.2, RFC 7616 section 5).

use std::net::{IpAddr, SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use relay_common::clock::BootNanos;
use sha2::Sha256;

use super::address::ClientAddr;

/// `obMatJos2` and no security feature: neither password algorithms nor username anonymity.
const COOKIE: &str = "obMatJos2AAAA";

/// Seconds that a nonce is good for (RFC 8656 section 5: at most an hour).
const LIFETIME: u32 = 3600;

/// Bytes of the MAC: 96 bits, so that a 401 with a realm of 64 bytes and FINGERPRINT stays within 160.
const MAC_LEN: usize = 12;

const SECOND: u64 = 1_000_000_000;

/// Issues and recognises nonces.
pub(super) struct Nonces {
    key: [u8; 32],
}

impl Nonces {
    pub(super) const fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// A nonce for this client, good from now on for an hour.
    pub(super) fn issue(&self, now: BootNanos, client: ClientAddr) -> String {
        let issued = ((now / SECOND) as u32).to_be_bytes();
        let mac = self.mac(issued, client).finalize().into_bytes();
        let mut token = [0; 4 + MAC_LEN];
        token[..4].copy_from_slice(&issued);
        token[4..].copy_from_slice(&mac[..MAC_LEN]);
        let mut nonce = String::from(COOKIE);
        STANDARD_NO_PAD.encode_string(token, &mut nonce);
        nonce
    }

    /// Whether this is a nonce that was issued to this client within the last hour, cookie included.
    pub(super) fn is_valid(&self, now: BootNanos, client: ClientAddr, nonce: &[u8]) -> bool {
        let Some(token) = nonce.strip_prefix(COOKIE.as_bytes()) else { return false };
        let mut decoded = [0; 4 + MAC_LEN];
        if STANDARD_NO_PAD.decode_slice(token, &mut decoded) != Ok(decoded.len()) {
            return false;
        }
        let [i0, i1, i2, i3, mac @ ..] = decoded;
        let issued = [i0, i1, i2, i3];
        let age = ((now / SECOND) as u32).checked_sub(u32::from_be_bytes(issued));
        self.mac(issued, client).verify_truncated_left(&mac).is_ok() && age.is_some_and(|age| age < LIFETIME)
    }

    fn mac(&self, issued: [u8; 4], ClientAddr(client): ClientAddr) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
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

    fn client(address: &str) -> ClientAddr {
        ClientAddr(address.parse().unwrap())
    }

    #[test]
    fn stun_064_066_068_nonce_has_the_cookie_with_no_feature_bits_and_only_quotable_characters() {
        let nonce = Nonces::new([1; 32]).issue(5 * SECOND, client("192.0.2.1:1000"));
        assert!(nonce.starts_with("obMatJos2AAAA"));
        assert!(nonce.len() < 128);
        assert!(nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'));
    }

    #[test]
    fn stun_067_069_turn_005_nonce_is_bound_to_client_key_and_time() {
        let (nonces, client_a) = (Nonces::new([1; 32]), client("192.0.2.1:1000"));
        let now = 7_000 * SECOND;
        let nonce = nonces.issue(now, client_a);
        let valid = |at, who, nonce: &str| nonces.is_valid(at, who, nonce.as_bytes());

        assert!(valid(now, client_a, &nonce));
        assert_ne!(nonce, nonces.issue(now + SECOND, client_a));
        for other in ["192.0.2.1:1001", "192.0.2.2:1000", "[2001:db8::1]:1000"] {
            assert_ne!(nonce, nonces.issue(now, client(other)));
            assert!(!valid(now, client(other), &nonce));
        }
        assert!(!Nonces::new([2; 32]).is_valid(now, client_a, nonce.as_bytes()));
        assert!(!valid(now - SECOND, client_a, &nonce), "from the future");
    }

    #[test]
    fn turn_006_nonce_is_good_for_less_than_an_hour() {
        let (nonces, client) = (Nonces::new([1; 32]), client("192.0.2.1:1000"));
        let nonce = nonces.issue(SECOND, client);
        assert!(nonces.is_valid(3600 * SECOND, client, nonce.as_bytes()));
        assert!(!nonces.is_valid(3601 * SECOND, client, nonce.as_bytes()));
    }

    #[test]
    fn stun_071_a_changed_nonce_is_not_valid() {
        let (nonces, client) = (Nonces::new([1; 32]), client("192.0.2.1:1000"));
        let nonce = nonces.issue(SECOND, client).into_bytes();
        for position in 0..nonce.len() {
            let mut changed = nonce.clone();
            changed[position] = if changed[position] == b'Q' { b'g' } else { b'Q' };
            assert!(!nonces.is_valid(SECOND, client, &changed), "position {position}");
        }
        assert!(!nonces.is_valid(SECOND, client, b""));
        assert!(!nonces.is_valid(SECOND, client, &nonce[..nonce.len() - 1]));
        assert!(!nonces.is_valid(SECOND, client, &[&nonce[..], b"A"].concat()));
    }
}
