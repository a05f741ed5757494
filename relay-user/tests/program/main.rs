//! The kernel program against its contract: frames in, verdict and frame out, by `BPF_PROG_TEST_RUN`. One module
//! for each rule, which is tested over every way for data through the relay ([`case`]); rows of the conformance list are
//! named in the tests.
//!
//! Bugs that other relays had, and where they would show here:
//!
//! | bug | test |
//! |---|---|
//! | header lengths missing from the checksum, UDP length counted once | `forwarding::dp_054_…` |
//! | half-rewritten packet passed up | `memory::without_…`, and every `assert_outcome` |
//! | zero checksum towards IPv6 | `checksums::dp_057_dp_059_…` |
//! | unfinished (offloaded) checksum updated as if complete | `checksums::dp_061_…` |
//! | byte order of ports | `forwarding::dp_025_dp_037_…` |
//! | zero-filled entry read as configured | `torn::dp_067_a_flow_of_zeroes_…`, `…_a_path_…`, `not_ours::dp_053_no_…`, `vlan::dp_053_a_vlan_entry_…` |
//! | hairpin loop | `hairpin::dp_041_two_allocations_…`, `…_its_own_peer_…` |
//! | wrong channel after rebind | `forwarding::dp_067_a_rebound_channel_…` |
//! | channel refreshed during cool-down | `expiry::dp_066_…` |
//! | the host's own DNS or DHCP packets in the relayed range | `not_ours::dp_001_the_hosts_own_…` |
//! | map full | `forwarding::dp_068_…` |
//! | next hop gone | `egress::dp_052_without_…` |
//! | headroom or tailroom too small | `memory::without_…` |
//! | frame for another MAC address | `not_ours::dp_053_…`, `vlan::dp_053_…` |

#![expect(unreachable_pub, reason = "a test crate exports nothing")]

mod batch;
mod case;
mod checksums;
mod cost;
mod counters;
mod daemon_gone;
mod egress;
mod expiry;
mod forwarding;
mod frame;
mod hairpin;
mod headers;
mod indications;
mod lengths;
mod listener;
mod loops;
mod mapped;
mod memory;
mod message;
mod meters;
mod not_ours;
mod random;
mod relay;
mod session;
mod stress;
mod torn;
mod vlan;
