//! Links of different MTU: jumbo frames arrive whole, and what does not fit the next link is answered or fragmented.

use xtask::lab::Family::{V4, V6};
use xtask::lab::{CLIENT_NIC, Lab, Namespace, PEER_NIC, RELAY_CLIENT_NIC, RELAY_PEER_NIC};
use xtask::wait;

use crate::capture::Captures;
use crate::scene::{Datapath, PATIENCE, Scene, on_each_datapath};
use crate::session::{Form, PAIRS, Session};
use crate::socket_options::{self, Header};
use crate::tap::{Tap, Transport};

const JUMBO_MTU: u16 = 9000;
/// Of the relay's own NICs, where the far ends have 1500.
const SMALL_MTU: u16 = 1400;
/// More than one page of the receiving NIC's memory holds; a multiple of 4, so that nothing is padded.
const JUMBO: usize = 8000;
/// What an ICMP error to a peer leaves for a Data indication around its data.
const DATA_INDICATION_ROOM: u32 = 48;

on_each_datapath!(jumbo_frames_arrive_whole, too_big_for_peers_link, too_big_for_clients_link);

/// DP-048, DP-054, DP-077: between all families, in both directions and forms.
fn jumbo_frames_arrive_whole(datapath: Datapath) {
    let scene = Scene::prepared("jumbo", datapath, "", &[], |lab| {
        for (namespace, nic) in nics(lab) {
            set_mtu(namespace, nic, JUMBO_MTU);
        }
    });
    let captures = Captures::start(&scene.lab, &scene.artifacts);
    for families in PAIRS {
        let mut session = Session::open(&scene, families);
        for form in Form::ALL {
            for socket in [session.client.socket(), session.peer(form).0] {
                socket_options::set(socket, unfragmented());
            }
            scene.settle(|| session.exchange(form, b"some"));
            let carried = scene.carried(|| session.exchange(form, &pattern(JUMBO))).by(datapath);
            assert_eq!(
                (carried.to_peer.packets, carried.to_client.packets),
                (1, 1),
                "{families:?}, {form:?}"
            );
            // Whichever path takes those that have to be padded, or where the padding has to be cut off.
            for length in [1401, 3333, 4097, 8101, 8702] {
                session.exchange(form, &pattern(length));
            }
        }
        session.client.refresh(0).expect("the allocation can be deleted");
    }
    let captured = captures.finish(&scene.lab);
    captured.client.assert_clean();
    captured.peer.assert_clean();
}

/// DP-047, DP-048, DP-077, TURN-181, TURN-191, TURN-203, TURN-215: between all families, in both forms, to peers.
fn too_big_for_peers_link(datapath: Datapath) {
    too_big_is_answered_or_fragmented(datapath, true);
}

/// The same to clients.
fn too_big_for_clients_link(datapath: Datapath) {
    too_big_is_answered_or_fragmented(datapath, false);
}

fn too_big_is_answered_or_fragmented(datapath: Datapath, to_peer: bool) {
    const LENGTH: usize = 1388;
    // A veth takes nothing in that is longer than its own MTU: the other NIC keeps the usual one.
    let (name, small_nic) =
        if to_peer { ("mtu-peer", RELAY_PEER_NIC) } else { ("mtu-client", RELAY_CLIENT_NIC) };
    let scene = Scene::prepared(name, datapath, "", &[], |lab| set_mtu(lab.relay(), small_nic, SMALL_MTU));
    let (namespace, nic) =
        if to_peer { (scene.lab.client(), CLIENT_NIC) } else { (scene.lab.peer(), PEER_NIC) };
    let tap = Tap::open(namespace, nic);
    let punts = || {
        let status = scene.relay.status().expect("the relay answers");
        status.punts.get("mtu").copied().unwrap_or(0)
    };
    for families in PAIRS {
        let (family, link) = if to_peer { families } else { (families.1, families.0) };
        let mut session = Session::open(&scene, families);
        for form in Form::ALL {
            scene.settle(|| session.exchange(form, b"some"));
            let before = punts();
            let data = pattern(LENGTH);
            for dont_fragment in [false, true] {
                let socket = if to_peer { session.client.socket() } else { session.peer(form).0 };
                socket_options::set(socket, Header { dont_fragment, ..unfragmented() });
                let carried = scene.carried(|| {
                    if to_peer {
                        session.send_to_peer(form, &data);
                    } else {
                        session.send_to_client(form, &data);
                    }
                    if family == V6 || dont_fragment {
                        // TURN-191: the sender's data has less room on a link of the other family, or in a message.
                        let room = if to_peer { 0 } else { DATA_INDICATION_ROOM };
                        let growth = if (family, link) == (V4, V6) { 20 } else { 0 };
                        let mtu = u32::from(SMALL_MTU) - room - growth;
                        let too_big = match family {
                            V4 => Transport::Icmp(3, 4, mtu),
                            V6 => Transport::Icmp(2, 0, mtu),
                        };
                        tap.next(|packet| packet.transport == too_big);
                        if to_peer {
                            let socket = session.client.socket();
                            let refused = || socket.take_error().expect("a socket");
                            let error = wait::until(PATIENCE, refused).expect("a connected socket is told");
                            assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{error}");
                        }
                    } else if to_peer {
                        session.assert_at_peer(form, &data);
                    } else {
                        session.assert_at_client(form, &data);
                    }
                });
                assert_eq!(carried.fast.all().packets, 0, "{families:?}, {form:?}, DF={dont_fragment}");
            }
            let punted = punts() - before;
            assert_eq!(
                punted,
                if datapath.is_xdp() { 2 } else { 0 },
                "{families:?}, {form:?}: for their size"
            );
        }
        // Nothing of what was refused has come after all: these are the next to come.
        for form in Form::ALL {
            session.exchange(form, b"the end");
        }
        session.client.refresh(0).expect("the allocation can be deleted");
    }
}

/// What comes and goes at each end of both links.
fn nics(lab: &Lab) -> [(&Namespace, &str); 4] {
    [
        (lab.client(), CLIENT_NIC),
        (lab.relay(), RELAY_CLIENT_NIC),
        (lab.relay(), RELAY_PEER_NIC),
        (lab.peer(), PEER_NIC),
    ]
}

fn set_mtu(namespace: &Namespace, nic: &str, mtu: u16) {
    namespace.ip(&format!("link set {nic} mtu {mtu}")).expect("veth takes it");
}

/// As a sender has it that finds out the path's MTU.
fn unfragmented() -> Header {
    Header { ttl: 64, traffic_class: 0, dont_fragment: true }
}

/// No two parts of it are the same.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 8).wrapping_mul(31)) as u8).collect()
}
