//! From one address to another: the addresses of an outgoing packet and how it leaves. Resolved by userspace over
//! netlink, read by the program by index, shared by all flows between the two.

use crate::{
    address::{Address, Family},
    verified::check_word,
};

/// Value of `PATHS`: 64 bytes. It is rewritten in place when a route or a neighbour changes, so the program copies it
/// and verifies it before use.
///
/// An *internal* path is one between two relayed addresses of this server, or from one to nobody: nothing leaves by it,
/// so it never has an interface. Where others have MAC addresses it has the address that the receiver is shown.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Source address of the outgoing packet.
    pub source: Address,
    /// Destination address of the outgoing packet, of the same family.
    pub destination: Address,
    /// Destination MAC address, then source MAC address, as they lie in the Ethernet header. On an internal path the
    /// first bytes of [`Self::advertised`].
    pub macs: [u8; 12],
    /// Tag control information of outer and inner VLAN tag, network byte order; as many as [`Self::flags`] says, the
    /// outer first.
    pub vlans: [u16; 2],
    /// Egress interface: the one the program is attached to, below any VLAN device. 0 while not resolved, and always on
    /// an internal path: the packet is punted.
    pub ifindex: u32,
    /// Largest IP packet in bytes that may leave here (the route's MTU, else the interface's). 0 while not resolved.
    pub mtu: u16,
    /// The addresses' family: 4 or 6.
    pub family: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Check word over the index and everything before.
    pub check: u64,
}
const _: () = assert!(size_of::<Path>() == 64);

/// Bits of [`Path::flags`].
pub mod flags {
    /// How many VLAN tags there are: 0, 1 or 2.
    pub const TAGS: u8 = 0b11;
    /// The outer tag is a service tag (IEEE 802.1ad, 0x88a8); else it is 0x8100. The inner one is 0x8100 always.
    pub const SERVICE_TAG: u8 = 1 << 2;
    /// The interface takes frames in several pieces of memory (`NETDEV_XDP_ACT_NDO_XMIT_SG`).
    pub const SCATTER_GATHER: u8 = 1 << 3;
}

impl Path {
    /// The index that is never valid: a flow without a path.
    pub const NONE: u32 = 0;

    /// An internal path: what comes from `source` is shown to the receiver as coming from `advertised`.
    pub fn internal(family: Family, source: Address, destination: Address, advertised: Address) -> Self {
        // SAFETY: same size; every bit pattern is valid.
        let [a, b, c, d] = unsafe { core::mem::transmute::<[u64; 2], [[u8; 4]; 4]>(advertised.0) };
        let mut macs = [0; 12];
        let (first, rest) = macs.split_at_mut(4);
        first.copy_from_slice(&a);
        let (second, third) = rest.split_at_mut(4);
        second.copy_from_slice(&b);
        third.copy_from_slice(&c);
        let vlans = [u16::from_ne_bytes([d[0], d[1]]), u16::from_ne_bytes([d[2], d[3]])];
        Self { source, destination, macs, vlans, family: family as u8, ..Self::default() }
    }

    /// On an internal path: the address that the source is shown as.
    #[inline(always)]
    pub fn advertised(&self) -> Address {
        let words = self.words();
        Address([words[4], words[5]])
    }

    /// [`Self::macs`] as they are copied: eight bytes, then four.
    #[inline(always)]
    pub fn mac_words(&self) -> (u64, u32) {
        let [_, _, _, _, first, rest, ..] = self.words();
        (first, if cfg!(target_endian = "little") { rest as u32 } else { (rest >> 32) as u32 })
    }

    #[inline(always)]
    fn words(&self) -> [u64; 8] {
        // SAFETY: repr(C), 64 bytes without padding, aligned to 8; every bit pattern is a valid u64.
        unsafe { core::mem::transmute::<Self, [u64; 8]>(*self) }
    }

    /// The value of these words, as the program copied them out of the map.
    #[inline(always)]
    pub const fn from_words(words: [u64; 8]) -> Self {
        // SAFETY: same size and alignment; every bit pattern is a valid Path.
        unsafe { core::mem::transmute::<[u64; 8], Self>(words) }
    }

    #[inline(always)]
    fn check_word(&self, index: u32) -> u64 {
        let [a, b, c, d, e, f, g, _] = self.words();
        check_word([index as u64], [a, b, c, d, e, f, g])
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
// SAFETY: repr(C), 64 bytes without padding, every bit pattern valid.
unsafe impl aya::Pod for Path {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_filled_or_misplaced_entry_never_verifies() {
        assert!(!Path::default().verify(0));
        assert!(!Path::default().verify(7));
        let path = Path { ifindex: 3, mtu: 1500, macs: [9; 12], ..Path::default() };
        assert!(path.sealed(7).verify(7));
        assert!(!path.sealed(7).verify(8));
    }

    #[test]
    fn an_internal_path_keeps_what_is_shown_and_has_no_way_out() {
        let [source, destination] = [Address::v4(1), Address::v4(2)];
        let advertised = Address::v6(core::array::from_fn(|i| i as u8));
        let path = Path::internal(Family::V6, source, destination, advertised);
        assert_eq!((path.advertised(), path.ifindex, path.mtu), (advertised, 0, 0));
    }
}
