//! Builds the kernel program with aya-build.

fn main() {}
