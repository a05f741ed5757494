//! Length fields that contradict each other, padding, and bytes that nobody asked to be relayed.

use relay_common::outcome::Outcome;

use crate::{
    frame::{
        ETHERNET_LEN, Frame, IPV4_LEN, PAYLOAD_AT, TOTAL_LEN_AT, UDP_LEN, UDP_LEN_AT, repair_ip_checksum,
        set_word,
    },
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_022_channel_data_longer_than_its_datagram_is_dropped() {
    let mut relay = Relay::new();
    for len in [6, 7, 100, 0x3fff, 0x4000, 0x7fff, 0xffff] {
        let mut frame = from_client(b"hello").bytes();
        set_word(&mut frame, PAYLOAD_AT + 2, len);
        relay.assert_outcome(Side::Client, &frame, Outcome::ChannelDataLength);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_023_padding_is_cut_off_and_leaves_the_checksum_right() {
    let mut relay = Relay::new();
    for len in (0..=9).chain([100, 101, 1200]) {
        let data = data(len);
        // Not zero: a checksum that forgets padding would not show.
        for padding in [&[][..], &[0xab], &[0xab, 0xcd], &[0xab, 0xcd, 0xef]] {
            let mut frame = from_client(&data);
            frame.payload.extend(padding);
            relay.assert_forwards(Side::Client, &frame, XDP_REDIRECT, &at_peer(&data));
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_023_more_than_padding_is_the_slow_paths() {
    let mut relay = Relay::new();
    for more in [4, 5, 100] {
        let mut frame = from_client(b"hello");
        frame.payload.extend(data(more));
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::Trailer);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_008_ethernet_padding_is_never_relayed() {
    let mut relay = Relay::new();
    for len in 0..=18 {
        let data = data(len);
        for frame in [from_client(&data), from_peer(&data)] {
            let side = if frame.source == CLIENT { Side::Client } else { Side::Peer };
            let expected = if side == Side::Client { at_peer(&data) } else { at_client(&data) };
            let missing = 60usize.saturating_sub(frame.bytes().len());
            let padded = Frame { ethernet_padding: vec![0xee; missing], ..frame };
            relay.assert_forwards(side, &padded, XDP_REDIRECT, &expected);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_008_what_lies_behind_the_udp_length_is_never_relayed() {
    let mut relay = Relay::new();
    for len in [1, 2, 3, 4, 50] {
        let surplus = vec![0xee; len];
        let frame = Frame { surplus: surplus.clone(), ..from_client(b"hello") };
        relay.assert_forwards(Side::Client, &frame, XDP_REDIRECT, &at_peer(b"hello"));
        let frame = Frame { surplus, ethernet_padding: vec![0xdd; 3], ..from_peer(b"hello") };
        relay.assert_forwards(Side::Peer, &frame, XDP_REDIRECT, &at_client(b"hello"));
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_007_a_udp_length_below_8_or_beyond_the_ip_packet_is_dropped() {
    let mut relay = Relay::new();
    for (side, frame) in [(Side::Client, from_client(b"hello")), (Side::Peer, from_peer(b"hello"))] {
        let whole = (UDP_LEN + frame.payload.len()) as u16;
        for len in [0, 1, 7, whole + 1, whole + 2, 0xffff] {
            // With bytes enough in the frame, so that only the IP packet is too short.
            let mut bytes = Frame { ethernet_padding: vec![0; 50], ..frame.clone() }.bytes();
            set_word(&mut bytes, UDP_LEN_AT, len);
            relay.assert_outcome(side, &bytes, Outcome::UdpLength);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_002_an_ip_length_beyond_the_frame_is_dropped() {
    let mut relay = Relay::new();
    for (side, frame) in [(Side::Client, from_client(b"hello")), (Side::Peer, from_peer(b"hello"))] {
        let whole = (frame.bytes().len() - ETHERNET_LEN) as u16;
        for len in [whole + 1, whole + 100, 0xffff] {
            let mut bytes = frame.bytes();
            set_word(&mut bytes, TOTAL_LEN_AT, len);
            repair_ip_checksum(&mut bytes);
            relay.assert_outcome(side, &bytes, Outcome::UdpLength);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_007_an_ip_length_too_short_for_its_headers_is_dropped() {
    let mut relay = Relay::new();
    for len in [0, IPV4_LEN - 1, IPV4_LEN, IPV4_LEN + UDP_LEN - 1] {
        let mut bytes = from_client(b"hello").bytes();
        set_word(&mut bytes, TOTAL_LEN_AT, len as u16);
        repair_ip_checksum(&mut bytes);
        relay.assert_outcome(Side::Client, &bytes, Outcome::UdpLength);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_002_a_frame_cut_anywhere_is_never_forwarded() {
    let mut relay = Relay::new();
    for (side, frame) in [(Side::Client, from_client(b"hello")), (Side::Peer, from_peer(b"hello"))] {
        let whole = frame.bytes();
        for len in ETHERNET_LEN..whole.len() {
            let cut = &whole[..len];
            if len < PAYLOAD_AT {
                relay.assert_not_ours(side, cut);
            } else {
                relay.assert_outcome(side, cut, Outcome::UdpLength);
            }
        }
    }
}
