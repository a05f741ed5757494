//! The TURN core under a simulated clock and network. Tests name the rows of the conformance list that they
//! cover.
#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod allocate;
mod alternate_server;
mod amplification;
mod authentication;
mod bandwidth;
mod channel_bind;
mod create_permission;
mod data;
mod demultiplex;
mod dual_stack;
mod flows;
mod hairpin;
mod holes;
mod icmp;
mod ip_header;
mod pair;
mod password_algorithms;
mod policy;
mod quota;
mod random_input;
mod random_sequences;
mod refresh;
mod reservation;
mod responses;
mod sans_io;
mod session;
mod settings;
mod strangers;
mod stun;
mod time_limited;
mod wire;
