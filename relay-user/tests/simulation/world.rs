//! A world: one server, a few clients at a time, their peers, and a network between them that loses, duplicates
//! and reorders, with a clock that jumps. Everything follows from the seed.

use std::{net::SocketAddr, sync::LazyLock};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use relay_user::turn::{ClientAddr, Config, FiveTuple, ServerAddr, Transport};

use crate::{
    ask::{Allocate, Ask, Flaw, Nonce, Sender, Sent, User},
    check,
    model::{Model, Relay, Rules, Verdict},
    pair::{
        Algorithm, Auth, HOST_IP, Happened, LISTENER, OTHER_PASSWORD, OTHER_USER, PASSWORD, Pair, RELAY_IP,
        USER, seconds,
    },
    tally::Tally,
    wire::{self, Builder, Message},
};

const CLIENTS: usize = 4;
/// Sessions of one world, and the steps it has for them: where clients are sent elsewhere there are none.
const SESSIONS: u64 = 100;
const STEPS: u64 = 10_000;
const STEPS_ELSEWHERE: u64 = 300;

const RELAY_IPV6: &str = "2a0a:1::1";
const LISTENER_IPV6: &str = "[2a0a:2::1]:3478";
const EXTERNAL_IPS: [&str; 2] = ["203.0.113.99", "2a0a:9::99"];

pub static USERS: LazyLock<[User; 2]> = LazyLock::new(|| {
    [(USER, PASSWORD), (OTHER_USER, OTHER_PASSWORD)].map(|(name, password)| User::new(name, password))
});

pub struct World {
    pub rng: SmallRng,
    pub pair: Pair,
    pub model: Model,
    pub clients: Vec<Client>,
    /// Requests that are late, or that their senders will repeat for want of an answer.
    pub delayed: Vec<Sent>,
    /// The last token that was given out.
    pub token: Option<[u8; 8]>,
    pub tally: Tally,
    pub steps: u64,
    transactions: u64,
    next_port: u16,
    settled: u64,
}

/// A client for the time of one session.
pub struct Client {
    pub five_tuple: FiveTuple,
    pub user: &'static User,
    pub nonce: Option<Nonce>,
    auth: Auth,
    has_allocated: bool,
}

impl Client {
    /// Who requests are from, once it has a nonce.
    pub fn sender(&self) -> Option<Sender> {
        let Self { five_tuple, user, auth, ref nonce, .. } = *self;
        nonce.clone().map(|nonce| Sender { five_tuple, user, auth, nonce })
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let rules = rules(&mut rng);
        let mut pair = Pair::with(|config| configure(config, &rules));
        if let Some(meters) = rules.meters {
            // The first is nobody's.
            pair.share_meters(1 + meters);
        }
        let mut world = Self {
            pair,
            model: Model::new(rules),
            rng,
            clients: Vec::new(),
            delayed: Vec::new(),
            token: None,
            tally: Tally::default(),
            steps: 0,
            transactions: 0,
            next_port: 1024,
            settled: 0,
        };
        for _ in 0..CLIENTS {
            let client = world.newcomer();
            world.clients.push(client);
        }
        world
    }

    /// Lives through all its sessions, and ends without a trace of them.
    pub fn run(&mut self) {
        let steps = if self.model.rules.redirected.is_empty() { STEPS } else { STEPS_ELSEWHERE };
        while self.tally.of("session") < SESSIONS && self.steps < steps {
            self.step();
        }
        self.finish();
    }

    pub fn newcomer(&mut self) -> Client {
        self.next_port += 1;
        let is_ipv6 = self.rng.random_bool(0.3);
        let last = self.rng.random_range(1..5u8);
        let ip =
            if is_ipv6 { [0x2a0a, 3, 0, 0, 0, 0, 0, last.into()].into() } else { [203, 0, 113, last].into() };
        let five_tuple = FiveTuple {
            client: ClientAddr(SocketAddr::new(ip, self.next_port)),
            server: ServerAddr(if is_ipv6 { LISTENER_IPV6 } else { LISTENER }.parse().unwrap()),
            transport: Transport::Udp,
        };
        let user = USERS.choose(&mut self.rng).unwrap();
        // As RFC 5389 had it, as RFC 8489 has it, and everything in between.
        let auth = Auth {
            userhash: self.rng.random(),
            algorithm: *[None, Some(Algorithm::Md5), Some(Algorithm::Sha256)].choose(&mut self.rng).unwrap(),
            sha256: self.rng.random(),
        };
        Client { five_tuple, user, auth, nonce: None, has_allocated: false }
    }

    fn step(&mut self) {
        self.steps += 1;
        let client = self.rng.random_range(0..self.clients.len());
        match self.rng.random_range(0..100) {
            0..50 => self.act(client),
            50..54 => self.deliver_delayed(),
            54..64 => self.channel_data(client),
            64..71 => self.send(client),
            71..80 => self.peer_sends(client),
            80..84 => self.icmp(client),
            84..95 => self.time_passes(),
            95..99 => self.hostile(client),
            _ => self.fault(),
        }
        self.settle();
        check::justified(self);
    }

    /// The model forgets what has ended, and clients whose session is over give way to others.
    pub fn settle(&mut self) {
        let Self { model, tally, pair, settled, .. } = self;
        if *settled != pair.now {
            *settled = pair.now;
            model.expire(pair.now, |what| tally.count(what));
        }
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            let lives = self.model.granted.contains_key(&client.five_tuple);
            if client.has_allocated && !lives {
                self.tally.count("session");
                // Some stay where they are and begin again.
                if self.rng.random_bool(0.2) {
                    self.tally.count("session: begun again from the same address");
                    self.clients[index].has_allocated = false;
                } else {
                    self.clients[index] = self.newcomer();
                }
            } else if lives {
                self.clients[index].has_allocated = true;
            }
        }
    }

    /// The request may be lost, late, or arrive twice; its answer may be lost.
    pub fn network(&mut self, sent: Sent, client: usize) {
        match self.rng.random_range(0..20) {
            0 => self.tally.count("network: lost"),
            1 => {
                self.tally.count("network: late");
                self.delayed.push(sent);
            }
            2 => {
                self.tally.count("network: answer lost");
                self.request(&sent);
                self.delayed.push(sent);
            }
            3 => {
                self.tally.count("network: twice");
                self.request(&sent);
                self.request(&sent);
            }
            _ => {
                let Some(response) = self.request(&sent) else { return };
                if response.class == wire::ERROR && response.error() == 438 {
                    self.learn(client, &response);
                }
            }
        }
    }

    fn deliver_delayed(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let which = self.rng.random_range(0..self.delayed.len());
        let sent = if self.rng.random_bool(0.8) {
            self.delayed.swap_remove(which)
        } else {
            self.delayed[which].clone()
        };
        self.request(&sent);
    }

    /// A request arrives, and is answered as the model says.
    pub fn request(&mut self, sent: &Sent) -> Option<Message> {
        self.settle();
        let now = self.pair.now;
        let verdict = self.model.verdict(now, sent);
        let faults = self.pair.open_errors.len();
        let happened = self.deliver(sent.by.five_tuple, &sent.datagram);
        let had_fault = self.pair.open_errors.len() < faults;
        if self.model.rules.shy && happened.is_silence() && verdict.is_for_strangers(sent) {
            self.tally.count("limit: a stranger is not answered");
            return None;
        }
        let response = only_response(&happened, sent.by.five_tuple);
        assert_eq!(response.transaction, sent.transaction(), "STUN-009");
        if response.is_success() {
            assert_eq!(verdict, Verdict::Success, "{sent:?}");
            self.granted(now, sent, &response, had_fault);
        } else {
            let code = response.error();
            match &verdict {
                _ if had_fault && code == 508 => {
                    if let Ask::Allocate(ask) = &sent.ask {
                        self.model.lose_reservation(ask);
                    }
                }
                Verdict::Refused(codes) if codes.contains(&code) => {}
                _ => panic!("{code}, but {verdict:?}: {sent:?}"),
            }
            self.tally.count(&format!("error {code}"));
        }
        self.settle();
        Some(response)
    }

    fn granted(&mut self, now: u64, sent: &Sent, response: &Message, had_fault: bool) {
        if let Ask::Allocate(ask) = &sent.ask
            && !self.model.granted.contains_key(&sent.by.five_tuple)
        {
            self.token = response.attribute(0x0022).map(|token| token.try_into().unwrap()).or(self.token);
            if !had_fault {
                let (families, missing) = self.model.expected_families(ask);
                assert_eq!(response.addresses(0x0016).len(), families.len(), "TURN-055, TURN-056: {sent:?}");
                let error =
                    response.attribute(0x8001).map(|e| (e[0], u16::from(e[2]) * 100 + u16::from(e[3])));
                assert_eq!(error, missing, "TURN-055");
            }
        }
        let what = self.model.grant(now, sent, response);
        self.tally.count(what);
    }

    /// A first request, without credentials.
    pub fn ask_for_a_nonce(&mut self, client: usize) {
        let stranger = Builder::new(wire::REQUEST, wire::ALLOCATE, self.transaction()).build();
        let five_tuple = self.clients[client].five_tuple;
        let happened = self.deliver(five_tuple, &stranger);
        if self.model.rules.shy && happened.is_silence() {
            return self.tally.count("limit: a stranger is not answered");
        }
        let response = only_response(&happened, five_tuple);
        assert_eq!(response.error(), 401);
        self.tally.count("error 401");
        self.learn(client, &response);
    }

    fn learn(&mut self, client: usize, response: &Message) {
        let text = response.attribute(0x0015).expect("a challenge has a nonce").to_vec();
        let five_tuple = self.clients[client].five_tuple;
        self.clients[client].nonce = Some(Nonce { text, client: five_tuple.client.0, issued: self.pair.now });
    }

    /// At the end nothing is left of anything, and every port can be had.
    fn finish(&mut self) {
        self.pair.open_errors.clear();
        self.pair.advance(seconds(4000));
        self.settle();
        check::nothing_is_left(self);
        self.clients.clear();
        for _ in 0..2 * self.model.rules.ports.len() * self.model.rules.relays.len() {
            self.pair.advance(seconds(1));
            let client = self.newcomer();
            self.clients.push(client);
            self.ask_for_a_nonce(self.clients.len() - 1);
            let family = *[Some(1), Some(2)].choose(&mut self.rng).unwrap();
            let ask = Ask::Allocate(Allocate { transport: Some(17), family, ..Allocate::default() });
            if let Some(by) = self.clients.last().and_then(Client::sender) {
                let sent = Sent::new(by, self.transaction(), ask, Flaw::None);
                self.request(&sent);
            }
            check::justified(self);
        }
        self.pair.server.shutdown(self.pair.now);
        self.pair.drain();
        self.model.granted.clear();
        check::nothing_is_left(self);
    }

    pub fn deliver(&mut self, from: FiveTuple, datagram: &[u8]) -> Happened {
        self.pair.clients[0].five_tuple = from;
        self.pair.deliver(0, datagram)
    }

    pub fn transaction(&mut self) -> [u8; 12] {
        self.transactions += 1;
        let mut transaction = [0; 12];
        transaction[4..].copy_from_slice(&self.transactions.to_be_bytes());
        transaction
    }
}

fn rules(rng: &mut SmallRng) -> Rules {
    let mut relays: Vec<_> = [RELAY_IP, RELAY_IPV6]
        .into_iter()
        .zip(EXTERNAL_IPS)
        .map(|(ip, external)| {
            let ip = ip.parse().unwrap();
            Relay { ip, external: if rng.random() { external.parse().unwrap() } else { ip } }
        })
        .collect();
    match rng.random_range(0..10) {
        0 => drop(relays.remove(0)),
        1..4 => drop(relays.remove(1)),
        _ => {}
    }
    let first_port = 50_000 + rng.random_range(0..2);
    let is_redirected = rng.random_bool(0.05);
    Rules {
        strict_permissions: rng.random(),
        relays,
        ports: first_port..=first_port + rng.random_range(2..10),
        own: [HOST_IP.parse().unwrap()].into_iter().chain(listeners().map(|l| l.ip())).collect(),
        allocations: limit(rng, 0.2, 3, 5),
        allocations_per_user: limit(rng, 0.2, 2, 4),
        permissions: limit(rng, 0.3, 2, 5).min(1024),
        channels: limit(rng, 0.3, 1, 4).min(1024),
        meters: rng.random_bool(0.2).then(|| rng.random_range(0..CLIENTS)),
        hairpin: rng.random_bool(0.9),
        shy: rng.random_bool(0.1),
        redirected: if is_redirected { vec![relay_user::turn::Family::V4] } else { vec![] },
    }
}

fn limit(rng: &mut SmallRng, probability: f64, min: usize, max: usize) -> usize {
    if rng.random_bool(probability) { rng.random_range(min..=max) } else { usize::MAX }
}

fn listeners() -> impl Iterator<Item = SocketAddr> {
    [LISTENER, LISTENER_IPV6].into_iter().map(|listener| listener.parse().unwrap())
}

fn configure(config: &mut Config, rules: &Rules) {
    let or_none = |limit: usize| if limit == usize::MAX { 0 } else { limit as u32 };
    config.listeners = listeners().collect();
    config.relay_addresses = rules.relays.iter().map(|relay| relay.ip).collect();
    let mapped = rules.relays.iter().filter(|relay| relay.ip != relay.external);
    config.external_addresses = mapped.map(|relay| (relay.ip, relay.external)).collect();
    config.relay_ports = rules.ports.clone();
    config.strict_permissions = rules.strict_permissions;
    config.limits.allocations = or_none(rules.allocations);
    config.limits.allocations_per_user = or_none(rules.allocations_per_user);
    config.limits.permissions = rules.permissions as u32;
    config.limits.channels = rules.channels as u32;
    config.limits.bytes_per_second = if rules.meters.is_some() { 1_000_000 } else { 0 };
    config.hairpin = rules.hairpin;
    config.limits.unauthenticated_per_second = if rules.shy { 2 } else { 0 };
    if !rules.redirected.is_empty() {
        config.alternate_servers = vec!["198.51.100.9:3478".parse().unwrap()];
    }
}

pub fn only_response(happened: &Happened, five_tuple: FiveTuple) -> Message {
    let mut responses = happened.to_client();
    let (Some((to, response)), None) = (responses.next(), responses.next()) else {
        panic!("STUN-039: one response, not {happened:?}");
    };
    assert_eq!(to, five_tuple, "STUN-036, TURN-082");
    let response = Message::parse(response);
    assert!(response.len < 548, "STUN-017");
    response
}
