//! Processes that die or stop at a failpoint, and what proves that they did it there.

use std::{os::unix::process::ExitStatusExt as _, process::Output};

use super::{STARTED, Service, Settings};
use crate::conditions::{SOON, eventually};

/// What `abort` ends a process with.
const SIGABRT: i32 = 6;

impl Service {
    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().expect("the service does not run");
        child.try_wait().expect("cannot ask for the process").is_some()
    }

    /// Waits until the process has aborted at a failpoint that was armed with `abort` when it was started last.
    ///
    /// # Panics
    /// If it ended in another way.
    pub async fn until_died_at(&mut self, point: &str) {
        let status = self.until_ended(SOON).await;
        assert_eq!(status.signal(), Some(SIGABRT), "it ended with {status}, not at {point}");
        let log = self.log();
        let of_this_start = log.rfind(STARTED).map_or(log.as_str(), |start| &log[start..]);
        let reached = format!("failpoint {point}: abort\n");
        assert!(of_this_start.contains(&reached), "it died elsewhere than at {point}");
    }

    /// Waits until the process has stopped itself at a failpoint that is armed with `stop`.
    pub async fn until_stopped_at(&self, point: &str) {
        let reached = format!("failpoint {point}: stop\n");
        eventually(&format!("the service to stop at {point}"), SOON, || {
            let is_stopped = self.log().contains(&reached) && self.state() == 'T';
            std::future::ready(is_stopped.then_some(()))
        })
        .await;
    }

    /// The process's state as `/proc` has it: `T` if it is stopped.
    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.trim_start().chars().next().unwrap_or('?')
    }

    /// Starts it again with other settings and waits for nothing: it may die at once.
    pub fn respawn_with(&mut self, settings: Settings) {
        assert!(self.child.is_none(), "end the service before it is started again");
        self.settings = settings;
        self.spawn();
    }
}

/// Claims that a command died at a failpoint.
///
/// # Panics
/// If it ended in another way.
pub fn assert_died_at(output: &Output, point: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.signal(),
        Some(SIGABRT),
        "it ended with {}, not at {point}:\n{said}",
        output.status
    );
    assert!(
        said.contains(&format!("failpoint {point}: abort\n")),
        "it died elsewhere than at {point}:\n{said}"
    );
}
