//! STUN messages: what is read lies in the message, every accessor bears every value, and a message written
//! with the attributes of another has these attributes.

use relay_user::turn::stun::{
    Attribute, AttributeType, HEADER_LEN, Header, Integrity, Message, MessageWriter, PasswordAlgorithm,
    UnknownAttributes,
};

pub fn check(datagram: &[u8]) {
    let Ok((header, bytes)) = Header::parse(datagram) else { return };
    assert!(datagram.starts_with(bytes) && bytes.len().is_multiple_of(4));
    // Whatever is right with its FINGERPRINT is so without.
    let Ok(message) = Message::parse_without_crc(header, bytes) else {
        return assert!(Message::parse(header, bytes).is_err());
    };
    if let Ok(checked) = Message::parse(header, bytes) {
        assert!(checked.attributes().eq(message.attributes()));
        assert_eq!(checked.has_fingerprint(), message.has_fingerprint());
    } else {
        assert!(message.has_fingerprint(), "what else could be wrong with it");
    }
    access(&message);
    rewrite(&message, bytes);
}

fn access(message: &Message<'_>) {
    for Attribute { kind, value } in message.attributes() {
        if let Some(algorithm) = PasswordAlgorithm::chosen(value) {
            assert_eq!(value, algorithm.entry());
        }
        assert!(message.attribute(kind).is_some());
        let fixed = [
            message.fixed::<0>(kind).is_ok_and(|first| first.is_some()),
            message.fixed::<1>(kind).is_ok_and(|first| first.is_some()),
            message.fixed::<4>(kind).is_ok_and(|first| first.is_some()),
            message.fixed::<8>(kind).is_ok_and(|first| first.is_some()),
            message.fixed::<32>(kind).is_ok_and(|first| first.is_some()),
        ];
        assert!(fixed.iter().filter(|&&fits| fits).count() <= 1, "an attribute has one length");
        let first = message.xor_address(kind);
        let all: Vec<_> = message.xor_addresses(kind).collect();
        assert_eq!(first.transpose().as_ref(), all.first(), "of repeated attributes the first counts");
    }
    assert!(message.unknown_attributes().kinds().count() <= UnknownAttributes::MAX);
    for kind in message.unknown_attributes().kinds() {
        assert!(kind.is_comprehension_required() && !kind.is_known());
    }
    for key in [&b""[..], &[7; 16], &[7; 32]] {
        assert_eq!(message.verify(key) == Integrity::Absent, !message.is_protected());
    }
}

fn rewrite(message: &Message<'_>, bytes: &[u8]) {
    const KEY: &[u8] = b"key";
    let header = message.header();
    let mut writer = MessageWriter::new(header);
    for Attribute { kind, value } in message.attributes() {
        writer.attribute(kind, value);
    }
    let plain = writer.clone().finish();
    assert_eq!(plain[..2], bytes[..2], "type");
    assert_eq!(plain[4..HEADER_LEN], bytes[4..HEADER_LEN], "cookie and transaction ID");
    // The original may have used up what a length field can say.
    if plain.len() > usize::from(u16::MAX) - 64 {
        return;
    }
    writer.integrity(KEY).integrity_sha256(KEY).fingerprint();
    let written = writer.finish();
    let (again, bytes) = Header::parse(&written).expect("a written header is right");
    assert_eq!(again, header);
    let again = Message::parse(header, bytes).expect("a written message is right");
    assert!(again.attributes().eq(message.attributes()));
    assert_eq!(again.verify(KEY), Integrity::Valid);
    assert_eq!(again.verify(b"another"), Integrity::Invalid);
    assert!(again.has_fingerprint());
    assert!(
        again.attribute(AttributeType::FINGERPRINT).is_none(),
        "what follows the integrity does not count"
    );
}
