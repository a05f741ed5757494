//! ChannelData framing (RFC 8656 section 12.4): channel number and length, 16 bits each, big-endian, then
//! the data.

/// Bytes of the ChannelData header.
pub const HEADER_LEN: usize = 4;

/// First channel number a client may bind.
pub const CHANNEL_MIN: u16 = 0x4000;

/// Last channel number a client may bind (RFC 8656 section 12).
pub const CHANNEL_MAX: u16 = 0x4fff;

/// Last channel number by RFC 5766 section 11, which old clients choose from: for servers that accept those.
pub const RFC5766_CHANNEL_MAX: u16 = 0x7fff;

/// What the first byte of a datagram to a listener says it is (RFC 7983 section 7, RFC 8656 section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstByte {
    /// 0 to 3: a STUN message.
    Stun,
    /// 20 to 63: DTLS.
    Dtls,
    /// 64 to 79: ChannelData.
    ChannelData,
    /// 80 to 127: ChannelData on a channel that only RFC 5766 allows.
    Rfc5766ChannelData,
    /// Anything else: nothing a TURN server has a use for.
    Other,
}

/// Tells what a datagram to a listener is by its first byte.
#[inline(always)]
pub const fn classify(first_byte: u8) -> FirstByte {
    match first_byte {
        0..=3 => FirstByte::Stun,
        20..=63 => FirstByte::Dtls,
        64..=79 => FirstByte::ChannelData,
        80..=127 => FirstByte::Rfc5766ChannelData,
        _ => FirstByte::Other,
    }
}
