//! Limits from outside as people see them.

use serde_json::{Value, json};

use super::Site;
use crate::engine::cloud::limits::LimitProven;
use crate::engine::model::limit::{LimitAmount, LimitOrigin, LimitTarget, StandingLimit};
use crate::engine::model::status::LimitStatus;
use crate::engine::model::topology::{CircuitIndex, EvseIndex};
use crate::engine::plan::binding::Binding;
use crate::engine::time::Mono;
use crate::engine::units::{Current, Power};

impl Site {
    /// What became of the last limits from outside, oldest first, as a JSON array.
    #[must_use]
    pub fn limit_log(&self) -> String {
        let entry = |record: &super::ledger::ProofRecord| {
            let mut value = json!(LimitProven::from(&record.proof));
            if let Value::Object(fields) = &mut value {
                fields.insert("time".to_owned(), Value::from(record.at.to_string()));
                fields.insert("clock_trusted".to_owned(), Value::from(record.trusted));
            }
            value
        };
        Value::from(self.ledger.proofs().map(entry).collect::<Vec<_>>()).to_string()
    }

    /// The short name of what decides the limit of an EVSE.
    pub(super) fn binding_name(&self, index: EvseIndex, now: Mono) -> &'static str {
        let Some(offer) = self.offer(index) else { return "none" };
        if self.waits_for_start(index, now) {
            return "random_start";
        }
        if self.lowered_by(index).is_some() { "external_limit" } else { offer.binding.name() }
    }

    /// What decides the limit of an EVSE, where that is something from outside on the station itself.
    pub(super) fn outside_sentence(&self, index: EvseIndex, now: Mono) -> Option<String> {
        let station = self.setup.topology.evse(index).station;
        let limit = self.evses[index.0].tether.offered().map_or(Current::ZERO, |sent| sent.limit);
        if self.waits_for_start(index, now) {
            let left = self.waits_until(station, now).map_or(0, |until| until.since(now) / 1_000);
            return Some(format!("{limit}: it starts in {left} s, at random after the power cut"));
        }
        let (ceiling, origin) = self.lowered_by(index)?;
        let minimum = self.setup.topology.station(station).min;
        Some(if ceiling < minimum {
            format!("paused: {origin} limits the charger to {ceiling}, below its minimum of {minimum}")
        } else {
            format!("{limit}: {origin} limits the charger to {ceiling}")
        })
    }

    /// Who has lowered the limit that binds an EVSE by a circuit, as part of a sentence.
    pub(super) fn lowered_circuit(&self, circuit: CircuitIndex) -> String {
        let target = LimitTarget::Circuit(self.setup.topology.circuit(circuit).id.clone());
        let ceiling = self.circuit_ceiling(circuit, &target);
        let by = [ceiling.limit_by, ceiling.total_by, ceiling.charging_by];
        let names: Vec<String> = by.into_iter().flatten().map(ToString::to_string).collect();
        if names.is_empty() { String::new() } else { format!(" (limited by {})", names.join(", ")) }
    }

    /// Whether a transaction would charge, were it not for the wait after a power cut.
    fn waits_for_start(&self, index: EvseIndex, now: Mono) -> bool {
        let evse = self.setup.topology.evse(index);
        let facts = self.ledger.station(self.station_id(evse.station));
        let open = facts.is_some_and(|facts| facts.transaction_at(evse.number).is_some());
        open && self.waits_until(evse.station, now).is_some()
    }

    /// The limit on the station itself that decides, and whose it is.
    fn lowered_by(&self, index: EvseIndex) -> Option<(Current, LimitOrigin)> {
        let decides = matches!(self.offer(index)?.binding, Binding::EvseMaximum | Binding::BelowMinimum);
        self.station_ceiling(self.setup.topology.evse(index).station).filter(|_| decides)
    }
}

/// A limit for the interfaces.
pub(super) fn limit_status(standing: &StandingLimit) -> LimitStatus {
    let order = &standing.order;
    let mut status = LimitStatus {
        source: order.origin.to_string(),
        until: order.until,
        received: standing.received,
        ttl_s: order.heartbeat.map(|heartbeat| heartbeat.ttl_ms / 1_000),
        sender_lost: standing.lost,
        ..LimitStatus::default()
    };
    match &order.target {
        LimitTarget::Circuit(id) => status.circuit = Some(id.to_string()),
        LimitTarget::Charger(id) => status.charger = Some(id.to_string()),
    }
    match standing.in_force() {
        LimitAmount::PerPhase(current) => status.limit_a = Some(current.as_a()),
        LimitAmount::Total(power) => status.limit_w = Some(Power::w(power)),
        LimitAmount::Charging(power) => status.charging_w = Some(Power::w(power)),
        LimitAmount::Permille(permille) => status.limit_percent = Some(f64::from(permille) / 10.0),
    }
    status
}
