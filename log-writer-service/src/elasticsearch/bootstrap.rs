//! Brings policy and templates into the cluster, and proves that new indices will get them.
//!
//! Promises: an object of one of our names that does not say it is ours (`_meta.managed_by`) is not touched, nor is
//! anything applied that names it; nothing is written that is there already; running it at the same time on several
//! replicas does the same as running it once, since each object is put whole. Delivery is to wait until the report
//! [is ready](BootstrapReport::is_ready): an index made before would keep a foreign mapping until its next rollover.

use std::fmt;

use elasticsearch::http::Method;
use serde_json::Value;

use super::{
    client::{Client, ClusterInfo, read, segment},
    compare,
    error::{SearchError, SearchErrorKind},
    objects::{MANAGED_BY, Object, ObjectKind, Objects},
    simulate::{self, Simulated},
};
use crate::{config, failpoint::failpoint};

/// What may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootstrapMode {
    /// What is absent or ours.
    Apply,
    /// Nothing.
    Check,
    /// What is absent, ours or foreign under one of our names.
    Force,
}

/// How an object was found, and what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectState {
    /// As it should be.
    Unchanged,
    /// Was absent, is there now.
    Created,
    /// Was ours and different, or was taken over by force.
    Updated,
    /// Of another owner: untouched.
    Foreign,
    /// Not applied, since an object that it names is foreign.
    Waiting,
    /// Absent (checked only).
    Absent,
    /// Ours and different (checked only).
    Differs,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectReport {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name in the cluster.
    pub name: String,
    /// How it was found, and what was done.
    pub state: ObjectState,
}

/// What a bootstrap found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapReport {
    /// The cluster.
    pub cluster: ClusterInfo,
    /// Each object, in the order of applying.
    pub objects: Vec<ObjectReport>,
    /// What a new index would get; `None` while objects are missing.
    pub simulated: Option<Simulated>,
    /// Indices written to now whose mapping is older than the templates': theirs comes with the next rollover.
    pub older_indices: Vec<String>,
}

impl BootstrapReport {
    /// Whether new indices get our policy and mapping, so that documents may be sent.
    pub fn is_ready(&self) -> bool {
        self.simulated.as_ref().is_some_and(Simulated::is_ours)
    }

    /// What was written, one text for each object.
    pub fn changes(&self) -> Vec<String> {
        let changed = |object: &&ObjectReport| matches!(object.state, ObjectState::Created | ObjectState::Updated);
        self.objects
            .iter()
            .filter(changed)
            .map(ObjectReport::to_string)
            .collect()
    }

    /// What an operator has to do, in one line; `None` if nothing.
    pub fn problem(&self) -> Option<String> {
        let problems = self.problems();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// What an operator has to do, one text for each matter; empty if nothing.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.objects.iter().filter_map(ObjectReport::problem).collect();
        if let Some(simulated) = self.simulated.as_ref().filter(|simulated| !simulated.is_ours()) {
            let Simulated {
                target,
                wrong,
                overridden_by,
            } = simulated;
            let mut text = format!("a new `{target}` would not be made from our template");
            if let Some(other) = overridden_by {
                text.push_str(&format!(
                    ": index template `{other}` matches it with a higher priority; give that one a narrower pattern or a lower priority"
                ));
            }
            if !wrong.is_empty() {
                text.push_str(&format!(" ({})", wrong.join("; ")));
            }
            problems.push(text);
        }
        problems
    }
}

impl fmt::Display for BootstrapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "elasticsearch {} ({})", self.cluster.version, self.cluster.name)?;
        for object in &self.objects {
            writeln!(f, "{object}")?;
        }
        for index in &self.older_indices {
            writeln!(f, "index {index}: keeps its older mapping until the next rollover")?;
        }
        Ok(())
    }
}

impl ObjectReport {
    fn problem(&self) -> Option<String> {
        let Self { kind, name, state } = self;
        match state {
            ObjectState::Unchanged | ObjectState::Created | ObjectState::Updated => None,
            ObjectState::Foreign => Some(format!(
                "{kind} `{name}` exists and is not ours (no _meta.managed_by \"{MANAGED_BY}\"): rename it, or let \
                 `bootstrap --force` replace it"
            )),
            ObjectState::Waiting => Some(format!(
                "{kind} `{name}` is not applied while one that it names is not ours"
            )),
            ObjectState::Absent => Some(format!("{kind} `{name}` is absent")),
            ObjectState::Differs => Some(format!(
                "{kind} `{name}` is ours and differs: it was changed, or is of another version"
            )),
        }
    }
}

impl fmt::Display for ObjectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, state } = self;
        write!(f, "{kind} {name}: {state}")
    }
}

impl fmt::Display for ObjectState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "unchanged",
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Foreign => "foreign",
            Self::Waiting => "waiting",
            Self::Absent => "absent",
            Self::Differs => "differs",
        })
    }
}

/// Applies, checks or takes over the objects, in the order policy, component templates, index template.
///
/// # Errors
/// See [`SearchError`]; objects applied before it stay, and the next run goes on from there.
pub async fn bootstrap(
    client: &Client,
    settings: &config::Elasticsearch,
    mode: BootstrapMode,
) -> Result<BootstrapReport, SearchError> {
    let cluster = client.info().await?;
    let wanted = Objects::new(settings, major_minor(&cluster)?)?;
    let mut reports: Vec<ObjectReport> = Vec::new();
    for object in &wanted.all {
        let withheld = |report: &ObjectReport| matches!(report.state, ObjectState::Foreign | ObjectState::Waiting);
        let waits = wanted
            .all
            .iter()
            .zip(&reports)
            .any(|(other, report)| object.needs(other) && withheld(report));
        let state = reconcile(client, object, mode, waits).await?;
        reports.push(ObjectReport {
            kind: object.kind,
            name: object.name.clone(),
            state,
        });
    }
    let in_place = |report: &ObjectReport| {
        matches!(
            report.state,
            ObjectState::Unchanged | ObjectState::Created | ObjectState::Updated
        )
    };
    let (simulated, older_indices) = if reports.iter().all(in_place) {
        let simulated = simulate::simulate(client, settings, &wanted).await?;
        (Some(simulated), simulate::older_indices(client, settings).await?)
    } else {
        (None, Vec::new())
    };
    Ok(BootstrapReport {
        cluster,
        objects: reports,
        simulated,
        older_indices,
    })
}

async fn reconcile(
    client: &Client,
    object: &Object,
    mode: BootstrapMode,
    waits: bool,
) -> Result<ObjectState, SearchError> {
    let found = current(client, object).await?;
    let state = match &found {
        Some(found) if !compare::is_ours(object.kind, found) && mode != BootstrapMode::Force => ObjectState::Foreign,
        Some(found) if compare::is_same(object.kind, &object.body, found) => ObjectState::Unchanged,
        _ if waits => ObjectState::Waiting,
        Some(_) if mode == BootstrapMode::Check => ObjectState::Differs,
        None if mode == BootstrapMode::Check => ObjectState::Absent,
        Some(_) => ObjectState::Updated,
        None => ObjectState::Created,
    };
    if matches!(state, ObjectState::Created | ObjectState::Updated) {
        let path = format!("{}/{}", object.kind.path(), segment(&object.name));
        failpoint!("bootstrap::before_object");
        client.call(Method::Put, &path, Some(&object.body)).await?;
    }
    Ok(state)
}

/// The object as the cluster has it.
async fn current(client: &Client, object: &Object) -> Result<Option<Value>, SearchError> {
    let path = format!("{}/{}", object.kind.path(), segment(&object.name));
    let request = format!("GET /{path}");
    let body = match client.call(Method::Get, &path, None).await {
        Ok(body) => body,
        Err(error) if error.kind() == SearchErrorKind::Missing => return Ok(None),
        Err(error) => return Err(error),
    };
    let answer: Value = read(&request, &body)?;
    compare::unwrap(object.kind, &object.name, &answer)
        .map(Some)
        .ok_or_else(|| SearchError::Unreadable {
            request,
            detail: "the object is not in it".to_owned(),
        })
}

fn major_minor(cluster: &ClusterInfo) -> Result<(u32, u32), SearchError> {
    let mut parts = cluster.version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if major >= 8 => Ok((major, minor)),
        _ => Err(SearchError::Settings(format!(
            "the cluster is version {}; Elasticsearch 8 or newer is needed",
            cluster.version
        ))),
    }
}
