//! What became of a packet that was ours and was not forwarded: a count for each reason.
//!
//! Forwarded packets are counted by flow ([`crate::counter`]); packets of others are not counted at all.

/// Declares [`Outcome`] with its names and help texts in one place.
macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $verdict:ident;)*) => {
        /// Why the program punted or dropped a packet. The number is the index into `OUTCOMES`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Outcome { $($(#[$doc])* $variant,)* }

        impl Outcome {
            /// Every outcome, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason as `status` and the metrics name it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the packet went up to userspace or ended here.
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)* }
            }
        }
    };
}

/// What happened to a packet that was ours and was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Handed, untouched, to the kernel stack and so to the slow path.
    Punt,
    /// Dropped in the program.
    Drop,
}

outcomes! {
    /// STUN (but for Send indications) or DTLS at a listener: the control plane's business.
    Control = "control", Punt;
    /// ChannelData or a Send indication of a client, or data from a peer, that no flow covers.
    NoFlow = "no_flow", Punt;
    /// A Send indication with anything but one XOR-PEER-ADDRESS, one DATA, SOFTWARE and FINGERPRINT, or not in order.
    Indication = "indication", Punt;
    /// An IPv4 header with options.
    IpOptions = "ip_options", Punt;
    /// The first fragment of an IPv4 packet. Later ones have no ports to tell that they are ours: not counted.
    Fragment = "fragment", Punt;
    /// The IPv4 header checksum is wrong; the kernel drops such a packet.
    IpChecksum = "ip_checksum", Punt;
    /// The frame is for another MAC address.
    ForeignMac = "foreign_mac", Punt;
    /// TTL or hop limit 0 or 1.
    Ttl = "ttl", Punt;
    /// The UDP checksum is unfinished (transmit offload on the sending side of a virtual link).
    PartialChecksum = "partial_checksum", Punt;
    /// No UDP checksum, which must be computed towards IPv6.
    ZeroChecksum = "zero_checksum", Punt;
    /// More than 3 bytes behind the ChannelData: more than padding.
    Trailer = "trailer", Punt;
    /// The outgoing packet would exceed the next hop's MTU, or, made of an IPv4 packet with DF=0, the lowest IPv6 MTU.
    Mtu = "mtu", Punt;
    /// The next hop is not resolved.
    NextHop = "next_hop", Punt;
    /// The egress interface is not one that the program is attached to.
    TxPort = "tx_port", Punt;
    /// The flow or path was being changed while it was read, or was never whole.
    Torn = "torn", Punt;
    /// The driver left no room to grow the frame at its front.
    Headroom = "headroom", Punt;
    /// The driver left no room for padding at the end of the frame.
    Tailroom = "tailroom", Punt;
    /// The frame lies in several pieces of memory (a jumbo frame, say), and the headers are not all in the first, or
    /// something behind the data must be cut off or added, or the egress interface takes no such frames.
    NonLinear = "non_linear", Punt;
    /// The other allocation of a hairpin has no live flow for this sender.
    HairpinMiss = "hairpin_miss", Punt;
    /// The flow had expired.
    Expired = "expired", Drop;
    /// ChannelData whose length field says more than the datagram holds.
    ChannelDataLength = "channel_data_length", Drop;
    /// A UDP length below 8 or beyond the IP packet, or an IP length beyond the frame.
    UdpLength = "udp_length", Drop;
    /// An IPv6 packet without a UDP checksum.
    Ipv6ZeroChecksum = "ipv6_zero_checksum", Drop;
    /// The allocation is beyond its bytes per second.
    Bandwidth = "bandwidth", Drop;
    /// The first byte of a datagram to a listener is none of STUN, DTLS and ChannelData.
    NotTurn = "not_turn", Drop;
    /// The daemon's socket is gone: dropped, so that nobody is answered "port unreachable".
    DaemonGone = "daemon_gone", Drop;
    /// Rewriting failed after the first change to the packet. Never expected.
    Rewrite = "rewrite", Drop;
}

/// Elements of the `OUTCOMES` map.
pub const COUNT: u32 = Outcome::ALL.len() as u32;
