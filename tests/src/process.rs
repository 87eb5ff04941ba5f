//! What processes cost, from `/proc`.

use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

/// `USER_HZ`: the same on every architecture that Linux shows `/proc` on.
const TICKS_PER_SECOND: u64 = 100;

/// The largest resident memory while it is watched.
#[derive(Debug)]
pub struct Watch {
    most: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// A process.
#[derive(Debug, Clone, Copy)]
pub struct Process(u32);

/// How often the threads of a process were interrupted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Interruptions {
    /// They waited for something.
    pub slept: u64,
    /// Another thread got their processor.
    pub preempted: u64,
    /// A page of memory was mapped for them.
    pub faulted: u64,
}

impl Process {
    /// By its id.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// This one.
    #[must_use]
    pub fn own() -> Self {
        Self(std::process::id())
    }

    /// The one that started it.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        u32::try_from(*self.numbers()?.get(1)?).ok().map(Self)
    }

    /// Processor time of all its threads so far.
    #[must_use]
    pub fn cpu(self) -> Duration {
        self.sum(&[11, 12])
    }

    /// Processor time of it and of its children, those that have ended too.
    #[must_use]
    pub fn cpu_with_children(self) -> Duration {
        let children = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
            let child = Self(entry.ok()?.file_name().to_str()?.parse().ok()?);
            (child.parent()?.0 == self.0).then(|| child.cpu())
        });
        children.sum::<Duration>() + self.sum(&[11, 12, 13, 14])
    }

    /// Processor time of its children that have ended and been waited for.
    #[must_use]
    pub fn cpu_of_ended(self) -> Duration {
        self.sum(&[13, 14])
    }

    /// Open files, connections among them.
    ///
    /// # Panics
    /// If it has ended, or is somebody else's.
    #[must_use]
    pub fn open_files(self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.0));
        files.expect("the process's open files can be read").count()
    }

    /// Resident memory.
    #[must_use]
    pub fn resident_bytes(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        kib.unwrap_or_default() * 1024
    }

    /// Of the threads that live, so far.
    #[must_use]
    pub fn interruptions(self) -> Interruptions {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten();
        let numbers = self.numbers().unwrap_or_default();
        let mut sum = Interruptions {
            faulted: numbers.get(7).copied().unwrap_or_default(),
            ..Interruptions::default()
        };
        for thread in threads.flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let count = |name: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
            };
            sum.slept += count("voluntary_ctxt_switches:");
            sum.preempted += count("nonvoluntary_ctxt_switches:");
        }
        sum
    }

    /// Stops (`STOP`) or continues (`CONT`) it, or any other signal by name.
    pub fn signal(self, signal: &str) {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", self.0)])
            .status()
            .expect("cannot run kill");
        assert!(status.success(), "cannot send SIG{signal}");
    }

    /// Watches its memory until that is dropped.
    #[must_use]
    pub fn watch_memory(self) -> Watch {
        let most = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&most);
        let task = tokio::spawn(async move {
            loop {
                seen.fetch_max(self.resident_bytes(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Watch { most, task }
    }

    fn sum(self, numbers: &[usize]) -> Duration {
        let all = self.numbers().unwrap_or_default();
        let ticks: u64 = numbers.iter().filter_map(|number| all.get(*number)).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// The numbers of `stat` that follow the name, from the state (taken as 0) on; negative ones are 0.
    fn numbers(self) -> Option<Vec<u64>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        let (_, after_name) = stat.rsplit_once(')')?;
        Some(
            after_name
                .split_whitespace()
                .map(|number| number.parse().unwrap_or(0))
                .collect(),
        )
    }
}

impl Watch {
    /// The largest so far, in bytes, and begins anew.
    #[must_use]
    pub fn take_most(&self) -> u64 {
        self.most.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::conditions::SOON;

    /// How long this thread has run, as the scheduler counts it.
    fn has_run() -> Duration {
        let counted = fs::read_to_string("/proc/thread-self/schedstat").expect("it counts");
        let nanos = counted.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        Duration::from_nanos(nanos.expect("a number"))
    }

    #[test]
    fn this_process_has_a_parent_memory_and_time() {
        let own = Process::own();
        let (before, started) = (own.cpu(), Instant::now());
        let enough = has_run() + Duration::from_millis(200);
        while has_run() < enough {
            assert!(started.elapsed() < SOON, "no time is counted");
        }
        let cpu = own.cpu();
        assert!(cpu >= before + Duration::from_millis(50), "{before:?}, then {cpu:?}");
        assert!(own.cpu_with_children() >= cpu);
        assert!(own.resident_bytes() > 1_000_000);
        let faulted = own.interruptions().faulted;
        drop(std::hint::black_box(vec![1_u8; 64 << 20]));
        std::thread::sleep(Duration::from_millis(1));
        let after = own.interruptions();
        // Threads that end, as those of other tests do, take their sleeps with them.
        assert!(after.faulted > faulted && after.slept > 0, "{after:?}");
        assert_eq!(
            own.parent().map(|parent| parent.0),
            Some(std::os::unix::process::parent_id())
        );
    }
}
