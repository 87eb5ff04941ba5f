//! What a kill, a lost answer or an absent store costs: time, never an event, never a double.

use std::time::Duration;

use log_writer_tests::{
    client::{Receipt, Request, send},
    conditions::{SOON, eventually},
    proxy::{Mode, Proxy},
    service::{Service, Settings},
    stack::{Database, Stream},
};

use crate::{RealStores, events::fresh};

/// A service that reaches Elasticsearch by way of a proxy.
async fn behind_a_proxy(mode: Mode) -> (RealStores, Proxy) {
    let (database, stream) = (Database::create().await, Stream::create().await);
    let proxy = Proxy::start(&stream.address()).await;
    proxy.set(mode);
    let url = format!("http://{}", proxy.address());
    let service = Service::start(Settings::new(database.url(), &url, &stream.tenant)).await;
    (
        RealStores {
            service,
            stream,
            database,
        },
        proxy,
    )
}

#[tokio::test]
async fn killed_between_commit_and_delivery_everything_is_delivered_once_after_the_restart() {
    let (mut stores, proxy) = behind_a_proxy(Mode::Forward).await;
    stores.service.ingest(&fresh(10)).await;
    stores.service.until_delivered().await;
    proxy.set(Mode::Refuse);
    for _ in 0..5 {
        assert_eq!(stores.service.ingest(&fresh(100)).await, Receipt::all_committed(100));
    }
    assert!(stores.service.known_status().await["books"]["outstanding"].as_i64() >= Some(500));
    stores.service.kill();
    proxy.set(Mode::Forward);
    stores.service.restart().await;
    stores.assert_delivered_exactly_once(510).await;
}

#[tokio::test]
async fn killed_while_the_answer_of_a_bulk_is_lost_nothing_doubles() {
    let (mut stores, proxy) = behind_a_proxy(Mode::Forward).await;
    stores.service.ingest(&fresh(10)).await;
    stores.service.until_delivered().await;
    // The request arrives and is applied; its answer never does.
    proxy.set(Mode::CutAnswerAfter(0));
    stores.service.ingest(&fresh(200)).await;
    let name = stores.stream.name();
    eventually("Elasticsearch to have applied the lost bulk", SOON, || async {
        (stores.stream.search.documents(&name).await.len() == 210).then_some(())
    })
    .await;
    assert!(
        stores.service.known_status().await["books"]["outstanding"].as_i64() > Some(0),
        "nobody knows it is there"
    );
    stores.service.kill();
    proxy.set(Mode::Forward);
    stores.service.restart().await;
    stores.assert_delivered_exactly_once(210).await;
}

#[tokio::test]
async fn a_lost_answer_and_a_rollover_before_the_resend_double_nothing() {
    let (stores, proxy) = behind_a_proxy(Mode::Forward).await;
    let name = stores.stream.name();
    stores.service.ingest(&fresh(10)).await;
    stores.service.until_delivered().await;
    proxy.set(Mode::CutAnswerAfter(0));
    stores.service.ingest(&fresh(200)).await;
    eventually("Elasticsearch to have applied the lost bulk", SOON, || async {
        (stores.stream.search.documents(&name).await.len() == 210).then_some(())
    })
    .await;
    stores
        .stream
        .search
        .ok("POST", &format!("/{name}/_rollover"), None)
        .await;
    proxy.set(Mode::Forward);
    stores.assert_delivered_exactly_once(210).await;
    assert_eq!(stores.stream.search.backing_indices(&name).await.len(), 2);
}

#[tokio::test]
async fn elasticsearch_started_after_the_service_gets_everything() {
    let (stores, proxy) = behind_a_proxy(Mode::Refuse).await;
    for _ in 0..3 {
        assert_eq!(stores.service.ingest(&fresh(50)).await, Receipt::all_committed(50));
    }
    let status = stores.service.known_status().await;
    assert_eq!(status["ready"], true, "Elasticsearch is no part of readiness: {status}");
    assert_eq!(status["elasticsearch"]["bootstrapped"], false, "{status}");
    assert!(status["elasticsearch"]["problem"].is_string(), "{status}");
    assert_eq!(status["backlog"]["events"], 150, "{status}");
    proxy.set(Mode::Forward);
    stores.assert_delivered_exactly_once(150).await;
    let status = stores.service.status().await;
    assert_eq!(status["elasticsearch"]["bootstrapped"], true, "{status}");
}

#[tokio::test]
async fn elasticsearch_away_in_between_stops_no_ingest() {
    let (stores, proxy) = behind_a_proxy(Mode::Forward).await;
    stores.service.ingest(&fresh(10)).await;
    let mut committed = 10;
    for mode in [Mode::Reset, Mode::Stall, Mode::CutAnswerAfter(40), Mode::Refuse] {
        proxy.set(mode);
        for _ in 0..3 {
            assert_eq!(
                stores.service.ingest(&fresh(20)).await,
                Receipt::all_committed(20),
                "{mode:?}"
            );
            committed += 20;
        }
    }
    proxy.set(Mode::Forward);
    stores.assert_delivered_exactly_once(committed).await;
}

#[tokio::test]
async fn postgres_absent_at_the_start_is_waited_for() {
    let (database, stream) = (Database::create().await, Stream::create().await);
    let proxy = Proxy::start(&database.address()).await;
    proxy.set(Mode::Refuse);
    let settings = Settings::new(&database.url_by(proxy.address()), stream.search.url(), &stream.tenant)
        .set("http.answer_timeout", "2s");
    let service = Service::start_unready(settings).await;
    assert_eq!(service.send(&Request::get("/ready")).await.status, 503);
    let refused = service.send(&Request::json(&fresh(1))).await;
    assert_eq!(refused.status, 503, "Vector keeps it: {}", refused.text());
    proxy.set(Mode::Forward);
    service.until_ready().await;
    let stores = RealStores {
        service,
        stream,
        database,
    };
    let receipt = stores.service.ingest_until_taken(&fresh(5)).await;
    assert_eq!((receipt.received, receipt.dead_lettered), (5, 0));
    stores.assert_delivered_exactly_once(5).await;
}

#[tokio::test]
async fn postgres_away_in_between_is_answered_503_and_a_resend_is_stored_once() {
    let (database, stream) = (Database::create().await, Stream::create().await);
    let proxy = Proxy::start(&database.address()).await;
    let settings = Settings::new(&database.url_by(proxy.address()), stream.search.url(), &stream.tenant)
        .set("http.answer_timeout", "2s");
    let service = Service::start(settings).await;
    let stores = RealStores {
        service,
        stream,
        database,
    };
    let mut committed = 0;
    let commit = Mode::CutAnswerTo("; commit");
    for mode in [
        commit,
        Mode::Refuse,
        Mode::Reset,
        Mode::Stall,
        Mode::CutAnswerAfter(600),
    ] {
        proxy.set(mode);
        let request = Request::json(&fresh(10));
        let answer = stores.service.send(&request).await;
        // The answer of COMMIT may be before the cut or behind it.
        if !matches!(mode, Mode::CutAnswerAfter(_) | Mode::CutAnswerTo(_)) || answer.status != 200 {
            assert_eq!(answer.status, 503, "{mode:?}: {}", answer.text());
        }
        if answer.status == 200 {
            let rows = stores
                .database
                .number("select count(*) from public.application_logs")
                .await;
            assert_eq!(rows, committed + 10, "{mode:?}: acknowledged is stored");
        }
        assert_eq!(
            stores.service.send(&Request::get("/health")).await.status,
            200,
            "{mode:?}: it stays up"
        );
        if mode == commit {
            eventually("the answer of a COMMIT to be cut", SOON, || async {
                let metrics = &stores.service.status().await["metrics"];
                if metrics["log_writer_commit_outcomes_unknown_total"].as_f64() >= Some(1.0) {
                    return Some(());
                }
                // On a slow machine it was answered 503 before it came to that.
                stores.service.send(&request).await;
                None
            })
            .await;
        }
        proxy.set(Mode::Forward);
        let receipt = stores.service.send_until_taken(&request).await;
        assert_eq!(receipt.received, 10, "{mode:?}");
        assert_eq!(receipt.dead_lettered, 0, "{mode:?}");
        committed += 10;
        let rows = stores
            .database
            .number("select count(*) from public.application_logs")
            .await;
        assert_eq!(rows, committed, "{mode:?}: stored once");
    }
    stores.service.until_ready().await;
    stores
        .assert_delivered_exactly_once(u64::try_from(committed).expect("few"))
        .await;
}

#[tokio::test]
async fn killed_again_and_again_under_load_every_request_is_stored_once_by_resending() {
    let mut stores = RealStores::start().await;
    let address = stores.service.address();
    let requests: Vec<Request> = (0..60).map(|_| Request::json(&fresh(25))).collect();
    let senders: Vec<_> = requests
        .iter()
        .cloned()
        .map(|request| {
            tokio::spawn(async move {
                eventually("a request to be taken", Duration::from_secs(60), || async {
                    // No answer, or a 503: the same bytes again, as Vector does.
                    match send(address, &request).await {
                        Ok(answer) if answer.status == 200 => Some(answer.receipt()),
                        Ok(answer) => {
                            assert!(
                                matches!(answer.status, 429 | 503),
                                "{}: {}",
                                answer.status,
                                answer.text()
                            );
                            None
                        }
                        Err(_) => None,
                    }
                })
                .await
            })
        })
        .collect();
    for round in 1_i64..=3 {
        eventually("some rows, so that the kill meets work", SOON, || async {
            let rows = stores
                .database
                .number("select count(*) from public.application_logs")
                .await;
            (rows >= round * 250).then_some(())
        })
        .await;
        stores.service.kill();
        stores.service.restart().await;
    }
    for sender in senders {
        let receipt = sender.await.expect("no sender panics");
        assert_eq!((receipt.received, receipt.dead_lettered), (25, 0));
    }
    stores.assert_delivered_exactly_once(1500).await;
}
