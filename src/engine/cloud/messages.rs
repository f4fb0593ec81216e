//! What leaves for the cloud: events, the state, the connection message, answers to commands. `docs/cloud.md` shows each.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::data::Data;
use super::limits;
use super::topics::Topics;
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::exchange::ConnectorStatus;
use crate::engine::model::ids::SiteId;
use crate::engine::model::limit::{LimitOrder, StandingLimit};
use crate::engine::model::record::{Record, RecordBody};
use crate::engine::model::status::SiteStatus;
use crate::engine::site::io::{Carries, Publication};
use crate::engine::time::Utc;

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

/// An event: a CloudEvents 1.0 object in structured mode.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Event<'a> {
    /// The version of CloudEvents.
    #[cfg_attr(test, schemars(extend("const" = "1.0")))]
    specversion: &'static str,
    /// `<store id>-<sequence>`: it never names two events.
    id: String,
    /// `/siteward/<site id>`.
    source: &'a str,
    /// What happened.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The charger, the circuit or the subject of the alarm; left out where the whole site is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    /// When it was recorded, as far as the gateway knew the time.
    time: Utc,
    /// Counts 1, 2, 3 … without a gap for the life of the store.
    sequence: u64,
    /// False: the gateway did not know the time. Then `boot` and `uptimems` are there too.
    clocktrusted: bool,
    /// Which start of the daemon: an event of the same `boot` with a trusted clock tells the time of all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<u64>,
    /// The ms since that start. A string, since an integer of CloudEvents has 32 bits and 25 days of milliseconds do not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    uptimems: Option<String>,
    /// The form of `data`.
    #[cfg_attr(test, schemars(extend("const" = "application/json")))]
    datacontenttype: &'static str,
    /// What this type of event tells.
    #[cfg_attr(test, schemars(with = "Value"))]
    data: Data<'a>,
}

/// A message of the telemetry.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Telemetry<'a> {
    /// `<ring>-<sequence>`: it never names two intervals.
    id: String,
    /// `/siteward/<site id>`.
    source: &'a str,
    /// Counts 1, 2, 3 … for the life of the ring; where numbers are missing, the ring was full and has dropped them.
    sequence: u64,
    /// What was measured.
    #[cfg_attr(test, schemars(with = "super::telemetry::Interval"))]
    data: &'a RawValue,
}

/// Whether the site is online. The broker itself sends it with `online` false when the connection breaks.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Connection<'a> {
    /// Whether the site is connected to the broker.
    online: bool,
    /// When this began to be so; in the last will, when the connection that broke was made.
    since: Utc,
    /// The daemon's version.
    version: &'a str,
}

/// The answer to a command.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Answer<'a> {
    /// What the command has found or done; a string where the charger's answer is no JSON; null: there is nothing to tell.
    data: Value,
    /// What was wrong, and what would be right; null: nothing.
    error: Option<&'a str>,
    /// The `id` of the command; null: it had none that could be read.
    id: Option<&'a str>,
    /// `accepted`; `rejected`: it made no sense, nothing was changed; `failed`: it was tried; `expired`: it came too late.
    #[cfg_attr(test, schemars(extend("enum" = ["accepted", "rejected", "failed", "expired"])))]
    status: &'static str,
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
            data: Data::from(&record.body),
        };
        Publication {
            topic: self.topics.events(),
            payload: text(&event),
            content_type: CLOUD_EVENT,
            at_least_once: true,
            retain: false,
            carries: Carries::Event(record.sequence),
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
            carries: Carries::Nothing,
            correlation: None,
        }
    }

    /// An interval of the telemetry, as the ring `ring` has numbered it.
    #[must_use]
    pub fn telemetry(&self, ring: &str, sequence: u64, interval: &str) -> Publication {
        // It was JSON when it was written down, and the ring holds it by a checksum.
        let data = RawValue::from_string(interval.to_owned()).unwrap_or_default();
        let message = Telemetry { id: format!("{ring}-{sequence}"), source: &self.source, sequence, data: &data };
        Publication {
            topic: self.topics.telemetry(),
            payload: text(&message),
            content_type: JSON,
            at_least_once: true,
            retain: false,
            carries: Carries::Interval(sequence),
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
            carries: Carries::Nothing,
            correlation,
        }
    }
}

/// The payload of `P/connection`. `since` is when this began to be so; in the last will, when the connection that broke was made.
#[must_use]
pub fn connection(online: bool, since: Utc, version: &str) -> String {
    text(&Connection { online, since, version })
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
    text(&Answer { data: data.unwrap_or(Value::Null), error, id, status: status(outcome) })
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

fn text(value: &impl Serialize) -> String {
    // Our own types have string keys only, so nothing in them can fail to be written.
    serde_json::to_string(value).unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string())
}

#[cfg(test)]
#[path = "messages_tests.rs"]
pub(super) mod tests;
