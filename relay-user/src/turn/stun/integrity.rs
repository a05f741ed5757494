//! The HMACs of MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 (RFC 8489 sections 14.5, 14.6).

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

/// HMAC-SHA1 over `before`, the message up to the attribute, with the header's length field set to `length`.
pub(super) fn sha1(key: &[u8], before: &[u8], length: u16) -> Hmac<Sha1> {
    let mac = Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
    over(mac, before, length)
}

/// HMAC-SHA256, likewise.
pub(super) fn sha256(key: &[u8], before: &[u8], length: u16) -> Hmac<Sha256> {
    let mac = Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
    over(mac, before, length)
}

fn over<M: Mac>(mut mac: M, before: &[u8], length: u16) -> M {
    mac.update(&before[..2]);
    mac.update(&length.to_be_bytes());
    mac.update(&before[4..]);
    mac
}
