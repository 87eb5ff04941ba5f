//! Settings for unit tests.

use std::{collections::BTreeMap, time::Duration};

use url::Url;

use crate::config::{Elasticsearch, Gzip, Naming};

/// What the defaults say, for a node that nobody asks.
pub(super) fn settings() -> Elasticsearch {
    Elasticsearch {
        enabled: true,
        urls: vec![Url::parse("http://127.0.0.1:9").unwrap()],
        username: None,
        password: None,
        password_file: None,
        api_key: None,
        api_key_file: None,
        ca_file: None,
        naming: Naming::DataStream,
        dataset: "app".to_owned(),
        replicas: 1,
        refresh_interval: "1s".to_owned(),
        bootstrap: true,
        templates_dir: None,
        promote: BTreeMap::new(),
        gzip: Gzip::Auto,
        bulk_documents_max: 2000,
        bulk_bytes_max: 5_000_000,
        request_timeout: Duration::from_secs(45),
    }
}
