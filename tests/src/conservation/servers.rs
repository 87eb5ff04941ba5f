//! A PostgreSQL and an Elasticsearch of the runs' own, which may be killed or restarted at will.
//!
//! Started by the scripts that `TEST_TIMESCALEDB_START` and `TEST_ELASTICSEARCH_START` name; stopped and removed when
//! dropped.

use std::{path::Path, process::Command};

use crate::{
    conditions::{SOON, eventually},
    search::Search,
    stack::{random_word, required},
};

/// Both servers.
#[derive(Debug)]
pub struct Servers {
    postgres: Server,
    elasticsearch: Server,
}

/// A script that starts and stops a server, and what names the server.
#[derive(Debug, Clone)]
struct Script {
    path: String,
    named: Vec<String>,
}

#[derive(Debug)]
struct Server {
    script: Script,
    /// Arguments of every start.
    settings: Vec<String>,
    url: String,
}

/// Room for one `_bulk` at work and one that waits: more are answered 429.
const ELASTICSEARCH: [&str; 4] = [
    "--set",
    "thread_pool.write.size=1",
    "--set",
    "thread_pool.write.queue_size=1",
];

impl Servers {
    /// Starts both.
    ///
    /// # Panics
    /// If a variable is missing or a server does not start.
    pub async fn start() -> Self {
        let variable = |name: &str| required(name, "scripts that start servers");
        let name = format!("{}-conservation-{}", variable("TEST_RUN"), random_word());
        let elasticsearch = Script {
            path: variable("TEST_ELASTICSEARCH_START"),
            named: ["--name", &name].map(str::to_owned).to_vec(),
        };
        let settings = ELASTICSEARCH.map(str::to_owned).to_vec();
        let (postgres, elasticsearch) = tokio::join!(
            Server::start(postgres_named("conservation"), Vec::new()),
            Server::start(elasticsearch, settings)
        );
        Self {
            postgres,
            elasticsearch,
        }
    }

    /// Superuser's URL of PostgreSQL.
    #[must_use]
    pub fn postgres_url(&self) -> &str {
        &self.postgres.url
    }

    /// URL of Elasticsearch.
    #[must_use]
    pub fn elasticsearch_url(&self) -> &str {
        &self.elasticsearch.url
    }

    /// Asks Elasticsearch past the service.
    #[must_use]
    pub fn search(&self) -> Search {
        Search::new(&self.elasticsearch.url)
    }

    /// Restarts PostgreSQL: `now` as after a crash, else with a shutdown that closes the connections.
    pub async fn restart_postgres(&self, now: bool) {
        let how: &[&str] = if now { &["--now"] } else { &[] };
        self.postgres.script.run("stop", how).await;
        self.postgres.start_again(&[]).await;
    }

    /// Ends Elasticsearch by SIGKILL.
    pub async fn kill_elasticsearch(&self) {
        self.signal_elasticsearch("-KILL").await;
    }

    /// Ends Elasticsearch by SIGTERM and waits until it has ended. Not by the script's `stop`, which turns to SIGKILL in
    /// silence.
    ///
    /// # Panics
    /// If it takes longer than [`SOON`].
    pub async fn stop_elasticsearch(&self) {
        let process = format!("/proc/{}", self.signal_elasticsearch("-TERM").await);
        eventually("Elasticsearch to end by SIGTERM", SOON, || async {
            (!Path::new(&process).exists()).then_some(())
        })
        .await;
    }

    /// Its process.
    async fn signal_elasticsearch(&self, signal: &str) -> String {
        let pid = field(&self.elasticsearch.script.run("status", &[]).await, "pid");
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "cannot send {signal} to Elasticsearch, process {pid}"
        );
        pid
    }

    /// Starts Elasticsearch again with the data that it has on disk.
    pub async fn start_elasticsearch_again(&self) {
        self.elasticsearch.start_again(&["--keep"]).await;
    }
}

/// A PostgreSQL of one test's own, whose settings it may change.
#[derive(Debug)]
pub struct OwnPostgres(Server);

impl OwnPostgres {
    /// Starts it; `what` is a part of its name.
    ///
    /// # Panics
    /// If a variable is missing or it does not start.
    pub async fn start(what: &str) -> Self {
        Self(Server::start(postgres_named(what), Vec::new()).await)
    }

    /// Superuser's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        let how = ["--now", "--remove"].map(str::to_owned);
        if let Err(problem) = self.0.script.call("stop", &how) {
            assert!(std::thread::panicking(), "{problem}");
        }
    }
}

/// Script and name of a new PostgreSQL.
fn postgres_named(what: &str) -> Script {
    let variable = |name: &str| required(name, "scripts that start servers");
    let name = format!("{}-{what}-{}", variable("TEST_RUN"), random_word());
    Script {
        path: variable("TEST_TIMESCALEDB_START"),
        named: ["--name", &name, "--root", &variable("TEST_POSTGRES_ROOT")]
            .map(str::to_owned)
            .to_vec(),
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for (server, how) in [(&self.postgres, "--now"), (&self.elasticsearch, "--remove")] {
            if let Err(problem) = server.script.call("stop", &[how.to_owned(), "--remove".to_owned()]) {
                assert!(std::thread::panicking(), "{problem}");
            }
        }
    }
}

impl Server {
    async fn start(script: Script, settings: Vec<String>) -> Self {
        let arguments: Vec<&str> = settings.iter().map(String::as_str).collect();
        let told = script.run("start", &arguments).await;
        let url = field(&told, "url");
        Self { script, settings, url }
    }

    async fn start_again(&self, how: &[&str]) {
        let port = reqwest::Url::parse(&self.url).ok().and_then(|url| url.port());
        let port = port.expect("the URL of a server has a port").to_string();
        let settings = self.settings.iter().map(String::as_str);
        let arguments: Vec<&str> = ["--port", &port]
            .into_iter()
            .chain(settings)
            .chain(how.iter().copied())
            .collect();
        self.script.run("start", &arguments).await;
    }
}

impl Script {
    /// Runs it, which must succeed; what it prints.
    async fn run(&self, action: &'static str, arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let script = self.clone();
        tokio::task::spawn_blocking(move || script.call(action, &arguments))
            .await
            .expect("a script is run to its end")
            .unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn call(&self, action: &str, arguments: &[String]) -> Result<String, String> {
        let output = Command::new(&self.path)
            .arg(action)
            .args(&self.named)
            .args(arguments)
            .output()
            .map_err(|error| format!("cannot run {}: {error}", self.path))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{} {action} ended with {}: {said}", self.path, output.status))
        }
    }
}

/// The value of a line `name=value`.
fn field(told: &str, name: &str) -> String {
    told.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {name}= in {told:?}"))
        .to_owned()
}
