//! Which tenant is not mixed into the ids of documents (`elasticsearch/document_id.rs`).
//!
//! It is noted in the database by the first start and never changes, so that a document keeps its id whatever the
//! configuration says later.

use std::sync::Arc;

use sqlx::PgPool;

use super::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
};

/// The tenant whose documents have bare ids; `configured`, `events.default_tenant`, if nobody asked before.
///
/// # Errors
/// As any query.
pub async fn bare_tenant(pool: &PgPool, configured: &str) -> Result<Arc<str>, StoreError> {
    let attempted = "read which tenant is not mixed into documents' ids";
    let tenant: String = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
        sqlx::query_scalar("select log_writer.bare_tenant($1)")
            .bind(configured)
            .fetch_one(connection)
            .await
            .map_err(StoreError::during(attempted))
    })
    .await?;
    Ok(Arc::from(tenant))
}
