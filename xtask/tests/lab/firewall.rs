//! A firewall in front of the relay, which maps a public address to the relay's and turns nothing back. An outside host
//! reaches an inside client's relayed transport address directly (path A) and from an allocation of its own (path B),
//! whose data never leaves the relay. IPv6 has the same paths without the mapping.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use xtask::lab::Family::{self, V4, V6};
use xtask::lab::{
    OUTSIDE_NETWORK_V6, Outside, PORT, PUBLIC, RELAY_ADDRESS, RELAY_ADDRESS_V6, Relayed, Traffic,
};
use xtask::turn_client::{Received, Refused, TurnClient};

use crate::capture::Captures;
use crate::scene::{Datapath, PASSWORD, PATIENCE, Scene, USER, bind, on_each_datapath};

const CHANNEL: u16 = 0x4000;
const MESSAGES: u64 = 20;
const DATA: &[u8] = b"through the firewall";
/// What the relay should count for so many messages one way.
const COUNTED: Traffic = Traffic { packets: MESSAGES, bytes: MESSAGES * DATA.len() as u64 };
/// ... and both ways.
const COUNTED_TWICE: Traffic = Traffic { packets: 2 * COUNTED.packets, bytes: 2 * COUNTED.bytes };

on_each_datapath!(public_address_is_reached_on_both_paths);

fn public_address_is_reached_on_both_paths(datapath: Datapath) {
    let (scene, outside) = start("firewall", datapath, &[]);
    for family in [V4, V6] {
        directly(&scene, datapath, &outside, family);
    }
    let captures = Captures::start(&scene.lab, &scene.artifacts);
    for family in [V4, V6] {
        for inner in [Form::Channel, Form::Indication] {
            for outer in [Form::Channel, Form::Indication] {
                between_allocations(&scene, datapath, &outside, family, [inner, outer]);
            }
        }
    }
    let captured = captures.finish(&scene.lab);
    let mut to_outside = 0;
    for (from, to, _) in captured.peer.udp() {
        let is_listener = |address| [V4, V6].map(listener_for_firewall).contains(&address);
        assert!(is_listener(from) || is_listener(to), "{from} -> {to}: relayed data went to the firewall");
        to_outside += u64::from(is_listener(from));
    }
    assert!(to_outside >= 8 * MESSAGES, "the capture has what went to the outside client");
    assert_eq!(captured.peer.port_unreachables(), 0);
    captured.client.assert_clean();
    captured.peer.assert_clean();
}

/// With the hairpin switched off path A is as it was, and there is no path B.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_hairpin_there_is_no_path_b_xdp_native() {
    let datapath = Datapath::XdpNative;
    let (scene, outside) = start("firewall-no-hairpin", datapath, &["--no-hairpin"]);
    for family in [V4, V6] {
        directly(&scene, datapath, &outside, family);
        let mut inner = scene.client(family.client(0));
        let mut outer = outside_client(&outside, family);
        let [at_inner, at_outer] = [&mut inner, &mut outer].map(|client| allocate(client, family));
        for (client, other) in [(&mut inner, at_outer), (&mut outer, at_inner)] {
            let refusals = [client.create_permission(other), client.channel_bind(CHANNEL, other)];
            for refusal in refusals.map(|answer| answer.expect_err("the hairpin is switched off")) {
                let code = refusal.downcast_ref::<Refused>().map(|refused| refused.code);
                assert_eq!(code, Some(403), "{refusal:#}");
            }
        }
        let carried = scene.carried(|| {
            for (client, other) in [(&mut inner, at_outer), (&mut outer, at_inner)] {
                client.send_channel_data(CHANNEL, DATA).expect("the client can send");
                client.send_indication(other, DATA).expect("the client can send");
                // What was sent before has been dealt with when this is answered.
                client.binding().expect("the relay answers");
            }
        });
        assert_eq!([carried.fast, carried.slow], [Relayed::default(); 2], "{family:?}: nothing is carried");
        for client in [&mut inner, &mut outer] {
            client.refresh(0).expect("the allocation can be deleted");
        }
    }
}

/// How an allocation's data goes between its client and the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Channel,
    Indication,
}

fn start(name: &str, datapath: Datapath, more: &[&str]) -> (Scene, Outside) {
    let listeners = [V4, V6].map(|family| format!("udp://{}", listener_for_firewall(family)));
    let external = format!("{PUBLIC}/{RELAY_ADDRESS}");
    let mut arguments = vec!["--external-ip", &external, "--allow-peer", OUTSIDE_NETWORK_V6];
    arguments.extend(listeners.iter().flat_map(|listener| ["--listen", listener]));
    arguments.extend(more);
    let mut outside = None;
    let scene = Scene::prepared(name, datapath, "", &arguments, |lab| {
        outside = Some(Outside::create(lab).expect("the firewall can be built"));
    });
    assert_not_reflected(&scene);
    (scene, outside.expect("it was built before the relay started"))
}

/// Where the relay serves clients from outside.
fn listener_for_firewall(family: Family) -> SocketAddr {
    SocketAddr::new(family.relay_address(), PORT)
}

/// A client outside, of the public address.
fn outside_client(outside: &Outside, family: Family) -> TurnClient {
    let socket = bind(outside.host(), (Outside::address(family), 0));
    let server = match family {
        V4 => SocketAddr::new(PUBLIC.into(), PORT),
        V6 => listener_for_firewall(V6),
    };
    TurnClient::new(socket, server, USER, PASSWORD).expect("the firewall is its gateway")
}

/// Both an inside and an outside client are given the public address.
fn allocate(client: &mut TurnClient, family: Family) -> SocketAddr {
    let (relayed, _) = client.allocate_family(family).expect("Allocate succeeds");
    let expected: IpAddr = match family {
        V4 => PUBLIC.into(),
        V6 => RELAY_ADDRESS_V6.into(),
    };
    assert_eq!(relayed.ip(), expected);
    relayed
}

/// Path A: the outside host has no allocation.
fn directly(scene: &Scene, datapath: Datapath, outside: &Outside, family: Family) {
    let mut client = scene.client(family.client(0));
    let relayed = allocate(&mut client, family);
    let peer = bind(outside.host(), (Outside::address(family), 0));
    let address = peer.local_addr().expect("it is bound");
    client.channel_bind(CHANNEL, address).expect("ChannelBind succeeds");
    let mut exchange = || {
        client.send_channel_data(CHANNEL, DATA).expect("the client can send");
        assert_eq!(receive(&peer), (DATA.to_vec(), relayed), "the peer sees the public address");
        peer.send_to(DATA, relayed).expect("the peer can send");
        let received = client.receive(PATIENCE).expect("the client can receive");
        assert_eq!(received, Some(Received::Channel { number: CHANNEL, data: DATA.to_vec() }));
    };
    scene.settle(&mut exchange);
    let carried = scene.carried(|| (0..MESSAGES).for_each(|_| exchange())).by(datapath);
    let expected = Relayed { to_peer: COUNTED, to_client: COUNTED, hairpin: Traffic::default() };
    assert_eq!(carried, expected, "path A, {family:?}");
    client.refresh(0).expect("the allocation can be deleted");
}

/// Path B: an inside and an outside client, each with an allocation and a form.
fn between_allocations(
    scene: &Scene,
    datapath: Datapath,
    outside: &Outside,
    family: Family,
    forms: [Form; 2],
) {
    let mut clients = [scene.client(family.client(0)), outside_client(outside, family)];
    let relayed = clients.each_mut().map(|client| allocate(client, family));
    for side in [0, 1] {
        match forms[side] {
            Form::Channel => clients[side].channel_bind(CHANNEL, relayed[1 - side]),
            Form::Indication => clients[side].create_permission(relayed[1 - side]),
        }
        .expect("a relayed address of this server may be a peer");
    }
    let mut exchange = || {
        for side in [0, 1] {
            match forms[side] {
                Form::Channel => clients[side].send_channel_data(CHANNEL, DATA),
                Form::Indication => clients[side].send_indication(relayed[1 - side], DATA),
            }
            .expect("the client can send");
            let received = clients[1 - side].receive(PATIENCE).expect("the client can receive");
            let data = DATA.to_vec();
            let expected = match forms[1 - side] {
                Form::Channel => Received::Channel { number: CHANNEL, data },
                Form::Indication => Received::Indication { peer: relayed[side], data },
            };
            assert_eq!(received, Some(expected), "{family:?}, {forms:?}: from the sender's public address");
        }
    };
    scene.settle(&mut exchange);
    let carried = scene.carried(|| (0..MESSAGES).for_each(|_| exchange())).by(datapath);
    let expected = Relayed { hairpin: COUNTED_TWICE, ..Relayed::default() };
    assert_eq!(carried, expected, "path B, {family:?}, {forms:?}");
    for client in &mut clients {
        client.refresh(0).expect("the allocation can be deleted");
    }
}

/// What the relay's host sends to the public address does not come back: the firewall itself answers.
fn assert_not_reflected(scene: &Scene) {
    let relay = scene.lab.relay();
    let waiting = bind(relay, (RELAY_ADDRESS, 0));
    let port = waiting.local_addr().expect("it is bound").port();
    let socket = bind(relay, (RELAY_ADDRESS, 0));
    socket.connect((PUBLIC, port)).expect("there is a default route");
    socket.send(DATA).expect("the socket can send");
    let answer = socket.recv(&mut [0; 100]).expect_err("the firewall does not serve this port");
    assert_eq!(answer.kind(), std::io::ErrorKind::ConnectionRefused, "{answer}");
    waiting.set_nonblocking(true).expect("a socket");
    assert!(waiting.recv(&mut [0; 100]).is_err(), "the firewall reflects");
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2000];
    let (length, from) = socket.recv_from(&mut buffer).expect("the peer gets the client's data");
    (buffer[..length].to_vec(), from)
}
