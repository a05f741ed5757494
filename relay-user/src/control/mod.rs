//! What an operator sets and sees: configuration, the host's facts that it is checked against, the admin
//! API.

pub mod admin;
pub mod client;
pub mod config;
pub mod host;
pub mod nic;
pub mod preflight;
pub mod status;
