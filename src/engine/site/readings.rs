//! What meters, inverters and stations measure, as the site keeps it.

use super::background::Drawn;
use super::io::{LogLevel, Output};
use super::{Site, log};
use crate::engine::model::reading::{DeviceFault, InverterReading, MeterReading, StationReading};
use crate::engine::model::topology::{CircuitIndex, Evse, EvseIndex, InverterIndex, MeterIndex, StationIndex};
use crate::engine::time::{Mono, Now, Sampled};
use crate::engine::units::{Current, Energy, PerPhase, Power};

/// A meter as the site sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct MeterState {
    pub(super) last: Option<Sampled<MeterReading>>,
    pub(super) fault: Option<DeviceFault>,
}

/// An inverter as the site sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct InverterState {
    pub(super) last: Option<Sampled<InverterReading>>,
    pub(super) fault: Option<DeviceFault>,
}

/// What an EVSE was last measured to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) current: PerPhase<Current>,
    pub(super) power: Option<Power>,
}

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
                if let Some(total) = reading.current.complete() {
                    self.take_background(meter, total, asked_at, now);
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
            }
            Err(fault) => {
                if state.fault.as_ref() != Some(&fault) {
                    log(out, LogLevel::Warn, format!("inverter {id} cannot be read: {fault}"));
                }
                state.fault = Some(fault);
            }
        }
    }

    fn take_background(&mut self, meter: MeterIndex, total: PerPhase<Current>, asked_at: Mono, now: Now) {
        for index in 0..self.backgrounds.len() {
            if self.setup.topology.circuits()[index].meter == Some(meter) {
                let drawn = self.drawn_below(CircuitIndex(index), now.mono);
                self.backgrounds[index].reading(total, &drawn, asked_at);
                self.dirty = true;
            }
        }
    }

    fn below(&self, evse: Evse, circuit: CircuitIndex) -> bool {
        self.setup.topology.path_to_grid(evse.circuit).any(|above| above == circuit)
    }

    fn drawn_below(&self, circuit: CircuitIndex, now: Mono) -> Drawn {
        let mut sum = Drawn::default();
        for (index, evse) in self.setup.topology.evses().iter().enumerate() {
            if self.below(*evse, circuit) {
                let drawn = self.drawn_by(EvseIndex(index), now);
                sum.likely += drawn.likely;
                sum.least += drawn.least;
                sum.most += drawn.most;
            }
        }
        sum
    }

    /// What one EVSE draws now, as far as it is known.
    fn drawn_by(&self, index: EvseIndex, now: Mono) -> Drawn {
        let evse = self.setup.topology.evse(index);
        let station = self.setup.topology.station(evse.station);
        let control = &self.evses[index.0];
        let zero = PerPhase::splat(Current::ZERO);
        let most = station.wiring.phases().spread(control.tether.committed(self.reachable(index), now));
        let charging =
            self.ledger.station(&station.id).is_some_and(|facts| facts.transaction_at(evse.number).is_some());
        // A station that has gone silent is taken to go on as last measured for as long as its lease holds.
        let max_age_ms = if self.stations[evse.station.0].session.is_some() {
            station.model.meter_interval_ms * SAMPLE_INTERVALS
        } else {
            station.model.lease_ms
        };
        let sample = control.measured.as_ref().and_then(|sample| sample.fresh(now, max_age_ms));
        let Some(sample) = sample.filter(|_| charging) else {
            return Drawn { likely: zero, least: zero, most };
        };
        // After a cut the sample is too high: no more than what the EVSE may draw is sure to go away with it.
        let least = sample.current.zip_with(most, Current::min);
        let cut = control.tether.offered().map_or(most, |sent| station.wiring.phases().spread(sent.limit));
        let least = least.zip_with(cut, Current::min);
        Drawn { likely: least, least, most }
    }

    /// The current that an EVSE was measured to draw, if the sample is fresh.
    pub(super) fn fresh_measured(&self, index: EvseIndex, now: Mono) -> Option<Measured> {
        let evse = self.setup.topology.evse(index);
        let interval = self.setup.topology.station(evse.station).model.meter_interval_ms;
        self.evses[index.0].measured.as_ref().and_then(|sample| sample.fresh(now, interval * SAMPLE_INTERVALS)).copied()
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

    fn evse_of_reading(&self, station: StationIndex, reading: &StationReading) -> Option<u32> {
        let by_transaction = reading.transaction.as_ref().and_then(|transaction| {
            let facts = self.ledger.station(self.station_id(station))?;
            Some(facts.transaction(transaction)?.facts.evse)
        });
        by_transaction.or((reading.evse != 0).then_some(reading.evse))
    }

    fn take_sample(&mut self, index: EvseIndex, reading: &StationReading, now: Now, out: &mut Vec<Output>) {
        if let Some(energy) = reading.energy {
            self.evses[index.0].energy = Some(energy);
        }
        let Some(current) = self.current_of(index, reading) else { return };
        let control = &mut self.evses[index.0];
        control.measured = Some(Sampled::new(Measured { current, power: reading.power }, now.mono));
        self.judge_sample(index, current, now, out);
        self.dirty = true;
    }

    /// The current on the grid's phases: as reported by phase, or from a value without phase, or from the power.
    fn current_of(&self, index: EvseIndex, reading: &StationReading) -> Option<PerPhase<Current>> {
        let station = self.setup.topology.station(self.setup.topology.evse(index).station);
        let phases = station.wiring.phases();
        let by_phase = station.wiring.to_grid(reading.current);
        if by_phase.iter().any(|(_, value)| value.is_some()) {
            return Some(by_phase.map(|value| value.unwrap_or_default().at_least_zero()));
        }
        if let Some(each) = reading.current_total {
            return Some(phases.spread(each.at_least_zero()));
        }
        let power = reading.power?;
        let each = Power::from_w(power.w() / i64::from(phases.len().max(1)));
        Some(phases.spread(each.current_at(self.setup.topology.voltage())?.at_least_zero()))
    }

    /// The energy register of an EVSE, if it was ever reported in this run.
    pub(super) fn energy_register(&self, index: EvseIndex) -> Option<Energy> {
        self.evses[index.0].energy
    }
}
