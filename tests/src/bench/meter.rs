//! Processor time of all that takes part in a measurement: service, PostgreSQL, Elasticsearch, and the load itself.

use std::{ops::Sub, time::Duration};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{process::Process, search::Search, service::Service, stack::Database};

/// Whose time is counted.
#[derive(Debug)]
pub struct Meter {
    services: Vec<Process>,
    server: Process,
    elasticsearch: Option<Process>,
}

/// Processor time so far.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    service: Duration,
    server: Duration,
    elasticsearch: Option<Duration>,
    load: Duration,
}

/// Processor time in microseconds an event.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cost {
    /// Of the service, all replicas together.
    pub service_cpu_us: f64,
    /// Of PostgreSQL with all its processes.
    pub server_cpu_us: f64,
    /// Of Elasticsearch, where it takes part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elasticsearch_cpu_us: Option<f64>,
    /// Of this tool.
    pub load_cpu_us: f64,
    /// Of Vector, where it was the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector_cpu_us: Option<f64>,
}

impl Meter {
    /// Of these services and their stores, which must run on this machine.
    ///
    /// # Errors
    /// If one of the stores does not.
    pub async fn of(services: &[&Service], database: &Database, search: Option<&Search>) -> Result<Self> {
        let backend = database.number("select pg_backend_pid()::bigint").await;
        let server = Process::of(u32::try_from(backend)?).parent();
        let elasticsearch = match search {
            Some(search) => Some(node(search).await.context("Elasticsearch is not on this machine")?),
            None => None,
        };
        Ok(Self {
            services: services.iter().map(|service| Process::of(service.pid())).collect(),
            server: server.context("PostgreSQL is not on this machine")?,
            elasticsearch,
        })
    }

    /// What was spent so far.
    #[must_use]
    pub fn read(&self) -> Spent {
        Spent {
            service: self.services.iter().map(|service| service.cpu()).sum(),
            server: self.server.cpu_with_children(),
            elasticsearch: self.elasticsearch.map(Process::cpu),
            load: Process::own().cpu(),
        }
    }
}

impl Sub for Spent {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            service: self.service - before.service,
            server: self.server - before.server,
            elasticsearch: self
                .elasticsearch
                .zip(before.elasticsearch)
                .map(|(now, before)| now - before),
            load: self.load - before.load,
        }
    }
}

impl Spent {
    /// Shared out among so many events.
    #[must_use]
    pub fn per_event(self, events: usize) -> Cost {
        let each = |time| each_us(time, events);
        Cost {
            service_cpu_us: each(self.service),
            server_cpu_us: each(self.server),
            elasticsearch_cpu_us: self.elasticsearch.map(each),
            load_cpu_us: each(self.load),
            vector_cpu_us: None,
        }
    }
}

/// A time shared out among so many events, in microseconds.
#[must_use]
pub(super) fn each_us(time: Duration, events: usize) -> f64 {
    time.as_secs_f64() * 1e6 / events as f64
}

/// The process of the cluster's only node.
pub(super) async fn node(search: &Search) -> Option<Process> {
    let answer = search.ok("GET", "/_nodes/_local/process", None).await;
    let node = answer["nodes"].as_object()?.values().next()?;
    let pid = u32::try_from(node["process"]["id"].as_u64()?).ok()?;
    // A node in a container or on another machine tells a number that is somebody else's here.
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    command.contains("org.elasticsearch").then(|| Process::of(pid))
}
