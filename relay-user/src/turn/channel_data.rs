//! ChannelData over UDP (RFC 8656 section 12.4): no padding is sent, any is cut off.

use relay_common::channel_data::HEADER_LEN;

use super::address::ChannelNumber;

/// A ChannelData message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// The channel.
    pub number: ChannelNumber,
    /// The application data.
    pub data: &'a [u8],
}

/// Why a datagram is not a ChannelData message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelDataError {
    /// The datagram is shorter than its header, or than the length field says.
    #[error("shorter than its header says")]
    Truncated,
    /// The number is not one that a client may bind, by RFC 8656 or RFC 5766.
    #[error("no channel number")]
    Number,
}

impl<'a> ChannelData<'a> {
    /// Reads a datagram. Bytes beyond the stated length are padding, and cut off. Whether numbers above RFC
    /// 8656's are heard is for the server to say: they can be bound only where it accepts them.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ChannelDataError> {
        let (&[n0, n1, l0, l1], rest) =
            datagram.split_first_chunk::<HEADER_LEN>().ok_or(ChannelDataError::Truncated)?;
        let number = ChannelNumber::rfc5766(u16::from_be_bytes([n0, n1])).ok_or(ChannelDataError::Number)?;
        let length = u16::from_be_bytes([l0, l1]) as usize;
        let data = rest.get(..length).ok_or(ChannelDataError::Truncated)?;
        Ok(Self { number, data })
    }

    /// The datagram of this message.
    ///
    /// # Panics
    ///
    /// If the data is longer than 65,535 bytes, which no datagram is.
    pub fn to_datagram(self) -> Vec<u8> {
        let length = u16::try_from(self.data.len()).expect("a datagram is shorter than 65,536 bytes");
        let mut datagram = Vec::with_capacity(HEADER_LEN + self.data.len());
        datagram.extend_from_slice(&self.number.get().to_be_bytes());
        datagram.extend_from_slice(&length.to_be_bytes());
        datagram.extend_from_slice(self.data);
        datagram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_160_number_and_length_are_big_endian_and_length_excludes_the_header() {
        let number = ChannelNumber::new(0x4001).unwrap();
        let message = ChannelData { number, data: b"abc" };
        let datagram = message.to_datagram();
        assert_eq!(datagram, b"\x40\x01\x00\x03abc");
        assert_eq!(ChannelData::parse(&datagram), Ok(message));
    }

    #[test]
    fn turn_161_166_168_length_decides_what_is_data() {
        let data = |datagram: &'static [u8]| ChannelData::parse(datagram).map(|message| message.data);
        assert_eq!(data(b"\x40\x00\x00\x00"), Ok(&b""[..]));
        assert_eq!(data(b"\x40\x00\x00\x02abcdef"), Ok(&b"ab"[..]));
        assert_eq!(data(b"\x40\x00\x00\x03ab"), Err(ChannelDataError::Truncated));
        assert_eq!(data(b"\x40\x00\x00"), Err(ChannelDataError::Truncated));
    }

    #[test]
    fn numbers_outside_both_ranges_are_no_channels() {
        for (number, ok) in [
            (0x3fff, false),
            (0x4000, true),
            (0x4fff, true),
            (0x7fff, true),
            (0x8000, false),
            (0xffff, false),
        ] {
            let [high, low] = u16::to_be_bytes(number);
            assert_eq!(ChannelData::parse(&[high, low, 0, 0]).is_ok(), ok, "{number:#x}");
        }
    }
}
