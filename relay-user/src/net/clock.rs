//! The clock of every lifetime.

use nix::time::{ClockId, clock_gettime};
use relay_common::clock::BootNanos;

/// CLOCK_BOOTTIME now: the clock that the kernel program compares with, too.
pub fn boot_now() -> BootNanos {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has CLOCK_BOOTTIME");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
