//! The kernel program against its contract: frames in, verdict and frame out, by `BPF_PROG_TEST_RUN`. One module
//! for each rule; rows of the conformance list are named in the tests.

#![expect(unreachable_pub, reason = "a test crate exports nothing")]

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
mod lengths;
mod listener;
mod not_ours;
mod random;
mod relay;
mod torn;
