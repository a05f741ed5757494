//! Rates that must not be exceeded (the generic cell rate algorithm): one time for each, and no timer.

use relay_common::clock::BootNanos;

use super::config::Limits;

/// The largest datagram passes at any rate, once it is its turn.
const MIN_BURST: u64 = 65_535;

/// So many units a second, and so many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// Application bytes of one allocation; `None`: no limit. The burst is what was configured, else a quarter of
    /// a second's worth, and at least one datagram.
    pub(super) fn of_bytes(limits: &Limits) -> Option<Self> {
        let per_second = limits.bytes_per_second;
        let burst = if limits.burst == 0 { per_second / 4 } else { limits.burst };
        (per_second > 0).then_some(Self { per_second, burst: burst.max(MIN_BURST) })
    }

    /// ICMP errors that the server makes; `None`: it makes none.
    pub(super) fn of_icmp(limits: &Limits) -> Option<Self> {
        let per_second = u64::from(limits.icmp_per_second);
        (per_second > 0).then_some(Self { per_second, burst: per_second })
    }

    fn nanos(self, units: u64) -> u128 {
        (u128::from(units) * 1_000_000_000).div_ceil(u128::from(self.per_second))
    }
}

/// What has used up some of a rate: the time at which all that was admitted would be through at that rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter(u128);

impl Meter {
    /// Whether so many more units are within the rate now. If not, they do not count.
    pub(super) fn admit(&mut self, now: BootNanos, rate: Rate, units: u64) -> bool {
        let through = self.0.max(now.into()) + rate.nanos(units);
        let admitted = through <= u128::from(now) + rate.nanos(rate.burst);
        if admitted {
            self.0 = through;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_at_once_and_the_rate_ever_after() {
        let rate = Rate { per_second: 1000, burst: 5000 };
        let mut meter = Meter::default();
        let mut admitted = 0;
        // 100 bytes a millisecond for 10 s are 100 times the rate.
        for tick in 0..10_000 {
            if meter.admit(7 * SECOND + tick * SECOND / 1000, rate, 100) {
                admitted += 100;
            }
        }
        assert_eq!(admitted, 5000 + 9900, "the last slot of 100 bytes is not over");
    }

    #[test]
    fn what_is_refused_costs_nothing_and_nothing_is_always_admitted() {
        let rate = Rate { per_second: 10, burst: 100 };
        let mut meter = Meter::default();
        assert!(!meter.admit(SECOND, rate, 101));
        assert!(meter.admit(SECOND, rate, 100));
        assert!(!meter.admit(SECOND, rate, 1));
        assert!(meter.admit(SECOND, rate, 0));
        assert!(meter.admit(2 * SECOND, rate, 10));
    }

    #[test]
    fn no_burst_is_smaller_than_the_largest_datagram() {
        let burst = |bytes_per_second, burst| {
            let limits = Limits { bytes_per_second, burst, ..Limits::default() };
            Rate::of_bytes(&limits).map(|rate| rate.burst)
        };
        assert_eq!(burst(0, 5), None);
        assert_eq!(burst(1000, 0), Some(65_535));
        assert_eq!(burst(1000, 1000), Some(65_535));
        assert_eq!(burst(1000, 100_000), Some(100_000));
        assert_eq!(burst(4_000_000, 0), Some(1_000_000));
    }
}
