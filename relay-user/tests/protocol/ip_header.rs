//! What is carried of the IP header (RFC 8656 sections 13 and 14, RFC 7915 sections 4.1 and 5.1).

use std::net::SocketAddr;

use relay_user::turn::{Fragmentation, IpHeader, IpMeta, Output, PeerAddr, RelayedAddr};

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
