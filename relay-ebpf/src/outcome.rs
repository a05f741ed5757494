//! Ends and counts what is the relay's and is not forwarded.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use relay_common::outcome::{Outcome, Verdict};

use crate::{
    decide::ANY,
    maps::OUTCOMES,
    packet::Packet,
    parse::{self, Arrival},
};

/// Punts or drops an untouched packet, and counts it. One to another address of the host that has the same port
/// is neither: it goes to the kernel uncounted. Who it is for is read once more: it is of no use on the fast path.
#[inline(always)]
pub(crate) fn settle(packet: &Packet, outcome: Outcome) -> u32 {
    let Some(link) = parse::link::<ANY>(packet) else { return XDP_PASS };
    let Some(Arrival { key, .. }) = parse::arrival(packet, &link) else { return XDP_PASS };
    if !key.is_endpoint() {
        return XDP_PASS;
    }
    let outcome = match outcome.verdict() {
        // A dead daemon has no sockets. The kernel would answer "port unreachable".
        Verdict::Punt if !key.has_socket(packet) => Outcome::DaemonGone,
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
pub(crate) fn drop_moved(outcome: Outcome) -> u32 {
    count(outcome);
    XDP_DROP
}

#[inline(always)]
fn count(outcome: Outcome) {
    if let Some(count) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: a map value of 8 bytes of this CPU's own.
        unsafe { *count += 1 };
    }
}
