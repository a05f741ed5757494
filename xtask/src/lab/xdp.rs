//! The least XDP program, loaded and attached by bpf(2) itself: it passes every packet on.
//!
//! The lab's far ends need it. veth wakes the receiving end of an `XDP_TX` only if a program is attached there
//! (`veth_xdp_flush()` in drivers/net/veth.c, as of 6.18); without one, frames fill that end's ring, and the link
//! is dead from then on.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::Context;
use nix::net::if_::if_nametoindex;

use super::Namespace;

/// bpf(2) commands and constants (include/uapi/linux/bpf.h, if_link.h).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_PASS: i32 = 2;

/// A program that passes every packet, attached to an interface in native mode until this is dropped.
#[derive(Debug)]
pub struct PassProgram {
    _link: OwnedFd,
}

impl PassProgram {
    /// Attaches the program, under a name of at most 15 bytes, to the interface `nic` of a namespace.
    pub fn attach(namespace: &Namespace, nic: &str, name: &str) -> anyhow::Result<Self> {
        let attached = namespace.run(|| {
            let interface = if_nametoindex(nic)?;
            link(&load(name)?, interface)
        });
        let link = attached.with_context(|| format!("could not attach an XDP program to {nic}"))?;
        Ok(Self { _link: link })
    }
}

/// `struct bpf_insn`: opcode, registers, offset, immediate.
#[repr(C)]
struct Instruction(u8, u8, i16, i32);

fn load(name: &str) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that BPF_PROG_LOAD reads.
    #[repr(C)]
    struct Attributes {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    // r0 = XDP_PASS; exit
    let instructions = [Instruction(0xB7, 0, 0, XDP_PASS), Instruction(0x95, 0, 0, 0)];
    let mut attributes = Attributes {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 2],
        kernel_version: 0,
        // With a larger MTU than a page holds the driver takes only such a program.
        flags: BPF_F_XDP_HAS_FRAGS,
        name: [0; 16],
    };
    // The last byte stays zero.
    for (byte, letter) in attributes.name[..15].iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    bpf(BPF_PROG_LOAD, &attributes)
}

fn link(program: &OwnedFd, interface: u32) -> io::Result<OwnedFd> {
    /// The part of `union bpf_attr` that BPF_LINK_CREATE reads.
    #[repr(C)]
    struct Attributes {
        program: i32,
        interface: u32,
        attach_type: u32,
        flags: u32,
    }
    bpf(
        BPF_LINK_CREATE,
        &Attributes {
            program: program.as_raw_fd(),
            interface,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        },
    )
}

/// Calls bpf(2) with a command that returns a file descriptor.
fn bpf<Attributes>(command: libc::c_int, attributes: &Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the attributes have the layout of `union bpf_attr` for this command, without padding, and what
    // they point to lives until the call returns; the kernel takes fields after them as zero.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<Attributes>())
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel returned a descriptor that nobody else owns (bpf sets close-on-exec).
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
