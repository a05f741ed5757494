//! The few bpf(2) commands for links and pins. aya has them too, but falls back to replacing whatever program
//! is attached, and cannot detach a link at once.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

// Commands and attach types of linux/bpf.h.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_XDP: u32 = 37;

/// `XDP_FLAGS_SKB_MODE` of linux/if_link.h: generic XDP.
pub(super) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE` of linux/if_link.h: native XDP.
pub(super) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `link_create` of `union bpf_attr`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that BPF_OBJ_* uses.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `info` of `union bpf_attr`.
#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, which the kernel cuts to the length asked for.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
}

/// `link_detach` of `union bpf_attr`.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Attaches an XDP program to an interface. The link detaches when its last descriptor and pin are gone
/// (Linux 5.9). Never replaces a program that is there already.
pub(super) fn xdp_link_create(program: impl AsFd, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let prog_fd = program.as_fd().as_raw_fd() as u32;
    let fd =
        bpf(BPF_LINK_CREATE, &LinkCreate { prog_fd, target_ifindex: ifindex, attach_type: BPF_XDP, flags })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a link now, whoever else holds it. Closing the last reference does so too, but some time later.
pub(super) fn link_detach(link: impl AsFd) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &LinkDetach { link_fd: link.as_fd().as_raw_fd() as u32 }).map(|_| ())
}

/// Pins a program or link at `path`, which must be on a bpffs.
pub(super) fn obj_pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let bpf_fd = object.as_fd().as_raw_fd() as u32;
    bpf(BPF_OBJ_PIN, &Object { pathname: path.as_ptr() as u64, bpf_fd, file_flags: 0 }).map(|_| ())
}

/// Opens what is pinned at `path`.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = bpf(BPF_OBJ_GET, &Object { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The id of the program that a link attaches.
pub(super) fn link_program(link: impl AsFd) -> io::Result<u32> {
    let mut info = LinkInfo::default();
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &Info {
            bpf_fd: link.as_fd().as_raw_fd() as u32,
            info_len: size_of::<LinkInfo>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        },
    )?;
    Ok(info.prog_id)
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes live until the call returns; the kernel reads as many bytes as we say there are,
    // and what they point to (paths, room for an answer) is alive in the callers above.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>() as libc::c_ulong)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
