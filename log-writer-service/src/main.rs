//! Command line of the log writer.

use std::process::ExitCode;

use tikv_jemalloc_ctl::{Access as _, AsName as _};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    give_memory_back();
    #[cfg(feature = "failpoints")]
    let _armed = log_writer_service::failpoint::arm();
    log_writer_service::cli::run()
}

/// What is freed goes back to the system at once, not after ten seconds: what the process holds is what is in use.
fn give_memory_back() {
    for setting in [&b"arenas.dirty_decay_ms\0"[..], &b"arena.0.dirty_decay_ms\0"[..]] {
        // An allocator that does not know it works all the same, only with more memory.
        setting.name().write(0_isize).ok();
    }
}
