//! What meters, inverters and stations measure, as the site keeps it.

use super::background::{Drawn, FedIn, Seen};
use super::clock::CLOCK_OFFSET_MS;
use super::gauge::Gauge;
use super::io::{LogLevel, Output};
use super::{Site, log};
use crate::engine::model::reading::{DeviceFault, InverterReading, MeterReading, StationReading};
use crate::engine::model::topology::{CircuitIndex, EvseIndex, InverterIndex, MeterIndex, StationIndex};
use crate::engine::time::{Mono, Now, Sampled};
use crate::engine::units::{Current, Energy, PerPhase, PhaseSet, Power, Voltage};

/// A meter as the site sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct MeterState {
    pub(super) last: Option<Sampled<MeterReading>>,
    pub(super) fault: Option<DeviceFault>,
    /// Whether it can be believed, and how often it measures.
    pub(super) gauge: Gauge,
    /// It shows new values less often than readings become stale.
    pub(super) is_slow: bool,
}

/// An inverter as the site sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct InverterState {
    pub(super) last: Option<Sampled<InverterReading>>,
    pub(super) fault: Option<DeviceFault>,
    /// What it feeds in by its last two readings; `None` before the first.
    pub(super) fed_in: Option<FedIn>,
    feeds: PerPhase<Current>,
}

/// What an EVSE was last measured to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    /// The most that it may draw on each grid phase.
    pub(super) current: PerPhase<Current>,
    /// What it draws there for certain: less only where it is not known which terminal is on which phase.
    pub(super) sure: PerPhase<Current>,
    /// The station names a current for each phase.
    by_phase: bool,
    pub(super) power: Option<Power>,
}

/// So long after it has connected a station may still send what it has kept meanwhile (OCPP 1.6 §4.7, errata 3.18).
const QUEUE_MS: u64 = 600_000;

/// From a reading above the limit to one that shows its cut, besides the car's time to follow: the tick, the way, and the meter.
const CUT_SEEN_MS: u64 = 3_000;

/// After so many of its own intervals a station's sample is not used any more.
const SAMPLE_INTERVALS: u64 = 3;

impl Site {
    pub(super) fn meter_polled(
        &mut self,
        meter: MeterIndex,
        asked_at: Mono,
        result: Result<MeterReading, DeviceFault>,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let id = &self.setup.topology.meters()[meter.0].id;
        // A circuit is protected on every phase or not at all: with a current missing the meter is as good as silent.
        let complete = |reading: &MeterReading| reading.current.complete().is_some();
        let result = match result {
            Ok(reading) if !complete(&reading) => Err(DeviceFault::Implausible("a phase has no current".to_owned())),
            other => other,
        };
        match result {
            Ok(reading) => {
                if self.meters[meter.0].fault.take().is_some() {
                    log(out, LogLevel::Info, format!("meter {id} can be read again"));
                }
                self.meters[meter.0].last = Some(Sampled::new(reading, asked_at));
                self.gather_meter(meter, &reading, (asked_at, now));
                if let Some(total) = reading.current.complete() {
                    let seen = self.meters[meter.0].gauge.take(&reading, asked_at);
                    self.take_background((meter, total), seen, asked_at, now);
                }
            }
            Err(fault) => {
                if self.meters[meter.0].fault.as_ref() != Some(&fault) {
                    log(out, LogLevel::Warn, format!("meter {id} cannot be read: {fault}"));
                }
                self.meters[meter.0].fault = Some(fault);
            }
        }
    }

    pub(super) fn inverter_polled(
        &mut self,
        inverter: InverterIndex,
        asked_at: Mono,
        result: Result<InverterReading, DeviceFault>,
        (_, out): (Now, &mut Vec<Output>),
    ) {
        let id = &self.setup.topology.inverters()[inverter.0].id;
        let state = &mut self.inverters[inverter.0];
        match result {
            Ok(reading) => {
                if state.fault.take().is_some() {
                    log(out, LogLevel::Info, format!("inverter {id} can be read again"));
                }
                state.last = Some(Sampled::new(reading, asked_at));
                if let Some(feeds) = fed_in(&reading, self.setup.topology.voltage()) {
                    let before = if state.fed_in.is_some() { state.feeds } else { feeds };
                    let low = before.zip_with(feeds, Current::min);
                    state.fed_in = Some(FedIn { low, high: before.zip_with(feeds, Current::max) });
                    state.feeds = feeds;
                }
            }
            Err(fault) => {
                if state.fault.as_ref() != Some(&fault) {
                    log(out, LogLevel::Warn, format!("inverter {id} cannot be read: {fault}"));
                }
                state.fault = Some(fault);
            }
        }
    }

    fn take_background(
        &mut self,
        (meter, total): (MeterIndex, PerPhase<Current>),
        seen: Option<Seen>,
        asked_at: Mono,
        now: Now,
    ) {
        let stale_after_ms = self.setup.topology.meters()[meter.0].stale_after_ms;
        for index in (0..self.backgrounds.len()).map(CircuitIndex) {
            if self.setup.topology.circuit(index).meter != Some(meter) {
                continue;
            }
            let drawn = self.drawn_below(index, now.mono);
            let fed_in = self.fed_in(index, now.mono);
            let background = &mut self.backgrounds[index.0];
            let was_fresh = background.fresh(now.mono, stale_after_ms).is_some();
            background.note(drawn, now.mono);
            match seen {
                Some(seen) => {
                    background.reading(total, fed_in, seen, asked_at);
                    self.note_overload(index, (total, fed_in), now.mono);
                }
                None => background.still(asked_at),
            }
            let too_full = self.is_too_full_by_now(index, now.mono);
            if too_full {
                self.recall_raises(Some(index), now.mono);
            }
            if too_full || !was_fresh {
                self.dirty = true;
            } else if seen.is_some() {
                self.plan_soon();
            }
        }
    }

    /// A circuit that stays above its limit for longer than a cut takes was cut in what its cars do not use.
    fn note_overload(&mut self, index: CircuitIndex, (total, fed_in): (PerPhase<Current>, FedIn), now: Mono) {
        let Some(state) = self.plan_state.circuits.get(index.0) else { return };
        let (circuit, voltage) = (self.setup.topology.circuit(index), self.setup.topology.voltage());
        let flows: Power = total.iter().map(|(_, current)| current.power_at(voltage)).sum();
        let above: PhaseSet = match state.power_limit(circuit) {
            // A power is that of all phases together.
            Some(power) if flows > power => PhaseSet::ALL,
            Some(_) | None => {
                let above = total.zip_with(state.limit, |total, limit| total > limit);
                above.iter().filter(|(_, above)| **above).map(|(phase, _)| phase).collect()
            }
        };
        let overload = &mut self.paces[index.0].overload_since;
        if above.is_empty() {
            *overload = None;
            return;
        }
        let since = *overload.get_or_insert(now);
        let topology = &self.setup.topology;
        let stations = topology.evses_below(index).iter().map(|evse| topology.station(topology.evse(*evse).station));
        let reaction_ms = stations.map(|station| station.model.reaction_ms).max().unwrap_or(0);
        if now.since(since) >= CUT_SEEN_MS + reaction_ms {
            self.backgrounds[index.0].insist(total, fed_in, above);
        }
    }

    fn drawn_below(&self, circuit: CircuitIndex, now: Mono) -> Drawn {
        let mut sum = Drawn::default();
        for index in self.setup.topology.evses_below(circuit) {
            sum += self.drawn_by(*index, now);
        }
        sum
    }

    /// Whether a transaction runs at an EVSE.
    pub(super) fn is_charging(&self, index: EvseIndex) -> bool {
        self.charging[index.0]
    }

    /// Notes where at a station transactions run. After each record of one: the question is asked much more often.
    pub(super) fn note_charging(&mut self, station: StationIndex) {
        self.tokens.revocation.look_again(station);
        let facts = self.ledger.station(self.station_id(station));
        let evses: Vec<EvseIndex> = self.setup.topology.evses_of(station).collect();
        for index in evses {
            let number = self.setup.topology.evse(index).number;
            self.charging[index.0] = facts.is_some_and(|facts| facts.transaction_at(number).is_some());
        }
    }

    /// What one EVSE draws now, as far as it is known.
    fn drawn_by(&self, index: EvseIndex, now: Mono) -> Drawn {
        let zero = PerPhase::splat(Current::ZERO);
        let most = self.most_drawn(index, now);
        if !self.reachable(index) {
            // Nobody knows what a silent station does: anything up to what it may.
            return Drawn { low: zero, high: most, least: zero, most };
        }
        if !self.is_charging(index) {
            return Drawn { low: zero, high: zero, least: zero, most };
        }
        let is_above = self.evses[index.0].conduct.is_above();
        let believed = |least: PerPhase<Current>| if is_above { zero } else { least };
        if let Some((_, sample)) = self.settled_sample(index, now) {
            let least = sample.sure.zip_with(most, Current::min);
            let high = sample.current.zip_with(most, Current::min);
            return Drawn { low: believed(least), high, least, most };
        }
        // It follows a change. After a cut the sample is too high: no more than what it may draw is sure to be left.
        let told = self.evses[index.0].tether.offered().map_or(most, |sent| most.map(|most| most.min(sent.limit)));
        let sample = self.fresh_measured(index, now).map_or(zero, |sample| sample.sure);
        let least = sample.zip_with(told, Current::min);
        // But if it was only cut since then, it draws no more than it did: else a cut of what it did not use would count as room.
        let high = self.unraised_sample(index, now).map_or(most, |sample| sample.current.zip_with(most, Current::min));
        Drawn { low: believed(least), high: high.zip_with(least, Current::max), least, most }
    }

    /// The last sample, if the car had time to follow its last raise before that.
    fn unraised_sample(&self, index: EvseIndex, now: Mono) -> Option<Measured> {
        let reaction_ms = self.setup.topology.station(self.setup.topology.evse(index).station).model.reaction_ms;
        let control = &self.evses[index.0];
        let sample = control.measured.as_ref()?;
        let value = *sample.fresh(now, self.sample_gap_ms(index))?;
        control.raised_at.is_none_or(|raised| sample.at() >= raised.plus_ms(reaction_ms)).then_some(value)
    }

    /// The last sample and when it came, if the car had time to follow its limit before that.
    pub(super) fn settled_sample(&self, index: EvseIndex, now: Mono) -> Option<(Mono, Measured)> {
        let reaction_ms = self.setup.topology.station(self.setup.topology.evse(index).station).model.reaction_ms;
        let control = &self.evses[index.0];
        let sample = control.measured.as_ref()?;
        let value = *sample.fresh(now, self.sample_gap_ms(index))?;
        let followed = control.moved_at.is_none_or(|moved| sample.at() >= moved.plus_ms(reaction_ms));
        (followed && !control.tether.is_settling(now)).then_some((sample.at(), value))
    }

    /// From this age on a station's sample says nothing any more.
    pub(super) fn sample_gap_ms(&self, index: EvseIndex) -> u64 {
        let evse = self.setup.topology.evse(index);
        self.setup.topology.station(evse.station).model.meter_interval_ms * SAMPLE_INTERVALS
    }

    /// The current that an EVSE was measured to draw, if the sample is fresh.
    pub(super) fn fresh_measured(&self, index: EvseIndex, now: Mono) -> Option<Measured> {
        self.evses[index.0].measured.as_ref().and_then(|sample| sample.fresh(now, self.sample_gap_ms(index))).copied()
    }

    /// Takes in what a station measures.
    pub(super) fn meter_values(
        &mut self,
        station: StationIndex,
        readings: &[StationReading],
        now: Now,
        out: &mut Vec<Output>,
    ) {
        for reading in readings {
            let number = self.evse_of_reading(station, reading);
            if let Some(index) = number.and_then(|number| self.setup.topology.find_evse(station, number)) {
                self.take_sample(index, reading, now, out);
            }
        }
        self.record_progress(station, readings, now, out);
    }

    /// Whether a reading comes from a station's queue: it was measured, by the station's own clock, before the connection over which it comes.
    /// A queue is empty some minutes after that; from then on a clock that nobody understands is no reason not to look at its samples.
    fn is_from_before(&self, station: StationIndex, reading: &StationReading, now: Now) -> bool {
        let connected_ms = now.mono.since(self.stations[station.0].since);
        let Some(at) = reading.at.filter(|_| connected_ms < QUEUE_MS) else { return false };
        let age_ms = self.station_time(station, now).since(at);
        age_ms > i64::try_from(connected_ms).unwrap_or(i64::MAX).saturating_add(CLOCK_OFFSET_MS)
    }

    fn evse_of_reading(&self, station: StationIndex, reading: &StationReading) -> Option<u32> {
        let by_transaction = reading.transaction.as_ref().and_then(|transaction| {
            let facts = self.ledger.station(self.station_id(station))?;
            Some(facts.transaction(transaction)?.facts.evse)
        });
        by_transaction.or((reading.evse != 0).then_some(reading.evse))
    }

    /// Takes in what one EVSE draws.
    pub(super) fn take_sample(&mut self, index: EvseIndex, reading: &StationReading, now: Now, out: &mut Vec<Output>) {
        if let Some(energy) = reading.energy {
            self.evses[index.0].energy = Some(energy);
        }
        // What was measured before the station came back says nothing of the current that flows now.
        if self.is_from_before(self.setup.topology.evse(index).station, reading, now) {
            return;
        }
        let Some(measured) = self.measured(index, reading) else { return };
        self.gather_sample(index, reading, &measured, now);
        let gap_ms = self.sample_gap_ms(index);
        let evse = self.setup.topology.evse(index);
        let wired = self.setup.topology.station(evse.station).wiring.phases();
        let control = &mut self.evses[index.0];
        control.measured = Some(Sampled::new(measured, now.mono));
        if measured.by_phase {
            let facts = self.ledger.station(&self.setup.topology.station(evse.station).id);
            let open = facts.and_then(|facts| facts.transaction_at(evse.number));
            control.phases.transaction(open.map(|open| &open.facts.transaction));
            control.phases.sample(measured.current, wired, now.mono, gap_ms);
        }
        self.judge_sample(index, measured.current, now, out);
        self.note_meter_at_sample(index, now.mono);
        self.plan_soon();
    }

    /// The current on the grid's phases: as reported by phase, or from a value without phase, or from the power.
    fn measured(&self, index: EvseIndex, reading: &StationReading) -> Option<Measured> {
        let station = self.setup.topology.station(self.setup.topology.evse(index).station);
        let voltage = self.setup.topology.voltage();
        if let Some(dc) = station.dc {
            // Its current may be that of the cable: only the power says what it draws.
            let power = reading.power?;
            let (sure, current) = dc.drawn_for(power, voltage, station.wiring)?;
            let (sure, current) = (station.wiring.phases().spread(sure), station.wiring.phases().spread(current));
            return Some(Measured { current, sure, by_phase: false, power: reading.power });
        }
        let each_terminal = reading.current.map(|value| value.map(Current::at_least_zero));
        if each_terminal.iter().any(|(_, value)| value.is_some()) {
            let (sure, current) = station.wiring.attribute(each_terminal);
            return Some(Measured { current, sure, by_phase: station.wiring.is_known(), power: reading.power });
        }
        let terminals = i64::try_from(station.wiring.terminals()).unwrap_or(3).max(1);
        let each = match (reading.current_total, reading.power) {
            (Some(each), _) => each.at_least_zero(),
            (None, Some(power)) => Power::from_w(power.w() / terminals).current_at(voltage)?.at_least_zero(),
            (None, None) => return None,
        };
        let all = station.wiring.attribute(PerPhase::splat(Some(each)));
        Some(Measured { current: all.1, sure: all.0, by_phase: false, power: reading.power })
    }

    /// The energy register of an EVSE, if it was ever reported in this run.
    pub(super) fn energy_register(&self, index: EvseIndex) -> Option<Energy> {
        self.evses[index.0].energy
    }
}

/// What an inverter feeds in on each phase, at least 0: by its currents, or evenly by its power.
fn fed_in(reading: &InverterReading, voltage: Voltage) -> Option<PerPhase<Current>> {
    if reading.current.iter().any(|(_, current)| current.is_some()) {
        return Some(reading.current.map(|current| current.unwrap_or_default().at_least_zero()));
    }
    let each = Power::from_w(reading.power?.w() / 3).current_at(voltage)?;
    Some(PerPhase::splat(each.at_least_zero()))
}
