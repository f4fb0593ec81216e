//! Whose turn it is on a line.

use std::time::Duration;

use tokio::time::Instant;

use super::{DevicePlan, Target};

/// The wait after the first failure; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// A device that nobody suffers from waiting for is asked this often: a meter that comes back is read again within two seconds.
const MOST_WAIT_METER: Duration = Duration::from_secs(2);
/// No decision waits for an inverter.
const MOST_WAIT_INVERTER: Duration = Duration::from_secs(10);
/// The longest that a silent device beside answering ones waits.
const MOST_WAIT_SHARED: Duration = Duration::from_secs(60);
/// A silent device may cost the answering ones on its line a tenth of their time: it waits ten times what asking it costs.
const SHARE: u32 = 10;

/// The devices of a line and when each is due. The one that is overdue for longest comes first, so none waits for ever.
#[derive(Debug)]
pub(super) struct Schedule {
    entries: Vec<Entry>,
    /// Failed attempts to open the line in a row.
    line_failures: u32,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    interval: Duration,
    most_wait_alone: Duration,
    /// What asking it in vain costs the line.
    cost: Duration,
    failures: u32,
}

impl Schedule {
    pub(super) fn new(plans: &[DevicePlan], guard: Duration, now: Instant) -> Self {
        let entry = |plan: &DevicePlan| Entry {
            due: now,
            interval: Duration::from_millis(plan.interval_ms),
            most_wait_alone: match plan.target {
                Target::Meter(_) => MOST_WAIT_METER,
                Target::Inverter(_) => MOST_WAIT_INVERTER,
                Target::Dimming => MOST_WAIT_METER,
            },
            cost: Duration::from_millis(plan.reads.timeout_ms()) + guard,
            failures: 0,
        };
        Self { entries: plans.iter().map(entry).collect(), line_failures: 0 }
    }

    /// The next device and when it is due. There is always one: a line without devices is not run.
    pub(super) fn next(&self) -> (usize, Instant) {
        let due = self.entries.iter().map(|entry| entry.due).enumerate().min_by_key(|(index, due)| (*due, *index));
        due.expect("a line has at least one device")
    }

    /// The device answered, if only to refuse.
    pub(super) fn answered(&mut self, index: usize, now: Instant) {
        self.line_failures = 0;
        let nobody_answered = self.entries.iter().all(|entry| entry.failures > 0);
        let entry = &mut self.entries[index];
        entry.failures = 0;
        // On from when it was due, not from now: the interval holds on average. What was missed is not made up for.
        entry.due = (entry.due + entry.interval).max(now);
        if nobody_answered {
            // Probably the whole line was dead: ask the others at once too.
            for (_, other) in self.entries.iter_mut().enumerate().filter(|(other, _)| *other != index) {
                other.due = other.due.min(now);
            }
        }
    }

    /// The device did not answer, or not usably.
    pub(super) fn silent(&mut self, index: usize, now: Instant) {
        self.line_failures = 0;
        let others_answer = self.entries.iter().enumerate().any(|(other, entry)| other != index && entry.failures == 0);
        let entry = &mut self.entries[index];
        entry.failures = entry.failures.saturating_add(1);
        let most = if others_answer {
            (entry.cost * SHARE).min(MOST_WAIT_SHARED).max(entry.most_wait_alone)
        } else {
            entry.most_wait_alone
        };
        entry.due = now + doubled(entry.failures, most).max(entry.interval.min(most));
    }

    /// The line could not be opened or broke: all wait alike.
    pub(super) fn line_down(&mut self, now: Instant) {
        self.line_failures = self.line_failures.saturating_add(1);
        let most = self.entries.iter().map(|entry| entry.most_wait_alone).min().unwrap_or(MOST_WAIT_METER);
        let due = now + doubled(self.line_failures, most);
        for entry in &mut self.entries {
            entry.due = due;
        }
    }
}

fn doubled(failures: u32, most: Duration) -> Duration {
    FIRST_WAIT.saturating_mul(1 << (failures.saturating_sub(1)).min(16)).min(most)
}
