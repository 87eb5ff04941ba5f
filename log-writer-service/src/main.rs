//! Command line of the log writer.

fn main() {}
