//! A sender as Vector is one, between stores of the test's own: it keeps a request and sends the same bytes until they
//! are taken, whatever dies meanwhile.

use std::collections::BTreeSet;

use log_writer_tests::{
    client::send,
    conditions::{SOON, eventually},
    invariants::assert_delivered_exactly_once_after_purging,
    proxy::Proxy,
    rows::dead_letters,
    service::{Service, Settings},
    stack::{Database, Stream},
};
use serde_json::Value;
use uuid::Uuid;

use super::{
    bodies::{Body, Kind, REFUSE_POISON, shared_event},
    dies_at,
};

/// A service between real stores, Elasticsearch by way of a proxy, and what it has acknowledged.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) service: Service,
    pub(super) proxy: Proxy,
    pub(super) stream: Stream,
    pub(super) database: Database,
    pub(super) settings: Settings,
    shared: Value,
    stored: BTreeSet<Uuid>,
    letters: usize,
    /// Events whose dead letters were deleted.
    purged: i64,
    refused: BTreeSet<Uuid>,
}

impl Sender {
    /// Starts a service that nothing is armed in, and delivers one event; PostgreSQL refuses poison.
    pub(super) async fn start() -> Self {
        let sender = Self::start_on(Database::create().await, |settings| settings).await;
        for statement in REFUSE_POISON {
            sender.database.execute(statement).await;
        }
        sender
    }

    /// The same on this database with further settings, and nothing is refused.
    pub(super) async fn start_on(database: Database, set: impl FnOnce(Settings) -> Settings) -> Self {
        let stream = Stream::create().await;
        let proxy = Proxy::start(&stream.address()).await;
        let settings = Settings::new(database.url(), &format!("http://{}", proxy.address()), &stream.tenant)
            .set("delivery.lease", "1s")
            .set("delivery.renew_every", "300ms");
        let settings = set(settings);
        let service = Service::start(settings.clone()).await;
        let shared = shared_event();
        service.ingest(&Value::Array(vec![shared.clone()])).await;
        let id = shared["event_id"].as_str().and_then(|id| id.parse().ok());
        Self {
            service,
            proxy,
            stream,
            database,
            settings,
            shared,
            stored: id.into_iter().collect(),
            letters: 0,
            purged: 0,
            refused: BTreeSet::new(),
        }
    }

    /// Starts the service again, to die at a point that it passes so many times first.
    pub(super) fn respawn_armed(&mut self, point: &str, passes: u32) {
        let armed = self.settings.clone().failpoints(&dies_at(point, passes));
        self.service.respawn_with(armed);
    }

    /// Starts the service again with nothing armed.
    pub(super) async fn restart(&mut self) {
        self.service.restart_with(self.settings.clone()).await;
    }

    /// Sends a request of a kind until it is taken.
    pub(super) async fn deliver(&mut self, kind: Kind) {
        let body = Body::new(kind, &self.shared);
        self.resend(body).await;
    }

    /// Sends a request of a kind until it is taken; the request, if the process died before.
    pub(super) async fn send(&mut self, kind: Kind) -> Option<Body> {
        let body = Body::new(kind, &self.shared);
        if self.send_while_alive(&body).await {
            self.note(&body);
            return None;
        }
        Some(body)
    }

    /// Sends one request after another, each once what came before is delivered, until the process dies; what it had not
    /// acknowledged by then.
    pub(super) async fn send_until_death(&mut self, kind: Kind) -> Option<Body> {
        let started = std::time::Instant::now();
        loop {
            assert!(started.elapsed() < SOON, "the point was not reached in {SOON:?}");
            if let Some(body) = self.send(kind).await {
                return Some(body);
            }
            if self.delivered_or_dead().await {
                return None;
            }
        }
    }

    /// The same bytes until they are taken.
    pub(super) async fn resend(&mut self, body: Body) {
        assert!(self.send_while_alive(&body).await, "the service died");
        self.note(&body);
    }

    /// Waits until everything is delivered and compares both stores with what was acknowledged.
    pub(super) async fn assert_nothing_lost_or_doubled(&self) {
        self.service.until_delivered().await;
        let documents = self.stream.search.documents(&self.stream.name()).await;
        let acknowledged = self.stored.len() as u64;
        let (service, database) = (&self.service, &self.database);
        let rows =
            assert_delivered_exactly_once_after_purging(service, database, &documents, acknowledged, self.purged).await;
        let rows: BTreeSet<Uuid> = rows.iter().map(|row| row.id).collect();
        assert_eq!(rows, self.stored, "the ids that were acknowledged");
        let letters = dead_letters(self.database.pool()).await;
        assert_eq!(letters.len(), self.letters, "{letters:?}");
    }

    /// Letters of events that were not stored are deleted, as their retention has it; the books keep them.
    pub(super) fn expect_letters_to_expire(&mut self) {
        self.purged += i64::try_from(self.letters).expect("few");
        self.forget_letters();
    }

    /// There are no dead letters any more.
    pub(super) fn forget_letters(&mut self) {
        self.letters = 0;
        self.refused.clear();
    }

    /// The events of dead letters were taken after all.
    pub(super) fn expect_refused_to_be_stored(&mut self) {
        self.letters = 0;
        self.stored.append(&mut self.refused);
    }

    /// What was stored meanwhile is refused by Elasticsearch.
    pub(super) fn expect_letters(&mut self, letters: usize) {
        self.letters += letters;
    }

    fn note(&mut self, body: &Body) {
        self.stored.extend(&body.stored);
        self.refused.extend(&body.refused);
        self.letters += body.letters;
    }

    /// True once it is taken, false if the process died before.
    async fn send_while_alive(&mut self, body: &Body) -> bool {
        let started = std::time::Instant::now();
        loop {
            assert!(started.elapsed() < SOON, "not taken in {SOON:?}");
            match send(self.service.address(), &body.request).await {
                Ok(answer) if answer.status == body.status => return true,
                Ok(answer) => assert!(
                    matches!(answer.status, 429 | 503),
                    "{}: {}",
                    answer.status,
                    answer.text()
                ),
                // Not listening yet, or dead. The answer of a process that dies is lost before it can be waited for.
                Err(_) if self.dies_soon().await => return false,
                Err(_) => {}
            }
        }
    }

    /// Whether the process ends, or else takes connections.
    async fn dies_soon(&mut self) -> bool {
        let address = self.service.address();
        eventually("the service to listen, or to die", SOON, || {
            let has_ended = self.service.has_ended();
            async move {
                if has_ended {
                    return Some(true);
                }
                tokio::net::TcpStream::connect(address).await.ok().map(|_| false)
            }
        })
        .await
    }

    /// Whether the process died before all that it took was delivered.
    async fn delivered_or_dead(&mut self) -> bool {
        let pool = self.database.pool().clone();
        eventually("the backlog to drain, or death", SOON, || {
            let has_ended = self.service.has_ended();
            let open = sqlx::query_scalar::<_, i64>("select count(*) from log_writer.outbox").fetch_one(&pool);
            async move {
                if has_ended {
                    return Some(true);
                }
                (open.await.expect("the outbox") == 0).then_some(false)
            }
        })
        .await
    }
}
