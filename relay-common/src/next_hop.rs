//! Where a rewritten packet leaves: resolved by userspace over netlink, read by the program by index.

use crate::verified::check_word;

/// One next hop: 32 bytes. It is rewritten in place when a route or a neighbour changes, so the program
/// copies it and verifies it before use.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Egress interface. 0 while not resolved: the packet is punted.
    pub ifindex: u32,
    /// Largest IP packet in bytes that may leave here (the route's MTU, else the interface's). 0 while not
    /// resolved.
    pub mtu: u16,
    /// Zero; room for a VLAN tag.
    pub reserved: u16,
    /// Destination MAC address, then source MAC address, as they lie in the Ethernet header.
    pub macs: [u8; 12],
    /// Zero.
    pub reserved2: u32,
    /// Check word over the index and everything before.
    pub check: u64,
}

impl NextHop {
    /// The index that is never valid: a flow without a next hop.
    pub const NONE: u32 = 0;

    #[inline(always)]
    fn words(&self) -> [u64; 4] {
        // SAFETY: repr(C), 32 bytes without padding, aligned to 8; every bit pattern is a valid u64.
        unsafe { core::mem::transmute::<Self, [u64; 4]>(*self) }
    }

    /// The value of these words, as the program copied them out of the map.
    #[inline(always)]
    pub const fn from_words(words: [u64; 4]) -> Self {
        // SAFETY: same size and alignment; every bit pattern is a valid NextHop.
        unsafe { core::mem::transmute::<[u64; 4], Self>(words) }
    }

    #[inline(always)]
    fn check_word(&self, index: u32) -> u64 {
        let [a, b, c, _] = self.words();
        check_word([index as u64], [a, b, c])
    }

    /// The value as it may be stored at `index`.
    pub fn sealed(mut self, index: u32) -> Self {
        self.check = self.check_word(index);
        self
    }

    /// Whether this is a whole value that was stored at `index`.
    #[inline(always)]
    pub fn verify(&self, index: u32) -> bool {
        self.check == self.check_word(index)
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), 32 bytes without padding, every bit pattern valid.
unsafe impl aya::Pod for NextHop {}

#[cfg(test)]
mod tests {
    use super::NextHop;

    #[test]
    fn a_zero_filled_or_misplaced_entry_never_verifies() {
        assert!(!NextHop::default().verify(0));
        assert!(!NextHop::default().verify(7));
        let hop = NextHop { ifindex: 3, mtu: 1500, macs: [9; 12], ..NextHop::default() };
        assert!(hop.sealed(7).verify(7));
        assert!(!hop.sealed(7).verify(8));
    }
}
