//! An Elasticsearch that fails as told: answers lost, cut, late, partial, miscounted or refused.
//!
//! Only for faults; what works is tested against the real one. In between the scripted faults it behaves as 8.19.2
//! does where the service can tell: data streams with backing indices, `create` and 409, `_mget` by index, templates,
//! policies, the simulation, rollover, 404 without a template, 413 over a limit.
//!
//! It speaks HTTP/1.1 by hand, since a library would not send half an answer.

mod api;
mod bulk;
mod server;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinHandle};

use crate::search::Document;

/// Names the fault of an item by its position in the request and its content.
pub type FaultOf = dyn Fn(usize, &Item) -> Option<ItemFault> + Send + Sync;

/// What is done with one `_bulk`.
#[derive(Clone)]
pub enum Behaviour {
    /// As usual.
    Apply,
    /// Nothing is applied; the whole request is answered with this status and error type.
    Reject(u16, &'static str),
    /// Rejects a whole request with 400 if the function says so of any of its items; else as usual.
    RejectIf(Arc<dyn Fn(&Item) -> bool + Send + Sync>),
    /// Nothing is applied, the connection is closed without an answer.
    Cut,
    /// The same if the function says so of any of its items; else as usual.
    CutIf(Arc<dyn Fn(&Item) -> bool + Send + Sync>),
    /// Everything is applied, the connection is closed without an answer.
    ApplyThenCut,
    /// Everything is applied, half of the answer is sent, then the connection is closed.
    Truncate,
    /// Everything is applied, the last item is missing in the answer.
    WrongItemCount,
    /// Waits until the gate is opened, then as usual.
    Hold(Gate),
    /// Items for which the function names a fault are not applied; the others are.
    PartialFailure(Arc<FaultOf>),
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Apply => "Apply",
            Self::Reject(..) => "Reject",
            Self::RejectIf(_) => "RejectIf",
            Self::Cut => "Cut",
            Self::CutIf(_) => "CutIf",
            Self::ApplyThenCut => "ApplyThenCut",
            Self::Truncate => "Truncate",
            Self::WrongItemCount => "WrongItemCount",
            Self::Hold(_) => "Hold",
            Self::PartialFailure(_) => "PartialFailure",
        };
        formatter.write_str(name)
    }
}

impl Behaviour {
    /// [`Behaviour::PartialFailure`] by a function of position and item.
    pub fn partial(fault: impl Fn(usize, &Item) -> Option<ItemFault> + Send + Sync + 'static) -> Self {
        Self::PartialFailure(Arc::new(fault))
    }
}

/// Holds a `_bulk` until it is opened; stays open.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A closed gate.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default gate says nothing of being closed")]
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.0.close();
    }

    async fn passed(&self) {
        // Permits are never given out: the end of waiting is the closed semaphore.
        let _opened = self.0.acquire().await;
    }
}

/// One document of a `_bulk`.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// `create`, `index` or `delete`.
    pub operation: String,
    /// Stream or index it names.
    pub target: String,
    /// `_id`.
    pub id: String,
    /// Document; `null` for a delete.
    pub source: Value,
}

/// Why an item fails.
#[derive(Debug, Clone)]
pub struct ItemFault {
    /// Status of the item.
    pub status: u16,
    /// `error.type`.
    pub error_type: &'static str,
    /// `error.reason`.
    pub reason: String,
}

impl ItemFault {
    /// A fault with its reason.
    #[must_use]
    pub fn new(status: u16, error_type: &'static str, reason: &str) -> Self {
        Self {
            status,
            error_type,
            reason: reason.to_owned(),
        }
    }
}

/// One `_bulk` as it came in.
#[derive(Debug, Clone)]
pub struct BulkSeen {
    /// Path with query.
    pub path: String,
    /// Bytes of the body.
    pub bytes: usize,
    /// Its documents.
    pub items: Vec<Item>,
    /// Whether a fault was scripted for it (also one that applied everything).
    pub faulty: bool,
}

/// One index behind a data stream.
#[derive(Debug, Default)]
struct Backing {
    name: String,
    documents: BTreeMap<String, Stored>,
}

#[derive(Debug, Clone)]
struct Stored {
    source: Value,
    sequence: u64,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<String, Vec<Backing>>,
    objects: BTreeMap<String, Value>,
    script: VecDeque<Behaviour>,
    always: Option<Behaviour>,
    /// Bulks of deletions to refuse.
    deletions_refused: usize,
    /// Stream whose look-ups are refused.
    look_ups_refused: Option<String>,
    body_bytes_max: Option<usize>,
    bulks: Vec<BulkSeen>,
    requests: Vec<String>,
    sequence: u64,
}

/// A running fake; ends when dropped.
#[derive(Debug)]
pub struct FakeElasticsearch {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl FakeElasticsearch {
    /// Starts on a free port, empty.
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (address, task) = server::listen(Arc::clone(&state)).await;
        Self { address, state, task }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Adds behaviours for the next `_bulk` requests that bring documents, one each; after them it behaves as usual, or as set by
    /// [`Self::always`].
    pub fn script(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.lock().script.extend(behaviours);
    }

    /// What is done with every `_bulk` that has no script; `None`: as usual.
    pub fn always(&self, behaviour: Option<Behaviour>) {
        self.lock().always = behaviour;
    }

    /// Answers the next bulks of deletions 429, so many.
    pub fn refuse_deletions(&self, bulks: usize) {
        self.lock().deletions_refused = bulks;
    }

    /// Answers every look-up in this stream 403, as for want of the right to read it; `None`: as usual.
    pub fn refuse_look_ups(&self, stream: Option<&str>) {
        self.lock().look_ups_refused = stream.map(str::to_owned);
    }

    /// Bodies over this size are answered 413, as by `http.max_content_length`.
    pub fn limit_bodies(&self, bytes_max: usize) {
        self.lock().body_bytes_max = Some(bytes_max);
    }

    /// The `_bulk` requests so far, but for those that only delete.
    #[must_use]
    pub fn bulks(&self) -> Vec<BulkSeen> {
        self.lock().bulks.clone()
    }

    /// `METHOD path` of all requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// Puts an object (`_index_template/logs_template`, `_ilm/policy/…`, `_component_template/…`).
    pub fn put(&self, path: &str, object: Value) {
        self.lock().objects.insert(path.to_owned(), object);
    }

    /// An object as it was put last.
    #[must_use]
    pub fn object(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Removes an object.
    pub fn remove(&self, path: &str) {
        self.lock().objects.remove(path);
    }

    /// Starts a new backing index.
    pub fn roll_over(&self, stream: &str) {
        self.lock().roll_over(stream);
    }

    /// Puts a document into a backing index (0: the oldest) behind the service's back.
    pub fn plant(&self, stream: &str, backing: usize, id: &str, source: Value) {
        let mut state = self.lock();
        let sequence = state.next_sequence();
        let indices = state.streams.get_mut(stream).expect("no such stream");
        indices[backing]
            .documents
            .insert(id.to_owned(), Stored { source, sequence });
    }

    /// Documents of all backing indices of a stream.
    #[must_use]
    pub fn documents(&self, stream: &str) -> Vec<Document> {
        let state = self.lock();
        let indices = state.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        let of_index = |index: &Backing| {
            let name = index.name.clone();
            let stored = index.documents.iter();
            stored
                .map(|(id, stored)| Document {
                    id: id.clone(),
                    index: name.clone(),
                    source: stored.source.clone(),
                })
                .collect::<Vec<_>>()
        };
        indices.iter().flat_map(of_index).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for FakeElasticsearch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("the fake panicked before")
}

impl State {
    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn roll_over(&mut self, stream: &str) {
        let indices = self.streams.entry(stream.to_owned()).or_default();
        let name = format!(".ds-{stream}-2026.11.21-{:06}", indices.len() + 1);
        indices.push(Backing {
            name,
            documents: BTreeMap::new(),
        });
    }
}
