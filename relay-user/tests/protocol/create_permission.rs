//! CreatePermission and permissions (RFC 8656 sections 9 and 10).

use crate::{
    pair::{CHANNEL, HOST_IP, PEER, Pair, seconds},
    wire,
};

#[test]
fn turn_100_102_103_104_244_a_permission_lets_any_port_of_its_address_in_for_300_s() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    assert!(pair.peer_sends(relayed, PEER, b"x").outputs.is_empty());
    assert_eq!(pair.drops("peer_not_permitted"), 1);

    assert!(pair.permit(0, PEER).is_success());
    pair.advance(seconds(299));
    for peer in ["8.8.8.8:5000", "8.8.8.8:1", "8.8.8.8:65535"] {
        let happened = pair.peer_sends(relayed, peer, b"x");
        assert_eq!(happened.data_indication(), (peer.parse().unwrap(), b"x".to_vec()));
    }
    assert!(pair.peer_sends(relayed, "8.8.8.9:5000", b"x").outputs.is_empty());
    pair.advance(seconds(1));
    assert!(pair.peer_sends(relayed, PEER, b"x").outputs.is_empty());
    assert!(pair.send(0, PEER, b"x").outputs.is_empty());
}

#[test]
fn turn_101_installing_again_resets_to_300_s() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    pair.permit(0, PEER);
    pair.advance(seconds(200));
    pair.permit(0, PEER);
    pair.advance(seconds(299));
    assert!(!pair.peer_sends(relayed, PEER, b"x").is_silence());
    pair.advance(seconds(1));
    assert!(pair.peer_sends(relayed, PEER, b"x").is_silence());
}

#[test]
fn turn_105_a_permission_is_for_its_own_allocation() {
    let mut pair = Pair::new();
    let second = pair.add_client("203.0.113.2:4000");
    pair.allocate(0);
    let other = pair.allocate(second);
    pair.permit(0, PEER);
    assert!(pair.peer_sends(other, PEER, b"x").is_silence());
    assert!(pair.send(second, PEER, b"x").is_silence());
}

#[test]
fn turn_106_both_requests_refresh_the_same_permission() {
    let mut pair = Pair::with(|config| config.strict_permissions = true);
    let relayed = pair.allocate(0);
    pair.permit(0, PEER);
    pair.advance(seconds(200));
    pair.bind(0, CHANNEL, PEER);
    pair.advance(seconds(200));
    pair.permit(0, PEER);
    assert_eq!(pair.server.totals().permissions, 1);
    pair.advance(seconds(190));
    assert!(!pair.peer_sends(relayed, "8.8.8.8:9", b"x").is_silence());
}

#[test]
fn turn_107_data_never_prolongs_a_permission() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    pair.permit(0, PEER);
    for _ in 0..299 {
        pair.advance(seconds(1));
        assert!(!pair.peer_sends(relayed, PEER, b"x").is_silence());
        assert!(!pair.send(0, PEER, b"x").is_silence());
    }
    pair.advance(seconds(1));
    assert!(pair.peer_sends(relayed, PEER, b"x").is_silence());
    assert!(pair.send(0, PEER, b"x").is_silence());
}

#[test]
fn turn_108_by_default_a_bound_peers_permission_lasts_as_long_as_its_channel() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    pair.refresh(0, 3600);
    pair.bind(0, CHANNEL, PEER);
    pair.advance(seconds(100));
    pair.permit(0, PEER);
    pair.advance(seconds(499));
    assert_eq!(pair.peer_sends(relayed, PEER, b"x").datagram(), wire::channel_data(CHANNEL, b"x"));
    pair.advance(seconds(1));
    assert!(pair.peer_sends(relayed, PEER, b"x").is_silence());
    assert_eq!(pair.server.totals().permissions, 0);
}

#[test]
fn turn_108_128_dp_032_strictly_it_lasts_300_s_and_the_channel_does_not_replace_it() {
    let mut pair = Pair::with(|config| config.strict_permissions = true);
    let relayed = pair.allocate(0);
    pair.bind(0, CHANNEL, PEER);
    pair.advance(seconds(299));
    assert!(!pair.channel_data(0, CHANNEL, b"x").is_silence());
    pair.advance(seconds(1));
    assert!(pair.peer_sends(relayed, PEER, b"x").is_silence());
    assert!(pair.channel_data(0, CHANNEL, b"x").is_silence());
    assert_eq!(pair.drops("no_permission"), 1);
    assert_eq!(pair.server.totals().channels, 1, "the channel lives on");
    assert_eq!(pair.flow_counts(), [1, 0, 0], "but nothing carries its data");

    pair.permit(0, PEER);
    assert_eq!(pair.peer_sends(relayed, PEER, b"x").datagram(), wire::channel_data(CHANNEL, b"x"));
    assert_eq!(pair.flow_counts(), [1, 2, 2]);
}

#[test]
fn turn_110_111_114_invalid_addresses() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let mut code =
        |attributes: &[wire::Attribute]| pair.request(0, wire::CREATE_PERMISSION, attributes).error();
    assert_eq!(code(&[]), 400);
    assert_eq!(code(&[wire::peer(PEER), (0x0012, vec![0, 1, 2, 3])]), 400);
    assert_eq!(code(&[(0x0012, vec![0, 9, 0, 0, 1, 2, 3, 4]), wire::peer(PEER)]), 400);
    assert_eq!(code(&[wire::peer(PEER), wire::peer("[2001:4860::1]:1")]), 443);
    assert_eq!(pair.server.totals().permissions, 0, "TURN-113");
}

#[test]
fn turn_112_118_119_all_addresses_are_installed_whatever_their_ports() {
    let mut pair = Pair::new();
    let relayed = pair.allocate(0);
    let attributes = [wire::peer("9.9.9.9:0"), wire::peer("8.8.4.4:7"), wire::peer("9.9.9.9:1")];
    assert!(pair.request(0, wire::CREATE_PERMISSION, &attributes).is_success());
    assert_eq!(pair.server.totals().permissions, 2);
    for peer in ["9.9.9.9:1234", "8.8.4.4:1"] {
        assert!(!pair.peer_sends(relayed, peer, b"x").is_silence());
    }
}

#[test]
fn turn_113_116_241_242_a_refused_address_refuses_and_refreshes_them_all() {
    let mut pair = Pair::new();
    pair.allocate(0);
    pair.permit(0, PEER);
    let before: Vec<_> = pair.server.sessions().collect();
    pair.advance(seconds(1));
    for forbidden in [
        "10.0.0.1:1",
        "127.0.0.1:1",
        "169.254.169.254:80",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "198.51.100.1:9",
        &format!("{HOST_IP}:9"),
    ] {
        let attributes = [wire::peer(PEER), wire::peer(forbidden)];
        assert_eq!(pair.request(0, wire::CREATE_PERMISSION, &attributes).error(), 403, "{forbidden}");
    }
    assert_eq!(pair.server.sessions().collect::<Vec<_>>(), before);
}

#[test]
fn turn_117_508_when_an_allocation_has_too_many() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let peers = |group: u8| (0..=255).map(move |last| wire::peer(&format!("9.9.{group}.{last}:1")));
    for group in 0..4 {
        let attributes: Vec<_> = peers(group).collect();
        assert!(pair.request(0, wire::CREATE_PERMISSION, &attributes).is_success());
    }
    let full = pair.server.totals().permissions;
    assert_eq!(full, 1024);
    assert_eq!(pair.permit(0, PEER).error(), 508);
    assert_eq!(pair.bind(0, CHANNEL, PEER).error(), 508);
    assert_eq!(pair.server.totals().channels, 0, "TURN-159");
    assert!(pair.permit(0, "9.9.0.0:1").is_success(), "those there are can be refreshed");
    assert!(pair.bind(0, CHANNEL, "9.9.0.0:1").is_success());
}

#[test]
fn turn_022_a_retransmitted_create_permission_gets_the_same_answer() {
    let mut pair = Pair::new();
    pair.allocate(0);
    let request = pair.build(0, wire::CREATE_PERMISSION, &[wire::peer(PEER)]);
    assert_eq!(pair.exchange(0, &request), pair.exchange(0, &request));
    assert_eq!(pair.server.totals().permissions, 1);
}
