//! Lab tests: the relay between real clients and peers, in network namespaces. One scenario a file.
//!
//! They need root, and the daemon built: `cargo xtask test lab`.

mod bad_input;
mod bandwidth;
mod bpf;
mod browser;
mod capture;
mod coturn;
mod dual;
mod fallback;
mod firewall;
mod full;
mod host;
mod host_link;
mod ip_header;
mod janitor;
mod kill;
mod lengths;
mod many;
mod mtu;
mod order;
mod routes;
mod scene;
mod session;
mod socket_options;
mod stop;
mod tap;
