//! What is carried of the IP header (RFC 8656 sections 13 and 14, RFC 7915 sections 4.1 and 5.1).

use std::net::SocketAddr;

use relay_user::turn::{Config, Family, Fragmentation, IpHeader, IpMeta, Output, PeerAddr, RelayedAddr};

use crate::{
    pair::{CHANNEL, Happened, PEER, Pair},
    wire,
};

/// As a datagram of 60 hops, AF41, ECT(0) arrives.
const META: IpMeta =
    IpMeta { ttl: Some(60), traffic_class: Some(0x8a), dont_fragment: Some(false), fragmented: false };

impl Pair {
    pub fn deliver_with(&mut self, client: usize, meta: IpMeta, datagram: &[u8]) -> Happened {
        let five_tuple = self.clients[client].five_tuple;
        self.server.handle_client(self.now, five_tuple, meta, datagram);
        self.drain()
    }

    pub fn peer_sends_with(
        &mut self,
        relayed: SocketAddr,
        peer: &str,
        meta: IpMeta,
        data: &[u8],
    ) -> Happened {
        let peer = PeerAddr(peer.parse().unwrap());
        self.server.handle_peer(self.now, RelayedAddr(relayed), peer, meta, data);
        self.drain()
    }

    pub fn send_with(&mut self, client: usize, meta: IpMeta, attributes: &[wire::Attribute]) -> Happened {
        let transaction = self.transaction(client);
        let message =
            wire::Builder::new(wire::INDICATION, wire::SEND, transaction).attributes(attributes).build();
        self.deliver_with(client, meta, &message)
    }
}

impl Happened {
    /// The IP header of the one datagram that left.
    pub fn ip(&self) -> IpHeader {
        let mut sent = self.outputs.iter().filter_map(|output| match output {
            Output::ToPeer { ip, .. } | Output::ToClient { ip, .. } => Some(*ip),
            _ => None,
        });
        let (Some(first), None) = (sent.next(), sent.next()) else { panic!("one datagram, not {self:?}") };
        first
    }
}

/// A way that data goes through the relay, with this IP header in.
type Way = fn(&mut Both, IpMeta) -> IpHeader;

struct Both {
    pair: Pair,
    relayed: SocketAddr,
}

const UNBOUND_PORT: &str = "8.8.8.8:1";

const WAYS: [(&str, Way); 4] = [
    ("ChannelData", |both, meta| both.pair.deliver_with(0, meta, &wire::channel_data(CHANNEL, b"x")).ip()),
    ("Send", |both, meta| both.pair.send_with(0, meta, &[wire::peer(PEER), wire::data(b"x")]).ip()),
    ("to ChannelData", |both, meta| both.pair.peer_sends_with(both.relayed, PEER, meta, b"x").ip()),
    ("Data", |both, meta| both.pair.peer_sends_with(both.relayed, UNBOUND_PORT, meta, b"x").ip()),
];

fn both() -> Both {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    Both { pair, relayed }
}

#[test]
fn turn_173_206_208_217_dp_042_043_044_ttl_dscp_and_ecn_are_carried_in_every_way() {
    for (name, way) in WAYS {
        for traffic_class in [0x00, 0x01, 0x02, 0x03, 0xb8, 0x8b, 0xff] {
            let ip = way(&mut both(), IpMeta { traffic_class: Some(traffic_class), ..META });
            assert_eq!((ip.ttl, ip.traffic_class), (Some(59), traffic_class), "{name}");
        }
    }
}

#[test]
fn turn_212_dp_045_ipv4_df_out_is_df_in_in_every_way() {
    for (name, way) in WAYS {
        let out = |dont_fragment| way(&mut both(), IpMeta { dont_fragment, ..META }).fragmentation;
        assert_eq!(out(Some(true)), Fragmentation::Never, "{name}");
        assert_eq!(out(Some(false)), Fragmentation::Allowed, "{name}");
        // TURN-213
        assert_eq!(out(None), Fragmentation::Allowed, "{name}");
    }
}

#[test]
fn turn_122_211_send_with_dont_fragment_leaves_with_df() {
    let mut pair = both().pair;
    for dont_fragment in [None, Some(false), Some(true)] {
        let attributes = [wire::peer(PEER), wire::dont_fragment(), wire::data(b"x")];
        let ip = pair.send_with(0, IpMeta { dont_fragment, ..META }, &attributes).ip();
        assert_eq!(ip.fragmentation, Fragmentation::Never);
    }
}

#[test]
fn turn_174_what_is_not_known_of_the_header_is_the_systems_default() {
    for (name, way) in WAYS {
        assert_eq!(way(&mut both(), IpMeta::default()), IpHeader::default(), "{name}");
    }
}

#[test]
fn responses_leave_with_the_systems_default_whatever_the_request_had() {
    let mut pair = both().pair;
    let refresh = pair.build(0, wire::REFRESH, &[wire::lifetime(600)]);
    for ttl in [1, 60] {
        let meta = IpMeta { ttl: Some(ttl), dont_fragment: Some(true), ..META };
        assert_eq!(pair.deliver_with(0, meta, &refresh).ip(), IpHeader::default());
    }
}

#[test]
fn a_hairpin_is_one_hop_as_in_the_kernel_program() {
    let mut pair = Pair::new();
    let b = pair.add_client("203.0.113.2:4000");
    let (relayed_a, relayed_b) = (pair.allocate(0).to_string(), pair.allocate(b).to_string());
    assert!(pair.bind(0, CHANNEL, &relayed_b).is_success());
    assert!(pair.permit(b, &relayed_a).is_success());
    for dont_fragment in [false, true] {
        let meta = IpMeta { dont_fragment: Some(dont_fragment), ..META };
        let ip = pair.deliver_with(0, meta, &wire::channel_data(CHANNEL, b"x")).ip();
        let fragmentation = if dont_fragment { Fragmentation::Never } else { Fragmentation::Allowed };
        assert_eq!(ip, IpHeader { ttl: Some(59), traffic_class: 0x8a, fragmentation });
    }
    let attributes = [wire::peer(&relayed_b), wire::dont_fragment(), wire::data(b"x")];
    assert_eq!(pair.send_with(0, META, &attributes).ip().fragmentation, Fragmentation::Never);
    let last_hop = IpMeta { ttl: Some(1), ..META };
    assert!(pair.deliver_with(0, last_hop, &wire::channel_data(CHANNEL, b"x")).is_silence());
    assert_eq!(pair.drops("ttl"), 1);
}

const RELAY_IPV6: &str = "2001:db8::1";
const LISTENER_IPV6: &str = "[2001:db8:1::1]:3478";
const CLIENT_IPV6: &str = "[2a00:c::1]:4000";
const PEER_IPV6: &str = "[2a00:d::1]:5000";

const PAIRS: [(Family, Family); 4] =
    [(Family::V4, Family::V4), (Family::V4, Family::V6), (Family::V6, Family::V4), (Family::V6, Family::V6)];

/// A client and a bound peer of these families.
pub struct Path {
    pub pair: Pair,
    pub relayed: SocketAddr,
    pub peer: &'static str,
}

impl Path {
    pub fn new((client, peer): (Family, Family)) -> Self {
        Self::with((client, peer), |_| {})
    }

    pub fn with((client, peer): (Family, Family), change: impl FnOnce(&mut Config)) -> Self {
        let mut pair = Pair::with(|config| {
            config.relay_addresses.push(RELAY_IPV6.parse().unwrap());
            config.listeners.push(LISTENER_IPV6.parse().unwrap());
            change(config);
        });
        if client == Family::V6 {
            let five_tuple = &mut pair.clients[0].five_tuple;
            five_tuple.client.0 = CLIENT_IPV6.parse().unwrap();
            five_tuple.server.0 = LISTENER_IPV6.parse().unwrap();
        }
        let attributes = [wire::requested_transport(17), wire::requested_family(peer as u8)];
        let relayed = pair.request(0, wire::ALLOCATE, &attributes).relayed();
        let peer = if peer == Family::V4 { PEER } else { PEER_IPV6 };
        assert!(pair.bind(0, CHANNEL, peer).is_success());
        Self { pair, relayed, peer }
    }

    fn other_port(&self) -> String {
        let mut address: SocketAddr = self.peer.parse().unwrap();
        address.set_port(1);
        address.to_string()
    }

    /// The header that data of so many bytes leaves with: as ChannelData from the client, in a Send, from the
    /// bound port of the peer, and from another one.
    fn out(&mut self, meta: IpMeta, length: usize) -> [IpHeader; 4] {
        let data = vec![7; length];
        let other = self.other_port();
        [
            self.pair.deliver_with(0, meta, &wire::channel_data(CHANNEL, &data)).ip(),
            self.pair.send_with(0, meta, &[wire::peer(self.peer), wire::data(&data)]).ip(),
            self.pair.peer_sends_with(self.relayed, self.peer, meta, &data).ip(),
            self.pair.peer_sends_with(self.relayed, &other, meta, &data).ip(),
        ]
    }
}

#[test]
fn turn_021_178_196_206_208_dp_043_044_ttl_dscp_and_ecn_are_carried_between_all_families() {
    for families in PAIRS {
        for ip in Path::new(families).out(META, 100) {
            assert_eq!((ip.ttl, ip.traffic_class), (Some(59), 0x8a), "{families:?}");
        }
    }
}

#[test]
fn turn_177_179_189_197_199_what_is_not_known_is_the_default_between_all_families() {
    for families in PAIRS {
        for ip in Path::new(families).out(IpMeta::default(), 100) {
            assert_eq!((ip.ttl, ip.traffic_class), (None, 0), "{families:?}");
        }
    }
}

#[test]
fn turn_181_182_183_184_dp_047_ipv4_to_ipv6_fragments_within_the_configured_lowest_mtu() {
    let mut path = Path::with((Family::V4, Family::V6), |config| config.min_ipv6_mtu = 1400);
    let fits = 1400 - 48;
    let with_df = |dont_fragment| IpMeta { dont_fragment, ..META };
    for dont_fragment in [Some(false), None] {
        let ip = |path: &mut Path, length| path.out(with_df(dont_fragment), length)[0].fragmentation;
        assert_eq!(ip(&mut path, fits), Fragmentation::Allowed);
        assert_eq!(ip(&mut path, fits + 1), Fragmentation::AtMost(1400));
    }
    assert_eq!(path.out(with_df(Some(true)), 2000)[0].fragmentation, Fragmentation::Never);
    // The other way round it is the client who is reached by IPv6, with a ChannelData header before the data.
    let mut path = Path::with((Family::V6, Family::V4), |config| config.min_ipv6_mtu = 1400);
    let to_client = |path: &mut Path, length| path.out(META, length)[2].fragmentation;
    assert_eq!(to_client(&mut path, fits - 4), Fragmentation::Allowed);
    assert_eq!(to_client(&mut path, fits - 3), Fragmentation::AtMost(1400));
}

#[test]
fn turn_200_201_dp_046_ipv6_to_ipv4_has_df_above_1260_bytes() {
    let mut path = Path::new((Family::V6, Family::V4));
    let fits = 1260 - 28;
    assert_eq!(path.out(META, fits)[0].fragmentation, Fragmentation::Allowed);
    assert_eq!(path.out(META, fits + 1)[0].fragmentation, Fragmentation::Never);
    let mut path = Path::new((Family::V4, Family::V6));
    assert_eq!(path.out(META, fits - 4)[2].fragmentation, Fragmentation::Allowed);
    assert_eq!(path.out(META, fits - 3)[2].fragmentation, Fragmentation::Never);
}

#[test]
fn turn_185_190_191_195_202_205_what_came_by_ipv6_in_fragments_may_leave_in_fragments() {
    let fragmented = IpMeta { fragmented: true, ..META };
    for (client, peer) in PAIRS {
        let mut path = Path::new((client, peer));
        for (to_peer, way) in [(true, 0), (true, 1), (false, 2), (false, 3)] {
            let from = if to_peer { client } else { peer };
            if from == Family::V6 {
                assert_eq!(path.out(META, 2000)[way].fragmentation, Fragmentation::Never);
                assert_eq!(path.out(fragmented, 2000)[way].fragmentation, Fragmentation::Allowed);
            }
        }
    }
}

#[test]
fn turn_175_dont_fragment_is_ignored_where_a_family_is_ipv6() {
    for families in PAIRS {
        let mut path = Path::new(families);
        let data = vec![7; 100];
        let plain = [wire::peer(path.peer), wire::data(&data)];
        let with = [wire::peer(path.peer), wire::dont_fragment(), wire::data(&data)];
        let plain = path.pair.send_with(0, META, &plain).ip().fragmentation;
        let with = path.pair.send_with(0, META, &with).ip().fragmentation;
        assert_eq!(with == plain, families != (Family::V4, Family::V4), "{families:?}");
    }
}

#[test]
fn turn_021_125_129_162_data_passes_between_all_families_as_it_is() {
    for families in PAIRS {
        let mut path = Path::new(families);
        let peer: SocketAddr = path.peer.parse().unwrap();
        for data in [&b""[..], b"x", &[7; 1200]] {
            let sent = path.pair.channel_data(0, CHANNEL, data);
            assert_eq!(sent.to_peer(), (path.relayed, peer, data));
            let sent = path.pair.send(0, path.peer, data);
            assert_eq!(sent.to_peer(), (path.relayed, peer, data));
            let received = path.pair.peer_sends(path.relayed, path.peer, data);
            assert_eq!(received.datagram(), wire::channel_data(CHANNEL, data));
            let other = path.other_port();
            let received = path.pair.peer_sends(path.relayed, &other, data);
            assert_eq!(received.data_indication(), (other.parse().unwrap(), data.to_vec()));
        }
    }
}

#[test]
fn what_fits_no_datagram_of_the_other_family_is_dropped() {
    const MOST: [usize; 2] = [65_507, 65_527];
    let most = |family| MOST[usize::from(family == Family::V6)];
    for (client, peer) in PAIRS {
        let mut path = Path::new((client, peer));
        let fits = vec![7; most(peer).min(0xffff)];
        assert!(!path.pair.deliver_with(0, META, &wire::channel_data(CHANNEL, &fits)).is_silence());
        let too_long = vec![7; most(peer) + 1];
        assert!(path.pair.deliver_with(0, META, &wire::channel_data(CHANNEL, &too_long)).is_silence());
        let to_client = |path: &mut Path, length| {
            path.pair.peer_sends_with(path.relayed, path.peer, META, &vec![7; length]).is_silence()
        };
        assert!(!to_client(&mut path, most(client) - 4));
        assert!(to_client(&mut path, most(client) - 3));
        let other = path.other_port();
        // Header, XOR-PEER-ADDRESS and the header of DATA, and padding.
        let overhead = 20 + if peer == Family::V4 { 12 } else { 24 } + 4;
        let most_in_indication = (most(client) - overhead) / 4 * 4;
        let mut indicated =
            |length| !path.pair.peer_sends_with(path.relayed, &other, META, &vec![7; length]).is_silence();
        assert!(indicated(most_in_indication) && !indicated(most_in_indication + 1), "{client:?} {peer:?}");
    }
}

#[test]
fn turn_126_send_to_a_family_without_a_relayed_address_sends_nothing() {
    let mut path = Path::new((Family::V4, Family::V6));
    assert!(path.pair.send(0, PEER, b"x").is_silence());
    assert_eq!(path.pair.drops("address_family"), 1);
}

/// What a hairpin carries into the second half is of the relayed addresses' family, whatever the sender's was.
#[test]
fn a_hairpin_leaves_as_if_it_had_come_from_the_other_relayed_address() {
    let Path { mut pair, relayed, .. } = Path::new((Family::V4, Family::V6));
    let b = pair.add_client(CLIENT_IPV6);
    pair.clients[b].five_tuple.server.0 = LISTENER_IPV6.parse().unwrap();
    let attributes = [wire::requested_transport(17), wire::requested_family(Family::V6 as u8)];
    let relayed_b = pair.request(b, wire::ALLOCATE, &attributes).relayed().to_string();
    assert!(pair.permit(0, &relayed_b).is_success());
    assert!(pair.permit(b, &relayed.to_string()).is_success());
    // DF=0 on IPv4 would allow fragments on IPv6, but a packet that came whole on IPv6 leaves whole.
    let ip = pair.send_with(0, META, &[wire::peer(&relayed_b), wire::data(b"x")]).ip();
    assert_eq!(ip.fragmentation, Fragmentation::Never);
}
