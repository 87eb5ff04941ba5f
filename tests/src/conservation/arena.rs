//! What one run breaks: two replicas on one database, each behind proxies of its own.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::Mutex;

use super::{bodies::POISON, hard_paths::Counters, servers::Servers};
use crate::{
    proxy::{Mode, Proxy},
    service::{Service, Settings, run_command},
    stack::{Database, Stream, random_word},
};

/// The replicas, their stores, and every connection between them.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) replicas: [Replica; 2],
    pub(super) database: Database,
    pub(super) stream: Stream,
    pub(super) servers: Arc<Servers>,
    /// One fault of PostgreSQL at a time.
    pub(super) postgres: Mutex<()>,
    /// Elasticsearch is killed or restarted by one at a time.
    pub(super) elasticsearch: Mutex<()>,
    /// Blocks are set by one at a time.
    pub(super) blocks: Mutex<()>,
    /// The mapping is filled by one at a time.
    pub(super) mapping: Mutex<()>,
}

/// One replica.
#[derive(Debug)]
pub(super) struct Replica {
    /// Held by whoever kills or freezes it.
    pub(super) process: Mutex<Service>,
    pub(super) address: SocketAddr,
    pub(super) counters: Counters,
    pub(super) from_clients: Door,
    pub(super) to_postgres: Door,
    pub(super) to_elasticsearch: Door,
}

/// A proxy that one fault at a time may switch.
#[derive(Debug)]
pub(super) struct Door {
    proxy: Proxy,
    used: Mutex<()>,
}

impl Door {
    async fn before(target: &str) -> Self {
        Self {
            proxy: Proxy::start(target).await,
            used: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Switches it to a mode while something goes on; whether a connection met it.
    pub(super) async fn with(&self, mode: Mode, meanwhile: impl Future<Output = ()>) -> bool {
        let _alone = self.used.lock().await;
        let before = self.proxy.struck();
        self.proxy.set(mode);
        meanwhile.await;
        self.proxy.set(Mode::Forward);
        self.proxy.struck() > before
    }
}

impl Arena {
    /// A fresh database and stream, and two replicas that are ready.
    pub(super) async fn open(servers: Arc<Servers>) -> Self {
        let database = Database::create_on(servers.postgres_url()).await;
        let stream = Stream::on(servers.elasticsearch_url());
        let owner = Settings::default().set("database.url", database.url());
        let migrated = run_command(&["migrate"], &owner).await;
        assert!(migrated.status.success(), "migrate: {migrated:?}");
        let role = format!("ingest_{}", random_word());
        sqlx::raw_sql(&format!(
            "create role {role} login; select log_writer.grant_access('{role}', 'ingest')"
        ))
        .execute(database.pool())
        .await
        .expect("cannot make the role of the service");
        let first = Replica::start(&database, &role, &stream).await;
        let second = Replica::start(&database, &role, &stream).await;
        // What PostgreSQL refuses cannot be sent: the service makes it harmless. So the table refuses more.
        sqlx::query(&format!(
            "alter table public.application_logs add constraint refuses_{POISON} check (message not like '{POISON} %')"
        ))
        .execute(database.pool())
        .await
        .expect("cannot add a constraint to application_logs");
        Self {
            replicas: [first, second],
            database,
            stream,
            servers,
            postgres: Mutex::default(),
            elasticsearch: Mutex::default(),
            blocks: Mutex::default(),
            mapping: Mutex::default(),
        }
    }
}

impl Replica {
    /// With the rights of a service, and no others.
    async fn start(database: &Database, role: &str, stream: &Stream) -> Self {
        let to_postgres = Door::before(&database.address()).await;
        let to_elasticsearch = Door::before(&stream.address()).await;
        let url = format!("http://{}", to_elasticsearch.address());
        let mut database_url = reqwest::Url::parse(&database.url_by(to_postgres.address())).expect("a URL");
        database_url.set_username(role).expect("a user name can be set");
        let settings = Settings::new(database_url.as_str(), &url, &stream.tenant);
        let settings = settings.set("database.migrate_on_start", "false");
        let service = Service::start(impatient(settings)).await;
        let address = service.address();
        Self {
            process: Mutex::new(service),
            address,
            counters: Counters::default(),
            from_clients: Door::before(&address.to_string()).await,
            to_postgres,
            to_elasticsearch,
        }
    }
}

/// Short times, so that leases end and limits are met within a run; small groups, so that there are many of them.
fn impatient(settings: Settings) -> Settings {
    [
        ("delivery.lease", "1s"),
        ("delivery.renew_every", "300ms"),
        ("delivery.poll_every", "100ms"),
        ("delivery.retry_max", "400ms"),
        ("delivery.claim_events_max", "300"),
        ("elasticsearch.bulk_documents_max", "60"),
        ("database.batch_rows_max", "500"),
        ("database.connect_timeout", "2s"),
        ("database.transaction_timeout", "3s"),
        ("http.answer_timeout", "2s"),
        ("http.body_bytes_max", "72KiB"),
        ("http.inflight_bytes_max", "320KiB"),
    ]
    .into_iter()
    .fold(settings, |settings, (key, value)| settings.set(key, value))
}
