//! Packets of every kind: mostly what clients and peers send, on the flows there are; and whatever else may come.

use std::net::SocketAddr;

use rand::{Rng as _, RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use relay_user::{
    net::next_hop::Tag,
    turn::{Direction, Flow, FlowForm},
};

use crate::{
    packet::{CUSTOMER_TAG, Checksum, DONT_FRAGMENT, Packet, SERVICE_TAG},
    payload::{Attribute, DATA, Payload, SOFTWARE, Stun},
    program::LINEAR,
    receive::Host as _,
    spoil::mutate,
    wire,
    world::{SENDING, World},
};

/// Makes packets for a world.
pub struct Generator {
    /// What data is cut from.
    noise: Vec<u8>,
}

impl Generator {
    pub fn new(rng: &mut StdRng) -> Self {
        let mut noise = vec![0; 1 << 17];
        rng.fill_bytes(&mut noise);
        Self { noise }
    }

    /// A packet that may come now.
    pub fn packet(&self, world: &mut World<'_>, rng: &mut StdRng) -> Packet {
        let mut packet = match rng.random_range(0..100) {
            0..91 => match self.of_flow(world, rng) {
                Some(packet) => packet,
                None => self.of_stranger(world, rng),
            },
            91..94 => self.of_long_flow(world, rng).unwrap_or_else(|| self.of_stranger(world, rng)),
            94..97 => self.of_stranger(world, rng),
            _ => self.no_data(world, rng),
        };
        self.arrive(world, rng, &mut packet);
        dress(rng, &mut packet);
        match rng.random_range(0..100) {
            0..68 => {}
            68..96 => self.spoil(world, rng, &mut packet),
            _ => mutate(rng, &mut packet),
        }
        packet
    }

    /// Data on a flow that is there, or was.
    fn of_flow(&self, world: &World<'_>, rng: &mut StdRng) -> Option<Packet> {
        let driver = &world.driver;
        for _ in 0..40 {
            let flow = match driver.gone.choose(rng) {
                Some(flow) if rng.random_bool(0.04) => *flow,
                _ => driver.flows.choose(rng)?.flow,
            };
            // Nothing of these comes by a wire, unless somebody lies.
            let is_forged = flow.hairpin.is_some() && flow.id.direction == Direction::ToClient;
            let is_rare = is_forged || flow.id.form == FlowForm::Allocation;
            let is_dull = world.busy.is_some_and(|busy| flow.id.five_tuple != busy);
            if is_rare && !rng.random_bool(0.06) || is_dull && rng.random_bool(0.8) {
                continue;
            }
            let len = self.data_len(world, rng, &flow);
            return Some(self.on(world, rng, &flow, len));
        }
        None
    }

    /// Data that fills a frame to the end of its page, or beyond.
    fn of_long_flow(&self, world: &World<'_>, rng: &mut StdRng) -> Option<Packet> {
        let fits = |flow: &Flow| {
            let (source, destination) = egress(flow)?;
            world.driver.next_hop_of(source, destination).filter(|hop| hop.mtu > 4000)
        };
        let flows: Vec<_> =
            world.driver.flows.iter().map(|installed| installed.flow).filter(|f| fits(f).is_some()).collect();
        let permissions = |flow: &&Flow| {
            matches!(flow.id.form, FlowForm::Permission { .. })
                && flow.id.direction == Direction::ToClient
                && flow.hairpin.is_none()
        };
        let short: Vec<_> = flows.iter().filter(permissions).copied().collect();
        let flow = if rng.random_bool(0.85) { short.choose(rng)? } else { flows.choose(rng)? };
        // With the headers of either family, and with up to two tags, about a page.
        let len = if rng.random_bool(0.02) {
            // All that a datagram can hold, less some headers.
            65_507 - rng.random_range(0..100)
        } else if rng.random_bool(0.85) {
            let headers = 14 + if flow.id.relayed.0.is_ipv4() { 28 } else { 48 };
            LINEAR - headers - rng.random_range(0..6)
        } else {
            rng.random_range(3400..9000)
        };
        Some(self.on(world, rng, flow, len))
    }

    /// A packet of `len` bytes of data that the flow is for.
    fn on(&self, world: &World<'_>, rng: &mut StdRng, flow: &Flow, len: usize) -> Packet {
        let (client, server) = (flow.id.five_tuple.client.0, flow.id.five_tuple.server.0);
        let relayed = flow.id.relayed.0;
        match (flow.id.form, flow.id.direction) {
            (FlowForm::Channel { number, .. }, Direction::ToPeer) => {
                let payload = self.channel_data(rng, number.get(), len);
                Packet::new("ChannelData", (client, server), payload)
            }
            (FlowForm::Channel { peer, .. }, Direction::ToClient) => {
                let data = Payload::Raw(self.data(rng, len));
                Packet::new("data of a peer with a channel", (peer.0, relayed), data)
            }
            (FlowForm::Permission { peer }, Direction::ToPeer) => {
                let alias = flow.hairpin.and_then(|hairpin| hairpin.alias);
                let ip = alias.filter(|_| rng.random()).unwrap_or(peer);
                let port = if flow.hairpin.is_some() {
                    let relayed = world.clients.iter().flat_map(|client| &client.relayed);
                    let ports: Vec<_> =
                        relayed.filter(|relayed| relayed.ip() == peer).map(SocketAddr::port).collect();
                    ports.choose(rng).copied().unwrap_or(*world.ports.start())
                } else {
                    world.peer_port(rng)
                };
                let payload = self.send_indication(rng, SocketAddr::new(ip, port), len);
                Packet::new("Send indication", (client, server), payload)
            }
            (FlowForm::Permission { peer }, Direction::ToClient) => {
                let source = SocketAddr::new(peer, world.peer_port(rng));
                let data = Payload::Raw(self.data(rng, len));
                Packet::new("data of a permitted peer", (source, relayed), data)
            }
            (FlowForm::Allocation, _) => {
                let peer = world.peer(rng);
                let payload = self.send_indication(rng, peer, len);
                Packet::new("Send indication to anybody", (client, server), payload)
            }
        }
    }

    /// Data on no flow.
    fn of_stranger(&self, world: &World<'_>, rng: &mut StdRng) -> Packet {
        let len = rng.random_range(0..100);
        let listener = *world.listeners.choose(rng).unwrap();
        let client = match world.clients.choose(rng) {
            Some(client) if rng.random_bool(0.7) && client.five_tuple.server.0 == listener => {
                client.five_tuple.client.0
            }
            _ => self.address_like(world, rng, listener),
        };
        let relayed: Vec<_> = world.clients.iter().flat_map(|client| client.relayed.clone()).collect();
        let relayed = match relayed.choose(rng) {
            Some(&relayed) if rng.random_bool(0.8) => relayed,
            _ => SocketAddr::new(*world.relays.choose(rng).unwrap(), rng.random_range(world.ports.clone())),
        };
        match rng.random_range(0..4) {
            0 => {
                let number = rng.random_range(0x4000..0x8000);
                let payload = self.channel_data(rng, number, len);
                Packet::new("ChannelData of a stranger", (client, listener), payload)
            }
            1 => {
                let peer = world.peer(rng);
                let payload = self.send_indication(rng, peer, len);
                Packet::new("Send indication of a stranger", (client, listener), payload)
            }
            _ => {
                let peer = self.address_like(world, rng, relayed);
                Packet::new("data of a stranger", (peer, relayed), Payload::Raw(self.data(rng, len)))
            }
        }
    }

    /// A transport address that may reach `to`: of anybody, ourselves included.
    fn address_like(&self, world: &World<'_>, rng: &mut StdRng, to: SocketAddr) -> SocketAddr {
        for _ in 0..20 {
            let address = world.peer(rng);
            if address.is_ipv4() == to.is_ipv4() {
                return address;
            }
        }
        to
    }

    /// What is no data: requests, DTLS, and nothing that makes sense. Also what is for somebody else.
    fn no_data(&self, world: &mut World<'_>, rng: &mut StdRng) -> Packet {
        let number = rng.random_range(0..world.clients.len());
        let five_tuple = world.clients[number].five_tuple;
        let way = (five_tuple.client.0, five_tuple.server.0);
        let len = rng.random_range(0..60);
        let mut bytes = self.data(rng, len);
        match rng.random_range(0..8) {
            0 => {
                let peer = world.peer(rng);
                let (method, attributes) = match rng.random_range(0..3) {
                    0 => (wire::REFRESH, vec![wire::lifetime(rng.random_range(1..1000))]),
                    1 => (wire::CREATE_PERMISSION, vec![wire::peer_address(peer)]),
                    _ => {
                        let number = rng.random_range(0x4000..0x4fff);
                        let attributes = vec![wire::channel_number(number), wire::peer_address(peer)];
                        (wire::CHANNEL_BIND, attributes)
                    }
                };
                let request = world.build(number, method, &attributes);
                Packet::new("request", way, Payload::Raw(request))
            }
            1 => {
                let kind = *[0x0001, 0x0003, 0x0017, 0x0101, 0x0011].choose(rng).unwrap();
                let message = Stun { kind, ..stun(rng) };
                Packet::new("STUN", way, Payload::Stun(message))
            }
            2 => {
                bytes.insert(0, rng.random_range(20..64));
                Packet::new("DTLS", way, Payload::Raw(bytes))
            }
            3 => {
                bytes.insert(0, rng.random_range(4..20));
                Packet::new("nothing known", way, Payload::Raw(bytes))
            }
            4 => {
                bytes.insert(0, rng.random_range(128..=255));
                Packet::new("nothing known", way, Payload::Raw(bytes))
            }
            5 => Packet::new("next to nothing", way, {
                bytes.truncate(rng.random_range(0..4));
                Payload::Raw(bytes)
            }),
            6 => {
                // The host's own traffic: the same ports at another address, other ports at the same.
                let mut destination = *world.listeners.choose(rng).unwrap();
                if rng.random() {
                    destination.set_port(rng.random());
                } else if let Some(&other) =
                    world.peers.iter().find(|peer| peer.is_ipv4() == destination.is_ipv4())
                {
                    destination.set_ip(other);
                    if rng.random() {
                        destination.set_port(rng.random_range(world.ports.clone()));
                    }
                }
                let source = self.address_like(world, rng, destination);
                Packet::new("the host's own", (source, destination), Payload::Raw(bytes))
            }
            _ => Packet::new("random", way, Payload::Raw(bytes)),
        }
    }

    fn channel_data(&self, rng: &mut StdRng, number: u16, len: usize) -> Payload {
        let padding = match rng.random_range(0..4) {
            0 => len.next_multiple_of(4) - len,
            1 => rng.random_range(0..4),
            _ => 0,
        };
        Payload::ChannelData {
            number,
            len_error: 0,
            data: self.data(rng, len),
            padding: self.data(rng, padding),
        }
    }

    /// A Send indication as some client makes it.
    fn send_indication(&self, rng: &mut StdRng, peer: SocketAddr, len: usize) -> Payload {
        let mut message = stun(rng);
        message.attributes = vec![Attribute::Peer(peer), Attribute::Other(DATA, self.data(rng, len))];
        if rng.random_bool(0.3) {
            let len = rng.random_range(0..30);
            message.attributes.push(Attribute::Other(SOFTWARE, self.data(rng, len)));
        }
        shuffle(rng, &mut message.attributes);
        if rng.random_bool(0.4) {
            let error = if rng.random_bool(0.2) { rng.random() } else { 0 };
            message.attributes.push(Attribute::Fingerprint(error));
        }
        Payload::Stun(message)
    }

    pub fn data(&self, rng: &mut StdRng, len: usize) -> Vec<u8> {
        match rng.random_range(0..40) {
            0 => vec![0; len],
            1 => vec![0xff; len],
            _ => {
                let at = rng.random_range(0..=self.noise.len() - len);
                self.noise[at..at + len].to_vec()
            }
        }
    }

    /// Mostly short, some as long as they may be.
    fn data_len(&self, world: &World<'_>, rng: &mut StdRng, flow: &Flow) -> usize {
        if world.busy.is_some() {
            return rng.random_range(700..1300);
        }
        match rng.random_range(0..100) {
            0..4 => 0,
            4..40 => rng.random_range(1..24),
            40..80 => rng.random_range(24..300),
            80..90 => rng.random_range(300..1400),
            _ => {
                // Near what the path, or a rule, sets as a limit; less headers.
                let mtu = egress(flow)
                    .and_then(|(source, destination)| world.driver.next_hop_of(source, destination))
                    .map_or(1500, |hop| hop.mtu);
                let limit = match rng.random_range(0..4) {
                    0 => 1260,
                    1 => *[1280, 1400, 1500].choose(rng).unwrap(),
                    _ => mtu.min(10_000) as usize,
                };
                let headers = *[28, 32, 48, 52, 28 + 36, 28 + 48, 48 + 36, 48 + 48].choose(rng).unwrap();
                (limit - headers + 4).saturating_sub(rng.random_range(0..9))
            }
        }
    }

    /// Puts the packet on one of the links.
    fn arrive(&self, world: &World<'_>, rng: &mut StdRng, packet: &mut Packet) {
        packet.ingress = rng.random_range(0..SENDING);
        packet.destination_mac = world.mac(packet.ingress, [None; 2]).unwrap();
        if rng.random_bool(0.25) {
            let vlans: Vec<_> = world.vlans.iter().filter(|vlan| vlan.ingress == packet.ingress).collect();
            let vlan = vlans.choose(rng).unwrap();
            packet.destination_mac = vlan.mac;
            // Priority and drop eligibility are nobody's business.
            let control = |rng: &mut StdRng, tag: Tag| tag.id | rng.random_range(0..16) << 12;
            packet.tags = vlan
                .tags
                .into_iter()
                .flatten()
                .map(|tag| (if tag.service { SERVICE_TAG } else { CUSTOMER_TAG }, control(rng, tag)))
                .collect();
        }
    }
}

/// Fields that any value is right for.
fn dress(rng: &mut StdRng, packet: &mut Packet) {
    packet.ip.identification = rng.random();
    packet.ip.traffic_class = if rng.random() { 0 } else { rng.random() };
    packet.ip.ttl = *[2, 3, 64, 64, 128, 255].choose(rng).unwrap();
    packet.ip.fragment = if rng.random_bool(0.6) { DONT_FRAGMENT } else { 0 };
    if packet.source.is_ipv4() && rng.random_bool(0.1) {
        packet.checksum = Checksum::None;
    }
    if rng.random_bool(0.05) {
        packet.surplus = vec![0xa5; rng.random_range(1..9)];
    }
    // An Ethernet frame has 60 bytes at least, without its checksum.
    let headers = 14 + 4 * packet.tags.len() + if packet.source.is_ipv4() { 28 } else { 48 };
    let len = headers + packet.payload.len() + packet.surplus.len();
    if len < 60 && rng.random() {
        packet.ethernet_padding = vec![0; 60 - len];
    } else if rng.random_bool(0.03) {
        packet.ethernet_padding = vec![0x5a; rng.random_range(1..9)];
    }
}

/// A Send indication without attributes.
fn stun(rng: &mut StdRng) -> Stun {
    Stun {
        kind: 0x0016,
        transaction: rng.random(),
        attributes: Vec::new(),
        padding: if rng.random() { 0 } else { rng.random() },
        len_error: 0,
        cookie_error: 0,
        trailer: Vec::new(),
    }
}

/// Source and destination of what leaves by the flow.
fn egress(flow: &Flow) -> Option<(SocketAddr, SocketAddr)> {
    let (client, server) = (flow.id.five_tuple.client.0, flow.id.five_tuple.server.0);
    match (flow.id.direction, flow.id.form) {
        (Direction::ToClient, _) => Some((server, client)),
        (Direction::ToPeer, _) if flow.hairpin.is_some() => None,
        (Direction::ToPeer, FlowForm::Channel { peer, .. }) => Some((flow.id.relayed.0, peer.0)),
        (Direction::ToPeer, FlowForm::Permission { peer }) => {
            Some((flow.id.relayed.0, SocketAddr::new(peer, 0)))
        }
        (Direction::ToPeer, FlowForm::Allocation) => None,
    }
}

fn shuffle<T>(rng: &mut StdRng, items: &mut [T]) {
    for place in (1..items.len()).rev() {
        items.swap(place, rng.random_range(0..=place));
    }
}
