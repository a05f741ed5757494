//! STUN messages (RFC 8489) with the attributes of TURN (RFC 8656): read without copying, written into one
//! buffer. Nothing here knows what a message means.
//!
//! Reading goes in two steps, as the RFC's order of checks demands: [`Header::parse`] tells whether this is
//! a STUN message at all, [`Message::parse`] whether its attributes hold together.

mod attribute;
mod error_code;
mod header;
mod integrity;
mod message;
mod password_algorithm;
mod writer;

pub use attribute::AttributeType;
pub use error_code::ErrorCode;
pub use header::{Class, HEADER_LEN, Header, HeaderError, MAGIC_COOKIE, Method, TransactionId};
pub use message::{Attribute, Integrity, Malformed, Message, MessageError, UnknownAttributes};
pub use password_algorithm::PasswordAlgorithm;
pub use writer::MessageWriter;

/// What FINGERPRINT's CRC-32 is XORed with (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;

#[cfg(test)]
mod vectors;
