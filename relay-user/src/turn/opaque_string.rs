//! OpaqueString, the form in which user names, realms and passwords become keys (RFC 8265 section 4.2).

use precis_profiles::{OpaqueString, precis_core::profile::PrecisFastInvocation};

/// The text in this form: spaces beyond ASCII are U+0020, and characters are composed (NFC). `None` where the
/// text is empty or has characters that are not allowed: controls, ignorable and unassigned code points.
///
/// It is for text that the operator gives. What clients send has been through it, by RFC 8489 sections 14.3
/// and 14.9.
pub(super) fn opaque_string(text: &str) -> Option<String> {
    OpaqueString::enforce(text).ok().map(|form| form.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vec_005_opaque_string_refuses_the_soft_hyphen_and_keeps_compatibility_forms() {
        // The password of RFC 5769 section 2.4, which SASLprep makes "TheMatrIX".
        assert_eq!(opaque_string("The\u{ad}M\u{aa}tr\u{2168}"), None);
        assert_eq!(opaque_string("TheM\u{aa}tr\u{2168}").as_deref(), Some("TheM\u{aa}tr\u{2168}"));
        assert_eq!(opaque_string("TheMatrIX").as_deref(), Some("TheMatrIX"));
        assert_eq!(opaque_string("マトリックス").as_deref(), Some("マトリックス"));
    }

    #[test]
    fn stun_078_other_spaces_become_spaces_and_characters_are_composed() {
        assert_eq!(opaque_string("a\u{a0}b\u{3000}c d").as_deref(), Some("a b c d"));
        assert_eq!(opaque_string("e\u{301}").as_deref(), Some("\u{e9}"));
        assert_eq!(opaque_string("Case Is Kept").as_deref(), Some("Case Is Kept"));
        for refused in ["", "a\tb", "a\nb", "a\u{7f}", "a\0", "\u{feff}", "\u{378}"] {
            assert_eq!(opaque_string(refused), None, "{refused:?}");
        }
    }
}
