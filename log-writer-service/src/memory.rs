//! What the allocator keeps of freed memory: some for the next request, and nothing while memory is scarce.
//!
//! An allocator that does not know one of these settings works all the same, only with more memory.

use std::time::Duration;

use futures::FutureExt as _;
use tikv_jemalloc_ctl::{Access as _, AsName as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::ingest::Admission;

/// How long freed memory is kept, in milliseconds: most requests need what the one before gave back.
const KEPT_MILLIS: isize = 100;
/// How long there must have been enough before it is kept again.
const CALM: Duration = Duration::from_secs(1);
/// What an arena is made with.
const OF_NEW_ARENAS: &str = "arenas.dirty_decay_ms\0";

/// What is freed goes back to the system within one or two tenths of a second, not after ten, also when nothing is allocated
/// any more.
pub fn keep_briefly() {
    keep(match b"background_thread\0".name().write(true) {
        Ok(()) => KEPT_MILLIS,
        // Without that thread it would be kept until the next allocation.
        Err(_) => 0,
    });
}

/// While requests hold more than a half of what they may, what is freed goes back at once: what they hold and what was
/// freed would be more together than was promised (docs/OPERATIONS.md, "Memory").
pub(crate) async fn keep_nothing_while_scarce(admission: Admission, stopping: CancellationToken) {
    let kept: isize = OF_NEW_ARENAS.name().read().unwrap_or_default();
    let watch = async {
        loop {
            admission.gets_scarce().await;
            loop {
                // Again each time: an arena that somebody else was purging just then was left out.
                keep(0);
                sleep(CALM).await;
                if admission.gets_scarce().now_or_never().is_none() && !admission.is_scarce() {
                    break;
                }
            }
            keep(0);
            keep(kept);
        }
    };
    stopping.run_until_cancelled(watch).await;
}

/// In milliseconds, for the arenas that are there and those that will be.
fn keep(millis: isize) {
    OF_NEW_ARENAS.name().write(millis).ok();
    let count: u32 = b"arenas.narenas\0".name().read().unwrap_or_default();
    for arena in 0..count {
        // Most of them are made when they are needed first.
        of_arena(arena).as_bytes().name().write(millis).ok();
    }
}

fn of_arena(number: u32) -> String {
    format!("arena.{number}.dirty_decay_ms\0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::Tasks;

    /// Waits until the first arena, and those that will be made, keep what is freed for so long.
    async fn until_kept(millis: isize) {
        let asked = async {
            for name in [OF_NEW_ARENAS, &of_arena(0)] {
                while name.name().read() != Ok(millis) {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        };
        let in_time = tokio::time::timeout(30 * CALM, asked).await;
        in_time.unwrap_or_else(|_| panic!("freed memory is not kept for {millis} ms"));
    }

    #[tokio::test]
    async fn nothing_is_kept_while_more_than_a_half_is_held() {
        keep_briefly();
        let kept: isize = OF_NEW_ARENAS.name().read().expect("jemalloc is there");
        assert_eq!(kept == KEPT_MILLIS, b"background_thread\0".name().read() == Ok(true));
        until_kept(kept).await;
        let (admission, tasks) = (Admission::new(100), Tasks::default());
        tasks.spawn("memory", keep_nothing_while_scarce(admission.clone(), tasks.stopping()));
        let mut held = admission.open();
        assert!(held.grow_to(51));
        until_kept(0).await;
        drop(held);
        until_kept(kept).await;
        tasks.stop();
        tasks.finish(CALM).await.expect("it ends");
    }
}
