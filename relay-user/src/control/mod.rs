//! What an operator sets and sees: configuration, the host's facts that it is checked against, the admin
//! API.

pub mod config;
pub mod host;
