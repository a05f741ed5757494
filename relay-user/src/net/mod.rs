//! See ARCHITECTURE.md.
pub mod next_hop;
