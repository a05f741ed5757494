//! Random sequences of requests and data over a network that loses, delays and duplicates, with a clock that
//! jumps. After every step the core is held against a model that follows the RFC's text alone, and flows,
//! deadlines and ports against both.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use proptest::{collection::vec, prelude::*};
use relay_user::turn::{ChannelNumber, Direction, Family, FlowForm, FlowId, Output, PeerAddr, RelayedAddr};

use crate::{
    dual_stack::dual_stack,
    pair::{CHANNEL, Happened, OTHER_PASSWORD, OTHER_USER, PASSWORD, Pair, SECOND, USER},
    wire::{self, Attribute, Message},
};

const CLIENTS: usize = 3;
const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_001;
/// Two ports of one address, another address, one of IPv6, and the relayed addresses of the clients.
const PEERS: [&str; 4] = ["8.8.8.8:5000", "8.8.8.8:5001", "9.9.9.9:9", "[2606:4700::8]:5000"];
const ALL_PEERS: usize = PEERS.len() + CLIENTS;

#[derive(Clone, Debug)]
enum Step {
    Request(usize, Ask, Fate),
    /// A delayed or duplicated request arrives at last.
    DeliverDelayed(prop::sample::Index),
    ChannelData(usize, u16),
    Send(usize, usize),
    PeerSends(usize, usize),
    /// The driver wakes up at every deadline on the way.
    Advance(u64),
    /// It does not.
    Oversleep(u64),
    SwitchUser(usize),
}

#[derive(Clone, Debug)]
enum Ask {
    Allocate { lifetime: Option<u32>, even: bool, families: &'static [Family] },
    Refresh { lifetime: Option<u32>, family: Option<Family> },
    CreatePermission { peers: Vec<usize> },
    ChannelBind { number: u16, peer: usize },
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    /// With a response that the client does not get, so that it sends the same again at some time.
    AnswerLost,
    ArrivesTwice,
    Delayed,
}

fn ask() -> impl Strategy<Value = Ask> {
    let lifetime = || prop_oneof![Just(None), Just(Some(0)), (1u32..5000).prop_map(Some)];
    let families = prop_oneof![
        2 => Just(&[Family::V4][..]),
        1 => Just(&[Family::V6][..]),
        3 => Just(&Family::ALL[..])
    ];
    let family = prop_oneof![Just(None), Just(Some(Family::V4)), Just(Some(Family::V6))];
    prop_oneof![
        3 => (lifetime(), any::<bool>(), families).prop_map(|(lifetime, even, families)| {
            Ask::Allocate { lifetime, even, families }
        }),
        2 => (lifetime(), family).prop_map(|(lifetime, family)| Ask::Refresh { lifetime, family }),
        3 => vec(0..ALL_PEERS, 1..3).prop_map(|peers| Ask::CreatePermission { peers }),
        5 => (0u16..4, 0..ALL_PEERS).prop_map(|(number, peer)| Ask::ChannelBind { number: CHANNEL + number, peer }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::ArrivesTwice),
        1 => Just(Fate::Delayed)
    ];
    let client = || 0..CLIENTS;
    prop_oneof![
        10 => (client(), ask(), fate).prop_map(|(client, ask, fate)| Step::Request(client, ask, fate)),
        2 => any::<prop::sample::Index>().prop_map(Step::DeliverDelayed),
        4 => (client(), 0u16..4).prop_map(|(client, number)| Step::ChannelData(client, CHANNEL + number)),
        3 => (client(), 0..ALL_PEERS).prop_map(|(client, peer)| Step::Send(client, peer)),
        4 => (client(), 0..PEERS.len()).prop_map(|(client, peer)| Step::PeerSends(client, peer)),
        3 => (1u64..700).prop_map(Step::Advance),
        1 => (1u64..700).prop_map(Step::Oversleep),
        1 => client().prop_map(Step::SwitchUser),
    ]
}

/// What a client has been granted, as its responses said.
#[derive(Clone, Debug)]
struct Granted {
    /// With their ends.
    relayed: BTreeMap<Family, (SocketAddr, u64)>,
    username: &'static str,
    transaction: [u8; 12],
    /// The request that deleted a relayed address last.
    deleted_by: Option<[u8; 12]>,
    permissions: BTreeMap<IpAddr, u64>,
    channels: BTreeMap<u16, (SocketAddr, u64)>,
}

impl Granted {
    fn relayed_of(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.relayed.get(&Family::of(peer.ip())).map(|&(relayed, _)| relayed)
    }

    fn has_relayed(&self, address: SocketAddr) -> bool {
        self.relayed.values().any(|&(relayed, _)| relayed == address)
    }

    /// Ends a relayed address with what belongs to it.
    fn end(&mut self, family: Family) {
        self.relayed.remove(&family);
        self.permissions.retain(|ip, _| Family::of(*ip) != family);
        self.channels.retain(|_, (peer, _)| Family::of(peer.ip()) != family);
    }
}

/// A request on its way, with what it asks for in the terms of the model.
#[derive(Clone, Debug)]
struct Sent {
    client: usize,
    username: &'static str,
    ask: Ask,
    peers: Vec<SocketAddr>,
    datagram: Vec<u8>,
}

struct World {
    pair: Pair,
    strict: bool,
    granted: [Option<Granted>; CLIENTS],
    delayed: Vec<Sent>,
}

impl World {
    fn new(strict: bool) -> Self {
        let mut pair = Pair::with(|config| {
            dual_stack(config);
            config.relay_ports = PORTS;
            config.strict_permissions = strict;
        });
        for client in 1..CLIENTS {
            pair.add_client(&format!("203.0.113.{}:4000", client + 1));
        }
        Self { pair, strict, granted: Default::default(), delayed: Vec::new() }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Request(client, ask, fate) => self.request(*client, ask, *fate),
            Step::DeliverDelayed(which) => {
                if !self.delayed.is_empty() {
                    let sent = self.delayed.swap_remove(which.index(self.delayed.len()));
                    self.deliver(&sent);
                }
            }
            Step::ChannelData(client, number) => self.channel_data(*client, *number),
            Step::Send(client, peer) => self.send(*client, *peer),
            Step::PeerSends(client, peer) => self.peer_sends(*client, PEERS[*peer]),
            Step::Advance(seconds) => {
                self.pair.advance(std::time::Duration::from_secs(*seconds));
            }
            Step::Oversleep(seconds) => {
                self.pair.oversleep(std::time::Duration::from_secs(*seconds));
                self.pair.server.handle_timeout(self.pair.now);
                self.pair.drain();
            }
            Step::SwitchUser(client) => {
                let client = &mut self.pair.clients[*client];
                let users = [(USER, PASSWORD), (OTHER_USER, OTHER_PASSWORD)];
                (client.username, client.password) = users[(client.username == USER) as usize];
            }
        }
        self.expire();
        self.check();
    }

    /// The peer's address; of a client without allocation, one where a relayed address might be.
    fn peer(&self, peer: usize) -> SocketAddr {
        match peer.checked_sub(PEERS.len()) {
            None => PEERS[peer].parse().unwrap(),
            Some(client) => {
                let free = SocketAddr::new(crate::pair::RELAY_IP.parse().unwrap(), *PORTS.end());
                let granted = self.granted[client].as_ref();
                granted
                    .and_then(|granted| granted.relayed.values().next())
                    .map_or(free, |&(relayed, _)| relayed)
            }
        }
    }

    fn request(&mut self, client: usize, ask: &Ask, fate: Fate) {
        let (method, attributes, peers): (_, Vec<Attribute>, Vec<_>) = match ask {
            Ask::Allocate { lifetime, even, families } => {
                let mut attributes = vec![wire::requested_transport(17)];
                match families {
                    [one] => attributes.push(wire::requested_family(*one as u8)),
                    _ => attributes.push(wire::additional_family(2)),
                }
                attributes.extend(lifetime.map(wire::lifetime));
                attributes.extend(even.then(|| wire::even_port(0)));
                (wire::ALLOCATE, attributes, vec![])
            }
            Ask::Refresh { lifetime, family } => {
                let family = family.map(|family| wire::requested_family(family as u8));
                let attributes = lifetime.map(wire::lifetime).into_iter().chain(family).collect();
                (wire::REFRESH, attributes, vec![])
            }
            Ask::CreatePermission { peers } => {
                let peers: Vec<_> = peers.iter().map(|&peer| self.peer(peer)).collect();
                let attributes = peers.iter().map(|&peer| wire::peer_address(peer)).collect();
                (wire::CREATE_PERMISSION, attributes, peers)
            }
            Ask::ChannelBind { number, peer } => {
                let peer = self.peer(*peer);
                (
                    wire::CHANNEL_BIND,
                    vec![wire::channel_number(*number), wire::peer_address(peer)],
                    vec![peer],
                )
            }
        };
        let datagram = self.pair.build(client, method, &attributes);
        let username = self.pair.clients[client].username;
        let sent = Sent { client, username, ask: ask.clone(), peers, datagram };
        match fate {
            Fate::Arrives => {
                let response = self.deliver(&sent);
                if response.class == wire::ERROR && response.error() == 438 {
                    self.pair.clients[client].nonce = Some(response.attribute(0x0015).unwrap().to_vec());
                }
            }
            Fate::AnswerLost => {
                self.deliver(&sent);
                self.delayed.push(sent);
            }
            Fate::ArrivesTwice => {
                let first = self.deliver(&sent);
                let second = self.deliver(&sent);
                let is_delete = matches!(ask, Ask::Refresh { lifetime: Some(0), .. });
                assert!(
                    first == second || is_delete && second.error() == 437,
                    "TURN-022: {first:?}, {second:?}"
                );
            }
            Fate::Delayed => self.delayed.push(sent),
        }
    }

    /// The request reaches the server, and the model hears the response.
    fn deliver(&mut self, sent: &Sent) -> Message {
        self.expire();
        let expected = self.expected_error(sent);
        let even = matches!(sent.ask, Ask::Allocate { even: true, .. });
        let had = Family::ALL.map(|family| self.has_port(family, even));
        let response = self.pair.exchange(sent.client, &sent.datagram);
        if response.class == wire::ERROR {
            // 438: a nonce is good for an hour. Everything else follows from what was granted.
            let code = response.error();
            assert!(code == 438 || Some(code) == expected, "{code}, not {expected:?}: {:?}", sent.ask);
            return response;
        }
        assert_eq!(expected, None, "{:?} must be refused", sent.ask);
        let now = self.pair.now;
        let granted = &mut self.granted[sent.client];
        let seconds = |seconds: u64| now + seconds * SECOND;
        match &sent.ask {
            Ask::Allocate { lifetime, even, families } => {
                let relayed = response.addresses(0x0016);
                let asked = lifetime.unwrap_or(0).clamp(600, 3600);
                let granted = granted.get_or_insert_with(|| {
                    let missing = families.iter().filter(|&&family| !had[family as usize - 1]).count();
                    assert_eq!(
                        (relayed.len(), response.has(0x8001)),
                        (families.len() - missing, missing > 0)
                    );
                    assert!(!even || relayed.iter().all(|relayed| relayed.port().is_multiple_of(2)));
                    let end = seconds(asked.into());
                    Granted {
                        relayed: relayed.iter().map(|&r| (Family::of(r.ip()), (r, end))).collect(),
                        username: sent.username,
                        transaction: response.transaction,
                        deleted_by: None,
                        permissions: BTreeMap::new(),
                        channels: BTreeMap::new(),
                    }
                });
                assert_eq!(
                    relayed,
                    granted.relayed.values().map(|&(r, _)| r).collect::<Vec<_>>(),
                    "TURN-083"
                );
                let expires = granted.relayed.values().map(|&(_, expires)| expires).min().unwrap();
                assert_eq!(u64::from(response.lifetime()), (expires - now) / SECOND);
            }
            Ask::Refresh { lifetime, family } => {
                let live = granted.as_mut().expect("TURN-009");
                let families: Vec<_> = live.relayed.keys().copied().collect();
                let meant = families.into_iter().filter(|&of| family.is_none_or(|family| family == of));
                let asked = if *lifetime == Some(0) { 0 } else { lifetime.unwrap_or(0).clamp(600, 3600) };
                assert_eq!(response.lifetime(), asked);
                for family in meant {
                    if asked == 0 {
                        live.end(family);
                    } else if let Some((_, expires)) = live.relayed.get_mut(&family) {
                        *expires = seconds(asked.into());
                    }
                }
                if asked == 0 {
                    live.deleted_by = Some(response.transaction);
                }
                if live.relayed.is_empty() {
                    *granted = None;
                }
            }
            Ask::CreatePermission { .. } => {
                let granted = granted.as_mut().expect("TURN-009");
                for peer in &sent.peers {
                    let expires = granted.permissions.entry(peer.ip()).or_default();
                    *expires = seconds(300).max(*expires);
                }
            }
            Ask::ChannelBind { number, .. } => {
                let granted = granted.as_mut().expect("TURN-009");
                let peer = sent.peers[0];
                granted.channels.insert(*number, (peer, seconds(600)));
                let expires = granted.permissions.entry(peer.ip()).or_default();
                *expires = seconds(if self.strict { 300 } else { 600 }).max(*expires);
            }
        }
        response
    }

    /// How a request must be refused, if it must.
    fn expected_error(&self, sent: &Sent) -> Option<u16> {
        let Some(granted) = &self.granted[sent.client] else {
            let Ask::Allocate { even, families, .. } = sent.ask else { return Some(437) };
            return families.iter().all(|&family| !self.has_port(family, even)).then_some(508);
        };
        let is_foreign = sent.peers.iter().any(|&peer| granted.relayed_of(peer).is_none());
        match &sent.ask {
            Ask::Allocate { .. } => (granted.transaction != sent.datagram[8..20]).then_some(437),
            _ if granted.username != sent.username => Some(441),
            Ask::ChannelBind { number, .. } => {
                let mut channels = granted.channels.iter();
                let is_conflict =
                    channels.any(|(bound, (peer, _))| (bound == number) != (*peer == sent.peers[0]));
                is_conflict.then_some(400).or(is_foreign.then_some(443))
            }
            Ask::CreatePermission { .. } => is_foreign.then_some(443),
            Ask::Refresh { lifetime, family } => {
                let is_there = family.is_none_or(|family| granted.relayed.contains_key(&family));
                let is_again =
                    *lifetime == Some(0) && granted.deleted_by.is_some_and(|by| by == sent.datagram[8..20]);
                (!is_there && !is_again).then_some(443)
            }
        }
    }

    /// Whether a port of the family is free, and even where that is asked for.
    fn has_port(&self, family: Family, even: bool) -> bool {
        let relayed = self.granted.iter().flatten().filter_map(|granted| granted.relayed.get(&family));
        let taken: Vec<_> = relayed.map(|(relayed, _)| relayed.port()).collect();
        PORTS.filter(|port| !even || port.is_multiple_of(2)).any(|port| !taken.contains(&port))
    }

    /// Forgets what has ended by now.
    fn expire(&mut self) {
        let now = self.pair.now;
        for granted in &mut self.granted {
            let Some(live) = granted else { continue };
            live.permissions.retain(|_, expires| *expires > now);
            live.channels.retain(|_, (_, expires)| *expires > now);
            for family in Family::ALL {
                if live.relayed.get(&family).is_some_and(|&(_, expires)| expires <= now) {
                    live.end(family);
                }
            }
            if live.relayed.is_empty() {
                *granted = None;
            }
        }
    }

    fn channel_data(&mut self, client: usize, number: u16) {
        self.expire();
        let peer = self.granted[client].as_ref().and_then(|granted| granted.channels.get(&number));
        let peer = peer.map(|&(peer, _)| peer);
        let happened = self.pair.channel_data(client, number, b"data");
        self.assert_relayed(client, peer, &happened);
    }

    fn send(&mut self, client: usize, peer: usize) {
        self.expire();
        let peer = self.peer(peer);
        let happened = self.pair.send(client, &peer.to_string(), b"data");
        self.assert_relayed(client, Some(peer), &happened);
    }

    /// Data for `peer`, if it is bound at all, went where the grants say, or nowhere.
    fn assert_relayed(&self, client: usize, peer: Option<SocketAddr>, happened: &Happened) {
        let permitted = |granted: &Granted, ip| granted.permissions.contains_key(&ip);
        let sender = self.granted[client].as_ref();
        let sender = peer.zip(sender).filter(|(peer, granted)| permitted(granted, peer.ip()));
        let Some((peer, sender)) = sender else {
            assert!(happened.is_silence(), "data without a live permission: {happened:?}");
            return;
        };
        let relayed = sender.relayed_of(peer).expect("what is permitted has a relayed address");
        if peer.ip() != relayed.ip() {
            assert_eq!(happened.to_peer(), (relayed, peer, &b"data"[..]));
            return;
        }
        let receiver = self
            .granted
            .iter()
            .position(|granted| granted.as_ref().is_some_and(|granted| granted.has_relayed(peer)))
            .filter(|&to| permitted(self.granted[to].as_ref().unwrap(), relayed.ip()));
        match receiver {
            Some(receiver) => self.assert_delivered(receiver, relayed, happened),
            None => assert!(happened.is_silence(), "a hairpin without the receiver's permission"),
        }
    }

    fn peer_sends(&mut self, client: usize, peer: &str) {
        self.expire();
        let Some(granted) = self.granted[client].clone() else { return };
        let to = granted.relayed_of(peer.parse().unwrap());
        let Some(to) = to else { return };
        let happened = self.pair.peer_sends(to, peer, b"data");
        let peer: SocketAddr = peer.parse().unwrap();
        if granted.permissions.contains_key(&peer.ip()) {
            self.assert_delivered(client, peer, &happened);
        } else {
            assert!(happened.is_silence(), "data from a peer without permission");
        }
    }

    fn assert_delivered(&self, client: usize, from: SocketAddr, happened: &Happened) {
        let five_tuple = self.pair.clients[client].five_tuple;
        assert!(happened.to_client().all(|(to, _)| to == five_tuple));
        let channels = &self.granted[client].as_ref().unwrap().channels;
        match channels.iter().find(|(_, (peer, _))| *peer == from) {
            Some((number, _)) => assert_eq!(happened.datagram(), wire::channel_data(*number, b"data")),
            None => assert_eq!(happened.data_indication(), (from, b"data".to_vec())),
        }
    }

    /// Core, model, flows, deadlines and ports justify each other exactly.
    fn check(&self) {
        let now = self.pair.now;
        let sessions: Vec<_> = self.pair.server.sessions().collect();
        let mut deadlines = BTreeSet::new();
        let mut flows = BTreeMap::new();
        let mut relayed = BTreeSet::new();
        for (client, granted) in self.granted.iter().enumerate() {
            let five_tuple = self.pair.clients[client].five_tuple;
            let session = sessions.iter().find(|session| session.five_tuple == five_tuple);
            let (Some(granted), Some(session)) = (granted, session) else {
                assert!(granted.is_none() && session.is_none(), "{granted:?}, but {session:?}");
                continue;
            };
            let addresses: Vec<_> = session.relayed.iter().map(|r| (r.address.0, r.expires)).collect();
            assert_eq!(addresses, granted.relayed.values().copied().collect::<Vec<_>>());
            assert_eq!(session.permissions, granted.permissions.clone().into_iter().collect::<Vec<_>>());
            let channels: Vec<_> =
                session.channels.iter().map(|c| (c.number.get(), (c.peer.0, c.expires))).collect();
            assert_eq!(channels, granted.channels.clone().into_iter().collect::<Vec<_>>());

            relayed.extend(session.relayed.iter().map(|relayed| relayed.address));
            deadlines.extend(addresses.iter().map(|&(_, expires)| expires));
            deadlines.extend(granted.permissions.values());
            let mut add = |relayed: SocketAddr, form, until| {
                let relayed = RelayedAddr(relayed);
                let directions =
                    if form == FlowForm::Allocation { &Direction::BOTH[..1] } else { &Direction::BOTH };
                for &direction in directions {
                    flows.insert(FlowId { direction, five_tuple, relayed, form }, until);
                }
            };
            for &(relayed, expires) in granted.relayed.values() {
                add(relayed, FlowForm::Allocation, expires);
            }
            for (&peer, &expires) in &granted.permissions {
                let (relayed, end) = granted.relayed[&Family::of(peer)];
                add(relayed, FlowForm::Permission { peer }, expires.min(end));
            }
            for (&number, &(peer, expires)) in &granted.channels {
                deadlines.insert(expires);
                if let Some(permission) = granted.permissions.get(&peer.ip()) {
                    let (relayed, end) = granted.relayed[&Family::of(peer.ip())];
                    let number = ChannelNumber::new(number).expect("as the core said");
                    let form = FlowForm::Channel { peer: PeerAddr(peer), number };
                    add(relayed, form, expires.min(*permission).min(end));
                }
            }
        }
        assert_eq!(sessions.len(), self.granted.iter().flatten().count());
        assert_eq!(self.pair.open, relayed, "every open relayed address is somebody's");
        let installed: BTreeMap<_, _> =
            self.pair.flows.iter().map(|(&id, flow)| (id, flow.expires)).collect();
        assert_eq!(installed, flows);
        assert_eq!(self.pair.server.poll_timeout(), deadlines.first().copied());
        assert!(deadlines.first().is_none_or(|&next| next > now));
    }

    /// At the end nothing is left, and every port can be had.
    fn finish(mut self) {
        self.pair.server.shutdown(self.pair.now);
        let happened = self.pair.drain();
        assert!(!happened.outputs.iter().any(|output| matches!(output, Output::InstallFlow(_))));
        self.granted = Default::default();
        self.check();
        for port in PORTS {
            let client = self.pair.add_client(&format!("203.0.113.200:{port}"));
            self.pair.allocate_dual(client);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn turn_022_030_094_097_100_145_148_stun_026_dp_064_065_066_068_core_model_and_flows_agree(
        strict in any::<bool>(),
        steps in vec(step(), 1..80),
    ) {
        let mut world = World::new(strict);
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}
