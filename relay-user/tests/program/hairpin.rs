//! From one allocation of this server to another without leaving it (DP-041), beyond what the table of ways has.

use std::net::{IpAddr, SocketAddr};

use relay_common::outcome::Outcome;
use relay_user::turn::{Direction, Family, Flow, Hairpin};

use crate::{
    case::{Case, End, Form},
    frame::Frame,
    message::{data_indication, send_indication},
    relay::*,
    session::{Client, Role, relayed_ip},
};

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_two_allocations_that_are_each_others_peer_get_one_packet_for_each() {
    let relay = Relay::new();
    for case in Case::hairpins() {
        let (End::Client(caller, Form::ChannelData), End::Client(bound, Form::ChannelData)) =
            (case.from, case.to)
        else {
            continue;
        };
        let back = Case {
            from: End::Client(bound, Form::ChannelData),
            to: End::Client(caller, Form::ChannelData),
            ..case
        };
        for case in [case, back] {
            let before: Vec<_> = case.flows().iter().map(|flow| relay.counted(flow).0).collect();
            relay.assert_relays(&case, b"ping");
            let after: Vec<_> = case.flows().iter().map(|flow| relay.counted(flow).0 - 1).collect();
            assert_eq!(after, before, "{case:?}");
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_an_allocation_that_is_its_own_peer_gets_each_packet_once() {
    let mut relay = Relay::new();
    for family in Family::ALL {
        for relayed in Family::ALL {
            let client = Client::caller(family);
            let own = client.relayed(relayed);
            for flow in client.binding(own) {
                relay.install(&flow);
            }
            for from in [Form::ChannelData, Form::Indication] {
                let case = Case {
                    from: End::Client(client, from),
                    relayed,
                    to: End::Client(client, Form::ChannelData),
                };
                for packets in 1..=3 {
                    relay.assert_relays(&case, b"echo");
                    let to_client = client.bound(Direction::ToClient, own);
                    let packets = packets + if from == Form::Indication { 3 } else { 0 };
                    assert_eq!(relay.counted(&to_client), (packets, packets * 4), "{case:?}");
                }
            }
            // Without the channel its permission for the address does.
            for flow in client.binding(own) {
                relay.remove(&flow);
            }
            let end = End::Client(client, Form::Indication);
            relay.assert_relays(&Case { from: end, relayed, to: end }, b"echo");
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_nothing_from_a_relayed_address_of_ours_comes_in_by_a_wire() {
    let relay = Relay::new();
    for case in Case::hairpins() {
        let End::Client(receiver, _) = case.to else { continue };
        for side in [Side::Client, Side::Peer] {
            let forged = Frame {
                destination_mac: side.mac(),
                ..Frame::new(case.shown(), receiver.relayed(case.relayed), b"forged")
            };
            relay.assert_outcome(side, &forged.bytes(), Outcome::NoFlow);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_what_is_for_peers_on_the_wire_is_not_for_allocations_of_ours() {
    let mut relay = Relay::new();
    for case in Case::hairpins() {
        let [_, receiving] = case.flows()[..] else { panic!("two flows") };
        relay.install(&Flow { hairpin: None, ..receiving });
        relay.assert_outcome(Side::Client, &case.input(b"data").bytes(), Outcome::HairpinMiss);
        relay.install(&receiving);
        relay.assert_relays(&case, b"data");
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_a_relayed_address_without_an_allocation_gets_nothing() {
    let relay = Relay::new();
    for case in Case::to_peer() {
        let End::Client(_, Form::Indication) = case.from else { continue };
        // The client may send to any port of the address. These have no allocation, or are the host's own.
        for port in [53, 3478, 49999, 50001, 50100] {
            let peer = SocketAddr::new(relayed_ip(case.relayed), port);
            let frame = Frame { payload: send_indication(peer, b"data"), ..case.input(b"") };
            relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::HairpinMiss);
        }
    }
}

/// What the relayed addresses are known by outside (static NAT).
fn external(family: Family) -> IpAddr {
    match family {
        Family::V4 => "203.0.113.80".parse().unwrap(),
        Family::V6 => "2001:db8:113::80".parse().unwrap(),
    }
}

fn behind_nat(flow: Flow) -> Flow {
    let external = external(flow.id.relayed.family());
    let hairpin = flow.hairpin.map(|_| Hairpin { advertised: external, alias: Some(external) });
    Flow { hairpin, ..flow }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_behind_a_static_nat_the_sender_appears_under_its_external_address() {
    let mut relay = Relay::new();
    for flow in Client::ALL.iter().flat_map(|client| client.flows()) {
        relay.install(&behind_nat(flow));
    }
    for case in Case::hairpins() {
        let expected = match case.to {
            End::Client(_, Form::Indication) => {
                let shown = SocketAddr::new(external(case.relayed), case.shown().port());
                Frame { payload: data_indication(shown, b"data"), ..case.output(b"data") }
            }
            _ => case.output(b"data"),
        };
        relay.assert_forwards(&case, &case.input(b"data"), &expected);
        // A Send indication may name the peer by the address that the client was told.
        if let End::Client(_, Form::Indication) = case.from {
            let peer = SocketAddr::new(external(case.relayed), case.peer().port());
            let frame = Frame { payload: send_indication(peer, b"data"), ..case.input(b"") };
            relay.assert_forwards(&case, &frame, &expected);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_an_external_address_is_nothing_to_who_has_not_permitted_it() {
    let mut relay = Relay::new();
    for case in Case::hairpins() {
        let End::Client(client, Form::Indication) = case.from else { continue };
        let peer = SocketAddr::new(external(case.relayed), case.peer().port());
        let frame = Frame { payload: send_indication(peer, b"data"), ..case.input(b"") };
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::NoFlow);
        // With the permission gone its alias is gone, too.
        let permission = behind_nat(client.permitted(Direction::ToPeer, relayed_ip(case.relayed)));
        relay.install(&permission);
        relay.remove(&permission);
        relay.assert_outcome(Side::Client, &frame.bytes(), Outcome::NoFlow);
        relay.install(&client.permitted(Direction::ToPeer, relayed_ip(case.relayed)));
    }
}

// Who receives is behind a next hop of its own; nobody else's matters.
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_041_the_receiving_clients_next_hop_decides() {
    let mut relay = Relay::new();
    for case in Case::hairpins() {
        let End::Client(sender, _) = case.from else { continue };
        let others: Vec<_> = Client::ALL.iter().filter(|client| client.role == Role::Caller).collect();
        for other in &others {
            relay.set_next_hop(other.address().ip(), None);
        }
        relay.set_next_hop(crate::session::peer(case.relayed).ip(), None);
        relay.assert_relays(&case, b"data");
        for other in others {
            relay.set_next_hop(other.address().ip(), Some(relay.next_hop(Side::Client, sender.mac())));
        }
    }
}
