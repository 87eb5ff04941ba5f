//! What the service holds in memory, whatever is sent: the bound of docs/OPERATIONS.md, "Memory".

use log_writer_tests::{
    flood::{Place, large_bodies},
    service::binary,
    stack::{Stream, database_server},
};

#[tokio::test]
async fn large_bodies_on_many_connections_with_a_stalled_database_and_their_delivery_stay_within_the_bound() {
    let (database_url, stream) = (database_server(), Stream::create().await);
    let place = Place {
        program: binary(),
        database_url: &database_url,
        stream: &stream,
    };
    let report = large_bodies(place, 100, 10_000_000, 32).await;
    assert!(report.holds(), "{report}");
}
