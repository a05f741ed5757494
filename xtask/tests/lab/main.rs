//! Lab tests: the relay between real clients and peers, in network namespaces. One scenario a file.
//!
//! They need root, and the daemon built: `cargo xtask test lab`.

mod capture;
mod coturn;
mod scene;
