//! The first byte of a datagram to a listener (RFC 7983 section 7, RFC 8656 section 12).

use crate::{
    pair::{CHANNEL, PEER, Pair},
    wire::{self, Builder},
};

#[test]
fn mux_001_002_003_005_006_007_009_010_only_stun_and_channel_data_are_heard() {
    let mut pair = Pair::new();
    pair.allocate(0);
    for first in 0..=255 {
        let mut datagram = Builder::new(wire::REQUEST, wire::BINDING, [1; 12]).build();
        datagram[0] = first;
        let happened = pair.deliver(0, &datagram);
        assert_eq!(happened.is_silence(), first != 0, "first byte {first}");
    }
    assert_eq!(pair.drops("unsupported_method"), 3, "1 to 3 reach STUN");
    assert_eq!(pair.drops("dtls"), 44, "20 to 63");
    assert_eq!(pair.drops("not_turn"), 16 + 176, "4 to 19 and 80 to 255");
    assert_eq!(pair.drops("no_channel"), 16, "64 to 79 are ChannelData");
    assert!(pair.deliver(0, &[]).outputs.is_empty());
}

#[test]
fn mux_004_008_stun_and_channel_data_alternate_on_one_5_tuple() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.bind(0, CHANNEL, PEER);
    for _ in 0..3 {
        assert_eq!(pair.channel_data(0, CHANNEL, b"x").to_peer().2, b"x");
        let binding = Builder::new(wire::REQUEST, wire::BINDING, [1; 12]).build();
        assert!(pair.exchange(0, &binding).is_success());
        assert!(pair.deliver(0, &[0x80, 1, 2, 3]).outputs.is_empty());
    }
}
