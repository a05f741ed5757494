//! `cargo xtask`: Turnpike's developer commands.

fn main() {}
