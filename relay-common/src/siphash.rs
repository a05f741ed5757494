//! SipHash-1-3 with 128 bits of output over one word: a pseudo-random function that is cheap in a kernel program.

/// The hash of the 8 bytes of `message` (little-endian) under `key`.
#[inline(always)]
pub const fn siphash_1_3(key: [u64; 2], message: u64) -> [u64; 2] {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    // The message, and the block that holds its length.
    v[3] ^= message;
    v = round(v);
    v[0] ^= message;
    let length = 8 << 56;
    v[3] ^= length;
    v = round(v);
    v[0] ^= length;
    v[2] ^= 0xee;
    v = round(round(round(v)));
    let first = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    v = round(round(round(v)));
    [first, v[0] ^ v[1] ^ v[2] ^ v[3]]
}

#[inline(always)]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher as _;

    use siphasher::sip128::{Hasher128 as _, SipHasher13};

    use super::*;

    #[test]
    fn it_is_what_another_implementation_makes() {
        for (key, message) in [([0, 0], 0u64), ([1, 2], 3), ([u64::MAX, 7], 0x0123_4567_89ab_cdef)] {
            let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
            hasher.write(&message.to_le_bytes());
            let hash = hasher.finish128();
            assert_eq!(siphash_1_3(key, message), [hash.h1, hash.h2]);
        }
    }
}
