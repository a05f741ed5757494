//! `GLOBALS`: what the program must know that is the same for all packets.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use relay_common::{clock::BootNanos, globals::word, meter::Rate};

use super::words::Words;

/// Every IPv6 link has that (RFC 8200 section 5).
const LOWEST_IPV6_MTU: u16 = 1280;

/// The program's view of them.
pub(super) struct Globals<W>(W);

impl<W: Words> Globals<W> {
    /// The clock is set, the secret is new, nothing is limited.
    pub(super) fn new(words: W) -> Self {
        let mut globals = Self(words);
        globals.set_clock();
        for (index, secret) in (word::TRANSACTION_KEY..).zip(rand::random::<[u64; 2]>()) {
            globals.0.store(index, secret);
        }
        globals.set_min_ipv6_mtu(LOWEST_IPV6_MTU);
        globals
    }

    /// Tells what to add to the monotonic clock.
    pub(super) fn set_clock(&mut self) {
        // The two clocks cannot be read at the same time; what is less than this is the time between.
        const JITTER: u64 = 1_000_000;
        let offset = boot_now().saturating_sub(nanos(ClockId::CLOCK_MONOTONIC));
        if self.0.load(word::BOOT_OFFSET).abs_diff(offset) > JITTER {
            self.0.store(word::BOOT_OFFSET, offset);
        }
    }

    /// See [`super::Datapath::set_rate`].
    pub(super) fn set_rate(&mut self, rate: Rate) {
        self.0.store(word::RATE_PER_BYTE, rate.per_byte);
        self.0.store(word::RATE_BURST, rate.burst);
    }

    /// See [`super::Datapath::set_min_ipv6_mtu`].
    pub(super) fn set_min_ipv6_mtu(&mut self, mtu: u16) {
        self.0.store(word::MIN_IPV6_MTU, mtu.into());
    }
}

/// CLOCK_BOOTTIME.
pub(super) fn boot_now() -> BootNanos {
    nanos(ClockId::CLOCK_BOOTTIME)
}

fn nanos(clock: ClockId) -> BootNanos {
    let now = clock_gettime(clock).expect("Linux has had these clocks since 2.6.39");
    u64::try_from(Duration::from(now).as_nanos()).expect("584 years of uptime")
}

#[cfg(test)]
mod tests {
    use relay_common::globals;

    use super::{super::testing::Memory, *};

    #[test]
    fn each_word_is_where_the_program_reads_it() {
        let words = Memory::new(word::COUNT);
        let mut globals = Globals::new(words.clone());
        let rate = Rate::new(1_000_000, 100_000);
        globals.set_rate(rate);
        globals.set_min_ipv6_mtu(1400);
        let seen = read(&words);
        assert_eq!((seen.rate_per_byte, seen.rate_burst), (rate.per_byte, rate.burst));
        assert_eq!(seen.min_ipv6_mtu, 1400);
        let offset = boot_now().saturating_sub(nanos(ClockId::CLOCK_MONOTONIC));
        assert!(seen.boot_offset.abs_diff(offset) < 60_000_000_000, "{seen:?}");
    }

    #[test]
    fn transaction_ids_cannot_be_foretold_from_another_load() {
        let keys = [(); 2].map(|()| {
            let words = Memory::new(word::COUNT);
            Globals::new(words.clone());
            read(&words).transaction_key
        });
        assert_ne!(keys[0], keys[1]);
        assert!(keys.iter().all(|[a, b]| a != b), "{keys:?}");
    }

    fn read(words: &Memory) -> globals::Globals {
        let word = |index| words.load(index);
        globals::Globals {
            boot_offset: word(0),
            rate_per_byte: word(1),
            rate_burst: word(2),
            transaction_key: [word(3), word(4)],
            min_ipv6_mtu: word(5),
        }
    }
}
