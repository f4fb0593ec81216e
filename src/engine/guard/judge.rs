//! The rule itself: may a frame leave, what of it may, and does the site lower where it must?

use super::hold::Ms;
use super::rows::{Amount, Change, Row, What};
use super::wire::{self, Profile, Sent};
use super::{Guard, View, ms};
use crate::engine::model::topology::{CircuitIndex, EvseIndex, StationIndex};
use crate::engine::time::{Mono, Now};
use crate::engine::units::{Current, PerPhase};

/// A meter is believed so much longer than it is declared to be fresh.
const STALE_SLACK_MS: u64 = 2_000;

/// A station that has left a call open for longer cannot be cut now.
const ANSWERS_WITHIN_MS: Ms = 3_000;

impl Guard {
    /// Why a frame may not leave as it is: where, in words, and what the EVSE may draw instead.
    pub(super) fn refuse(
        &self,
        station: StationIndex,
        change: &Change,
        what: &Sent,
        now: Now,
    ) -> Option<(CircuitIndex, String, Option<Current>)> {
        let settings = self.topology.station(station);
        let mut worst: Option<(CircuitIndex, String, Current)> = None;
        for circuit in self.topology.path_to_grid(settings.circuit) {
            let id = &self.topology.circuit(circuit).id;
            if self.circuits[circuit.0].frozen && !self.is_cut(station, what, now) {
                return Some((circuit, format!("circuit {id} is above its limit and is not lowered"), None));
            }
            if change.rise == Current::ZERO {
                continue;
            }
            let other = self.other_load(circuit, now.mono);
            if other.is_none() && change.highest > settings.fallback {
                let why = format!(
                    "the meter of circuit {id} is silent: nothing above the fallback of {} may be given out",
                    settings.fallback
                );
                return Some((circuit, why, Some(settings.fallback)));
            }
            for row in self.rows(circuit, other).chain(self.unbalance(circuit, now.mono)) {
                let may = row.fits(change);
                if row.is_exceeded_by(&change.more) && worst.as_ref().is_none_or(|(_, _, least)| may < *least) {
                    let (rise, left) = (change.rise, self.left_in_words(&row));
                    let why = format!("{} may draw {rise} more than before, and circuit {id} has {left}", settings.id);
                    worst = Some((circuit, why, may));
                }
            }
        }
        worst.map(|(circuit, why, may)| (circuit, why, Some(may)))
    }

    /// What a circuit is proven or declared to carry besides the EVSEs; `None`: nothing is known of it.
    fn other_load(&self, circuit: CircuitIndex, now: Mono) -> Option<PerPhase<Current>> {
        let settings = self.topology.circuit(circuit);
        let zero = PerPhase::splat(Current::ZERO);
        let Some(meter) = settings.meter else { return Some(settings.unmeasured_load.unwrap_or(zero)) };
        let fresh_ms = self.topology.meters()[meter.0].stale_after_ms + STALE_SLACK_MS;
        let proven = self.circuits[circuit.0].proven;
        let last = proven.map_or(zero, |(load, _)| load.map(Current::at_least_zero));
        match (proven.filter(|(_, at)| now.since(*at) <= fresh_ms), settings.unmeasured_load) {
            (Some(_), _) => Some(last),
            (None, Some(assumed)) => Some(assumed.zip_with(last, Current::max)),
            (None, None) => None,
        }
    }

    /// In words, if a circuit stays above its limit although a station that answers was not cut.
    pub(super) fn neglected(&self, circuit: CircuitIndex, now: Mono) -> Option<String> {
        let other = self.other_load(circuit, now);
        let is_exceeded = |row: &Row| row.left + row.tolerance() < 0;
        if !self.rows(circuit, other).any(|row| is_exceeded(&row)) {
            return None;
        }
        let (mut spared, mut could) = (Amount::default(), None);
        for index in self.topology.evses_below(circuit).iter().copied() {
            let (state, evse) = (&self.evses[index.0], self.topology.evse(index));
            let answers = self.answers(evse.station, now) && !state.refused;
            let Some(newest) = state.newest.filter(|_| answers) else { continue };
            let station = self.topology.station(evse.station);
            spared.add((state.view.most - newest).at_least_zero(), self.phases_of(index), self.slots_of(index));
            if newest > station.min && state.view.most > station.min {
                could = Some((station, evse.number, newest));
            }
        }
        let (station, number, newest) = could?;
        let concerns = |row: &Row| match row.what {
            What::Phase(phase) => station.wiring.phases().contains(phase),
            What::Power(_) | What::Charging(_) => true,
            What::Unbalance(..) => false,
        };
        let rest = self.rows(circuit, other).map(|row| Row { left: row.left + row.taken_by(&spared), ..row });
        let worst = rest.filter(|row| concerns(row) && is_exceeded(row)).min_by_key(|row| row.left)?;
        Some(format!(
            "Circuit {} may be {} by what was sent, and {} connector {number} was not cut below {newest}. Nothing but less is sent there until it fits.",
            self.topology.circuit(circuit).id,
            self.above_in_words(&worst),
            station.id
        ))
    }

    /// Whether a frame lowers what it is about, or gives nothing anyhow.
    fn is_cut(&self, station: StationIndex, what: &Sent, now: Now) -> bool {
        let Sent::Profile(profile) = what else { return false };
        let limit = self.now_by(station, profile, now);
        let evse = self.topology.find_evse(station, profile.evse);
        let newest = evse.and_then(|evse| self.evses[evse.0].newest);
        limit <= self.topology.station(station).min || newest.is_some_and(|newest| limit < newest)
    }

    /// The frame with the highest limits that are safe, if it can be lowered at all.
    pub(super) fn lowered(
        &self,
        station: StationIndex,
        text: &str,
        what: &Sent,
        (room, before): (Option<Current>, &[(EvseIndex, View)]),
        now: Now,
    ) -> Option<String> {
        let (Sent::Profile(profile), Some(room)) = (what, room) else { return None };
        let evse = self.topology.find_evse(station, profile.evse)?;
        let settings = self.topology.station(station);
        let has = before.iter().find(|(index, _)| *index == evse).map_or(Current::ZERO, |(_, view)| view.most);
        let may = room.max(has);
        let step = settings.model.levels.iter().copied().filter(|level| *level <= may).max();
        let stepped = if settings.model.levels.is_empty() {
            may.floor_to(settings.model.step).floor_to(Current::from_ma(100))
        } else {
            step.unwrap_or(Current::ZERO)
        };
        let safe = if stepped < settings.min { Current::ZERO } else { stepped };
        let scale = self.scale(station, now);
        let limits: Vec<Option<String>> = scale
            .moments(profile)
            .into_iter()
            .zip(&profile.periods)
            .map(|(begins, period)| {
                let limit = scale.current(profile, *period);
                let later = begins > ms(now.mono) && scale.is_lease_end(begins, limit);
                // In the unit of the text: thousandths, rounded down to tenths.
                let thousandths = period.1 * i64::from(safe.ma()) / i64::from(limit.ma().max(1));
                (limit > safe && !later).then(|| format!("{}.{}", thousandths / 1000, thousandths % 1000 / 100))
            })
            .collect();
        let lowered = wire::rewrite(text, &limits)?;
        // It must be understood as meant.
        let (_, read) = wire::sent(&lowered);
        let (_, after) = self.held_after(station, "", &read, now);
        let change = self.change(before, &after);
        self.refuse(station, &change, &read, now).is_none().then_some(lowered)
    }

    /// The limit that a profile sets now.
    pub(super) fn now_by(&self, station: StationIndex, profile: &Profile, now: Now) -> Current {
        let scale = self.scale(station, now);
        let mut begun =
            scale.moments(profile).into_iter().zip(&profile.periods).filter(|(from, _)| *from <= ms(now.mono));
        begun.next_back().map_or(Current::MAX, |(_, period)| scale.current(profile, *period))
    }

    fn answers(&self, station: StationIndex, now: Mono) -> bool {
        let state = &self.stations[station.0];
        state.connected && state.open.values().all(|sent| ms(now) - sent <= ANSWERS_WITHIN_MS)
    }
}
