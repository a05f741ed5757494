//! The clock by which the kernel program judges expiry.

/// Nanoseconds of CLOCK_BOOTTIME: monotonic, and it counts suspended time, so that a lifetime ends when
/// it should after a suspend (conformance row DP-063).
pub type BootNanos = u64;
