//! What the daemon gives up before it serves.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// What serving takes: the program with its flows and next hops, ICMP errors, and a listener below 1024.
const KEPT: [Capability; 5] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_RAW,
    Capability::CAP_NET_BIND_SERVICE,
];

/// Gives up all capabilities but those that serving takes, also for what this thread starts from now on. There
/// must be no other thread yet.
///
/// # Errors
/// The kernel's refusal. The process may have some capabilities less.
pub(super) fn drop_capabilities() -> Result<(), CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    // A program that root executes would have the bounding set.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for other in caps::read(None, CapSet::Bounding)?.into_iter().filter(|other| !KEPT.contains(other)) {
            caps::drop(None, CapSet::Bounding, other)?;
        }
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let kept = caps::read(None, set)?.into_iter().filter(|capability| KEPT.contains(capability));
        caps::set(None, set, &kept.collect::<CapsHashSet>())?;
    }
    Ok(())
}
