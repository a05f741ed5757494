//! `turnpike`: the daemon and its commands.

fn main() {}
