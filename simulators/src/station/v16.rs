//! OCPP 1.6 JSON as the station writes and reads it.

use serde::Serialize;
use serde_json::{Value, json};
use siteward::engine::model::exchange::ConnectorStatus;
use siteward::engine::time::Now;

use super::calls::{Refusal, number};
use super::link::{Plain, text_of};
use super::transaction::{Sample, StopReason, TransactionTruth, TxMessage, TxPart};
use super::variables::{Change, Variables};
use super::{Station, StationOptions};

/// Action and payload of a message that is not about a transaction.
pub(super) fn plain(message: &Plain, options: &StationOptions) -> (&'static str, Value) {
    match message {
        Plain::Boot { .. } => (
            "BootNotification",
            json!({"chargePointVendor": "Siteward", "chargePointModel": "Simulator 16",
                "chargePointSerialNumber": options.identity, "firmwareVersion": "1.0"}),
        ),
        Plain::Heartbeat => ("Heartbeat", json!({})),
        Plain::Status { evse, status, at } => (
            "StatusNotification",
            json!({"connectorId": evse, "errorCode": "NoError", "status": status_name(*status), "timestamp": at.to_string()}),
        ),
        Plain::Authorize { token, .. } => ("Authorize", json!({"idTag": token})),
        Plain::Other { action, payload } => (action, payload.clone()),
    }
}

/// A `StartTransaction`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartTransaction<'a> {
    connector_id: u32,
    id_tag: &'a str,
    meter_start: i64,
    timestamp: String,
}

/// A `MeterValues` with one sample of a transaction.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MeterValues {
    connector_id: u32,
    transaction_id: i64,
    meter_value: [MeterValue; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MeterValue {
    timestamp: String,
    sampled_value: Vec<SampledValue>,
}

#[derive(Serialize)]
struct SampledValue {
    value: String,
    context: &'static str,
    measurand: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'static str>,
}

/// A `StopTransaction`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StopTransaction<'a> {
    transaction_id: i64,
    id_tag: &'a str,
    meter_stop: i64,
    timestamp: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_data: Option<[MeterValue; 1]>,
}

/// Action and payload of a transaction message. The id is known by now, since its start was answered or given up before.
pub(super) fn transaction(
    message: &TxMessage,
    truth: &TransactionTruth,
    variables: &Variables,
) -> (&'static str, String) {
    // -1: the start was never answered (errata 3.18).
    let id = truth.id.as_ref().and_then(|id| id.parse::<i64>().ok()).unwrap_or(-1);
    let timestamp = message.sample.at.to_string();
    match message.part {
        TxPart::Started { .. } => (
            "StartTransaction",
            text_of(&StartTransaction {
                connector_id: message.evse,
                id_tag: &truth.token,
                meter_start: message.sample.energy_wh,
                timestamp,
            }),
        ),
        TxPart::Metered | TxPart::Changed => (
            "MeterValues",
            text_of(&MeterValues {
                connector_id: message.evse,
                transaction_id: id,
                meter_value: [MeterValue {
                    timestamp,
                    sampled_value: signed(message, "Transaction.Begin")
                        .map_or_else(|| sampled(&message.sample, variables), |signed| vec![signed]),
                }],
            }),
        ),
        TxPart::Ended(reason) => (
            "StopTransaction",
            text_of(&StopTransaction {
                transaction_id: id,
                id_tag: &truth.token,
                meter_stop: message.sample.energy_wh,
                transaction_data: signed(message, "Transaction.End")
                    .map(|signed| [MeterValue { timestamp: timestamp.clone(), sampled_value: vec![signed] }]),
                timestamp,
                reason: reason_name(reason),
            }),
        ),
    }
}

/// What the meter has signed, as OCPP 1.6 stations send it.
fn signed(message: &TxMessage, context: &'static str) -> Option<SampledValue> {
    let measurand = "Energy.Active.Import.Register";
    let value = message.signed.clone()?;
    Some(SampledValue { value, context, measurand, phase: None, unit: None, format: Some("SignedData") })
}

fn sampled(sample: &Sample, variables: &Variables) -> Vec<SampledValue> {
    let mut list = Vec::with_capacity(6);
    let mut push = |measurand: &'static str, phase: Option<&'static str>, value: String, unit: &'static str| {
        if variables.wants(measurand) {
            list.push(SampledValue {
                value,
                context: "Sample.Periodic",
                measurand,
                phase,
                unit: Some(unit),
                format: None,
            });
        }
    };
    push("Energy.Active.Import.Register", None, sample.energy_wh.to_string(), "Wh");
    for (phase, current) in ["L1", "L2", "L3"].into_iter().zip(sample.current) {
        if let Some(current) = current {
            push("Current.Import", Some(phase), format!("{:.2}", current.as_a()), "A");
        }
    }
    push("Power.Active.Import", None, sample.power_w.to_string(), "W");
    if let Some(soc) = sample.soc_percent {
        push("SoC", None, soc.to_string(), "Percent");
    }
    list
}

/// The answer to a CALL that is particular to 1.6.
pub(super) fn answer(station: &mut Station, action: &str, payload: &Value, now: Now) -> Result<Value, Refusal> {
    match action {
        "GetConfiguration" => Ok(get_configuration(&station.variables, payload)),
        "ChangeConfiguration" => {
            let text = |name: &str| payload.get(name).and_then(Value::as_str).unwrap_or_default();
            let status = match station.variables.set(text("key"), text("value")) {
                Change::Accepted => "Accepted",
                Change::Rejected => "Rejected",
                Change::Unknown => "NotSupported",
            };
            Ok(json!({"status": status}))
        }
        "RemoteStartTransaction" => {
            let Some(token) = payload.get("idTag").and_then(Value::as_str) else {
                return Err(("FormationViolation", "idTag is missing".to_owned()));
            };
            let possible = station.start_remotely(number(payload, "connectorId"), token, None, now);
            Ok(json!({"status": if possible { "Accepted" } else { "Rejected" }}))
        }
        "RemoteStopTransaction" => {
            let id = payload.get("transactionId").and_then(Value::as_i64).unwrap_or(0).to_string();
            let known = station.stop_remotely(&id, now);
            Ok(json!({"status": if known { "Accepted" } else { "Rejected" }}))
        }
        "UnlockConnector" => Ok(json!({"status": "NotSupported"})),
        "DataTransfer" => Ok(station.data_transfer(payload)),
        other => Err(("NotImplemented", format!("{other} is not known here"))),
    }
}

fn get_configuration(variables: &Variables, payload: &Value) -> Value {
    let entry = |key: &str| {
        variables.get(key).map(|found| json!({"key": key, "readonly": found.read_only, "value": found.value}))
    };
    let wanted: Vec<&str> = payload
        .get("key")
        .and_then(Value::as_array)
        .map(|keys| keys.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if wanted.is_empty() {
        let all: Vec<Value> = variables.all().keys().filter_map(|key| entry(key)).collect();
        return json!({"configurationKey": all});
    }
    let known: Vec<Value> = wanted.iter().filter_map(|key| entry(key)).collect();
    let unknown: Vec<&str> = wanted.into_iter().filter(|key| variables.get(key).is_none()).collect();
    json!({"configurationKey": known, "unknownKey": unknown})
}

const fn status_name(status: ConnectorStatus) -> &'static str {
    match status {
        ConnectorStatus::Available => "Available",
        ConnectorStatus::Preparing | ConnectorStatus::Occupied => "Preparing",
        ConnectorStatus::Charging => "Charging",
        ConnectorStatus::SuspendedEv => "SuspendedEV",
        ConnectorStatus::SuspendedEvse => "SuspendedEVSE",
        ConnectorStatus::Finishing => "Finishing",
        ConnectorStatus::Reserved => "Reserved",
        ConnectorStatus::Unavailable => "Unavailable",
        ConnectorStatus::Faulted => "Faulted",
    }
}

const fn reason_name(reason: StopReason) -> &'static str {
    match reason {
        StopReason::EvDisconnected => "EVDisconnected",
        StopReason::Remote => "Remote",
        StopReason::Local => "Local",
        StopReason::DeAuthorized => "DeAuthorized",
        StopReason::SoftReset => "SoftReset",
        StopReason::HardReset => "HardReset",
        StopReason::PowerLoss => "PowerLoss",
    }
}
