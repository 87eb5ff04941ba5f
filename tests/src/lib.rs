//! Support for the suites.

pub mod vector_programs;
