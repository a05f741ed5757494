//! Exact counts of one flow in one word.

/// Packets and payload bytes of one flow, packed so that one atomic addition counts both:
/// `packets << 40 | bytes`. Bytes are application data: what ChannelData's length field or the peer's
/// UDP payload says, without any header.
///
/// Both halves wrap. Userspace adds up differences ([`FlowCounter::since`]), which are exact as long as it
/// looks before 2^24 packets or 2^40 bytes have passed: once a second bears 16 Mpps on one flow.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounter(pub u64);

impl FlowCounter {
    /// Where the packet count begins.
    pub const PACKETS_SHIFT: u32 = 40;

    /// What one packet with `bytes` of application data adds.
    #[inline(always)]
    pub const fn one(bytes: u16) -> u64 {
        (1 << Self::PACKETS_SHIFT) | bytes as u64
    }

    /// Packets and bytes counted since `earlier` was read.
    #[inline]
    pub const fn since(self, earlier: Self) -> (u64, u64) {
        let difference = self.0.wrapping_sub(earlier.0);
        (difference >> Self::PACKETS_SHIFT, difference & ((1 << Self::PACKETS_SHIFT) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::FlowCounter;

    #[test]
    fn differences_are_exact_across_both_wraps() {
        let mut word = FlowCounter(u64::MAX - FlowCounter::one(100));
        let earlier = word;
        for bytes in [0, 1, 1200, 65507] {
            word = FlowCounter(word.0.wrapping_add(FlowCounter::one(bytes)));
        }
        assert_eq!(word.since(earlier), (4, 66708));
    }
}
