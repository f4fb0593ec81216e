//! OCPP 2.0.1 JSON as the station writes and reads it.

use serde_json::{Value, json};
use siteward::engine::model::exchange::{ChargingState, ConnectorStatus};
use siteward::engine::time::Now;

use super::calls::{Refusal, number};
use super::link::Plain;
use super::transaction::{Sample, StopReason, TransactionTruth, TxMessage, TxPart};
use super::variables::{Change, Variables};
use super::{Station, StationOptions};

/// How many entries go into one `NotifyReport`.
const REPORT_ENTRIES: usize = 10;

/// Action and payload of a message that is not about a transaction.
pub(super) fn plain(message: &Plain, options: &StationOptions) -> (&'static str, Value) {
    match message {
        Plain::Boot { reason } => (
            "BootNotification",
            json!({"reason": reason, "chargingStation": {"vendorName": "Siteward", "model": "Simulator 201",
                "serialNumber": options.identity, "firmwareVersion": "1.0"}}),
        ),
        Plain::Heartbeat => ("Heartbeat", json!({})),
        Plain::Status { evse, status, at } => {
            let status = match status {
                ConnectorStatus::Available => "Available",
                ConnectorStatus::Unavailable => "Unavailable",
                _ => "Occupied",
            };
            (
                "StatusNotification",
                json!({"timestamp": at.to_string(), "connectorStatus": status, "evseId": evse, "connectorId": 1}),
            )
        }
        Plain::Authorize { token, .. } => ("Authorize", json!({"idToken": id_token(token)})),
        Plain::Other { action, payload } => (action, payload.clone()),
    }
}

/// Action and payload of a transaction message.
pub(super) fn transaction(
    message: &TxMessage,
    truth: &TransactionTruth,
    variables: &Variables,
) -> (&'static str, Value) {
    let (event, trigger) = match message.part {
        TxPart::Started { remote_start: Some(_) } => ("Started", "RemoteStart"),
        TxPart::Started { remote_start: None } => ("Started", "Authorized"),
        TxPart::Metered => ("Updated", "MeterValuePeriodic"),
        TxPart::Changed => ("Updated", "ChargingStateChanged"),
        TxPart::Ended(reason) => ("Ended", stop_trigger(reason)),
    };
    let mut info = json!({"transactionId": truth.id, "chargingState": state_name(message.state)});
    let mut payload = json!({
        "eventType": event, "timestamp": message.sample.at.to_string(), "triggerReason": trigger,
        "seqNo": message.seq_no, "offline": message.offline, "evse": {"id": message.evse, "connectorId": 1},
        "meterValue": [{"timestamp": message.sample.at.to_string(), "sampledValue": sampled(message, variables)}],
    });
    match message.part {
        TxPart::Started { remote_start } => {
            payload["idToken"] = id_token(&truth.token);
            if let Some(id) = remote_start {
                info["remoteStartId"] = json!(id);
            }
        }
        TxPart::Ended(reason) => {
            info["stoppedReason"] = json!(stopped_reason(reason));
            payload["idToken"] = id_token(&truth.token);
        }
        TxPart::Metered | TxPart::Changed => {}
    }
    payload["transactionInfo"] = info;
    ("TransactionEvent", payload)
}

fn id_token(token: &str) -> Value {
    json!({"idToken": token, "type": "ISO14443"})
}

fn sampled(message: &TxMessage, variables: &Variables) -> Vec<Value> {
    let sample: &Sample = &message.sample;
    let (context, whole) = match message.part {
        TxPart::Started { .. } => ("Transaction.Begin", false),
        TxPart::Metered => ("Sample.Periodic", true),
        TxPart::Changed => ("Other", true),
        TxPart::Ended(_) => ("Transaction.End", false),
    };
    let energy = json!({"value": sample.energy_wh, "context": context, "measurand": "Energy.Active.Import.Register",
        "unitOfMeasure": {"unit": "Wh"}});
    let mut list = vec![energy];
    if !whole {
        return list;
    }
    if variables.wants("Current.Import") {
        for (phase, current) in ["L1", "L2", "L3"].into_iter().zip(sample.current) {
            if let Some(current) = current {
                list.push(json!({"value": current.as_a(), "context": context, "measurand": "Current.Import",
                    "phase": phase, "unitOfMeasure": {"unit": "A"}}));
            }
        }
    }
    if variables.wants("Power.Active.Import") {
        list.push(json!({"value": sample.power_w, "context": context, "measurand": "Power.Active.Import",
            "unitOfMeasure": {"unit": "W"}}));
    }
    if let Some(soc) = sample.soc_percent.filter(|_| variables.wants("SoC")) {
        list.push(json!({"value": soc, "context": context, "measurand": "SoC", "unitOfMeasure": {"unit": "Percent"}}));
    }
    list
}

/// The answer to a CALL that is particular to 2.0.1.
pub(super) fn answer(station: &mut Station, action: &str, payload: &Value, now: Now) -> Result<Value, Refusal> {
    match action {
        "GetVariables" => Ok(get_variables(&station.variables, payload)),
        "SetVariables" => Ok(set_variables(&mut station.variables, payload)),
        "GetBaseReport" => Ok(base_report(station, payload, now)),
        "RequestStartTransaction" => {
            let token = payload.get("idToken").and_then(|token| token.get("idToken")).and_then(Value::as_str);
            let (Some(token), Some(start_id)) = (token, payload.get("remoteStartId").and_then(Value::as_i64)) else {
                return Err(("OccurrenceConstraintViolation", "idToken and remoteStartId are needed".to_owned()));
            };
            let evse = number(payload, "evseId");
            if !station.start_remotely(evse, token, Some(start_id), now) {
                return Ok(json!({"status": "Rejected"}));
            }
            let id = station.transactions.last().and_then(|truth| truth.id.clone());
            Ok(json!({"status": "Accepted", "transactionId": id}))
        }
        "RequestStopTransaction" => {
            let id = payload.get("transactionId").and_then(Value::as_str).unwrap_or_default();
            let known = station.stop_remotely(id, now);
            Ok(json!({"status": if known { "Accepted" } else { "Rejected" }}))
        }
        "ClearCache" => Ok(json!({"status": "Accepted"})),
        "UnlockConnector" => Ok(json!({"status": "UnlockFailed"})),
        "DataTransfer" => Ok(json!({"status": "UnknownVendorId"})),
        other => Err(("NotImplemented", format!("{other} is not known here"))),
    }
}

fn key_of(entry: &Value) -> String {
    let name = |part: &str| entry.get(part).and_then(|part| part.get("name")).and_then(Value::as_str).unwrap_or("");
    format!("{}.{}", name("component"), name("variable"))
}

fn get_variables(variables: &Variables, payload: &Value) -> Value {
    let list = payload.get("getVariableData").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    let results: Vec<Value> = list
        .iter()
        .map(|entry| {
            let (component, variable) = (entry.get("component"), entry.get("variable"));
            match variables.get(&key_of(entry)) {
                Some(found) => json!({"attributeStatus": "Accepted", "attributeValue": found.value,
                    "component": component, "variable": variable}),
                None => json!({"attributeStatus": "UnknownVariable", "component": component, "variable": variable}),
            }
        })
        .collect();
    json!({"getVariableResult": results})
}

fn set_variables(variables: &mut Variables, payload: &Value) -> Value {
    let list = payload.get("setVariableData").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    let results: Vec<Value> = list
        .iter()
        .map(|entry| {
            let value = entry.get("attributeValue").and_then(Value::as_str).unwrap_or_default();
            let status = match variables.set(&key_of(entry), value) {
                Change::Accepted => "Accepted",
                Change::Rejected => "Rejected",
                Change::Unknown => "UnknownVariable",
            };
            json!({"attributeStatus": status, "component": entry.get("component"), "variable": entry.get("variable")})
        })
        .collect();
    json!({"setVariableResult": results})
}

fn base_report(station: &mut Station, payload: &Value, now: Now) -> Value {
    let Some(request) = payload.get("requestId").and_then(Value::as_i64) else {
        return json!({"status": "Rejected"});
    };
    if payload.get("reportBase").and_then(Value::as_str) == Some("SummaryInventory") {
        return json!({"status": "NotSupported"});
    }
    let entries: Vec<Value> = station
        .variables
        .all()
        .iter()
        .filter_map(|(key, found)| {
            let (component, variable) = key.split_once('.')?;
            let mutability = if found.read_only { "ReadOnly" } else { "ReadWrite" };
            Some(json!({"component": {"name": component}, "variable": {"name": variable},
                "variableAttribute": [{"type": "Actual", "value": found.value, "mutability": mutability}]}))
        })
        .collect();
    let parts = entries.len().div_ceil(REPORT_ENTRIES);
    let at = station.clock(now).to_string();
    for (index, part) in entries.chunks(REPORT_ENTRIES).enumerate() {
        let payload = json!({"requestId": request, "generatedAt": at, "seqNo": index, "tbc": index + 1 < parts,
            "reportData": part});
        station.link.push(Plain::Other { action: "NotifyReport", payload });
    }
    json!({"status": "Accepted"})
}

const fn state_name(state: ChargingState) -> &'static str {
    match state {
        ChargingState::Charging => "Charging",
        ChargingState::EvConnected => "EVConnected",
        ChargingState::SuspendedEv => "SuspendedEV",
        ChargingState::SuspendedEvse => "SuspendedEVSE",
        ChargingState::Idle => "Idle",
    }
}

const fn stopped_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::EvDisconnected => "EVDisconnected",
        StopReason::Remote => "Remote",
        StopReason::Local => "Local",
        StopReason::DeAuthorized => "DeAuthorized",
        StopReason::SoftReset | StopReason::HardReset => "ImmediateReset",
        StopReason::PowerLoss => "PowerLoss",
    }
}

const fn stop_trigger(reason: StopReason) -> &'static str {
    match reason {
        StopReason::EvDisconnected => "EVCommunicationLost",
        StopReason::Remote => "RemoteStop",
        StopReason::Local => "StopAuthorized",
        StopReason::DeAuthorized => "Deauthorized",
        StopReason::SoftReset | StopReason::HardReset => "ResetCommand",
        StopReason::PowerLoss => "AbnormalCondition",
    }
}
