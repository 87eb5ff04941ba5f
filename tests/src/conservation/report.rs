//! What came of the runs: a line for each, a table for all, and the same as JSON.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{
    hard_paths::{HARD_PATHS, Taken},
    plan::Fault,
    verdict::shortened,
};

/// What came of one run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Draws the same schedule again.
    pub seed: u64,
    /// From the first body to the verdict.
    pub elapsed: Duration,
    /// Events that had to be stored.
    pub events: u64,
    /// Answers to clients, by status; `broken` and `late` for those that did not come.
    pub answers: BTreeMap<String, u64>,
    /// Faults injected, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Hard paths taken.
    pub taken: Taken,
    /// Acknowledged and not there.
    pub lost: Vec<String>,
    /// More than once in one store.
    pub doubled: Vec<String>,
    /// Anything else that must not be.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// Whether everything was as it must be; a run that took no hard path proves nothing.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.wrong.is_empty() && self.taken.any()
    }

    /// One line; more if something is wrong.
    #[must_use]
    pub fn line(&self) -> String {
        let taken: Vec<String> = HARD_PATHS
            .iter()
            .map(|path| (path.name, self.taken.times(path.name)))
            .filter(|(_, times)| *times > 0)
            .map(|(name, times)| format!("{name} {times}"))
            .collect();
        let mut line = format!(
            "seed {:<20} {:>5.1} s  {:>6} events  {:>2} faults  lost {}  doubled {}  {} | {}",
            self.seed,
            self.elapsed.as_secs_f64(),
            self.events,
            self.faults.values().sum::<u64>(),
            self.lost.len(),
            self.doubled.len(),
            if self.is_right() { "right" } else { "WRONG" },
            taken.join(", ")
        );
        for (what, found) in [("lost", &self.lost), ("doubled", &self.doubled), ("wrong", &self.wrong)] {
            if !found.is_empty() {
                write!(line, "\n  {what}:\n    {}", shortened(found)).ok();
            }
        }
        line
    }

    /// The same for machines.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "seed": self.seed, "seconds": self.elapsed.as_secs_f64(), "events": self.events, "right": self.is_right(),
            "answers": self.answers, "faults": named(&self.faults), "hard_paths": self.taken,
            "lost": self.lost, "doubled": self.doubled, "wrong": self.wrong,
        })
    }
}

/// The sums over several runs.
#[derive(Debug, Default)]
pub struct Summary {
    runs: usize,
    elapsed: Duration,
    events: u64,
    lost: usize,
    doubled: usize,
    wrong_seeds: Vec<u64>,
    answers: BTreeMap<String, u64>,
    faults: BTreeMap<Fault, u64>,
    /// Hard paths taken.
    pub taken: Taken,
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, run: &Outcome) {
        self.runs += 1;
        self.elapsed += run.elapsed;
        self.events += run.events;
        self.lost += run.lost.len();
        self.doubled += run.doubled.len();
        if !run.is_right() {
            self.wrong_seeds.push(run.seed);
        }
        for (answer, times) in &run.answers {
            *self.answers.entry(answer.clone()).or_default() += times;
        }
        for (fault, times) in &run.faults {
            *self.faults.entry(*fault).or_default() += times;
        }
        self.taken.add(&run.taken);
    }

    /// Whether every run was right and every hard path was taken.
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.wrong_seeds.is_empty() && self.taken.missing(true).is_empty()
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::new();
        let mut row = |name: &str, value: &str| {
            writeln!(table, "{name:<32} {value:>10}").ok();
        };
        row("runs", &self.runs.to_string());
        row("seconds", &self.elapsed.as_secs().to_string());
        row("events", &self.events.to_string());
        row("lost", &self.lost.to_string());
        row("doubled", &self.doubled.to_string());
        row("runs with anything wrong", &self.wrong_seeds.len().to_string());
        row("", "");
        row("answers to clients", "times");
        for (answer, times) in &self.answers {
            row(&format!("  {answer}"), &times.to_string());
        }
        row("faults injected", &self.faults.values().sum::<u64>().to_string());
        for (name, times) in named(&self.faults) {
            row(&format!("  {name}"), &times.to_string());
        }
        row("hard paths taken", "times");
        for path in &HARD_PATHS {
            row(&format!("  {}", path.name), &self.taken.times(path.name).to_string());
        }
        let missing = self.taken.missing(true);
        if !missing.is_empty() {
            writeln!(table, "\nnot green: never taken: {}", missing.join(", ")).ok();
        }
        for seed in &self.wrong_seeds {
            writeln!(
                table,
                "\nWRONG: seed {seed}; the same schedule again: make faults PARTS=runs RUNS=1 SEED={seed}"
            )
            .ok();
        }
        table
    }

    /// The same for machines.
    #[must_use]
    pub fn json(&self, runs: &[Value]) -> Value {
        json!({
            "runs": self.runs, "seconds": self.elapsed.as_secs_f64(), "events": self.events, "lost": self.lost,
            "doubled": self.doubled, "wrong_seeds": self.wrong_seeds, "green": self.is_green(), "answers": self.answers,
            "faults": named(&self.faults), "hard_paths": self.taken, "never_taken": self.taken.missing(true),
            "each": runs,
        })
    }
}

/// Faults by their names.
fn named(faults: &BTreeMap<Fault, u64>) -> BTreeMap<String, u64> {
    faults.iter().map(|(fault, times)| (fault.name(), *times)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in which each path but one was taken.
    fn run_without(path: &str) -> Outcome {
        let names = HARD_PATHS.iter().map(|path| path.name).filter(|name| *name != path);
        Outcome {
            taken: Taken(names.map(|name| (name, 1)).collect()),
            ..Outcome::default()
        }
    }

    fn is_green(runs: &[Outcome]) -> bool {
        let mut summary = Summary::default();
        runs.iter().for_each(|run| summary.add(run));
        summary.is_green()
    }

    #[test]
    fn runs_are_green_if_each_is_right_and_they_took_every_hard_path_together() {
        assert!(is_green(&[run_without("")]));
        assert!(!is_green(&[run_without("409s")]));
        assert!(is_green(&[run_without("409s"), run_without("leases lost")]));
        let lost = Outcome {
            lost: vec!["one".to_owned()],
            ..run_without("")
        };
        assert!(!is_green(&[run_without(""), lost]));
        assert!(!is_green(&[run_without(""), Outcome::default()]), "that run took none");
    }
}
