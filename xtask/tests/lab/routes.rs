//! Where packets leave: as the routing table and the neighbours say, on either NIC, from the relayed transport address all
//! the same.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use xtask::lab::Family::{V4, V6};
use xtask::lab::{PEER_NIC, RELAY_CLIENT_NIC, RELAY_PEER_NIC, Relayed};
use xtask::turn_client::TurnClient;
use xtask::wait;

use crate::scene::{Datapath, PASSWORD, PATIENCE, Scene, USER, bind, on_each_datapath};
use crate::session::{CHANNEL, Form};

const MESSAGES: u64 = 10;
const DATA: &[u8] = b"by whichever way";

on_each_datapath!(dp_052_either_nic, dp_052_routes_and_neighbours_change);

/// A peer on the clients' side, and a client on the peers': each packet leaves by the NIC that it came in by.
fn dp_052_either_nic(datapath: Datapath) {
    let scene = Scene::start("routes-either-nic", datapath);
    for family in [V4, V6] {
        for form in Form::ALL {
            let on_clients_side = bind(scene.lab.client(), (family.client(2), 0));
            let socket = bind(scene.lab.peer(), (family.peer(1), 0));
            let on_peers_side = TurnClient::new(socket, family.listener(), USER, PASSWORD);
            for (mut client, peer) in [
                (scene.client(family.client(0)), on_clients_side),
                (on_peers_side.expect("the relay is its gateway"), scene.peer(family.peer(0)).0),
            ] {
                let (relayed, _) = client.allocate_family(family).expect("Allocate succeeds");
                form.establish(&mut client, peer.local_addr().expect("it is bound"));
                assert_carried(&scene, datapath, &mut client, relayed, &peer, form);
                client.refresh(0).expect("the allocation can be deleted");
            }
        }
    }
}

/// DP-077: nobody answers for the peer's address at first; then a host has it, gets another MAC address, and is forgotten;
/// then the address is on the other side.
fn dp_052_routes_and_neighbours_change(datapath: Datapath) {
    let scene = Scene::start("routes", datapath);
    let [clients_side, relay, peers_side] = [scene.lab.client(), scene.lab.relay(), scene.lab.peer()];
    for (family, ip, length, notify, mac) in [
        (V4, IpAddr::from([198, 18, 2, 77]), 24, "ipv4/conf/peer0/arp_notify", "02:00:00:00:07:04"),
        (
            V6,
            IpAddr::from([0xFD00, 2, 0, 0, 0, 0, 0, 0x77]),
            64,
            "ipv6/conf/peer0/ndisc_notify",
            "02:00:00:00:07:06",
        ),
    ] {
        let peer = SocketAddr::new(ip, 7000);
        let mut client = scene.client(family.client(0));
        let (relayed, _) = client.allocate_family(family).expect("Allocate succeeds");
        Form::Channel.establish(&mut client, peer);
        // The relay's kernel asks for the neighbour, and nobody answers.
        let carried = scene.carried(|| {
            client.send_channel_data(CHANNEL, b"for nobody").expect("the client can send");
            client.binding().expect("the relay answers");
        });
        assert_eq!(carried.fast, Relayed::default(), "{family:?}: the kernel program knows no way");

        let mut assert_carried_to = |socket: &UdpSocket| {
            assert_arrives(&mut client, socket);
            assert_carried(&scene, datapath, &mut client, relayed, socket, Form::Channel);
        };
        peers_side.ip(&format!("address add {ip}/{length} dev {PEER_NIC} nodad")).expect("it is free");
        let socket = bind(peers_side, peer);
        assert_carried_to(&socket);

        peers_side.set_sysctl(&format!("net/{notify}"), "1").expect("the kernel can tell of it");
        peers_side.ip(&format!("link set {PEER_NIC} address {mac}")).expect("veth takes it");
        assert_carried_to(&socket);

        relay.ip(&format!("neighbour flush dev {RELAY_PEER_NIC}")).expect("it has neighbours");
        assert_carried_to(&socket);

        drop(socket);
        peers_side.ip(&format!("address del {ip}/{length} dev {PEER_NIC}")).expect("it was added");
        clients_side.ip(&format!("address add {ip} dev lo nodad")).expect("it is free again");
        let gateway = family.client(1);
        relay.ip(&format!("route add {ip} via {gateway} dev {RELAY_CLIENT_NIC}")).expect("it is on the link");
        assert_carried_to(&bind(clients_side, peer));
        client.refresh(0).expect("the allocation can be deleted");
    }
}

/// Data goes both ways, by the path that this datapath is for.
fn assert_carried(
    scene: &Scene,
    datapath: Datapath,
    client: &mut TurnClient,
    relayed: SocketAddr,
    peer: &UdpSocket,
    form: Form,
) {
    let address = peer.local_addr().expect("it is bound");
    let mut exchange = || {
        form.send(client, address, DATA);
        let mut buffer = [0; 100];
        let (length, from) = peer.recv_from(&mut buffer).expect("the peer gets the client's data");
        assert_eq!((&buffer[..length], from), (DATA, relayed));
        peer.send_to(DATA, relayed).expect("the peer can send");
        let received = client.receive(PATIENCE).expect("the client can receive");
        assert_eq!(received, Some(form.received(address, DATA)));
    };
    scene.settle(&mut exchange);
    let carried = scene.carried(|| (0..MESSAGES).for_each(|_| exchange())).by(datapath);
    let counted = (carried.to_peer.packets, carried.to_client.packets);
    assert_eq!(counted, (MESSAGES, MESSAGES), "{address}, {form:?}");
}

/// Sends until the peer gets all of it: what is sent before the relay has heard of a change may be lost.
fn assert_arrives(client: &mut TurnClient, peer: &UdpSocket) {
    let address = peer.local_addr().expect("it is bound");
    peer.set_read_timeout(Some(Duration::from_millis(100))).expect("the timeout is not zero");
    let mut sent = 0_u64;
    let arrives = || {
        sent += 1;
        Form::Channel.send(client, address, &sent.to_be_bytes());
        let mut buffer = [0; 100];
        let received = std::iter::from_fn(|| peer.recv(&mut buffer).ok().map(|_| buffer[..8].to_vec()));
        received.last().filter(|last| *last == sent.to_be_bytes())
    };
    wait::until(PATIENCE, arrives).expect("the relay hears of the change");
    peer.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
}
