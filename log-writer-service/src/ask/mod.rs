//! Questions about the events: answered by PostgreSQL, text found by Elasticsearch while that is up to date.
//!
//! An answer says which store found it and how old it may be. Rows are always those of PostgreSQL; Elasticsearch only
//! names them. A caller whose credential has a tenant sees that tenant alone. `http` and MCP are its faces.

mod catalogue;
mod openapi;
mod search;
mod tools;

use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};
use sqlx::PgPool;

pub use self::{
    catalogue::{CATALOGUE, Entry, Kind, Parameter, TENANT},
    openapi::document,
    tools::{AskingOf, CallExtensions, OverHttp, Tools},
};
use crate::{
    elasticsearch::{Client, Targets},
    timescale::{
        ActionOutcome, Actor, Question, Questions, Rows, StoreError, StoreErrorKind, annotate, end_with, record,
    },
};

/// How much of a statement the audit trail keeps.
const AUDITED_BYTES_MAX: usize = 4_096;

/// Whose events an answer may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Those of one tenant: what a credential allows.
    Tenant(Arc<str>),
    /// All: nobody is asked for a credential, or it says so.
    All,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Whose events it sees.
    pub sight: Sight,
    /// Whether it may add analyses to them.
    pub may_annotate: bool,
    /// As the audit trail names it.
    pub actor: Actor,
}

/// An answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// What found the rows: `postgresql` or `elasticsearch`.
    pub store: &'static str,
    /// Events younger than this may be missing; 0 where PostgreSQL found them.
    pub behind_seconds: f64,
    /// Whether there were more rows than the limits allow.
    pub truncated: bool,
    /// What there is to know about this answer: rows that are missing, why Elasticsearch was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// `before` of the next page; absent if there is none, or the question has no pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The rows.
    pub rows: Vec<Box<RawValue>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The question cannot be understood; it says why.
    #[error("{0}")]
    Unclear(String),
    /// This caller, or nobody, may ask that.
    #[error("{0}")]
    Refused(String),
    /// There is no such event.
    #[error("{0}")]
    NotFound(String),
    /// It would take longer than `api.statement_timeout`.
    #[error("took longer than api.statement_timeout: ask for less time, or for fewer services")]
    TooSlow,
    /// Nobody can be asked now.
    #[error("{0}")]
    Unavailable(String),
}

impl From<StoreError> for AskError {
    fn from(error: StoreError) -> Self {
        match (error.kind(), error.sqlstate()) {
            (StoreErrorKind::Timeout, _) => Self::TooSlow,
            (_, Some("P0002")) => Self::NotFound(error.to_string()),
            // Rights, and a transaction that may only read.
            (_, Some("42501" | "25006")) => Self::Refused(error.to_string()),
            (StoreErrorKind::Data, _) => Self::Unclear(error.to_string()),
            (_, Some(code)) if code.starts_with("42") || code.starts_with("22") => Self::Unclear(error.to_string()),
            (StoreErrorKind::Setup, None) => Self::Refused(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// What is needed to find text in Elasticsearch.
#[derive(Clone)]
pub struct Mirrored {
    /// The cluster.
    pub client: Client,
    /// Where events are.
    pub targets: Targets,
    /// The outbox is read over it.
    pub pool: PgPool,
    /// Whether templates are in place and nothing stands in the way.
    pub is_well: Arc<dyn Fn() -> bool + Send + Sync>,
    /// `api.search_behind_max`.
    pub behind_max: Duration,
    /// What a refresh may add to how far it is behind.
    pub refresh: Duration,
}

impl fmt::Debug for Mirrored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mirrored").finish_non_exhaustive()
    }
}

/// Answers questions. Clones share connections.
#[derive(Debug, Clone)]
pub struct Asker {
    questions: Questions,
    /// What is written, is written over it.
    pool: PgPool,
    mirrored: Option<Mirrored>,
}

impl Asker {
    /// `mirrored` is `None` when events are stored in SQL only.
    #[must_use]
    pub fn new(questions: Questions, pool: PgPool, mirrored: Option<Mirrored>) -> Self {
        Self {
            questions,
            pool,
            mirrored,
        }
    }

    /// Whether SQL of others is taken.
    #[must_use]
    pub fn takes_sql(&self) -> bool {
        self.questions.takes_sql()
    }

    /// Answers one of the catalogue, and records that it was asked.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(
        &self,
        entry: &Entry,
        parameters: Map<String, Value>,
        asking: &Asking,
    ) -> Result<Answer, AskError> {
        let target = audited(entry.name, &parameters);
        let answer = self.answer(entry, parameters, &asking.sight).await;
        // What is not recorded is not told.
        let (rows, outcome) = outcome(&answer);
        record(&self.pool, &asking.actor, "search", &target, rows, outcome).await?;
        answer
    }

    async fn answer(
        &self,
        entry: &Entry,
        mut parameters: Map<String, Value>,
        sight: &Sight,
    ) -> Result<Answer, AskError> {
        see_only(&mut parameters, sight)?;
        if entry.question == Question::SEARCH_LOGS {
            let why_not = match self.search_text(&parameters).await? {
                TextSearch::Done(answer) => return Ok(answer),
                TextSearch::Left(why) => why,
            };
            let rows = self
                .questions
                .ask(entry.question, &Value::Object(parameters.clone()))
                .await?;
            let mut answer = paged(rows, &parameters);
            let notes: Vec<String> = why_not.into_iter().chain(answer.note).collect();
            answer.note = (!notes.is_empty()).then(|| notes.join("; "));
            return Ok(answer);
        }
        let rows = self.questions.ask(entry.question, &Value::Object(parameters)).await?;
        Ok(from_postgresql(rows))
    }

    /// Adds an analysis to an event; the whole analysis that it has now.
    ///
    /// `request` has `id`, `timestamp`, `analysis`, and `tenant` where the caller may choose one and several have such an event.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn annotate(&self, mut request: Map<String, Value>, asking: &Asking) -> Result<Value, AskError> {
        see_only(&mut request, &asking.sight)?;
        let names = ["id", "timestamp", "analysis", TENANT.name];
        if let Some(name) = request.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(AskError::Unclear(format!(
                "`{name}` is not known; an annotation has {}",
                names.join(", ")
            )));
        }
        let needed = ["timestamp", "analysis"];
        if let Some(name) = needed
            .iter()
            .find(|name| request.get(**name).is_none_or(Value::is_null))
        {
            return Err(AskError::Unclear(format!(
                "`{name}` is missing: an annotation needs it"
            )));
        }
        Ok(annotate(&self.pool, &Value::Object(request), &asking.actor).await?)
    }

    /// What there is to be asked about.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn describe(&self, question: Question) -> Result<Vec<Box<RawValue>>, AskError> {
        Ok(self.questions.ask(question, &json!({})).await?.rows)
    }

    /// Runs one statement that may only read. It is recorded before it runs, as it may do harm that no answer tells of: one
    /// that was killed, or whose asker went away, stays `running`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn run_sql(&self, sql: &str, asking: &Asking) -> Result<Answer, AskError> {
        if asking.sight != Sight::All {
            return Err(AskError::Refused(
                "SQL sees all tenants: it is for credentials of the scope admin".to_owned(),
            ));
        }
        let target = json!({"sql": beginning(sql)});
        let action = record(&self.pool, &asking.actor, "run_sql", &target, 0, ActionOutcome::Running).await?;
        let answer = self
            .questions
            .run_sql(sql)
            .await
            .map(from_postgresql)
            .map_err(AskError::from);
        let (rows, outcome) = outcome(&answer);
        end_with(&self.pool, action, rows, outcome).await?;
        answer
    }

    /// The answer of Elasticsearch, if there is text to be found and it is well and up to date.
    async fn search_text(&self, parameters: &Map<String, Value>) -> Result<TextSearch, AskError> {
        let Some(mirrored) = &self.mirrored else {
            return Ok(TextSearch::Left(None));
        };
        let Some(request) = search::request(parameters, &mirrored.targets) else {
            return Ok(TextSearch::Left(None));
        };
        let left = |why: &str| {
            Ok(TextSearch::Left(Some(format!(
                "the text was looked for in PostgreSQL: {why}"
            ))))
        };
        if !(mirrored.is_well)() {
            return left("Elasticsearch is not ready, or takes no events; /api/v1/status says why");
        }
        // Whatever is wrong there, PostgreSQL knows as well.
        let Ok(age) = Questions::mirror_age(&mirrored.pool).await else {
            return left("how far Elasticsearch is behind could not be read");
        };
        if age > mirrored.behind_max {
            return left(&format!(
                "Elasticsearch is {:.1} s behind, more than api.search_behind_max ({}) allows",
                age.as_secs_f64(),
                humantime::format_duration(mirrored.behind_max)
            ));
        }
        let found = match mirrored.client.search(&request.index, &request.body).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "Elasticsearch could not be asked; PostgreSQL is");
                return left("Elasticsearch did not answer; the log says more at the level debug");
            }
        };
        let rows = match search::keys(&found) {
            None => Rows::default(),
            Some(keys) => self.questions.ask(Question::LISTED_LOGS, &keys).await?,
        };
        let is_cut = rows.truncated;
        let mut answer = paged(rows, parameters);
        // A row that was dropped since makes a page shorter, and not the last one. A page that was cut ends with its last row.
        if !is_cut {
            answer.next = (found.len() >= search::limit(parameters))
                .then(|| search::page_end(&found))
                .flatten();
        }
        answer.store = "elasticsearch";
        answer.behind_seconds = (age + mirrored.refresh).as_secs_f64();
        Ok(TextSearch::Done(answer))
    }
}

/// What became of a search in Elasticsearch.
enum TextSearch {
    Done(Answer),
    /// PostgreSQL is to be asked. Where that is not the rule, it is told why.
    Left(Option<String>),
}

/// What the audit trail says of an answer: its rows, and whether there is one.
fn outcome(answer: &Result<Answer, AskError>) -> (i64, ActionOutcome) {
    match answer {
        Ok(answer) => (
            i64::try_from(answer.rows.len()).unwrap_or(i64::MAX),
            ActionOutcome::Done,
        ),
        Err(_) => (0, ActionOutcome::Failed),
    }
}

/// A question as the audit trail keeps it: of large parameters the beginning, as text.
fn audited(question: &str, parameters: &Map<String, Value>) -> Value {
    let text = Value::Object(parameters.clone()).to_string();
    if text.len() <= AUDITED_BYTES_MAX {
        return json!({"question": question, "parameters": parameters});
    }
    json!({"question": question, "parameters": beginning(&text)})
}

fn beginning(text: &str) -> &str {
    text.get(..text.floor_char_boundary(AUDITED_BYTES_MAX))
        .unwrap_or_default()
}

/// Puts the tenant that may be seen into the parameters.
fn see_only(parameters: &mut Map<String, Value>, sight: &Sight) -> Result<(), AskError> {
    let Sight::Tenant(tenant) = sight else {
        return Ok(());
    };
    match parameters.insert(TENANT.name.to_owned(), json!(tenant)) {
        Some(asked) if asked != json!(tenant) => Err(AskError::Refused(
            "the credential does not allow this tenant".to_owned(),
        )),
        Some(_) | None => Ok(()),
    }
}

fn too_large(rows: usize) -> String {
    format!(
        "rows left out, as each alone is larger than api.answer_bytes_max: {rows}; run_sql can ask for fewer columns, or \
         for left(column, 1000)"
    )
}

fn from_postgresql(rows: Rows) -> Answer {
    Answer {
        store: "postgresql",
        behind_seconds: 0.0,
        truncated: rows.truncated || rows.too_large > 0,
        note: (rows.too_large > 0).then(|| too_large(rows.too_large)),
        next: None,
        rows: rows.rows,
    }
}

/// With the way to the next page, if this one is full.
fn paged(rows: Rows, parameters: &Map<String, Value>) -> Answer {
    #[derive(serde::Deserialize)]
    struct Last {
        page_end: String,
    }
    let is_full = rows.truncated || rows.rows.len() + rows.too_large >= search::limit(parameters);
    let last = rows.rows.last().filter(|_| is_full);
    let next = last.and_then(|row| serde_json::from_str::<Last>(row.get()).ok());
    Answer {
        next: next.map(|last| last.page_end),
        ..from_postgresql(rows)
    }
}
