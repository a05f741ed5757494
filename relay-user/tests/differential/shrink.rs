//! The smallest packet that still makes a difference.

use std::fmt::Write as _;

use crate::{
    judge::hex,
    life::{Failure, Life},
    packet::{Checksum, Packet},
    payload::{Attribute, DATA, Payload},
    program::Program,
};

/// Attempts before what there is must do.
const ATTEMPTS: u32 = 300;

/// Seed, packet and difference, for a person to read.
pub fn story(life: &Life, program: &mut Program, failure: Box<Failure>) -> String {
    let Failure { number, packet, mut mismatch } = *failure;
    let Some(mut packet) = packet else {
        return format!(
            "TURNPIKE_DIFFERENTIAL_SEED={}, before packet {number}: {}",
            life.seed, mismatch.text
        );
    };
    let mut attempts = 0;
    let mut again = true;
    while again {
        again = false;
        for simpler in simpler(&packet) {
            attempts += 1;
            if attempts > ATTEMPTS {
                break;
            }
            if let Some(difference) = life.differs(program, number, &simpler) {
                (packet, mismatch, again) = (simpler, difference, true);
                break;
            }
        }
    }
    let mut frame = Vec::new();
    packet.write(&mut frame);
    let mut text = format!("TURNPIKE_DIFFERENTIAL_SEED={}, packet {number}:\n", life.seed);
    let _ = write!(text, "{packet:?}\n{}\n{}", hex(&frame), mismatch.text);
    text
}

/// The same packet with one thing less.
fn simpler(packet: &Packet) -> Vec<Packet> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Packet) -> bool| {
        let mut simpler = packet.clone();
        if change(&mut simpler) {
            all.push(simpler);
        }
    };
    for place in 0..packet.mutations.len() {
        with(&|packet| {
            packet.mutations.remove(place);
            true
        });
    }
    for len in shorter(data_len(&packet.payload)) {
        with(&|packet| cut_data(&mut packet.payload, len));
    }
    with(&|packet| !std::mem::take(&mut packet.surplus).is_empty());
    with(&|packet| !std::mem::take(&mut packet.ethernet_padding).is_empty());
    with(&|packet| !std::mem::take(&mut packet.ip.options).is_empty());
    with(&|packet| !std::mem::take(&mut packet.ip.extensions).is_empty());
    with(&|packet| std::mem::take(&mut packet.metadata) != 0);
    with(&|packet| packet.first_piece.take().is_some());
    with(&|packet| std::mem::take(&mut packet.udp_len_error) != 0);
    with(&|packet| std::mem::take(&mut packet.ip.len_error) != 0);
    with(&|packet| std::mem::take(&mut packet.ip.checksum_error) != 0);
    with(&|packet| std::mem::take(&mut packet.ip.traffic_class) != 0);
    with(&|packet| std::mem::take(&mut packet.ip.identification) != 0);
    with(&|packet| std::mem::replace(&mut packet.ip.ttl, 64) != 64);
    with(&|packet| std::mem::replace(&mut packet.checksum, Checksum::Right) != Checksum::Right);
    with(&|packet| zero_data(&mut packet.payload));
    match &packet.payload {
        Payload::Raw(_) => {}
        Payload::ChannelData { .. } => with(&|packet| match &mut packet.payload {
            Payload::ChannelData { padding, .. } => !std::mem::take(padding).is_empty(),
            _ => false,
        }),
        Payload::Stun(message) => {
            for place in 0..message.attributes.len() {
                with(&|packet| match &mut packet.payload {
                    Payload::Stun(message) => {
                        message.attributes.remove(place);
                        true
                    }
                    _ => false,
                });
            }
        }
    }
    all
}

fn shorter(len: usize) -> Vec<usize> {
    let mut lens = vec![0, 1, 2, len / 2, len.saturating_sub(4), len.saturating_sub(1)];
    lens.retain(|&shorter| shorter < len);
    lens.dedup();
    lens
}

fn data_len(payload: &Payload) -> usize {
    data(&mut payload.clone()).map_or(0, |data| data.len())
}

fn cut_data(payload: &mut Payload, len: usize) -> bool {
    data(payload).map(|data| data.truncate(len)).is_some()
}

fn zero_data(payload: &mut Payload) -> bool {
    data(payload).is_some_and(|data| {
        let was_zero = data.iter().all(|&byte| byte == 0);
        data.fill(0);
        !was_zero
    })
}

fn data(payload: &mut Payload) -> Option<&mut Vec<u8>> {
    match payload {
        Payload::Raw(data) | Payload::ChannelData { data, .. } => Some(data),
        Payload::Stun(message) => message.attributes.iter_mut().find_map(|attribute| match attribute {
            Attribute::Other(DATA, data) => Some(data),
            Attribute::Other(..) | Attribute::Peer(_) | Attribute::Fingerprint(_) | Attribute::Broken(..) => {
                None
            }
        }),
    }
}
