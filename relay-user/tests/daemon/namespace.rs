//! A network namespace for one test: peers on loopback are refused always, so relaying needs other addresses.

use std::process::Command;

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};

/// Moves this thread, and the processes it starts from now on, into a namespace of its own that has
/// 198.18.0.0/15 on `lo`. It ends with the last of them. False, and said so, without the privilege.
pub(crate) fn enter() -> bool {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            eprintln!("SKIPPED: a network namespace needs root");
            return false;
        }
        Err(error) => panic!("unshare: {error}"),
    }
    for arguments in [&["link", "set", "lo", "up"][..], &["address", "add", "198.18.0.1/15", "dev", "lo"]] {
        let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
        assert!(status.success(), "ip {arguments:?}");
    }
    true
}
