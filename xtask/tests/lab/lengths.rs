//! Data of every length arrives as it was sent, and the kernel carries it: also where padding is due that a
//! veth has no room for behind the frame.

use crate::capture::Captures;
use crate::scene::{Datapath, Scene, on_each_datapath};
use crate::session::{Form, PAIRS, Session};

on_each_datapath!(every_length_arrives);

/// DP-024, DP-035, DP-036, DP-054, DP-077: between all families, in both directions and forms. A veth's memory
/// ends at each multiple of 64 bytes behind another length of data.
fn every_length_arrives(datapath: Datapath) {
    let scene = Scene::start("lengths", datapath);
    let captures = Captures::start(&scene.lab, &scene.artifacts);
    let lengths = (0..=65).chain(1200..=1265);
    for families in PAIRS {
        let mut session = Session::open(&scene, families);
        for form in Form::ALL {
            scene.settle(|| session.exchange(form, b"some"));
            let mut each = 0;
            let carried = scene.carried(|| {
                for length in lengths.clone() {
                    let data: Vec<u8> = (1..=length).map(|at: u16| at as u8).collect();
                    session.exchange(form, &data);
                    each += 1;
                }
            });
            let carried = carried.by(datapath);
            let counted = (carried.to_peer.packets, carried.to_client.packets);
            assert_eq!(counted, (each, each), "{families:?}, {form:?}");
        }
        session.client.refresh(0).expect("the allocation can be deleted");
    }
    let captured = captures.finish(&scene.lab);
    captured.client.assert_clean();
    captured.peer.assert_clean();
}
