//! A world: one server, a few clients at a time, their peers, and a network between them that loses, duplicates
//! and reorders, with a clock that jumps. Everything follows from the seed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
};

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use relay_user::turn::{ClientAddr, FiveTuple, OpenError, ServerAddr, Transport};

use crate::{
    ask::{Allocate, Ask, Flaw, Nonce, Sender, Sent, User, xor_peer},
    check,
    model::{Model, Relay, Route, Rules, Verdict},
    pair::{
        self, Algorithm, Auth, HOST_IP, Happened, LISTENER, OTHER_PASSWORD, OTHER_USER, PASSWORD, Pair,
        RELAY_IP, SECOND, USER,
    },
    tally::Tally,
    wire::{self, Builder, Message},
};

const CLIENTS: usize = 4;
/// Sessions of one world.
const SESSIONS: u64 = 100;
const CHANNELS: [u16; 4] = [0x4000, 0x4001, 0x4002, 0x4fff];

static USERS: LazyLock<[User; 2]> = LazyLock::new(|| {
    [(USER, PASSWORD), (OTHER_USER, OTHER_PASSWORD)].map(|(name, password)| User::new(name, password))
});

pub struct World {
    rng: SmallRng,
    pub pair: Pair,
    pub model: Model,
    clients: Vec<Client>,
    /// Requests that are late, or that their senders will repeat for want of an answer.
    delayed: Vec<Sent>,
    transactions: u64,
    next_port: u16,
    settled: u64,
    pub tally: Tally,
    pub steps: u64,
}

/// A client for the time of one session.
struct Client {
    five_tuple: FiveTuple,
    user: &'static User,
    auth: Auth,
    nonce: Option<Nonce>,
    has_allocated: bool,
}

impl Client {
    fn sender(&self) -> Option<Sender> {
        let Self { five_tuple, user, auth, ref nonce, .. } = *self;
        nonce.clone().map(|nonce| Sender { five_tuple, user, auth, nonce })
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let relay_ip: IpAddr = RELAY_IP.parse().unwrap();
        let external: Option<IpAddr> = rng.random_bool(0.5).then(|| "203.0.113.99".parse().unwrap());
        let first_port = 50_000 + rng.random_range(0..2);
        let rules = Rules {
            strict_permissions: rng.random(),
            relays: vec![Relay { ip: relay_ip, external: external.unwrap_or(relay_ip) }],
            ports: first_port..=first_port + rng.random_range(2..10),
            own: vec![HOST_IP.parse().unwrap(), LISTENER.parse::<SocketAddr>().unwrap().ip()],
            permissions: 1024,
            channels: usize::MAX,
            nonce_seconds: 3600,
        };
        let pair = Pair::with(|config| {
            config.limits.unauthenticated_per_second = 0;
            config.relay_ports = rules.ports.clone();
            config.strict_permissions = rules.strict_permissions;
            config.external_addresses.extend(external.map(|external| (relay_ip, external)));
        });
        let mut world = Self {
            rng,
            pair,
            model: Model::new(rules),
            clients: Vec::new(),
            delayed: Vec::new(),
            transactions: 0,
            next_port: 1024,
            settled: 0,
            tally: Tally::default(),
            steps: 0,
        };
        for _ in 0..CLIENTS {
            let client = world.newcomer();
            world.clients.push(client);
        }
        world
    }

    /// Lives through all its sessions, and ends without a trace of them.
    pub fn run(&mut self) {
        while self.tally.of("session") < SESSIONS {
            self.step();
        }
        self.finish();
    }

    fn newcomer(&mut self) -> Client {
        self.next_port += 1;
        let client = SocketAddr::new([203, 0, 113, self.rng.random_range(1..5)].into(), self.next_port);
        let five_tuple = FiveTuple {
            client: ClientAddr(client),
            server: ServerAddr(LISTENER.parse().unwrap()),
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
            50..58 => self.deliver_delayed(),
            58..66 => self.channel_data(client),
            66..72 => self.send(client),
            72..82 => self.peer_sends(client),
            82..90 => self.time_passes(),
            90..99 => self.hostile(client),
            _ => self.fault(),
        }
        self.settle();
        check::justified(self);
    }

    /// The model forgets what has ended, and clients whose session is over give way to others.
    fn settle(&mut self) {
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
                    self.clients[index].has_allocated = false;
                } else {
                    self.clients[index] = self.newcomer();
                }
            } else if lives {
                self.clients[index].has_allocated = true;
            }
        }
    }

    // Requests.

    /// A client does what clients do, now and then badly.
    fn act(&mut self, client: usize) {
        if self.clients[client].nonce.is_none() {
            return self.ask_for_a_nonce(client);
        }
        let has = self.model.granted.contains_key(&self.clients[client].five_tuple);
        let ask = match self.rng.random_range(0..100) {
            0..3 => Ask::Binding,
            3..10 => self.allocate(),
            10..95 if !has => self.allocate(),
            10..25 => Ask::Refresh { lifetime: self.lifetime(), family: self.family(0.05) },
            25..32 => Ask::Refresh { lifetime: Some(0), family: self.family(0.05) },
            32..62 => {
                let peers = self.rng.random_range(0..12);
                let peers = (0..(peers / 4)).map(|_| self.peer()).collect();
                Ask::CreatePermission { peers }
            }
            _ => self.channel_bind(client),
        };
        let flaw =
            if self.rng.random_bool(0.1) { *Flaw::ALL.choose(&mut self.rng).unwrap() } else { Flaw::None };
        let transaction = self.transaction();
        let mut by = self.clients[client].sender().expect("it asked for a nonce");
        if self.rng.random_bool(0.03) {
            by.user = USERS.choose(&mut self.rng).unwrap();
        }
        let sent = Sent::new(by, transaction, ask, flaw);
        self.network(sent, Some(client));
    }

    fn allocate(&mut self) -> Ask {
        let rng = &mut self.rng;
        let transport = match rng.random_range(0..100) {
            0 => None,
            1 => Some(6),
            _ => Some(17),
        };
        let even = rng.random_bool(0.1).then_some(false);
        let lifetime = self.lifetime();
        let family = self.family(0.1);
        Ask::Allocate(Allocate { transport, lifetime, family, additional: None, even })
    }

    fn channel_bind(&mut self, client: usize) -> Ask {
        let bound = self.bound(client);
        let (number, peer) = match self.rng.random_range(0..10) {
            0..3 if !bound.is_empty() => *bound.choose(&mut self.rng).unwrap(),
            0..8 => {
                let numbers: Vec<_> =
                    CHANNELS.into_iter().filter(|&number| bound.iter().all(|b| b.0 != number)).collect();
                (numbers.choose(&mut self.rng).copied().unwrap_or(CHANNELS[0]), self.peer())
            }
            8 => (self.rng.random(), self.peer()),
            _ => (*CHANNELS.choose(&mut self.rng).unwrap(), self.peer()),
        };
        Ask::ChannelBind { number: self.given(number), peer: self.given(peer) }
    }

    /// The channels that a client has bound, and to whom.
    fn bound(&self, client: usize) -> Vec<(u16, SocketAddr)> {
        let granted = self.model.granted.get(&self.clients[client].five_tuple);
        let channels = granted.into_iter().flat_map(|granted| &granted.channels);
        channels.map(|(&number, &(peer, _))| (number, peer)).collect()
    }

    /// A peer that a client has a permission for, mostly.
    fn permitted_peer(&mut self, client: usize) -> SocketAddr {
        let granted = self.model.granted.get(&self.clients[client].five_tuple);
        let relayed = granted.into_iter().flat_map(|granted| granted.relayed.values());
        let ips: Vec<_> = relayed.flat_map(|relayed| relayed.permissions.keys().copied()).collect();
        let peer = self.peer();
        match ips.choose(&mut self.rng) {
            Some(&ip) if self.rng.random_bool(0.7) => SocketAddr::new(ip, self.peer_port(ip)),
            _ => peer,
        }
    }

    fn peer_port(&mut self, ip: IpAddr) -> u16 {
        let is_relay = self.model.rules.relays.iter().any(|relay| [relay.ip, relay.external].contains(&ip));
        if is_relay {
            self.rng.random_range(self.model.rules.ports.clone())
        } else {
            5000 + self.rng.random_range(0..2)
        }
    }

    fn lifetime(&mut self) -> Option<u32> {
        match self.rng.random_range(0..6) {
            0..3 => None,
            3 => Some(u32::MAX),
            4 => Some(1),
            _ => Some(self.rng.random_range(1..5000)),
        }
    }

    fn family(&mut self, probability: f64) -> Option<u8> {
        self.rng.random_bool(probability).then(|| *[1, 1, 2, 7].choose(&mut self.rng).unwrap())
    }

    fn given<T>(&mut self, value: T) -> Option<T> {
        self.rng.random_bool(0.98).then_some(value)
    }

    /// A peer outside, a relayed address of this server, or an address that is no peer.
    fn peer(&mut self) -> SocketAddr {
        match self.rng.random_range(0..20) {
            0..12 => ([8, 8, 8, self.rng.random_range(1..4)], 5000 + self.rng.random_range(0..2)).into(),
            12..18 => {
                let relay = self.model.rules.relays[0];
                let ip = if self.rng.random() { relay.ip } else { relay.external };
                SocketAddr::new(ip, self.rng.random_range(self.model.rules.ports.clone()))
            }
            18 => ([8, 8, 8, 8], 0).into(),
            _ => *[
                "127.0.0.1:80",
                "10.0.0.1:80",
                "0.0.0.0:80",
                "224.0.0.1:80",
                "169.254.169.254:80",
                "192.0.2.1:22",
                "77.7.7.7:53",
                "198.51.100.1:3478",
                "[2600::8]:5000",
            ]
            .map(|address| address.parse().unwrap())
            .choose(&mut self.rng)
            .unwrap(),
        }
    }

    fn ask_for_a_nonce(&mut self, client: usize) {
        let stranger = Builder::new(wire::REQUEST, wire::ALLOCATE, self.transaction()).build();
        let five_tuple = self.clients[client].five_tuple;
        let happened = self.deliver(five_tuple, &stranger);
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

    /// The request may be lost, late, or arrive twice; its answer may be lost.
    fn network(&mut self, sent: Sent, client: Option<usize>) {
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
                let response = self.request(&sent);
                if let Some(client) = client
                    && response.class == wire::ERROR
                    && response.error() == 438
                {
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
    fn request(&mut self, sent: &Sent) -> Message {
        self.settle();
        let now = self.pair.now;
        let verdict = self.model.verdict(now, sent);
        let faults = self.pair.open_errors.len();
        let happened = self.deliver(sent.by.five_tuple, &sent.datagram);
        let had_fault = self.pair.open_errors.len() < faults;
        let response = only_response(&happened, sent.by.five_tuple);
        assert_eq!(response.transaction, sent.transaction(), "STUN-009");
        if response.is_success() {
            assert_eq!(verdict, Verdict::Success, "{sent:?}");
            let what = self.model.grant(now, sent, &response);
            self.tally.count(what);
        } else {
            let code = response.error();
            match &verdict {
                _ if had_fault && code == 508 => {}
                Verdict::Refused(codes) if codes.contains(&code) => {}
                _ => panic!("{code}, but {verdict:?}: {sent:?}"),
            }
            self.tally.count(&format!("error {code}"));
        }
        self.settle();
        response
    }

    // Data.

    fn channel_data(&mut self, client: usize) {
        let from = self.clients[client].five_tuple;
        let bound = self.bound(client);
        let number = match bound.choose(&mut self.rng) {
            Some(&(number, _)) if self.rng.random_bool(0.9) => number,
            _ => *CHANNELS.choose(&mut self.rng).unwrap(),
        };
        let route = self.model.route_channel(from, number);
        check::fast_path_agrees(self, from, number, &route);
        let happened = self.deliver(from, &wire::channel_data(number, b"data"));
        self.assert_routed(&route, &happened, "channel data");
    }

    fn send(&mut self, client: usize) {
        let from = self.clients[client].five_tuple;
        let (peer, transaction) = (self.permitted_peer(client), self.transaction());
        let send = Builder::new(wire::INDICATION, wire::SEND, transaction)
            .attributes(&[xor_peer(peer, transaction), wire::data(b"data")]);
        let route = self.model.route_send(from, peer);
        let happened = self.deliver(from, &send.build());
        self.assert_routed(&route, &happened, "send");
    }

    fn peer_sends(&mut self, client: usize) {
        let peer = self.permitted_peer(client);
        let granted = self.model.granted.get(&self.clients[client].five_tuple);
        let relayed = granted.and_then(|granted| granted.relayed.values().next());
        let Some(relayed) = relayed.map(|relayed| relayed.address) else { return };
        let route = self.model.route_from_peer(relayed, peer);
        let happened = self.pair.peer_sends(relayed, &peer.to_string(), b"data");
        self.assert_routed(&route, &happened, "from peer");
    }

    fn assert_routed(&mut self, route: &Route, happened: &Happened, what: &str) {
        let how = match *route {
            Route::Nowhere => {
                assert!(happened.is_silence(), "data without a live permission: {happened:?}");
                "dropped"
            }
            Route::ToPeer { relayed, peer } => {
                assert_eq!(happened.to_peer(), (relayed, peer, &b"data"[..]));
                "to peer"
            }
            Route::ToClient { five_tuple, channel: Some(number), .. } => {
                assert!(happened.to_client().all(|(to, _)| to == five_tuple));
                assert_eq!(happened.datagram(), wire::channel_data(number, b"data"));
                "to client, channel"
            }
            Route::ToClient { five_tuple, channel: None, shown } => {
                assert!(happened.to_client().all(|(to, _)| to == five_tuple));
                assert_eq!(happened.data_indication(), (shown, b"data".to_vec()));
                "to client, indication"
            }
        };
        self.tally.count(&format!("{what}: {how}"));
    }

    // Time, faults and foes.

    fn time_passes(&mut self) {
        let (now, next) = (self.pair.now, self.pair.server.poll_timeout());
        let duration = match self.rng.random_range(0..10) {
            // To the brink of what ends next, and over it.
            0 => next.map_or(1, |next| next - now - 1),
            1 => next.map_or(1, |next| next - now),
            2..6 => self.rng.random_range(0..20 * SECOND),
            6..9 => self.rng.random_range(0..200 * SECOND),
            _ => self.rng.random_range(0..2000 * SECOND),
        };
        let duration = std::time::Duration::from_nanos(duration);
        if self.rng.random_bool(0.7) {
            self.pair.advance(duration);
        } else {
            // The driver sleeps through it, and the next input finds everything expired.
            self.pair.oversleep(duration);
            self.pair.server.handle_timeout(self.pair.now);
            self.pair.drain();
        }
    }

    fn fault(&mut self) {
        let error = if self.rng.random() { OpenError::Unavailable } else { OpenError::Other };
        self.pair.open_errors = [error].into();
    }

    fn hostile(&mut self, client: usize) {
        let from = self.clients[client].five_tuple;
        let Some(by) = self.clients[client].sender() else { return };
        let mut thief = self.newcomer();
        match self.rng.random_range(0..4) {
            // A stolen nonce, even with the right password.
            0 => {
                let (transaction, ask) = (self.transaction(), self.allocate());
                thief.nonce = Some(by.nonce);
                let sent = Sent::new(thief.sender().expect("a nonce"), transaction, ask, Flaw::None);
                self.tally.count("hostile: stolen nonce");
                self.request(&sent);
            }
            // Changed on the way.
            1 => {
                let transaction = self.transaction();
                let ask = Ask::Refresh { lifetime: Some(0), family: None };
                let mut datagram = Sent::new(by, transaction, ask, Flaw::None).datagram;
                let at = self.rng.random_range(20..datagram.len());
                datagram[at] ^= self.rng.random_range(1..=255u8);
                self.tally.count("hostile: changed on the way");
                self.deliver(from, &datagram);
            }
            // Data from where there is no allocation.
            2 => {
                let data = wire::channel_data(CHANNELS[0], b"data");
                self.tally.count("hostile: data without allocation");
                assert!(self.deliver(thief.five_tuple, &data).is_silence());
            }
            _ => {
                let mut noise = vec![0; self.rng.random_range(0..60)];
                self.rng.fill_bytes(&mut noise);
                thief.five_tuple = if self.rng.random() { from } else { thief.five_tuple };
                self.tally.count("hostile: noise");
                self.deliver(thief.five_tuple, &noise);
            }
        }
    }

    /// At the end nothing is left of anything, and every port can be had.
    fn finish(&mut self) {
        self.pair.open_errors.clear();
        self.pair.advance(pair::seconds(4000));
        self.settle();
        check::nothing_is_left(self);
        self.clients.clear();
        for _ in self.model.rules.ports.clone() {
            let client = self.newcomer();
            self.clients.push(client);
            let client = self.clients.len() - 1;
            self.ask_for_a_nonce(client);
            let by = self.clients[client].sender().expect("it asked for a nonce");
            let ask =
                Allocate { transport: Some(17), lifetime: None, family: None, additional: None, even: None };
            let sent = Sent::new(by, self.transaction(), Ask::Allocate(ask), Flaw::None);
            assert!(self.request(&sent).is_success(), "every port can be had again");
            check::justified(self);
        }
        self.pair.server.shutdown(self.pair.now);
        self.pair.drain();
        self.model.granted.clear();
        check::nothing_is_left(self);
    }

    fn deliver(&mut self, from: FiveTuple, datagram: &[u8]) -> Happened {
        self.pair.clients[0].five_tuple = from;
        self.pair.deliver(0, datagram)
    }

    fn transaction(&mut self) -> [u8; 12] {
        self.transactions += 1;
        let mut transaction = [0; 12];
        transaction[4..].copy_from_slice(&self.transactions.to_be_bytes());
        transaction
    }
}

fn only_response(happened: &Happened, five_tuple: FiveTuple) -> Message {
    let mut responses = happened.to_client();
    let (Some((to, response)), None) = (responses.next(), responses.next()) else {
        panic!("STUN-039: one response, not {happened:?}");
    };
    assert_eq!(to, five_tuple, "STUN-036, TURN-082");
    let response = Message::parse(response);
    assert!(response.len < 548, "STUN-017");
    response
}
