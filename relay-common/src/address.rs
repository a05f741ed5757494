//! IP addresses of both families in the shared layouts.

/// An IP address as its octets lie in a packet: an IPv4 address in the first four, the others zero. As two words,
/// so that the kernel program reads and compares it in registers.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address(pub [u64; 2]);

impl Address {
    /// An IPv4 address, given as it lies in a packet (`u32::from_ne_bytes(octets)`).
    #[inline(always)]
    pub const fn v4(addr: u32) -> Self {
        let word = if cfg!(target_endian = "little") { addr as u64 } else { (addr as u64) << 32 };
        Self([word, 0])
    }

    /// An IPv6 address by its octets.
    pub const fn v6(octets: [u8; 16]) -> Self {
        // SAFETY: same size; every bit pattern is valid.
        Self(unsafe { core::mem::transmute::<[u8; 16], [u64; 2]>(octets) })
    }

    /// The first four octets as they lie in a packet: the IPv4 address, if it is one.
    #[inline(always)]
    pub const fn to_v4(self) -> u32 {
        let word = self.0[0];
        if cfg!(target_endian = "little") { word as u32 } else { (word >> 32) as u32 }
    }

    /// Sum of its 16-bit words, for the Internet checksum. Below 2^34.
    #[inline(always)]
    pub const fn sum(self) -> u64 {
        let [a, b] = self.0;
        (a & 0xffff_ffff) + (a >> 32) + (b & 0xffff_ffff) + (b >> 32)
    }
}

/// The two families of addresses. The numbers are the IP versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}
