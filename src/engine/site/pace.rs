//! How fast limits may rise, and how long a circuit may use its short-time rating. Cuts are never held back by anything here but that rating.

use super::Site;
use crate::engine::model::topology::{CircuitIndex, EvseIndex, ShortTime};
use crate::engine::plan::LimitSource;
use crate::engine::time::Mono;
use crate::engine::units::{Current, PerPhase};

/// Raises are counted over this time.
const MINUTE_MS: u64 = 60_000;

/// A ramp saves up at most what it gives in this time, or one minimum.
const SAVED_S: i32 = 10;

/// A meter that takes longer than this for new values is slower than the cars (IEC 61851-1: 5 s).
const SLOW_MS: u64 = 5_000;

/// Where a circuit is in the use of its short-time rating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rating {
    /// It may be used.
    #[default]
    Ready,
    /// It is in use since then.
    Used(Mono),
    /// It has been used for as long as it may be.
    Spent,
    /// The load is below the continuous limit since then.
    Rests(Mono),
}

impl Rating {
    /// The state after a look at the load: is it `above` the continuous limit?
    fn after(self, above: bool, lasts_ms: u64, now: Mono) -> Self {
        match (self, above) {
            (Self::Ready, true) => Self::Used(now),
            (Self::Ready, false) => Self::Ready,
            (Self::Used(since), true) if now.since(since) >= lasts_ms => Self::Spent,
            (Self::Used(since), true) => Self::Used(since),
            (Self::Used(_) | Self::Spent, false) => Self::Rests(now),
            (Self::Spent, true) => Self::Spent,
            // As long again must pass below the limit: anything above it begins that time anew.
            (Self::Rests(_), true) => Self::Spent,
            (Self::Rests(since), false) if now.since(since) >= lasts_ms => Self::Ready,
            (Self::Rests(since), false) => Self::Rests(since),
        }
    }
}

/// The pace of one circuit.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    rating: Rating,
    /// When an EVSE below was raised last.
    raised_at: Option<Mono>,
    /// Its meter is slower than the cars and has not seen what came of that.
    waits: bool,
    /// Since when each new reading of its meter has been above its limit.
    pub(super) overload_since: Option<Mono>,
}

/// What a ramp has saved up for raises.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ramp {
    saved: Current,
    /// What is less than a mA yet, in mA·ms.
    rest: i64,
    filled_at: Option<Mono>,
}

impl Site {
    /// The load of each circuit by the state that is about to be planned with.
    fn planned_load(&self) -> Vec<PerPhase<Current>> {
        let circuits = self.plan_state.circuits.iter().enumerate();
        circuits.map(|(index, state)| state.background + self.committed_below(CircuitIndex(index))).collect()
    }

    /// Lets a circuit above its continuous limit keep what flows, up to its short-time rating and for as long as that lasts: a load that
    /// comes for a minute does not pause cars. Nothing is raised there meanwhile. When a rating in use ends.
    pub(super) fn use_short_time(&mut self, now: Mono) -> Option<Mono> {
        if self.setup.topology.circuits().iter().all(|circuit| circuit.short_time.is_none()) {
            return None;
        }
        let load = self.planned_load();
        let mut ends: Option<Mono> = None;
        for index in 0..load.len() {
            let Some(ShortTime { limit: rated, lasts_ms }) = self.setup.topology.circuits()[index].short_time else {
                continue;
            };
            let state = &mut self.plan_state.circuits[index];
            // A limit from outside is not a matter of what the circuit bears.
            if state.limit_source != LimitSource::Configured {
                continue;
            }
            let above = load[index].zip_with(state.limit, |load, limit| load > limit);
            let rating = &mut self.paces[index].rating;
            *rating = rating.after(above.iter().any(|(_, above)| *above), lasts_ms, now);
            let Rating::Used(since) = *rating else { continue };
            state.limit = state.limit.zip_with(load[index], |limit, load| limit.max(load.min(rated)));
            let end = since.plus_ms(lasts_ms);
            ends = Some(ends.map_or(end, |earlier| earlier.min(end)));
            self.hold_below(CircuitIndex(index));
        }
        ends
    }

    fn hold_below(&mut self, circuit: CircuitIndex) {
        let topology = &self.setup.topology;
        for (index, state) in self.plan_state.evses.iter_mut().enumerate() {
            let evse = topology.evse(EvseIndex(index));
            state.hold |= topology.path_to_grid(evse.circuit).any(|above| above == circuit);
        }
    }

    /// Whether an EVSE may not be raised now: it was raised too often, a slow meter above it has not seen the last raise yet, or one still shows
    /// what it drew above its limit, which looks like the load of others.
    pub(super) fn is_held(&self, index: EvseIndex, now: Mono) -> bool {
        let raises = &self.evses[index.0].raises;
        let recent = raises.iter().filter(|at| now.since(**at) < MINUTE_MS).count();
        let topology = &self.setup.topology;
        recent >= self.setup.charging.raises_per_minute
            || topology.path_to_grid(topology.evse(index).circuit).any(|circuit| self.paces[circuit.0].waits)
            || self.evses[index.0].conduct.settled_at(now).is_some_and(|at| self.is_unseen(index, at))
    }

    /// Notes which circuits wait for their meters before anything below them is raised again.
    pub(super) fn note_waits(&mut self, now: Mono) {
        for index in 0..self.paces.len() {
            self.paces[index].waits = self.waits_for_meter(CircuitIndex(index), now);
        }
    }

    /// Whether a circuit's meter is slower than the cars and has not seen what came of the last raise.
    fn waits_for_meter(&self, index: CircuitIndex, now: Mono) -> bool {
        let Some(meter) = self.setup.topology.circuit(index).meter else { return false };
        let Some(raised_at) = self.paces[index.0].raised_at else { return false };
        if self.meters[meter.0].gauge.period_ms(now) <= SLOW_MS {
            return false;
        }
        let seen = self.backgrounds[index.0].seen();
        seen.is_none_or(|seen| seen.from < raised_at.plus_ms(SLOW_MS)) && !self.is_paid_for(index)
    }

    /// Whether the EVSEs may draw clearly less than what the meter has seen them draw at most: then a raise is paid for by cuts, and not by what
    /// the meter is believed to leave free.
    fn is_paid_for(&self, index: CircuitIndex) -> bool {
        let Some(seen) = self.backgrounds[index.0].most_seen() else { return false };
        let least = self.setup.topology.stations().iter().map(|station| station.min).min().unwrap_or_default();
        (seen - self.committed_below(index)).min() >= least
    }

    /// What the ramp leaves for raises below a circuit; the ramp is that of the grid connection point.
    pub(super) fn ramp_of(&self, index: CircuitIndex) -> Option<Current> {
        self.setup.charging.ramp_per_s.filter(|_| index == CircuitIndex(0)).map(|_| self.ramp.saved)
    }

    /// Time has passed: the ramp has more to give.
    pub(super) fn fill_ramp(&mut self, now: Mono) {
        let Some(per_s) = self.setup.charging.ramp_per_s else { return };
        let least = self.setup.topology.stations().iter().map(|station| station.min).max().unwrap_or_default();
        let most = least.max(Current::from_ma(per_s.ma().saturating_mul(SAVED_S)));
        let elapsed_ms = self.ramp.filled_at.replace(now).map_or(0, |at| now.since(at)).min(MINUTE_MS);
        let gained = i64::from(per_s.ma()) * i64::try_from(elapsed_ms).unwrap_or(0) + self.ramp.rest;
        self.ramp.rest = gained % 1_000;
        let gained = Current::from_ma(i32::try_from(gained / 1_000).unwrap_or(i32::MAX));
        self.ramp.saved = (self.ramp.saved + gained).min(most);
        if let Some(root) = self.plan_state.circuits.first_mut() {
            root.ramp = Some(self.ramp.saved);
        }
    }

    /// A raise as far as the pace allows it now: 0 if not at all.
    pub(super) fn paced(&self, index: EvseIndex, wanted: Current) -> Current {
        let Some(state) = self.plan_state.evses.get(index.0) else { return Current::ZERO };
        if state.hold {
            return Current::ZERO;
        }
        let Some(saved) = self.ramp_of(CircuitIndex(0)) else { return wanted };
        let reach = state.committed.max() + saved;
        if wanted <= reach {
            return wanted;
        }
        let reach = reach.floor_to(state.step);
        if reach >= state.min { reach } else { Current::ZERO }
    }

    /// A raise has left.
    pub(super) fn raised(&mut self, index: EvseIndex, limit: Current, now: Mono) {
        let raises = &mut self.evses[index.0].raises;
        raises.retain(|at| now.since(*at) < MINUTE_MS);
        raises.push_back(now);
        let before = self.plan_state.evses.get(index.0).map_or(Current::ZERO, |state| state.committed.max());
        self.ramp.saved -= (limit - before).at_least_zero().min(self.ramp.saved);
        for circuit in self.setup.topology.path_to_grid(self.setup.topology.evse(index).circuit).collect::<Vec<_>>() {
            self.paces[circuit.0].raised_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_rating_lasts_and_then_rests_as_long() {
        let at = Mono::from_ms;
        let mut rating = Rating::Ready;
        let mut look = |above: bool, second: u64| {
            rating = rating.after(above, 60_000, at(second * 1_000));
            matches!(rating, Rating::Used(_))
        };
        assert!(!look(false, 0));
        assert!(look(true, 10));
        assert!(look(true, 69));
        assert!(!look(true, 70), "a minute is over");
        assert!(!look(true, 300));
        assert!(!look(false, 301));
        assert!(!look(true, 330), "it has rested for half a minute only");
        assert!(!look(false, 340));
        assert!(!look(false, 399));
        assert!(!look(false, 400));
        assert!(look(true, 401));
    }
}
