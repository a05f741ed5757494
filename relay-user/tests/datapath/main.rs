//! The XDP datapath and its next hops against the kernel, in network namespaces made for each test.

mod attach;
mod flows;
mod foreign;
mod forms;
mod network;
mod next_hops;
mod pins;
mod session;
