//! Vector's own process: reads JSON lines and writes them by one of its sinks.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use super::load::Times;
use crate::{
    conditions::{SOON, eventually},
    process::Process,
    stack::Database,
};

/// How long it may take for the events of one leg: its `http` sink sends again without end.
const WRITTEN_WITHIN: Duration = Duration::from_secs(600);

/// A Vector at hand.
#[derive(Debug)]
pub(super) struct Vector {
    program: PathBuf,
    /// What its `postgres` sink reads: rows, one a line.
    pub(super) rows: Bytes,
    /// What its `http` sink reads: events as the service is sent them, one a line.
    pub(super) events: Bytes,
}

/// A Vector that has written its first line.
#[derive(Debug)]
pub(super) struct Running {
    process: Child,
    input: ChildStdin,
    rest: Bytes,
    /// Its processor time so far.
    spent: Duration,
    _folder: TempDir,
}

impl Vector {
    /// This program, which reads what is in these arrays; and what it says of its version.
    ///
    /// # Errors
    /// If it does not start, or an array is none.
    pub(super) async fn at<'a>(
        program: &Path,
        rows: impl Iterator<Item = &'a [u8]>,
        events: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(Self, String)> {
        let output = Command::new(program).arg("--version").output().await;
        let output = output.with_context(|| format!("{} does not start", program.display()))?;
        ensure!(
            output.status.success(),
            "{} --version: {}",
            program.display(),
            output.status
        );
        let vector = Self {
            program: program.to_owned(),
            rows: lines(rows)?,
            events: lines(events)?,
        };
        Ok((vector, String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    }

    /// Starts it with this sink, and waits until its first line is stored.
    ///
    /// # Errors
    /// If it ends before.
    ///
    /// # Panics
    /// If nothing is stored soon.
    pub(super) async fn start(&self, sink: Value, lines: &Bytes, database: &Database) -> Result<Running> {
        let folder = TempDir::new()?;
        let configuration = json!({
            "data_dir": folder.path(),
            "sources": { "lines": { "type": "stdin", "decoding": { "codec": "json" } } },
            "sinks": { "written": sink },
        });
        let path = folder.path().join("vector.json");
        fs::write(&path, configuration.to_string())?;
        let mut process = Command::new(&self.program)
            .arg("--quiet")
            .arg("--config")
            .arg(path)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = process.stdin.take().context("it has an input")?;
        let mut rest = lines.clone();
        let first = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .context("there is no line")?;
        input.write_all(&rest.split_to(first + 1)).await?;
        let vector = Process::of(process.id().context("it has ended")?);
        let stored = eventually("Vector's first event to be stored", SOON, || async {
            (database.number("select count(*) from public.application_logs").await == 1).then_some(())
        });
        tokio::select! {
            () = stored => {}
            status = process.wait() => bail!("Vector ended: {}", status?),
        }
        Ok(Running {
            process,
            input,
            rest,
            spent: vector.cpu(),
            _folder: folder,
        })
    }
}

impl Running {
    /// Lets it write the other lines and end.
    ///
    /// # Errors
    /// If it ends before all was read, or otherwise than by the end of its input, or not at all.
    pub(super) async fn write(mut self) -> Result<Times> {
        let before = Process::own().cpu_of_ended();
        let start = Instant::now();
        let written = timeout(WRITTEN_WITHIN, async {
            self.input
                .write_all(&self.rest)
                .await
                .context("Vector does not read on")?;
            drop(self.input);
            anyhow::Ok(self.process.wait().await?)
        });
        let status = written.await.context("Vector does not end")??;
        ensure!(status.success(), "Vector ended: {status}");
        Ok(Times {
            took: start.elapsed(),
            each: Vec::new(),
            vector_cpu: Some(Process::own().cpu_of_ended() - before - self.spent),
        })
    }
}

/// What is in JSON arrays, one element a line.
fn lines<'a>(arrays: impl Iterator<Item = &'a [u8]>) -> Result<Bytes> {
    let mut lines = Vec::new();
    for array in arrays {
        for element in serde_json::from_slice::<Vec<&RawValue>>(array)? {
            lines.extend_from_slice(element.get().as_bytes());
            lines.push(b'\n');
        }
    }
    Ok(lines.into())
}

/// The `postgres` sink, with batches of so many events or those that it makes by default.
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

/// The `http` sink of `vector/vector.toml` to this service: its batches, requests and retries. Not its disk buffer and
/// compression, nor what a `stdin` source can't do (acknowledgements) or `start` does itself (health check).
///
/// # Errors
/// If the file has no such sink.
pub(super) fn http_sink(address: SocketAddr) -> Result<Value> {
    let mut file: toml::Table = toml::from_str(include_str!("../../../vector/vector.toml"))?;
    let mut sinks = file.remove("sinks").context("there are sinks")?;
    let sink = sinks.get_mut("log_writer").and_then(toml::Value::as_table_mut);
    let sink = sink.context("there is our sink")?;
    for left_out in ["buffer", "healthcheck", "acknowledgements"] {
        sink.remove(left_out);
    }
    sink.insert("inputs".to_owned(), vec!["lines"].into());
    sink.insert("uri".to_owned(), format!("http://{address}/ingest").into());
    sink.insert("compression".to_owned(), "none".into());
    Ok(serde_json::to_value(sink)?)
}
