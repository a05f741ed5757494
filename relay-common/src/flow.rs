//! The flow table: one direction of one established mapping, as the kernel knows it.

use crate::{clock::BootNanos, verified::check_word};

/// Key of `FLOWS_V4`: 16 bytes, network byte order.
///
/// | form | local | remote | channel | serves |
/// |---|---|---|---|---|
/// | channel | listener | client | number | ChannelData to peer |
/// | peer | relayed address | peer | 0 | peer data to ChannelData |
/// | endpoint | listener or relayed address | 0 | 0 | tells our own traffic from the host's after a miss |
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKeyV4 {
    /// Destination address of the packet.
    pub local_addr: u32,
    /// Source address of the packet.
    pub remote_addr: u32,
    /// Destination port of the packet.
    pub local_port: u16,
    /// Source port of the packet.
    pub remote_port: u16,
    /// Channel number, or 0.
    pub channel: u16,
    /// Zero.
    pub reserved: u16,
}

impl FlowKeyV4 {
    #[inline(always)]
    const fn words(&self) -> [u64; 2] {
        // SAFETY: repr(C), 16 bytes without padding, aligned to 8; every bit pattern is a valid u64.
        unsafe { core::mem::transmute::<Self, [u64; 2]>(*self) }
    }

    /// The same key, each of its words put together in a register: a lookup that reads words just written in
    /// halves waits for them.
    #[inline(always)]
    pub const fn in_words(&self) -> Self {
        let addrs = if cfg!(target_endian = "little") {
            self.local_addr as u64 | (self.remote_addr as u64) << 32
        } else {
            (self.local_addr as u64) << 32 | self.remote_addr as u64
        };
        let ports = if cfg!(target_endian = "little") {
            self.local_port as u64 | (self.remote_port as u64) << 16 | (self.channel as u64) << 32
        } else {
            (self.local_port as u64) << 48 | (self.remote_port as u64) << 32 | (self.channel as u64) << 16
        };
        // SAFETY: same size and alignment; every bit pattern is a valid key.
        unsafe { core::mem::transmute::<[u64; 2], Self>([addrs, ports]) }
    }

    /// The endpoint form of this key: the same local address and port, no remote, no channel.
    #[inline(always)]
    pub const fn endpoint(&self) -> Self {
        Self {
            local_addr: self.local_addr,
            remote_addr: 0,
            local_port: self.local_port,
            remote_port: 0,
            channel: 0,
            reserved: 0,
        }
    }
}

/// What an entry of the flow table is. Never 0, so that an entry of zeroes is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowKind {
    /// ChannelData from the client becomes a datagram to the peer.
    ToPeer = 1,
    /// A datagram from the peer becomes ChannelData to the client.
    ToClient = 2,
    /// A listener of ours: an endpoint, nothing to forward.
    Listener = 3,
    /// The relayed transport address of a live allocation: an endpoint, nothing to forward.
    Relayed = 4,
}

/// Bits of [`FlowV4::flags`].
pub mod flags {
    /// The peer is a relayed transport address of this same server. To the peer: the program looks up the
    /// other allocation's flow and rewrites ChannelData to ChannelData in one pass. To the client: only that
    /// second lookup may use the flow; what comes in by a wire has a forged source.
    pub const HAIRPIN: u8 = 1 << 0;
}

/// Value of `FLOWS_V4`: 56 bytes, so that the kernel's element header, the key and the value lie in two
/// cache lines. Everything that is the same for each packet of the flow is computed by userspace.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowV4 {
    /// The earliest end of allocation, permission and channel. A packet at or past it is dropped.
    pub expires: BootNanos,
    /// Source address of the outgoing packet, network byte order.
    pub source_addr: u32,
    /// Destination address of the outgoing packet, network byte order.
    pub destination_addr: u32,
    /// Source port of the outgoing packet, network byte order.
    pub source_port: u16,
    /// Destination port of the outgoing packet, network byte order.
    pub destination_port: u16,
    /// Channel number, network byte order: of the incoming ChannelData (to the peer) or the outgoing one
    /// (to the client).
    pub channel: u16,
    /// A [`FlowKind`].
    pub kind: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Index into `NEXT_HOPS`; 0 while there is none.
    pub next_hop: u32,
    /// Index into `FLOW_COUNTERS`.
    pub counter: u32,
    /// One's-complement sum of everything that this flow's rewrite changes in the same way in each packet,
    /// new values plus complemented old ones, for the UDP checksum: addresses, ports, both length fields'
    /// difference (4 bytes less or more), the channel number. The ChannelData length field remains for the
    /// program. See [`crate::checksum::udp_delta_v4`].
    pub udp_delta: u16,
    /// One's-complement sum of the outgoing source and destination addresses, for the IPv4 header checksum.
    pub ip_sum: u16,
    /// One's-complement sum of the *incoming* pseudo-header without the UDP length. A UDP checksum equal to
    /// this plus the length is an unfinished (offloaded) one.
    pub pseudo_sum: u16,
    /// Zero.
    pub reserved: u16,
    /// Zero; room for a limiter index.
    pub reserved2: u64,
    /// Check word over the key and everything before.
    pub check: u64,
}

/// 64-bit words in a [`FlowV4`].
pub const FLOW_V4_WORDS: usize = size_of::<FlowV4>() / 8;

const _: () = assert!(size_of::<FlowV4>() == 56 && size_of::<FlowKeyV4>() == 16);

impl FlowV4 {
    #[inline(always)]
    const fn words(&self) -> [u64; FLOW_V4_WORDS] {
        // SAFETY: repr(C), 56 bytes without padding, aligned to 8; every bit pattern is a valid u64.
        unsafe { core::mem::transmute::<Self, [u64; FLOW_V4_WORDS]>(*self) }
    }

    /// The value of these words, as the program copied them out of the map.
    #[inline(always)]
    pub const fn from_words(words: [u64; FLOW_V4_WORDS]) -> Self {
        // SAFETY: same size and alignment; every bit pattern is a valid FlowV4.
        unsafe { core::mem::transmute::<[u64; FLOW_V4_WORDS], Self>(words) }
    }

    #[inline(always)]
    fn check_word(&self, key: &FlowKeyV4) -> u64 {
        let [a, b, c, d, e, f, _] = self.words();
        check_word(key.words(), [a, b, c, d, e, f])
    }

    /// The value as it may be stored under `key`.
    pub fn sealed(mut self, key: &FlowKeyV4) -> Self {
        self.check = self.check_word(key);
        self
    }

    /// Whether this is a whole value that was stored under `key`.
    #[inline(always)]
    pub fn verify(&self, key: &FlowKeyV4) -> bool {
        self.check == self.check_word(key)
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), 16 bytes without padding, every bit pattern valid.
unsafe impl aya::Pod for FlowKeyV4 {}
#[cfg(feature = "user")]
// SAFETY: repr(C), 56 bytes without padding, every bit pattern valid.
unsafe impl aya::Pod for FlowV4 {}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: FlowKeyV4 =
        FlowKeyV4 { local_addr: 1, remote_addr: 2, local_port: 3, remote_port: 4, channel: 5, reserved: 0 };

    #[test]
    fn a_key_in_words_is_the_same_key() {
        let key = FlowKeyV4 {
            local_addr: 0x0102_0304,
            remote_addr: 0xfffe_fdfc,
            local_port: 0x1234,
            remote_port: 0xfedc,
            channel: 0x4fff,
            reserved: 0,
        };
        assert_eq!(key.in_words(), key);
    }

    #[test]
    fn only_the_whole_value_under_its_own_key_verifies() {
        let value = FlowV4 { expires: 77, kind: FlowKind::ToPeer as u8, counter: 9, ..FlowV4::default() }
            .sealed(&KEY);
        assert!(value.verify(&KEY));
        assert!(!value.verify(&FlowKeyV4 { channel: 6, ..KEY }));
        assert!(!FlowV4::default().verify(&FlowKeyV4::default()));

        let other = FlowV4 { expires: 78, kind: FlowKind::ToClient as u8, counter: 10, ..FlowV4::default() }
            .sealed(&KEY);
        for torn_at in 1..FLOW_V4_WORDS {
            let mut words = value.words();
            words[torn_at..].copy_from_slice(&other.words()[torn_at..]);
            let torn = FlowV4::from_words(words);
            assert_eq!(torn.verify(&KEY), torn == value || torn == other, "torn at word {torn_at}");
        }
    }
}
