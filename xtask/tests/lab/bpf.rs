//! What is in the kernel: programs and maps that a process holds, and whether they still exist.

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::unistd::Pid;
use serde_json::Value;
use xtask::lab::Namespace;

/// bpf(2) commands (include/uapi/linux/bpf.h).
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;

/// A kernel object, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Object {
    Program(u32),
    Map(u32),
}

impl Object {
    pub(crate) fn exists(self) -> bool {
        let (command, id) = match self {
            Self::Program(id) => (BPF_PROG_GET_FD_BY_ID, id),
            Self::Map(id) => (BPF_MAP_GET_FD_BY_ID, id),
        };
        // The part of `union bpf_attr` that these commands read: id, next id, flags.
        let attributes = [id, 0, 0];
        // SAFETY: the attributes have the layout of `union bpf_attr` for these commands.
        let fd =
            unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) };
        if let Ok(fd @ 0..) = i32::try_from(fd) {
            // SAFETY: the kernel returned a descriptor that nobody else owns.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            return true;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "asking for {self:?}: {error}");
        false
    }
}

/// The programs and maps whose descriptors a process holds.
pub(crate) fn objects_of(process: Pid) -> BTreeSet<Object> {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fdinfo")).expect("the process runs");
    let mut objects = BTreeSet::new();
    for descriptor in descriptors.flatten() {
        // A descriptor may be closed while we look.
        let Ok(info) = std::fs::read_to_string(descriptor.path()) else { continue };
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse().ok())
        };
        objects.extend(field("prog_id").map(Object::Program));
        objects.extend(field("map_id").map(Object::Map));
    }
    objects
}

/// The id of the XDP program that is attached to an interface.
pub(crate) fn attached(namespace: &Namespace, nic: &str) -> Option<u64> {
    let links = namespace.ip(&format!("-json link show dev {nic}")).expect("the interface is there");
    let links: Value = serde_json::from_str(&links).expect("ip writes JSON");
    links[0]["xdp"]["prog"]["id"].as_u64()
}
