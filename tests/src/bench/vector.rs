//! Vector's own process: reads the rows as JSON lines and writes them by one of its sinks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

use super::load::Times;
use crate::{
    conditions::{SOON, eventually},
    process::Process,
    stack::Database,
};

/// Vector at hand.
#[derive(Debug)]
pub(super) struct Vector {
    program: PathBuf,
}

impl Vector {
    /// The program, which must start; and what it says of its version.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) async fn at(program: &Path) -> Result<(Self, String)> {
        let output = Command::new(program).arg("--version").output().await;
        let output = output.with_context(|| format!("{} does not start", program.display()))?;
        let program = program.canonicalize()?;
        Ok((
            Self { program },
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        ))
    }

    /// Lets it write these lines by this sink, from the moment its first event is stored until it has ended.
    ///
    /// # Errors
    /// If it ends before all was read, or otherwise than by the end of its input.
    pub(super) async fn write(&self, sink: Value, lines: &[u8], database: &Database) -> Result<Times> {
        let folder = TempDir::new()?;
        let mut process = self.start(sink, folder.path())?;
        let mut input = process.stdin.take().context("it has an input")?;
        let (first, rest) = lines.split_at(lines.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        input.write_all(first).await?;
        eventually("Vector's first event to be stored", SOON, || async {
            (database.number("select count(*) from public.application_logs").await == 1).then_some(())
        })
        .await;
        let vector = Process::of(process.id().context("Vector has ended")?);
        let before = (vector.cpu(), Process::own().cpu_of_ended());
        let start = Instant::now();
        input.write_all(rest).await.context("Vector does not read on")?;
        drop(input);
        let status = process.wait().await?;
        ensure!(status.success(), "Vector ended: {status}");
        Ok(Times {
            took: start.elapsed(),
            each: Vec::new(),
            vector_cpu: Some(Process::own().cpu_of_ended() - before.1 - before.0),
        })
    }

    fn start(&self, sink: Value, folder: &Path) -> Result<Child> {
        let configuration = json!({
            "data_dir": folder,
            "sources": { "lines": { "type": "stdin", "decoding": { "codec": "json" } } },
            "sinks": { "written": sink },
        });
        let path = folder.join("vector.json");
        fs::write(&path, configuration.to_string())?;
        let process = Command::new(&self.program)
            .arg("--quiet")
            .arg("--config")
            .arg(path)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(process)
    }
}

/// The `postgres` sink, with batches of so many events or what it takes by itself.
pub(super) fn postgres_sink(database_url: &str, batch: Option<usize>) -> Value {
    let mut sink = json!({
        "type": "postgres",
        "inputs": ["lines"],
        "endpoint": database_url,
        "table": "public.application_logs",
    });
    if let Some(events) = batch {
        sink["batch"] = json!({ "max_events": events });
    }
    sink
}

/// The `http` sink to the service as `vector/vector.toml` has it, but without its disk buffer, what that needs, and compression.
pub(super) fn http_sink(address: std::net::SocketAddr) -> Result<Value> {
    let mut file: toml::Table = toml::from_str(include_str!("../../../vector/vector.toml"))?;
    let mut sinks = file.remove("sinks").context("there are sinks")?;
    let sink = sinks
        .get_mut("log_writer")
        .context("there is our sink")?
        .as_table_mut()
        .context("a table")?;
    for left_out in ["buffer", "healthcheck", "acknowledgements"] {
        sink.remove(left_out);
    }
    sink.insert("inputs".to_owned(), vec!["lines"].into());
    sink.insert("uri".to_owned(), format!("http://{address}/ingest").into());
    sink.insert("compression".to_owned(), "none".into());
    Ok(serde_json::to_value(sink)?)
}
