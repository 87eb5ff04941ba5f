//! What a comparison tells.

use serde::Serialize;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum Found {
    /// Settled, and in no index.
    Missing {
        /// Whose.
        tenant: String,
        /// Of the event.
        id: String,
        /// Of the event.
        timestamp: String,
        /// Where it should be.
        target: String,
        /// Whether it stands in the outbox again.
        repaired: bool,
    },
    /// In several indices.
    Doubled {
        /// Whose.
        tenant: String,
        /// Of the event.
        id: String,
        /// Of the event.
        timestamp: String,
        /// Those that hold it, the oldest first.
        indices: Vec<String>,
        /// Whether all but the first are deleted.
        repaired: bool,
    },
    /// With another content.
    Different {
        /// Whose.
        tenant: String,
        /// Of the event.
        id: String,
        /// Of the event.
        timestamp: String,
        /// The index that holds it.
        index: String,
        /// Top-level names whose values differ.
        names: Vec<String>,
        /// Whether it stands in the outbox again.
        repaired: bool,
    },
    /// A dead letter, though its document is there.
    Buried {
        /// Whose.
        tenant: String,
        /// Of the event.
        id: String,
        /// Of the event.
        timestamp: String,
        /// The index that holds it.
        index: String,
        /// Whether it stands in the outbox again, where it is found.
        repaired: bool,
    },
    /// No event stands for it.
    Stranger {
        /// Whose it says it is.
        tenant: Option<String>,
        /// Its `_id`.
        document: String,
        /// Its `@timestamp`.
        timestamp: String,
        /// The index that holds it.
        index: String,
    },
}

/// Sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Events that Elasticsearch should have.
    pub events: i64,
    /// Documents that searches find.
    pub documents: i64,
    /// Hours compared, by tenant.
    pub hours: u64,
    /// Minutes compared event by event.
    pub minutes: u64,
    /// Events whose content was compared.
    pub sampled: u64,
    /// Settled, and in no index.
    pub missing: u64,
    /// In several indices.
    pub doubled: u64,
    /// With another content.
    pub different: u64,
    /// Dead letters whose documents are there.
    pub buried: u64,
    /// Documents that no event stands for.
    pub strangers: u64,
    /// Events that stand in the outbox when the comparison ends; they are not missing.
    pub outstanding: i64,
    /// Events that Elasticsearch refused and that wait in `log_writer.dead_letters`; they are not missing either.
    pub dead_letters: i64,
    /// Of what was found, put right, or on the way.
    pub repaired: u64,
}

impl Outcome {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.missing + self.doubled + self.different + self.buried + self.strangers == 0
    }
}
