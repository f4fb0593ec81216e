//! The physical truth against the limits: how long a circuit was above its limit, and by how much.

use siteward::engine::time::Mono;
use siteward::engine::units::{Current, PerPhase, Phase};

/// How long a circuit may be above its limit: a miniature circuit breaker carries 1.13 times its rating for an hour
/// (IEC 60898-1), and a rise of other loads takes a meter interval, a message and up to 5 s of the car (IEC 61851-1) to answer.
pub const GRACE_MS: u64 = 10_000;

/// What is known of one circuit.
#[derive(Clone, Debug)]
pub struct CircuitRecord {
    /// The circuit.
    pub id: String,
    /// Its limit on each phase.
    pub limit: Current,
    /// What flows now.
    pub current: PerPhase<Current>,
    /// The time above the limit, any phase, in ms.
    pub above_ms: u64,
    /// The time above the limit beyond the grace, in ms.
    pub beyond_grace_ms: u64,
    /// The most above the limit.
    pub overshoot: Current,
    since: PerPhase<Option<Mono>>,
    last: Option<Mono>,
}

impl CircuitRecord {
    /// A circuit of which nothing is known yet.
    #[must_use]
    pub fn new(id: &str, limit: Current) -> Self {
        Self {
            id: id.to_owned(),
            limit,
            current: PerPhase::splat(Current::ZERO),
            above_ms: 0,
            beyond_grace_ms: 0,
            overshoot: Current::ZERO,
            since: PerPhase::splat(None),
            last: None,
        }
    }

    /// Takes in what flows from `now` on. What flowed before counts up to `now`.
    pub fn sample(&mut self, current: PerPhase<Current>, now: Mono) {
        let passed = self.last.map_or(0, |last| now.since(last));
        let above = Phase::ALL.into_iter().any(|phase| self.since.of(phase).is_some());
        let longest =
            Phase::ALL.into_iter().filter_map(|phase| self.since.of(phase)).map(|since| now.since(since)).max();
        if above {
            self.above_ms += passed;
            self.beyond_grace_ms += longest.unwrap_or(0).saturating_sub(GRACE_MS).min(passed);
        }
        for phase in Phase::ALL {
            let excess = current.of(phase) - self.limit;
            let since = self.since.get_mut(phase);
            *since = if excess > Current::ZERO { Some(since.unwrap_or(now)) } else { None };
            self.overshoot = self.overshoot.max(excess);
        }
        self.current = current;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amperes(l1: i32) -> PerPhase<Current> {
        PerPhase::new(Current::from_a(l1), Current::ZERO, Current::ZERO)
    }

    #[test]
    fn time_above_the_limit_is_counted_and_beyond_the_grace_apart() {
        let mut record = CircuitRecord::new("grid", Current::from_a(100));
        for (at, current) in [(0, 90), (1_000, 110), (3_000, 100), (5_000, 105), (20_000, 80), (30_000, 80)] {
            record.sample(amperes(current), Mono::from_ms(at));
        }
        assert_eq!(record.above_ms, 2_000 + 15_000);
        assert_eq!(record.beyond_grace_ms, 5_000);
        assert_eq!(record.overshoot, Current::from_a(10));
    }
}
