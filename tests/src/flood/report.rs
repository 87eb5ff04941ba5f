//! What came of a flood, and whether that is what is promised.

use std::{collections::BTreeMap, fmt, time::Duration};

/// Why nothing can be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stall {
    /// Every commit waits for a lock; one body waits for it before the others come.
    Locked,
    /// PostgreSQL takes bytes and says nothing.
    Silent,
}

impl fmt::Display for Stall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Locked => "locked",
            Self::Silent => "silent",
        })
    }
}

/// What one sender was told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    /// The status; `None`: the connection broke.
    pub(super) status: Option<u16>,
    /// From the first byte sent to the answer.
    pub(super) took: Duration,
}

/// What the senders of one kind of body were told during one stall.
#[derive(Debug)]
pub(super) struct Flood {
    pub(super) kind: &'static str,
    pub(super) stall: Stall,
    /// The one that was held before the others came, where there is one.
    pub(super) held: Option<Told>,
    pub(super) others: Vec<Told>,
    /// Answers to `/health` that were asked for after one of them was told that there is no room.
    pub(super) healthy: usize,
}

impl Flood {
    pub(super) fn slowest(&self) -> Duration {
        let took = self.held.iter().chain(&self.others).map(|told| told.took);
        took.max().unwrap_or_default()
    }

    /// Whether there was no room for some, none but the held one was stored, and everybody was answered, `/health` too.
    fn holds(&self) -> bool {
        let is = |told: &Told, statuses: &[u16]| told.status.is_some_and(|status| statuses.contains(&status));
        // Once the lock is gone it may be stored; there was room for it, since it came first.
        self.held.is_some() == (self.stall == Stall::Locked)
            && self.held.iter().all(|held| is(held, &[200, 503]))
            && self.others.iter().all(|told| is(told, &[429, 503]))
            && self.others.iter().any(|told| is(told, &[429]))
            && self.healthy > 0
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |status: Option<u16>| status.map_or_else(|| "broken".to_owned(), |status| status.to_string());
        let mut times = BTreeMap::new();
        for told in &self.others {
            *times.entry(told.status).or_insert(0_usize) += 1;
        }
        let mut told: Vec<String> = times
            .into_iter()
            .map(|(status, times)| format!("{times} times {}", named(status)))
            .collect();
        told.extend(self.held.map(|held| format!("the held one {}", named(held.status))));
        told.push(format!("{} times /health", self.healthy));
        write!(formatter, "{}, {}: {}", self.kind, self.stall, told.join(", "))
    }
}

/// What came of all floods.
#[derive(Debug)]
pub struct Report {
    pub(super) connections: usize,
    /// The largest resident memory before anything was sent, and while it was, in bytes.
    pub peaks: [u64; 2],
    /// What is promised.
    pub bound: u64,
    pub(super) floods: Vec<Flood>,
    /// The slowest answer to `/health` during the floods.
    pub(super) slowest_health: Duration,
    /// The largest resident memory while such bodies were delivered to Elasticsearch, and what is promised for that.
    pub delivering: [u64; 2],
}

impl Report {
    /// Whether memory stayed within what is promised, and everybody whose body could not be stored was told to send it again.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.peaks.iter().all(|peak| *peak <= self.bound)
            && self.delivering[0] <= self.delivering[1]
            && self.floods.iter().all(Flood::holds)
    }

    /// The slowest answer to a body.
    pub fn slowest_body(&self) -> Duration {
        self.floods.iter().map(Flood::slowest).max().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let [before, peak] = self.peaks.map(mib);
        let [delivering, promised] = self.delivering.map(mib);
        writeln!(
            formatter,
            "memory         {before:.0} MiB before, {peak:.0} MiB at most with {} connections; promised {:.0} MiB",
            self.connections,
            mib(self.bound),
        )?;
        for flood in &self.floods {
            writeln!(formatter, "answers        {flood}")?;
        }
        write!(
            formatter,
            "slowest        {:.1} s, /health {:.2} s\n\
             delivering     {delivering:.0} MiB at most; promised {promised:.0} MiB",
            self.slowest_body().as_secs_f64(),
            self.slowest_health.as_secs_f64(),
        )
    }
}
