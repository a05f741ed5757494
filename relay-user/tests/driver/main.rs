//! The driver on real sockets, between clients and peers of both families, and every packet that crosses the wire.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod client;
mod forged;
mod packets;
mod scene;
#[path = "../protocol/wire.rs"]
#[expect(dead_code, reason = "the protocol tests use more of it")]
mod wire;

use std::net::{IpAddr, SocketAddr};

use forged::Error;
use packets::{Icmp, Packet};
use relay_user::turn::Family::{self, V4, V6};
use scene::{Scene, Sender, bind};
use socket2::{Domain, Protocol, Type};

const CHANNEL: u16 = 0x4000;
/// Longest that every link takes (loopback is made so), and what is to be expected of IPv6.
const MTU: usize = 1500;
const MIN_IPV6_MTU: usize = 1280;
const PAIRS: [(Family, Family); 4] = [(V4, V4), (V4, V6), (V6, V4), (V6, V6)];
/// EF, ECT(1).
const CLASS: u8 = 0xb9;

const fn headers(family: Family) -> usize {
    match family {
        V4 => 28,
        V6 => 48,
    }
}

/// A client with a channel to the peer `bound`, and a permission for `other` beside it, with the same address.
struct Path {
    scene: Scene,
    client: client::Client,
    bound: Sender,
    other: Sender,
    relayed: SocketAddr,
}

impl Path {
    fn new((client_family, peer_family): (Family, Family)) -> Option<Self> {
        let scene = Scene::enter()?;
        let mut client =
            client::Client::new(bind(scene::client(client_family)), scene::listener(client_family));
        let (bound, other) = (bind(scene::peer(peer_family)), bind(scene::peer(peer_family)));
        let relayed = client.allocate(peer_family);
        client.channel_bind(CHANNEL, bound.address());
        Some(Self { scene, client, bound, other, relayed })
    }

    /// Each way that data goes, with what it puts around `length` bytes of data on the way in and out, and whether
    /// it goes to the client.
    fn ways(&self) -> [Way<'_>; 4] {
        let server = self.client.server;
        let client = self.client.socket.address();
        // An indication has a header of 20 bytes and two attributes.
        let peer = if self.relayed.is_ipv4() { 8 } else { 20 };
        let indication = move |length: usize| 20 + 4 + peer + 4 + length.next_multiple_of(4);
        [
            Way {
                name: "ChannelData",
                sender: &self.client.socket,
                receives_at: server,
                leaves_for: self.bound.address(),
                datagram: Box::new(|data| wire::channel_data(CHANNEL, data)),
                out: Box::new(|length| length),
            },
            Way {
                name: "Send",
                sender: &self.client.socket,
                receives_at: server,
                leaves_for: self.other.address(),
                datagram: Box::new(|data| client::send_indication(self.other.address(), data)),
                out: Box::new(|length| length),
            },
            Way {
                name: "to ChannelData",
                sender: &self.bound,
                receives_at: self.relayed,
                leaves_for: client,
                datagram: Box::new(<[u8]>::to_vec),
                out: Box::new(|length| 4 + length),
            },
            Way {
                name: "Data",
                sender: &self.other,
                receives_at: self.relayed,
                leaves_for: client,
                datagram: Box::new(<[u8]>::to_vec),
                out: Box::new(indication),
            },
        ]
    }
}

/// What is sent for so much data.
type Datagram<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;

struct Way<'a> {
    name: &'static str,
    sender: &'a Sender,
    receives_at: SocketAddr,
    leaves_for: SocketAddr,
    datagram: Datagram<'a>,
    /// Bytes of UDP payload that leave for so many bytes of data.
    out: Box<dyn Fn(usize) -> usize>,
}

impl Way<'_> {
    fn families(&self) -> (Family, Family) {
        (scene::family(self.receives_at), scene::family(self.leaves_for))
    }

    fn send(&self, scene: &Scene, length: usize) {
        scene.packets.pass_over();
        self.sender.send_to(&(self.datagram)(&vec![7; length]), self.receives_at);
    }

    /// The first packet that leaves the relay by this way, or a fragment of it.
    fn left(&self, scene: &Scene) -> Packet {
        scene.packets.next(|packet| {
            packet.destination == self.leaves_for.ip()
                && packet.icmp.is_none()
                && packet.ports.is_none_or(|(_, destination)| destination == self.leaves_for.port())
        })
    }

    /// The first ICMP error that the sender gets.
    fn answer(&self, scene: &Scene) -> (Packet, Icmp) {
        let packet = scene.packets.next(|packet| {
            packet.source == self.receives_at.ip()
                && packet.destination == self.sender.address().ip()
                && packet.icmp.is_some()
        });
        let icmp = packet.icmp.clone().expect("just asked");
        (packet, icmp)
    }

    /// The most data with which the outgoing packet has at most `packet_len` bytes.
    fn longest(&self, packet_len: usize) -> usize {
        let header = headers(self.families().1);
        (0..packet_len).rev().find(|&length| header + (self.out)(length) <= packet_len).expect("0 fits")
    }
}

#[test]
fn turn_173_178_196_206_208_dp_043_044_dscp_and_ecn_are_carried_between_all_families() {
    // TURN-021, TURN-186, TURN-176, TURN-188, TURN-198, TURN-217, DP-042: the TTL or hop limit is one less.
    for pair in PAIRS {
        let Some(path) = Path::new(pair) else { return };
        for way in path.ways() {
            way.sender.set_ttl(60).set_class(CLASS);
            way.send(&path.scene, 100);
            let left = way.left(&path.scene);
            assert_eq!((left.ttl, left.class), (59, CLASS), "{} {pair:?}", way.name);
            assert!(!left.is_fragment && !left.has_extension_headers, "TURN-183, TURN-186, TURN-190");
            // TURN-180, TURN-187: of its own, where it has one.
            assert!(left.flow_label.is_none_or(|label| Some(label) != way.sender.flow_label(&path.scene)));
        }
    }
}

#[test]
fn turn_176_188_198_217_icmp_006_007_a_used_up_ttl_is_answered_to_its_sender() {
    for pair in PAIRS {
        let Some(path) = Path::new(pair) else { return };
        for way in path.ways() {
            way.sender.set_ttl(1);
            way.send(&path.scene, 100);
            let (packet, icmp) = way.answer(&path.scene);
            let expected = match way.families().0 {
                V4 => (11, 0),
                V6 => (3, 0),
            };
            assert_eq!((icmp.kind, icmp.code), expected, "{} {pair:?}", way.name);
            assert!(icmp.checksum_is_right && packet.ttl > 1);
            assert_eq!(icmp.quoted_ports(), (way.sender.address().port(), way.receives_at.port()));
            assert!(
                !path
                    .scene
                    .packets
                    .seen(|packet| packet.ports == Some((path.relayed.port(), way.leaves_for.port())))
            );
        }
    }
}

#[test]
fn turn_200_201_211_212_213_dp_045_046_df_as_the_family_it_came_by_has_it() {
    for pair in PAIRS {
        let Some(path) = Path::new(pair) else { return };
        for way in path.ways() {
            let dont_fragment = |length| {
                way.send(&path.scene, length);
                way.left(&path.scene).dont_fragment
            };
            match way.families() {
                (V4, V4) => {
                    for df in [false, true] {
                        way.sender.set_dont_fragment(df);
                        assert_eq!(dont_fragment(100), Some(df), "{}", way.name);
                    }
                }
                (V6, V4) => {
                    let fits = way.longest(1260);
                    assert_eq!(dont_fragment(fits), Some(false), "{}", way.name);
                    assert_eq!(dont_fragment(fits + 4), Some(true), "{}", way.name);
                }
                (_, V6) => assert_eq!(dont_fragment(100), None),
            }
        }
    }
}

#[test]
fn turn_182_183_184_ipv4_with_df_0_leaves_as_ipv6_fragments_within_the_lowest_mtu() {
    for pair in PAIRS.into_iter().filter(|(client, peer)| client != peer) {
        let Some(path) = Path::new(pair) else { return };
        for way in path.ways().iter().filter(|way| way.families() == (V4, V6)) {
            way.sender.set_ttl(60).set_class(CLASS).set_dont_fragment(false);
            let fits = way.longest(MIN_IPV6_MTU);
            way.send(&path.scene, fits);
            assert!(!way.left(&path.scene).is_fragment, "{}", way.name);
            way.send(&path.scene, fits + 4);
            for _ in 0..2 {
                let fragment = way.left(&path.scene);
                assert!(
                    fragment.is_fragment && fragment.length <= MIN_IPV6_MTU,
                    "{}: {fragment:?}",
                    way.name
                );
                assert_eq!((fragment.ttl, fragment.class), (59, CLASS));
            }
            // The receiver puts them together: the checksum is right.
            let receivers = [&path.client.socket, &path.bound, &path.other];
            let receiver = receivers.into_iter().find(|receiver| receiver.address() == way.leaves_for);
            let receiver = receiver.expect("one of the three");
            assert_eq!(receiver.receive().len(), (way.out)(fits));
            assert_eq!(receiver.receive().len(), (way.out)(fits + 4));
        }
    }
}

#[test]
fn turn_181_191_192_203_204_215_icmp_010_011_what_does_not_fit_is_not_sent_and_its_sender_told() {
    for pair in PAIRS {
        let Some(path) = Path::new(pair) else { return };
        for way in path.ways() {
            way.sender.set_dont_fragment(true);
            let length = way.longest(MTU) + 4;
            if headers(way.families().0) + (way.datagram)(&vec![0; length]).len() > MTU {
                // It would not have come this far.
                continue;
            }
            way.send(&path.scene, length);
            let (_, icmp) = way.answer(&path.scene);
            let (from, to) = way.families();
            let to_peer = if way.receives_at == path.relayed { 48 } else { 0 };
            let growth = if (from, to) == (V4, V6) { 20 } else { 0 };
            let expected = if from == V4 { (3, 4) } else { (2, 0) };
            assert_eq!((icmp.kind, icmp.code), expected, "{} {pair:?}", way.name);
            assert_eq!(icmp.word as usize, MTU - to_peer - growth, "{} {pair:?}", way.name);
            assert!(icmp.checksum_is_right);
            if from == V6 {
                assert_eq!(icmp.length, 1280, "ICMP-002: as much as fits");
            }
        }
        assert!(!path.scene.packets.seen(|packet| packet.is_fragment));
    }
}

#[test]
fn turn_185_195_205_215_what_came_in_fragments_or_with_df_0_leaves_in_fragments() {
    for pair in PAIRS {
        let Some(path) = Path::new(pair) else { return };
        for way in path.ways() {
            way.sender.set_dont_fragment(false);
            way.send(&path.scene, 2000);
            let left = way.left(&path.scene);
            assert!(left.is_fragment, "{} {pair:?}", way.name);
            assert_ne!(left.dont_fragment, Some(true));
            let most = if way.families() == (V4, V6) { MIN_IPV6_MTU } else { MTU };
            assert!(left.length <= most && left.length > most - 100, "{} bytes", left.length);
            // The rest of it.
            way.left(&path.scene);
        }
    }
}

#[test]
fn turn_135_136_139_140_141_icmp_errors_of_peers_reach_the_client_as_data_indications() {
    for pair in PAIRS {
        let Some(mut path) = Path::new(pair) else { return };
        let closed = {
            let socket = bind(scene::peer(pair.1));
            socket.address()
        };
        path.client.channel_bind(CHANNEL + 1, closed);
        path.client.socket.send_to(&wire::channel_data(CHANNEL + 1, b"x"), path.client.server);
        let (peer, icmp) = path.client.icmp_indication();
        assert_eq!(peer, closed, "{pair:?}");
        let port_unreachable = if pair.1 == V4 { [0, 0, 3, 3] } else { [0, 0, 1, 4] };
        assert_eq!(icmp, [&port_unreachable[..], &[0; 4]].concat());

        // Nothing is lost after it.
        path.client.socket.send_to(&wire::channel_data(CHANNEL, b"after"), path.client.server);
        assert_eq!(path.bound.receive(), b"after");
    }
}

#[test]
fn icmp_012_turn_133_134_forged_and_cut_off_icmp_errors_are_dropped() {
    for pair in PAIRS {
        let Some(mut path) = Path::new(pair) else { return };
        let (relayed, peer) = (path.relayed, path.bound.address());
        let v4 = pair.1 == V4;
        let unreachable = |code| Error { kind: if v4 { 3 } else { 1 }, code, ..Error::about(relayed, peer) };
        let stranger = scene::stranger(pair.1);
        let dropped = [
            Error { quoted: headers(pair.1) - 8, ..unreachable(0) },
            Error { quoted: headers(pair.1) - 5, ..unreachable(0) },
            Error { quoted: 12, ..unreachable(0) },
            Error { quoted: 0, ..unreachable(0) },
            Error { destination: SocketAddr::new(stranger, peer.port()), ..unreachable(0) },
            Error { source: SocketAddr::new(relayed.ip(), relayed.port() ^ 1), ..unreachable(0) },
            // IPv4: source quench and parameter problem. IPv6: parameter problem and a type of no meaning.
            Error { kind: 4, ..unreachable(0) },
            Error { kind: if v4 { 12 } else { 100 }, ..unreachable(0) },
        ];
        for error in &dropped {
            error.send();
        }
        let told = |code| (peer, vec![0, 0, unreachable(code).kind, code, 0, 0, 0, 0]);
        if pair.1 == V6 {
            Error { extension: true, quoted: 40 + 8 + 3, ..unreachable(0) }.send();
            // The extension header is skipped.
            Error { extension: true, ..unreachable(3) }.send();
            assert_eq!(path.client.icmp_indication(), told(3));
        }
        unreachable(1).send();
        assert_eq!(path.client.icmp_indication(), told(1), "{pair:?}");
        // The next that the client gets is the answer: there is nothing else.
        path.client.channel_bind(CHANNEL, peer);
    }
}

#[test]
fn turn_131_bytes_past_the_udp_length_are_not_relayed() {
    let Some(path) = Path::new((V4, V4)) else { return };
    let (source, destination) = (path.bound.address(), path.relayed);
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) else { unreachable!("IPv4") };
    // Length, Identification and checksum of the IP header are the kernel's to fill in.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([from.octets(), to.octets()].concat());
    for word in [source.port(), destination.port(), 8 + 4, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(b"data and a surplus");
    let raw = Protocol::from(libc::IPPROTO_RAW);
    let socket = socket2::Socket::new(Domain::IPV4, Type::RAW, Some(raw)).unwrap();
    socket.send_to(&packet, &SocketAddr::new(destination.ip(), 0).into()).unwrap();
    assert_eq!(path.client.socket.receive(), wire::channel_data(CHANNEL, b"data"));
}
