//! `unknown_chargers = "accept"`: approves each station that waits as soon as it has said what it is, by the same command as a person would.
//!
//! It does not run after a configuration was taken back: the same station would bring that about again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::interval;

use crate::engine::cloud::messages::status;
use crate::engine::model::command::{Command, CommandOutcome};
use crate::engine::model::errand::Errand;
use crate::engine::model::ids::StationId;
use crate::engine::model::status::PendingCharger;
use crate::shell::configuration::Desk;
use crate::shell::stopped;

/// How often it is looked who waits.
const LOOK: Duration = Duration::from_secs(1);

/// Stations that could not be approved. Beyond it none is tried: somebody on the network makes up names.
const MAX_REFUSED: usize = 64;

/// A site with so many chargers accepts no more by itself: whoever makes up names on the network could otherwise add them without end, and each
/// counts with what it may draw.
const MAX_CHARGERS: usize = 40;

/// Approves those that wait, one at a time, until the daemon stops, which has `configured` chargers: each approval starts it again.
pub async fn run(desk: Desk, configured: usize, mut shutdown: watch::Receiver<bool>) {
    if configured >= MAX_CHARGERS {
        tracing::warn!("the site has {MAX_CHARGERS} chargers: no more are accepted by themselves; use charger.approve");
        return;
    }
    let mut looks = interval(LOOK);
    let mut refused = BTreeSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            _ = looks.tick() => {}
        }
        if desk.kept.is_changing() {
            continue;
        }
        let Some(charger) = next(&desk.waiting.list(), &refused) else { continue };
        let errand = Errand::Approve { charger: charger.clone(), circuit: None, on_site: true };
        match desk.asker.command(Command::Errand(errand)).await {
            Ok(CommandOutcome::Accepted { .. }) => tracing::warn!("charger {:?} is accepted", charger.as_str()),
            // A person was faster; this one's turn comes after the restart.
            Ok(_) if desk.kept.is_changing() || !desk.waiting.has(&charger) => {}
            Ok(outcome) => {
                let why = match outcome {
                    CommandOutcome::Rejected { error } | CommandOutcome::Failed { error, .. } => error,
                    other => status(&other).to_owned(),
                };
                tracing::warn!("charger {:?} cannot be accepted and goes on waiting: {why}", charger.as_str());
                refused.insert(charger);
            }
            Err(_) => return,
        }
    }
}

/// The next one to be approved.
fn next(waiting: &[PendingCharger], refused: &BTreeSet<StationId>) -> Option<StationId> {
    if refused.len() >= MAX_REFUSED {
        return None;
    }
    let booted = waiting.iter().filter(|charger| charger.vendor.is_some());
    let ids = booted.map(|charger| (charger.since, StationId::new(&charger.id)));
    ids.filter(|(_, id)| !refused.contains(id)).min().map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::Utc;

    fn waits(id: &str, since_ms: i64, vendor: Option<&str>) -> PendingCharger {
        let (id, since) = (id.to_owned(), Utc::from_unix_ms(since_ms));
        PendingCharger { id, since, vendor: vendor.map(str::to_owned), ..PendingCharger::default() }
    }

    #[test]
    fn the_longest_waiting_that_has_booted_is_next_and_a_refused_one_never() {
        let waiting = [waits("A", 3, Some("Acme")), waits("B", 2, Some("")), waits("C", 1, None)];
        let mut refused = BTreeSet::new();
        assert_eq!(next(&waiting, &refused), Some(StationId::new("B")));
        refused.insert(StationId::new("B"));
        assert_eq!(next(&waiting, &refused), Some(StationId::new("A")));
        refused.extend((0..64).map(|number| StationId::new(&number.to_string())));
        assert_eq!(next(&waiting, &refused), None);
    }
}
