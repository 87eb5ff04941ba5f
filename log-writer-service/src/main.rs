//! Command line of the log writer.

use std::process::ExitCode;

fn main() -> ExitCode {
    log_writer_service::cli::run()
}
