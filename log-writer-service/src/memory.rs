//! What the allocator keeps of freed memory: some for the next request, and nothing while memory is scarce.
//!
//! An allocator that does not know one of these settings works all the same, only with more memory.

use std::time::Duration;

use tikv_jemalloc_ctl::{Access, AsName as _};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::ingest::Admission;

/// How long freed memory is kept: most requests need what the one before gave back.
const KEPT_MILLIS: isize = 100;
/// How long there must have been enough before it is kept again.
const CALM: Duration = Duration::from_secs(1);

/// What is freed goes back to the system within a tenth of a second or two, not after ten, also when nothing is allocated
/// any more.
pub fn keep_briefly() {
    let kept = match b"background_thread\0".name().write(true) {
        Ok(()) => KEPT_MILLIS,
        // Without that thread it would be kept until the next allocation.
        Err(_) => 0,
    };
    // The first arena is there already, all others are made with this.
    set("arenas.dirty_decay_ms\0", kept);
    set(&of_arena(0), kept);
}

/// While requests hold more than a half of what they may, what is freed goes back at once: what they hold and what was
/// freed would be more together than was promised (docs/OPERATIONS.md, "Memory").
pub(crate) async fn keep_nothing_while_scarce(admission: Admission, stopping: CancellationToken) {
    let watch = async {
        loop {
            admission.gets_scarce().await;
            let arenas = keeping();
            arenas.iter().for_each(|arena| set(arena, 0));
            while timeout(CALM, admission.gets_scarce()).await.is_ok() || admission.is_scarce() {}
            arenas.iter().for_each(|arena| set(arena, KEPT_MILLIS));
        }
    };
    stopping.run_until_cancelled(watch).await;
}

/// The arenas that keep what is freed. The one of the largest allocations never does.
fn keeping() -> Vec<String> {
    let count: u32 = b"arenas.narenas\0".name().read().unwrap_or_default();
    let arenas = (0..count).map(of_arena);
    arenas
        .filter(|arena| arena.as_bytes().name().read().is_ok_and(|kept: isize| kept > 0))
        .collect()
}

fn of_arena(number: u32) -> String {
    format!("arena.{number}.dirty_decay_ms\0")
}

fn set(name: &str, kept: isize) {
    name.as_bytes().name().write(kept).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::Tasks;

    async fn until(is_so: impl Fn(&[String]) -> bool) {
        let asked = async {
            while !is_so(&keeping()) {
                tokio::task::yield_now().await;
            }
        };
        timeout(30 * CALM, asked).await.expect("the allocator is told");
    }

    #[tokio::test]
    async fn nothing_is_kept_while_more_than_a_half_is_held() {
        keep_briefly();
        let keeps = |arenas: &[String]| arenas.contains(&of_arena(0));
        assert!(keeps(&keeping()));
        let (admission, tasks) = (Admission::new(100), Tasks::default());
        tasks.spawn("memory", keep_nothing_while_scarce(admission.clone(), tasks.stopping()));
        let mut held = admission.open();
        assert!(held.grow_to(51));
        until(<[String]>::is_empty).await;
        drop(held);
        until(keeps).await;
        tasks.stop();
        tasks.finish(CALM).await.expect("it ends");
    }
}
