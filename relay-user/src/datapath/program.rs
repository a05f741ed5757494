//! The kernel program as relay-user's build script made it.

/// The BPF object to load, aligned as the ELF reader wants it. `None` in a build without rust-src or
/// bpf-linker, which has the userspace datapath alone.
#[cfg(bpf_program)]
pub const PROGRAM: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/turnpike")));

/// The BPF object to load, aligned as the ELF reader wants it. `None` in a build without rust-src or
/// bpf-linker, which has the userspace datapath alone.
#[cfg(not(bpf_program))]
pub const PROGRAM: Option<&[u8]> = None;

/// Name of the program in the object.
pub const PROGRAM_NAME: &str = "turnpike";
