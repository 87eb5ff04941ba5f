//! Hears the warnings that PostgreSQL sends with the answer to COMMIT: sqlx 0.8 gives notices to `tracing` alone.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// Catches warnings that PostgreSQL sends with the answer to COMMIT: sqlx 0.8 gives notices to `tracing` alone.
pub(super) struct Warnings {
    first: Arc<Mutex<Option<String>>>,
    dispatch: Dispatch,
}

impl Warnings {
    pub(super) fn new() -> Self {
        let first = Arc::new(Mutex::new(None));
        Self {
            dispatch: Dispatch::new(WarningCatcher(Arc::clone(&first))),
            first,
        }
    }

    /// Where the answer to COMMIT is to be listened to.
    pub(super) fn dispatch(&self) -> Dispatch {
        self.dispatch.clone()
    }

    /// Forgets what earlier commits said.
    pub(super) fn forget(&self) {
        drop(self.take());
    }

    /// The first warning since [`Self::forget`].
    pub(super) fn take(&self) -> Option<String> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct WarningCatcher(Arc<Mutex<Option<String>>>);

impl Subscriber for WarningCatcher {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::postgres::notice" && *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(message.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
