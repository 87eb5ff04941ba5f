//! Which hard paths were taken, from the metrics of the replicas themselves.
//!
//! A killed process takes its counters along. They are read several times a second and once more before each SIGKILL,
//! and summed over the processes: what is reported was counted, and is a lower bound of what happened.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;

use crate::client::{Request, send};

/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A path that normal traffic never takes.
#[derive(Debug)]
pub struct HardPath {
    /// As it is reported.
    pub name: &'static str,
    /// Series that count it: each begins with one of these.
    series: &'static [&'static str],
    /// Labels that are left out.
    but: &'static str,
    /// Whether already one short run must take it.
    pub always: bool,
}

const fn path(name: &'static str, series: &'static [&'static str], always: bool) -> HardPath {
    HardPath {
        name,
        series,
        but: "reason=\"old\"",
        always,
    }
}

/// All of them. Every set of runs must take each of them.
pub const HARD_PATHS: [HardPath; 20] = [
    path("known digests", &["log_writer_digests_known_total"], true),
    path("staging fallbacks", &["log_writer_staged_copies_total"], true),
    path("rows bisected out", &["log_writer_rows_refused_total"], true),
    HardPath {
        name: "late requests",
        series: &["log_writer_late_lane_requests_total{reason=\"old\""],
        but: "nothing",
        always: true,
    },
    path("late-lane transfers", &["log_writer_late_lane_requests_total"], true),
    path(
        "commits of unknown outcome",
        &["log_writer_commit_outcomes_unknown_total"],
        false,
    ),
    path("commits that failed", &["log_writer_commit_failures_total"], false),
    path(
        "429 to clients",
        &["log_writer_http_requests_total{route=\"/ingest\",code=\"429\""],
        false,
    ),
    path(
        "503 to clients",
        &["log_writer_http_requests_total{route=\"/ingest\",code=\"503\""],
        false,
    ),
    path("claims taken over", &["log_writer_claims_taken_over_total"], false),
    path("leases lost", &["log_writer_claims_lost_total"], false),
    path("409s", &["log_writer_bulk_items_total{outcome=\"duplicate\""], false),
    path(
        "found in older indices",
        &["log_writer_lookup_documents_total{outcome=\"older_index\""],
        false,
    ),
    path(
        "found by look-up",
        &[
            "log_writer_lookup_documents_total{outcome=\"older_index\"",
            "log_writer_lookup_documents_total{outcome=\"write_index\"",
        ],
        true,
    ),
    path("copies deleted", &["log_writer_doubles_removed_total"], false),
    path("late bulks looked for", &["log_writer_late_bulk_looks_total"], false),
    path(
        "bulks unanswered",
        &["log_writer_bulk_failures_total{kind=\"unanswered\""],
        false,
    ),
    path(
        "bulks answered 429",
        &["log_writer_bulk_failures_total{kind=\"429\""],
        false,
    ),
    path(
        "documents sent again",
        &["log_writer_bulk_items_total{outcome=\"retry\""],
        false,
    ),
    path(
        "documents refused",
        &["log_writer_bulk_items_total{outcome=\"rejected\""],
        false,
    ),
];

/// Times that each path was taken.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Taken(pub BTreeMap<&'static str, u64>);

impl Taken {
    /// Adds those of another run or replica.
    pub fn add(&mut self, other: &Self) {
        for (name, times) in &other.0 {
            *self.0.entry(name).or_default() += times;
        }
    }

    /// Whether any of the paths was taken on which an event could be lost or doubled.
    #[must_use]
    pub fn any(&self) -> bool {
        let telling = [
            "409s",
            "claims taken over",
            "found in older indices",
            "staging fallbacks",
            "known digests",
        ];
        telling.iter().any(|name| self.times(name) > 0)
    }

    /// How often a path was taken.
    #[must_use]
    pub fn times(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Required paths that were not taken: all, or those that already one short run takes.
    #[must_use]
    pub fn missing(&self, all: bool) -> Vec<&'static str> {
        HARD_PATHS
            .iter()
            .filter(|path| (all || path.always) && self.times(path.name) == 0)
            .map(|path| path.name)
            .collect()
    }

    fn of(series: &BTreeMap<String, u64>) -> Self {
        let counted = HARD_PATHS.iter().map(|path| {
            let is_of_it =
                |name: &str| path.series.iter().any(|begin| name.starts_with(begin)) && !name.contains(path.but);
            (
                path.name,
                series
                    .iter()
                    .filter(|(name, _)| is_of_it(name))
                    .map(|(_, times)| times)
                    .sum(),
            )
        });
        Self(counted.collect())
    }
}

/// The counters of one replica over all its processes.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    process: u32,
    before: Taken,
    now: BTreeMap<String, u64>,
}

impl Counters {
    /// Looks again and again until dropped.
    pub(super) async fn watch(&self, replica: SocketAddr) {
        loop {
            self.look(replica).await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Looks once; a replica that does not answer in time says nothing.
    pub(super) async fn look(&self, replica: SocketAddr) {
        let process = self.lock().process;
        let answer = tokio::time::timeout(LOOK_TIMEOUT, send(replica, &Request::get("/metrics"))).await;
        if let Ok(Ok(answer)) = answer
            && answer.status == 200
        {
            let mut seen = self.lock();
            // What was asked before a SIGKILL may come after it.
            if seen.process == process {
                seen.now = counters(&answer.text());
            }
        }
    }

    /// The process has ended: the next one counts from zero.
    pub(super) fn next_process(&self) {
        let mut seen = self.lock();
        let now = std::mem::take(&mut seen.now);
        seen.before.add(&Taken::of(&now));
        seen.process += 1;
    }

    /// What all processes together took.
    pub(super) fn taken(&self) -> Taken {
        let seen = self.lock();
        let mut taken = seen.before.clone();
        taken.add(&Taken::of(&seen.now));
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counters of a page, all of whose names end in `_total`.
fn counters(page: &str) -> BTreeMap<String, u64> {
    page.lines()
        .filter(|line| line.starts_with("log_writer_"))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Counters, HARD_PATHS, counters};

    #[test]
    fn counters_of_killed_processes_are_kept() {
        let seen = Counters::default();
        let page = "# TYPE x counter\nlog_writer_claims_lost_total 2\n\
                    log_writer_late_lane_requests_total{reason=\"old\"} 3\n\
                    log_writer_late_lane_requests_total{reason=\"data\"} 4\nlog_writer_ready 1\n";
        seen.lock().now = counters(page);
        seen.next_process();
        seen.lock().now = counters("log_writer_claims_lost_total 1\n");
        let taken = seen.taken();
        assert_eq!(taken.times("leases lost"), 3);
        assert_eq!(taken.times("late requests"), 3);
        assert_eq!(taken.times("late-lane transfers"), 4);
        assert_eq!(taken.missing(true).len(), HARD_PATHS.len() - 3);
    }
}
