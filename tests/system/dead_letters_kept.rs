//! Dead letters that stay for a while: purged, shown, counted.

use log_writer_tests::{
    client::Request,
    conditions::{SOON, eventually},
    service::{Settings, run_command},
};
use serde_json::{Value, json};

use crate::{
    FakeStores,
    dead_letters::{book, letters, lines, list, said},
};

#[tokio::test]
async fn purge_takes_only_what_matches_is_old_and_was_confirmed_and_the_books_stay() {
    let stores = FakeStores::start().await;
    let text =
        |body: &str| Request::new("POST", "/ingest", body.to_owned()).header("content-type", "application/x-ndjson");
    stores.service.send(&text("{broken one")).await;
    stores.service.send(&text("{broken two")).await;
    let age = "update log_writer.dead_letters set last_at = now() - interval '2 days' where raw like '%one'";
    sqlx::query(age).execute(stores.database.pool()).await.expect("aged");

    let none = letters(&stores, &["purge", "--yes"]).await;
    assert_eq!(none.status.code(), Some(2), "a filter is required: {}", said(&none));
    let asked = letters(&stores, &["purge", "--stage", "decode"]).await;
    assert_eq!(asked.status.code(), Some(1), "{}", said(&asked));
    assert!(said(&asked).contains("add --yes"), "{}", said(&asked));
    let dry = letters(&stores, &["purge", "--stage", "decode", "--dry-run"]).await;
    assert!(
        dry.status.success() && said(&dry).contains("would purge 1 "),
        "{}",
        said(&dry)
    );
    assert_eq!(list(&stores, &[]).await.len(), 2);

    let purged = letters(&stores, &["purge", "--stage", "decode", "--yes", "--json"]).await;
    assert_eq!(
        lines(&purged),
        [json!({ "purged": 1 })],
        "the young one is left alone: {}",
        said(&purged)
    );
    let purged = letters(&stores, &["purge", "--all", "--older-than", "0s", "--yes", "--json"]).await;
    assert_eq!(lines(&purged), [json!({ "purged": 1 })], "{}", said(&purged));
    assert_eq!(list(&stores, &[]).await, Vec::<Value>::new());
    assert_eq!(book(&stores, "dead_lettered").await, 2, "the books stay");
}

#[tokio::test]
async fn nothing_of_a_letter_reaches_a_terminal_unescaped() {
    let stores = FakeStores::start().await;
    let nasty = "{\u{1b}[2J\u{9b}31m\u{202e}evil\u{7}";
    let request =
        Request::new("POST", "/ingest", nasty.as_bytes().to_vec()).header("content-type", "application/x-ndjson");
    stores.service.send(&request).await;
    let found = list(&stores, &[]).await;
    let id = found[0]["id"].to_string();
    for arguments in [
        &["show", &id][..],
        &["show", &id, "--json"],
        &["list"],
        &["list", "--json"],
        &["list", "--summary"],
    ] {
        let output = letters(&stores, arguments).await;
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        assert!(
            !text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')),
            "{arguments:?}: {text:?}"
        );
    }
    let shown = letters(&stores, &["show", &id]).await;
    assert!(
        said(&shown).contains("\\u{1b}[2J\\u{9b}31m\\u{202e}evil\\u{7}"),
        "{}",
        said(&shown)
    );
    let shown = letters(&stores, &["show", &id, "--json"]).await;
    assert_eq!(lines(&shown)[0]["raw"], nasty, "JSON means the same");
    let missing = letters(&stores, &["show", "999"]).await;
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
}

#[tokio::test]
async fn more_letters_than_the_quota_raise_an_alarm_and_none_is_dropped() {
    let mut stores = FakeStores::start_with(|settings| settings.set("database.dead_letters_rows_max", "1")).await;
    for body in ["{broken one", "{broken two"] {
        let request = Request::new("POST", "/ingest", body).header("content-type", "application/x-ndjson");
        stores.service.send(&request).await;
    }
    // Looked at soon after a start, then every minute.
    stores.service.kill();
    stores.service.restart().await;
    eventually("the alarm", SOON, || async {
        stores
            .service
            .log()
            .contains("more dead letters than database.dead_letters_rows_max")
            .then_some(())
    })
    .await;
    let metrics = stores.service.send(&Request::get("/metrics")).await.text().to_owned();
    for line in [
        "log_writer_dead_letters{stage=\"decode\"} 2",
        "log_writer_dead_letters_max 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in\n{metrics}"
        );
    }
    assert_eq!(stores.service.known_status().await["dead_letters"]["decode"], 2);
}

#[tokio::test]
async fn wrong_arguments_are_mistakes_and_an_absent_database_is_named() {
    let settings = Settings::default().set("database.url", "postgres://nobody@127.0.0.1:1/nothing");
    for (arguments, code) in [
        (&["list", "--since", "yesterday"][..], 2),
        (&["list", "--stage", "other"], 2),
        (&["list", "--limit", "0"], 2),
        (&["redrive"], 2),
        (&["purge", "--all", "--yes", "--dry-run"], 2),
        (&["list"], 1),
        (&["redrive", "--all"], 1),
    ] {
        let output = run_command(&[&["dead-letters"], arguments].concat(), &settings).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(code == 2 || said(&output).contains("127.0.0.1:1"), "{}", said(&output));
    }
}
