//! Secrets stay where they are configured: a service with one in every place, made to fail in every way, and all that it
//! says searched for them, at the level `trace`.

#![expect(clippy::string_slice, reason = "secrets of these tests are ASCII")]

use std::{fmt::Write as _, fs};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use log_writer_tests::{
    client::Request,
    conditions::{SOON, eventually},
    search::{Search, secured_ca},
    service::{Service, Settings, run_command},
    stack::Database,
};
use rcgen::KeyPair;
use tempfile::TempDir;

use crate::{credentials::new_token, events::fresh};

/// All forms in which a secret could be written somewhere.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let (mut hex, mut percent) = (String::new(), String::new());
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a string takes it");
        write!(percent, "%{byte:02X}").expect("a string takes it");
    }
    let mut forms = vec![secret.to_owned(), secret.escape_debug().to_string(), hex, percent];
    // In base64 with 0, 1 or 2 bytes before it: what does not depend on its neighbours.
    for before in 0..3 {
        let all = [&vec![b'x'; before][..], bytes].concat();
        let (first, end) = ((before * 4).div_ceil(3), all.len() * 8 / 6);
        for text in [STANDARD_NO_PAD.encode(&all), URL_SAFE_NO_PAD.encode(&all)] {
            forms.push(text[first..end].to_owned());
        }
    }
    forms
}

#[derive(Default)]
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    /// A recognisable one, with what has to be encoded in a URL around its core.
    fn make(&mut self, place: &'static str) -> String {
        let word = log_writer_tests::stack::random_word();
        let core = format!("S3cret{word}Of{}", word.to_uppercase());
        self.0.push((place, core.clone()));
        format!("{core}/+:@%")
    }

    fn add(&mut self, place: &'static str, secret: &str) {
        self.0.push((place, secret.to_owned()));
    }

    fn assert_absent(&self, place: &str, text: &str) {
        assert!(!text.is_empty(), "{place}: nothing to search");
        for (name, secret) in &self.0 {
            for form in forms(secret) {
                if let Some(at) = text.find(&form) {
                    let (from, to) = (
                        text.floor_char_boundary(at.saturating_sub(300)),
                        text.ceil_char_boundary(at + 100),
                    );
                    panic!("the secret of {name} is in {place}, as {form}: …{}…", &text[from..to]);
                }
            }
        }
    }
}

fn in_url(secret: &str) -> String {
    let encode = |c: char| match c {
        '/' => "%2F".to_owned(),
        '+' => "%2B".to_owned(),
        ':' => "%3A".to_owned(),
        '@' => "%40".to_owned(),
        '%' => "%25".to_owned(),
        c => c.to_string(),
    };
    secret.chars().map(encode).collect()
}

/// Everything that a running service can be made to say.
async fn all_it_says(service: &Service, reader: &str, database: Option<&Database>) -> String {
    let mut said = String::new();
    for path in [
        "/metrics",
        "/api/v1/status",
        "/ready",
        "/",
        "/api/v1/search",
        "/api/openapi.json",
    ] {
        let request = Request::get(path).header("authorization", &format!("Bearer {reader}"));
        said += &service.send(&request).await.text();
    }
    let arguments = fs::read(format!("/proc/{}/cmdline", service.pid())).expect("a command line");
    said += &String::from_utf8_lossy(&arguments);
    if let Some(database) = database {
        let letters =
            "select coalesce(string_agg(to_jsonb(letters)::text, ' '), '') from log_writer.dead_letters letters";
        said += &database.text(letters).await;
        let running = "select coalesce(string_agg(query || application_name, ' '), '') from pg_stat_activity
                       where datname = current_database() and pid <> pg_backend_pid()";
        said += &database.text(running).await;
    }
    said + &service.log()
}

/// What commands say with the same configuration.
async fn commands_say(settings: &Settings) -> String {
    let mut said = String::new();
    for command in [
        &["config", "check"][..],
        &["bootstrap", "--check"],
        &["dead-letters", "list"],
    ] {
        let output = run_command(command, settings).await;
        said += &String::from_utf8_lossy(&output.stdout);
        said += &String::from_utf8_lossy(&output.stderr);
    }
    said
}

/// Tokens good and bad, and the settings that take them.
async fn with_tokens(settings: Settings, secrets: &mut Secrets, folder: &TempDir) -> (Settings, String, String) {
    let (agent_entry, agent) = new_token(&["--name", "agent", "--scope", "ingest"]).await;
    let (reader_entry, reader) = new_token(&["--name", "reader", "--scope", "read", "--scope", "admin"]).await;
    secrets.add("auth (agent)", &agent);
    secrets.add("auth (reader)", &reader);
    let file = folder.path().join("tokens.toml");
    fs::write(&file, format!("{agent_entry}{reader_entry}")).expect("a file");
    let settings = settings
        .set("auth.enabled", "true")
        .set("auth.tokens_file", file.to_str().expect("text"))
        .set("log.filter", "trace");
    (settings, agent, reader)
}

/// Sends what is stored, what is kept as a dead letter, and credentials that are refused.
async fn provoke(service: &Service, secrets: &mut Secrets, agent: &str) {
    let wrong = secrets.make("a wrong token");
    for credential in [
        format!("Bearer {wrong}"),
        format!("Digest {wrong}"),
        format!("Bearer {agent}"),
    ] {
        for request in [
            Request::json(&fresh(2)),
            Request::json(&fresh(1)).header("content-encoding", "lzw"),
            Request::get(&format!("/api/v1/status?x={}", 1)),
        ] {
            service.send(&request.header("authorization", &credential)).await;
        }
    }
}

#[tokio::test]
async fn a_service_whose_elasticsearch_refuses_it_tells_no_secret() {
    let (mut secrets, folder) = (
        Secrets::default(),
        TempDir::with_prefix("log-writer-").expect("a folder"),
    );
    let database = Database::create().await;
    let with_password = |secret: &str| {
        database
            .url()
            .replace("postgres@", &format!("postgres:{}@", in_url(secret)))
    };
    let url = with_password(&secrets.make("database.url"));
    let reader_url = folder.path().join("reader_url");
    fs::write(&reader_url, with_password(&secrets.make("api.database_url_file"))).expect("a file");
    let cluster = Search::secured().url().replace(
        "https://",
        &format!("https://elastic:{}@", in_url(&secrets.make("elasticsearch.urls"))),
    );
    let settings = Settings::new(&url, &cluster, "default")
        .set("elasticsearch.ca_file", &secured_ca())
        .set(
            "elasticsearch.dataset",
            &format!("t{}", log_writer_tests::stack::random_word()),
        )
        .set("api.database_url_file", reader_url.to_str().expect("text"));
    let (settings, agent, reader) = with_tokens(settings, &mut secrets, &folder).await;
    let service = Service::start(settings.clone()).await;
    provoke(&service, &mut secrets, &agent).await;
    eventually("Elasticsearch to have refused", SOON, || async {
        service.log().contains("401").then_some(())
    })
    .await;
    assert_eq!(database.number("select count(*) from log_writer.dead_letters").await, 1);
    secrets.assert_absent(
        "what the service says",
        &all_it_says(&service, &reader, Some(&database)).await,
    );
    secrets.assert_absent("what commands say", &commands_say(&settings).await);
}

#[tokio::test]
async fn a_service_whose_stores_are_away_tells_no_secret() {
    let (mut secrets, folder) = (
        Secrets::default(),
        TempDir::with_prefix("log-writer-").expect("a folder"),
    );
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("text").to_owned()
    };
    let password = file("password", &secrets.make("database.password_file"));
    // As Kibana shows it: base64 of id and key.
    let key = base64::engine::general_purpose::STANDARD
        .encode(format!("id:{}", secrets.make("the key in elasticsearch.api_key")));
    secrets.add("elasticsearch.api_key", &key);
    let settings = Settings::new(
        &format!(
            "postgres://sender:{}@127.0.0.1:1/logs",
            in_url(&secrets.make("database.url"))
        ),
        "http://127.0.0.1:1",
        "default",
    )
    .set("database.password_file", &password)
    .set("http.answer_timeout", "1s")
    .set("elasticsearch.api_key_file", &file("api_key", &key));
    let (settings, agent, reader) = with_tokens(settings, &mut secrets, &folder).await;
    let service = Service::start_unready(settings.clone()).await;
    provoke(&service, &mut secrets, &agent).await;
    // A second file of tokens, with a secret where its hash belongs.
    let misplaced = secrets.make("a wrong tokens_file");
    file(
        "tokens.toml",
        &format!(
            "[[token]]\nname = \"{misplaced}\"\nblake3 = \"{misplaced}\"\nscopes = [\"{misplaced}\"]\n{misplaced}"
        ),
    );
    service.signal("HUP");
    eventually("the file to be refused", SOON, || async {
        service.log().contains("THE OLD TOKENS STAY IN FORCE").then_some(())
    })
    .await;
    secrets.assert_absent("what the service says", &all_it_says(&service, &reader, None).await);
    secrets.assert_absent("what commands say", &commands_say(&settings).await);
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_told_without_its_secrets() {
    let (mut secrets, folder) = (
        Secrets::default(),
        TempDir::with_prefix("log-writer-").expect("a folder"),
    );
    let mut secret = |place| secrets.make(place);
    let key = KeyPair::generate().expect("a key").serialize_pem();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("text").to_owned()
    };
    let (url, cluster) = (secret("database.url"), secret("elasticsearch.urls"));
    let wrong = [
        Settings::default().set(
            "database.url",
            &format!("postgres://sender:{}@host:99999/x", in_url(&url)),
        ),
        Settings::default().set("database.url", &format!("sender:{url}")),
        Settings::default().set("elasticsearch.urls", &format!("http://sender:{}@:x", in_url(&cluster))),
        Settings::default().set("elasticsearch.urls", &format!("[\"{cluster}")),
        Settings::default()
            .set("elasticsearch.password", &secret("elasticsearch.password"))
            .set("elasticsearch.api_key", &secret("elasticsearch.api_key")),
        Settings::default().set("elasticsearch.api_key", &format!("{} \n", secret("a key of two lines"))),
        Settings::default().set("elasticsearch.pasword", &secret("a key that is unknown")),
        Settings::default()
            .set("database.password", &secret("database.password"))
            .set("http.listen", "nonsense"),
        Settings::default().set(
            "database.url_file",
            &file("url", &format!("nonsense {}", secret("database.url_file"))),
        ),
        Settings::default()
            .set("tls.enabled", "true")
            .set("tls.cert_file", &file("tls.key", &key))
            .set(
                "tls.key_file",
                &file("broken.key", &key.replace("-----END", "-----ENDE")),
            ),
        Settings::default()
            .set("auth.enabled", "true")
            .set("auth.jwt.issuer", "a")
            .set("auth.jwt.audience", "a")
            .set(
                "auth.jwt.jwks_file",
                &file(
                    "jwks.json",
                    &format!(
                        "{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{}\"}}]}}",
                        secret("a key in JWKS")
                    ),
                ),
            ),
    ];
    let body = key.lines().nth(1).expect("a line of the key").to_owned();
    secrets.add("tls.key_file", &body);
    for settings in wrong {
        for command in [&["serve"][..], &["config", "check"]] {
            let output = run_command(command, &settings.clone().set("log.filter", "trace")).await;
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            assert_eq!(output.status.code(), Some(2), "{said}");
            secrets.assert_absent("the report of mistakes", &said);
        }
    }
}
