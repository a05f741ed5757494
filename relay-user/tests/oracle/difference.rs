//! Where `turn-server-proto` 0.7 does otherwise than RFC 8656, and we do not.

use std::fmt;

use crate::{
    Answer,
    ask::{Ask, Flaw, Sent},
    wire::Message,
};

/// A reason why the two answer differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    RepeatedAllocate,
    ChannelOfAnotherPeer,
    OldChannelNumbers,
    DropsTorn,
    LateUnknownAttribute,
    AnyRealm,
    FamilyFirst,
    LenientLifetime,
    PartialPermissions,
    LastCounts,
    TransportLate,
    RepeatedDeletion,
}

impl Difference {
    pub const ALL: [Self; 12] = [
        Self::RepeatedAllocate,
        Self::ChannelOfAnotherPeer,
        Self::OldChannelNumbers,
        Self::DropsTorn,
        Self::LateUnknownAttribute,
        Self::AnyRealm,
        Self::FamilyFirst,
        Self::LenientLifetime,
        Self::PartialPermissions,
        Self::LastCounts,
        Self::TransportLate,
        Self::RepeatedDeletion,
    ];

    /// Why the responses to a request differ, if that is known.
    pub fn explain(sent: &Sent, ours: Option<&Message>, theirs: Option<&Message>) -> Option<Self> {
        let code = |response: Option<&Message>| response.map(|response| Answer::of(response).code);
        if sent.flaw == Flaw::Torn && theirs.is_none() {
            return Some(Self::DropsTorn);
        }
        match (&sent.ask, code(ours)?, code(theirs)?) {
            (Ask::Refresh { lifetime: Some(0), family: Some(_) }, 0, 443) => Some(Self::RepeatedDeletion),
            (Ask::Allocate(_), 442, 400) => Some(Self::TransportLate),
            (Ask::Allocate(_), 0, 437) => Some(Self::RepeatedAllocate),
            (_, 401, _) if sent.flaw == Flaw::WrongRealm => Some(Self::AnyRealm),
            (_, 420, 437 | 400) => Some(Self::LateUnknownAttribute),
            (Ask::Allocate(_) | Ask::Refresh { .. }, 400, _) if sent.flaw == Flaw::Malformed => {
                Some(Self::LenientLifetime)
            }
            (Ask::ChannelBind { .. }, 400, _) if sent.flaw == Flaw::Malformed => Some(Self::LastCounts),
            (Ask::ChannelBind { .. }, 400, 443) => Some(Self::FamilyFirst),
            (Ask::ChannelBind { number: Some(0x5000), .. }, 400, 0) => Some(Self::OldChannelNumbers),
            (Ask::ChannelBind { number: Some(0x4000..=0x4fff), peer: Some(_) }, 400, 0)
                if matches!(sent.flaw, Flaw::None | Flaw::BidDown) =>
            {
                Some(Self::ChannelOfAnotherPeer)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RepeatedAllocate => {
                "it refuses a retransmitted Allocate with 437 (TURN-083: success again)"
            }
            Self::ChannelOfAnotherPeer => "it binds a number that is bound to another peer (TURN-151: 400)",
            Self::DropsTorn => {
                "it drops a request with an attribute beyond its end (STUN-127, STUN-138: 400)"
            }
            Self::LateUnknownAttribute => {
                "it looks at the allocation and the families before it looks for unknown attributes (STUN-015: 420)"
            }
            Self::AnyRealm => {
                "it does not read REALM (RFC 8489 section 9.2.4: a user name is valid within a realm)"
            }
            Self::FamilyFirst => {
                "it looks at the peer's family before the channel number (RFC 8656 section 12.2: 400 first)"
            }
            Self::LenientLifetime => "it ignores a LIFETIME of three bytes (STUN-128, STUN-138: 400)",
            Self::PartialPermissions => {
                "it installs permissions of a request that it refuses with 443 (TURN-113)"
            }
            Self::LastCounts => {
                "of a repeated attribute the last good one counts for it (STUN-129: the first)"
            }
            Self::TransportLate => {
                "it looks at the address families before the transport (RFC 8656 section 7.2: 442 in step 3)"
            }
            Self::RepeatedDeletion => "it refuses a retransmitted deletion of one family with 443 (TURN-097)",
            Self::OldChannelNumbers => "it takes the channel numbers of RFC 5766 (TURN-150: 400)",
        })
    }
}
