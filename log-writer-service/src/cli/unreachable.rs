//! What to do when PostgreSQL is not there, told where the person looks: in the last line of the command.

use anyhow::Error;
use secrecy::ExposeSecret;

use crate::{
    config::{Database, url_without_secrets},
    timescale::{StoreError, StoreErrorKind},
};

/// Says before the error what it is about and what to do.
pub(super) fn explain(error: Error, settings: &Database) -> Error {
    let kind = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<StoreError>())
        .map(StoreError::kind);
    let url = url_without_secrets(settings.url.expose_secret());
    match kind {
        Some(StoreErrorKind::Unavailable) => error.context(format!(
            "PostgreSQL cannot be reached at {url}; start one with `make up`, or name yours in DATABASE_URL"
        )),
        Some(StoreErrorKind::Setup) => error.context(format!(
            "PostgreSQL at {url} refuses; check user, password, rights and that the database and TimescaleDB are there"
        )),
        Some(
            StoreErrorKind::Conflict
            | StoreErrorKind::LockTimeout
            | StoreErrorKind::Timeout
            | StoreErrorKind::Unanswered
            | StoreErrorKind::Data
            | StoreErrorKind::Other,
        )
        | None => error,
    }
}
