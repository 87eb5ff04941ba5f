//! Command line of the log writer.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    log_writer_service::memory::keep_briefly();
    #[cfg(feature = "failpoints")]
    let _armed = log_writer_service::failpoint::arm();
    log_writer_service::cli::run()
}
