//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! All sums are over 16-bit words as they lie in memory. The one's-complement sum does not depend on byte
//! order, so words are read and written natively and never swapped.

use crate::address::Address;

/// Folds a sum of at most 65,537 16-bit words to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    debug_assert!(sum <= u32::MAX as u64);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The one's-complement sum of two words.
#[inline(always)]
pub const fn add(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    (sum + (sum >> 16)) as u16
}

/// Updates `checksum` (as in the header) by `delta`, the sum of new words and complemented old words:
/// RFC 1624 equation 3, `HC' = ~(~HC + ~m + m')`.
#[inline(always)]
pub const fn update(checksum: u16, delta: u64) -> u16 {
    !fold_wide(!checksum as u64 + delta)
}

/// A computed UDP checksum as it is sent: 0 means "none" on the wire (RFC 768), so it becomes 0xFFFF.
#[inline(always)]
pub const fn udp_nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Folds any sum of 16-bit or wider words to 16 bits.
#[inline(always)]
pub const fn fold_wide(sum: u64) -> u16 {
    fold((sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32 & 0xffff) + (sum >> 48))
}

/// Sum of the pseudo-header for UDP without the length, IPv4's or IPv6's.
#[inline(always)]
pub const fn pseudo(source: Address, destination: Address) -> u64 {
    source.sum() + destination.sum() + u16::to_be(17) as u64
}

/// The Internet checksum of `bytes`, from scratch. For userspace and as the oracle of tests.
pub fn of(bytes: &[u8], initial: u64) -> u16 {
    let mut sum = initial;
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum += u16::from_ne_bytes([word[0], word[1]]) as u64;
    }
    if let [last] = words.remainder() {
        sum += u16::from_ne_bytes([*last, 0]) as u64;
    }
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vec_011_rfc1624_section_4_example_gives_zero_not_minus_zero() {
        let [checksum, old, new] = [0xdd2fu16, 0x5555, 0x3285].map(u16::to_be);
        assert_eq!(update(checksum, !old as u64 + new as u64), 0x0000);
    }

    #[test]
    fn dp_058_a_computed_zero_is_sent_as_all_ones() {
        assert_eq!(udp_nonzero(0), 0xffff);
        assert_eq!(udp_nonzero(0x1234), 0x1234);
    }

    #[test]
    fn two_words_add_as_they_fold() {
        for (a, b) in [(0, 0), (1, 0xfffe), (1, 0xffff), (0xffff, 0xffff), (0x8000, 0x8000)] {
            assert_eq!(add(a, b), fold(a as u64 + b as u64), "{a:#x} + {b:#x}");
        }
    }

    #[test]
    fn fold_carries_out_of_every_width() {
        assert_eq!(fold(0), 0);
        assert_eq!(fold(0xffff), 0xffff);
        assert_eq!(fold(0x1_0000), 1);
        assert_eq!(fold(0xffff_0001), 1);
        assert_eq!(fold(0xffff_ffff), 0xffff);
    }
}
