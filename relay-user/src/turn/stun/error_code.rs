//! Error codes with their reason phrases (RFC 8489 section 14.8, RFC 8656 section 19).

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $reason:literal;)*) => {
        /// Why a request is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// Every code this server knows, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

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
    /// Another server serves this client.
    TryAlternate = 300, "Try Alternate";
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
    /// Something is out of order here, for now.
    ServerError = 500, "Server Error";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stun_031_136_137_codes_have_class_number_and_a_reason_of_their_own() {
        for (position, code) in ErrorCode::ALL.iter().enumerate() {
            let value: Vec<_> = code.value().collect();
            assert_eq!(value[..2], [0, 0]);
            assert!((3..=6).contains(&value[2]) && value[3] < 100);
            assert_eq!(u16::from(value[2]) * 100 + u16::from(value[3]), code.code());
            assert!((1..128).contains(&code.reason().chars().count()));
            assert_eq!(&value[4..], code.reason().as_bytes());
            let earlier = &ErrorCode::ALL[..position];
            assert!(earlier.iter().all(|e| e.code() < code.code() && e.reason() != code.reason()));
        }
    }
}
