//! What leaves for the cloud: events, the state, the connection message, answers to commands. `docs/cloud.md` shows each.

use serde::Serialize;
use serde_json::{Value, json};

use super::limits;
use super::topics::Topics;
use crate::engine::model::alarm::Alarm;
use crate::engine::model::balance::{Balance, CircuitBalance, EvseBalance};
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::exchange::ConnectorStatus;
use crate::engine::model::ids::SiteId;
use crate::engine::model::limit::{LimitOrder, StandingLimit};
use crate::engine::model::record::{Record, RecordBody, TransactionFacts};
use crate::engine::model::signed::{PageFault, SignedNote};
use crate::engine::model::status::SiteStatus;
use crate::engine::model::token::TokensOrder;
use crate::engine::site::io::Publication;
use crate::engine::time::Utc;
use crate::engine::units::{Current, Energy};

/// The content type of an event (CloudEvents 1.0, structured mode).
pub const CLOUD_EVENT: &str = "application/cloudevents+json";
/// The content type of everything else.
pub const JSON: &str = "application/json";

/// Makes the messages of one site with one store.
#[derive(Clone, Debug)]
pub struct Messages {
    topics: Topics,
    source: String,
    store_id: String,
}

/// A CloudEvents 1.0 envelope.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: Utc,
    sequence: u64,
    clocktrusted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<u64>,
    /// A string, since an integer of CloudEvents has 32 bits and 25 days of milliseconds do not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    uptimems: Option<String>,
    datacontenttype: &'static str,
    data: Value,
}

impl Messages {
    /// The messages of `site` below the topic `prefix`, with event ids that begin with `store_id`.
    #[must_use]
    pub fn new(prefix: &str, site: &SiteId, store_id: &str) -> Self {
        Self { topics: Topics::new(prefix, site), source: format!("/siteward/{site}"), store_id: store_id.to_owned() }
    }

    /// The site's topics.
    #[must_use]
    pub const fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The event that tells of a record.
    #[must_use]
    pub fn event(&self, record: &Record) -> Publication {
        let stamp = record.stamp;
        let event = Event {
            specversion: "1.0",
            id: format!("{}-{}", self.store_id, record.sequence),
            source: &self.source,
            kind: event_type(&record.body),
            subject: subject(&record.body),
            time: stamp.utc,
            sequence: record.sequence.0,
            clocktrusted: stamp.trusted,
            boot: (!stamp.trusted).then_some(stamp.boot),
            uptimems: (!stamp.trusted).then(|| stamp.mono.ms().to_string()),
            datacontenttype: JSON,
            data: data(&record.body),
        };
        Publication {
            topic: self.topics.events(),
            payload: text(&event),
            content_type: CLOUD_EVENT,
            at_least_once: true,
            retain: false,
            sequence: Some(record.sequence),
            correlation: None,
        }
    }

    /// The site at a glance: retained, at most once.
    #[must_use]
    pub fn state(&self, status: &SiteStatus) -> Publication {
        Publication {
            topic: self.topics.state(),
            payload: text(status),
            content_type: JSON,
            at_least_once: false,
            retain: true,
            sequence: None,
            correlation: None,
        }
    }

    /// The answer to a command, to the response topic that it named or to the site's own.
    #[must_use]
    pub fn response(
        &self,
        payload: String,
        response_topic: Option<String>,
        correlation: Option<Vec<u8>>,
    ) -> Publication {
        Publication {
            topic: response_topic.unwrap_or_else(|| self.topics.responses()),
            payload,
            content_type: JSON,
            at_least_once: true,
            retain: false,
            sequence: None,
            correlation,
        }
    }
}

/// The payload of `P/connection`. `since` is when this began to be so; in the last will, when the connection that broke was made.
#[must_use]
pub fn connection(online: bool, since: Utc, version: &str) -> String {
    json!({ "online": online, "since": since, "version": version }).to_string()
}

/// The payload of an answer: `{"id", "status", "error", "data"}`. `id` is `None` where the command had none that could be read.
#[must_use]
pub fn response(id: Option<&str>, outcome: &CommandOutcome) -> String {
    let (error, data) = match outcome {
        CommandOutcome::Accepted { data } => (None, data.as_deref()),
        CommandOutcome::Rejected { error } => (Some(error.as_str()), None),
        CommandOutcome::Failed { error, data } => (Some(error.as_str()), data.as_deref()),
        CommandOutcome::TimedOut => (Some("the charger did not answer in time"), None),
        CommandOutcome::NotConnected => (Some("the charger is not connected"), None),
        CommandOutcome::Expired => (Some("the command came after its `expires`"), None),
    };
    // Text that is no JSON is passed on as a string: an answer that says less is worse.
    let data =
        data.filter(|data| !data.is_empty()).map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data)));
    json!({ "id": id, "status": status(outcome), "error": error, "data": data.unwrap_or(Value::Null) }).to_string()
}

/// The contract's word for how a command ended, also for the record of it.
#[must_use]
pub const fn status(outcome: &CommandOutcome) -> &'static str {
    match outcome {
        CommandOutcome::Accepted { .. } => "accepted",
        CommandOutcome::Rejected { .. } => "rejected",
        CommandOutcome::Failed { .. } | CommandOutcome::TimedOut | CommandOutcome::NotConnected => "failed",
        CommandOutcome::Expired => "expired",
    }
}

/// The event's type for a record.
#[must_use]
pub const fn event_type(body: &RecordBody) -> &'static str {
    match body {
        RecordBody::TransactionStarted { .. } => "siteward.transaction.started",
        RecordBody::TransactionUpdated { .. } | RecordBody::TransactionPriced { .. } => "siteward.transaction.updated",
        RecordBody::TransactionEnded { .. } => "siteward.transaction.ended",
        RecordBody::TransactionCorrected { .. } => "siteward.transaction.corrected",
        RecordBody::CdrCreated(_) => "siteward.cdr.created",
        RecordBody::CdrWithheld { .. } => "siteward.cdr.withheld",
        RecordBody::SignedValue(_) => "siteward.transaction.signed",
        RecordBody::EnergyBalanced(_) => "siteward.energy.balanced",
        RecordBody::ChargerConnected { .. } => "siteward.charger.connected",
        RecordBody::ChargerBooted { .. } => "siteward.charger.firmware",
        RecordBody::ChargerDisconnected { .. } => "siteward.charger.disconnected",
        RecordBody::ChargerStatus { status: ConnectorStatus::Faulted, .. }
        | RecordBody::ChargerStatus { error: Some(_), .. } => "siteward.charger.fault",
        // There is no type of its own for it: what is known of the charger's state has changed.
        RecordBody::ChargerStatus { error: None, .. }
        | RecordBody::ChargerTamed { .. }
        | RecordBody::LeaseChosen { .. } => "siteward.charger.status",
        RecordBody::AlarmRaised(_) => "siteward.alarm.raised",
        RecordBody::AlarmCleared(_) => "siteward.alarm.cleared",
        RecordBody::OutsideLimit(_) | RecordBody::OutsideLimitEnded { .. } | RecordBody::LimitChanged { .. } => {
            "siteward.limit.changed"
        }
        RecordBody::LimitProven(_) => "siteward.limit.proven",
        RecordBody::BoostSet { .. } | RecordBody::BoostEnded { .. } => "siteward.boost.changed",
        RecordBody::TargetSet { .. } | RecordBody::TargetEnded { .. } => "siteward.target.changed",
        RecordBody::ConfigurationChanged { .. }
        | RecordBody::TariffsReplaced { .. }
        | RecordBody::TokensChanged { .. } => "siteward.configuration.changed",
        RecordBody::CommandExecuted { .. } => "siteward.command.executed",
        RecordBody::StoreRecovered { .. } => "siteward.store.recovered",
    }
}

fn subject(body: &RecordBody) -> Option<&str> {
    match body {
        RecordBody::TransactionStarted { facts, .. }
        | RecordBody::TransactionUpdated { facts, .. }
        | RecordBody::TransactionPriced { facts, .. }
        | RecordBody::TransactionEnded { facts, .. }
        | RecordBody::TransactionCorrected { facts, .. }
        | RecordBody::CdrWithheld { facts, .. } => Some(facts.charger.as_str()),
        RecordBody::CdrCreated(note) => Some(note.charger.as_str()),
        RecordBody::SignedValue(note) => Some(note.charger.as_str()),
        RecordBody::ChargerConnected { charger, .. }
        | RecordBody::ChargerBooted { charger, .. }
        | RecordBody::ChargerDisconnected { charger, .. }
        | RecordBody::ChargerStatus { charger, .. }
        | RecordBody::ChargerTamed { charger, .. }
        | RecordBody::LeaseChosen { charger, .. }
        | RecordBody::BoostSet { charger, .. }
        | RecordBody::BoostEnded { charger, .. }
        | RecordBody::TargetSet { charger, .. }
        | RecordBody::TargetEnded { charger, .. } => Some(charger.as_str()),
        RecordBody::AlarmRaised(alarm) | RecordBody::AlarmCleared(alarm) => {
            // CloudEvents: a subject that is there is not empty.
            Some(alarm.key.subject.as_str()).filter(|subject| !subject.is_empty())
        }
        RecordBody::LimitChanged { circuit, .. } => Some(circuit.as_str()),
        RecordBody::OutsideLimit(StandingLimit { order: LimitOrder { target, .. }, .. })
        | RecordBody::OutsideLimitEnded { target, .. } => Some(limits::name_of(target)),
        RecordBody::LimitProven(proof) => Some(limits::name_of(&proof.target)),
        RecordBody::EnergyBalanced(_)
        | RecordBody::ConfigurationChanged { .. }
        | RecordBody::TariffsReplaced { .. }
        | RecordBody::TokensChanged { .. }
        | RecordBody::CommandExecuted { .. }
        | RecordBody::StoreRecovered { .. } => None,
    }
}

fn data(body: &RecordBody) -> Value {
    match body {
        RecordBody::TransactionStarted { facts, seq_no, offline } => {
            transaction_data(facts, json!({ "seq_no": seq_no, "offline": offline }))
        }
        RecordBody::TransactionUpdated { facts, seq_no, at, meter, trigger, offline, charging } => transaction_data(
            facts,
            json!({
                "seq_no": seq_no, "offline": offline, "at": at, "meter_wh": meter, "trigger": trigger,
                "energy_wh": energy(facts, *meter), "charging": charging,
            }),
        ),
        RecordBody::TransactionPriced { facts, tariff, .. } => transaction_data(facts, json!({ "tariff": tariff })),
        RecordBody::TransactionEnded { facts, seq_no, ended, meter_stop, reason, reconstructed, cost } => {
            transaction_data(
                facts,
                json!({
                    "seq_no": seq_no, "ended": ended, "meter_stop_wh": meter_stop, "reason": reason,
                    "reconstructed": reconstructed, "energy_wh": energy(facts, *meter_stop), "cost": cost,
                }),
            )
        }
        RecordBody::TransactionCorrected { .. }
        | RecordBody::CdrCreated(_)
        | RecordBody::CdrWithheld { .. }
        | RecordBody::SignedValue(_)
        | RecordBody::EnergyBalanced(_) => bill_data(body),
        RecordBody::ChargerConnected { charger, version } => json!({ "charger": charger, "ocpp_version": version }),
        RecordBody::ChargerBooted { charger, info } => json!({
            "charger": charger, "vendor": info.vendor, "model": info.model,
            "serial": info.serial, "firmware": info.firmware,
        }),
        RecordBody::ChargerDisconnected { charger, reason } => json!({ "charger": charger, "reason": reason }),
        RecordBody::ChargerStatus { charger, evse, connector, status, error } => json!({
            "charger": charger, "evse": evse, "connector": connector, "status": status, "error": error,
        }),
        RecordBody::ChargerTamed { charger, evse, fallback, form } => json!({
            "charger": charger, "evse": evse, "fail_safe": true, "fallback_a": fallback.as_a(), "lease": form.name(),
        }),
        RecordBody::LeaseChosen { charger, form, proven } => json!({
            "charger": charger, "evse": null, "fail_safe": proven, "lease": form.name(),
        }),
        RecordBody::AlarmRaised(alarm) | RecordBody::AlarmCleared(alarm) => alarm_data(alarm),
        RecordBody::OutsideLimit(standing) => limits::standing(standing),
        RecordBody::OutsideLimitEnded { target, origin, why } => limits::ended(target, origin, *why),
        RecordBody::LimitProven(proof) => limits::proven(proof),
        RecordBody::LimitChanged { circuit, limit, until } => json!({
            "circuit": circuit, "limit_a": limit.map(Current::as_a), "until": until,
        }),
        RecordBody::BoostSet { charger, evse, boost } => json!({
            "charger": charger, "evse": evse, "transaction_id": boost.transaction, "until": boost.until, "state": "set",
        }),
        RecordBody::BoostEnded { charger, evse, cause } => json!({
            "charger": charger, "evse": evse, "until": null, "state": cause,
        }),
        RecordBody::TargetSet { charger, evse, transaction, target } => json!({
            "charger": charger, "evse": evse, "transaction_id": transaction, "energy_wh": target.energy,
            "departure": target.departure, "source": target.source, "state": "set",
        }),
        RecordBody::TargetEnded { charger, evse, transaction, cause, missing } => json!({
            "charger": charger, "evse": evse, "transaction_id": transaction, "missing_wh": missing, "state": cause,
        }),
        RecordBody::ConfigurationChanged { version, cause, .. } => json!({ "version": version, "cause": cause }),
        RecordBody::TariffsReplaced { .. } | RecordBody::TokensChanged { .. } => by_command_data(body),
        RecordBody::CommandExecuted { id, kind, status, error } => json!({
            "id": id, "type": kind, "status": status, "error": error,
        }),
        RecordBody::StoreRecovered { missing } => json!({ "missing": missing }),
    }
}

/// What commands have put in the place of what the configuration says.
fn by_command_data(body: &RecordBody) -> Value {
    match body {
        RecordBody::TariffsReplaced { tariffs } => json!({ "cause": "tariffs.replace", "tariffs": tariffs }),
        RecordBody::TokensChanged { order, .. } => tokens_data(order),
        _ => Value::Null,
    }
}

/// What is told of bills after a transaction has ended.
fn bill_data(body: &RecordBody) -> Value {
    match body {
        RecordBody::TransactionCorrected { facts, ended, meter_stop, reason, cost } => transaction_data(
            facts,
            json!({
                "ended": ended, "meter_stop_wh": meter_stop, "reason": reason, "energy_wh": energy(facts, *meter_stop),
                "cost": cost,
            }),
        ),
        // The CDR itself, so that it can be handed on as it is.
        RecordBody::CdrCreated(note) => json!(note.cdr),
        RecordBody::CdrWithheld { facts, reason, .. } => transaction_data(facts, json!({ "reason": reason })),
        RecordBody::SignedValue(note) => signed_data(note),
        RecordBody::EnergyBalanced(balance) => balance_data(balance),
        _ => Value::Null,
    }
}

/// How many tokens were changed, not which: that is the sender's business, and a list would be a large event.
fn tokens_data(order: &TokensOrder) -> Value {
    let part = order.part();
    json!({
        "cause": "tokens", "change": order.word(), "entries": order.count(), "list": part.map(|part| &part.list),
        "part": part.map(|part| part.part), "parts": part.map(|part| part.parts),
    })
}

/// A signed value. The text of `signed_data` is what the station sent, byte for byte.
fn signed_data(note: &SignedNote) -> Value {
    let SignedNote { charger, evse, transaction, at, value, page, page_fault, check, reason } = note;
    let page = page.as_ref().map(|page| json!({ "meter": page.meter, "class": page.class, "number": page.number }));
    let page_fault = page_fault.map(|fault| match fault {
        PageFault::Missing(first, last) => json!({ "missing": [first, last] }),
        PageFault::Repeated => json!("repeated"),
    });
    json!({
        "transaction_id": transaction, "charger": charger, "evse": evse, "at": at, "context": value.context,
        "signed_data": value.data, "encoding_method": value.encoding, "signing_method": value.method,
        "public_key": value.key, "page": page, "page_fault": page_fault, "verification": check, "reason": reason,
    })
}

/// The balance of a day.
fn balance_data(balance: &Balance) -> Value {
    let evse = |evse: &EvseBalance| {
        json!({
            "charger": evse.charger, "evse": evse.evse, "register_start_wh": evse.register_start,
            "register_end_wh": evse.register_end, "transactions_wh": evse.transactions,
            "difference_wh": evse.difference(), "verdict": evse.verdict, "reason": evse.reason,
        })
    };
    let circuit = |circuit: &CircuitBalance| {
        json!({
            "circuit": circuit.circuit, "comparison": circuit.comparison, "metered_wh": circuit.metered,
            "chargers_wh": circuit.chargers, "tolerance_wh": circuit.tolerance, "verdict": circuit.verdict,
            "reason": circuit.reason,
        })
    };
    json!({
        "from": balance.from, "to": balance.to, "evses": balance.evses.iter().map(evse).collect::<Vec<_>>(),
        "circuits": balance.circuits.iter().map(circuit).collect::<Vec<_>>(),
    })
}

/// What every event of a transaction tells, and what this one tells beyond it.
fn transaction_data(facts: &TransactionFacts, more: Value) -> Value {
    let mut data = json!({
        "transaction_id": facts.transaction, "charger": facts.charger, "evse": facts.evse,
        "connector": facts.connector, "token": facts.token, "started": facts.started, "meter_start_wh": facts.meter_start,
    });
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(more);
    }
    data
}

/// Only a difference of two known registers is an energy; a missing one is never taken for 0.
fn energy(facts: &TransactionFacts, register: Option<Energy>) -> Option<Energy> {
    Some(register? - facts.meter_start?)
}

fn alarm_data(alarm: &Alarm) -> Value {
    json!({
        "kind": alarm.key.kind, "subject": alarm.key.subject, "severity": alarm.severity,
        "message": alarm.message, "remedy": alarm.remedy,
    })
}

fn text(value: &impl Serialize) -> String {
    // Our own types have string keys only, so nothing in them can fail to be written.
    serde_json::to_string(value).unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string())
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
