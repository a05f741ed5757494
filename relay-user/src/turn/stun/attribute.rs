//! Attribute types (RFC 8489 section 18.3, RFC 8656 section 18).

/// The 16-bit type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttributeType(pub u16);

/// Declares the attributes this server understands, wherever they may be expected.
macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl AttributeType {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// Whether this server understands the attribute. One that it understands but does not expect
            /// in a message is ignored there (RFC 8489 section 6.3).
            pub const fn is_known(self) -> bool {
                matches!(self, $(Self::$name)|*)
            }
        }
    };
}

attributes! {
    /// The client's address in clear, as RFC 3489 had it.
    MAPPED_ADDRESS = 0x0001;
    /// Who asks.
    USERNAME = 0x0006;
    /// HMAC-SHA1 over the message before it.
    MESSAGE_INTEGRITY = 0x0008;
    /// Why a request was refused.
    ERROR_CODE = 0x0009;
    /// What the server did not understand.
    UNKNOWN_ATTRIBUTES = 0x000a;
    /// A channel.
    CHANNEL_NUMBER = 0x000c;
    /// Seconds.
    LIFETIME = 0x000d;
    /// A peer, XORed with the magic cookie.
    XOR_PEER_ADDRESS = 0x0012;
    /// What is relayed.
    DATA = 0x0013;
    /// Where the user name is valid.
    REALM = 0x0014;
    /// What the server gave the client to prove freshness with.
    NONCE = 0x0015;
    /// A relayed transport address, XORed with the magic cookie.
    XOR_RELAYED_ADDRESS = 0x0016;
    /// The address family the client wants.
    REQUESTED_ADDRESS_FAMILY = 0x0017;
    /// The client wants an even port, and perhaps the next one reserved.
    EVEN_PORT = 0x0018;
    /// The protocol between server and peers.
    REQUESTED_TRANSPORT = 0x0019;
    /// The client wants DF set.
    DONT_FRAGMENT = 0x001a;
    /// HMAC-SHA256 over the message before it.
    MESSAGE_INTEGRITY_SHA256 = 0x001c;
    /// The algorithm that the client chose to make its key.
    PASSWORD_ALGORITHM = 0x001d;
    /// Who asks, hashed.
    USERHASH = 0x001e;
    /// The client's address, XORed with the magic cookie.
    XOR_MAPPED_ADDRESS = 0x0020;
    /// Claims a reserved port.
    RESERVATION_TOKEN = 0x0022;
    /// The client wants a second address of this family.
    ADDITIONAL_ADDRESS_FAMILY = 0x8000;
    /// The same by the number that coturn took for it before RFC 8656 gave one, and its client up to 4.6 sends. IANA
    /// has given it to nobody.
    COTURN_ADDITIONAL_ADDRESS_FAMILY = 0x8032;
    /// Why the second address is missing.
    ADDRESS_ERROR_CODE = 0x8001;
    /// The algorithms that the server takes.
    PASSWORD_ALGORITHMS = 0x8002;
    /// The ICMP error that came back for a datagram to a peer.
    ICMP = 0x8004;
    /// Who made the software.
    SOFTWARE = 0x8022;
    /// Another server, in clear.
    ALTERNATE_SERVER = 0x8023;
    /// CRC-32 over the message before it.
    FINGERPRINT = 0x8028;
}

impl AttributeType {
    /// Whether a receiver that does not know the attribute must refuse the message: 0x0000 to 0x7FFF.
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}
