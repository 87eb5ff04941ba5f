//! One process that dies at each point of committing, delivering and housekeeping in turn.

use log_writer_tests::{
    conditions::{SOON, eventually},
    proxy::Mode,
    service::{Service, Settings},
    stack::Database,
};

use super::{
    bodies::{Body, Kind},
    rounds,
    sender::Sender,
};

/// How a point is reached.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By sending.
    Sending(Kind),
    /// Elasticsearch is away until the sender has its answer.
    AfterTheAnswer,
    /// By a second attempt: the process died at this point before.
    After(&'static str),
    /// Elasticsearch does not answer the bulk.
    Stalled,
    /// The same, and the process is asked to end.
    Terminated,
}

use Way::{After, AfterTheAnswer, Sending, Stalled, Terminated};

const COMMITTING: [(&str, Way); 12] = [
    ("commit::before_begin", Sending(Kind::Plain)),
    ("commit::after_digests", Sending(Kind::Plain)),
    ("commit::in_copy", Sending(Kind::Large)),
    ("commit::in_staging", Sending(Kind::Shared)),
    ("commit::in_bisection", Sending(Kind::Poisoned)),
    ("commit::before_commit", Sending(Kind::Plain)),
    ("commit::before_commit", Sending(Kind::Late)),
    ("commit::before_commit", Sending(Kind::Undecodable)),
    ("commit::before_answer", Sending(Kind::Plain)),
    ("commit::before_answer", Sending(Kind::Poisoned)),
    ("commit::before_answer", Sending(Kind::Shared)),
    ("commit::before_answer", Sending(Kind::Undecodable)),
];

/// Of the profile `columnar`: large requests go straight into the columnstore, small and late ones into rows.
const COMMITTING_COLUMNS: [(&str, Way); 8] = [
    ("commit::before_begin", Sending(Kind::Large)),
    ("commit::after_digests", Sending(Kind::Large)),
    ("commit::in_copy", Sending(Kind::Large)),
    ("commit::before_commit", Sending(Kind::Large)),
    ("commit::before_commit", Sending(Kind::Plain)),
    ("commit::before_commit", Sending(Kind::Late)),
    ("commit::before_answer", Sending(Kind::Large)),
    ("commit::before_answer", Sending(Kind::Plain)),
];

const DELIVERING: [(&str, Way); 11] = [
    ("claim::before", AfterTheAnswer),
    ("claim::after_commit", Sending(Kind::Plain)),
    ("delivery::after_read_back", Sending(Kind::Plain)),
    ("delivery::before_bulk", Sending(Kind::Plain)),
    ("delivery::after_bulk", Sending(Kind::Plain)),
    ("delivery::before_settling", Sending(Kind::Late)),
    ("settle::before_commit", Sending(Kind::Plain)),
    ("settle::after_commit", Sending(Kind::Plain)),
    ("delivery::after_look_up", After("delivery::after_bulk")),
    ("claim::after_renewal", Stalled),
    ("claim::before_release", Terminated),
];

const HOUSEKEEPING: [(&str, Way); 2] = [
    ("letters::after_retention", Sending(Kind::Plain)),
    ("housekeeping::after_books", Sending(Kind::Plain)),
];

/// Dies at each point in turn and checks everything after each death.
async fn die_at_all(sender: &mut Sender, points: &[(&str, Way)], passes_max: u32) {
    for round in 0..rounds() {
        for (number, (point, way)) in (0_u32..).zip(points) {
            // Each point strikes at another pass in each round.
            let passes = if round == 0 {
                0
            } else {
                (round + number) % (passes_max + 1)
            };
            sender.service.kill();
            die_at(sender, point, *way, passes).await;
            sender.assert_nothing_lost_or_doubled().await;
        }
    }
}

async fn die_at(sender: &mut Sender, point: &str, way: Way, passes: u32) {
    let mut open = None;
    match way {
        Sending(kind) => {
            sender.respawn_armed(point, passes);
            open = sender.send_until_death(kind).await;
        }
        AfterTheAnswer => {
            sender.proxy.set(Mode::Refuse);
            sender.respawn_armed(point, passes);
            sender.deliver(Kind::Plain).await;
            assert!(
                !sender.service.has_ended(),
                "nothing is claimed while Elasticsearch is away"
            );
            sender.proxy.set(Mode::Forward);
        }
        After(first) => {
            sender.respawn_armed(first, passes);
            open = sender.send_until_death(Kind::Plain).await;
            sender.service.until_died_at(first).await;
            sender.respawn_armed(point, 0);
        }
        Stalled => open = stall(sender, point, passes).await,
        Terminated => {
            open = stall(sender, point, 0).await;
            sender.service.terminate();
        }
    }
    sender.service.until_died_at(point).await;
    sender.proxy.set(Mode::Forward);
    sender.restart().await;
    if let Some(body) = open {
        sender.resend(body).await;
    }
}

/// Has a bulk sent that is not answered; what was not acknowledged by the time it is claimed.
async fn stall(sender: &mut Sender, point: &str, passes: u32) -> Option<Body> {
    sender.respawn_armed(point, passes);
    sender.service.until_ready().await;
    let prepared = |status: &serde_json::Value| status["elasticsearch"]["bootstrapped"] == true;
    sender.service.until_status("the bootstrap", prepared).await;
    sender.proxy.set(Mode::Stall);
    let open = sender.send(Kind::Plain).await;
    let claimed = "select count(*) from log_writer.outbox where claimed_by is not null";
    eventually("a claim", SOON, || async {
        (sender.database.number(claimed).await > 0).then_some(())
    })
    .await;
    open
}

#[tokio::test]
async fn a_death_anywhere_in_a_commit_loses_and_doubles_nothing() {
    die_at_all(&mut Sender::start().await, &COMMITTING, 3).await;
}

#[tokio::test]
async fn a_death_anywhere_in_a_commit_of_columns_loses_and_doubles_nothing() {
    let database = Database::create().await;
    let columnar = |settings: Settings| settings.set("storage.profile", "columnar");
    if !database.is_community().await {
        // Refused there: it is never ready, and says why.
        let settings = columnar(Settings::new(database.url(), "http://127.0.0.1:1", "default"));
        let service = Service::start_unready(settings).await;
        let told = |status: &serde_json::Value| {
            let problem = status["problem"].as_str().unwrap_or_default();
            status["ready"] == false && problem.contains("needs the Community edition")
        };
        service.until_status("the refusal", told).await;
        return;
    }
    let mut sender = Sender::start_on(database, columnar).await;
    die_at_all(&mut sender, &COMMITTING_COLUMNS, 3).await;
    let unordered = "select count(*) from timescaledb_information.chunks where hypertable_name = 'application_logs'
        and _timescaledb_functions.chunk_status_text(format('%I.%I', chunk_schema, chunk_name)::regclass)::text like '%UNORDERED%'";
    assert!(
        sender.database.number(unordered).await > 0,
        "nothing went straight into the columnstore"
    );
}

#[tokio::test]
async fn a_death_anywhere_in_a_delivery_loses_and_doubles_nothing() {
    die_at_all(&mut Sender::start().await, &DELIVERING, 3).await;
}

#[tokio::test]
async fn what_a_delivery_that_panics_had_claimed_is_delivered_when_its_lease_has_ended() {
    let mut sender = Sender::start().await;
    sender.service.until_delivered().await;
    sender.service.kill();
    let armed = sender.settings.clone().failpoints("delivery::after_bulk=1*panic");
    sender.service.respawn_with(armed);
    sender.deliver(Kind::Plain).await;
    eventually("a panic", SOON, || {
        let panicked = sender.service.log().contains("a delivery step panicked");
        std::future::ready(panicked.then_some(()))
    })
    .await;
    sender.assert_nothing_lost_or_doubled().await;
}

#[tokio::test]
async fn a_death_in_housekeeping_loses_and_doubles_nothing() {
    let mut sender = Sender::start().await;
    sender.deliver(Kind::Poisoned).await;
    // Short enough to be over when housekeeping comes.
    sender.settings = sender.settings.clone().set("database.dead_letter_retention", "1s");
    sender.expect_letters_to_expire();
    // Once a minute is too seldom to be waited for again.
    die_at_all(&mut sender, &HOUSEKEEPING, 0).await;
}
