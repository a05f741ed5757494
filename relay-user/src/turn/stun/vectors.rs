//! The published messages of RFC 5769, and what the codec makes of broken ones.

use sha2::{Digest, Sha256};

use super::*;
use crate::turn::long_term_key::LongTermKey;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn parse(bytes: &[u8]) -> Result<Message<'_>, MessageError> {
    let (header, bytes) = Header::parse(bytes).expect("a STUN header");
    Message::parse(header, bytes)
}

const SHORT_TERM_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

const REQUEST: &str = "
    00010058 2112a442 b7e7a701bc34d686fa87dfae
    80220010 5354554e207465737420636c69656e74
    00240004 6e0001ff
    80290008 932ff9b151263b36
    00060009 6576746a3a68367659202020
    00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004 e57a3bcf";

const IPV4_RESPONSE: &str = "
    0101003c 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220
    00200008 0001a147e112a643
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004 c07d4c96";

const IPV6_RESPONSE: &str = "
    01010048 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220
    00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
    80280004 c8fb0b4c";

const LONG_TERM_REQUEST: &str = "
    00010060 2112a442 78ad3433c6ad72c029da412e
    00060012 e3839ee38388e383aae38383e382afe382b90000
    0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341
    0014000b 6578616d706c652e6f726700
    00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";

#[test]
fn vec_001_sample_request() {
    let bytes = bytes(REQUEST);
    let message = parse(&bytes).unwrap();
    assert_eq!((message.header().class, message.header().method), (Class::Request, Method::BINDING));
    assert_eq!(message.attribute(AttributeType::USERNAME), Some(&b"evtj:h6vY"[..]));
    assert_eq!(message.attribute(AttributeType::SOFTWARE), Some(&b"STUN test client"[..]));
    assert_eq!(message.verify(SHORT_TERM_PASSWORD), Integrity::Valid);
    assert_eq!(message.verify(b"another password"), Integrity::Invalid);
    assert!(message.has_fingerprint());
    // ICE's PRIORITY is nothing a TURN server knows; ICE-CONTROLLED may be ignored.
    assert_eq!(message.unknown_attributes().kinds().collect::<Vec<_>>(), [AttributeType(0x0024)]);
}

#[test]
fn vec_002_sample_ipv4_response() {
    let bytes = bytes(IPV4_RESPONSE);
    let message = parse(&bytes).unwrap();
    let address = message.xor_address(AttributeType::XOR_MAPPED_ADDRESS).unwrap();
    assert_eq!(address, Some("192.0.2.1:32853".parse().unwrap()));
    assert_eq!(message.verify(SHORT_TERM_PASSWORD), Integrity::Valid);
    assert!(message.has_fingerprint());
}

#[test]
fn vec_003_sample_ipv6_response() {
    let bytes = bytes(IPV6_RESPONSE);
    let message = parse(&bytes).unwrap();
    let address = message.xor_address(AttributeType::XOR_MAPPED_ADDRESS).unwrap();
    assert_eq!(address, Some("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap()));
    assert_eq!(message.verify(SHORT_TERM_PASSWORD), Integrity::Valid);
    assert!(message.has_fingerprint());
}

#[test]
fn vec_004_sample_request_with_long_term_authentication() {
    let bytes = bytes(LONG_TERM_REQUEST);
    let message = parse(&bytes).unwrap();
    assert_eq!(message.attribute(AttributeType::NONCE), Some(&b"f//499k954d6OL34oL9FSTvy64sA"[..]));
    assert_eq!(message.attribute(AttributeType::REALM), Some(&b"example.org"[..]));
    let key = LongTermKey::new(PasswordAlgorithm::Md5, "マトリックス", "example.org", "TheMatrIX");
    assert_eq!(message.verify(key.as_bytes()), Integrity::Valid);
    assert!(!message.has_fingerprint());
}

/// The sample response again, but for its padding, which this server writes as zeroes.
#[test]
fn stun_047_048_049_125_126_130_133_writer_agrees_with_the_sample_response() {
    let sample = bytes(&IPV4_RESPONSE.replace("6f7220", "6f7200"));
    let header = parse(&bytes(IPV4_RESPONSE)).unwrap().header();
    let mut writer = MessageWriter::new(header);
    writer.attribute(AttributeType::SOFTWARE, b"test vector");
    writer.xor_address(AttributeType::XOR_MAPPED_ADDRESS, "192.0.2.1:32853".parse().unwrap());
    writer.integrity(SHORT_TERM_PASSWORD).fingerprint();
    let written = writer.finish();

    assert_eq!(written[..48], sample[..48], "all up to MESSAGE-INTEGRITY");
    assert_eq!(written.len(), sample.len());
    let message = parse(&written).unwrap();
    assert_eq!(message.verify(SHORT_TERM_PASSWORD), Integrity::Valid);
    assert!(message.has_fingerprint());
}

/// Wherever it begins in memory, and whatever lies around it (VEC-001, VEC-003).
#[test]
fn a_message_reads_the_same_at_every_alignment() {
    for sample in [REQUEST, IPV6_RESPONSE] {
        let whole = bytes(sample);
        let expected: Vec<_> = parse(&whole).unwrap().attributes().collect();
        for offset in 0..16 {
            for filling in [0x00, 0xff] {
                let mut buffer = vec![filling; offset];
                buffer.extend(&whole);
                buffer.extend([filling; 16]);
                let message = parse(&buffer[offset..]).unwrap();
                assert_eq!(message.attributes().collect::<Vec<_>>(), expected);
                assert_eq!(message.verify(SHORT_TERM_PASSWORD), Integrity::Valid);
                assert!(message.has_fingerprint());
                let mapped = message.xor_address(AttributeType::XOR_MAPPED_ADDRESS);
                assert_eq!(mapped, parse(&whole).unwrap().xor_address(AttributeType::XOR_MAPPED_ADDRESS));
            }
        }
    }
}

#[test]
fn stun_107_any_changed_bit_of_a_protected_message_shows() {
    let whole = bytes(LONG_TERM_REQUEST);
    let key = LongTermKey::new(PasswordAlgorithm::Md5, "マトリックス", "example.org", "TheMatrIX");
    for position in (0..whole.len()).filter(|&position| !(2..8).contains(&position)) {
        let mut changed = whole.clone();
        changed[position] ^= 0x01;
        // What is no STUN message any more, or holds together no more, is refused anyway.
        if let Ok((header, bytes)) = Header::parse(&changed)
            && let Ok(message) = Message::parse(header, bytes)
        {
            assert_ne!(message.verify(key.as_bytes()), Integrity::Valid, "byte {position}");
        }
    }
}

#[test]
fn stun_050_wrong_or_misplaced_fingerprint() {
    let mut wrong = bytes(REQUEST);
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(parse(&wrong).unwrap_err(), MessageError::Fingerprint);

    let mut writer = MessageWriter::new(parse(&bytes(REQUEST)).unwrap().header());
    writer.fingerprint().attribute(AttributeType::SOFTWARE, b"after");
    assert_eq!(parse(&writer.finish()).unwrap_err(), MessageError::Fingerprint);
}

fn request() -> MessageWriter {
    let transaction_id = TransactionId([9; 12]);
    MessageWriter::new(Header { class: Class::Request, method: Method::ALLOCATE, transaction_id })
}

#[test]
fn stun_055_056_attributes_after_the_integrity_attribute_do_not_count() {
    const UNKNOWN: AttributeType = AttributeType(0x7fff);
    for sha256 in [false, true] {
        let mut writer = request();
        writer.number(AttributeType::LIFETIME, 1);
        if sha256 {
            writer.integrity_sha256(b"key");
        } else {
            writer.integrity(b"key");
        }
        writer.number(AttributeType::CHANNEL_NUMBER, 2).attribute(UNKNOWN, b"?");
        writer.attribute(AttributeType::MESSAGE_INTEGRITY, &[0; 20]).fingerprint();
        let bytes = writer.finish();
        let message = parse(&bytes).unwrap();
        assert!(message.attribute(AttributeType::LIFETIME).is_some());
        assert!(message.attribute(AttributeType::CHANNEL_NUMBER).is_none());
        assert!(message.unknown_attributes().is_empty());
        assert!(message.has_fingerprint());
        assert_eq!(message.verify(b"key"), Integrity::Valid);
    }
}

#[test]
fn stun_094_135_sha256_alone_counts_where_it_is_present_and_has_32_bytes() {
    let verify = |bytes: Vec<u8>| parse(&bytes).unwrap().verify(b"key");
    let with = |sha1: bool, sha256_key: &[u8]| {
        let mut writer = request();
        if sha1 {
            writer.integrity(b"key");
        }
        writer.integrity_sha256(sha256_key);
        writer.finish()
    };
    assert_eq!(verify(with(false, b"key")), Integrity::Valid);
    assert_eq!(verify(with(true, b"key")), Integrity::Valid);
    assert_eq!(verify(with(true, b"other")), Integrity::Invalid);

    let full = with(false, b"key");
    for length in [0, 16, 28] {
        let mut writer = request();
        writer.attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &full[24..24 + length]);
        assert_eq!(verify(writer.finish()), Integrity::Invalid, "{length} bytes");
    }
}

#[test]
fn stun_127_128_attributes_that_do_not_hold_together_are_malformed() {
    let mut overrun = request();
    overrun.number(AttributeType::LIFETIME, 1);
    let mut overrun = overrun.finish();
    overrun[23] = 5;
    assert_eq!(parse(&overrun).unwrap_err(), Malformed.into());
    overrun[22] = 0xff;
    assert_eq!(parse(&overrun).unwrap_err(), Malformed.into());

    let mut short = request();
    short.attribute(AttributeType::MESSAGE_INTEGRITY, &[0; 16]);
    assert_eq!(parse(&short.finish()).unwrap_err(), Malformed.into());

    let mut lifetime = request();
    lifetime.attribute(AttributeType::LIFETIME, &[0; 3]);
    assert_eq!(parse(&lifetime.finish()).unwrap().fixed::<4>(AttributeType::LIFETIME), Err(Malformed));
}

#[test]
fn stun_129_first_of_repeated_attributes_counts() {
    let mut writer = request();
    writer.number(AttributeType::LIFETIME, 1).number(AttributeType::LIFETIME, 2);
    let bytes = writer.finish();
    assert_eq!(parse(&bytes).unwrap().fixed(AttributeType::LIFETIME), Ok(Some([0, 0, 0, 1])));
}

#[test]
fn stun_131_address_attributes() {
    let decode = |value: &[u8]| {
        let mut writer = request();
        writer.attribute(AttributeType::XOR_PEER_ADDRESS, value);
        parse(&writer.finish()).unwrap().xor_address(AttributeType::XOR_PEER_ADDRESS)
    };
    let good = [0xff, 1, 0x2c, 0x84, 0xe1, 0x12, 0xa6, 0x43];
    assert_eq!(decode(&good), Ok(Some("192.0.2.1:3478".parse().unwrap())), "the first byte is ignored");
    for bad in [&good[..4], &good[..7], &[&good[..], &[0]].concat(), &[0, 2, 1, 1, 1, 1, 1, 1], &[]] {
        assert_eq!(decode(bad), Err(Malformed), "{bad:?}");
    }
    let mut family = good;
    for unknown in [0, 3, 0xff] {
        family[1] = unknown;
        assert_eq!(decode(&family), Err(Malformed), "family {unknown}");
    }
}

#[test]
fn stun_021_144_unknown_attributes_are_listed_once_and_bounded() {
    let mut writer = request();
    for kind in (0x7000..0x7040).chain(0x7000..0x7040) {
        writer.attribute(AttributeType(kind), &[]);
    }
    writer.attribute(AttributeType(0x8fff), b"optional");
    let bytes = writer.finish();
    let message = parse(&bytes).unwrap();
    let listed: Vec<_> = message.unknown_attributes().kinds().map(|kind| kind.0).collect();
    assert_eq!(listed, (0x7000..0x7010).collect::<Vec<_>>());
}

/// RFC 8489 appendix B.1, without its header's length and its MESSAGE-INTEGRITY-SHA256.
const SHA256_ATTRIBUTES: [&str; 3] = [
    "001e0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704",
    "00150029 6f624d61744a6f73324141414366 2f2f3439396b39353464364f4c33346f4c39465354767936347341 000000",
    "0014000b 6578616d706c652e6f726700",
];

#[test]
fn stun_134_vec_007_sha256_request_as_the_erratum_corrects_it() {
    let [userhash, nonce, realm] = SHA256_ATTRIBUTES;
    let bytes = bytes(&format!(
        "00010090 2112a442 78ad3433c6ad72c029da412e {userhash} {nonce} {realm} 001d0004 00020000
         001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65"
    ));
    let key = Sha256::digest("マトリックス:example.org:TheMatrIX");
    assert_eq!(parse(&bytes).unwrap().verify(&key), Integrity::Valid);
}

#[test]
fn vec_008_sha256_request_as_printed_is_truncated() {
    let [userhash, nonce, realm] = SHA256_ATTRIBUTES;
    let bytes = bytes(&format!(
        "0001009c 2112a442 78ad3433c6ad72c029da412e {userhash} {nonce} {realm}
         001c0020 e4686c8f0edeb59013e07090010a93efccbccc544c0a45d9f830aa6d6f735a01"
    ));
    assert_eq!(Header::parse(&bytes).unwrap_err(), HeaderError::Truncated);
}
