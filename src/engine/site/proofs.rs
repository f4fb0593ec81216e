//! What becomes of a limit from outside: when the last station has acknowledged, when it was measured that the limit is kept, and how much flows.

use super::Site;
use super::io::Output;
use crate::engine::model::ids::Sequence;
use crate::engine::model::limit::{LimitAmount, LimitOrigin, LimitProof, LimitTarget, ProofResult};
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{CircuitIndex, EvseIndex, StationIndex};
use crate::engine::outside::ceiling::{self, Lowered};
use crate::engine::time::{Mono, Now, Utc};
use crate::engine::units::{Current, Phase, Power};

/// A limit is followed so long at most: the longest that a station may keep an old limit, and a meter value after it.
const FOLLOW_MS: u64 = 180_000;

/// A limit that is not reached by less than this is not sent anew for it: smaller cuts wait for the next renewal.
const SMALL_CUT: Current = Current::from_ma(500);

/// Kept is what is not above by more than this share, in thousandths: meters of class B are allowed 1 %.
const TOLERANCE_PERMILLE: i64 = 10;

/// A limit that is being followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Following {
    order: Sequence,
    target: LimitTarget,
    origin: LimitOrigin,
    amount: LimitAmount,
    received: Utc,
    since: Mono,
    acknowledged_ms: Option<u64>,
    kept_ms: Option<u64>,
    silent: usize,
    measured: Measured,
}

/// What was measured after the limit was received, in the terms of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measured {
    Nothing,
    Current(Current),
    Power(Power),
}

impl Site {
    /// Begins to follow a limit. Windows of schedules are not followed: nobody waits for a proof of them.
    pub(super) fn follow(
        &mut self,
        order: Sequence,
        (target, origin, amount): (LimitTarget, LimitOrigin, LimitAmount),
        now: Now,
        out: &mut Vec<Output>,
    ) {
        self.unfollow(&target, &origin, now, out);
        if matches!(origin, LimitOrigin::Schedule(_)) {
            return;
        }
        self.outside.following.push(Following {
            order,
            target,
            origin,
            amount,
            received: now.utc,
            since: now.mono,
            acknowledged_ms: None,
            kept_ms: None,
            silent: 0,
            measured: Measured::Nothing,
        });
    }

    /// The limit was replaced or has ended before the end of it was known.
    pub(super) fn unfollow(&mut self, target: &LimitTarget, origin: &LimitOrigin, now: Now, out: &mut Vec<Output>) {
        let following = &mut self.outside.following;
        let place = following.iter().position(|limit| limit.target == *target && limit.origin == *origin);
        if let Some(limit) = place.map(|place| following.remove(place)) {
            self.prove(limit, ProofResult::Replaced, now, out);
        }
    }

    /// Looks how far the limits are followed. After the control, so that cuts have left.
    pub(super) fn look_at_limits(&mut self, now: Now, out: &mut Vec<Output>) {
        for mut limit in std::mem::take(&mut self.outside.following) {
            let passed = now.mono.since(limit.since);
            let (waiting, silent) = self.not_acknowledged(&limit.target);
            limit.silent = silent;
            if !waiting {
                limit.acknowledged_ms.get_or_insert(passed);
            }
            limit.measured = self.measured_for(&limit, now.mono);
            if limit.kept_ms.is_none() && limit.acknowledged_ms.is_some() && self.is_kept(&limit) {
                limit.kept_ms = Some(passed);
            }
            let result = match (limit.kept_ms, limit.acknowledged_ms) {
                (Some(_), _) => Some(ProofResult::Kept),
                _ if passed < FOLLOW_MS => None,
                (None, None) => Some(ProofResult::NotAcknowledged),
                (None, Some(_)) if limit.measured == Measured::Nothing => Some(ProofResult::NotMeasured),
                (None, Some(_)) => Some(ProofResult::NotKept),
            };
            match result {
                Some(result) => self.prove(limit, result, now, out),
                None => self.outside.following.push(limit),
            }
        }
    }

    fn prove(&mut self, limit: Following, result: ProofResult, now: Now, out: &mut Vec<Output>) {
        let (measured_current, measured_power) = match limit.measured {
            Measured::Nothing => (None, None),
            Measured::Current(current) => (Some(current), None),
            Measured::Power(power) => (None, Some(power)),
        };
        let proof = LimitProof {
            order: limit.order,
            target: limit.target,
            origin: limit.origin,
            amount: limit.amount,
            received: limit.received,
            acknowledged_ms: limit.acknowledged_ms,
            kept_ms: limit.kept_ms,
            measured_current,
            measured_power,
            silent: limit.silent,
            result,
        };
        self.record(RecordBody::LimitProven(Box::new(proof)), now, out);
    }

    fn evses_of_target(&self, target: &LimitTarget) -> Vec<EvseIndex> {
        let topology = &self.setup.topology;
        match target {
            LimitTarget::Charger(id) => {
                topology.find_station(id).into_iter().flat_map(|station| topology.evses_of(station)).collect()
            }
            LimitTarget::Circuit(id) => {
                let circuit = topology.find_circuit(id);
                let below = |index: &EvseIndex| {
                    topology.path_to_grid(topology.evse(*index).circuit).any(|above| Some(above) == circuit)
                };
                (0..topology.evses().len()).map(EvseIndex).filter(below).collect()
            }
        }
    }

    /// Whether a connected station has yet to acknowledge a cut, and how many stations are not connected.
    fn not_acknowledged(&self, target: &LimitTarget) -> (bool, usize) {
        let mut waiting = false;
        let mut silent: Vec<StationIndex> = Vec::new();
        for evse in self.evses_of_target(target) {
            let station = self.setup.topology.evse(evse).station;
            let control = &self.evses[evse.0];
            if self.stations[station.0].session.is_none() {
                silent.push(station);
                continue;
            }
            let planned = self.offer(evse).map_or(Current::ZERO, |offer| offer.limit);
            let offered = control.tether.offered().map_or(Current::ZERO, |sent| sent.limit);
            waiting |= control.tether.pending().is_some() || offered > planned + SMALL_CUT;
        }
        silent.dedup();
        (waiting, silent.len())
    }

    fn measured_for(&self, limit: &Following, now: Mono) -> Measured {
        match (&limit.target, limit.amount) {
            (LimitTarget::Circuit(id), LimitAmount::PerPhase(_) | LimitAmount::Permille(_) | LimitAmount::Total(_)) => {
                let circuit = self.setup.topology.find_circuit(id);
                circuit.map_or(Measured::Nothing, |circuit| self.flowing(circuit, limit, now))
            }
            (LimitTarget::Circuit(_), LimitAmount::Charging(_)) => self.charging_power(limit, now),
            (LimitTarget::Charger(_), LimitAmount::Total(_) | LimitAmount::Charging(_)) => {
                self.charging_power(limit, now)
            }
            (LimitTarget::Charger(_), LimitAmount::PerPhase(_) | LimitAmount::Permille(_)) => {
                let evses = self.evses_of_target(&limit.target);
                let currents: Option<Vec<Current>> = evses
                    .into_iter()
                    .map(|evse| self.drawn_after(evse, limit.since, now).map(|(most, _)| most))
                    .collect();
                currents.and_then(|currents| currents.into_iter().max()).map_or(Measured::Nothing, Measured::Current)
            }
        }
    }

    /// What the circuit's meter has said since the limit was received.
    fn flowing(&self, circuit: CircuitIndex, limit: &Following, now: Mono) -> Measured {
        let Some(meter) = self.setup.topology.circuit(circuit).meter else { return Measured::Nothing };
        let stale_after_ms = self.setup.topology.meters()[meter.0].stale_after_ms;
        let last = self.meters[meter.0].last.as_ref().filter(|last| last.at() > limit.since);
        let Some(reading) = last.and_then(|last| last.fresh(now, stale_after_ms)) else { return Measured::Nothing };
        match limit.amount {
            LimitAmount::Total(_) => {
                let voltage = self.setup.topology.voltage();
                let by_current = || {
                    let current = reading.current.complete()?;
                    Some(Phase::ALL.iter().map(|phase| current.of(*phase).abs().power_at(voltage)).sum())
                };
                let metered = reading.power.complete();
                let metered = metered.map(|power| Phase::ALL.iter().map(|phase| power.of(*phase)).sum::<Power>());
                metered.or_else(by_current).map_or(Measured::Nothing, Measured::Power)
            }
            LimitAmount::PerPhase(_) | LimitAmount::Permille(_) | LimitAmount::Charging(_) => {
                let current = reading.current.complete();
                current.map_or(Measured::Nothing, |current| Measured::Current(current.max()))
            }
        }
    }

    fn charging_power(&self, limit: &Following, now: Mono) -> Measured {
        let evses = self.evses_of_target(&limit.target);
        let powers: Option<Power> =
            evses.into_iter().map(|evse| self.drawn_after(evse, limit.since, now).map(|(_, power)| power)).sum();
        powers.map_or(Measured::Nothing, Measured::Power)
    }

    /// What an EVSE was measured to draw after `since`: the largest current of a phase, and the power. An EVSE without a transaction draws nothing.
    fn drawn_after(&self, index: EvseIndex, since: Mono, now: Mono) -> Option<(Current, Power)> {
        let evse = self.setup.topology.evse(index);
        let facts = self.ledger.station(self.station_id(evse.station));
        if facts.is_none_or(|facts| facts.transaction_at(evse.number).is_none()) {
            return Some((Current::ZERO, Power::ZERO));
        }
        let after = self.evses[index.0].measured.as_ref().is_some_and(|sample| sample.at() > since);
        let measured = self.fresh_measured(index, now).filter(|_| after)?;
        let voltage = self.setup.topology.voltage();
        let by_current = || Phase::ALL.iter().map(|phase| measured.current.of(*phase).power_at(voltage)).sum();
        Some((measured.current.max(), measured.power.unwrap_or_else(by_current)))
    }

    fn is_kept(&self, limit: &Following) -> bool {
        let topology = &self.setup.topology;
        let voltage = topology.voltage();
        let lowered = match &limit.target {
            LimitTarget::Circuit(id) => topology.find_circuit(id).map(|index| {
                let circuit = topology.circuit(index);
                ceiling::at_least(limit.amount, circuit, self.setup.outside.floors.get(id).copied(), voltage)
            }),
            LimitTarget::Charger(id) => topology.find_station(id).map(|index| match limit.amount {
                LimitAmount::Total(power) | LimitAmount::Charging(power) => Lowered::Total(power),
                amount @ (LimitAmount::PerPhase(_) | LimitAmount::Permille(_)) => {
                    let each = ceiling::each_evse(amount, topology.station(index), voltage);
                    Lowered::Phases(crate::engine::units::PerPhase::splat(each))
                }
            }),
        };
        match (lowered, limit.measured) {
            (Some(Lowered::Phases(most)), Measured::Current(current)) => {
                within(i64::from(current.ma()), i64::from(most.max().ma()))
            }
            (Some(Lowered::Total(most) | Lowered::Charging(most)), Measured::Power(power)) => {
                within(power.w(), most.w())
            }
            _ => false,
        }
    }
}

const fn within(measured: i64, most: i64) -> bool {
    measured <= most + most * TOLERANCE_PERMILLE / 1_000
}
