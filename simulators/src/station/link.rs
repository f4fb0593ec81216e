//! The station's side of OCPP-J: one open CALL at a time, the queue of transaction messages with its retries, the boot.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Value, json};
use siteward::engine::model::exchange::{ConnectorStatus, OcppVersion};
use siteward::engine::time::{Mono, Now, Utc};

use super::authorization::ListFault;
use super::transaction::TxPart;
use super::{Station, StopReason, v16, v201};

/// How long the station waits for the answer to a CALL.
const CALL_TIMEOUT_MS: u64 = 30_000;
/// How many messages other than transaction messages wait at most; more are dropped, the oldest first: they tell of the past.
const MOST_PLAIN: usize = 50;
/// The wait before the next `BootNotification` where the CSMS names none.
const BOOT_RETRY_MS: u64 = 30_000;

/// A message that is not about a transaction.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plain {
    Boot { reason: &'static str },
    Heartbeat,
    Status { evse: u32, status: ConnectorStatus, at: Utc },
    Authorize { evse: u32, token: String },
    Other { action: &'static str, payload: Value },
}

/// What the open CALL is about.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Plain(Plain),
    /// The first of the transaction queue.
    Transaction,
}

#[derive(Clone, Debug)]
struct Open {
    id: String,
    asked: Asked,
    sent_at: Mono,
}

/// The state of the connection.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) online: bool,
    accepted: bool,
    boot_reason: &'static str,
    boot_at: Mono,
    heartbeat_ms: u64,
    heartbeat_at: Mono,
    open: Option<Open>,
    plain: VecDeque<Plain>,
    calls: u64,
    repeat_next_stop: bool,
}

impl Link {
    pub(super) const fn new(boot_reason: &'static str) -> Self {
        Self {
            online: false,
            accepted: false,
            boot_reason,
            boot_at: Mono::START,
            heartbeat_ms: 300_000,
            heartbeat_at: Mono::START,
            open: None,
            plain: VecDeque::new(),
            calls: 0,
            repeat_next_stop: true,
        }
    }

    pub(super) fn opened(&mut self) {
        self.online = true;
        self.open = None;
        self.plain.clear();
    }

    pub(super) fn closed(&mut self) {
        self.online = false;
        // An unanswered transaction message is still the first of its queue and goes again.
        self.open = None;
        self.plain.clear();
    }

    pub(super) fn push(&mut self, message: Plain) {
        if self.plain.len() >= MOST_PLAIN {
            self.plain.pop_front();
        }
        self.plain.push_back(message);
    }
}

impl Station {
    /// The next frame, if none is open.
    pub(super) fn pump(&mut self, now: Now) -> Vec<String> {
        if !self.link.online {
            return Vec::new();
        }
        if self.link.open.as_ref().is_some_and(|open| now.mono.since(open.sent_at) >= CALL_TIMEOUT_MS) {
            self.failed(now);
        }
        if self.link.open.is_some() {
            return Vec::new();
        }
        let Some(asked) = self.next_to_ask(now) else { return Vec::new() };
        let (action, payload) = self.encode(&asked);
        self.link.calls += 1;
        let id = format!("{:x}-{}", self.options.seed & 0xffff, self.dice.bits() >> 40);
        let frame = format!(r#"[2,"{id}","{action}",{payload}]"#);
        self.link.open = Some(Open { id, asked, sent_at: now.mono });
        vec![frame]
    }

    fn next_to_ask(&mut self, now: Now) -> Option<Asked> {
        if !self.link.accepted {
            let due = now.mono >= self.link.boot_at;
            return due.then_some(Asked::Plain(Plain::Boot { reason: self.link.boot_reason }));
        }
        if let Some(message) = self.link.plain.pop_front() {
            return Some(Asked::Plain(message));
        }
        if self.queue.front().is_some_and(|message| now.mono >= message.not_before) {
            return Some(Asked::Transaction);
        }
        if now.mono >= self.link.heartbeat_at {
            self.link.heartbeat_at = now.mono.plus_ms(self.link.heartbeat_ms);
            return Some(Asked::Plain(Plain::Heartbeat));
        }
        None
    }

    /// Action and payload, as the text that leaves: transaction messages are most of what a site hears, and building them as trees of values first
    /// took a seventh of the time of the virtual world.
    fn encode(&self, asked: &Asked) -> (&'static str, String) {
        let (action, payload) = match asked {
            Asked::Plain(message) => match self.options.version {
                OcppVersion::V16 => v16::plain(message, &self.options),
                OcppVersion::V201 | OcppVersion::V21 => v201::plain(message, &self.options),
            },
            Asked::Transaction => {
                let Some(message) = self.queue.front() else { return ("Heartbeat", "{}".to_owned()) };
                let truth = &self.transactions[message.transaction];
                return match self.options.version {
                    OcppVersion::V16 => v16::transaction(message, truth, &self.variables),
                    OcppVersion::V201 | OcppVersion::V21 => v201::transaction(message, truth, &self.variables),
                };
            }
        };
        (action, payload.to_string())
    }

    /// Takes a frame in: a CALL is answered at once, an answer is matched to the open CALL.
    pub(super) fn take_frame(&mut self, text: &str, now: Now) -> Vec<String> {
        let Ok(Value::Array(frame)) = serde_json::from_str::<Value>(text) else { return Vec::new() };
        let id = frame.get(1).and_then(Value::as_str).unwrap_or_default();
        match frame.first().and_then(Value::as_i64) {
            Some(2) => {
                let action = frame.get(2).and_then(Value::as_str).unwrap_or_default();
                let payload = frame.get(3).unwrap_or(&Value::Null);
                let silent = action == "SendLocalList" && self.options.quirks.list == ListFault::Silent;
                if self.options.quirks.never_answers || silent {
                    return Vec::new();
                }
                let answer = self.answer(action, payload, now);
                let text = match answer {
                    Ok(payload) => json!([3, id, payload]),
                    Err((code, description)) => json!([4, id, code, description, {}]),
                };
                vec![text.to_string()]
            }
            Some(3) => {
                if let Some(open) = self.link.open.take_if(|open| open.id == id) {
                    let payload = frame.get(2).unwrap_or(&Value::Null);
                    self.succeeded(open.asked, payload, now);
                }
                Vec::new()
            }
            Some(4) => {
                if self.link.open.as_ref().is_some_and(|open| open.id == id) {
                    self.failed(now);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// The open CALL was answered.
    fn succeeded(&mut self, asked: Asked, payload: &Value, now: Now) {
        match asked {
            Asked::Plain(Plain::Boot { .. }) => self.booted(payload, now),
            Asked::Plain(Plain::Heartbeat) => self.set_clock(payload, now),
            Asked::Plain(Plain::Authorize { evse, token }) => {
                let accepted = self.heard_of(&token, payload);
                if let Some(index) = self.index_of(evse).filter(|index| self.bays[*index].running.is_some()) {
                    self.stops_by(index, &token, now);
                } else if let Some(bay) = self.bay_mut(evse).filter(|bay| bay.token.as_ref() == Some(&token)) {
                    bay.authorized = accepted;
                    if !accepted {
                        bay.token = None;
                    }
                }
            }
            Asked::Plain(Plain::Status { .. } | Plain::Other { .. }) => {}
            Asked::Transaction => self.transaction_answered(payload, now),
        }
    }

    fn booted(&mut self, payload: &Value, now: Now) {
        self.set_clock(payload, now);
        let interval_ms = payload.get("interval").and_then(Value::as_u64).filter(|s| *s > 0).map(|s| s * 1000);
        self.link.accepted = payload.get("status").and_then(Value::as_str) == Some("Accepted");
        if self.link.accepted {
            self.link.heartbeat_ms = interval_ms.unwrap_or(self.link.heartbeat_ms);
            self.link.heartbeat_at = now.mono.plus_ms(self.link.heartbeat_ms);
            let evse_zero = Plain::Status { evse: 0, status: ConnectorStatus::Available, at: self.clock(now) };
            if self.options.version == OcppVersion::V16 {
                self.link.plain.push_front(evse_zero);
            }
        } else {
            self.link.boot_at = now.mono.plus_ms(interval_ms.unwrap_or(BOOT_RETRY_MS));
        }
    }

    fn set_clock(&mut self, payload: &Value, now: Now) {
        if self.options.quirks.clock_offset_ms != 0 {
            return;
        }
        let told = payload.get("currentTime").and_then(Value::as_str).and_then(Utc::parse);
        if let Some(told) = told {
            let offset = told.since(now.utc);
            if offset != self.clock_offset_ms {
                self.clock_offset_ms = offset;
                self.offers_are_old = true;
            }
        }
    }

    fn transaction_answered(&mut self, payload: &Value, now: Now) {
        let Some(message) = self.queue.done() else { return };
        let status = token_status(payload);
        let token = self.transactions[message.transaction].token.clone();
        self.heard_of(&token, payload);
        let truth = &mut self.transactions[message.transaction];
        match message.part {
            TxPart::Started { .. } => {
                truth.start_answered = true;
                if let Some(id) = payload.get("transactionId").and_then(Value::as_i64) {
                    truth.id.get_or_insert_with(|| id.to_string());
                    self.offers_are_old = true;
                }
            }
            TxPart::Ended(_) => {
                truth.stop_answered = true;
                truth.final_cost = payload.get("totalCost").map(Value::to_string).or(truth.final_cost.take());
                if self.options.quirks.duplicate_stop && self.link.repeat_next_stop {
                    self.queue.again(message.clone());
                }
                self.link.repeat_next_stop = !self.link.repeat_next_stop;
            }
            TxPart::Metered | TxPart::Changed => {}
        }
        if status.is_some_and(|status| status != "Accepted") {
            let running = |bay: &super::Bay| bay.running.as_ref().map(|running| running.index);
            if let Some(index) = self.bays.iter().position(|bay| running(bay) == Some(message.transaction)) {
                self.stop(index, StopReason::DeAuthorized, now);
            }
        }
    }

    /// The open CALL was refused or not answered in time.
    fn failed(&mut self, now: Now) {
        let Some(open) = self.link.open.take() else { return };
        match open.asked {
            Asked::Plain(Plain::Boot { .. }) => self.link.boot_at = now.mono.plus_ms(BOOT_RETRY_MS),
            Asked::Plain(Plain::Authorize { evse, .. }) => {
                if let Some(bay) = self.bay_mut(evse) {
                    bay.asked = false;
                }
            }
            Asked::Plain(_) => {}
            Asked::Transaction => self.try_again_later(now),
        }
    }

    /// OCPP 1.6 §3.7.1: so many attempts, each after a longer wait; then the message is given up.
    fn try_again_later(&mut self, now: Now) {
        let (attempts, interval_s) = self.variables.message_retries();
        let Some(message) = self.queue.front_mut() else { return };
        message.attempts += 1;
        if message.attempts < attempts {
            message.not_before = now.mono.plus_ms(interval_s * 1000 * u64::from(message.attempts));
            return;
        }
        if let Some(message) = self.queue.done()
            && matches!(message.part, TxPart::Started { .. } | TxPart::Ended(_))
        {
            self.transactions[message.transaction].given_up = true;
        }
    }
}

/// A payload as JSON. What is written here has names for keys and numbers that JSON knows, so that it cannot fail.
pub(super) fn text_of(payload: &impl Serialize) -> String {
    serde_json::to_string(payload).unwrap_or_default()
}

/// The token's status in an answer of either version.
fn token_status(payload: &Value) -> Option<&str> {
    let info = payload.get("idTagInfo").or_else(|| payload.get("idTokenInfo"))?;
    info.get("status").and_then(Value::as_str)
}
