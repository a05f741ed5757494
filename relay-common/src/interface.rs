//! What the program must know of the interfaces it is attached to.

/// One interface, in an array indexed by ifindex. All zero: not attached.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The interface's own MAC address; frames for any other are not forwarded (DP-053).
    pub mac: [u8; 6],
    /// 1 where the program is attached.
    pub attached: u16,
}

impl Interface {
    /// The one word that an attached interface with this MAC address is, for the program to compare with. The MAC address
    /// is what a frame begins with: its first eight bytes, of which the last two are not looked at.
    #[inline(always)]
    pub const fn word(frame: u64) -> u64 {
        if cfg!(target_endian = "little") { frame & 0xffff_ffff_ffff | 1 << 48 } else { frame & !0xffff | 1 }
    }
}

/// Key of `VLANS`: a VLAN that the host has a device for. A tagged frame of another VLAN is left to the kernel.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VlanKey {
    /// The interface below: the one the program is attached to.
    pub ifindex: u32,
    /// VLAN identifier of the outer tag (host byte order, 12 bits), with [`Self::SERVICE_TAG`] set for IEEE 802.1ad.
    pub outer: u16,
    /// VLAN identifier of the inner tag; 0: there is none.
    pub inner: u16,
}

impl VlanKey {
    /// Set in [`Self::outer`]: the outer tag's EtherType is 0x88a8, not 0x8100.
    pub const SERVICE_TAG: u16 = 1 << 15;
}

#[cfg(feature = "user")]
// SAFETY: repr(C), 8 bytes without padding, every bit pattern valid.
unsafe impl aya::Pod for VlanKey {}
#[cfg(feature = "user")]
// SAFETY: repr(C), 6 + 2 bytes, no padding, every bit pattern valid.
unsafe impl aya::Pod for Interface {}
