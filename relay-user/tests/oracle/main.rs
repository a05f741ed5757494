//! Another implementation of RFC 8656, `turn-server-proto`, as oracle: the same requests and data to both, which must
//! answer alike. Where the two differ, [`Difference`] says who follows the RFC.
#![expect(unreachable_pub, reason = "a test binary has no outside")]

#[expect(dead_code, reason = "shared with the simulation, which uses all of it")]
#[path = "../simulation/ask.rs"]
mod ask;
mod difference;
mod ours;
#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../protocol/pair.rs"]
mod pair;
mod theirs;
#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../protocol/wire.rs"]
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::LazyLock,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use ask::{Allocate, Ask, Flaw, Nonce, Sender, Sent, User};
use difference::Difference;
use ours::Ours;
use pair::{Auth, LISTENER, PASSWORD, SECOND, USER};
use relay_user::turn::{ClientAddr, Family, FiveTuple, ServerAddr, Transport};
use theirs::Theirs;
use wire::{Builder, Message};

const SEQUENCES: u64 = 3_000;
const STEPS: usize = 40;
/// A nonce outlives a sequence: when it has to be renewed is for each server to choose.
const LONGEST: u64 = 3_400 * SECOND;

static ALICE: LazyLock<User> = LazyLock::new(|| User::new(USER, PASSWORD));

/// A server that is asked.
trait Server {
    /// What comes back for a datagram from a client, or from a peer of the client's allocation.
    fn client_sends(&mut self, now: u64, from: FiveTuple, datagram: &[u8]) -> Vec<Out>;
    fn peer_sends(&mut self, now: u64, to: FiveTuple, peer: SocketAddr, data: &[u8]) -> Vec<Out>;
    fn time(&mut self, now: u64);
}

/// What a server sends, whatever relayed addresses it has chosen.
#[derive(Clone, Debug, PartialEq)]
enum Out {
    Response(Message),
    Indication { to: FiveTuple, peer: SocketAddr, data: Vec<u8> },
    ChannelData { to: FiveTuple, datagram: Vec<u8> },
    ToPeer { peer: SocketAddr, data: Vec<u8> },
}

#[test]
fn two_implementations_answer_alike() {
    let first = rand::random::<u64>() >> 16;
    println!("sequences from seed {first} on");
    let mut tally = BTreeMap::new();
    for seed in first..first + SEQUENCES {
        Sequence::new(seed).run(&mut tally);
    }
    for (what, count) in &tally {
        println!("{count:>8}  {what}");
    }
    for what in [
        "success, 1 relayed addresses",
        "success, 2 relayed addresses",
        "error 400",
        "error 401",
        "error 420",
        "error 437",
        "error 438",
        "error 442",
        "error 443",
        "to peer",
        "channel data",
        "indication",
    ] {
        assert!(tally.get(what).is_some_and(|&count| count >= 50), "{what} is rare");
    }
    for difference in Difference::ALL {
        assert!(tally.contains_key(&difference.to_string()), "no longer so: {difference}");
    }
}

struct Sequence {
    seed: u64,
    rng: SmallRng,
    now: u64,
    transactions: u64,
    clients: Vec<FiveTuple>,
    ours: Ours,
    theirs: Theirs,
    nonces: BTreeMap<FiveTuple, [Nonce; 2]>,
    /// What has been sent, for it may come again.
    sent: Vec<(FiveTuple, [u8; 12], Ask)>,
    /// A CreatePermission for peers of both families was refused.
    mixed: bool,
}

impl Sequence {
    fn new(seed: u64) -> Self {
        let clients = (1..3).map(|last| FiveTuple {
            client: ClientAddr(([203, 0, 113, last], 4000).into()),
            server: ServerAddr(LISTENER.parse().unwrap()),
            transport: Transport::Udp,
        });
        let mut sequence = Self {
            seed,
            rng: SmallRng::seed_from_u64(seed),
            now: 1_000 * SECOND,
            transactions: 0,
            clients: clients.collect(),
            ours: Ours::new(),
            theirs: Theirs::new(),
            nonces: BTreeMap::new(),
            sent: Vec::new(),
            mixed: false,
        };
        for client in sequence.clients.clone() {
            let stranger = Builder::new(wire::REQUEST, wire::ALLOCATE, sequence.transaction()).build();
            let ours =
                nonce(client, sequence.now, &sequence.ours.client_sends(sequence.now, client, &stranger));
            let theirs =
                nonce(client, sequence.now, &sequence.theirs.client_sends(sequence.now, client, &stranger));
            sequence.nonces.insert(client, [ours, theirs]);
        }
        sequence
    }

    fn run(&mut self, tally: &mut BTreeMap<String, u64>) {
        for _ in 0..STEPS {
            let client = *self.clients.choose(&mut self.rng).unwrap();
            let goes_on = match self.rng.random_range(0..20) {
                0..12 => self.request(client, tally),
                12..14 => self.channel_data(client, tally),
                14..16 => self.send(client, tally),
                16..18 => self.peer_sends(client, tally),
                _ => self.time_passes(),
            };
            // Where the two have parted, what follows proves nothing.
            if !goes_on {
                break;
            }
        }
    }

    fn request(&mut self, client: FiveTuple, tally: &mut BTreeMap<String, u64>) -> bool {
        let flaw = match self.rng.random_range(0..10) {
            0 => *Flaw::ALL.choose(&mut self.rng).unwrap(),
            _ => Flaw::None,
        };
        let again = self.sent.last().filter(|sent| sent.0 == client && flaw == Flaw::None).cloned();
        // Deletions more often than others, for what happens then is the most delicate.
        let likely =
            |ask: &Ask| if matches!(ask, Ask::Refresh { lifetime: Some(0), .. }) { 0.6 } else { 0.1 };
        let (transaction, ask) = match again {
            Some((_, transaction, ask)) if self.rng.random_bool(likely(&ask)) => (transaction, ask),
            _ => (self.transaction(), self.ask(client)),
        };
        self.sent.push((client, transaction, ask.clone()));
        let [ours, theirs] = self.nonces[&client].clone();
        let by = Sender { five_tuple: client, user: &ALICE, auth: Auth::RFC5389, nonce: ours };
        let sent = Sent::new(by, transaction, ask.clone(), flaw);
        let ours = response(self.ours.client_sends(self.now, client, &sent.datagram));
        let theirs = self.ask_them(&sent, theirs);
        let expected = ours.as_ref().map(Answer::of);
        let what = match &expected {
            None => "silence".to_owned(),
            Some(Answer { code: 0, relayed, .. }) => format!("success, {} relayed addresses", relayed.len()),
            Some(Answer { code, .. }) => format!("error {code}"),
        };
        *tally.entry(what).or_default() += 1;
        if theirs.as_ref().map(Answer::of) == expected {
            self.mixed |= matches!(&ask, Ask::CreatePermission { peers } if peers.len() > 1)
                && expected.is_some_and(|expected| expected.code == 443);
            return true;
        }
        let difference = Difference::explain(&sent, ours.as_ref(), theirs.as_ref());
        let Some(difference) = difference else {
            panic!("seed {}: {:?} {:?}: ours {ours:?}, theirs {theirs:?}", self.seed, sent.ask, sent.flaw);
        };
        *tally.entry(difference.to_string()).or_default() += 1;
        false
    }

    fn ask_them(&mut self, sent: &Sent, nonce: Nonce) -> Option<Message> {
        let by = Sender { nonce, ..sent.by.clone() };
        let same = Sent::new(by, sent.transaction(), sent.ask.clone(), sent.flaw);
        response(self.theirs.client_sends(self.now, same.by.five_tuple, &same.datagram))
    }

    fn ask(&mut self, client: FiveTuple) -> Ask {
        let has_allocation = self.ours.has_allocation(client);
        let rng = &mut self.rng;
        let lifetime = *[None, None, Some(0), Some(1), Some(777), Some(5000)].choose(rng).unwrap();
        match rng.random_range(0..20) {
            0 => Ask::Binding,
            1..3 => self.allocate(lifetime),
            3..16 if !has_allocation => self.allocate(lifetime),
            3..7 => Ask::Refresh { lifetime, family: *[None, None, Some(1), Some(2)].choose(rng).unwrap() },
            7..12 => {
                let count = rng.random_range(0..3);
                Ask::CreatePermission { peers: (0..count).map(|_| self.peer()).collect() }
            }
            _ => {
                let number = *[
                    None,
                    Some(0x3fff),
                    Some(0x5000),
                    Some(0x8000),
                    Some(0x4000),
                    Some(0x4001),
                    Some(0x4000),
                    Some(0x4001),
                    Some(0x4002),
                ]
                .choose(rng)
                .unwrap();
                let is_given = rng.random_bool(0.95);
                Ask::ChannelBind { number, peer: is_given.then(|| self.peer()) }
            }
        }
    }

    fn allocate(&mut self, lifetime: Option<u32>) -> Ask {
        let transport = match self.rng.random_range(0..10) {
            0 => None,
            1 => Some(1),
            _ => Some(17),
        };
        let (family, additional) = *[
            (None, None),
            (Some(1), None),
            (Some(2), None),
            (None, Some(2)),
            (None, Some(1)),
            (Some(1), Some(2)),
        ]
        .choose(&mut self.rng)
        .unwrap();
        Ask::Allocate(Allocate { transport, lifetime, family, additional, ..Allocate::default() })
    }

    fn peer(&mut self) -> SocketAddr {
        if self.rng.random_bool(0.3) {
            return "[2600::8]:5000".parse().unwrap();
        }
        ([8, 8, 8, self.rng.random_range(8..10)], self.rng.random_range(5000..5002)).into()
    }

    fn channel_data(&mut self, client: FiveTuple, tally: &mut BTreeMap<String, u64>) -> bool {
        let datagram = wire::channel_data(self.rng.random_range(0x4000..0x4003), b"data");
        let ours = self.ours.client_sends(self.now, client, &datagram);
        let theirs = self.theirs.client_sends(self.now, client, &datagram);
        self.same(&ours, &theirs, tally)
    }

    fn send(&mut self, client: FiveTuple, tally: &mut BTreeMap<String, u64>) -> bool {
        let (transaction, peer) = (self.transaction(), self.peer());
        let send = Builder::new(wire::INDICATION, wire::SEND, transaction)
            .attributes(&[wire::peer_address(peer), wire::data(b"data")])
            .build();
        let ours = self.ours.client_sends(self.now, client, &send);
        let theirs = self.theirs.client_sends(self.now, client, &send);
        self.same(&ours, &theirs, tally)
    }

    fn peer_sends(&mut self, client: FiveTuple, tally: &mut BTreeMap<String, u64>) -> bool {
        let peer = self.peer();
        let ours = self.ours.peer_sends(self.now, client, peer, b"data");
        let theirs = self.theirs.peer_sends(self.now, client, peer, b"data");
        self.same(&ours, &theirs, tally)
    }

    fn same(&self, ours: &[Out], theirs: &[Out], tally: &mut BTreeMap<String, u64>) -> bool {
        if ours != theirs && ours.is_empty() && self.mixed {
            *tally.entry(Difference::PartialPermissions.to_string()).or_default() += 1;
            return false;
        }
        assert_eq!(ours, theirs, "seed {}", self.seed);
        let what = match ours.first() {
            None => "nothing",
            Some(Out::Response(_)) => panic!("a response to data"),
            Some(Out::Indication { .. }) => "indication",
            Some(Out::ChannelData { .. }) => "channel data",
            Some(Out::ToPeer { .. }) => "to peer",
        };
        *tally.entry(what.to_owned()).or_default() += 1;
        true
    }

    /// Never to the very end of a lifetime: for them that instant is still part of it.
    fn time_passes(&mut self) -> bool {
        let seconds = *[1, 10, 100, 250, 500].choose(&mut self.rng).unwrap();
        self.now += seconds * SECOND + self.rng.random_range(1..SECOND / 2);
        self.ours.time(self.now);
        self.theirs.time(self.now);
        self.now < LONGEST
    }

    fn transaction(&mut self) -> [u8; 12] {
        self.transactions += 1;
        let mut transaction = [0; 12];
        transaction[4..].copy_from_slice(&self.transactions.to_be_bytes());
        transaction
    }
}

fn response(outs: Vec<Out>) -> Option<Message> {
    let mut outs = outs.into_iter();
    match (outs.next(), outs.next()) {
        (None, None) => None,
        (Some(Out::Response(response)), None) => Some(response),
        other => panic!("one response: {other:?}"),
    }
}

/// What a response comes to, whichever addresses the server has chosen.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    /// 0: success.
    code: u16,
    lifetime: Option<u32>,
    relayed: BTreeSet<Family>,
}

impl Answer {
    fn of(response: &Message) -> Self {
        Self {
            code: if response.is_success() { 0 } else { response.error() },
            lifetime: response.has(0x000d).then(|| response.lifetime()),
            relayed: response.addresses(0x0016).into_iter().map(|address| Family::of(address.ip())).collect(),
        }
    }
}

fn nonce(client: FiveTuple, now: u64, outs: &[Out]) -> Nonce {
    let [Out::Response(response)] = outs else { panic!("a challenge, not {outs:?}") };
    let text = response.attribute(0x0015).expect("a challenge has a nonce").to_vec();
    Nonce { text, client: client.client.0, issued: now }
}
