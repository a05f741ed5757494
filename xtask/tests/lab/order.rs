//! What the kernel program knows when the client has its answer, and the order of what it forwards.

use std::net::UdpSocket;
use std::time::Duration;

use xtask::lab::Relayed;
use xtask::turn_client::Received;

use crate::scene::{Datapath, PATIENCE, Scene, on_each_datapath};
use crate::session::{Form, PAIRS, Session};

/// Channels and permissions, each used as soon as it is granted.
const GRANTS: u16 = 20;
/// Datagrams, in batches that a socket's buffer holds.
const BATCHES: u64 = 20;
const BATCH: u64 = 50;

on_each_datapath!(dp_064_dp_065_answers_come_after_the_kernel_knows, dp_075_datagrams_stay_in_order);

/// DP-077: not one packet of a grant that was answered takes the slow path, and none of what is deleted passes.
fn dp_064_dp_065_answers_come_after_the_kernel_knows(datapath: Datapath) {
    let scene = Scene::start("order-answers", datapath);
    for families in PAIRS {
        // The ways to both hosts are known from another session.
        let mut other = Session::open(&scene, families);
        for form in Form::ALL {
            scene.settle(|| other.exchange(form, b"known by now"));
        }
        let (peer, address) = scene.peer(families.1.peer(0));
        let mut client = scene.client(families.0.client(0));
        let (relayed, _) = client.allocate_family(families.1).expect("Allocate succeeds");
        let carried = scene.carried(|| {
            client.create_permission(address).expect("CreatePermission succeeds");
            peer.send_to(b"is permitted", relayed).expect("the peer can send");
            let received = client.receive(PATIENCE).expect("the client can receive");
            assert_eq!(received, Some(Form::Indication.received(address, b"is permitted")));
            client.send_indication(address, b"is permitted").expect("the client can send");
            assert_eq!(receive(&peer), b"is permitted");
            let peers = (0..GRANTS).map(|_| scene.peer(families.1.peer(0))).collect::<Vec<_>>();
            for (number, (peer, address)) in (0x4000..).zip(&peers) {
                client.channel_bind(number, *address).expect("ChannelBind succeeds");
                client.send_channel_data(number, b"bound").expect("the client can send");
                assert_eq!(receive(peer), b"bound");
                peer.send_to(b"bound", relayed).expect("the peer can send");
                let received = client.receive(PATIENCE).expect("the client can receive");
                assert_eq!(received, Some(Received::Channel { number, data: b"bound".to_vec() }));
            }
        });
        let each = u64::from(GRANTS) + 1;
        let carried = carried.by(datapath);
        assert_eq!((carried.to_peer.packets, carried.to_client.packets), (each, each), "{families:?}");

        // DP-065
        let carried = scene.carried(|| {
            client.refresh(0).expect("the allocation can be deleted");
            client.send_channel_data(0x4000, b"deleted").expect("the client can send");
            client.send_indication(address, b"deleted").expect("the client can send");
            peer.send_to(b"deleted", relayed).expect("the peer can send");
            // What was sent before has been dealt with when this is answered.
            client.binding().expect("the relay answers");
        });
        assert_eq!([carried.fast, carried.slow], [Relayed::default(); 2], "{families:?}");
        let received = client.receive(Duration::from_millis(1)).expect("the client can receive");
        assert_eq!(received, None, "{families:?}");
    }
}

/// DP-077: between all families, in both directions and forms.
fn dp_075_datagrams_stay_in_order(datapath: Datapath) {
    let scene = Scene::start("order", datapath);
    for families in PAIRS {
        let mut session = Session::open(&scene, families);
        for form in Form::ALL {
            scene.settle(|| session.exchange(form, b"known by now"));
            let mut late = 0;
            let carried = scene.carried(|| {
                for batch in 0..BATCHES {
                    let numbers = batch * BATCH..(batch + 1) * BATCH;
                    for number in numbers.clone() {
                        session.send_to_peer(form, &number.to_be_bytes());
                    }
                    let peer = session.peer(form).0;
                    late += late_among(&numbers.clone().map(|_| receive(peer)).collect::<Vec<_>>());
                    for number in numbers.clone() {
                        session.send_to_client(form, &number.to_be_bytes());
                    }
                    let received = numbers.map(|_| {
                        let received = session.client.receive(PATIENCE).expect("the client can receive");
                        match received.expect("it gets the peer's data") {
                            Received::Channel { data, .. } | Received::Indication { data, .. } => data,
                        }
                    });
                    late += late_among(&received.collect::<Vec<_>>());
                }
            });
            assert!(late <= carried.unfinished, "{late} were overtaken: {carried:?}, {families:?}, {form:?}");
            let carried = carried.by(datapath);
            let each = BATCHES * BATCH;
            assert_eq!((carried.to_peer.packets, carried.to_client.packets), (each, each), "{families:?}");
        }
        session.client.refresh(0).expect("the allocation can be deleted");
    }
}

/// How many came after one that was sent later.
fn late_among(numbers: &[Vec<u8>]) -> u64 {
    let mut latest = &numbers[0];
    let mut late = 0;
    for number in numbers {
        late += u64::from(number < latest);
        latest = latest.max(number);
    }
    late
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 2000];
    let length = socket.recv(&mut buffer).expect("the peer gets the client's data");
    buffer.truncate(length);
    buffer
}
