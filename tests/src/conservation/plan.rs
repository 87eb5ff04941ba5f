//! What is drawn from a seed: the bodies of every sender and the faults, each with its time.

use std::time::Duration;

use chrono::Utc;
use fastrand::Rng;

use super::bodies::{Author, Body};

/// How much one run is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Time in which faults begin.
    pub window: Duration,
    /// Senders, each with one request at a time.
    pub senders: usize,
    /// Bodies of one sender.
    pub bodies_each: usize,
    /// Longest pause before a body.
    pub pause: Duration,
    /// Faults by chance, besides [`ALWAYS`].
    pub faults: usize,
    /// Whether Elasticsearch may end, which takes it several seconds to recover from.
    pub elasticsearch_ends: bool,
}

impl Size {
    /// As `make faults` runs it.
    pub const FULL: Self = Self {
        window: Duration::from_secs(10),
        senders: 8,
        bodies_each: 36,
        pause: Duration::from_millis(450),
        faults: 9,
        elasticsearch_ends: true,
    };
    /// As `make test` runs it.
    pub const SHORT: Self = Self {
        window: Duration::from_secs(6),
        senders: 6,
        bodies_each: 16,
        pause: Duration::from_millis(600),
        faults: 3,
        elasticsearch_ends: false,
    };
}

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and started again.
    ReplicaKilled,
    /// SIGSTOP beyond the lease, and SIGCONT.
    ReplicaFrozen,
    /// The same while its bulks are on their way, to arrive when another has taken its claims over, after a rollover or not.
    FrozenWhileSending,
    /// The answer to a client does not come: most often it was committed.
    AnswerLost,
    /// Connections of clients are reset.
    ClientsReset,
    /// The answer to COMMIT does not come.
    CommitAnswerLost,
    /// Connections to PostgreSQL break in the middle of an answer.
    PostgresCut,
    /// PostgreSQL is silent.
    PostgresStalled,
    /// One of the service's backends is terminated.
    BackendTerminated,
    /// PostgreSQL is restarted, connections closed by it.
    PostgresRestarted,
    /// PostgreSQL is restarted as after a crash.
    PostgresCrashed,
    /// The answer to `_bulk` does not come: it is applied.
    BulkAnswerLost,
    /// Elasticsearch is silent.
    ElasticsearchStalled,
    /// Connections to Elasticsearch are reset.
    ElasticsearchReset,
    /// Elasticsearch ends by SIGKILL and is started again.
    ElasticsearchKilled,
    /// Elasticsearch is told to end (SIGTERM), finishes what it has begun, and is started again.
    ElasticsearchRestarted,
    /// `index.blocks.read_only`.
    ReadOnly,
    /// `index.blocks.read_only_allow_delete`, as the flood stage of the disk sets it.
    FloodStage,
    /// Answers of `_bulk` are lost, and while they are repeated the stream rolls over again and again.
    RolloverInReplay,
    /// `index.mapping.total_fields.limit` is reached: documents with new names are refused for good.
    MappingFull,
}

impl Fault {
    /// Its name in words: `replica killed`.
    pub(super) fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push(' ');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// In every run: without them its hard paths would be a matter of luck.
const ALWAYS: [Fault; 8] = [
    Fault::AnswerLost,
    Fault::CommitAnswerLost,
    Fault::BulkAnswerLost,
    Fault::ReplicaKilled,
    Fault::ReplicaFrozen,
    Fault::FrozenWhileSending,
    Fault::RolloverInReplay,
    Fault::MappingFull,
];

/// By chance.
const SOMETIMES: [Fault; 17] = [
    Fault::ReplicaKilled,
    Fault::ReplicaFrozen,
    Fault::FrozenWhileSending,
    Fault::AnswerLost,
    Fault::ClientsReset,
    Fault::CommitAnswerLost,
    Fault::PostgresCut,
    Fault::PostgresStalled,
    Fault::BackendTerminated,
    Fault::PostgresRestarted,
    Fault::PostgresCrashed,
    Fault::BulkAnswerLost,
    Fault::ElasticsearchStalled,
    Fault::ElasticsearchReset,
    Fault::ReadOnly,
    Fault::FloodStage,
    Fault::RolloverInReplay,
];

/// By chance where [`Size::elasticsearch_ends`], each as often as one of [`SOMETIMES`].
const ENDS: [Fault; 2] = [Fault::ElasticsearchKilled, Fault::ElasticsearchRestarted];

/// One fault and its time.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// What is broken.
    pub fault: Fault,
    /// From the start of the run.
    pub begin: Duration,
    /// For how long.
    pub length: Duration,
    /// Which replica, or whose connections.
    pub replica: usize,
    /// For a cut: after how many bytes.
    pub bytes: usize,
    /// For a freeze: whether the stream rolls over meanwhile.
    pub rollover: bool,
}

/// All that is drawn for one run.
#[derive(Debug)]
pub struct Plan {
    /// Bodies of each sender, in their order.
    pub senders: Vec<Vec<Body>>,
    /// Faults, in the order of their beginning.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// The same seed draws the same; times of events are those of the clock.
    #[must_use]
    pub fn draw(seed: u64, size: &Size) -> Self {
        let mut rng = Rng::with_seed(seed);
        let faults = draw_faults(&mut rng, size);
        let mut bodies = Author::new(&mut rng, Utc::now()).bodies(size.senders * size.bodies_each, size.pause);
        let senders = (0..size.senders)
            .map(|_| bodies.split_off(bodies.len().saturating_sub(size.bodies_each)))
            .collect();
        Self { senders, faults }
    }
}

fn draw_faults(rng: &mut Rng, size: &Size) -> Vec<Planned> {
    let ends = if size.elasticsearch_ends { &ENDS[..] } else { &[] };
    let choice = [&SOMETIMES, ends].concat();
    let by_chance: Vec<Fault> = (0..size.faults).map(|_| choice[rng.usize(..choice.len())]).collect();
    let mut faults: Vec<Planned> = ALWAYS
        .into_iter()
        .chain(by_chance)
        .map(|fault| {
            let (least, most) = length_ms(fault);
            let window = u64::try_from(size.window.as_millis()).unwrap_or(u64::MAX);
            Planned {
                fault,
                begin: Duration::from_millis(rng.u64(500..=window)),
                length: Duration::from_millis(rng.u64(least..=most)),
                replica: rng.usize(..2),
                bytes: rng.usize(1..20_000),
                rollover: rng.bool(),
            }
        })
        .collect();
    faults.sort_by_key(|planned| planned.begin);
    faults
}

/// Shortest and longest, in milliseconds.
fn length_ms(fault: Fault) -> (u64, u64) {
    match fault {
        Fault::ReplicaKilled | Fault::ElasticsearchKilled | Fault::ElasticsearchRestarted => (50, 1_500),
        // The lease lasts a second.
        Fault::ReplicaFrozen => (1_500, 3_500),
        Fault::FrozenWhileSending => (2_000, 3_500),
        Fault::AnswerLost | Fault::CommitAnswerLost | Fault::PostgresCut => (300, 1_500),
        Fault::ClientsReset | Fault::ElasticsearchReset => (50, 1_000),
        Fault::PostgresStalled => (300, 3_000),
        Fault::BackendTerminated | Fault::PostgresRestarted | Fault::PostgresCrashed => (0, 200),
        Fault::BulkAnswerLost => (500, 2_000),
        Fault::ElasticsearchStalled => (300, 3_000),
        Fault::ReadOnly | Fault::FloodStage => (500, 2_500),
        Fault::RolloverInReplay => (200, 500),
        Fault::MappingFull => (1_500, 3_500),
    }
}

#[cfg(test)]
mod tests {
    use super::{ALWAYS, ENDS, Fault, Plan, SOMETIMES, Size};

    /// Names every fault: without one of them the match is not exhaustive, and nothing compiles.
    macro_rules! every_fault {
        ($($fault:ident)+) => {
            const _: fn(Fault) = |fault| match fault {
                $(Fault::$fault)|+ => (),
            };
            const EVERY: &[Fault] = &[$(Fault::$fault),+];
        };
    }

    every_fault! {
        ReplicaKilled ReplicaFrozen FrozenWhileSending AnswerLost ClientsReset
        CommitAnswerLost PostgresCut PostgresStalled BackendTerminated PostgresRestarted PostgresCrashed
        BulkAnswerLost ElasticsearchStalled ElasticsearchReset ElasticsearchKilled ElasticsearchRestarted
        ReadOnly FloodStage RolloverInReplay MappingFull
    }

    #[test]
    fn every_fault_may_be_drawn() {
        let drawn = [&ALWAYS[..], &SOMETIMES, &ENDS].concat();
        for fault in EVERY {
            assert!(drawn.contains(fault), "{fault:?} is drawn by no run");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_faults() {
        let faults = |seed| format!("{:?}", Plan::draw(seed, &Size::FULL).faults);
        assert_eq!(faults(3), faults(3));
        assert_ne!(faults(3), faults(4));
    }

    #[test]
    fn every_plan_has_what_hard_paths_need_and_all_its_bodies() {
        for seed in 0..20 {
            let plan = Plan::draw(seed, &Size::SHORT);
            for fault in ALWAYS {
                assert!(plan.faults.iter().any(|planned| planned.fault == fault), "{fault:?}");
            }
            assert_eq!(plan.senders.len(), Size::SHORT.senders);
            assert!(
                plan.senders
                    .iter()
                    .all(|bodies| bodies.len() == Size::SHORT.bodies_each)
            );
        }
    }
}
