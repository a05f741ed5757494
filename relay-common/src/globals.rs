//! What the kernel program must know that is the same for all packets.

/// One element of a mappable array, written by the daemon word by word: the offset whenever it changes, the rest
/// before the program is attached and when the configuration changes. Each word is whole by itself.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// CLOCK_BOOTTIME less CLOCK_MONOTONIC, in nanoseconds; changes only with a suspend. The program adds it to the
    /// coarse monotonic clock, which costs 1 ns where `bpf_ktime_get_boot_ns` costs over 20.
    pub boot_offset: u64,
    /// See [`crate::meter::Rate::per_byte`].
    pub rate_per_byte: u64,
    /// See [`crate::meter::Rate::burst`].
    pub rate_burst: u64,
    /// Secret of the transaction IDs of Data indications (SipHash): random for each load.
    pub transaction_key: [u64; 2],
    /// The lowest MTU of IPv6 paths in bytes: an IPv6 packet made of an IPv4 packet with DF=0 leaves in the kernel only
    /// up to it (RFC 7915 section 4).
    pub min_ipv6_mtu: u64,
}

/// Indices of the words of [`Globals`], for userspace to write them by.
pub mod word {
    /// [`super::Globals::boot_offset`].
    pub const BOOT_OFFSET: u32 = 0;
    /// [`super::Globals::rate_per_byte`].
    pub const RATE_PER_BYTE: u32 = 1;
    /// [`super::Globals::rate_burst`].
    pub const RATE_BURST: u32 = 2;
    /// [`super::Globals::transaction_key`], two words.
    pub const TRANSACTION_KEY: u32 = 3;
    /// [`super::Globals::min_ipv6_mtu`].
    pub const MIN_IPV6_MTU: u32 = 5;
    /// How many there are.
    pub const COUNT: u32 = 6;
}
const _: () = assert!(size_of::<Globals>() == word::COUNT as usize * 8);

#[cfg(feature = "user")]
// SAFETY: repr(C), words without padding, every bit pattern valid.
unsafe impl aya::Pod for Globals {}
