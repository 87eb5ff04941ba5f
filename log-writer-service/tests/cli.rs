//! The binary as a person or a supervisor calls it: exit codes, what goes to which output.
#![expect(clippy::unwrap_used, reason = "these are tests, their small functions too")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Output},
    thread,
};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_log-writer-service"));
    // Nothing of the environment that the tests run in; a file in the usual place is not looked at.
    command
        .args(arguments)
        .env_clear()
        .env("LOG_WRITER_CONFIG", "/dev/null");
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn the_default_file_is_printed_and_can_be_given_back_as_a_file() {
    let printed = run(&["config", "default"]);
    assert_eq!(printed.status.code(), Some(0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log-writer.toml");
    fs::write(&file, &printed.stdout).unwrap();
    let checked = run(&["config", "check", "--config", file.to_str().unwrap()]);
    assert_eq!((checked.status.code(), text(&checked.stderr)), (Some(0), ""));
    // An empty table holds no value that could come from the file.
    let defaults: Vec<_> = text(&checked.stdout)
        .lines()
        .filter(|line| line.ends_with("# default") && !line.contains(" = {}"))
        .collect();
    assert_eq!(defaults, Vec::<&str>::new());
}

#[test]
fn mistakes_of_all_sources_come_at_once_on_standard_error_with_exit_code_2() {
    for arguments in [&["config", "check"][..], &["healthcheck"]] {
        let output = command(arguments)
            .args(["--set", "http.lisen=1", "--listen", "here"])
            .env("LOG_WRITER__DATABASE__COMMITTERS", "0")
            .env("LOG_WRITER__EVENTS__ALIASES__HOST", "host,service")
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(2), ""),
            "{arguments:?}"
        );
        let report = text(&output.stderr);
        for part in [
            "the configuration has 4 mistakes",
            "did you mean `http.listen`?",
            "http.listen = \"here\" (flag --listen)",
            "database.committers = 0 (environment LOG_WRITER__DATABASE__COMMITTERS)",
            "events.aliases.host = [\"host\", \"service\"]",
        ] {
            assert!(report.contains(part), "`{part}` is not in:\n{report}");
        }
    }
}

#[test]
fn a_configuration_is_printed_without_secrets_and_with_sources() {
    let output = command(&["config", "check"])
        .env("DATABASE_URL", "postgres://me:hunter2@db/logs")
        .env("LOG_WRITER__ELASTICSEARCH__API_KEY", "hunter2")
        .env("LOG_WRITER_SERVICE_HOST", "10.0.0.1")
        .env("LOG_WRITER_HTTP_LISTEN", "0.0.0.0:1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let (printed, notes) = (text(&output.stdout), text(&output.stderr));
    assert!(
        !printed.contains("hunter2") && !notes.contains("hunter2"),
        "{printed}{notes}"
    );
    assert!(printed.contains("url = \"postgres://me:***@db/logs\""), "{printed}");
    assert!(printed.contains("# environment DATABASE_URL\n"), "{printed}");
    assert_eq!(
        notes,
        "note: environment LOG_WRITER_HTTP_LISTEN is not read; LOG_WRITER__HTTP__LISTEN is, with two underscores\n"
    );
}

#[test]
fn a_health_check_asks_the_address_that_is_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = thread::spawn(move || {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /health HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    // A service that listens everywhere is asked on loopback.
    let listen = format!("0.0.0.0:{port}");
    assert_eq!(run(&["healthcheck", "--listen", &listen]).status.code(), Some(0));
    let sick = run(&["healthcheck", "--listen", &listen]);
    assert_eq!(sick.status.code(), Some(1));
    assert!(text(&sick.stderr).contains("HTTP/1.1 503"), "{}", text(&sick.stderr));
    answers.join().unwrap();
    let gone = run(&["healthcheck", "--listen", &listen]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        text(&gone.stderr).contains("is the service running?"),
        "{}",
        text(&gone.stderr)
    );
}

#[test]
fn the_version_is_that_of_the_package() {
    let output = run(&["--version"]);
    assert_eq!(
        text(&output.stdout),
        format!("log-writer-service {}\n", env!("CARGO_PKG_VERSION"))
    );
}
