//! Sockets, time, next hops, and the driver that joins them with the core and the datapath.

mod clock;
mod driver;
mod ended;
mod log;
mod log_limit;
pub mod next_hop;
mod raw;
mod report;
mod udp;

pub use clock::boot_now;
pub use driver::{Driver, DriverOptions};
pub(crate) use log::visible;
pub use report::DatapathInfo;
pub use udp::{BindError, Endpoint};
