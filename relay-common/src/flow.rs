//! The flow table: one direction of one established mapping, as the kernel knows it.

use crate::{address::Address, clock::BootNanos, verified::check_word};

/// What a key of the flow table stands for: its last field.
///
/// | form | local | remote | channel | serves |
/// |---|---|---|---|---|
/// | `DATA` | listener | client | number | ChannelData to the peer |
/// | `DATA` | relayed address | peer | 0 | peer data to ChannelData |
/// | `PEERS_V4`, `PEERS_V6` | listener | client | 0 | Send indication to a peer of this family: the allocation |
/// | `TO_PEER` | relayed address | peer, port 0 | 0 | Send indication: the permission |
/// | `TO_CLIENT` | relayed address | peer, port 0 | 0 | peer data to Data indication: the permission |
/// | `ENDPOINT` | listener or relayed address | 0 | 0 | tells our own traffic from the host's after a miss |
pub mod form {
    /// A channel, one way or the other.
    pub const DATA: u16 = 0;
    /// An allocation with an IPv4 relayed address.
    pub const PEERS_V4: u16 = 1;
    /// An allocation with an IPv6 relayed address.
    pub const PEERS_V6: u16 = 2;
    /// A permission, for what the client sends.
    pub const TO_PEER: u16 = 3;
    /// A permission, for what the peer sends.
    pub const TO_CLIENT: u16 = 4;
    /// A listener or a relayed address.
    pub const ENDPOINT: u16 = 5;
}

/// Key of `FLOWS_V4`: 16 bytes, network byte order but for the form.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKeyV4 {
    /// Destination address of the packet.
    pub local_addr: u32,
    /// Source address of the packet.
    pub remote_addr: u32,
    /// Destination port of the packet.
    pub local_port: u16,
    /// Source port of the packet, or 0.
    pub remote_port: u16,
    /// Channel number, or 0.
    pub channel: u16,
    /// One of [`form`].
    pub form: u16,
}

/// Key of `FLOWS_V6`: 40 bytes, network byte order but for the form.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKeyV6 {
    /// Destination address of the packet.
    pub local_addr: Address,
    /// Source address of the packet.
    pub remote_addr: Address,
    /// Destination port of the packet.
    pub local_port: u16,
    /// Source port of the packet, or 0.
    pub remote_port: u16,
    /// Channel number, or 0.
    pub channel: u16,
    /// One of [`form`].
    pub form: u16,
}

/// A key of either flow table.
pub trait FlowKey: Copy {
    /// The check word of an entry with these words under this key.
    fn check_word(&self, value: [u64; FLOW_ENTRY_WORDS - 1]) -> u64;
}

impl FlowKey for FlowKeyV4 {
    #[inline(always)]
    fn check_word(&self, value: [u64; FLOW_ENTRY_WORDS - 1]) -> u64 {
        check_word(self.words(), value)
    }
}

impl FlowKey for FlowKeyV6 {
    #[inline(always)]
    fn check_word(&self, value: [u64; FLOW_ENTRY_WORDS - 1]) -> u64 {
        check_word(self.words(), value)
    }
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
        let ports = port_word(self.local_port, self.remote_port, self.channel, self.form);
        // SAFETY: same size and alignment; every bit pattern is a valid key.
        unsafe { core::mem::transmute::<[u64; 2], Self>([addrs, ports]) }
    }
}

impl FlowKeyV6 {
    #[inline(always)]
    const fn words(&self) -> [u64; 5] {
        // SAFETY: repr(C), 40 bytes without padding, aligned to 8; every bit pattern is a valid u64.
        unsafe { core::mem::transmute::<Self, [u64; 5]>(*self) }
    }

    /// As [`FlowKeyV4::in_words`].
    #[inline(always)]
    pub const fn in_words(&self) -> Self {
        let [a, b] = self.local_addr.0;
        let [c, d] = self.remote_addr.0;
        let ports = port_word(self.local_port, self.remote_port, self.channel, self.form);
        // SAFETY: same size and alignment; every bit pattern is a valid key.
        unsafe { core::mem::transmute::<[u64; 5], Self>([a, b, c, d, ports]) }
    }
}

#[inline(always)]
const fn port_word(local: u16, remote: u16, channel: u16, form: u16) -> u64 {
    if cfg!(target_endian = "little") {
        local as u64 | (remote as u64) << 16 | (channel as u64) << 32 | (form as u64) << 48
    } else {
        (local as u64) << 48 | (remote as u64) << 32 | (channel as u64) << 16 | form as u64
    }
}

/// What an entry of the flow table is. Never 0, so that an entry of zeroes is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowKind {
    /// ChannelData from the client becomes a datagram to the peer.
    ChannelToPeer = 1,
    /// A datagram from the peer becomes ChannelData to the client.
    ChannelToClient = 2,
    /// A Send indication from the client becomes a datagram to the peer.
    PermissionToPeer = 3,
    /// A datagram from the peer becomes a Data indication to the client.
    PermissionToClient = 4,
    /// An allocation's relayed address: the source of its [`FlowEntry::path`], which is internal, and its port.
    Allocation = 5,
    /// A listener of ours: an endpoint, nothing to forward.
    Listener = 6,
    /// The relayed transport address of a live allocation: an endpoint, nothing to forward.
    Relayed = 7,
}

/// Bits of [`FlowEntry::flags`].
pub mod flags {
    /// The peer is a relayed transport address of this same server. To the peer: the program looks up the
    /// other allocation's flow and forwards to its client in one pass; the path is internal. To the client: only that
    /// second lookup may use the flow; what comes in by a wire has a forged source.
    pub const HAIRPIN: u8 = 1 << 0;
}

/// Value of `FLOWS_V4` and `FLOWS_V6`: 48 bytes, so that the kernel's element header, the key and the value lie in two
/// cache lines. Everything that is the same for each packet of the flow is computed by userspace. Addresses
/// are in the [path](crate::path::Path).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry {
    /// The earliest end of allocation, permission and channel. A packet at or past it is dropped.
    pub expires: BootNanos,
    /// Source port of the outgoing packet, network byte order.
    pub source_port: u16,
    /// Destination port of the outgoing packet, network byte order. 0 to a peer that is only permitted: the Send
    /// indication says it.
    pub destination_port: u16,
    /// Channel number, network byte order: of the incoming ChannelData (to the peer) or the outgoing one
    /// (to the client). 0 where there is none.
    pub channel: u16,
    /// A [`FlowKind`].
    pub kind: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Index into `PATHS`; 0 for an endpoint.
    pub path: u32,
    /// Index into `FLOW_COUNTERS`; 0 for an allocation or an endpoint.
    pub counter: u32,
    /// Index into `METERS`: the allocation's. [`crate::meter::UNLIMITED`]: none.
    pub meter: u32,
    /// Zero.
    pub reserved: u32,
    /// One's-complement sum of what this flow's rewrite changes in the same way in each packet, new values plus
    /// complemented old ones, for the UDP checksum: the pseudo-header's addresses, the ports (0 for one that differs from
    /// packet to packet), the channel number (which comes or goes). Lengths, and what else a packet has of its own,
    /// remain for the program.
    pub udp_delta: u16,
    /// One's-complement sum of the outgoing source and destination addresses, for the IPv4 header checksum.
    pub ip_sum: u16,
    /// One's-complement sum of the *incoming* pseudo-header without the UDP length. A UDP checksum equal to
    /// this plus the length is an unfinished (offloaded) one.
    pub pseudo_sum: u16,
    /// Zero.
    pub reserved2: u16,
    /// Check word over the key and everything before.
    pub check: u64,
}

/// 64-bit words in a [`FlowEntry`].
pub const FLOW_ENTRY_WORDS: usize = size_of::<FlowEntry>() / 8;

const _: () =
    assert!(size_of::<FlowEntry>() == 48 && size_of::<FlowKeyV4>() == 16 && size_of::<FlowKeyV6>() == 40);

impl FlowEntry {
    #[inline(always)]
    const fn words(&self) -> [u64; FLOW_ENTRY_WORDS] {
        // SAFETY: repr(C), 48 bytes without padding, aligned to 8; every bit pattern is a valid u64.
        unsafe { core::mem::transmute::<Self, [u64; FLOW_ENTRY_WORDS]>(*self) }
    }

    /// The value of these words, as the program copied them out of the map.
    #[inline(always)]
    pub const fn from_words(words: [u64; FLOW_ENTRY_WORDS]) -> Self {
        // SAFETY: same size and alignment; every bit pattern is a valid FlowEntry.
        unsafe { core::mem::transmute::<[u64; FLOW_ENTRY_WORDS], Self>(words) }
    }

    #[inline(always)]
    fn check_word(&self, key: &impl FlowKey) -> u64 {
        let [a, b, c, d, e, _] = self.words();
        key.check_word([a, b, c, d, e])
    }

    /// The value as it may be stored under `key`.
    pub fn sealed(mut self, key: &impl FlowKey) -> Self {
        self.check = self.check_word(key);
        self
    }

    /// Whether this is a whole value that was stored under `key`.
    #[inline(always)]
    pub fn verify(&self, key: &impl FlowKey) -> bool {
        self.check == self.check_word(key)
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), 16 bytes without padding, every bit pattern valid.
unsafe impl aya::Pod for FlowKeyV4 {}
#[cfg(feature = "user")]
// SAFETY: repr(C), 40 bytes without padding, every bit pattern valid.
unsafe impl aya::Pod for FlowKeyV6 {}
#[cfg(feature = "user")]
// SAFETY: repr(C), 48 bytes without padding, every bit pattern valid.
unsafe impl aya::Pod for FlowEntry {}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: FlowKeyV4 =
        FlowKeyV4 { local_addr: 1, remote_addr: 2, local_port: 3, remote_port: 4, channel: 5, form: 3 };

    #[test]
    fn a_key_in_words_is_the_same_key() {
        let key = FlowKeyV4 {
            local_addr: 0x0102_0304,
            remote_addr: 0xfffe_fdfc,
            local_port: 0x1234,
            remote_port: 0xfedc,
            channel: 0x4fff,
            form: 3,
        };
        assert_eq!(key.in_words(), key);
    }

    #[test]
    fn only_the_whole_value_under_its_own_key_verifies() {
        let value = FlowEntry {
            expires: 77,
            kind: FlowKind::ChannelToPeer as u8,
            counter: 9,
            ..FlowEntry::default()
        }
        .sealed(&KEY);
        assert!(value.verify(&KEY));
        assert!(!value.verify(&FlowKeyV4 { channel: 6, ..KEY }));
        assert!(!FlowEntry::default().verify(&FlowKeyV4::default()));

        let other = FlowEntry {
            expires: 78,
            kind: FlowKind::ChannelToClient as u8,
            counter: 10,
            ..FlowEntry::default()
        }
        .sealed(&KEY);
        for torn_at in 1..FLOW_ENTRY_WORDS {
            let mut words = value.words();
            words[torn_at..].copy_from_slice(&other.words()[torn_at..]);
            let torn = FlowEntry::from_words(words);
            assert_eq!(torn.verify(&KEY), torn == value || torn == other, "torn at word {torn_at}");
        }
    }
}
