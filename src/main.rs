//! The `siteward` binary.

fn main() {}
