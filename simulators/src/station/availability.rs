//! What state an EVSE is in, and `ChangeAvailability`.

use serde_json::{Value, json};
use siteward::engine::model::exchange::{ChargingState, ConnectorStatus, OcppVersion};
use siteward::engine::units::Current;

use super::calls::{Refusal, number};
use super::{Bay, Station};

impl Bay {
    pub(super) fn status(&self) -> ConnectorStatus {
        match (&self.car, &self.running) {
            (_, None) if self.inoperative => ConnectorStatus::Unavailable,
            (None, _) => ConnectorStatus::Available,
            (Some(_), None) if self.finishing => ConnectorStatus::Finishing,
            (Some(_), None) => ConnectorStatus::Preparing,
            (Some(_), Some(_)) => match self.charging_state() {
                ChargingState::SuspendedEvse => ConnectorStatus::SuspendedEvse,
                ChargingState::SuspendedEv => ConnectorStatus::SuspendedEv,
                ChargingState::Charging | ChargingState::EvConnected | ChargingState::Idle => ConnectorStatus::Charging,
            },
        }
    }

    pub(super) fn charging_state(&self) -> ChargingState {
        match &self.car {
            None => ChargingState::Idle,
            Some(_) if self.running.is_none() => ChargingState::EvConnected,
            Some(_) if self.offered == Current::ZERO => ChargingState::SuspendedEvse,
            Some(car) if car.is_full() => ChargingState::SuspendedEv,
            Some(_) => ChargingState::Charging,
        }
    }
}

impl Station {
    /// `ChangeAvailability`: at once, or `Scheduled` for when the running transaction has ended (OCPP 1.6 §5.2, 2.0.1 G03). EVSE 0 or none is
    /// all of them. It outlasts a reboot.
    pub(super) fn change_availability(&mut self, payload: &Value) -> Result<Value, Refusal> {
        let (evse, wanted, missing) = match self.options.version {
            OcppVersion::V16 => (number(payload, "connectorId"), payload.get("type"), "PropertyConstraintViolation"),
            OcppVersion::V201 | OcppVersion::V21 => (
                payload.get("evse").and_then(|evse| number(evse, "id")),
                payload.get("operationalStatus"),
                "OccurrenceConstraintViolation",
            ),
        };
        let inoperative = match wanted.and_then(Value::as_str) {
            Some("Inoperative") => true,
            Some("Operative") => false,
            _ => return Err((missing, "Operative or Inoperative is needed".to_owned())),
        };
        let evse = evse.filter(|evse| *evse != 0);
        let mut bays = self.bays.iter_mut().filter(|bay| evse.is_none_or(|evse| bay.number == evse)).peekable();
        if bays.peek().is_none() {
            return Ok(json!({"status": "Rejected"}));
        }
        let mut scheduled = false;
        for bay in bays {
            bay.inoperative = inoperative;
            scheduled |= inoperative && bay.running.is_some();
        }
        Ok(json!({"status": if scheduled { "Scheduled" } else { "Accepted" }}))
    }
}
