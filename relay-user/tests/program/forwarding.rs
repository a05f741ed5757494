//! Data of established channels and permissions, every way; and what does not belong to them.

use std::net::{IpAddr, SocketAddr};

use relay_common::{globals, outcome::Outcome};
use relay_user::{
    datapath::encode,
    turn::{Direction, Family, FlowForm, PeerAddr, RelayedAddr},
};

use crate::{
    case::{Case, End, Form},
    frame::Frame,
    message::{channel_data, data_indication, send_indication},
    relay::*,
    session::{Client, Role, listener, on_client_side, on_peer_side, peer, permitted_peer},
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_025_to_the_peer_data_leaves_from_the_relayed_address() {
    let relay = Relay::new();
    for case in Case::to_peer() {
        relay.assert_relays(&case, b"hello");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_034_dp_035_dp_037_to_the_client_data_leaves_from_the_server_in_the_form_of_the_peers_binding() {
    let relay = Relay::new();
    for case in Case::to_client() {
        relay.assert_relays(&case, b"hello");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_between_two_clients_of_the_relay_data_leaves_as_from_a_peer() {
    let relay = Relay::new();
    for case in Case::hairpins() {
        relay.assert_relays(&case, b"hello");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_054_every_length_even_and_odd_leaves_with_the_right_lengths_and_checksums() {
    let relay = Relay::new();
    relay.set_global(globals::word::MIN_IPV6_MTU, u64::from(MTU));
    for case in Case::all() {
        // Up to what fits the link with the largest headers.
        for len in (0..=130).chain([1000, 1001, 1002, 1003, 1200, 1401, 1404]) {
            relay.assert_relays(&case, &data(len));
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_024_dp_036_no_data_is_data_too() {
    let relay = Relay::new();
    for case in Case::all() {
        relay.assert_relays(&case, b"");
    }
}

// Byte order shows where the two bytes of a port or a number differ.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_025_dp_037_ports_and_channel_numbers_keep_their_byte_order() {
    let mut relay = Relay::new();
    for (family, relayed) in pairs() {
        let client = Client::caller(family);
        let end = End::Client(client, Form::ChannelData);
        let out = Case { from: end, relayed, to: End::Peer };
        let back = Case { from: End::Peer, relayed, to: end };
        for port in [1, 0x0100, 0x00ff, 0xff00, 0x1234, 0x3412, 0xffff] {
            let peer = SocketAddr::new(peer(relayed).ip(), port);
            for flow in client.binding(peer) {
                relay.install(&flow);
            }
            let channel_data = channel_data(client.channel(peer), b"data");
            let sent = Frame { payload: channel_data.clone(), ..out.input(b"") };
            relay.assert_forwards(&out, &sent, &Frame { destination: peer, ..out.output(b"data") });
            let answer = Frame { source: peer, ..back.input(b"data") };
            relay.assert_forwards(&back, &answer, &Frame { payload: channel_data, ..back.output(b"data") });
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_015_all_four_of_the_clients_tuple_must_match() {
    let mut relay = Relay::new();
    for family in Family::ALL {
        relay.add_listener(SocketAddr::new(listener(family).ip(), 3479));
        relay.add_listener(SocketAddr::new(on_client_side(family, 99), listener(family).port()));
    }
    for case in Case::all().filter(|case| case.from != End::Peer) {
        let frame = case.input(b"data");
        let family = frame.family();
        let port = |address: SocketAddr| SocketAddr::new(address.ip(), address.port() ^ 1);
        let host = |address: SocketAddr| SocketAddr::new(on_client_side(family, 99), address.port());
        for frame in [
            Frame { source: port(frame.source), ..frame.clone() },
            Frame { source: host(frame.source), ..frame.clone() },
            Frame { destination: port(frame.destination), ..frame.clone() },
            Frame { destination: host(frame.destination), ..frame.clone() },
        ] {
            relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::NoFlow);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_020_an_unbound_channel_is_the_slow_paths() {
    let relay = Relay::new();
    for family in Family::ALL {
        let case = Case {
            from: End::Client(Client::caller(family), Form::ChannelData),
            relayed: family,
            to: End::Peer,
        };
        for number in [0x4000, 0x4002, 0x4fff] {
            let frame = Frame { payload: channel_data(number, b"data"), ..case.input(b"") };
            relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::NoFlow);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_030_dp_033_a_channel_is_of_one_port_and_a_permission_of_all() {
    let relay = Relay::new();
    for case in Case::to_client() {
        for port in
            [1, 0x0100, 0x00ff, peer(case.relayed).port() + 1, peer(case.relayed).port() - 1, u16::MAX]
        {
            let source = SocketAddr::new(case.peer().ip(), port);
            let expected = Frame { payload: data_indication(source, b"data"), ..case.output(b"data") };
            relay.assert_forwards(&case, &Frame { source, ..case.input(b"data") }, &expected);
        }
    }
    for case in Case::to_peer().filter(|case| matches!(case.from, End::Client(_, Form::Indication))) {
        for port in [1, 0x0100, 0x00ff, peer(case.relayed).port(), u16::MAX] {
            let destination = SocketAddr::new(case.peer().ip(), port);
            let frame = Frame { payload: send_indication(destination, b"data"), ..case.input(b"") };
            relay.assert_forwards(&case, &frame, &Frame { destination, ..case.output(b"data") });
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_029_without_a_permission_nothing_passes() {
    let relay = Relay::new();
    for case in Case::to_client() {
        let source = SocketAddr::new(on_peer_side(case.relayed, 3), case.peer().port());
        let frame = Frame { source, ..case.input(b"data") };
        relay.assert_outcome(Side::Peer, &frame.bytes(), Outcome::NoFlow);
        // Other allocations have not permitted this peer.
        for other in Client::ALL.into_iter().filter(|other| other.role != Role::Caller) {
            let frame = Frame { destination: other.relayed(case.relayed), ..case.input(b"data") };
            relay.assert_outcome(Side::Peer, &frame.bytes(), Outcome::NoFlow);
        }
    }
    for case in Case::to_peer().filter(|case| matches!(case.from, End::Client(_, Form::Indication))) {
        let peer = SocketAddr::new(on_peer_side(case.relayed, 3), case.peer().port());
        let frame = Frame { payload: send_indication(peer, b"data"), ..case.input(b"") };
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::NoFlow);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_029_port_0_of_a_peer_is_the_slow_paths() {
    let relay = Relay::new();
    for case in Case::to_client() {
        let frame = Frame { source: SocketAddr::new(case.peer().ip(), 0), ..case.input(b"data") };
        relay.assert_outcome(Side::Peer, &frame.bytes(), Outcome::NoFlow);
    }
    for case in Case::all().filter(|case| matches!(case.from, End::Client(_, Form::Indication))) {
        let peer = SocketAddr::new(case.peer().ip(), 0);
        let frame = Frame { payload: send_indication(peer, b"data"), ..case.input(b"") };
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::Indication);
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_009_no_special_source_is_forwarded() {
    let relay = Relay::new();
    let special = [
        ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"],
        ["::", "::1", "ff02::1", "::ffff:127.0.0.1"],
    ];
    for case in Case::all() {
        let frame = case.input(b"data");
        for address in special[frame.family() as usize - 1] {
            for port in [0, frame.source.port()] {
                let source = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
                let frame = Frame { source, ..frame.clone() };
                relay.assert_outcome(case.ingress(), &frame.bytes(), Outcome::NoFlow);
            }
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_039_what_a_peer_sends_is_data_whatever_it_looks_like() {
    let relay = Relay::new();
    for case in Case::to_client() {
        let mut binding_request = vec![0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42];
        binding_request.extend([7; 12]);
        for data in [
            binding_request,
            channel_data(Client::caller(Family::V4).channel(peer(Family::V4)), b"nested"),
            send_indication(peer(Family::V4), b"nested"),
            vec![0x16, 0xfe, 0xfd],
            vec![0xff; 40],
        ] {
            relay.assert_relays(&case, &data);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_062_traffic_changes_no_entry() {
    let mut relay = Relay::new();
    let keys: Vec<_> =
        Client::ALL.iter().flat_map(|client| client.flows()).flat_map(|flow| encode::keys(&flow)).collect();
    let before: Vec<_> = keys.iter().map(|key| relay.entry(key).unwrap()).collect();
    for case in Case::all() {
        for _ in 0..3 {
            relay.assert_relays(&case, b"data");
        }
    }
    let after: Vec<_> = keys.iter().map(|key| relay.entry(key).unwrap()).collect();
    assert_eq!(after, before);
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_027_dp_071_without_its_flow_data_is_the_slow_paths() {
    let mut relay = Relay::new();
    for case in Case::all() {
        let frame = case.input(b"data");
        for (index, flow) in case.flows().into_iter().enumerate() {
            relay.remove(&flow);
            let to_client = flow.id.direction == Direction::ToClient;
            if to_client && matches!(flow.id.form, FlowForm::Channel { .. }) {
                // The permission remains.
                let payload = data_indication(case.shown(), b"data");
                relay.assert_forwards(&case, &frame, &Frame { payload, ..case.output(b"data") });
            } else {
                let outcome = if index == 1 { Outcome::HairpinMiss } else { Outcome::NoFlow };
                relay.assert_outcome(case.ingress(), &frame.bytes(), outcome);
            }
            relay.install(&flow);
        }
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn without_its_allocation_a_send_indication_is_the_slow_paths() {
    let mut relay = Relay::new();
    for case in Case::all() {
        let End::Client(client, Form::Indication) = case.from else { continue };
        let allocation = client.allocation(case.relayed);
        relay.remove(&allocation);
        relay.assert_outcome(Side::Client, &case.input(b"data").bytes(), Outcome::NoFlow);
        relay.install(&allocation);
        relay.assert_relays(&case, b"data");
    }
}

// DP-067: a channel number bound anew leads to the new peer at once, and the former one has no part in it.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_067_a_rebound_channel_is_the_new_peers_alone() {
    let mut relay = Relay::new();
    for (family, relayed) in pairs() {
        let client = Client::caller(family);
        let (former, new) = (peer(relayed), permitted_peer(relayed));
        relay.remove(&client.bound(Direction::ToClient, former));
        for mut flow in client.binding(former) {
            if let FlowForm::Channel { peer, .. } = &mut flow.id.form {
                *peer = PeerAddr(new);
            }
            relay.install(&flow);
        }
        let end = End::Client(client, Form::ChannelData);
        let out = Case { from: end, relayed, to: End::Peer };
        relay.assert_forwards(&out, &out.input(b"data"), &Frame { destination: new, ..out.output(b"data") });
        let back = Case { from: End::Peer, relayed, to: end };
        relay.assert_forwards(&back, &Frame { source: new, ..back.input(b"data") }, &back.output(b"data"));
        let payload = data_indication(former, b"data");
        relay.assert_forwards(&back, &back.input(b"data"), &Frame { payload, ..back.output(b"data") });
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_069_a_relayed_port_given_to_another_allocation_brings_nothing_of_the_former_ones() {
    let mut relay = Relay::new();
    for relayed in Family::ALL {
        let (former, new) = (Client::caller(Family::V4), Client::caller(Family::V6));
        for flow in former.flows().iter().filter(|flow| flow.id.relayed.family() == relayed) {
            relay.remove(flow);
        }
        // The new one permits another peer.
        let other_peer = SocketAddr::new(on_peer_side(relayed, 3), 6000);
        for mut flow in new.permission(other_peer.ip()) {
            flow.id.relayed = RelayedAddr(former.relayed(relayed));
            relay.install(&flow);
        }
        for form in [Form::ChannelData, Form::Indication] {
            let end = End::Client(former, form);
            let from_peer = Case { from: End::Peer, relayed, to: end };
            relay.assert_outcome(Side::Peer, &from_peer.input(b"data").bytes(), Outcome::NoFlow);
            let to_peer = Case { from: end, relayed, to: End::Peer };
            relay.assert_outcome(Side::Client, &to_peer.input(b"data").bytes(), Outcome::NoFlow);
        }
        let case = Case { from: End::Peer, relayed, to: End::Client(new, Form::Indication) };
        let frame = Frame { source: other_peer, destination: former.relayed(relayed), ..case.input(b"data") };
        let payload = data_indication(other_peer, b"data");
        relay.assert_forwards(&case, &frame, &Frame { payload, ..case.output(b"data") });
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_068_a_full_map_takes_no_more_and_keeps_what_it_has() {
    let mut relay = Relay::new();
    for family in Family::ALL {
        let client = Client::caller(family);
        let refused = (1..=u16::MAX).find(|&port| {
            let mut flow = client.bound(Direction::ToClient, SocketAddr::new(on_peer_side(family, 77), port));
            flow.id.relayed = RelayedAddr(client.relayed(family));
            let indices = encode::Indices { counter: 1, path: 1 };
            encode::keys(&flow)
                .any(|key| relay.try_insert(&key, encode::entry(&flow, &key, indices)).is_err())
        });
        assert!(refused.is_some(), "more flows than the map has room for");
    }
    for case in Case::all() {
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_075_what_comes_in_turn_leaves_in_turn() {
    let relay = Relay::new();
    for case in Case::all() {
        // Each leaves in its own run: nothing is kept back to be overtaken.
        for number in 0..20u32 {
            relay.assert_relays(&case, &number.to_be_bytes());
        }
    }
}

/// The family of a client, and of a peer.
fn pairs() -> impl Iterator<Item = (Family, Family)> {
    Family::ALL.into_iter().flat_map(|family| Family::ALL.map(|relayed| (family, relayed)))
}
