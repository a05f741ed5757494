//! What the daemon does where the best datapath is not to be had.

use xtask::lab::{CLIENT_NIC, PassProgram, RELAY_CLIENT_NIC};

use crate::bpf;
use crate::scene::Scene;

/// A program that is already on the NIC is named and left alone; the daemon relays in userspace.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn foreign_program_is_named_and_left_alone() {
    let mut foreign = None;
    let mut scene = Scene::build("fallback-foreign", "auto", "", &[], |lab| {
        let program = PassProgram::attach(lab.relay(), RELAY_CLIENT_NIC, "someone_elses");
        foreign = Some(program.expect("the program can be attached"));
    });
    let attached = bpf::attached(scene.lab.relay(), RELAY_CLIENT_NIC);
    let id = attached.expect("the foreign program is attached");
    let datapath = scene.relay.status().expect("the relay answers").datapath;
    assert_eq!(datapath.mode, "userspace", "{datapath:?}");
    let reason = datapath.reason.expect("a step down has a reason");
    assert!(reason.contains(RELAY_CLIENT_NIC), "the interface is named: {reason}");
    assert!(
        reason.contains("someone_elses") || reason.contains(&id.to_string()),
        "so is the program: {reason}"
    );
    let log = std::fs::read_to_string(scene.relay.log()).expect("the daemon has a log");
    assert!(log.contains("WARN"), "a step down is logged as a warning:\n{log}");
    scene.assert_serves();
    scene.relay.stop().expect("the daemon stops");
    assert_eq!(bpf::attached(scene.lab.relay(), RELAY_CLIENT_NIC), Some(id), "the program is left alone");
}

/// A NIC that refuses the program in native mode (veth: fewer receive queues than its other end has transmit
/// queues) gets it in generic mode, and the reason is told.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn native_mode_that_is_refused_becomes_generic() {
    let scene = Scene::build("fallback-generic", "auto", "", &[], |lab| {
        lab.client().ethtool(&format!("-L {CLIENT_NIC} tx 2")).expect("veth has a queue for each CPU");
    });
    let datapath = scene.relay.status().expect("the relay answers").datapath;
    assert_eq!(datapath.mode, "xdp-generic", "{datapath:?}");
    let nic = datapath.interfaces.iter().find(|interface| interface.name == RELAY_CLIENT_NIC);
    assert_eq!(nic.map(|nic| nic.mode.as_str()), Some("xdp-generic"), "{datapath:?}");
    let reason = datapath.reason.expect("a step down has a reason");
    assert!(reason.contains(RELAY_CLIENT_NIC), "{reason}");
    scene.assert_serves();
}
