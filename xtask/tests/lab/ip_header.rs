//! What is carried of the IP header between all families, and the ICMP errors that come back: the same whether the kernel
//! program or the daemon carries the data.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use xtask::lab::Family::{self, V4, V6};
use xtask::lab::{CLIENT_NIC, Lab, PEER_NIC};
use xtask::turn_client::TurnClient;
use xtask::turn_client::message::{Class, Message, Method, attribute};

use crate::scene::{Datapath, PATIENCE, Scene, on_each_datapath};
use crate::session::{Form, PAIRS, Session};
use crate::socket_options::{self, Header};
use crate::tap::{Packet, Tap, Transport};

const DATA: &[u8] = b"data of a peer or for it";
const ICMP: u16 = 0x8004;
/// The longest IPv4 packet that leaves with DF=0 for an IPv6 packet, and the IPv6 links that everybody has.
const FRAGMENTABLE: usize = 1260;
const LOWEST_IPV6_MTU: usize = 1280;

/// EF with ECT(1) and CE, AF41 with ECT(0), Best Effort.
const HEADERS: [Header; 4] = [
    Header { ttl: 60, traffic_class: 0xb9, dont_fragment: true },
    Header { ttl: 2, traffic_class: 0x8a, dont_fragment: false },
    Header { ttl: 255, traffic_class: 0xbb, dont_fragment: false },
    Header { ttl: 64, traffic_class: 0, dont_fragment: true },
];

on_each_datapath!(fields_are_carried, hairpin_is_one_hop, sizes_between_families, icmp_errors_come_back);

/// DP-042, DP-043, DP-044, DP-045, DP-049, DP-050, DP-077, TURN-206, TURN-208, TURN-212, TURN-217: between all families,
/// in both directions and forms.
fn fields_are_carried(datapath: Datapath) {
    let scene = Scene::start("ip-header", datapath);
    let [at_client, at_peer] = taps(&scene.lab);
    for families in PAIRS {
        let mut session = Session::open(&scene, families);
        let (client, listener) = session.five_tuple();
        for form in Form::ALL {
            let what = format!("{families:?}, {form:?}");
            let peer = session.peer(form).1;
            scene.settle(|| session.exchange(form, DATA));
            for tap in [&at_client, &at_peer] {
                tap.drain();
            }
            let [mut to_peer, mut to_client] = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
            let carried = scene.carried(|| {
                for header in HEADERS {
                    socket_options::set(session.client.socket(), header);
                    session.send_to_peer(form, DATA);
                    to_peer.0.push(at_client.next(|packet| packet.is_between(client, listener)));
                    to_peer.1.push(at_peer.next(|packet| packet.is_between(session.relayed, peer)));
                    session.assert_at_peer(form, DATA);
                    socket_options::set(session.peer(form).0, header);
                    session.send_to_client(form, DATA);
                    to_client.0.push(at_peer.next(|packet| packet.is_between(peer, session.relayed)));
                    to_client.1.push(at_client.next(|packet| packet.is_between(listener, client)));
                    session.assert_at_client(form, DATA);
                }
            });
            assert_carried(&what, &[families.0, families.1], &to_peer.0, &to_peer.1);
            assert_carried(&what, &[families.0, families.1], &to_client.0, &to_client.1);
            let carried = carried.by(datapath);
            let each = HEADERS.len() as u64;
            assert_eq!((carried.to_peer.packets, carried.to_client.packets), (each, each), "{what}");
        }

        // DP-042: where the TTL would reach 0, nothing leaves, and the sender hears of it.
        let last_hop = Header { ttl: 1, ..HEADERS[3] };
        let dropped = || scene.relay.status().expect("the relay answers").drops["ttl"];
        let before = dropped();
        socket_options::set(session.client.socket(), last_hop);
        session.send_to_peer(Form::Channel, b"too far");
        let time_exceeded = |family| match family {
            V4 => Transport::Icmp(11, 0, 0),
            V6 => Transport::Icmp(3, 0, 0),
        };
        at_client.next(|packet| packet.transport == time_exceeded(families.0));
        socket_options::set(session.peer(Form::Channel).0, last_hop);
        session.send_to_client(Form::Channel, b"too far");
        at_peer.next(|packet| packet.transport == time_exceeded(families.1));
        assert_eq!(dropped(), before + 2, "{families:?}");
        session.client.refresh(0).expect("the allocation can be deleted");
    }
}

/// From one client to another: DP-041, DP-042, DP-043, DP-044, DP-045.
fn hairpin_is_one_hop(datapath: Datapath) {
    let scene = Scene::start("ip-header-hairpin", datapath);
    let [tap, _] = taps(&scene.lab);
    for relayed_family in [V4, V6] {
        for families in PAIRS {
            let what = format!("{families:?} relayed in {relayed_family:?}");
            let mut clients = [scene.client(families.0.client(0)), scene.client(families.1.client(1))];
            let relayed = clients
                .each_mut()
                .map(|client| client.allocate_family(relayed_family).expect("Allocate succeeds").0);
            Form::Channel.establish(&mut clients[0], relayed[1]);
            Form::Channel.establish(&mut clients[1], relayed[0]);
            let receive = |client: &mut TurnClient| {
                let received = client.receive(PATIENCE).expect("the client can receive");
                assert_eq!(received, Some(Form::Channel.received(relayed[0], DATA)), "{what}");
            };
            scene.settle(|| {
                Form::Channel.send(&mut clients[0], relayed[1], DATA);
                receive(&mut clients[1]);
            });
            let local = |client: &TurnClient| client.socket().local_addr().expect("it is bound");
            let [sender, receiver] = clients.each_ref().map(local);
            let (mut sent, mut received) = (Vec::new(), Vec::new());
            tap.drain();
            let carried = scene.carried(|| {
                for header in HEADERS {
                    socket_options::set(clients[0].socket(), header);
                    Form::Channel.send(&mut clients[0], relayed[1], DATA);
                    sent.push(tap.next(|packet| packet.is_between(sender, families.0.listener())));
                    received.push(tap.next(|packet| packet.is_between(families.1.listener(), receiver)));
                    receive(&mut clients[1]);
                }
            });
            assert_carried(&what, &[families.0, relayed_family, families.1], &sent, &received);
            assert_eq!(carried.by(datapath).hairpin.packets, HEADERS.len() as u64, "{what}");
            for client in &mut clients {
                client.refresh(0).expect("the allocation can be deleted");
            }
        }
    }
}

/// DP-046, DP-047, DP-077, TURN-182, TURN-183, TURN-200, TURN-201: what IPv6 makes of a packet that may be fragmented, and
/// IPv4 of one that may not.
fn sizes_between_families(datapath: Datapath) {
    let scene = Scene::start("ip-header-sizes", datapath);
    let [at_client, at_peer] = taps(&scene.lab);
    for families in [(V4, V6), (V6, V4)] {
        let mut session = Session::open(&scene, families);
        let (client, listener) = session.five_tuple();
        let peer = session.peer(Form::Channel).1;
        for socket in [session.client.socket(), session.peer(Form::Channel).0] {
            socket_options::set(socket, Header { dont_fragment: false, ..HEADERS[0] });
        }
        scene.settle(|| session.exchange(Form::Channel, DATA));
        for length in [
            FRAGMENTABLE - 28 - 4,
            FRAGMENTABLE - 28 - 3,
            FRAGMENTABLE - 28,
            FRAGMENTABLE - 27,
            LOWEST_IPV6_MTU - 48 - 4,
            LOWEST_IPV6_MTU - 48 - 3,
            LOWEST_IPV6_MTU - 48,
            LOWEST_IPV6_MTU - 47,
        ] {
            let data = vec![0x5A; length];
            for (tap, from, to, to_peer) in
                [(&at_peer, session.relayed, peer, true), (&at_client, listener, client, false)]
            {
                let what = format!("{length} bytes {from} -> {to}");
                let mut leaving = Vec::new();
                tap.drain();
                let carried = scene.carried(|| {
                    if to_peer {
                        session.send_to_peer(Form::Channel, &data);
                        session.assert_at_peer(Form::Channel, &data);
                    } else {
                        session.send_to_client(Form::Channel, &data);
                        session.assert_at_client(Form::Channel, &data);
                    }
                    let is_ours =
                        |packet: &Packet| (packet.source, packet.destination) == (from.ip(), to.ip());
                    leaving = tap.drain().into_iter().filter(is_ours).collect();
                });
                let payload = length + if to_peer { 0 } else { 4 };
                let by = if Family::of(to.ip()) == V4 {
                    assert_eq!(leaving.len(), 1, "{what}: {leaving:?}");
                    assert_eq!(leaving[0].length, 28 + payload, "{what}");
                    let dont_fragment = leaving[0].ipv4.map(|(dont_fragment, _)| dont_fragment);
                    assert_eq!(dont_fragment, Some(28 + payload > FRAGMENTABLE), "{what}");
                    datapath
                } else if 48 + payload <= LOWEST_IPV6_MTU {
                    assert_eq!(leaving.len(), 1, "{what}: {leaving:?}");
                    assert!(!leaving[0].is_fragment, "{what}");
                    datapath
                } else {
                    let fits = |packet: &Packet| packet.is_fragment && packet.length <= LOWEST_IPV6_MTU;
                    assert!(leaving.len() == 2 && leaving.iter().all(fits), "{what}: {leaving:?}");
                    Datapath::Userspace
                };
                assert_eq!(carried.by(by).all().packets, 1, "{what}");
            }
        }
        session.client.refresh(0).expect("the allocation can be deleted");
    }
}

/// DP-011, DP-012, TURN-136, TURN-139, TURN-141: also for datagrams that the kernel program sent, of every form.
fn icmp_errors_come_back(datapath: Datapath) {
    let scene = Scene::start("icmp", datapath);
    // The peer's host tells of every datagram that nobody is there for.
    for limit in ["net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"] {
        scene.lab.peer().set_sysctl(limit, "0").expect("the kernel limits these messages");
    }
    for families in PAIRS {
        let mut session = Session::open(&scene, families);
        for form in Form::ALL {
            scene.settle(|| session.exchange(form, DATA));
        }
        let Session { mut client, peers, .. } = session;
        let peers = peers.map(|(_closed, address)| address);
        for form in Form::ALL {
            let peer = peers[form as usize];
            let carried = scene.carried(|| {
                form.send(&mut client, peer, b"nobody is there");
                assert_port_unreachable(&client, peer);
            });
            assert_eq!(carried.by(datapath).to_peer.packets, 1, "{families:?}, {form:?}");
        }
        client.refresh(0).expect("the allocation can be deleted");
    }
}

fn assert_port_unreachable(client: &TurnClient, peer: SocketAddr) {
    client.socket().set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
    let mut buffer = [0; 1500];
    let length = client.socket().recv(&mut buffer).expect("the client hears of it");
    let message = Message::parse(&buffer[..length]).expect("a STUN message");
    assert!(message.is(Class::Indication, Method::Data));
    assert_eq!(message.xor_address(attribute::XOR_PEER_ADDRESS), Some(peer));
    let error = if peer.is_ipv4() { [0, 0, 3, 3, 0, 0, 0, 0] } else { [0, 0, 1, 4, 0, 0, 0, 0] };
    assert_eq!(message.attribute(ICMP), Some(&error[..]), "port unreachable");
    assert_eq!(message.attribute(attribute::DATA), None);
}

/// At the client's NIC and at the peer's.
fn taps(lab: &Lab) -> [Tap; 2] {
    [Tap::open(lab.client(), CLIENT_NIC), Tap::open(lab.peer(), PEER_NIC)]
}

/// Each of the packets that came out is what RFC 8656 makes, through these families, of the one that went in.
fn assert_carried(what: &str, through: &[Family], went_in: &[Packet], came_out: &[Packet]) {
    assert_eq!((went_in.len(), came_out.len()), (HEADERS.len(), HEADERS.len()), "{what}");
    for (before, after) in went_in.iter().zip(came_out) {
        assert_eq!(after.ttl, before.ttl - 1, "{what}: {before:?} became {after:?}");
        assert_eq!(after.traffic_class, before.traffic_class, "{what}: {before:?} became {after:?}");
        if let Some((dont_fragment, _)) = after.ipv4 {
            // IPv6 packets of this size may be fragmented as IPv4.
            let is_set = before.ipv4.is_some_and(|(dont_fragment, _)| dont_fragment);
            let expected = is_set && !through.contains(&V6);
            assert_eq!(dont_fragment, expected, "{what}: {before:?} became {after:?}");
        }
        if let (Some(before), Some(after)) = (before.flow_label, after.flow_label) {
            assert_ne!(before, 0, "{what}: the sender's kernel labels flows");
            assert_ne!(before, after, "{what}: the flow label is copied");
        }
    }
    let identifications = |packets: &[Packet]| -> Vec<_> {
        let fragmentable = packets.iter().filter_map(|packet| packet.ipv4);
        fragmentable
            .filter(|(dont_fragment, _)| !dont_fragment)
            .map(|(_, identification)| identification)
            .collect()
    };
    let (theirs, ours) = (identifications(went_in), identifications(came_out));
    assert!(theirs.is_empty() || theirs != ours, "{what}: the Identification is copied: {ours:?}");
    let different = ours.iter().collect::<BTreeSet<_>>().len();
    assert!(ours.is_empty() || different > 1, "{what}: the Identification is constant: {ours:?}");
}
