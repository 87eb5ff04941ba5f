//! The way of one event without a network and without stores, for valgrind to count (`make instructions`).
//!
//! `replay receive 10` takes the same requests ten times, from bytes to rows; `replay deliver 10` makes bulk bodies of what
//! a COPY sends ten times. Prints the events of one pass.
#![expect(clippy::print_stdout, reason = "a tool that reports on its terminal")]

use std::process::ExitCode;

use log_writer_service::targets::Replay;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (way, passes) = (
        arguments.next(),
        arguments.next().and_then(|passes| passes.parse().ok()),
    );
    let pass = match way.as_deref() {
        Some("receive") => Replay::receive,
        Some("deliver") => Replay::deliver,
        _ => return ExitCode::FAILURE,
    };
    let replay = Replay::prepare();
    for _ in 0..passes.unwrap_or(1) {
        pass(&replay);
    }
    println!("{}", Replay::EVENTS);
    ExitCode::SUCCESS
}
