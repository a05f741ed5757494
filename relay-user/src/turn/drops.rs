//! Why the slow path relayed or answered nothing: a count for each reason.

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// Why input was dropped. Reasons that the kernel program has too bear the same name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum DropReason { $($(#[$doc])* $variant,)* }

        const NAMES: &[&str] = &[$($name,)*];
    };
}

drops! {
    /// The first byte of a datagram to a listener is none of STUN, DTLS and ChannelData.
    NotTurn = "not_turn";
    /// DTLS at a listener that has none: clients configured with `turns:` and UDP.
    Dtls = "dtls";
    /// A STUN first byte, but the header is not STUN's.
    NotStun = "not_stun";
    /// A wrong FINGERPRINT.
    Fingerprint = "fingerprint";
    /// A request without valid credentials, from a source that has had its share of responses.
    UnauthenticatedRate = "unauthenticated_rate";
    /// A STUN message that no server has a use for: unsupported methods, responses.
    UnsupportedMethod = "unsupported_method";
    /// An indication whose attributes do not hold together, or a Send without peer or data.
    MalformedIndication = "malformed_indication";
    /// An indication with unknown comprehension-required attributes.
    UnknownAttribute = "unknown_attribute";
    /// Data from a client that has no allocation: sent after it expired, or from behind a new NAT binding.
    NoAllocation = "no_allocation";
    /// ChannelData on a channel that is not bound.
    NoChannel = "no_channel";
    /// ChannelData whose length field says more than the datagram holds.
    ChannelDataLength = "channel_data_length";
    /// Data from a client for a peer without a live permission.
    NoPermission = "no_permission";
    /// Data from a peer without a live permission.
    PeerNotPermitted = "peer_not_permitted";
    /// Data from a peer to a relayed address that is nobody's any more.
    NoRelayedAddress = "no_relayed_address";
    /// Data for, or said to be from, an address of this host that is no relayed address.
    OwnAddress = "own_address";
    /// Data for a relayed address of this server that has no allocation.
    HairpinNoAllocation = "hairpin_no_allocation";
    /// Data for a relayed address of this server whose client permits no data from the sender's.
    HairpinNotPermitted = "hairpin_not_permitted";
    /// A Send indication to a peer of a family that the allocation has no relayed address of.
    AddressFamily = "address_family";
    /// Data that does not fit a datagram of the other side's family, with its header.
    TooLong = "too_long";
    /// A TTL or hop limit that would reach 0. The sender is told by ICMP.
    Ttl = "ttl";
    /// Data that exceeds the MTU of the outgoing link and must not be fragmented. The sender is told by ICMP.
    Mtu = "mtu";
    /// Data beyond the bandwidth limit of its allocation.
    Bandwidth = "bandwidth";
    /// An ICMP error of a type that is not relayed.
    IcmpType = "icmp_type";
}

/// Counts by reason.
#[derive(Debug)]
pub(super) struct Drops([u64; NAMES.len()]);

impl Drops {
    pub(super) const fn new() -> Self {
        Self([0; NAMES.len()])
    }

    pub(super) fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().copied().zip(self.0.iter().copied())
    }
}
