//! The real binary as a child process: started on a free loopback port, asked over HTTP, killed and started again.
//!
//! Its log goes to a file; the end of it is printed when the test fails.

mod asking;
mod failpoints;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;

pub use self::failpoints::assert_died_at;
use crate::{
    client::{Request, send},
    conditions::{SOON, eventually},
    process::Process,
};

/// The line in the log before each start.
const STARTED: &str = "--- started ---";

/// What a service is started with; later settings go over earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    environment: BTreeMap<String, String>,
    program: Option<PathBuf>,
}

impl Settings {
    /// Both stores, and times of delivery that are short enough for a test.
    #[must_use]
    pub fn new(database_url: &str, elasticsearch_url: &str, tenant: &str) -> Self {
        Self::default()
            .set("database.url", database_url)
            .set("elasticsearch.urls", &format!("[\"{elasticsearch_url}\"]"))
            .set("events.default_tenant", tenant)
            .set("delivery.lease", "3s")
            .set("delivery.renew_every", "1s")
            .set("delivery.poll_every", "200ms")
            .set("delivery.retry_min", "50ms")
            .set("delivery.retry_max", "500ms")
            .set("log.format", "text")
            .set("log.filter", "info,log_writer_service=debug")
    }

    /// Sets `section.key`, as `LOG_WRITER__SECTION__KEY`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("LOG_WRITER__{}", key.replace('.', "__").to_uppercase());
        self.environment.insert(name, value.to_owned());
        self
    }

    /// Sets a variable that is none of the configuration.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs another program than [`binary`]: another version of the service, say.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Runs the build with failpoints and arms these: `commit::before_commit=return(abort)`.
    ///
    /// # Panics
    /// If `LOG_WRITER_FAILPOINTS_BINARY` does not name that build.
    #[must_use]
    pub fn failpoints(mut self, armed: &str) -> Self {
        let binary = std::env::var_os("LOG_WRITER_FAILPOINTS_BINARY")
            .expect("LOG_WRITER_FAILPOINTS_BINARY must name the service as built with its feature `failpoints`");
        self.environment.insert("FAILPOINTS".to_owned(), armed.to_owned());
        self.program(Path::new(&binary))
    }

    /// What is to be run, with this environment and no other.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.program.as_deref().unwrap_or_else(|| binary()));
        command.env_clear().envs(&self.environment);
        command
    }

    /// Accepts events of any time, as recordings keep the time at which they were made.
    #[must_use]
    pub fn any_time(self) -> Self {
        self.set("events.accept_past", "36500d")
            .set("events.accept_future", "36500d")
            .set("retention.enabled", "false")
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    settings: Settings,
    child: Option<Child>,
    address: SocketAddr,
    folder: TempDir,
}

impl Service {
    /// Starts it and waits until it is ready to commit.
    pub async fn start(settings: Settings) -> Self {
        let service = Self::start_unready(settings).await;
        service.until_ready().await;
        service
    }

    /// Starts it and waits until it is alive; its stores may be away.
    pub async fn start_unready(settings: Settings) -> Self {
        let mut service = Self::start_unasked(settings);
        service.until_alive().await;
        service
    }

    /// Starts it and asks it nothing, as one that takes TLS would not understand.
    #[must_use]
    pub fn start_unasked(settings: Settings) -> Self {
        let mut service = Self {
            settings,
            child: None,
            address: free_address(),
            folder: TempDir::with_prefix("log-writer-test-").expect("no folder for the log"),
        };
        service.spawn();
        service
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the service does not run").id()
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("cannot kill the service");
            child.wait().expect("cannot wait for the service");
        }
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Stops (`STOP`) or continues (`CONT`) it, or any other signal by name.
    pub fn signal(&self, signal: &str) {
        Process::of(self.pid()).signal(signal);
    }

    /// Waits until the process has ended.
    pub async fn until_ended(&mut self, deadline: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("the service does not run");
        let status = eventually("the service to end", deadline, || {
            let ended = child.try_wait().expect("cannot ask for the process");
            std::future::ready(ended)
        })
        .await;
        self.child = None;
        status
    }

    /// Starts it again as [`Service::restart`] does, with other settings.
    pub async fn restart_with(&mut self, settings: Settings) {
        self.settings = settings;
        self.restart().await;
    }

    /// Starts it again on the same port with the same settings and waits for nothing: its stores may be away.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "end the service before it is started again");
        self.spawn();
    }

    /// Starts it again on the same port with the same settings and waits until it is ready.
    pub async fn restart(&mut self) {
        self.start_again();
        self.until_alive().await;
        self.until_ready().await;
    }

    /// Bytes of memory now and at most so far (`VmRSS`, `VmHWM`).
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("no /proc");
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.trim_start_matches(':').split_whitespace().next())
                .and_then(|kib| kib.parse::<u64>().ok())
                .expect("no such line in /proc")
                * 1024
        };
        (field("VmRSS"), field("VmHWM"))
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for `/ready` to answer 200.
    pub async fn until_ready(&self) {
        eventually("the service to be ready", SOON, || async {
            let answer = send(self.address, &Request::get("/ready")).await;
            matches!(answer, Ok(answer) if answer.status == 200).then_some(())
        })
        .await;
    }

    async fn until_alive(&mut self) {
        let address = self.address;
        let child = self.child.as_mut().expect("the service does not run");
        let log = self.folder.path().join("log");
        eventually("the service to be alive", SOON, || {
            if let Some(status) = child.try_wait().expect("cannot ask for the process") {
                panic!("the service ended at its start ({status}):\n{}", end_of(&log));
            }
            async move {
                let answer = send(address, &Request::get("/health")).await;
                matches!(answer, Ok(answer) if answer.status == 200).then_some(())
            }
        })
        .await;
    }

    fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("no file for the log");
        writeln!(&log, "{STARTED}").expect("cannot write to the log");
        let child = self
            .settings
            .command()
            .env("LOG_WRITER__HTTP__LISTEN", self.address.to_string())
            .env("RUST_BACKTRACE", "1")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("no second handle of the log"))
            .stderr(log)
            .spawn()
            .expect("cannot start the service");
        self.child = Some(child);
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "shown with the failed test")]
            {
                eprintln!("--- log of the service ---\n{}", end_of(&self.log_file()));
            }
        }
    }
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(120)..].join("\n")
}

/// A free address below the range from which the system takes ports for outgoing connections.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + u16::try_from(std::process::id() % 100).expect("below 100") * 100;
    for _ in 0..1_000 {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between {start} and {}", start + 999);
}

/// Runs a command of the binary to its end.
pub async fn run_command(arguments: &[&str], settings: &Settings) -> Output {
    let folder = TempDir::with_prefix("log-writer-test-").expect("no folder to run in");
    let file = |name: &str| folder.path().join(name);
    let create = |name: &str| File::create(file(name)).expect("no file for the output");
    let mut child = settings
        .command()
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(create("stdout"))
        .stderr(create("stderr"))
        .spawn()
        .expect("cannot run the binary");
    let status = eventually(&format!("{arguments:?} to end"), SOON, || {
        std::future::ready(child.try_wait().expect("cannot ask for the process"))
    })
    .await;
    let read = |name: &str| std::fs::read(file(name)).expect("no output");
    Output {
        status,
        stdout: read("stdout"),
        stderr: read("stderr"),
    }
}

/// The binary beside this test: `LOG_WRITER_TEST_BINARY`, else built now with the profile of the test.
///
/// # Panics
/// If it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("LOG_WRITER_TEST_BINARY") {
            return PathBuf::from(given);
        }
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test
            .ancestors()
            .find(|folder| folder.ends_with("debug") || folder.ends_with("release"))
            .expect("the test lies in no target folder");
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--package", "log-writer-service", "--target-dir"])
            .arg(profile.parent().expect("a profile lies in a folder"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().expect("cannot run cargo").success(),
            "the service cannot be built"
        );
        profile.join("log-writer-service")
    })
}
