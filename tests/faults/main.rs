//! What breaks, and what must hold all the same: real stores, the real binary, and processes that die where it hurts.
//!
//! `crash_points`: the process ends at every failpoint in turn. `conservation`: everything goes wrong at random, from a
//! seed. `stalls`: what stops one request must not stop the others. `gone_wrong`: rights and schema that cost no event.
//! `clocks`: replicas whose time of day is wrong. `lifecycle`: start, stop and upgrade. `verify`: both stores
//! compared and repaired. `late`: bulks that are applied after their documents were settled.
//! `standby`: a COMMIT that waits for a server that is gone.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken expectation is a failed test"
)]

mod clocks;
mod conservation;
mod crash_points;
mod gone_wrong;
mod late;
mod lifecycle;
mod stage;
mod stalls;
mod standby;
mod verify;
