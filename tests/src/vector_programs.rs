//! The VRL programs of `vector/*.toml`, compiled and run on sample events as Vector would.
//!
//! Leaves to others: what comes out is checked by the suite `files`, and posted to a real service by the suite `e2e`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use chrono::{DateTime, Utc};
use vrl::{
    compiler::{Context, Program, TargetValue, TimeZone, state::RuntimeState},
    value::{Secrets, Value},
};

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A configuration of Vector: its file name and its content.
#[derive(Debug, Clone)]
pub struct VectorConfig {
    /// File name in `vector/`.
    pub name: String,
    /// The file as it stands.
    pub text: String,
    /// The file as a table.
    pub table: toml::Table,
}

impl VectorConfig {
    /// The components of one kind (`sources`, `transforms`, `sinks`): name, type, options.
    #[must_use]
    pub fn components(&self, kind: &str) -> Vec<(&str, &str, &toml::Table)> {
        let table = self.table.get(kind).and_then(toml::Value::as_table);
        table
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| {
                let options = value.as_table()?;
                Some((name.as_str(), options.get("type")?.as_str()?, options))
            })
            .collect()
    }

    /// The one VRL program.
    ///
    /// # Errors
    /// When the file has none, or more than one.
    pub fn program(&self) -> Result<&str> {
        let remaps: Vec<_> = self
            .components("transforms")
            .into_iter()
            .filter(|(_, kind, _)| *kind == "remap")
            .collect();
        let [(_, _, options)] = remaps.as_slice() else {
            bail!("{} has {} remap transforms instead of one", self.name, remaps.len());
        };
        let source = options.get("source").and_then(toml::Value::as_str);
        source.with_context(|| format!("{} has a remap transform without `source`", self.name))
    }
}

/// Reads every `vector/*.toml`, by name.
///
/// # Errors
/// When the folder or a file cannot be read, or is not TOML.
pub fn configs() -> Result<Vec<VectorConfig>> {
    let mut configs = BTreeMap::new();
    for entry in fs::read_dir(repository().join("vector"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path)?;
            let table = text.parse().with_context(|| format!("{name} is not TOML"))?;
            configs.insert(name.clone(), VectorConfig { name, text, table });
        }
    }
    ensure!(!configs.is_empty(), "there is no vector/*.toml");
    Ok(configs.into_values().collect())
}

/// Compiles a program with the standard functions.
///
/// # Errors
/// When it does not compile, or compiles with warnings: Vector's own diagnostics.
pub fn compile(source: &str) -> Result<Program> {
    let compiled = vrl::compiler::compile(source, &vrl::stdlib::all())
        .map_err(|diagnostics| anyhow!("{}", vrl::diagnostic::Formatter::new(source, diagnostics)))?;
    let warnings = vrl::diagnostic::Formatter::new(source, compiled.warnings);
    let warnings = warnings.to_string();
    ensure!(warnings.trim().is_empty(), "the program has warnings:\n{warnings}");
    Ok(compiled.program)
}

/// Compiles a program, or takes it from the last time: the files have all the same one, and compiling takes a second.
///
/// # Errors
/// As [`compile`].
pub fn compiled(source: &str) -> Result<Arc<Program>> {
    static COMPILED: Mutex<BTreeMap<String, Arc<Program>>> = Mutex::new(BTreeMap::new());
    let mut programs = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = programs.get(source) {
        return Ok(Arc::clone(program));
    }
    let program = Arc::new(compile(source)?);
    programs.insert(source.to_owned(), Arc::clone(&program));
    Ok(program)
}

/// Runs a program on one event, as the transform `remap` does.
///
/// # Errors
/// When the program fails or aborts, or makes something other than an object of it.
pub fn run(program: &Program, event: serde_json::Value, source_type: &str) -> Result<serde_json::Value> {
    let mut target = TargetValue {
        value: as_made_by(source_type, event),
        metadata: Value::Object(BTreeMap::new()),
        secrets: Secrets::new(),
    };
    let mut state = RuntimeState::default();
    let timezone = TimeZone::parse("UTC").context("no UTC")?;
    let mut context = Context::new(&mut target, &mut state, &timezone);
    program
        .resolve(&mut context)
        .map_err(|error| anyhow!("the program failed: {error}"))?;
    let made = serde_json::to_value(&target.value)?;
    ensure!(made.is_object(), "the program made no object but {made}");
    Ok(made)
}

/// The events of `tests/fixtures/vector-events/<source type>.ndjson`, as that source makes them.
///
/// # Errors
/// When there is no such file: a source without samples is a source without a test.
pub fn samples(source_type: &str) -> Result<Vec<serde_json::Value>> {
    let path = repository()
        .join("tests/fixtures/vector-events")
        .join(format!("{source_type}.ndjson"));
    let text = fs::read_to_string(&path).with_context(|| format!("no sample events of the source {source_type}"))?;
    let events = text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>()?;
    ensure!(!events.is_empty(), "no sample event of the source {source_type}");
    Ok(events)
}

/// An event after the program, beside what it was made from.
#[derive(Debug, Clone)]
pub struct Made {
    /// Type of the source, such as `file`.
    pub source_type: String,
    /// The event as the source made it.
    pub before: serde_json::Value,
    /// The event as it goes to the sink.
    pub after: serde_json::Value,
}

/// Runs the program of one configuration on the samples of all its sources.
///
/// # Errors
/// When the program does not compile or fails on an event.
pub fn run_samples(config: &VectorConfig) -> Result<Vec<Made>> {
    let program = compiled(config.program()?).with_context(|| config.name.clone())?;
    let mut made = Vec::new();
    for (_, source_type, _) in config.components("sources") {
        for before in samples(source_type)? {
            let after = run(&program, before.clone(), source_type)
                .with_context(|| format!("{} on the {source_type} event {before}", config.name))?;
            made.push(Made {
                source_type: source_type.to_owned(),
                before,
                after,
            });
        }
    }
    Ok(made)
}

/// What every configuration in `vector/` would send for the samples of its sources: file name → events.
///
/// # Panics
/// When a file cannot be read or a program does not compile or run: the suites have nothing to post then.
#[must_use]
#[expect(clippy::panic, reason = "the suites that call it fail with the reason")]
pub fn run_programs() -> Vec<(String, Vec<serde_json::Value>)> {
    let run = || -> Result<_> {
        let mut all = Vec::new();
        for config in configs()? {
            let events = run_samples(&config)?.into_iter().map(|made| made.after).collect();
            all.push((config.name, events));
        }
        Ok(all)
    };
    run().unwrap_or_else(|error| panic!("the VRL programs did not run: {error:#}"))
}

/// Vector's sources set `timestamp` as a time; `http_server` leaves it as the client wrote it.
fn as_made_by(source_type: &str, event: serde_json::Value) -> Value {
    let mut value = Value::from(event);
    if source_type != "http_server"
        && let Value::Object(members) = &mut value
        && let Some(timestamp) = members.get_mut("timestamp")
        && let Some(time) = timestamp
            .to_str_lossy()
            .and_then(|text| DateTime::parse_from_rfc3339(&text).ok())
    {
        *timestamp = Value::Timestamp(time.with_timezone(&Utc));
    }
    value
}
