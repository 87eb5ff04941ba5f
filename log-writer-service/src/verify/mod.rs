//! Compares both stores and repairs Elasticsearch, while the service runs (P8).
//!
//! From the coarse to the fine: number of events and sum of their ids' tails by hour; where they differ, by minute; where those
//! differ, event by event. What is found there is judged again before it is told: an event is *missing* if it was settled at
//! some moment and its document is in none of the stream's indices after it. So load and backlog raise no alarm.
//!
//! | finding | what it is | `--repair` |
//! |---|---|---|
//! | missing | settled, in SQL, in no index | into the outbox again, kind `repair` |
//! | doubled | in several backing indices | all copies but that in the oldest index are deleted |
//! | different | another content than SQL's (of a sample) | into the outbox again, kind `replace` |
//! | buried | a dead letter, not of a change, though its document is there | into the outbox again, where it is found and its letter goes |
//! | stranger | a document that no event stands for | told, left alone |
//!
//! A repair corrects the books where outbox rows were lost: with each group that goes into the outbox again, and, once
//! everything was compared, by what is left over then.
//!
//! Memory is bounded by one day of buckets and a page of ids on either side. A crash leaves what was repaired until then:
//! each group is one transaction, and deleting a copy twice deletes it once.

mod content;
mod events;
mod report;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use self::report::{Found, Outcome};
use crate::{
    config::Config,
    elasticsearch::{Client, DocumentWriter, Range, SearchError, Targets},
    event::Timestamp,
    timescale::{ActionId, Census, Outbox, StoreError, bare_tenant},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY_MICROS: i64 = 86_400_000_000;
/// Elasticsearch sums doubles: 2^21 tails of 32 bits are the most whose sum is exact.
const EXACT_SUM_MAX: i64 = 1 << 21;
/// Events or documents of a page; Elasticsearch allows no more.
const PAGE: usize = 10_000;
/// What is judged at once.
const GROUP: usize = 1_000;

/// What a comparison works with.
#[derive(Debug)]
pub struct Verifier {
    census: Census,
    outbox: Outbox,
    client: Client,
    targets: Targets,
    documents: DocumentWriter,
    default_tenant: String,
    /// Limits of an outbox row.
    events_max: usize,
    bytes_max: usize,
}

/// What is compared.
#[derive(Debug, Clone)]
pub struct Scope {
    /// From this time on.
    pub since: Timestamp,
    /// Until before this.
    pub until: Timestamp,
    /// This tenant's alone.
    pub tenant: Option<String>,
    /// Events of each tenant and hour whose content is compared.
    pub sample: usize,
    /// Whether that is all that is kept.
    pub is_everything: bool,
}

/// Who repairs: the action that is recorded, and the row in the books.
#[derive(Debug, Clone)]
pub struct Repair {
    /// Counted as a part of this.
    pub action: ActionId,
    /// Names the row in the books.
    pub worker: String,
}

/// A store that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// PostgreSQL.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Elasticsearch.
    #[error(transparent)]
    Search(#[from] SearchError),
}

/// Told of what is found and how far it is.
pub trait Listener {
    /// A difference, once repaired if it is to be.
    fn found(&mut self, found: &Found);
    /// Everything before this time is compared.
    fn reached(&mut self, time: Timestamp);
}

/// A tenant and the beginning of a bucket; nobody's documents first.
type Place = (Option<String>, Timestamp);

impl Verifier {
    /// Prepares the comparison of what this configuration names; asks nothing yet.
    ///
    /// # Errors
    /// If it names no usable store.
    pub fn new(config: &Config, targets: Targets) -> Result<Self, VerifyError> {
        let census = Census::new(&config.database)?;
        Ok(Self {
            outbox: Outbox::new(census.pool().clone()),
            census,
            client: Client::new(&config.elasticsearch)?,
            documents: DocumentWriter::new(&config.elasticsearch)?,
            default_tenant: config.events.default_tenant.clone(),
            events_max: config.database.batch_rows_max,
            bytes_max: config.database.batch_bytes_max,
            targets,
        })
    }

    /// The side of PostgreSQL.
    #[must_use]
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// Compares, and repairs if somebody does; what was found is told to the listener too, as it is found.
    ///
    /// # Errors
    /// If a store can't be asked; what was repaired until then stays so.
    pub async fn run(
        &self,
        scope: &Scope,
        repair: Option<&Repair>,
        listener: &mut impl Listener,
    ) -> Result<Outcome, VerifyError> {
        let mut run = Run {
            verifier: self,
            scope,
            repair,
            listener,
            bare_tenant: bare_tenant(self.census.pool(), &self.default_tenant).await?,
            outcome: Outcome::default(),
            indices: String::new(),
        };
        run.all_days().await?;
        let mut outcome = run.outcome;
        if let Some(repair) = repair.filter(|_| scope.is_everything) {
            self.census.correct_books(&repair.worker, repair.action).await?;
        }
        (outcome.outstanding, outcome.dead_letters) = self.census.undelivered(scope.tenant.as_deref()).await?;
        Ok(outcome)
    }

    /// The data stream, or index, of an event.
    fn target(&self, tenant: &str, time: Timestamp) -> Arc<str> {
        self.targets.target(tenant, time)
    }
}

struct Run<'a, L> {
    verifier: &'a Verifier,
    scope: &'a Scope,
    repair: Option<&'a Repair>,
    listener: &'a mut L,
    /// Not mixed into documents' ids.
    bare_tenant: Arc<str>,
    outcome: Outcome,
    /// What is searched now.
    indices: String,
}

impl<L: Listener> Run<'_, L> {
    async fn all_days(&mut self) -> Result<(), VerifyError> {
        let until = self.scope.until;
        let mut from = self.scope.since;
        while let Some(first) = self.first_from(from).await? {
            let end = Timestamp((first.0.div_euclid(DAY_MICROS) + 1).saturating_mul(DAY_MICROS)).min(until);
            self.day((first, end)).await?;
            self.listener.reached(end);
            from = end;
        }
        Ok(())
    }

    /// The first moment from `from` on at which either store has something.
    async fn first_from(&self, from: Timestamp) -> Result<Option<Timestamp>, VerifyError> {
        if from >= self.scope.until {
            return Ok(None);
        }
        let Verifier { census, client, .. } = self.verifier;
        let event = census.first_event(from, self.scope.until).await?;
        let everything = self.searched(self.scope.tenant.as_deref());
        let document = client.first_document(&everything, (from, self.scope.until)).await?;
        Ok(event.into_iter().chain(document).min())
    }

    async fn day(&mut self, day: Range) -> Result<(), VerifyError> {
        let tenant = self.scope.tenant.clone();
        let hours = self.buckets(day, HOUR, tenant.as_deref()).await?;
        for (place, both) in &hours {
            self.outcome.events += both.events;
            self.outcome.documents += both.documents;
            self.outcome.hours += 1;
            let hour = within(place.1, HOUR, day);
            if !both.are_equal() {
                self.hour(place.0.as_deref(), hour).await?;
            }
            if let Some(tenant) = place.0.as_deref().filter(|_| self.scope.sample > 0) {
                self.sample(tenant, hour).await?;
            }
        }
        Ok(())
    }

    async fn hour(&mut self, tenant: Option<&str>, hour: Range) -> Result<(), VerifyError> {
        // Documents without a tenant cannot be asked for by it.
        let Some(named) = tenant else {
            return self.minute(None, hour).await;
        };
        for (place, both) in self.buckets(hour, MINUTE, Some(named)).await? {
            if !both.are_equal() {
                self.outcome.minutes += 1;
                self.minute(tenant, within(place.1, MINUTE, hour)).await?;
            }
        }
        Ok(())
    }

    /// What is searched: the one tenant's streams or indices, or those of everybody who is known.
    fn searched<'a>(&self, tenants: impl IntoIterator<Item = &'a str>) -> String {
        let targets = &self.verifier.targets;
        let of_one = self.scope.tenant.as_deref().and_then(|one| targets.searched(Some(one)));
        of_one.unwrap_or_else(|| targets.all(tenants))
    }

    /// What both stores have, by tenant and bucket.
    async fn buckets(
        &mut self,
        range: Range,
        width: Duration,
        tenant: Option<&str>,
    ) -> Result<BTreeMap<Place, Both>, VerifyError> {
        let Verifier { census, client, .. } = self.verifier;
        let mut all: BTreeMap<Place, Both> = BTreeMap::new();
        for counted in census.count(range.0, range.1, width, tenant).await? {
            let both = all.entry((Some(counted.tenant), counted.start)).or_default();
            (both.events, both.event_tails) = (counted.events, counted.tails);
        }
        let tenants = all.keys().filter_map(|(tenant, _)| tenant.as_deref()).chain(tenant);
        self.indices = self.searched(tenants);
        let summed = client
            .sum_buckets(&self.indices, range, width.as_secs(), tenant)
            .await?;
        for summed in summed {
            let both = all.entry((summed.tenant, summed.start)).or_default();
            (both.documents, both.document_tails) = (summed.documents, summed.tails);
        }
        Ok(all)
    }
}

/// A bucket in both stores.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Both {
    events: i64,
    event_tails: i64,
    documents: i64,
    document_tails: f64,
}

impl Both {
    fn are_equal(&self) -> bool {
        #[expect(
            clippy::as_conversions,
            clippy::cast_precision_loss,
            reason = "exact up to 2^53, and of more events than that takes nothing is claimed"
        )]
        let event_tails = self.event_tails as f64;
        self.events == self.documents
            && self.events <= EXACT_SUM_MAX
            && event_tails.to_bits() == self.document_tails.to_bits()
    }
}

/// A bucket, cut where what is compared begins and ends.
fn within(start: Timestamp, width: Duration, range: Range) -> Range {
    let width = i64::try_from(width.as_micros()).unwrap_or(i64::MAX);
    (
        start.max(range.0),
        Timestamp(start.0.saturating_add(width)).min(range.1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_differs_by_number_by_sum_and_where_a_sum_says_nothing() {
        let equal = Both {
            events: 2,
            event_tails: 5,
            documents: 2,
            document_tails: 5.0,
        };
        assert!(equal.are_equal() && Both::default().are_equal());
        assert!(!Both { documents: 3, ..equal }.are_equal());
        assert!(
            !Both {
                document_tails: 6.0,
                ..equal
            }
            .are_equal()
        );
        let many = EXACT_SUM_MAX + 1;
        let too_many = Both {
            events: many,
            documents: many,
            ..equal
        };
        assert!(!too_many.are_equal());
    }

    #[test]
    fn buckets_are_cut_at_the_ends_of_what_is_compared() {
        let range = (Timestamp(90_000_000), Timestamp(130_000_000));
        assert_eq!(
            within(Timestamp(60_000_000), MINUTE, range),
            (Timestamp(90_000_000), Timestamp(120_000_000))
        );
        assert_eq!(
            within(Timestamp(120_000_000), MINUTE, range),
            (Timestamp(120_000_000), Timestamp(130_000_000))
        );
    }
}
