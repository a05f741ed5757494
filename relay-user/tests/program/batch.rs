//! A whole map in one system call, which aya has no call for.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// The first `count` elements of a map with keys of 4 bytes (`BPF_MAP_LOOKUP_BATCH` of include/uapi/linux/bpf.h).
pub fn lookup_batch(map: BorrowedFd<'_>, count: usize, values: &mut [u64]) -> io::Result<()> {
    const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    let mut keys = vec![0u32; count];
    let mut next = 0u32;
    let mut batch = Batch {
        in_batch: 0,
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: count as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attributes are this command's, and its buffers hold `count` keys and all CPUs' values of each.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            &raw mut batch,
            size_of::<Batch>() as libc::c_ulong,
        )
    };
    let error = io::Error::last_os_error();
    // ENOENT: there are no more, which is how it ends.
    if (result == 0 || error.raw_os_error() == Some(libc::ENOENT)) && batch.count as usize == count {
        return Ok(());
    }
    Err(error)
}
