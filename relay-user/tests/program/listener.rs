//! What comes to a listener is told apart by its first byte.

use relay_common::outcome::Outcome;
use relay_user::turn::Family;

use crate::{
    case::{Case, End, Form},
    frame::Frame,
    message::channel_data,
    relay::*,
    session::{Client, peer},
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_014_the_first_byte_decides() {
    let relay = Relay::without_flows();
    for frame in to_listeners() {
        for first_byte in 0..=255u8 {
            let mut payload = channel_data(0, &[0; 20]);
            payload[0] = first_byte;
            let frame = Frame { payload, ..frame.clone() };
            let outcome = match first_byte {
                0..=3 | 20..=63 => Outcome::Control,
                64..=127 => Outcome::NoFlow,
                _ => Outcome::NotTurn,
            };
            relay.assert_outcome(Side::Client, &frame.bytes(), outcome);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_019_a_number_outside_the_range_has_no_flow() {
    let relay = Relay::new();
    for frame in to_listeners() {
        for (number, outcome) in [
            (0x3fff, Outcome::Control),
            (0x4000, Outcome::NoFlow),
            (0x4fff, Outcome::NoFlow),
            // RFC 5766's: the daemon drops them unless it is told to accept them.
            (0x5000, Outcome::NoFlow),
            (0x7fff, Outcome::NoFlow),
            (0x8000, Outcome::NotTurn),
            (0xffff, Outcome::NotTurn),
        ] {
            let frame = Frame { payload: channel_data(number, b"data"), ..frame.clone() };
            relay.assert_outcome(Side::Client, &frame.bytes(), outcome);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_datagram_too_short_for_channel_data_is_judged_by_what_there_is() {
    let relay = Relay::new();
    for frame in to_listeners() {
        for (payload, outcome) in [
            (&[][..], Outcome::NotTurn),
            (&[0x00], Outcome::Control),
            (&[0x00, 0x16], Outcome::Control),
            (&[0x16, 0xfe], Outcome::Control),
            (&[0x40], Outcome::ChannelDataLength),
            (&[0x40, 0x01], Outcome::ChannelDataLength),
            (&[0x40, 0x01, 0x00], Outcome::ChannelDataLength),
            (&[0x80, 0x60, 0x00], Outcome::NotTurn),
        ] {
            let frame = Frame { payload: payload.to_vec(), ..frame.clone() };
            relay.assert_outcome(Side::Client, &frame.bytes(), outcome);
            // The padding of a short frame is not payload, whatever it holds.
            let number = Client::caller(frame.family()).channel(peer(frame.family()));
            let ethernet_padding = channel_data(number, b"0123456789");
            relay.assert_outcome(Side::Client, &Frame { ethernet_padding, ..frame }.bytes(), outcome);
        }
    }
}

/// A frame of a client of each family.
fn to_listeners() -> [Frame; 2] {
    Family::ALL.map(|family| {
        let from = End::Client(Client::caller(family), Form::ChannelData);
        Case { from, relayed: family, to: End::Peer }.input(b"")
    })
}
