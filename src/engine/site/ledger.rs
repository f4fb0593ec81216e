//! The durable state of the site: the fold of its records.

use serde::{Deserialize, Serialize};

use crate::engine::model::ids::Sequence;
use crate::engine::model::record::Record;

/// What has to be known again after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    last: Sequence,
}

/// A snapshot that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot cannot be read: {0}")]
pub struct SnapshotError(String);

impl Ledger {
    /// Reads what [`Ledger::snapshot`] wrote.
    ///
    /// # Errors
    /// If the bytes are not a snapshot.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        serde_json::from_slice(bytes).map_err(|error| SnapshotError(error.to_string()))
    }

    /// The state as bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Folds the next record in.
    pub fn apply(&mut self, record: &Record) {
        self.last = record.sequence;
    }

    /// The last record folded in.
    #[must_use]
    pub const fn last(&self) -> Sequence {
        self.last
    }
}
