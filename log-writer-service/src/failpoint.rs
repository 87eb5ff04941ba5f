//! Named points at which a test makes the process die or stop. A normal build has nothing of them.
//!
//! With the feature `failpoints` the variable `FAILPOINTS` arms them at start, in the language of the crate `fail`:
//! `FAILPOINTS="commit::before_commit=2*off->1*return(abort)"` lets two pass and ends the process at the third.

/// Marks a point: `failpoint!("commit::before_commit")`.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reach($name);
    };
}
pub(crate) use failpoint;

/// Arms what `FAILPOINTS` names; disarmed when dropped.
///
/// # Panics
/// If the variable can't be read.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn arm() -> impl Drop {
    fail::FailScenario::setup()
}

/// Does at a point what it is armed with: `return(abort)` ends the process as SIGKILL would, `return(stop)` freezes it
/// until SIGCONT, `panic` panics.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &'static str) {
    let _passed = fail::eval(name, |action| match action.as_deref() {
        Some("abort") => {
            say(name, "abort");
            std::process::abort()
        }
        Some("stop") => stop_this_process(name),
        other => {
            tracing::error!(failpoint.name = name, action = ?other, "a failpoint is armed with what does not exist");
        }
    });
}

/// Tells a test that the point was really reached. Not by way of the log, which may hold lines back.
#[cfg(feature = "failpoints")]
fn say(name: &str, action: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "failpoint {name}: {action}").ok();
}

/// Stops the process by a signal to this very thread: sent to the process, any other thread may take it, whenever that
/// runs next, and this one would go on until then.
#[cfg(feature = "failpoints")]
fn stop_this_process(name: &str) {
    say(name, "stop");
    let stopped = std::fs::read_link("/proc/thread-self").and_then(|thread| {
        let thread = thread.file_name().unwrap_or_default().to_owned();
        std::process::Command::new("kill").arg("-STOP").arg(thread).status()
    });
    if let Err(error) = stopped {
        tracing::error!(failpoint.name = name, %error, "the process could not be stopped");
    }
}
