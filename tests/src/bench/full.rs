//! What `make bench-full` has shown: every part that was run, from this run and from runs before, as JSON and Markdown.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    apart,
    growth::{Axis, Point, Series},
    meter::Cost,
    replicas,
    report::{machine, uptime},
    stores::Held,
};

/// Every part that was run; one that is run again takes the place of the one before.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Full {
    /// What grows.
    #[serde(default)]
    pub growth: BTreeMap<Axis, Part<Series>>,
    /// Both stores at a rate that is held for minutes, without gzip and with it.
    pub held: Option<Part<Vec<Held>>>,
    /// Both stores at ever higher rates.
    pub highest: Option<Part<Vec<Held>>>,
    /// Two replicas beside one.
    pub replicas: Option<Part<Vec<replicas::Leg>>>,
    /// Receiving and delivering, apart and together, round by round.
    pub apart: Option<Part<Vec<apart::Leg>>>,
}

/// One part and where it was run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part<T> {
    /// Where it was run.
    pub run: Run,
    /// What it showed.
    pub shown: T,
}

/// Where and when something was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The command line.
    pub command: String,
    /// Processor, cores, memory, kernel.
    pub machine: String,
    /// Service, PostgreSQL, TimescaleDB, Elasticsearch; settings of PostgreSQL that decide.
    pub versions: String,
    /// `uptime` when it began: what else ran shows in the load.
    pub uptime: String,
}

impl Run {
    /// Begins now.
    #[must_use]
    pub fn begin(program: &Path, stores: &str) -> Self {
        let version = Command::new(program).arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: machine(),
            versions: format!("{}, {stores}", version.unwrap_or_default()),
            uptime: uptime(),
        }
    }
}

impl Full {
    /// What a file holds, if there is one.
    ///
    /// # Errors
    /// If it is another file.
    pub fn read(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} is not of this tool", path.display()))
            }
            Err(_) => Ok(Self::default()),
        }
    }

    /// As Markdown.
    ///
    /// # Panics
    /// Never: a string takes text.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for (axis, part) in &self.growth {
            push_run(&mut out, &format!("Cost against {}", axis.label()), &part.run);
            push_series(&mut out, &part.shown);
        }
        for (title, held) in [
            ("Both stores at a rate that is held", &self.held),
            ("Both stores at ever higher rates", &self.highest),
        ] {
            if let Some(part) = held {
                push_run(&mut out, title, &part.run);
                push_held(&mut out, &part.shown);
            }
        }
        if let Some(part) = &self.replicas {
            push_run(&mut out, "Two replicas beside one", &part.run);
            push_replicas(&mut out, &part.shown);
        }
        if let Some(part) = &self.apart {
            push_run(&mut out, "Receiving and delivering, apart and together", &part.run);
            push_apart(&mut out, &part.shown);
        }
        out
    }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a string takes text");
}

fn push_run(out: &mut String, title: &str, run: &Run) {
    line(out, &format!("## {title}\n\n`{}`\n", run.command));
    line(out, &format!("- {}", run.machine));
    line(out, &format!("- {}", run.versions));
    line(out, &format!("- uptime before: {}\n", run.uptime));
}

fn push_series(out: &mut String, series: &Series) {
    line(
        out,
        &format!(
            "| {} | events/s | p50 ms | p99 ms | service CPU µs | PostgreSQL CPU µs | load CPU µs |",
            series.axis.label()
        ),
    );
    line(out, "|---|---|---|---|---|---|---|");
    for point in &series.points {
        let row = format!(
            "| {:.0} | {:.0} | {:.2} | {:.1} | {:.2} | {:.2} | {:.2} |",
            point.x,
            point.median(|sample| sample.rate),
            point.median(|sample| sample.p50_ms),
            point.median(|sample| sample.p99_ms),
            point.median(|sample| sample.cost.service_cpu_us),
            point.median(|sample| sample.cost.server_cpu_us),
            point.median(|sample| sample.cost.load_cpu_us),
        );
        line(out, &row);
    }
    let rounds = series.points.iter().map(|point| point.samples.len()).max();
    line(out, &format!("\nMedian of {} rounds.", rounds.unwrap_or_default()));
    if series.axis == Axis::EventBytes {
        for (whose, of) in COSTS {
            let [fixed, per_byte, fit] = straight_line(&series.points, of);
            line(
                out,
                &format!(
                    "{whose} CPU an event: {fixed:.1} µs and {:.2} µs for each 1,000 bytes, a straight line with R² = {fit:.4}.",
                    per_byte * 1e3
                ),
            );
        }
    }
    line(out, "");
}

/// One figure of a cost.
type Of = fn(&Cost) -> f64;

const COSTS: [(&str, Of); 2] = [
    ("Service", |cost| cost.service_cpu_us),
    ("PostgreSQL", |cost| cost.server_cpu_us),
];

/// Where it begins, how steep it is, and how much of the differences it explains, by least squares.
fn straight_line(points: &[Point], of: Of) -> [f64; 3] {
    let pairs: Vec<(f64, f64)> = points
        .iter()
        .map(|point| (point.x, point.median(|sample| of(&sample.cost))))
        .collect();
    let count = pairs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|pair| pair.0), mean(|pair| pair.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    let slope = xy / xx;
    [mean_y - slope * mean_x, slope, xy * xy / (xx * yy)]
}

fn push_held(out: &mut String, held: &[Held]) {
    line(
        out,
        "| setting | due/s | events/s | s | answer p50 / p99 / max ms | searchable p50 / p99 / max s (probes) | waiting at most / at the end | \
         memory MiB, halves | service CPU µs | PostgreSQL CPU µs | Elasticsearch CPU µs | load CPU µs | goals |",
    );
    line(out, "|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for held in held {
        let (answers, searchable, cost) = (held.answers, held.searchable, held.cost);
        let [first, second] = held.memory_of_halves();
        let row = format!(
            "| {} | {} | {:.0} | {:.0} | {:.1} / {:.1} / {:.0} | {:.2} / {:.2} / {:.2} ({}) | {} / {} | {first:.0}, {second:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
            held.setting,
            held.due,
            held.rate,
            held.seconds,
            answers.p50_ms,
            answers.p99_ms,
            answers.max_ms,
            searchable.p50_ms / 1e3,
            searchable.p99_ms / 1e3,
            searchable.max_ms / 1e3,
            searchable.count,
            held.outstanding[0],
            held.outstanding[1],
            cost.service_cpu_us,
            cost.server_cpu_us,
            cost.elasticsearch_cpu_us.unwrap_or_default(),
            cost.load_cpu_us,
            if held.holds() { "met" } else { "not met" },
        );
        line(out, &row);
    }
    line(
        out,
        "\n| due/s | bytes an event: WAL | table with indexes | Elasticsearch's indices | over loopback |",
    );
    line(out, "|---|---|---|---|---|");
    for Held { due, volume, .. } in held {
        let row = format!(
            "| {due} | {:.0} | {:.0} | {:.0} | {:.0} |",
            volume.wal, volume.table, volume.documents, volume.loopback
        );
        line(out, &row);
    }
    line(out, "");
}

fn push_replicas(out: &mut String, legs: &[replicas::Leg]) {
    line(
        out,
        "| leg | events | events/s | until delivered, events/s | sent twice, stored once | service CPU µs | PostgreSQL CPU µs | Elasticsearch CPU µs |",
    );
    line(out, "|---|---|---|---|---|---|---|---|");
    for leg in legs {
        let row = format!(
            "| {} | {} | {:.0} | {} | {} | {:.2} | {:.2} | {:.2} |",
            leg.name(),
            leg.events,
            leg.rate,
            leg.delivered_rate
                .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")),
            leg.duplicates,
            leg.cost.service_cpu_us,
            leg.cost.server_cpu_us,
            leg.cost.elasticsearch_cpu_us.unwrap_or_default(),
        );
        line(out, &row);
    }
    line(out, "");
}

fn push_apart(out: &mut String, legs: &[apart::Leg]) {
    line(
        out,
        "| phase | events/s | service CPU µs | went to sleep, an event | preempted | pages mapped | PostgreSQL CPU µs | Elasticsearch CPU µs |",
    );
    line(out, "|---|---|---|---|---|---|---|---|");
    for leg in legs {
        let row = format!(
            "| {} | {:.0} | {:.2} | {:.3} | {:.3} | {:.3} | {:.2} | {:.2} |",
            leg.phase.name(),
            leg.rate,
            leg.cost.service_cpu_us,
            leg.sleeps,
            leg.preempted,
            leg.faults,
            leg.cost.server_cpu_us,
            leg.cost.elasticsearch_cpu_us.unwrap_or_default(),
        );
        line(out, &row);
    }
    line(out, "");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ground::Sample;

    fn series(cost: impl Fn(f64) -> f64) -> Series {
        let point = |x: f64| Point {
            x,
            samples: vec![Sample {
                rate: 1.0,
                p50_ms: 1.0,
                p99_ms: 1.0,
                cost: Cost {
                    service_cpu_us: cost(x),
                    server_cpu_us: 1.0,
                    elasticsearch_cpu_us: None,
                    load_cpu_us: 1.0,
                    vector_cpu_us: None,
                },
            }],
        };
        Series {
            axis: Axis::EventBytes,
            points: [200.0, 1_000.0, 20_000.0].map(point).to_vec(),
        }
    }

    #[test]
    fn a_straight_line_is_told_from_a_curve() {
        let line = |series: &Series| straight_line(&series.points, |cost| cost.service_cpu_us);
        let [fixed, per_byte, fit] = line(&series(|x| 3.0 + x / 500.0));
        assert!((fixed - 3.0).abs() < 1e-6 && (per_byte - 0.002).abs() < 1e-9 && fit > 0.999_999);
        let [_, _, fit] = line(&series(|x| x * x));
        assert!(fit < 0.999, "{fit}");
    }

    #[test]
    fn what_was_shown_is_read_again_and_drawn() {
        let shown = series(|x| x);
        let run = Run {
            command: "log-bench-full".to_owned(),
            machine: String::new(),
            versions: String::new(),
            uptime: String::new(),
        };
        let mut full = Full::default();
        full.growth.insert(Axis::EventBytes, Part { run, shown });
        let written = serde_json::to_string(&full).expect("it can be written");
        let again: Full = serde_json::from_str(&written).expect("it can be read");
        assert_eq!(again.markdown(), full.markdown());
        let svg = crate::bench::plots::svg(&again.growth[&Axis::EventBytes].shown).expect("it can be drawn");
        assert_eq!(
            svg.matches("<circle").count(),
            3 * 3 + 2,
            "three lines of three points, and their names"
        );
    }
}
