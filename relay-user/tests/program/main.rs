//! The kernel program against its contract: frames in, verdict and frame out, by `BPF_PROG_TEST_RUN`. One module
//! for each rule, which is tested over every way for data through the relay ([`case`]); rows of the conformance list are
//! named in the tests.

#![expect(unreachable_pub, reason = "a test crate exports nothing")]

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
