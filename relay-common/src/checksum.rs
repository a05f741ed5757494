//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! All sums are over 16-bit words as they lie in memory. The one's-complement sum does not depend on byte
//! order, so words are read and written natively and never swapped.

/// Folds a sum of at most 65,537 16-bit words to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    debug_assert!(sum <= u32::MAX as u64);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Updates `checksum` (as in the header) by `delta`, the sum of new words and complemented old words:
/// RFC 1624 equation 3, `HC' = ~(~HC + ~m + m')`.
#[inline(always)]
pub const fn update(checksum: u16, delta: u64) -> u16 {
    !fold(!checksum as u64 + delta)
}

/// A computed UDP checksum as it is sent: 0 means "none" on the wire (RFC 768), so it becomes 0xFFFF.
#[inline(always)]
pub const fn udp_nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Sum of an IPv4 address in network byte order.
#[inline(always)]
pub const fn addr_v4(addr: u32) -> u64 {
    (addr & 0xffff) as u64 + (addr >> 16) as u64
}

/// Sum of the IPv4 pseudo-header for UDP without the length: addresses in network byte order.
#[inline(always)]
pub const fn pseudo_v4(source: u32, destination: u32) -> u64 {
    addr_v4(source) + addr_v4(destination) + u16::to_be(17) as u64
}

/// One side of a rewrite: what the pseudo-header and the UDP ports say. Network byte order.
#[derive(Clone, Copy, Debug)]
pub struct UdpV4 {
    /// Source address.
    pub source_addr: u32,
    /// Destination address.
    pub destination_addr: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl UdpV4 {
    const fn words(self) -> [u16; 6] {
        [
            self.source_addr as u16,
            (self.source_addr >> 16) as u16,
            self.destination_addr as u16,
            (self.destination_addr >> 16) as u16,
            self.source_port,
            self.destination_port,
        ]
    }
}

/// How the UDP length changes between `old` and `new`, and the channel number that comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelHeader {
    /// 4 bytes less; the number is taken out.
    Removed(u16),
    /// 4 bytes more; the number is put in.
    Added(u16),
    /// Same length; one number for another (hairpin).
    Replaced {
        /// The number that goes.
        old: u16,
        /// The number that comes.
        new: u16,
    },
}

/// The fixed part of the UDP checksum's change: everything but the ChannelData length field, which differs
/// from packet to packet. Folded; numbers in network byte order.
pub fn udp_delta_v4(old: UdpV4, new: UdpV4, channel: ChannelHeader) -> u16 {
    let mut sum = 0u64;
    for (old, new) in old.words().into_iter().zip(new.words()) {
        sum += !old as u64 + new as u64;
    }
    // The length stands in the pseudo-header and in the UDP header, so the difference counts twice.
    let four = u16::to_be(4);
    sum += match channel {
        ChannelHeader::Removed(number) => 2 * (!four) as u64 + !number as u64,
        ChannelHeader::Added(number) => 2 * four as u64 + number as u64,
        ChannelHeader::Replaced { old, new } => !old as u64 + new as u64,
    };
    fold(sum)
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
    fn fold_carries_out_of_every_width() {
        assert_eq!(fold(0), 0);
        assert_eq!(fold(0xffff), 0xffff);
        assert_eq!(fold(0x1_0000), 1);
        assert_eq!(fold(0xffff_0001), 1);
        assert_eq!(fold(0xffff_ffff), 0xffff);
    }
}
