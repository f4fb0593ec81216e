//! Who waits for a turn, and until when.

use super::Site;
use crate::engine::model::status::QueueStatus;
use crate::engine::model::topology::EvseIndex;
use crate::engine::plan::QueuePlace;
use crate::engine::time::Now;

impl Site {
    /// Who waits for a turn by the last plan, in the order of the queue.
    #[must_use]
    pub fn queue(&self) -> &[QueuePlace] {
        &self.plan.queue
    }

    /// The place of an EVSE in the queue of the last plan; `None`: it does not wait.
    pub(super) fn queue_status(&self, index: EvseIndex, now: Now) -> Option<QueueStatus> {
        let place = self.plan.queue.iter().find(|place| place.evse == index)?;
        let wait_ms = i64::try_from(place.starts.since(now.mono)).unwrap_or(i64::MAX);
        Some(QueueStatus { position: place.position, of: self.plan.queue.len(), starts_by: now.utc.plus_ms(wait_ms) })
    }
}
