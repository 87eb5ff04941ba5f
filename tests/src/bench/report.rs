//! What a run showed: machine, versions, every figure of every round, and the ratios with their goals; as JSON and Markdown.

use std::{fmt::Write as _, fs, process::Command};

use serde::Serialize;

use super::{
    Bench, PER_REQUEST,
    legs::{Figure, Leg},
};

/// Everything of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The command line.
    pub command: String,
    /// Processor, cores, memory, kernel.
    pub machine: String,
    /// `uptime` when the run began and when it ended: what else ran shows in the load of the first.
    pub uptime: [String; 2],
    /// Service, PostgreSQL, TimescaleDB, Vector where it was brought.
    pub versions: String,
    /// Settings of PostgreSQL that decide.
    pub settings: String,
    /// Events of each leg, and bytes of one as sent.
    pub events: usize,
    /// Average size of an event as sent.
    pub bytes_per_event: f64,
    /// Resident memory of the service before it had anything to do.
    pub idle_bytes: u64,
    /// Every leg of every round.
    pub figures: Vec<Figure>,
    /// The goals, and what they are made of.
    pub ratios: Vec<Ratio>,
    /// Instructions an event by callgrind, as `dev/instructions.sh` printed them.
    pub instructions: Vec<String>,
}

/// One comparison, over all rounds.
#[derive(Debug, Serialize)]
pub struct Ratio {
    /// What is compared with what.
    pub name: String,
    /// The bound, for people.
    pub goal: String,
    /// Smallest, median, largest.
    pub spread: [f64; 3],
    /// Whether the median is within the bound, if there is one.
    pub met: Option<bool>,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// None: it tells what another ratio is made of.
    Free,
}

impl Report {
    /// What is known before the legs.
    pub async fn begin(bench: &Bench, program: &str, vector: Option<String>, instructions: Vec<String>) -> Self {
        let version = Command::new(program).arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let postgres = bench
            .text(
                "select 'PostgreSQL ' || current_setting('server_version') || ', TimescaleDB ' || extversion || ' ' || \
                 log_writer.timescale_edition() from pg_extension where extname = 'timescaledb'",
            )
            .await;
        let settings = bench
            .text(
                "select string_agg(name || '=' || current_setting(name), ', ' order by name) from pg_settings where \
                 name in ('shared_buffers', 'max_wal_size', 'wal_compression', 'fsync', 'synchronous_commit', \
                 'full_page_writes', 'wal_level', 'jit', 'autovacuum')",
            )
            .await;
        Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: machine(),
            uptime: [uptime(), String::new()],
            versions: [version.ok(), Some(postgres), vector]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", "),
            settings,
            events: bench.events(),
            bytes_per_event: bench.bytes_per_event(),
            idle_bytes: bench.idle_bytes(),
            figures: Vec::new(),
            ratios: Vec::new(),
            instructions,
        }
    }

    /// Compares, once all legs have run.
    pub fn end(&mut self, connections: &[usize]) {
        self.uptime[1] = uptime();
        let has_vector = self.figures.iter().any(|figure| figure.leg == Leg::VectorSink);
        for &count in connections {
            let ours = Leg::Ours(count);
            let share = if count >= 256 { 0.92 } else { 0.85 };
            self.compare(
                &format!("service with {count} connections / raw COPY"),
                Bound::AtLeast(share),
                |round| round.rate(ours) / round.rate(Leg::Copy),
            );
            self.compare(
                &format!("service with {count} connections / Vector's statement"),
                Bound::AtLeast(1.9),
                |round| round.rate(ours) / round.rate(Leg::Statement),
            );
            if has_vector {
                self.compare(
                    &format!("service with {count} connections / Vector's postgres sink, {PER_REQUEST} events a batch"),
                    Bound::AtLeast(4.0),
                    |round| round.rate(ours) / round.rate(Leg::VectorSink),
                );
                self.compare(
                    &format!("service with {count} connections / Vector's postgres sink, its default batches"),
                    Bound::Free,
                    |round| round.rate(ours) / round.rate(Leg::VectorSinkByDefault),
                );
            }
            self.compare(
                &format!("service CPU with {count} connections, µs an event"),
                Bound::AtMost(2.5),
                |round| round.of(ours, |figure| figure.sample.cost.service_cpu_us),
            );
            self.compare(
                &format!("resident memory with {count} connections, MiB"),
                Bound::AtMost(150.0),
                |round| round.of(ours, |figure| mebibytes(figure.service_bytes)),
            );
        }
        self.compare("raw COPY / Vector's statement", Bound::Free, |round| {
            round.rate(Leg::Copy) / round.rate(Leg::Statement)
        });
        if has_vector {
            self.compare(
                &format!("raw COPY / Vector's postgres sink, {PER_REQUEST} events a batch"),
                Bound::Free,
                |round| round.rate(Leg::Copy) / round.rate(Leg::VectorSink),
            );
            self.compare(
                "Vector's http sink to the service / Vector's postgres sink, its default batches",
                Bound::Free,
                |round| round.rate(Leg::ThroughService) / round.rate(Leg::VectorSinkByDefault),
            );
        }
        let beyond_copy = |round: &Round<'_>, leg: Leg| {
            let p50_ms = |leg: Leg| round.of(leg, |figure| figure.sample.p50_ms);
            p50_ms(leg) - p50_ms(Leg::SingleCopy)
        };
        self.compare(
            "one connection: p50 of the answer beyond that of its COPY, ms",
            Bound::AtMost(0.5),
            |round| beyond_copy(round, Leg::SingleOurs),
        );
        self.compare(
            "one connection: of that the transaction alone, without HTTP, queue and decoding, ms",
            Bound::Free,
            |round| beyond_copy(round, Leg::SingleCommit),
        );
        let idle = mebibytes(self.idle_bytes);
        self.compare("resident memory idle, MiB", Bound::AtMost(40.0), |_| idle);
    }

    fn compare(&mut self, name: &str, bound: Bound, value: impl Fn(&Round<'_>) -> f64) {
        let rounds = self.figures.iter().map(|figure| figure.round).max().unwrap_or(0);
        let values = (1..=rounds).map(|number| {
            let figures = self.figures.iter().filter(|figure| figure.round == number);
            value(&Round(figures.collect()))
        });
        let spread = spread(values.collect());
        let (goal, met) = match bound {
            Bound::AtLeast(least) => (format!("≥ {least}"), Some(spread[1] >= least)),
            Bound::AtMost(most) => (format!("≤ {most}"), Some(spread[1] <= most)),
            Bound::Free => ("-".to_owned(), None),
        };
        self.ratios.push(Ratio {
            name: name.to_owned(),
            goal,
            spread,
            met,
        });
    }

    /// As Markdown.
    ///
    /// # Panics
    /// Never: a string takes text.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a string takes text");
        line(format!("`{}`", self.command));
        line(String::new());
        line(format!("- {}", self.machine));
        line(format!("- {}", self.versions));
        line(format!("- {}", self.settings));
        line(format!(
            "- uptime before: {}; after: {}",
            self.uptime[0], self.uptime[1]
        ));
        line(format!(
            "- {} events a leg, {:.0} bytes each as sent; minimum / median / maximum of the rounds",
            self.events, self.bytes_per_event
        ));
        line(String::new());
        line(
            "| leg | events/s | p50 ms | p99 ms | service CPU µs | PostgreSQL CPU µs | load CPU µs | Vector CPU µs | service MiB |"
                .to_owned(),
        );
        line("|---|---|---|---|---|---|---|---|---|".to_owned());
        let mut legs: Vec<Leg> = Vec::new();
        for figure in &self.figures {
            if !legs.contains(&figure.leg) {
                legs.push(figure.leg);
            }
        }
        for leg in legs {
            let of = |value: fn(&Figure) -> f64, digits: usize| {
                let figures = self.figures.iter().filter(|figure| figure.leg == leg);
                shown(spread(figures.map(value).collect()), digits)
            };
            line(format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                leg.name(),
                of(|figure| figure.sample.rate, 0),
                of(|figure| figure.sample.p50_ms, 2),
                of(|figure| figure.sample.p99_ms, 1),
                of(|figure| figure.sample.cost.service_cpu_us, 2),
                of(|figure| figure.sample.cost.server_cpu_us, 2),
                of(|figure| figure.sample.cost.load_cpu_us, 2),
                of(|figure| figure.sample.cost.vector_cpu_us.unwrap_or(f64::NAN), 2),
                of(|figure| mebibytes(figure.service_bytes), 0),
            ));
        }
        line(String::new());
        line("| goal | bound | measured | |".to_owned());
        line("|---|---|---|---|".to_owned());
        for ratio in &self.ratios {
            let met = match ratio.met {
                Some(true) => "met",
                Some(false) => "not met",
                None => "",
            };
            line(format!(
                "| {} | {} | {} | {met} |",
                ratio.name,
                ratio.goal,
                shown(ratio.spread, 2)
            ));
        }
        for instructions in &self.instructions {
            line(String::new());
            line(instructions.clone());
        }
        out
    }
}

/// The figures of one round.
struct Round<'r>(Vec<&'r Figure>);

impl Round<'_> {
    fn rate(&self, leg: Leg) -> f64 {
        self.of(leg, |figure| figure.sample.rate)
    }

    fn of(&self, leg: Leg, value: impl Fn(&Figure) -> f64) -> f64 {
        self.0
            .iter()
            .find(|figure| figure.leg == leg)
            .map_or(f64::NAN, |figure| value(figure))
    }
}

/// The least, the median and the greatest.
pub fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |position: usize| values.get(position).copied().unwrap_or(f64::NAN);
    [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
}

/// They in a table; what was not measured is not a number.
pub fn shown([least, median, most]: [f64; 3], digits: usize) -> String {
    if median.is_nan() {
        return "-".to_owned();
    }
    format!("{least:.digits$} / **{median:.digits$}** / {most:.digits$}")
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, {cores} cores, {} of memory, Linux {}",
        value(&read("/proc/cpuinfo"), "model name"),
        value(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

pub(super) fn uptime() -> String {
    let output = Command::new("uptime").output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
