//! PostgreSQL by TLS: `sslmode=verify-full` takes the right server and no other, and never falls back to plain text.

use std::process::Output;

use log_writer_tests::{
    client::Receipt,
    conditions::{SOON, eventually},
    conservation::OwnPostgres,
    service::{Service, Settings, run_command},
    stack::Database,
};
use tempfile::TempDir;

use crate::{events::fresh, tls::Authority};

/// A server of its own, as it has to be told other things than the shared one.
struct Server {
    database: Database,
    postgres: OwnPostgres,
    folder: TempDir,
}

impl Server {
    async fn start() -> Self {
        let postgres = OwnPostgres::start("tls").await;
        Self {
            database: Database::create_on(postgres.url()).await,
            postgres,
            folder: TempDir::with_prefix("log-writer-ca-").expect("a folder"),
        }
    }

    /// Writes a file into the server's folder, as the server's user.
    async fn write(&self, name: &str, text: &str) {
        let program = format!("cat > {name} && chmod 600 {name}");
        let statement = format!(
            "copy (select unnest(string_to_array($text${}$text$, E'\\n'))) to program '{program}'",
            text.trim_end()
        );
        self.database.execute(&statement).await;
    }

    async fn set(&self, statement: &str) {
        self.database.execute(statement).await;
        self.database.execute("select pg_reload_conf()").await;
    }

    /// Lets the server prove itself with a certificate for a name.
    async fn certify(&self, authority: &Authority, name: &str) {
        let (certificate, key) = authority.sign_for(name);
        self.write("server.crt", &certificate).await;
        self.write("server.key", &key).await;
        self.set("alter system set ssl = on").await;
        self.until("on").await;
    }

    async fn until(&self, ssl: &str) {
        eventually("the server to have read its settings", SOON, || async {
            (self.database.text("select current_setting('ssl')").await == ssl).then_some(())
        })
        .await;
    }

    /// A URL that asks for a proof by this CA.
    fn url(&self, host: &str, authority: &Authority) -> String {
        let ca = self.folder.path().join("ca.crt");
        std::fs::write(&ca, &authority.certificate).expect("a file");
        let mut url = reqwest::Url::parse(self.database.url()).expect("a URL");
        url.set_host(Some(host)).expect("a host");
        format!("{url}?sslmode=verify-full&sslrootcert={}", ca.display())
    }
}

async fn migrate(url: &str) -> Output {
    run_command(&["migrate"], &Settings::default().set("database.url", url)).await
}

#[tokio::test]
async fn verify_full_takes_the_right_server_and_no_other_and_never_plain_text() {
    let server = Server::start().await;
    let (ours, strangers) = (Authority::new(), Authority::new());
    let refused = async |url: String, code: i32, part: &str| {
        let output = migrate(&url).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{part}: {told}");
        assert!(told.contains(part), "{part}: {told}");
    };

    // A server without TLS gets nothing.
    refused(server.url("localhost", &ours), 1, "TLS").await;
    server.certify(&ours, "localhost").await;
    refused(server.url("localhost", &strangers), 1, "UnknownIssuer").await;
    refused(server.url("127.0.0.1", &ours), 1, "certificate not valid for name").await;
    refused(
        server.url("localhost", &ours).replace("ca.crt", "absent.crt"),
        2,
        "absent.crt",
    )
    .await;
    let tables = "select count(*) from pg_tables where schemaname = 'log_writer'";
    assert_eq!(server.database.number(tables).await, 0, "nobody has come in");

    let settings = Settings::new(&server.url("localhost", &ours), "http://127.0.0.1:1", "default")
        .set("elasticsearch.enabled", "false");
    let mut service = Service::start(settings.clone()).await;
    assert_eq!(service.ingest(&fresh(5)).await, Receipt::all_committed(5));
    let plain = "select count(*) from pg_stat_activity join pg_stat_ssl using (pid)
                 where datname = current_database() and application_name like 'log-writer%' and not ssl";
    let by_tls = plain.replace("not ssl", "ssl");
    assert!(server.database.number(&by_tls).await > 0, "its connections are there");
    assert_eq!(server.database.number(plain).await, 0, "all of them by TLS");

    // The server turns to plain text, as one in the middle would: nothing is sent, and nothing is lost.
    service.kill();
    server.set("alter system set ssl = off").await;
    server.until("off").await;
    let service = Service::start_unready(settings).await;
    eventually("the log to say why", SOON, || async {
        service.log().contains("not ready").then_some(())
    })
    .await;
    let answer = service.send(&log_writer_tests::client::Request::get("/ready")).await;
    assert_eq!(answer.status, 503);
    drop(service);
    assert!(server.postgres.url().contains("127.0.0.1"));
}

#[tokio::test]
async fn a_wrong_password_is_told_without_the_password() {
    let server = Server::start().await;
    server
        .database
        .execute("create role sender login password 'the-right-one'")
        .await;
    server
        .write(
            "pg_hba.conf",
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256",
        )
        .await;
    server.set("select 1").await;
    let mut url = reqwest::Url::parse(server.database.url()).expect("a URL");
    url.set_username("sender").expect("a user");
    url.set_password(Some("the-wrong-one%2F+x")).expect("a password");
    let told = eventually("the server to ask for a password", SOON, || async {
        let output = migrate(url.as_str()).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        told.contains("password authentication failed").then_some(told)
    })
    .await;
    assert!(!told.contains("the-wrong-one"), "{told}");
}
