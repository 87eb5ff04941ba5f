//! What the service holds in memory, whatever is sent: the bound of docs/OPERATIONS.md, "Memory".

use log_writer_tests::{flood::large_bodies, service::binary, stack::database_server};

#[tokio::test]
async fn large_bodies_on_many_connections_with_a_stalled_database_stay_within_the_bound() {
    let report = large_bodies(binary(), &database_server(), 100, 10_000_000, 32).await;
    assert!(report.holds(), "{report}");
}
