//! What a circuit carries: what its EVSEs may draw, and what everything else does, also while its meter is silent or not to be believed.

use super::Site;
use super::alarms::FIRST_READING_MS;
use super::background::FedIn;
use super::conduct::SEEN_WITHIN_MS;
use super::io::{LogLevel, Output};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::topology::{CircuitIndex, EvseIndex, InverterRole, MeterIndex};
use crate::engine::plan::BackgroundSource;
use crate::engine::time::{Mono, Now, Sampled};
use crate::engine::units::{Current, PerPhase, PhaseSet};

/// What a circuit is planned with while its meter gives no reading that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LossStage {
    /// Its unmeasured load, and never less than what was last seen.
    StaticBudget,
    /// Nothing is known: only the fallbacks are given out.
    FallbackOnly,
}

impl LossStage {
    /// The stage in words, for an alarm.
    const fn sentence(self) -> &'static str {
        match self {
            Self::StaticBudget => {
                "Stage 2 of 3: its circuit is planned with `unmeasured_load_a`, and never with less than was last seen"
            }
            Self::FallbackOnly => "Stage 3 of 3: in its circuit only the fallbacks are given out",
        }
    }
}

impl Site {
    /// Whether it learns which phases cars use.
    #[must_use]
    pub const fn learns_phases(&self) -> bool {
        self.setup.charging.learn_car_phases
    }

    /// The grid phases that an EVSE counts on: those that its car uses where that was learned, else all that it is wired to.
    #[must_use]
    pub fn phases_of(&self, index: EvseIndex, now: Mono) -> PhaseSet {
        let station = self.setup.topology.station(self.setup.topology.evse(index).station);
        let wired = station.wiring.phases();
        if !self.setup.charging.learn_car_phases || !station.wiring.is_known() || !self.reachable(index) {
            return wired;
        }
        self.evses[index.0].phases.learned(now, self.sample_gap_ms(index)).unwrap_or(wired)
    }

    /// The most that an EVSE counts with on each grid phase. Until every meter has shown that one above its limit is down again, a meter's
    /// reading holds what it drew, and that must not be counted as the load of others. The same goes for one that counted with more
    /// while it was silent: what the meters showed meanwhile may have been taken for its own.
    pub(super) fn committed(&self, index: EvseIndex, now: Mono) -> PerPhase<Current> {
        let told = self.evses[index.0].tether.committed(self.reachable(index), now);
        let told = self.may_draw(index, told, now, |at| self.is_unseen(index, at));
        if !self.is_doubted(index, now) {
            return told;
        }
        let wiring = self.setup.topology.station(self.setup.topology.evse(index).station).wiring;
        let silent = self.evses[index.0].tether.committed(false, now);
        told.zip_with(wiring.phases().spread(silent), Current::max)
    }

    /// Whether its station was silent until just now, and a meter above it still shows that time: what it showed may have been taken for what
    /// the station drew.
    pub(super) fn is_doubted(&self, index: EvseIndex, now: Mono) -> bool {
        let topology = &self.setup.topology;
        let evse = topology.evse(index);
        let heard = self.stations[evse.station.0].heard_again.filter(|at| now.since(*at) < SEEN_WITHIN_MS);
        let Some(heard) = heard else { return false };
        let mut above = topology.path_to_grid(evse.circuit);
        above.any(|circuit| self.backgrounds[circuit.0].counts_from().is_some_and(|from| from < heard))
    }

    /// Whether it has just accepted its first limit since its station was silent. Nobody knows whether it still had the one of before: what its
    /// car may draw while it follows counts against the circuits, and is not believed to be what a meter shows.
    fn was_silent(&self, index: EvseIndex, now: Mono) -> bool {
        let station = self.setup.topology.evse(index).station;
        let (heard, told) = (self.stations[station.0].heard_again, self.evses[index.0].told_again_at);
        let reaction_ms = self.setup.topology.station(station).model.reaction_ms;
        told.is_some_and(|at| Some(at) >= heard && now.since(at) < reaction_ms)
    }

    /// The most that an EVSE may be drawing now. Less than [`Site::committed`] once one above its limit is down, or a silent one is heard again:
    /// what a reading says of the other load from then on must be there before that current is given out again. And less than that while
    /// a raise waits in the queue: what has not left yet cannot flow.
    pub(super) fn most_drawn(&self, index: EvseIndex, now: Mono) -> PerPhase<Current> {
        let tether = &self.evses[index.0].tether;
        let waiting = tether.pending().filter(|pending| self.is_queued(index, *pending)).map(|pending| pending.sent);
        let told = if self.was_silent(index, now) {
            tether.in_force(waiting, now)
        } else {
            tether.committed_without(waiting, self.reachable(index), now)
        };
        self.may_draw(index, told, now, |_| false)
    }

    /// What an EVSE may draw that may draw `told` by what it was told. One above its limit counts with what it draws, also when it falls silent.
    fn may_draw(
        &self,
        index: EvseIndex,
        told: Current,
        now: Mono,
        unseen: impl FnOnce(Mono) -> bool,
    ) -> PerPhase<Current> {
        let told = self.phases_of(index, now).spread(told);
        // A car that was taken to leave a phase may draw a little there.
        let measured = self.fresh_measured(index, now).filter(|_| self.setup.charging.learn_car_phases);
        let told = measured.map_or(told, |measured| told.zip_with(measured.sure, Current::max));
        let conduct = &self.evses[index.0].conduct;
        conduct.drawn(now, unseen).map_or(told, |drawn| told.zip_with(drawn, Current::max))
    }

    /// Whether a meter above an EVSE still shows what was at a time.
    pub(super) fn is_unseen(&self, index: EvseIndex, at: Mono) -> bool {
        let topology = &self.setup.topology;
        let mut above = topology.path_to_grid(topology.evse(index).circuit);
        above.any(|circuit| self.backgrounds[circuit.0].seen().is_some_and(|seen| seen.from < at))
    }

    /// What everything but the EVSEs draws in a circuit, and how that is known.
    pub(super) fn background_of(&self, index: CircuitIndex, now: Mono) -> (PerPhase<Current>, BackgroundSource) {
        let circuit = self.setup.topology.circuit(index);
        let zero = PerPhase::splat(Current::ZERO);
        let Some(meter) = circuit.meter else {
            return match circuit.unmeasured_load {
                Some(assumed) => (assumed + self.batteries(index), BackgroundSource::Configured),
                None => (zero, BackgroundSource::None),
            };
        };
        let stale_after_ms = self.setup.topology.meters()[meter.0].stale_after_ms;
        if let Some(measured) = self.backgrounds[index.0].fresh(now, stale_after_ms) {
            return (measured, BackgroundSource::Meter);
        }
        // While the meter is silent the assumption holds, but never less than what was last seen.
        let last = self.backgrounds[index.0].last_known().unwrap_or(zero);
        let assumed = circuit.unmeasured_load.unwrap_or(zero) + self.batteries(index);
        let source = match self.loss_stage(index, now) {
            LossStage::StaticBudget => BackgroundSource::Configured,
            LossStage::FallbackOnly => BackgroundSource::Unknown,
        };
        (assumed.zip_with(last, Current::max), source)
    }

    /// What a circuit whose meter gives no reading is planned with by now.
    fn loss_stage(&self, index: CircuitIndex, now: Mono) -> LossStage {
        let circuit = self.setup.topology.circuit(index);
        let last = circuit.meter.and_then(|meter| self.meters[meter.0].last.as_ref().map(Sampled::at));
        let lost_ms = now.since(last.unwrap_or(self.started));
        let given_up = self.setup.charging.meter_lost_after_ms.is_some_and(|after| lost_ms > after);
        if circuit.unmeasured_load.is_none() || given_up { LossStage::FallbackOnly } else { LossStage::StaticBudget }
    }

    /// What the batteries inside a circuit may draw when nobody measures them: their rated current, where that is configured.
    fn batteries(&self, index: CircuitIndex) -> PerPhase<Current> {
        let topology = &self.setup.topology;
        let inside = topology.inverters().iter().filter(|inverter| match inverter.role {
            InverterRole::Battery | InverterRole::Hybrid => {
                topology.path_to_grid(inverter.circuit).any(|above| above == index)
            }
            InverterRole::Pv => false,
        });
        PerPhase::splat(inside.filter_map(|inverter| inverter.max).sum())
    }

    /// What the inverters inside a circuit feed in. It is not given out, since it can vanish within a second: unless the configuration says so.
    pub(super) fn fed_in(&self, index: CircuitIndex, now: Mono) -> FedIn {
        let mut sum = FedIn::default();
        if self.setup.charging.count_feed_in {
            return sum;
        }
        let topology = &self.setup.topology;
        for (inverter, state) in topology.inverters().iter().zip(&self.inverters) {
            if !topology.path_to_grid(inverter.circuit).any(|above| above == index) {
                continue;
            }
            let rated = PerPhase::splat(inverter.max.unwrap_or_default());
            let stale = state.last.as_ref().is_none_or(|last| last.fresh(now, inverter.stale_after_ms).is_none());
            match state.fed_in {
                Some(fed_in) if stale => sum.high += fed_in.high,
                Some(fed_in) => {
                    sum.low += fed_in.low;
                    sum.high += fed_in.high;
                }
                None => sum.high += rated,
            }
        }
        sum
    }

    /// Holds the meters against what the chargers do, and says what is the matter with them.
    pub(super) fn watch_trust(&mut self, now: Now, out: &mut Vec<Output>) {
        for index in (0..self.backgrounds.len()).map(CircuitIndex) {
            let Some(meter) = self.setup.topology.circuit(index).meter else { continue };
            let drawn = self.at_rest_below(index, now.mono);
            let seen = self.backgrounds[index.0].seen();
            let gauge = &mut self.meters[meter.0].gauge;
            let before = gauge.doubt();
            gauge.chargers(drawn, seen, now.mono);
            let doubt = gauge.doubt();
            self.backgrounds[index.0].trust(doubt.is_none());
            if doubt != before {
                self.dirty = true;
            }
            self.say_trust(meter, now, out);
        }
    }

    fn say_trust(&mut self, meter: MeterIndex, now: Now, out: &mut Vec<Output>) {
        let id = self.setup.topology.meters()[meter.0].id.clone();
        let Some(doubt) = self.meters[meter.0].gauge.doubt() else {
            return self.clear(AlarmKind::MeterUntrusted, id.as_str(), now, out);
        };
        self.restate(
            (AlarmKind::MeterUntrusted, id.as_str(), Severity::Critical),
            format!("Meter {id} {}.", doubt.sentence()),
            "Its readings are not used: its circuit is planned as if it were silent. Check its wiring, the direction and the order of its \
             transformers, and `phases` of the chargers.",
            (now, out),
        );
    }

    /// What the chargers below a circuit draw, while all of them have had time to follow their limits, and when the oldest of the
    /// samples was taken; `None` while that is not known.
    fn at_rest_below(&self, circuit: CircuitIndex, now: Mono) -> Option<(Mono, PerPhase<Current>)> {
        let mut sum = PerPhase::splat(Current::ZERO);
        let mut oldest = now;
        for index in self.setup.topology.evses_below(circuit).iter().copied() {
            let most = self.evses[index.0].tether.committed(self.reachable(index), now);
            if !self.is_charging(index) {
                if !self.reachable(index) && most > Current::ZERO {
                    return None;
                }
                continue;
            }
            let (at, sample) = self.settled_sample(index, now)?;
            if sample.sure != sample.current {
                return None;
            }
            sum += sample.current;
            oldest = oldest.min(at);
        }
        Some((oldest, sum))
    }

    pub(super) fn watch_meter(&mut self, index: MeterIndex, now: Now, out: &mut Vec<Output>) {
        let meter = self.setup.topology.meters()[index.0].clone();
        let state = &self.meters[index.0];
        let fresh = state.last.as_ref().is_some_and(|last| last.fresh(now.mono, meter.stale_after_ms).is_some());
        self.say_period(index, meter.stale_after_ms, out);
        if fresh {
            return self.clear(AlarmKind::MeterLost, meter.id.as_str(), now, out);
        }
        if now.mono.since(self.started) < FIRST_READING_MS.max(meter.stale_after_ms) {
            return;
        }
        let state = &self.meters[index.0];
        let why = state.fault.as_ref().map_or_else(|| "no reading came".to_owned(), ToString::to_string);
        self.dirty = true;
        let circuits = self.setup.topology.circuits();
        let circuit = circuits.iter().position(|circuit| circuit.meter == Some(index)).map(CircuitIndex);
        let stage = circuit.map_or("No circuit uses it", |circuit| self.loss_stage(circuit, now.mono).sentence());
        self.restate(
            (AlarmKind::MeterLost, meter.id.as_str(), Severity::Critical),
            format!("Meter {} gives no reading: {why}. {stage}.", meter.id),
            "Check its power, wiring, address and unit_id.",
            (now, out),
        );
    }

    /// Says once that a meter is slower than it is asked.
    fn say_period(&mut self, index: MeterIndex, stale_after_ms: u64, out: &mut Vec<Output>) {
        let state = &mut self.meters[index.0];
        let slow = state.gauge.known_period_ms().is_some_and(|period| period > stale_after_ms);
        if slow == std::mem::replace(&mut state.is_slow, slow) {
            return;
        }
        let id = &self.setup.topology.meters()[index.0].id;
        let period_s = self.meters[index.0].gauge.known_period_ms().unwrap_or(0) / 1_000;
        let message = if slow {
            format!(
                "meter {id} answers, but shows new values only every {period_s} s: raises wait until it has seen the last one"
            )
        } else {
            format!("meter {id} shows new values every {period_s} s now")
        };
        super::log(out, LogLevel::Info, message);
    }
}
