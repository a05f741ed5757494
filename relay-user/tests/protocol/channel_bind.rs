//! ChannelBind and channels (RFC 8656 sections 12 and 12.2).

use crate::{
    pair::{CHANNEL, LISTENER, PEER, Pair, RELAY_IP, seconds},
    wire,
};

#[test]
fn turn_145_146_a_binding_lasts_600_s_from_the_last_bind() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.refresh(0, 3600);
    pair.bind(0, CHANNEL, PEER);
    pair.advance(seconds(400));
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    pair.advance(seconds(599));
    assert!(!pair.channel_data(0, CHANNEL, b"x").is_silence());
    pair.advance(seconds(1));
    assert!(pair.channel_data(0, CHANNEL, b"x").is_silence());
    assert_eq!(pair.drops("no_channel"), 1);
    assert_eq!(pair.server.totals().channels, 0);
}

#[test]
fn turn_144_a_binding_concerns_its_own_allocation() {
    let mut pair = Pair::new();
    let second = pair.add_client("203.0.113.2:4000");
    pair.allocate(0);
    pair.allocate(second);
    pair.bind(0, CHANNEL, PEER);
    assert!(pair.channel_data(second, CHANNEL, b"x").is_silence());
    assert!(pair.bind(second, CHANNEL, "9.9.9.9:9").is_success());
}

#[test]
fn turn_147_after_expiry_number_and_peer_are_free_at_once() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.refresh(0, 3600);
    pair.bind(0, CHANNEL, PEER);
    pair.advance(seconds(600));
    assert!(pair.bind(0, CHANNEL, "9.9.9.9:9").is_success());
    assert!(pair.bind(0, 0x4001, PEER).is_success());
}

#[test]
fn turn_149_150_228_numbers_and_missing_attributes() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let mut answer = |attributes: &[wire::Attribute]| pair.request(0, wire::CHANNEL_BIND, attributes);
    assert_eq!(answer(&[]).error(), 400);
    assert_eq!(answer(&[wire::channel_number(CHANNEL)]).error(), 400);
    assert_eq!(answer(&[wire::peer(PEER)]).error(), 400);
    assert_eq!(answer(&[(0x000c, vec![0x40, 0]), wire::peer(PEER)]).error(), 400);
    for number in [0, 0x3fff, 0x5000, 0x7fff, 0xffff] {
        assert_eq!(answer(&[wire::channel_number(number), wire::peer(PEER)]).error(), 400);
    }
    assert!(answer(&[wire::channel_number(0x4fff), wire::peer(PEER)]).is_success());
}

/// coturn's client, for one, chooses from all of RFC 5766's range.
#[test]
fn rfc_5766_channels_are_accepted_where_the_operator_wants_them() {
    let mut pair = Pair::with(|config| config.rfc5766_channels = true);
    let relayed = pair.allocate(0);
    for number in [0, 0x3fff, 0x8000, 0xffff] {
        assert_eq!(pair.bind(0, number, PEER).error(), 400, "{number:#x}");
    }
    assert!(pair.bind(0, 0x7fff, PEER).is_success());
    let happened = pair.channel_data(0, 0x7fff, b"x");
    assert_eq!(happened.to_peer(), (relayed, PEER.parse().unwrap(), &b"x"[..]));
    assert!(pair.channel_data(0, 0x5000, b"x").outputs.is_empty(), "not bound");
    assert_eq!(pair.drops("no_channel"), 1);
}

#[test]
fn turn_151_152_153_159_number_and_peer_are_one_to_one() {
    let mut pair = Pair::new();
    pair.allocate(0);
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    pair.advance(seconds(1));
    let before: Vec<_> = pair.server.sessions().collect();
    assert_eq!(pair.bind(0, CHANNEL, "9.9.9.9:9").error(), 400);
    assert_eq!(pair.bind(0, CHANNEL, "8.8.8.8:5001").error(), 400);
    assert_eq!(pair.bind(0, 0x4001, PEER).error(), 400);
    assert_eq!(pair.server.sessions().collect::<Vec<_>>(), before, "TURN-159");
    assert!(pair.bind(0, 0x4001, "8.8.8.8:5001").is_success(), "another port is another peer");
}

#[test]
fn turn_154_155_159_242_refused_peers_change_nothing() {
    let mut pair = Pair::new();
    pair.allocate(0);
    assert_eq!(pair.bind(0, CHANNEL, "[2001:4860::1]:1").error(), 443);
    assert_eq!(pair.bind(0, CHANNEL, "[::ffff:8.8.8.8]:1").error(), 443);
    for forbidden in
        ["192.168.1.1:1", "127.0.0.1:1", LISTENER, "198.51.100.1:9999", &format!("{RELAY_IP}:22")]
    {
        assert_eq!(pair.bind(0, CHANNEL, forbidden).error(), 403, "{forbidden}");
    }
    assert_eq!(pair.bind(0, CHANNEL, "8.8.8.8:0").error(), 400);
    let totals = pair.server.totals();
    assert_eq!((totals.channels, totals.permissions), (0, 0));
    assert_eq!(pair.flow_counts(), [1, 0, 0]);
}

#[test]
fn turn_157_158_a_bind_installs_the_permission_for_the_peers_address() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    assert!(pair.bind(0, CHANNEL, PEER).is_success());
    assert_eq!(pair.peer_sends(relayed, PEER, b"x").datagram(), wire::channel_data(CHANNEL, b"x"));
    let (peer, _) = pair.peer_sends(relayed, "8.8.8.8:1", b"x").data_indication();
    assert_eq!(peer, "8.8.8.8:1".parse().unwrap());
}

#[test]
fn turn_156_all_4096_numbers_can_be_bound() {
    let mut pair = Pair::with(|config| config.limits.channels = 4096);
    let relayed = pair.allocate(0);
    for number in 0x4000..=0x4fff {
        assert!(pair.bind(0, number, &format!("8.8.8.8:{number}")).is_success());
    }
    assert_eq!(pair.flow_counts(), [1, 2, 2 * 4096]);
    assert_eq!(pair.bind(0, 0x4000, "8.8.8.8:1").error(), 400);
    assert_eq!(pair.peer_sends(relayed, "8.8.8.8:20479", b"x").datagram(), wire::channel_data(0x4fff, b"x"));
    pair.advance(seconds(600));
    assert!(pair.flows.is_empty());
    assert_eq!(pair.server.poll_timeout(), None);
}

#[test]
fn turn_022_a_retransmitted_channel_bind_gets_the_same_answer() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let request = pair.build(0, wire::CHANNEL_BIND, &[wire::channel_number(CHANNEL), wire::peer(PEER)]);
    assert_eq!(pair.exchange(0, &request), pair.exchange(0, &request));
    assert_eq!(pair.server.totals().channels, 1);
}

#[test]
fn turn_156_159_508_when_an_allocation_has_too_many() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let most = relay_user::turn::Limits::default().channels as u16;
    for number in 0..most {
        assert!(pair.bind(0, CHANNEL + number, &format!("8.8.8.8:{}", 1 + number)).is_success());
    }
    assert_eq!(pair.bind(0, CHANNEL + most, "9.9.9.9:9").error(), 508);
    let totals = pair.server.totals();
    assert_eq!((totals.channels, totals.permissions), (most as usize, 1), "TURN-159");
    assert!(pair.bind(0, CHANNEL, "8.8.8.8:1").is_success(), "those there are can be refreshed");
}
