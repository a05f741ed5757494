//! The XDP datapath and its next hops against the kernel, in network namespaces made for each test.

mod attach;
mod flows;
mod foreign;
mod forms;
mod limits;
mod network;
mod next_hops;
mod pins;
mod session;
#[path = "../protocol/wire.rs"]
#[expect(dead_code, unreachable_pub, reason = "the protocol tests use more of it, in a binary of their own")]
mod wire;
