//! Password algorithms (RFC 8489 sections 14.11, 14.12 and 18.5).

/// How a key follows from a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PasswordAlgorithm {
    /// For clients of RFC 5389.
    Md5,
    /// For the others.
    Sha256,
}

impl PasswordAlgorithm {
    /// What this server takes, best first.
    pub const OFFERED: [Self; 2] = [Self::Sha256, Self::Md5];

    /// The value of PASSWORD-ALGORITHMS with which this server offers them.
    pub const OFFER: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

    /// The value of PASSWORD-ALGORITHM: algorithm and length of the parameters, of which neither has any.
    pub const fn entry(self) -> [u8; 4] {
        match self {
            Self::Md5 => [0, 1, 0, 0],
            Self::Sha256 => [0, 2, 0, 0],
        }
    }

    /// What the value of PASSWORD-ALGORITHM chooses, if it is on offer.
    pub fn chosen(value: &[u8]) -> Option<Self> {
        Self::OFFERED.into_iter().find(|algorithm| algorithm.entry() == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stun_079_142_143_sha256_is_offered_before_md5_and_neither_has_parameters() {
        let entries: Vec<_> =
            PasswordAlgorithm::OFFERED.iter().flat_map(|algorithm| algorithm.entry()).collect();
        assert_eq!(entries, PasswordAlgorithm::OFFER);
        assert_eq!(PasswordAlgorithm::OFFER, [0x00, 0x02, 0, 0, 0x00, 0x01, 0, 0]);
        assert_eq!(PasswordAlgorithm::chosen(&[0, 2, 0, 0]), Some(PasswordAlgorithm::Sha256));
        assert_eq!(PasswordAlgorithm::chosen(&[0, 1, 0, 0]), Some(PasswordAlgorithm::Md5));
        for other in
            [&[][..], &[0, 2], &[0, 0, 0, 0], &[0, 3, 0, 0], &[0, 2, 0, 4, 1, 2, 3, 4], &[0, 2, 0, 1]]
        {
            assert_eq!(PasswordAlgorithm::chosen(other), None, "{other:?}");
        }
    }
}
