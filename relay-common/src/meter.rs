//! The limit of bytes per second of an allocation, which holds for both paths together: the generic cell rate
//! algorithm on one word that kernel and userspace update by compare-and-swap. (A plain store passes up to 136 % of
//! the rate with two CPUs.)

use crate::clock::BootNanos;

/// Index of "no limit" into `METERS`.
pub const UNLIMITED: u32 = 0;

/// A rate of application data, and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that a byte takes at this rate, times 2^16.
    pub per_byte: u64,
    /// Nanoseconds by which data may be ahead of its time.
    pub burst: u64,
}

impl Rate {
    /// The least that `burst` may last: two ticks of the coarse clock at 100 Hz, in nanoseconds.
    const MIN_BURST: u64 = 20_000_000;

    /// `bytes_per_second` (at least 1), and `burst` bytes at once: at least one largest datagram, and what comes
    /// within two ticks of the clock.
    pub const fn new(bytes_per_second: u64, burst: u64) -> Self {
        let per_byte = (1_000_000_000u64 << 16).div_ceil(bytes_per_second);
        let bytes = if burst < u16::MAX as u64 { u16::MAX as u64 } else { burst };
        let nanos = (bytes as u128 * per_byte as u128) >> 16;
        let longest = u64::MAX as u128 / 4;
        let nanos = if nanos > longest { longest as u64 } else { nanos as u64 };
        Self { per_byte, burst: if nanos < Self::MIN_BURST { Self::MIN_BURST } else { nanos } }
    }

    /// The meter's next value when `bytes` more come at `now`; `None`: they are beyond the rate. `through` is its
    /// present value, the time at which all that was admitted would be through.
    #[inline(always)]
    pub const fn admit(self, through: BootNanos, now: BootNanos, bytes: u16) -> Option<BootNanos> {
        let begin = if through > now { through } else { now };
        let next = begin + ((bytes as u64 * self.per_byte) >> 16);
        if next > now + self.burst { None } else { Some(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_at_once_and_the_rate_ever_after() {
        let rate = Rate::new(1_000_000, 500_000);
        let (mut through, mut admitted) = (0, 0);
        for tick in 0..10_000 {
            let now = 7 * SECOND + tick * SECOND / 1000;
            for _ in 0..20 {
                if let Some(next) = rate.admit(through, now, 1000) {
                    (through, admitted) = (next, admitted + 1000);
                }
            }
        }
        assert!((10_498_000..=10_500_000).contains(&admitted), "{admitted}");
    }

    #[test]
    fn no_rate_overflows() {
        for bytes_per_second in [1, 2, 1000, u64::MAX] {
            for burst in [0, 1, u64::MAX] {
                let rate = Rate::new(bytes_per_second, burst);
                assert!(rate.admit(0, SECOND, u16::MAX).is_some(), "{bytes_per_second} {burst}");
                assert!(rate.admit(0, SECOND, 0).is_some());
            }
        }
    }
}
