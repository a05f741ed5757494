//! Ends and counts what is the relay's and is not forwarded.

use aya_ebpf::{
    bindings::{
        BPF_F_CURRENT_NETNS, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as SockTupleV4,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release},
};
use relay_common::{
    flow::FlowKeyV4,
    outcome::{Outcome, Verdict},
};

use crate::{lookup, maps::OUTCOMES, packet::Packet, parse::Arrival};

/// Punts or drops an untouched packet, and counts it. One to another address of the host that has the same port
/// is neither: it goes to the kernel uncounted.
#[inline(always)]
pub(crate) fn settle(packet: &Packet, arrival: &Arrival, outcome: Outcome) -> u32 {
    if !lookup::is_endpoint(&arrival.key) {
        return XDP_PASS;
    }
    let outcome = match outcome.verdict() {
        // A dead daemon has no sockets. The kernel would answer "port unreachable".
        Verdict::Punt if !has_socket(packet, &arrival.key) => Outcome::DaemonGone,
        _ => outcome,
    };
    count(outcome);
    match outcome.verdict() {
        Verdict::Punt => XDP_PASS,
        Verdict::Drop => XDP_DROP,
    }
}

/// Drops a packet that is neither what it was nor what it was to be.
#[inline(always)]
pub(crate) fn drop_broken() -> u32 {
    count(Outcome::Rewrite);
    XDP_DROP
}

#[inline(always)]
fn count(outcome: Outcome) {
    if let Some(count) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: a map value of 8 bytes of this CPU's own.
        unsafe { *count += 1 };
    }
}

/// Whether a UDP socket of the interface's network namespace would get the datagram.
#[inline(always)]
fn has_socket(packet: &Packet, key: &FlowKeyV4) -> bool {
    let mut tuple = SockTupleV4 {
        saddr: key.remote_addr,
        daddr: key.local_addr,
        sport: key.remote_port,
        dport: key.local_port,
    };
    // SAFETY: the context is the kernel's; a tuple of this size is taken for IPv4.
    let socket = unsafe {
        bpf_sk_lookup_udp(
            packet.as_ptr(),
            (&raw mut tuple).cast(),
            size_of::<SockTupleV4>() as u32,
            BPF_F_CURRENT_NETNS as u64,
            0,
        )
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: a socket just given, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}
