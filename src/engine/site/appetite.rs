//! What a car takes of what it is offered: what it leaves is reclaimed for others, and handed back as soon as it wants it.

use super::io::Output;
use super::{Purpose, Site};
use crate::engine::model::exchange::{StationCall, StationReply};
use crate::engine::model::topology::{CircuitIndex, EvseIndex};
use crate::engine::ocpp::Priority;
use crate::engine::time::{Mono, Now};
use crate::engine::units::{Current, PerPhase};

/// A car that leaves more than this unused, for [`UNUSED_MS`], is offered no more than what it takes and this on top.
const UNUSED: Current = Current::from_a(2);

/// See [`UNUSED`].
const UNUSED_MS: u64 = 30_000;

/// A car within this of its offer uses all of it.
const USES_ALL: Current = Current::from_a(1);

/// When the meter rises by this, it may be a car that wants more than it is offered.
const RISE: Current = Current::from_ma(800);

/// A station is asked for a sample at most so often.
const ASK_MS: u64 = 3_000;

/// Where no fast meter sees a car's demand rise, it is asked so often.
const ASK_BLINDLY_MS: u64 = 5_000;

/// A meter faster than this sees a car rise sooner than its station says so.
const FAST_MS: u64 = 2_000;

/// What one car takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Appetite {
    /// It leaves something unused since then.
    unused_since: Option<Mono>,
    /// The most that it is known to take, with a margin.
    takes: Option<Current>,
    /// What the meter above it showed when its last sample came.
    meter_then: Option<PerPhase<Current>>,
    asked_at: Option<Mono>,
    /// Its station does not send samples when asked.
    not_asked: bool,
}

impl Appetite {
    /// The most that the car is known to take, if it leaves something.
    pub(super) const fn takes(&self) -> Option<Current> {
        self.takes
    }

    /// A sample of a car that had time to follow its offer.
    pub(super) fn sample(&mut self, drawn: Current, offered: Current, now: Mono) {
        if drawn + USES_ALL >= offered {
            // It uses all it has: hand back at once.
            self.takes = None;
            self.unused_since = None;
        } else if drawn + UNUSED < offered {
            let since = *self.unused_since.get_or_insert(now);
            if now.since(since) >= UNUSED_MS {
                self.takes = Some(drawn + UNUSED);
            }
        }
    }
}

impl Site {
    /// The current that the nearest meter above an EVSE shows, if that meter is fast.
    fn fast_meter_above(&self, index: EvseIndex, now: Mono) -> Option<PerPhase<Current>> {
        let topology = &self.setup.topology;
        let circuit: Vec<CircuitIndex> = topology.path_to_grid(topology.evse(index).circuit).collect();
        let meter = circuit.into_iter().find_map(|circuit| topology.circuit(circuit).meter)?;
        let state = &self.meters[meter.0];
        state.gauge.known_period_ms().filter(|period| *period <= FAST_MS)?;
        state.last.as_ref()?.fresh(now, topology.meters()[meter.0].stale_after_ms)?.current.complete()
    }

    /// What the meter shows at a sample: a rise after it may be the car's.
    pub(super) fn note_meter_at_sample(&mut self, index: EvseIndex, now: Mono) {
        self.evses[index.0].appetite.meter_then = self.fast_meter_above(index, now);
    }

    /// Asks the stations of cars whose current was reclaimed for a sample, when the meter says that one may want it back: with their own
    /// interval of many seconds it would have to wait too long.
    pub(super) fn ask_for_samples(&mut self, now: Now, out: &mut Vec<Output>) {
        for index in (0..self.evses.len()).map(EvseIndex) {
            if !self.wants_a_sample(index, now.mono) {
                continue;
            }
            let evse = self.setup.topology.evse(index);
            let appetite = &mut self.evses[index.0].appetite;
            appetite.asked_at = Some(now.mono);
            let call = StationCall::Trigger { message: "MeterValues".to_owned(), evse: Some(evse.number) };
            self.call(evse.station, call, (Priority::Background, Purpose::Sample(index)), now, out);
        }
    }

    fn wants_a_sample(&self, index: EvseIndex, now: Mono) -> bool {
        let control = &self.evses[index.0];
        let appetite = &control.appetite;
        if appetite.not_asked || !self.reachable(index) {
            return false;
        }
        if control.measured.is_none() && self.is_charging(index) {
            // After a start nobody knows what it draws; all of that counts as other load until its first sample.
            return appetite.asked_at.is_none();
        }
        if appetite.takes.is_none() {
            return false;
        }
        let station = self.setup.topology.station(self.setup.topology.evse(index).station);
        let age_ms = control.measured.as_ref().map_or(u64::MAX, |sample| sample.age_ms(now));
        let asked_ms = appetite.asked_at.map_or(u64::MAX, |at| now.since(at));
        let phases = station.wiring.phases();
        match (self.fast_meter_above(index, now), appetite.meter_then) {
            (Some(shown), Some(then)) => {
                let rose = phases.iter().any(|phase| shown.of(phase) - then.of(phase) >= RISE);
                rose && age_ms.min(asked_ms) >= ASK_MS.min(station.model.meter_interval_ms)
            }
            (Some(_) | None, _) => age_ms.min(asked_ms) >= ASK_BLINDLY_MS,
        }
    }

    /// The station's answer to the request for a sample.
    pub(super) fn sample_asked(&mut self, index: EvseIndex, reply: &StationReply) {
        self.evses[index.0].appetite.not_asked = !matches!(reply, StationReply::Accepted { .. });
    }
}
