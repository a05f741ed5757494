//! Turnpike's developer commands, and the lab that they and the lab tests run in. Orchestrates; contains no
//! relay logic, and does not depend on the daemon: it must build before the BPF toolchain is there.

pub mod bootstrap;
pub mod browser;
pub mod build;
pub mod ci;
pub mod conformance;
pub mod demo_call;
pub mod host_report;
pub mod interrupt;
pub mod lab;
pub mod lab_command;
pub mod privilege;
pub mod process;
pub mod run;
pub mod soak;
pub mod test;
pub mod turn_client;
pub mod wait;
pub mod workspace;
