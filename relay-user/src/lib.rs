//! Turnpike's daemon: a TURN server (RFC 8656) whose established channels are forwarded by an XDP program.
//!
//! Dependencies point one way: `turn` knows neither sockets nor clocks nor the kernel; `datapath` knows
//! flows, not TURN; `net` and `control` bring both together; `cli` is what users type.

pub mod cli;
pub mod control;
pub mod datapath;
pub mod net;
pub mod turn;
