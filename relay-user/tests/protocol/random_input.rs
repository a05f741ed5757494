//! Random, truncated and mutated datagrams: no panic, no amplification (checked by the driver in `pair`),
//! and for strangers no state.

use proptest::{collection::vec, prelude::*, sample::Index};
use relay_user::turn::Session;

use crate::{
    pair::{CHANNEL, PEER, Pair},
    wire::{self, Builder},
};

/// One thing that happens to a datagram on its way.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Truncate(Index),
    Extend(Vec<u8>),
    Splice(Index, Vec<u8>),
    Length(u16),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), 1u8..).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        any::<Index>().prop_map(Mutation::Truncate),
        vec(any::<u8>(), 1..16).prop_map(Mutation::Extend),
        (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Mutation::Splice(at, bytes)),
        any::<u16>().prop_map(Mutation::Length),
    ]
}

impl Mutation {
    fn apply(&self, datagram: &mut Vec<u8>) {
        if datagram.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bits) => *at.get_mut(datagram) ^= bits,
            Self::Truncate(at) => datagram.truncate(at.index(datagram.len())),
            Self::Extend(bytes) => datagram.extend(bytes),
            Self::Splice(at, bytes) => {
                let at = at.index(datagram.len());
                datagram.splice(at..at, bytes.iter().copied());
            }
            Self::Length(length) if datagram.len() >= 4 => {
                datagram[2..4].copy_from_slice(&length.to_be_bytes());
            }
            Self::Length(_) => {}
        }
    }
}

/// A STUN header that is right, with anything behind it.
fn stun_soup() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![
        Just(0x0001u16),
        Just(0x0003),
        Just(0x0004),
        Just(0x0008),
        Just(0x0009),
        Just(0x0016),
        0u16..0x4000
    ];
    let attribute_kinds = prop_oneof![0u16..0x30, 0x8000u16..0x8030, any::<u16>()];
    (kinds, vec((attribute_kinds, vec(any::<u8>(), 0..40)), 0..12)).prop_map(|(kind, attributes)| {
        let mut message = Builder::new(0, 0, [3; 12]).attributes(&attributes).build();
        message[..2].copy_from_slice(&kind.to_be_bytes());
        message
    })
}

/// Datagrams that mean something, from a client that has an allocation, a permission and a channel.
fn meaningful(pair: &mut Pair) -> Vec<Vec<u8>> {
    let mut datagrams: Vec<_> = [
        (wire::ALLOCATE, vec![wire::requested_transport(17), wire::even_port(0), wire::lifetime(777)]),
        (wire::REFRESH, vec![wire::lifetime(0)]),
        (wire::CREATE_PERMISSION, vec![wire::peer(PEER), wire::peer("9.9.9.9:9")]),
        (wire::CHANNEL_BIND, vec![wire::channel_number(0x4001), wire::peer("9.9.9.9:9")]),
    ]
    .into_iter()
    .map(|(method, attributes)| pair.build(0, method, &attributes))
    .collect();
    let send = Builder::new(wire::INDICATION, wire::SEND, [4; 12])
        .attributes(&[wire::data(b"hello"), wire::peer(PEER)])
        .fingerprint();
    datagrams.push(send.build());
    datagrams.push(wire::channel_data(CHANNEL, b"hello"));
    datagrams.push(Builder::new(wire::REQUEST, wire::BINDING, [5; 12]).fingerprint().build());
    datagrams
}

fn ready() -> Pair {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.bind(0, CHANNEL, PEER);
    pair
}

fn sessions(pair: &Pair) -> Vec<Session> {
    pair.server.sessions().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn strangers_leave_no_state_whatever_they_send(
        noise in vec(prop_oneof![vec(any::<u8>(), 0..300), stun_soup()], 1..20),
        mutated in vec((any::<Index>(), vec(mutation(), 0..4)), 1..20),
    ) {
        let mut pair = ready();
        let meaningful = meaningful(&mut pair);
        let before = sessions(&pair);
        let (timeout, flows) = (pair.server.poll_timeout(), pair.flows.clone());
        // Credentials do not help: the nonce was given to another address.
        let stranger = pair.add_client("203.0.113.66:6666");
        for datagram in &noise {
            pair.deliver(stranger, datagram);
        }
        for (which, mutations) in &mutated {
            let mut datagram = which.get(&meaningful).clone();
            mutations.iter().for_each(|mutation| mutation.apply(&mut datagram));
            pair.deliver(stranger, &datagram);
        }
        prop_assert_eq!(sessions(&pair), before);
        prop_assert_eq!(pair.server.poll_timeout(), timeout);
        prop_assert_eq!(&pair.flows, &flows);
    }

    #[test]
    fn on_the_5_tuple_of_an_allocation_only_valid_requests_change_it(
        noise in vec(prop_oneof![vec(any::<u8>(), 0..300), stun_soup()], 1..20),
        mutated in vec((any::<Index>(), any::<Index>(), 1u8..), 1..20),
    ) {
        let mut pair = ready();
        let meaningful = meaningful(&mut pair);
        let state = |pair: &Pair| {
            let mut sessions = sessions(pair);
            // Data is relayed, of course.
            sessions.iter_mut().for_each(|session| session.to_peer = Default::default());
            sessions
        };
        let before = state(&pair);
        for datagram in &noise {
            pair.deliver(0, datagram);
        }
        for (which, at, bits) in &mutated {
            let mut datagram = which.get(&meaningful).clone();
            *at.get_mut(&mut datagram) ^= bits;
            pair.deliver(0, &datagram);
        }
        prop_assert_eq!(state(&pair), before);
    }

    #[test]
    fn peers_leave_no_state_whatever_they_send(
        datagrams in vec((0u8..4, any::<u16>(), vec(any::<u8>(), 0..1500)), 1..30),
    ) {
        let mut pair = ready();
        let relayed = pair.server.sessions().next().unwrap().relayed[0].address.0;
        let timeout = pair.server.poll_timeout();
        for (last, port, data) in &datagrams {
            let happened = pair.peer_sends(relayed, &format!("8.8.8.{}:{port}", last + 6), data);
            prop_assert_eq!(happened.is_silence(), *last != 2);
        }
        prop_assert_eq!(pair.server.poll_timeout(), timeout);
        prop_assert_eq!(pair.server.totals().permissions, 1);
    }
}
