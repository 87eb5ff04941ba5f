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

/// How long freed memory is kept for the next request: most requests need what the one before gave back.
const KEPT_MILLIS: isize = 100;

/// What is freed goes back to the system within a tenth of a second, not after ten, also when nothing is allocated any
/// more: what the process holds is what is in use.
fn give_memory_back() {
    let kept = match b"background_thread\0".name().write(true) {
        Ok(()) => KEPT_MILLIS,
        // Without that thread it would be kept until the next allocation.
        Err(_) => 0,
    };
    for setting in [&b"arenas.dirty_decay_ms\0"[..], &b"arena.0.dirty_decay_ms\0"[..]] {
        // An allocator that does not know it works all the same, only with more memory.
        setting.name().write(kept).ok();
    }
}
