//! Stations that are connected but not configured: people see them, and an alarm says what to do. Nothing else here knows of them.

use super::Site;
use super::io::Output;
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::status::PendingCharger;
use crate::engine::time::{Mono, Now};

/// Somebody has waited for so long before it is told: one that is approved at once raises no alarm, nor does one that looks in by mistake.
const TOLD_AFTER_MS: u64 = 15_000;

/// Nobody has waited for so long before it is over: identities that come and go, by accident or not, must not fill the journal.
const OVER_AFTER_MS: u64 = 600_000;

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) chargers: Vec<PendingCharger>,
    /// When somebody began to wait, or nobody waited any more.
    since: Mono,
}

impl Site {
    /// Others wait than before.
    pub(super) fn pending_changed(&mut self, chargers: Vec<PendingCharger>, now: Now) {
        if self.pending.chargers.is_empty() != chargers.is_empty() {
            self.pending.since = now.mono;
        }
        self.pending.chargers = chargers;
        if let Some(cloud) = &mut self.cloud {
            cloud.state_changed = true;
        }
    }

    /// One alarm for all of them. It stays as it was raised when others come: the status has the list.
    pub(super) fn watch_pending(&mut self, now: Now, out: &mut Vec<Output>) {
        let lasts_ms = now.mono.since(self.pending.since);
        match self.pending.chargers.first() {
            Some(first) if lasts_ms >= TOLD_AFTER_MS => {
                let id = first.id.clone();
                self.raise(
                    (AlarmKind::ChargerPending, "", Severity::Warning),
                    format!("A charger that is not configured is connected and waits: {id:?}; the site's status lists all."),
                    "Approve it by charger.approve, or take it off the network. Until then it may not charge; what it draws nevertheless, nobody limits.",
                    (now, out),
                );
            }
            None if lasts_ms >= OVER_AFTER_MS => self.clear(AlarmKind::ChargerPending, "", now, out),
            Some(_) | None => {}
        }
    }
}
