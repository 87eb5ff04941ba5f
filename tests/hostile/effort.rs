//! Bodies that are cheap to send and dear to read: effort grows with the bytes, not with their square.

use std::{fs, sync::Arc};

use log_writer_service::{
    config::{Config, DEFAULT_FILE},
    event::{Arrival, Normaliser, Timestamp},
    timescale::EncodedRows,
    wire::{Enough, Framing, Piece, SplitSettings, Taker},
};
use log_writer_tests::client::Receipt;

use crate::{Target, good};

const LINES: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];
/// Memory of the process in MiB for a hundred thousand dead letters.
const MEMORY: u64 = 220;

/// CPU time of this thread in nanoseconds: others on the machine do not count.
fn cpu_nanos() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("no /proc");
    text.split(' ')
        .next()
        .and_then(|nanos| nanos.parse().ok())
        .expect("nanoseconds")
}

/// Encodes events as a request's task does: objects where they stand, if they can be read so.
struct Rows<'n> {
    normaliser: &'n Normaliser,
    arrival: &'n Arrival,
    rows: EncodedRows,
}

impl<'a> Taker<'a> for Rows<'_> {
    fn read_object(&mut self, text: &'a str) -> Result<Option<usize>, Enough> {
        let Some((event, length)) = self.normaliser.normalise_first(text, self.arrival) else {
            return Ok(None);
        };
        self.rows.push(&event, self.arrival.at, None);
        Ok(Some(length))
    }

    fn take_piece(&mut self, piece: Piece<'a>) -> Result<(), Enough> {
        if let Piece::Event(raw) = piece
            && let Ok(event) = self.normaliser.normalise(raw, self.arrival)
        {
            self.rows.push(&event, self.arrival.at, None);
        }
        Ok(())
    }
}

/// Cuts, normalises and encodes a body as a request's task does, without letters and ids; the CPU time that it took.
fn effort(config: &Config, normaliser: &Normaliser, body: &str) -> u64 {
    let settings = SplitSettings {
        wrappers: &config.events.wrappers,
        events_max: config.events.per_request_max,
    };
    let arrival = Arrival {
        at: Timestamp(1_795_219_200_000_000),
        tenant: Some(Arc::from("default")),
        wrapper: None,
    };
    let begun = cpu_nanos();
    for content_type in [None, Some("application/json"), Some("application/x-ndjson")] {
        let Ok(framing) = Framing::of(body, content_type, settings) else {
            continue;
        };
        let _around = framing.around(&mut |_| true);
        let mut rows = Rows {
            normaliser,
            arrival: &arrival,
            rows: EncodedRows::new(),
        };
        framing.split(&mut rows);
    }
    cpu_nanos() - begun
}

/// Shapes that once were, or could be, quadratic somewhere: what is repeated, and what stands around it.
const SHAPES: [(&str, &str, &str); 30] = [
    ("", "{\"a\":nul}\n", ""),
    ("", "{bad\n", ""),
    ("", "{\"a\":", ""),
    ("", "[", ""),
    ("", "[{", ""),
    ("[", "{\"a\":[},", "]"),
    ("[", "\"", ""),
    ("", "\"a\n", ""),
    ("", "{\"a\":\"\n", ""),
    ("", "{\"a\":[1,\n", ""),
    ("", "[1,\n", ""),
    ("", "1,", ""),
    ("", "1 x\n", ""),
    ("", "x\n", ""),
    ("", "\n", ""),
    ("", ";", ""),
    ("", "{}", ""),
    ("", "\u{1e}{", ""),
    ("{\"data\":[", "{\"a\":1},", "]}"),
    ("{", "\"data\":[1],", "\"b\":1}"),
    ("{", "\"data\":[x],", ""),
    ("{\"message\":\"", "\\u0000", "\"}"),
    ("{\"message\":\"m\",\"tags\":\"", "a,", "\"}"),
    ("{\"message\":\"m\",\"tags\":[", "\"a\",", "\"b\"]}"),
    ("{", "\"message\":\"m\",", "\"x\":1}"),
    ("{", "\"fields\":{\"a\":1},", "\"x\":1}"),
    ("{", "\"kubernetes\":{\"pod_labels\":{\"app\":1}},", "\"x\":1}"),
    ("{", "\"log\":{\"level\":\"x\"},", "\"x\":1}"),
    ("{\"a\":", "{\"a\":", "1"),
    ("{\"metrics\":{", "\"a\":1,\"b\":\"c\",", "\"x\":1}}"),
];

#[test]
fn effort_grows_with_the_bytes_and_not_with_their_square() {
    const TIMES: usize = 8;
    let mut config: Config = toml::from_str(DEFAULT_FILE).expect("the defaults");
    // A limit would hide what is beyond it.
    config.events.per_request_max = usize::MAX;
    let normaliser = Normaliser::new(&config.events).expect("the default aliases");
    for (before, part, after) in SHAPES {
        let body = |bytes: usize| format!("{before}{}{after}", part.repeat(bytes / part.len()));
        let (small, large) = (body(40_000), body(40_000 * TIMES));
        let in_parts: u64 = (0..TIMES).map(|_| effort(&config, &normaliser, &small)).sum();
        let at_once = effort(&config, &normaliser, &large);
        // Quadratic would be eight times as much. The system counts in steps of some milliseconds.
        assert!(
            at_once < 3 * in_parts + 30_000_000,
            "{part:?}: {TIMES} bodies took {in_parts} ns, one of their size {at_once} ns"
        );
    }
}

#[tokio::test]
async fn a_million_bad_lines_are_as_many_letters_as_a_request_may_have_events() {
    let target = Target::start_with(|settings| settings.set("events.per_request_max", "20000")).await;
    let body = format!(
        "{}{}\n{}",
        "{bad\n".repeat(10_000),
        good("between"),
        "{bad\n".repeat(990_000)
    );
    let receipt = target.post(body, LINES).await.receipt();
    let expected = Receipt {
        received: 20_001,
        committed: 1,
        duplicates: 0,
        dead_lettered: 20_000,
    };
    assert_eq!(receipt, expected);
    let rest = "select octet_length(raw)::bigint from log_writer.dead_letters where reason = 'too_many_events'";
    assert_eq!(
        target.database.number(rest).await,
        5 * (990_000 - 9_999) - 1,
        "nothing of the rest is lost"
    );
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn bad_lines_of_one_sender_do_not_keep_others_waiting() {
    let target = Target::start().await;
    let attack = async {
        for number in 0..4 {
            let bad = format!("{{\"a\":nul{number}}}\n").repeat(20_000);
            assert_eq!(target.post(bad, LINES).await.receipt().dead_lettered, 20_000);
        }
    };
    let others = async {
        for number in 0..10 {
            let receipt = target
                .service
                .ingest(&serde_json::json!([good(&number.to_string())]))
                .await;
            assert_eq!(receipt, Receipt::all_committed(1));
        }
    };
    tokio::join!(attack, others);
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_million_events_of_three_bytes_are_taken_up_to_the_limit_and_the_rest_is_kept() {
    let target = Target::start_with(|settings| settings.set("events.per_request_max", "50000")).await;
    let receipt = target.post("{}\n".repeat(1_000_000), LINES).await.receipt();
    assert_eq!((receipt.committed, receipt.dead_lettered), (50_000, 1));
    let rest = "select octet_length(raw)::bigint from log_writer.dead_letters";
    assert_eq!(target.database.number(rest).await, 3 * 950_000 - 1);
    target.assert_unharmed(MEMORY).await;
}

#[tokio::test]
async fn a_hundred_thousand_tenants_in_a_body_are_one() {
    let target = Target::start().await;
    let lines: String = (0..100_000)
        .map(|number| format!("{{\"tenant\":\"t{number}\",\"message\":\"m\"}}\n"))
        .collect();
    assert_eq!(
        target.post(lines, LINES).await.receipt(),
        Receipt::all_committed(100_000)
    );
    let tenants = "select count(distinct tenant) from application_logs";
    assert_eq!(target.database.number(tenants).await, 1);
    let named = "select count(distinct fields ->> 'tenant') from application_logs";
    assert_eq!(target.database.number(named).await, 100_000);
    target.assert_unharmed(MEMORY).await;
}
