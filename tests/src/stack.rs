//! The real servers of a test: a database of its own and, for the copy, a data stream of its own.
//!
//! The servers are given by `TEST_DATABASE_URL` and `TEST_ELASTICSEARCH_URL`; a missing one is a failure, never a skip.
//! What a test makes has a random name and is removed after it, also when it fails; nothing else is touched.
//!
//! Templates and policy have one name in a whole cluster and their pattern names the dataset. So all tests use the
//! default dataset (what the service applies is the same for all of them) and differ in the tenant: stream
//! `logs-app-<tenant>`. A test that changes the templates themselves takes them alone: [`Templates::alone`].

use std::sync::OnceLock;

use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

use crate::search::Search;

/// The dataset of every test: the service's default.
pub const DATASET: &str = "app";

/// A database of its own; dropped with everything in it.
#[derive(Debug)]
pub struct Database {
    name: String,
    admin_url: String,
    url: String,
    pool: PgPool,
}

impl Database {
    /// Creates an empty database on the server of `TEST_DATABASE_URL`.
    ///
    /// # Panics
    /// If the variable is missing or the server does not answer.
    pub async fn create() -> Self {
        Self::create_on(&required("TEST_DATABASE_URL", "a PostgreSQL server with TimescaleDB")).await
    }

    /// Creates an empty database on another server, by its superuser's URL.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn create_on(admin_url: &str) -> Self {
        let name = format!("lwtest_{}", random_word());
        let statement = format!("create database {name}");
        on_server(admin_url, &statement)
            .await
            .unwrap_or_else(|error| panic!("cannot create a database on the server of the tests: {error}"));
        Self::of(admin_url, &name)
    }

    /// Takes over one that is there: dropped just the same.
    ///
    /// # Panics
    /// If the variable is missing.
    #[must_use]
    pub fn adopt(name: &str) -> Self {
        let admin_url = required("TEST_DATABASE_URL", "a PostgreSQL server with TimescaleDB");
        Self::of(&admin_url, name)
    }

    fn of(admin_url: &str, name: &str) -> Self {
        let name = name.to_owned();
        let url = with_database(admin_url, &name);
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_lazy(&url)
            .expect("TEST_DATABASE_URL is no PostgreSQL URL");
        Self {
            name,
            admin_url: admin_url.to_owned(),
            url,
            pool,
        }
    }

    /// URL of this database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port` of the server, for a proxy in front of it.
    #[must_use]
    pub fn address(&self) -> String {
        address_of(&self.url, 5432)
    }

    /// The same URL by way of another address.
    #[must_use]
    pub fn url_by(&self, address: std::net::SocketAddr) -> String {
        let mut url = reqwest::Url::parse(&self.url).expect("not a URL");
        url.set_ip_host(address.ip()).expect("a host cannot be set");
        url.set_port(Some(address.port())).expect("a port cannot be set");
        url.to_string()
    }

    /// Connections of the test's own.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether the server has the Community edition of TimescaleDB.
    pub async fn is_community(&self) -> bool {
        // Its library is loaded where its extension is.
        self.execute("create extension if not exists timescaledb").await;
        self.number("select (current_setting('timescaledb.license', true) = 'timescale')::int::bigint")
            .await
            == 1
    }

    /// Runs a statement.
    pub async fn execute(&self, statement: &str) {
        let done = sqlx::query(statement).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// One text from a query.
    pub async fn text(&self, query: &str) -> String {
        let text = sqlx::query_scalar(query).fetch_one(&self.pool).await;
        text.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// One number from a query.
    pub async fn number(&self, query: &str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        let url = self.admin_url.clone();
        in_a_thread(async move {
            if let Err(error) = on_server(&url, &statement).await {
                panic!("{statement}: {error}");
            }
        });
    }
}

/// The templates of the cluster, shared with the other tests or alone.
#[derive(Debug)]
#[must_use]
pub struct Templates(#[expect(dead_code, reason = "held for its lifetime only")] Guard);

#[derive(Debug)]
enum Guard {
    Shared(#[expect(dead_code, reason = "held for its lifetime only")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held for its lifetime only")] RwLockWriteGuard<'static, ()>),
}

impl Templates {
    /// For a test that is content with what the service applies.
    pub async fn shared() -> Self {
        Self(Guard::Shared(lock().read().await))
    }

    /// For a test that removes or replaces them: no other test of this process has a stream meanwhile.
    pub async fn alone() -> Self {
        Self(Guard::Alone(lock().write().await))
    }
}

fn lock() -> &'static RwLock<()> {
    static LOCK: OnceLock<RwLock<()>> = OnceLock::new();
    LOCK.get_or_init(RwLock::default)
}

/// A tenant of its own, and with it a data stream of its own on the real cluster.
#[derive(Debug)]
pub struct Stream {
    /// The default tenant of the test's services.
    pub tenant: String,
    /// The cluster.
    pub search: Search,
    templates: Option<Templates>,
}

impl Stream {
    /// A random tenant on the cluster of `TEST_ELASTICSEARCH_URL`.
    ///
    /// # Panics
    /// If the variable is missing.
    pub async fn create() -> Self {
        Self::with(Templates::shared().await)
    }

    /// The same for a test that has the templates alone.
    #[must_use]
    pub fn with(templates: Templates) -> Self {
        let url = required("TEST_ELASTICSEARCH_URL", "an Elasticsearch 8 or 9");
        let mut stream = Self::on(&url);
        stream.templates = Some(templates);
        stream
    }

    /// Another tenant on the same cluster, under the same hold of the templates: who holds them twice may wait for itself.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self::on(self.search.url())
    }

    /// A random tenant on a cluster of the test's own.
    #[must_use]
    pub fn on(url: &str) -> Self {
        Self {
            tenant: format!("t{}", random_word()),
            search: Search::new(url),
            templates: None,
        }
    }

    /// Name of the data stream.
    #[must_use]
    pub fn name(&self) -> String {
        format!("logs-{DATASET}-{}", self.tenant)
    }

    /// `host:port` of the cluster, for a proxy in front of it.
    #[must_use]
    pub fn address(&self) -> String {
        address_of(self.search.url(), 9200)
    }

    /// Removes what a service with another `elasticsearch.dataset` made for this tenant: its stream, templates and policy.
    ///
    /// # Panics
    /// If something stays.
    pub async fn remove_dataset(&self, dataset: &str) {
        for path in [
            format!("/_data_stream/logs-{dataset}-{}", self.tenant),
            format!("/_index_template/logs_template_{dataset}"),
            format!("/_component_template/logs_mappings_{dataset}"),
            format!("/_component_template/logs_settings_{dataset}"),
            format!("/_ilm/policy/logs_policy_{dataset}"),
        ] {
            let (status, answer) = self.search.call("DELETE", &path, None).await.expect("it answers");
            assert!(matches!(status, 200 | 404), "{path}: {status} {answer}");
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (name, url) = (self.name(), self.search.url().to_owned());
        in_a_thread(async move {
            let answer = Search::new(&url)
                .call("DELETE", &format!("/_data_stream/{name}"), None)
                .await;
            assert!(
                matches!(answer, Ok((200 | 404, _)) | Err(_)),
                "cannot delete the data stream {name}: {answer:?}"
            );
        });
        self.templates.take();
    }
}

/// URL of the server of `TEST_DATABASE_URL`, for what makes databases of its own.
///
/// # Panics
/// If the variable is missing.
#[must_use]
pub fn database_server() -> String {
    required("TEST_DATABASE_URL", "a PostgreSQL server with TimescaleDB")
}

/// The value of a variable that `make test` sets.
pub(crate) fn required(variable: &str, what: &str) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the suites are configured by these variables alone"
    )]
    let value = std::env::var(variable);
    value.unwrap_or_else(|_| {
        panic!("{variable} is not set: this suite needs {what}. `make test` starts the servers and sets it.")
    })
}

/// Twelve random hex digits.
#[must_use]
pub fn random_word() -> String {
    let mut word = Uuid::new_v4().simple().to_string();
    word.truncate(12);
    word
}

/// Runs a statement on the server of `TEST_DATABASE_URL`, as its superuser.
///
/// # Panics
/// If it fails.
pub async fn run_as_admin(statement: &str) {
    let url = required("TEST_DATABASE_URL", "a PostgreSQL server with TimescaleDB");
    on_server(&url, statement)
        .await
        .unwrap_or_else(|error| panic!("{statement} on the server of TEST_DATABASE_URL: {error}"));
}

async fn on_server(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).connect(url).await?;
    sqlx::query(statement).execute(&pool).await?;
    pool.close().await;
    Ok(())
}

fn with_database(url: &str, name: &str) -> String {
    let mut url = reqwest::Url::parse(url).expect("TEST_DATABASE_URL is no URL");
    url.set_path(name);
    url.to_string()
}

fn address_of(url: &str, default_port: u16) -> String {
    let url = reqwest::Url::parse(url).expect("not a URL");
    format!(
        "{}:{}",
        url.host_str().expect("a URL without a host"),
        url.port_or_known_default().unwrap_or(default_port)
    )
}

/// Runs clean-up to its end from `drop`, inside a runtime or not; a failure there only prints if the test fails already.
///
/// # Panics
/// If it fails and nothing else has.
pub fn in_a_thread(work: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("no runtime for the clean-up")
            .block_on(work);
    });
    let clean = thread.join().is_ok();
    assert!(clean || std::thread::panicking(), "the clean-up failed");
}
