//! The check word that tells a whole map value from a torn or a foreign one.
//!
//! A hash lookup hands out a pointer into an element that the kernel may reuse for another key while
//! the program reads it, and array elements are copied over without any lock, so a value read in one
//! go may be half of one update and half of another. Each value therefore ends in a
//! keyed sum over the key it belongs to and its own words. The multipliers are odd, so a difference in
//! any single word always shows; differences in several words cancel with probability 2^-64.

/// Added to every sum, so that an all-zero element never verifies.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Odd 64-bit constants of no structure: SplitMix64 from seed 1, low bit set.
const MULTIPLIERS: [u64; 10] = [
    0x910a_2dec_8902_5cc1,
    0xbeeb_8da1_658e_ec67,
    0xf893_a2ee_fb32_555f,
    0x71c1_8690_ee42_c90b,
    0x71bb_54d8_d101_b5b9,
    0xc34d_0bff_9015_0281,
    0xe099_ec6c_d736_3ca5,
    0x85e7_bb0f_1227_8575,
    0x4917_18de_357e_3da9,
    0xcb43_5c8e_7461_6797,
];

/// The check word for `key` and `value`, at most ten words in all.
#[inline(always)]
pub(crate) fn check_word<const K: usize, const V: usize>(key: [u64; K], value: [u64; V]) -> u64 {
    const { assert!(K + V <= MULTIPLIERS.len()) }
    let mut sum = SEED;
    let mut i = 0;
    while i < K {
        sum = sum.wrapping_add(key[i].wrapping_mul(MULTIPLIERS[i]));
        i += 1;
    }
    let mut i = 0;
    while i < V {
        sum = sum.wrapping_add(value[i].wrapping_mul(MULTIPLIERS[K + i]));
        i += 1;
    }
    sum
}
