//! Error codes with their reason phrases (RFC 8489 section 14.8, RFC 8656 section 19).

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $reason:literal;)*) => {
        /// Why a request is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// 300 to 699.
            pub const fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// What goes with the code: the RFC's words.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)* }
            }
        }
    };
}

error_codes! {
    /// Malformed, or something is missing.
    BadRequest = 400, "Bad Request";
    /// No credentials, or wrong ones.
    Unauthenticated = 401, "Unauthenticated";
    /// The peer is not allowed by policy.
    Forbidden = 403, "Forbidden";
    /// A comprehension-required attribute is unknown.
    UnknownAttribute = 420, "Unknown Attribute";
    /// The 5-tuple has no allocation, or already has one.
    AllocationMismatch = 437, "Allocation Mismatch";
    /// The nonce has expired; the response brings a new one.
    StaleNonce = 438, "Stale Nonce";
    /// No relayed address of that family is to be had here.
    AddressFamilyNotSupported = 440, "Address Family not Supported";
    /// Another user made the allocation.
    WrongCredentials = 441, "Wrong Credentials";
    /// Only UDP is relayed.
    UnsupportedTransport = 442, "Unsupported Transport Protocol";
    /// The peer's family is not that of the relayed address.
    PeerAddressFamilyMismatch = 443, "Peer Address Family Mismatch";
    /// The user has as many allocations as one may have.
    AllocationQuotaReached = 486, "Allocation Quota Reached";
    /// No port, or no room.
    InsufficientCapacity = 508, "Insufficient Capacity";
}

impl ErrorCode {
    /// The value of ERROR-CODE: 21 zero bits, class, number, reason.
    pub(super) fn value(self) -> impl Iterator<Item = u8> {
        let code = self.code();
        [0, 0, (code / 100) as u8, (code % 100) as u8].into_iter().chain(self.reason().bytes())
    }
}
