//! The kernel program against its contract: frames in, verdict and frame out, by `BPF_PROG_TEST_RUN`. One module
//! for each rule; rows of the conformance list are named in the tests.

#![expect(unreachable_pub, reason = "a test crate exports nothing")]

mod forwarding;
mod frame;
mod relay;
