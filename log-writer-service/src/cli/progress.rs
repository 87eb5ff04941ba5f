//! How far a command is, told to a person who waits for it.

use std::io::{self, IsTerminal, Write};

use tokio::time::{Duration, Instant};

/// Lines on standard error now and then, if a person looks at it.
pub(super) struct Progress {
    what: &'static str,
    unit: &'static str,
    all: i64,
    next: Instant,
    is_shown: bool,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(1);

    pub(super) fn new(what: &'static str, unit: &'static str, all: i64) -> Self {
        Self {
            what,
            unit,
            all,
            next: Instant::now() + Self::EVERY,
            is_shown: io::stderr().is_terminal(),
        }
    }

    pub(super) fn show(&mut self, done: i64) {
        if self.is_shown && Instant::now() >= self.next {
            self.next = Instant::now() + Self::EVERY;
            let percent = done.saturating_mul(100) / self.all.max(1);
            // A terminal that went away is no reason to stop.
            writeln!(
                io::stderr(),
                "{}: {done} of {} {} ({percent} %)",
                self.what,
                self.all,
                self.unit
            )
            .ok();
        }
    }
}
