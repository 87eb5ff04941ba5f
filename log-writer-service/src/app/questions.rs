//! Puts together what answers questions.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use sqlx::PgPool;

use crate::{
    ask::{Asker, Mirrored},
    config::Config,
    elasticsearch::{Client, Targets},
    telemetry::status::MirrorProbe,
    timescale::{self, Questions},
};

/// What answers questions; `None` if `api.enabled` is off.
pub(super) fn asker(
    config: &Config,
    pool: &PgPool,
    searched: Option<(Client, Targets)>,
    mirror: MirrorProbe,
) -> anyhow::Result<Option<Asker>> {
    if !config.api.enabled {
        return Ok(None);
    }
    let questions = Questions::new(&config.database, &config.api).context("preparing to answer questions")?;
    // `-1`: never refreshed, so nothing new is ever found there.
    let refresh = humantime::parse_duration(&config.elasticsearch.refresh_interval).ok();
    let mirrored = searched.zip(refresh).map(|((client, targets), refresh)| Mirrored {
        client,
        targets,
        pool: pool.clone(),
        is_well: Arc::new(move || {
            let status = mirror();
            status.bootstrapped && status.problem.is_none()
        }),
        behind_max: config.api.search_behind_max,
        refresh: refresh.max(Duration::from_millis(1)),
    });
    Ok(Some(Asker::new(questions, pool.clone(), mirrored)))
}

/// The same for a command without a service around it: PostgreSQL alone answers.
///
/// # Errors
/// If a URL cannot be read.
pub async fn lone_asker(config: &Config) -> anyhow::Result<Option<Asker>> {
    let pool = timescale::connect_pool(&config.database).await?;
    let questions = Questions::new(&config.database, &config.api).context("preparing to answer questions")?;
    Ok(config.api.enabled.then(|| Asker::new(questions, pool, None)))
}
