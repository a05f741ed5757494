//! The clock by which the kernel program judges expiry.

/// Nanoseconds of CLOCK_BOOTTIME: monotonic, and it counts suspended time, so that a lifetime ends when
/// it should after a suspend (conformance row DP-063).
pub type BootNanos = u64;

/// What userspace tells the program about time; one element of a mappable array.
///
/// The program adds `boot_offset` to the coarse monotonic clock, which costs 1 ns where
/// `bpf_ktime_get_boot_ns` costs over 20.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// CLOCK_BOOTTIME less CLOCK_MONOTONIC, in nanoseconds. Changes only with a suspend.
    pub boot_offset: u64,
}

#[cfg(feature = "user")]
// SAFETY: repr(C), one u64, no padding, every bit pattern valid.
unsafe impl aya::Pod for Clock {}
