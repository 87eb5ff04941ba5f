//! TLS: nobody gets in without it, certificates of clients, new ones on SIGHUP, and connections that stay bounded.

use std::{fs, path::Path};

use log_writer_tests::{
    client::{Request, send},
    conditions::{SOON, eventually},
    service::{Service, Settings, run_command},
    stack::{Database, random_word},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use reqwest::{Certificate, Client, ClientBuilder, Identity, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{credentials::new_token, events::fresh};

/// A CA that signs certificates for this address.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("authority {}", random_word());
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).expect("a certificate").pem();
        Self {
            certificate,
            issuer: Issuer::new(parameters, key),
        }
    }

    /// Certificate and key for this address.
    fn sign(&self) -> (String, String) {
        self.sign_for("127.0.0.1")
    }

    /// Certificate and key for a host, an address or a URI.
    pub(crate) fn sign_for(&self, name: &str) -> (String, String) {
        self.sign_until(name, 4096)
    }

    /// The same up to the end of this year.
    fn sign_until(&self, name: &str, year: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names = if name.contains("://") {
            vec![]
        } else {
            vec![name.to_owned()]
        };
        let mut parameters = CertificateParams::new(names).expect("parameters");
        if name.contains("://") {
            let uri = SanType::URI(name.to_owned().try_into().expect("a URI"));
            parameters.subject_alt_names.push(uri);
        }
        parameters.not_after = rcgen::date_time_ymd(year, 12, 31);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a certificate of its own for the service.
    fn certify(&self, folder: &Path) {
        self.certify_until(folder, 4096);
    }

    fn certify_until(&self, folder: &Path, year: i32) {
        let (certificate, key) = self.sign_until("127.0.0.1", year);
        fs::write(folder.join("tls.crt"), certificate).expect("a file");
        fs::write(folder.join("tls.key"), key).expect("a file");
    }

    /// A client that trusts this CA alone, on a new connection for each request.
    fn client(&self, identity: Option<(String, String)>) -> Client {
        self.client_with(identity, |builder| builder)
    }

    fn client_with(
        &self,
        identity: Option<(String, String)>,
        set: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Client {
        let trusted = Certificate::from_pem(self.certificate.as_bytes()).expect("a certificate");
        let mut builder = Client::builder()
            .use_rustls_tls()
            .tls_built_in_root_certs(false)
            .add_root_certificate(trusted)
            .pool_max_idle_per_host(0)
            .no_proxy();
        if let Some((certificate, key)) = identity {
            builder = builder.identity(Identity::from_pem(format!("{certificate}{key}").as_bytes()).expect("a pair"));
        }
        set(builder).build().expect("a client")
    }
}

struct Secured {
    service: Service,
    database: Database,
    folder: TempDir,
    authority: Authority,
}

impl Secured {
    async fn start(set: impl FnOnce(Settings, &Path) -> Settings) -> Self {
        let folder = TempDir::with_prefix("log-writer-tls-").expect("a folder");
        let authority = Authority::new();
        authority.certify(folder.path());
        let file = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
        let database = Database::create().await;
        let settings = Settings::new(database.url(), "http://127.0.0.1:1", "default")
            .set("elasticsearch.enabled", "false")
            .set("tls.enabled", "true")
            .set("tls.cert_file", &file("tls.crt"))
            .set("tls.key_file", &file("tls.key"));
        let secured = Self {
            service: Service::start_unasked(set(settings, folder.path())),
            database,
            folder,
            authority,
        };
        secured.until_ready(&secured.authority).await;
        secured
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.service.address())
    }

    async fn until_ready(&self, trusted: &Authority) {
        self.until_ready_for(&trusted.client(None)).await;
    }

    async fn until_ready_for(&self, client: &Client) {
        let url = self.url("/ready");
        eventually("the service to be ready by TLS", SOON, || async {
            let answer = client.get(&url).send().await;
            matches!(answer, Ok(answer) if answer.status() == StatusCode::OK).then_some(())
        })
        .await;
    }

    async fn post(&self, client: &Client) -> (u16, Value) {
        let request = client
            .post(self.url("/ingest"))
            .header("content-type", "application/json");
        let answer = request.body(fresh(2).to_string()).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).expect("JSON"))
    }
}

#[tokio::test]
async fn nobody_gets_in_without_tls_and_the_health_check_works_with_it() {
    let secured = Secured::start(|settings, _| settings).await;
    let client = secured.authority.client(None);
    assert_eq!(secured.post(&client).await.1["committed"], 2);
    let plain = send(secured.service.address(), &Request::get("/health")).await;
    assert!(plain.is_err(), "{plain:?}");
    let stranger = Authority::new().client(None).get(secured.url("/health")).send().await;
    stranger.expect_err("the certificate is of another CA");
    let settings = Settings::default()
        .set("http.listen", &secured.service.address().to_string())
        .set("tls.enabled", "true")
        .set("tls.cert_file", "/nonexistent")
        .set("tls.key_file", "/nonexistent");
    let output = run_command(&["healthcheck"], &settings).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        secured
            .database
            .number("select count(*) from public.application_logs")
            .await,
        2
    );
}

#[tokio::test]
async fn where_clients_need_a_certificate_only_health_and_readiness_go_without() {
    let clients = Authority::new();
    let secured = Secured::start(|settings, folder| {
        let file = folder.join("clients.crt");
        fs::write(&file, &clients.certificate).expect("a file");
        settings.set("tls.client_ca_file", file.to_str().expect("text"))
    })
    .await;
    let without = secured.authority.client(None);
    let (status, told) = secured.post(&without).await;
    assert_eq!((status, &told["error"]), (401, &Value::from("unauthorized")));
    for (path, status) in [
        ("/health", 200),
        ("/ready", 200),
        ("/", 200),
        ("/metrics", 401),
        ("/api/v1/status", 401),
    ] {
        let answer = without.get(secured.url(path)).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
    let good = secured.authority.client(Some(clients.sign()));
    assert_eq!(secured.post(&good).await.1["committed"], 2);
    assert_eq!(
        good.get(secured.url("/metrics"))
            .send()
            .await
            .expect("an answer")
            .status(),
        200
    );
    let wrong = secured.authority.client(Some(Authority::new().sign()));
    wrong
        .get(secured.url("/health"))
        .send()
        .await
        .expect_err("a certificate of another CA");
    assert_eq!(
        secured
            .database
            .number("select count(*) from public.application_logs")
            .await,
        2
    );
}

#[tokio::test]
async fn a_certificate_says_who_its_sender_is_and_a_token_beside_it_decides() {
    let clients = Authority::new();
    let (entry, secret) = new_token(&["--name", "agent", "--scope", "ingest", "--tenant", "by-token"]).await;
    let holder = |name: &str, subject: &str, tenant: &str| {
        format!("[[certificate]]\nname = \"{name}\"\n{subject}\nscopes = [\"ingest\"]\ntenant = \"{tenant}\"\n")
    };
    let web = holder("web-1", "dns = \"web-1.example.org\"", "by-dns");
    let spiffe = holder("spiffe", "uri = \"spiffe://example.org/agent\"", "by-uri");
    let secured = Secured::start(|settings, folder| {
        let file = |name: &str, text: &str| {
            fs::write(folder.join(name), text).expect("a file");
            folder.join(name).to_str().expect("text").to_owned()
        };
        settings
            .set("tls.client_ca_file", &file("clients.crt", &clients.certificate))
            .set("auth.enabled", "true")
            .set(
                "auth.tokens_file",
                &file("tokens.toml", &format!("{entry}{web}{spiffe}")),
            )
    })
    .await;
    let client = |name: &str| secured.authority.client(Some(clients.sign_for(name)));
    let post = async |client: &Client, token: Option<&str>| {
        let request = client
            .post(secured.url("/ingest"))
            .header("content-type", "application/json");
        let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
        let answer = request.body(fresh(1).to_string()).send().await.expect("an answer");
        answer.status().as_u16()
    };
    let (dns, uri) = (client("web-1.example.org"), client("spiffe://example.org/agent"));
    assert_eq!(post(&dns, None).await, 200);
    assert_eq!(post(&uri, None).await, 200);
    assert_eq!(post(&dns, Some(&secret)).await, 200, "the token decides");
    assert_eq!(
        post(&dns, Some("another-secret-of-some-length")).await,
        401,
        "its certificate does not help it"
    );
    assert_eq!(
        post(&client("stranger.example.org"), None).await,
        401,
        "a name of nobody"
    );
    assert_eq!(post(&client("stranger.example.org"), Some(&secret)).await, 200);
    assert_eq!(
        post(&secured.authority.client(None), Some(&secret)).await,
        401,
        "no certificate"
    );
    let status = dns
        .get(secured.url("/api/v1/status"))
        .send()
        .await
        .expect("an answer")
        .status();
    assert_eq!(status.as_u16(), 403, "its scope is another");
    for (tenant, events) in [("by-dns", 1), ("by-uri", 1), ("by-token", 2)] {
        let query = format!("select count(*) from public.application_logs where tenant = '{tenant}'");
        assert_eq!(secured.database.number(&query).await, events, "{tenant}");
    }
    // A reload counts for connections that stand.
    fs::write(secured.folder.path().join("tokens.toml"), format!("{entry}{spiffe}")).expect("a file");
    secured.service.signal("HUP");
    eventually("the tokens to be in force", SOON, || async {
        secured.service.log().contains("are in force").then_some(())
    })
    .await;
    assert_eq!(post(&dns, None).await, 401);
    assert_eq!(post(&uri, None).await, 200);
}

#[tokio::test]
async fn the_certificate_is_replaced_on_sighup_and_a_bad_one_keeps_the_old() {
    let secured = Secured::start(|settings, _| settings).await;
    let said = |text: &'static str| {
        let service = &secured.service;
        eventually(
            text,
            SOON,
            move || async move { service.log().contains(text).then_some(()) },
        )
    };
    fs::write(secured.folder.path().join("tls.key"), Authority::new().sign().1).expect("a file");
    secured.service.signal("HUP");
    said("THE OLD CERTIFICATE STAYS IN FORCE").await;
    secured.until_ready(&secured.authority).await;
    let next = Authority::new();
    next.certify(secured.folder.path());
    secured.service.signal("HUP");
    said("the certificate was read again").await;
    secured.until_ready(&next).await;
    let old = secured.authority.client(None).get(secured.url("/health")).send().await;
    old.expect_err("the old CA did not sign the new certificate");
}

#[tokio::test]
async fn an_expired_certificate_is_not_taken_on_sighup_and_told_at_the_start() {
    let mut secured = Secured::start(|settings, _| settings).await;
    let said = async |secured: &Secured, text: &'static str| {
        let service = &secured.service;
        eventually(text, SOON, || async { service.log().contains(text).then_some(()) }).await;
    };
    secured.authority.certify_until(secured.folder.path(), 2020);
    secured.service.signal("HUP");
    said(&secured, "THE OLD CERTIFICATE STAYS IN FORCE").await;
    said(&secured, "expired at 2020-12-31 00:00:00 UTC").await;
    secured.until_ready(&secured.authority).await;
    secured.service.kill();
    secured.service.start_again();
    // There is no other one at the start: better to serve those who do not check than nobody.
    let careless = secured
        .authority
        .client_with(None, |builder| builder.danger_accept_invalid_certs(true));
    secured.until_ready_for(&careless).await;
    said(&secured, "expired at 2020-12-31 00:00:00 UTC: put a new one there").await;
    let checking = secured.authority.client(None).get(secured.url("/ready")).send().await;
    checking.expect_err("it has expired");
    let metrics = async || {
        let answer = careless.get(secured.url("/metrics")).send().await.expect("an answer");
        answer.text().await.expect("text")
    };
    let ends =
        |year: &str| format!("log_writer_tls_certificate_expiry_timestamp_seconds{{file=\"tls.cert_file\"}} {year}\n");
    assert!(metrics().await.contains(&ends("1609372800")), "{}", metrics().await);
    secured.authority.certify_until(secured.folder.path(), 2100);
    secured.service.signal("HUP");
    said(&secured, "the certificate was read again").await;
    secured.until_ready(&secured.authority).await;
    assert!(metrics().await.contains(&ends("4133894400")), "{}", metrics().await);
}

#[tokio::test]
async fn connections_are_bounded_before_the_handshake() {
    let secured = Secured::start(|settings, _| settings.set("http.connections_max", "1")).await;
    let client = secured.authority.client(None);
    // No connection of its own is kept, which would hold the one place.
    let health = || client.get(secured.url("/health")).header("connection", "close").send();
    // Of two that come at once either may be first, and the other one is closed.
    let silent = eventually("one too many to be closed", SOON, || async {
        let silent = TcpStream::connect(secured.service.address()).await.expect("it listens");
        health().await.is_err().then_some(silent)
    })
    .await;
    drop(silent);
    eventually("the next one to be served", SOON, || async {
        health().await.is_ok_and(|answer| answer.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_mistakes_of_the_start() {
    let folder = TempDir::with_prefix("log-writer-tls-").expect("a folder");
    let (one, other) = (Authority::new(), Authority::new());
    one.certify(folder.path());
    fs::write(folder.path().join("other.key"), other.sign().1).expect("a file");
    fs::write(folder.path().join("empty"), "").expect("a file");
    let file = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    for (certificate, key, clients, part) in [
        ("absent", "tls.key", None, "tls.cert_file"),
        ("empty", "tls.key", None, "no certificate in PEM"),
        ("tls.crt", "empty", None, "no private key in PEM"),
        ("tls.crt", "tls.crt", None, "tls.key_file"),
        ("tls.crt", "other.key", None, "cannot be used"),
        ("tls.crt", "tls.key", Some("empty"), "tls.client_ca_file"),
    ] {
        let mut settings = Settings::default()
            .set("tls.enabled", "true")
            .set("tls.cert_file", &file(certificate))
            .set("tls.key_file", &file(key));
        if let Some(clients) = clients {
            settings = settings.set("tls.client_ca_file", &file(clients));
        }
        let output = run_command(&["serve"], &settings).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(part) && !told.contains("BEGIN"), "{part}: {told}");
    }
}
