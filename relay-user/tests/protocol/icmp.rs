//! ICMP errors: those relayed to clients (RFC 8656 section 11.5), and those the server makes (RFC 792, RFC 4443).

use std::net::{IpAddr, SocketAddr};

use relay_common::checksum;
use relay_user::turn::{
    Family, IcmpError, IcmpMessage, IpHeader, IpMeta, Output, PeerAddr, Received, RelayedAddr,
};

use crate::{
    ip_header::Path,
    pair::{CHANNEL, Happened, LISTENER, PEER, Pair, RELAY_IP, seconds},
    wire::{self, Message},
};

const CLIENT: &str = "203.0.113.1:4000";

impl Pair {
    fn icmp(&mut self, relayed: SocketAddr, peer: &str, (kind, code, mtu): (u8, u8, u32)) -> Happened {
        let error = IcmpError { peer: PeerAddr(peer.parse().unwrap()), kind, code, mtu };
        self.server.handle_icmp(self.now, RelayedAddr(relayed), error);
        self.drain()
    }

    fn too_big(&mut self, received: &Received<'_>, link: Family, mtu: u32) -> Happened {
        self.server.handle_too_big(self.now, received, link, mtu);
        self.drain()
    }
}

impl Happened {
    fn icmp(&self) -> Option<&IcmpMessage> {
        let mut made = self.outputs.iter().filter_map(|output| match output {
            Output::Icmp(message) => Some(message),
            _ => None,
        });
        let first = made.next();
        assert_eq!(made.next(), None, "one error for one datagram");
        first
    }
}

fn ready() -> (Pair, SocketAddr) {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    assert!(pair.permit(0, PEER).is_success());
    (pair, relayed)
}

#[test]
fn turn_139_140_142_237_an_icmp_error_becomes_a_data_indication_with_icmp_and_no_data() {
    let (mut pair, relayed) = ready();
    let happened = pair.icmp(relayed, PEER, (3, 3, 0));
    assert_eq!(happened.to_client().next().unwrap().0, pair.clients[0].five_tuple);
    assert_eq!(happened.ip(), IpHeader::default());
    let indication = Message::parse(happened.datagram());
    assert_eq!((indication.class, indication.method), (wire::INDICATION, wire::DATA));
    assert_eq!(indication.address(0x0012), PEER.parse().unwrap());
    assert_eq!(indication.attribute(0x8004), Some(&[0, 0, 3, 3, 0, 0, 0, 0][..]));
    assert!(!indication.has(0x0013));
    assert_eq!(indication.attributes.len(), 2);

    let happened = pair.icmp(relayed, "8.8.8.8:0", (3, 1, 0));
    let portless = Message::parse(happened.datagram());
    assert_eq!(portless.address(0x0012), "8.8.8.8:0".parse().unwrap(), "a port that is not known is 0");
}

#[test]
fn turn_133_143_icmpv4_types_3_and_11_are_relayed_with_any_code_and_no_others() {
    let (mut pair, relayed) = ready();
    for kind in 0..=255 {
        for code in [0, 1, 4, 13, 200] {
            let happened = pair.icmp(relayed, PEER, (kind, code, 0));
            assert_eq!(!happened.is_silence(), matches!(kind, 3 | 11), "{kind}/{code}");
        }
    }
    assert_eq!(pair.drops("icmp_type"), 254 * 5);
}

#[test]
fn turn_238_only_fragmentation_needed_tells_an_mtu() {
    let (mut pair, relayed) = ready();
    let mut error_data = |error| {
        let happened = pair.icmp(relayed, PEER, error);
        Message::parse(happened.datagram()).attribute(0x8004).unwrap()[4..].to_vec()
    };
    assert_eq!(error_data((3, 4, 1400)), 1400u32.to_be_bytes());
    assert_eq!(error_data((3, 3, 1400)), [0; 4]);
    assert_eq!(error_data((11, 0, 77)), [0; 4]);
}

#[test]
fn turn_136_137_138_allocation_and_permission_decide_about_icmp_errors() {
    let (mut pair, relayed) = ready();
    assert!(pair.icmp(relayed, "9.9.9.9:5000", (3, 3, 0)).is_silence());
    assert_eq!(pair.drops("peer_not_permitted"), 1);
    assert!(!pair.icmp(relayed, "8.8.8.8:77", (3, 3, 0)).is_silence(), "only the address counts");
    let nobodys = SocketAddr::new(relayed.ip(), relayed.port() ^ 1);
    assert!(pair.icmp(nobodys, PEER, (3, 3, 0)).is_silence());
    assert_eq!(pair.drops("no_relayed_address"), 1);
    pair.advance(seconds(300));
    assert!(pair.icmp(relayed, PEER, (3, 3, 0)).is_silence());
}

#[test]
fn turn_141_icmp_is_a_data_indication_also_where_a_channel_is_bound() {
    let (mut pair, relayed) = ready();
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    let indication = pair.icmp(relayed, PEER, (3, 3, 0));
    assert_eq!(Message::parse(indication.datagram()).address(0x0012), PEER.parse().unwrap());
}

/// An ICMPv4 error, taken apart: type, code, second word, quoted packet.
fn parse_v4(message: &IcmpMessage) -> (u8, u8, u32, &[u8]) {
    let bytes = &message.bytes;
    assert_eq!(checksum::of(bytes, 0), 0, "its checksum is right");
    (bytes[0], bytes[1], u32::from_be_bytes(bytes[4..8].try_into().unwrap()), &bytes[8..])
}

const LAST_HOP: IpMeta =
    IpMeta { ttl: Some(1), traffic_class: Some(0xb8), dont_fragment: Some(true), fragmented: false };

#[test]
fn turn_176_217_icmp_001_006_a_ttl_that_would_reach_0_is_answered_with_time_exceeded() {
    let (mut pair, relayed) = ready();
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    let datagram = wire::channel_data(CHANNEL, &[7; 700]);
    for ttl in [0, 1] {
        let happened = pair.deliver_with(0, IpMeta { ttl: Some(ttl), ..LAST_HOP }, &datagram);
        assert!(happened.is_silence());
        let message = happened.icmp().expect("an answer");
        assert_eq!(message.source.to_string(), LISTENER.split_once(':').unwrap().0);
        assert_eq!(message.destination.to_string(), CLIENT.split_once(':').unwrap().0);
        let (kind, code, word, quoted) = parse_v4(message);
        assert_eq!((kind, code, word), (11, 0, 0));
        // An ICMPv4 error has at most 576 bytes with its IP header (RFC 1812).
        assert_eq!(quoted.len(), 576 - 28);
        assert_eq!(checksum::of(&quoted[..20], 0), 0);
        assert_eq!(quoted[..2], [0x45, 0xb8]);
        assert_eq!(quoted[2..4], (28 + 704u16).to_be_bytes());
        assert_eq!(quoted[6..10], [0x40, 0, ttl, 17]);
        assert_eq!(quoted[12..20], [203, 0, 113, 1, 198, 51, 100, 1]);
        assert_eq!(quoted[20..24], [4000u16.to_be_bytes(), 3478u16.to_be_bytes()].concat());
        assert_eq!(quoted[24..26], (8 + 704u16).to_be_bytes());
        assert_eq!(quoted[28..], datagram[..quoted.len() - 28]);
    }
    assert!(!pair.deliver_with(0, IpMeta { ttl: Some(2), ..LAST_HOP }, &datagram).is_silence());

    let happened = pair.peer_sends_with(relayed, PEER, LAST_HOP, b"x");
    assert!(happened.is_silence());
    let message = happened.icmp().expect("an answer");
    assert_eq!((message.source, message.destination), (relayed.ip(), "8.8.8.8".parse().unwrap()));
    let (_, _, _, quoted) = parse_v4(message);
    assert_eq!(quoted.len(), 29, "all there is");
    let pseudo = [&quoted[12..20], &[0, 17], &9u16.to_be_bytes()].concat();
    assert_eq!(checksum::of(&quoted[20..], u64::from(!checksum::of(&pseudo, 0))), 0, "the UDP checksum too");
    assert_eq!(pair.drops("ttl"), 3);
}

#[test]
fn who_may_not_send_is_not_answered_either() {
    let (mut pair, relayed) = ready();
    let happened = pair.peer_sends_with(relayed, "9.9.9.9:1", LAST_HOP, b"x");
    assert!(happened.outputs.is_empty());
    let happened = pair.deliver_with(0, LAST_HOP, &wire::channel_data(CHANNEL, b"x"));
    assert!(happened.outputs.is_empty());
}

fn received(source: SocketAddr, destination: SocketAddr, dont_fragment: bool) -> Received<'static> {
    let meta = IpMeta { ttl: Some(60), dont_fragment: Some(dont_fragment), ..IpMeta::default() };
    Received { source, destination, meta, payload: &[7; 1400] }
}

#[test]
fn turn_204_215_icmp_011_what_does_not_fit_is_answered_with_the_mtu_if_df_was_set() {
    let (mut pair, relayed) = ready();
    let (client, listener, peer) =
        (CLIENT.parse().unwrap(), LISTENER.parse().unwrap(), PEER.parse().unwrap());
    let mtu = |happened: &Happened| {
        let (kind, code, word, _) = parse_v4(happened.icmp().expect("an answer"));
        assert_eq!((kind, code), (3, 4));
        word
    };
    assert_eq!(mtu(&pair.too_big(&received(client, listener, true), Family::V4, 1300)), 1300);
    let from_peer = received(peer, relayed, true);
    assert_eq!(mtu(&pair.too_big(&from_peer, Family::V4, 1300)), 1300 - 48, "room for a Data indication");
    // TURN-181: towards IPv6 the header grows by 20.
    assert_eq!(mtu(&pair.too_big(&received(client, listener, true), Family::V6, 1400)), 1400 - 20);
    assert_eq!(mtu(&pair.too_big(&from_peer, Family::V6, 1400)), 1400 - 20 - 48);
    // A loopback link's, which the field cannot hold.
    assert_eq!(mtu(&pair.too_big(&received(client, listener, true), Family::V4, 65_536)), 65_535);
    assert!(pair.too_big(&received(client, listener, false), Family::V4, 1300).outputs.is_empty());
    assert_eq!(pair.drops("mtu"), 6);
}

#[test]
fn icmp_003_no_error_for_a_source_that_is_not_one_host() {
    let (mut pair, _) = ready();
    let listener = LISTENER.parse().unwrap();
    for source in ["0.0.0.0:1", "0.1.2.3:1", "127.0.0.1:1", "224.0.0.1:1", "240.0.0.1:1", "255.255.255.255:1"]
    {
        let happened = pair.too_big(&received(source.parse().unwrap(), listener, true), Family::V4, 1300);
        assert!(happened.outputs.is_empty(), "{source}");
    }
    let multicast = "224.0.0.1:3478".parse().unwrap();
    let happened = pair.too_big(&received(CLIENT.parse().unwrap(), multicast, true), Family::V4, 1300);
    assert!(happened.outputs.is_empty());
}

#[test]
fn icmp_004_005_errors_are_limited_to_a_configured_rate_with_bursts() {
    let mut pair = Pair::with(|config| config.limits.icmp_per_second = 10);
    let relayed = pair.allocate(0);
    assert!(pair.permit(0, PEER).is_success());
    let made = |pair: &mut Pair| {
        let sent = |_: &i32| pair.peer_sends_with(relayed, PEER, LAST_HOP, b"x").icmp().is_some();
        (0..100).filter(sent).count()
    };
    assert_eq!(made(&mut pair), 10);
    pair.advance(seconds(1));
    assert_eq!(made(&mut pair), 10);
    pair.advance(seconds(200));
    assert_eq!(made(&mut pair), 10, "what was not used is not saved up");
}

#[test]
fn icmp_008_009_errors_can_be_switched_off_and_congestion_makes_none() {
    let mut pair = Pair::with(|config| config.limits.icmp_per_second = 0);
    let relayed = pair.allocate(0);
    assert!(pair.permit(0, PEER).is_success());
    assert!(pair.peer_sends_with(relayed, PEER, LAST_HOP, b"x").outputs.is_empty());

    let mut pair = Pair::with(|config| config.limits.bytes_per_second = 1);
    let relayed = pair.allocate(0);
    assert!(pair.permit(0, PEER).is_success());
    assert!(!pair.peer_sends(relayed, PEER, &[7; 65_000]).is_silence());
    assert!(pair.peer_sends(relayed, PEER, &[7; 65_000]).outputs.is_empty());
    assert_eq!(pair.drops("bandwidth"), 1);
}

#[test]
fn an_error_names_the_addresses_that_were_on_the_wire_here_for_the_nat_to_translate() {
    let mut pair = Pair::with(|config| {
        config.external_addresses.insert(RELAY_IP.parse().unwrap(), "198.51.100.99".parse().unwrap());
    });
    let external = pair.allocate(0);
    assert!(pair.permit(0, PEER).is_success());
    let relayed = SocketAddr::new(RELAY_IP.parse().unwrap(), external.port());
    let happened = pair.peer_sends_with(relayed, PEER, LAST_HOP, b"x");
    let message = happened.icmp().expect("an answer");
    assert_eq!(message.source, relayed.ip());
    let (_, _, _, quoted) = parse_v4(message);
    assert_eq!(quoted[16..20], [192, 0, 2, 1]);
}

const BOTH_V6: (Family, Family) = (Family::V6, Family::V6);

/// An ICMPv6 error, taken apart as [`parse_v4`] does.
fn parse_v6(message: &IcmpMessage) -> (u8, u8, u32, &[u8]) {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (message.source, message.destination) else {
        panic!("{message:?}");
    };
    let bytes = &message.bytes;
    let mut pseudo = [source.octets(), destination.octets()].concat();
    pseudo.extend((bytes.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 58]);
    assert_eq!(checksum::of(bytes, u64::from(!checksum::of(&pseudo, 0))), 0, "ICMP-007");
    (bytes[0], bytes[1], u32::from_be_bytes(bytes[4..8].try_into().unwrap()), &bytes[8..])
}

#[test]
fn turn_134_143_icmpv6_types_1_to_3_are_relayed_with_any_code_and_no_others() {
    let mut path = Path::new(BOTH_V6);
    for kind in 0..=255 {
        for code in [0, 4, 200] {
            let happened = path.pair.icmp(path.relayed, path.peer, (kind, code, 0));
            assert_eq!(!happened.is_silence(), matches!(kind, 1..=3), "{kind}/{code}");
        }
    }
}

#[test]
fn turn_139_140_238_an_icmpv6_error_names_the_peer_and_packet_too_big_the_mtu() {
    let mut path = Path::new((Family::V4, Family::V6));
    for (error, error_data) in [((1, 4, 1400), 0), ((2, 0, 1400), 1400), ((3, 0, 1400), 0)] {
        let happened = path.pair.icmp(path.relayed, path.peer, error);
        let indication = Message::parse(happened.datagram());
        assert_eq!(indication.address(0x0012), path.peer.parse().unwrap());
        let mut expected = vec![0, 0, error.0, error.1];
        expected.extend(u32::to_be_bytes(error_data));
        assert_eq!(indication.attribute(0x8004), Some(&expected[..]));
    }
    let other_family = path.pair.icmp(path.relayed, PEER, (3, 3, 0));
    assert!(other_family.is_silence(), "no IPv4 packet left from there");
}

#[test]
fn turn_188_198_icmp_002_006_007_a_hop_limit_that_would_reach_0_is_answered_with_time_exceeded() {
    for families in [BOTH_V6, (Family::V6, Family::V4)] {
        let mut path = Path::new(families);
        let datagram = wire::channel_data(CHANNEL, &[7; 1400]);
        let meta = IpMeta { dont_fragment: None, ..LAST_HOP };
        let happened = path.pair.deliver_with(0, meta, &datagram);
        assert!(happened.is_silence());
        let message = happened.icmp().expect("an answer");
        let five_tuple = path.pair.clients[0].five_tuple;
        assert_eq!(message.source, five_tuple.server.0.ip());
        assert_eq!(message.destination, five_tuple.client.0.ip());
        let (kind, code, word, quoted) = parse_v6(message);
        assert_eq!((kind, code, word), (3, 0, 0));
        assert_eq!(40 + 8 + quoted.len(), 1280, "as much as fits");
        assert_eq!(quoted[..8], [0x6b, 0x80, 0, 0, 5, 132, 17, 1]);
        assert_eq!(quoted[40..44], [4000u16.to_be_bytes(), 3478u16.to_be_bytes()].concat());
        assert_eq!(quoted[48..], datagram[..quoted.len() - 48]);
    }
    let mut path = Path::new(BOTH_V6);
    let happened = path.pair.peer_sends_with(path.relayed, path.peer, LAST_HOP, b"x");
    let message = happened.icmp().expect("an answer");
    assert_eq!(message.source, path.relayed.ip());
    assert_eq!(parse_v6(message).3.len(), 49, "all there is");
}

#[test]
fn turn_191_192_203_icmp_010_packet_too_big_tells_the_mtu_less_48_to_a_peer() {
    let mut path = Path::new(BOTH_V6);
    let five_tuple = path.pair.clients[0].five_tuple;
    let (client, listener) = (five_tuple.client.0, five_tuple.server.0);
    let from_client = Received { meta: IpMeta::default(), ..received(client, listener, false) };
    let from_peer = Received { source: path.peer.parse().unwrap(), destination: path.relayed, ..from_client };
    for (received, less) in [(from_client, 0), (from_peer, 48)] {
        for link in Family::ALL {
            let happened = path.pair.too_big(&received, link, 1400);
            let (kind, code, mtu, _) = parse_v6(happened.icmp().expect("an answer"));
            assert_eq!((kind, code, mtu), (2, 0, 1400 - less));
        }
    }
}

#[test]
fn icmp_003_no_icmpv6_error_for_a_source_that_is_not_one_host() {
    let mut path = Path::new(BOTH_V6);
    let listener = path.pair.clients[0].five_tuple.server.0;
    for source in ["[::]:1", "[::1]:1", "[ff02::1]:1", "[::ffff:8.8.8.8]:1"] {
        let received = received(source.parse().unwrap(), listener, true);
        assert!(path.pair.too_big(&received, Family::V6, 1400).outputs.is_empty(), "{source}");
    }
}
