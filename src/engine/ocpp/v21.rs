//! OCPP 2.1: what it has beyond OCPP 2.0.1, whose payloads it shares for everything that is used here.
//!
//! New for a site are `maxOfflineDuration` and `invalidAfterOfflineDuration` of a charging profile (see [`call`]). The rest of what differs
//! needs nothing: `limit` of a period became optional and is always written; `operationMode` is `ChargingOnly` where it is left out;
//! `costDetails`, tariffs and new triggers are read over; a token's type became a free text. V2X, DER control, battery swaps
//! and payments have no counterpart here: their notifications are taken note of, what asks for something is turned down.

use serde_json::Value;

use super::frame::ErrorCode;
use super::lenient::{Notes, Refusal, notify};
use super::outgoing::{Outgoing, property};
use super::profile::Lease;
use super::tree::Json;
use super::v201;
use crate::engine::model::exchange::{StationAnswer, StationCall, StationRequest};
use crate::engine::time::Utc;

/// Messages that are only taken note of, beyond those of OCPP 2.0.1.
const NOTIFICATIONS: &[&str] = &[
    "BatterySwap",
    "ClosePeriodicEventStream",
    "NotifyDERAlarm",
    "NotifyDERStartStop",
    "NotifyPriorityCharging",
    "NotifySettlement",
    "OpenPeriodicEventStream",
    "PullDynamicScheduleUpdate",
    "ReportDERControl",
];

/// What a station asks and nobody here can answer.
const BEYOND_US: &[&str] = &["GetCertificateChainStatus", "VatNumberValidation"];

/// Actions that a CSMS sends and never receives, beyond those of OCPP 2.0.1.
const OURS: &[&str] = &[
    "AFRRSignal",
    "AdjustPeriodicEventStream",
    "ChangeTransactionTariff",
    "ClearDERControl",
    "ClearTariffs",
    "GetDERControl",
    "GetPeriodicEventStream",
    "GetTariffs",
    "NotifyAllowedEnergyTransfer",
    "NotifyWebPaymentStarted",
    "RequestBatterySwap",
    "SetDERControl",
    "SetDefaultTariff",
    "UpdateDynamicSchedule",
    "UsePriorityCharging",
];

/// Whether an action comes as a SEND: a message without an answer.
pub(super) fn is_sent(action: &str) -> bool {
    action == "NotifyPeriodicEventStream"
}

/// Reads a CALL of the station.
pub(super) fn request(
    action: &str,
    payload: &Json<'_>,
    now: Utc,
    notes: &mut Notes,
) -> Result<StationRequest, Refusal> {
    if OURS.contains(&action) {
        return Err(Refusal::new(ErrorCode::NotSupported, format!("{action} is sent by a CSMS, not to one")));
    }
    if BEYOND_US.contains(&action) {
        return Err(Refusal::new(ErrorCode::NotSupported, format!("nobody here can answer {action}")));
    }
    if NOTIFICATIONS.contains(&action) {
        if !matches!(payload, Json::Object(_)) {
            return Err(Refusal::new(ErrorCode::FormatViolation, "the payload is not a JSON object"));
        }
        return Ok(notify(action, payload));
    }
    v201::request(action, payload, now, notes).map_err(|refusal| match refusal.code {
        ErrorCode::NotImplemented => Refusal { text: format!("{action} is no action of OCPP 2.1"), ..refusal },
        _ => refusal,
    })
}

/// Writes the payload of the answer to `action`. `Err` says that this is no answer to that action.
pub(super) fn answer(action: &str, answer: &StationAnswer) -> Result<String, String> {
    match (action, answer) {
        // Events are taken note of one by one; limits come by `SetChargingProfile` and no other way.
        ("OpenPeriodicEventStream" | "PullDynamicScheduleUpdate", StationAnswer::Taken) => {
            Ok(r#"{"status":"Rejected"}"#.to_owned())
        }
        _ => v201::answer(action, answer),
    }
}

/// Writes a CALL to the station. `Err` says why the schema has no such CALL.
pub(super) fn call(call: StationCall) -> Result<Outgoing, Refusal> {
    let offline_s = match &call {
        StationCall::SetLimit(leased) => Lease::new(leased).max_offline_s,
        _ => None,
    };
    let outgoing = v201::call(call)?;
    match offline_s {
        Some(offline_s) => ends_offline(outgoing, offline_s),
        None => Ok(outgoing),
    }
}

/// OCPP 2.1 part 2, `ChargingProfileType`: such a profile remains valid for so many seconds after the station has gone offline, and is not
/// valid any more from then on, also when it is online again. Then the one below it is in force.
fn ends_offline(outgoing: Outgoing, offline_s: i32) -> Result<Outgoing, Refusal> {
    let unwritten = || property("the charging profile cannot be written".to_owned());
    let mut payload: Value = serde_json::from_str(&outgoing.payload).map_err(|_| unwritten())?;
    let profile = payload.get_mut("chargingProfile").and_then(Value::as_object_mut).ok_or_else(unwritten)?;
    profile.insert("maxOfflineDuration".to_owned(), Value::from(offline_s));
    profile.insert("invalidAfterOfflineDuration".to_owned(), Value::from(true));
    Ok(Outgoing { payload: payload.to_string(), ..outgoing })
}

#[cfg(test)]
#[path = "v21_tests.rs"]
mod tests;
