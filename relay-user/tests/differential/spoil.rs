//! What may be wrong, or odd, about a packet.

use rand::{Rng, RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    generate::Generator,
    packet::{CUSTOMER_TAG, Checksum, MORE_FRAGMENTS, Mutation, Packet},
    payload::{Attribute, DATA, Payload, SOFTWARE, Stun},
    program::HEADROOM,
    world::{SENDING, World},
};

impl Generator {
    /// Makes one thing wrong, or odd.
    pub fn spoil(&self, world: &World<'_>, rng: &mut StdRng, packet: &mut Packet) {
        let is_ipv4 = packet.source.is_ipv4();
        let bytes = |rng: &mut StdRng, most: usize| {
            let len = rng.random_range(1..=most);
            self.data(rng, len)
        };
        match rng.random_range(0..27) {
            0 => packet.destination_mac[rng.random_range(0..6)] ^= rng.random_range(1..=255),
            1 => {
                packet.destination_mac = *[[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0; 6]].choose(rng).unwrap();
            }
            2 if is_ipv4 => packet.ip.options = vec![1; 4 * rng.random_range(1..=10)],
            2 => {
                let kind = *[0, 43, 44, 60, 135].choose(rng).unwrap();
                packet.ip.extensions = vec![(kind, vec![0; 7])];
            }
            3 => packet.ip.fragment |= MORE_FRAGMENTS,
            4 => packet.ip.fragment |= rng.random_range(1..0x2000),
            5 => packet.ip.checksum_error = rng.random_range(1..=0xffff),
            6 | 7 => packet.ip.ttl = rng.random_range(0..2),
            8 => packet.checksum = Checksum::Unfinished,
            9 => packet.checksum = Checksum::Wrong(rng.random_range(1..=0xffff)),
            10 | 11 => packet.checksum = Checksum::None,
            12 => packet.udp_len_error = near_zero(rng),
            13 => packet.ip.len_error = near_zero(rng),
            14 | 15 => packet.metadata = (HEADROOM - rng.random_range(0..64)) / 4 * 4,
            16 => match &mut packet.payload {
                Payload::ChannelData { len_error, .. } => *len_error = rng.random_range(1..300),
                Payload::Stun(message) => message.len_error = near_zero(rng),
                Payload::Raw(_) => packet.source.set_port(0),
            },
            17 => match &mut packet.payload {
                Payload::ChannelData { padding, .. } => *padding = bytes(rng, 20),
                Payload::Stun(message) => message.trailer = bytes(rng, 20),
                Payload::Raw(_) => packet.surplus = bytes(rng, 20),
            },
            18 | 19 => match &mut packet.payload {
                Payload::Stun(message) => self.disorder(world, rng, message),
                Payload::ChannelData { len_error, .. } => *len_error = near_zero(rng),
                Payload::Raw(_) => packet.metadata = (HEADROOM - rng.random_range(0..64)) / 4 * 4,
            },
            20 => {
                packet.tags.push((CUSTOMER_TAG, rng.random_range(0..4096)));
                packet.tags.truncate(3);
            }
            21 => {
                packet.tags.pop();
            }
            22 => packet.ingress = 3,
            24 => packet.first_piece = Some(rng.random_range(0..200)),
            25 => packet.first_piece = Some(rng.random_range(0..1500)),
            23 => {
                let bytes = self.data(rng, 40);
                packet.surplus = bytes;
                packet.ip.ttl = 2;
            }
            _ => packet.ingress = rng.random_range(0..SENDING),
        }
    }

    /// A Send indication, or another message, as no usual client makes it.
    fn disorder(&self, world: &World<'_>, rng: &mut StdRng, message: &mut Stun) {
        let place = rng.random_range(0..=message.attributes.len());
        let attribute = match rng.random_range(0..10) {
            0 => Attribute::Peer(world.peer(rng)),
            1 => Attribute::Other(DATA, self.data(rng, 5)),
            // DONT-FRAGMENT.
            2 => Attribute::Other(0x001a, Vec::new()),
            3 => Attribute::Other(rng.random(), self.data(rng, 8)),
            4 => Attribute::Fingerprint(0),
            5 => Attribute::Broken(
                *[0x0012, DATA, SOFTWARE].choose(rng).unwrap(),
                rng.random(),
                self.data(rng, 8),
            ),
            6 => Attribute::Other(SOFTWARE, self.data(rng, 70)),
            7 => {
                message.cookie_error = rng.random_range(1..=255);
                return;
            }
            8 => {
                for attribute in &mut message.attributes {
                    if let Attribute::Peer(peer) = attribute {
                        peer.set_port(0);
                    }
                }
                return;
            }
            _ => {
                if place < message.attributes.len() {
                    message.attributes.remove(place);
                }
                return;
            }
        };
        message.attributes.insert(place, attribute);
    }
}

/// Changes bytes of the frame.
pub fn mutate(rng: &mut StdRng, packet: &mut Packet) {
    for _ in 0..rng.random_range(1..4) {
        let bits = if rng.random() { 1 << rng.random_range(0..8) } else { rng.random_range(1..=255) };
        packet.mutations.push(match rng.random_range(0..10) {
            0 => Mutation::Cut { at: rng.random() },
            1..4 => Mutation::Xor { at: rng.random(), bits },
            _ => Mutation::XorHeader { at: rng.random_range(0..100), bits },
        });
    }
    if rng.random_bool(0.8) {
        packet.mutations.push(Mutation::RepairIp);
    }
}

fn near_zero(rng: &mut impl Rng) -> u16 {
    let small: u16 = rng.random_range(1..20);
    match rng.random_range(0..5) {
        0 | 1 => small,
        2 | 3 => small.wrapping_neg(),
        _ => rng.random(),
    }
}
