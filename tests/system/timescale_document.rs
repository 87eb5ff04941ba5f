//! Every example of docs/SQL.md runs as it stands there.

use std::{fs, path::Path};

use log_writer_service::timescale::migrate;
use sqlx::Executor;

use crate::timescale_database::with_empty_database;

/// The statements in the document's blocks of SQL.
fn examples() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SQL.md");
    let document = fs::read_to_string(path).expect("docs/SQL.md can be read");
    let blocks = document.split("```sql\n").skip(1);
    let statements = blocks
        .filter_map(|block| block.split("```").next())
        .flat_map(|block| block.split(';'));
    let statements = statements.map(str::trim).filter(|statement| !statement.is_empty());
    statements.map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn every_example_of_the_document_runs_as_it_stands() {
    with_empty_database(async |database| {
        migrate(&database.settings).await.expect("the migrations run");
        database
            .execute(
                "insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message)
                 values (gen_random_uuid(), now(), now(), 1, 'default', 'ERROR', 'api', 'connection refused')",
            )
            .await;
        let examples = examples();
        assert!(examples.len() >= 20, "only {} examples were found", examples.len());
        for example in examples {
            let result = database.pool.execute(example.as_str()).await;
            assert!(result.is_ok(), "{example}: {}", result.err().map(|error| error.to_string()).unwrap_or_default());
        }
    })
    .await;
}
