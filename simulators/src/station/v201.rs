//! OCPP 2.0.1 JSON as the station writes and reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use siteward::engine::model::exchange::{ChargingState, ConnectorStatus};
use siteward::engine::time::Now;

use super::calls::{Refusal, number};
use super::link::{Plain, text_of};
use super::signing::PUBLIC_KEY;
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
        Plain::Authorize { token, .. } => ("Authorize", json!({"idToken": {"idToken": token, "type": "ISO14443"}})),
        Plain::Other { action, payload } => (action, payload.clone()),
    }
}

/// A `TransactionEvent`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TransactionEvent<'a> {
    event_type: &'static str,
    timestamp: &'a str,
    trigger_reason: &'static str,
    seq_no: i64,
    offline: bool,
    evse: Evse,
    meter_value: [MeterValue<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<IdToken<'a>>,
    transaction_info: TransactionInfo<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Evse {
    id: u32,
    connector_id: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IdToken<'a> {
    id_token: &'a str,
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TransactionInfo<'a> {
    transaction_id: Option<&'a str>,
    charging_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_start_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_reason: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MeterValue<'a> {
    timestamp: &'a str,
    sampled_value: Vec<SampledValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SampledValue {
    value: Number,
    context: &'static str,
    measurand: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
    unit_of_measure: Unit,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_meter_value: Option<SignedMeterValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignedMeterValue {
    signed_meter_data: String,
    signing_method: &'static str,
    encoding_method: &'static str,
    public_key: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Number {
    Whole(i64),
    Decimal(f64),
}

#[derive(Serialize)]
struct Unit {
    unit: &'static str,
}

/// Action and payload of a transaction message.
pub(super) fn transaction(
    message: &TxMessage,
    truth: &TransactionTruth,
    variables: &Variables,
) -> (&'static str, String) {
    let (event_type, trigger_reason) = match message.part {
        TxPart::Started { remote_start: Some(_) } => ("Started", "RemoteStart"),
        TxPart::Started { remote_start: None } => ("Started", "Authorized"),
        TxPart::Metered => ("Updated", "MeterValuePeriodic"),
        TxPart::Changed => ("Updated", "ChargingStateChanged"),
        TxPart::Ended(reason) => ("Ended", stop_trigger(reason)),
    };
    let mut info = TransactionInfo {
        transaction_id: truth.id.as_deref(),
        charging_state: state_name(message.state),
        remote_start_id: None,
        stopped_reason: None,
    };
    let names_token = match message.part {
        TxPart::Started { remote_start } => {
            info.remote_start_id = remote_start;
            true
        }
        TxPart::Ended(reason) => {
            info.stopped_reason = Some(stopped_reason(reason));
            true
        }
        TxPart::Metered | TxPart::Changed => false,
    };
    let timestamp = message.sample.at.to_string();
    let payload = text_of(&TransactionEvent {
        event_type,
        timestamp: &timestamp,
        trigger_reason,
        seq_no: message.seq_no,
        offline: message.offline,
        evse: Evse { id: message.evse, connector_id: 1 },
        meter_value: [MeterValue { timestamp: &timestamp, sampled_value: sampled(message, variables) }],
        id_token: names_token.then_some(IdToken { id_token: &truth.token, r#type: "ISO14443" }),
        transaction_info: info,
    });
    ("TransactionEvent", payload)
}

/// What the meter has signed, with its public key, as OCPP 2.x stations send them.
fn signed(record: &str) -> SignedMeterValue {
    SignedMeterValue {
        signed_meter_data: STANDARD.encode(record),
        signing_method: "ECDSA-secp256r1-SHA256",
        encoding_method: "OCMF",
        public_key: STANDARD.encode(format!("oca:base16:asn1:{PUBLIC_KEY}")),
    }
}

fn sampled(message: &TxMessage, variables: &Variables) -> Vec<SampledValue> {
    let sample: &Sample = &message.sample;
    let (context, whole) = match message.part {
        TxPart::Started { .. } => ("Transaction.Begin", false),
        TxPart::Metered => ("Sample.Periodic", true),
        TxPart::Changed => ("Other", true),
        TxPart::Ended(_) => ("Transaction.End", false),
    };
    let entry = |measurand, phase, value, unit| SampledValue {
        value,
        context,
        measurand,
        phase,
        unit_of_measure: Unit { unit },
        signed_meter_value: None,
    };
    let mut list = Vec::with_capacity(6);
    let energy = entry("Energy.Active.Import.Register", None, Number::Whole(sample.energy_wh), "Wh");
    list.push(SampledValue { signed_meter_value: message.signed.as_deref().map(signed), ..energy });
    if !whole {
        return list;
    }
    if variables.wants("Current.Import") {
        for (phase, current) in ["L1", "L2", "L3"].into_iter().zip(sample.current) {
            if let Some(current) = current {
                list.push(entry("Current.Import", Some(phase), Number::Decimal(current.as_a()), "A"));
            }
        }
    }
    if variables.wants("Power.Active.Import") {
        list.push(entry("Power.Active.Import", None, Number::Whole(sample.power_w), "W"));
    }
    if let Some(soc) = sample.soc_percent.filter(|_| variables.wants("SoC")) {
        list.push(entry("SoC", None, Number::Whole(soc), "Percent"));
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
        "UnlockConnector" => Ok(json!({"status": "UnlockFailed"})),
        "CostUpdated" => station.cost_updated(payload),
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
