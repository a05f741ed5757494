//! Length fields that contradict each other, padding, and bytes that nobody asked to be relayed.

use relay_common::outcome::Outcome;
use relay_user::turn::Family;

use crate::{
    case::{Case, End, Form},
    frame::{ETHERNET_LEN, Frame, UDP_LEN, ip_header_len, repair_ip_checksum, set_word},
    relay::*,
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_022_channel_data_longer_than_its_datagram_is_dropped() {
    let relay = Relay::new();
    for case in from_channel_data() {
        let frame = case.input(b"hello");
        for len in [6, 7, 100, 0x3fff, 0x4000, 0x7fff, 0xffff] {
            let mut payload = frame.payload.clone();
            set_word(&mut payload, 2, len);
            let frame = Frame { payload, ..frame.clone() };
            relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::ChannelDataLength);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_023_padding_is_cut_off_and_leaves_the_checksum_right() {
    let relay = Relay::new();
    for case in from_channel_data() {
        for len in (0..=9).chain([100, 101, 1100]) {
            let data = data(len);
            // Not zero: a checksum that forgets padding would not show.
            for padding in [&[][..], &[0xab], &[0xab, 0xcd], &[0xab, 0xcd, 0xef]] {
                let mut frame = case.input(&data);
                frame.payload.extend(padding);
                relay.assert_forwards(&case, &frame, &case.output(&data));
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_023_more_than_padding_is_the_slow_paths() {
    let relay = Relay::new();
    for case in from_channel_data() {
        for more in [4, 5, 100] {
            let mut frame = case.input(b"hello");
            frame.payload.extend(data(more));
            relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::Trailer);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_008_ethernet_padding_is_never_relayed() {
    let relay = Relay::new();
    for case in Case::all() {
        for len in 0..=18 {
            let data = data(len);
            let frame = case.input(&data);
            for padding in [60usize.saturating_sub(frame.bytes().len()), 5, 64] {
                let padded = Frame { ethernet_padding: vec![0xee; padding], ..frame.clone() };
                relay.assert_forwards(&case, &padded, &case.output(&data));
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_008_what_lies_behind_the_udp_length_is_never_relayed() {
    let relay = Relay::new();
    for case in Case::all() {
        for len in [1, 2, 3, 4, 50] {
            let surplus = vec![0xee; len];
            let frame = Frame { surplus, ethernet_padding: vec![0xdd; len % 3], ..case.input(b"hello") };
            relay.assert_forwards(&case, &frame, &case.output(b"hello"));
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_007_a_udp_length_below_8_or_beyond_the_ip_packet_is_dropped() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"hello");
        let whole = (UDP_LEN + frame.payload.len()) as u16;
        for len in [0, 1, 7, whole + 1, whole + 2, 0xffff] {
            // With bytes enough in the frame, so that only the IP packet is too short.
            let mut bytes = Frame { ethernet_padding: vec![0; 50], ..frame.clone() }.bytes();
            set_word(&mut bytes, frame.udp_at() + 4, len);
            relay.assert_outcome(case.ingress(), &bytes, Outcome::UdpLength);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_002_an_ip_length_beyond_the_frame_is_dropped() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"hello");
        for more in [1, 100, 0xff00] {
            relay.assert_outcome(case.ingress(), &with_ip_len(&frame, more), Outcome::UdpLength);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_007_an_ip_length_too_short_for_its_headers_is_dropped() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"hello");
        for left in [0, 1, UDP_LEN - 1, UDP_LEN, UDP_LEN + frame.payload.len() - 1] {
            let less = (UDP_LEN + frame.payload.len() - left) as i32;
            relay.assert_outcome(case.ingress(), &with_ip_len(&frame, -less), Outcome::UdpLength);
        }
        if frame.family() == Family::V4 {
            let whole = frame.packet_len() as i32;
            for len in [0, ip_header_len(Family::V4) as i32 - 1] {
                relay.assert_outcome(case.ingress(), &with_ip_len(&frame, len - whole), Outcome::UdpLength);
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_002_a_frame_cut_anywhere_is_never_forwarded() {
    let relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"hello");
        let whole = frame.bytes();
        for len in ETHERNET_LEN..whole.len() {
            let cut = &whole[..len];
            if len < frame.payload_at() {
                relay.assert_not_ours(case.ingress(), cut);
            } else {
                relay.assert_outcome(case.ingress(), cut, Outcome::UdpLength);
            }
        }
    }
}

/// The frame with an IP length that is more than the right one by so much.
fn with_ip_len(frame: &Frame, more: i32) -> Vec<u8> {
    let (at, right) = match frame.family() {
        Family::V4 => (2, frame.packet_len()),
        Family::V6 => (4, frame.packet_len() - ip_header_len(Family::V6)),
    };
    let mut bytes = frame.bytes();
    set_word(&mut bytes, frame.ip_at() + at, (right as i32 + more) as u16);
    if frame.family() == Family::V4 {
        repair_ip_checksum(&mut bytes, frame.ip_at());
    }
    bytes
}

fn from_channel_data() -> impl Iterator<Item = Case> {
    Case::all().filter(|case| matches!(case.from, End::Client(_, Form::ChannelData)))
}
