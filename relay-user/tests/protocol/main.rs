//! The TURN core under a simulated clock and network. Tests name the rows of the conformance list that they
//! cover.
#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod allocate;
mod amplification;
mod authentication;
mod channel_bind;
mod create_permission;
mod data;
mod demultiplex;
mod dual_stack;
mod flows;
mod hairpin;
mod pair;
mod policy;
mod quota;
mod random_input;
mod random_sequences;
mod refresh;
mod reservation;
mod sans_io;
mod stun;
mod wire;
