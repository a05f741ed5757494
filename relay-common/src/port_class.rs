//! Two bits for each UDP port of the host: whether a datagram to it could be the relay's at all. It spares
//! all other traffic the hash lookup.

/// `u64` words in the map.
pub const WORDS: u32 = (1 << 16) * 2 / 64;

/// What a destination port may be. No port is both: the daemon refuses a listener inside the range of
/// relayed ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortClass {
    /// Not the relay's.
    Foreign = 0,
    /// A listener has this port on some address.
    Listener = 1,
    /// A live allocation has this port on some relayed address.
    Relayed = 2,
}

/// Index of the word that holds `port` (host byte order).
#[inline(always)]
pub const fn word(port: u16) -> u32 {
    port as u32 >> 5
}

/// Shift of `port` (host byte order) within its word.
#[inline(always)]
pub const fn shift(port: u16) -> u32 {
    (port as u32 & 31) * 2
}

/// `word` with `port`'s bits set to `class`.
#[inline]
pub const fn with(word: u64, port: u16, class: PortClass) -> u64 {
    (word & !(3 << shift(port))) | ((class as u64) << shift(port))
}

/// The class that `word` holds for `port`, as its number.
#[inline(always)]
pub const fn of(word: u64, port: u16) -> u8 {
    ((word >> shift(port)) & 3) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ports_keep_their_class() {
        let mut words = [0u64; WORDS as usize];
        for (port, class) in [
            (0, PortClass::Relayed),
            (3478, PortClass::Listener),
            (3479, PortClass::Relayed),
            (65535, PortClass::Relayed),
        ] {
            let slot = &mut words[word(port) as usize];
            *slot = with(*slot, port, class);
        }
        let class = |port| of(words[word(port) as usize], port);
        assert_eq!(
            [class(0), class(1), class(3477), class(3478), class(3479), class(3480), class(65535)],
            [2, 0, 0, 1, 2, 0, 2]
        );
        let slot = &mut words[word(3478) as usize];
        *slot = with(*slot, 3478, PortClass::Foreign);
        assert_eq!(of(words[word(3478) as usize], 3478), 0);
        assert_eq!(of(words[word(3479) as usize], 3479), 2);
    }
}
