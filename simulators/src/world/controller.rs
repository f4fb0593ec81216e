//! The controller's side of the world: the site, its journal, its broker.

use siteward::engine::controller::Controller;
use siteward::engine::model::alarm::AlarmKind;
use siteward::engine::model::ids::{ConnectionId, Sequence};
use siteward::engine::model::record::{Record, RecordBody};
use siteward::engine::model::topology::StationIndex;
use siteward::engine::site::io::{CloudInput, Input, JournalInput, LogLevel, Output, Publication};
use siteward::engine::time::{Mono, Now};

use super::{Event, Running, World};

/// From the controller to the broker and on to the cloud, or back.
const BROKER_MS: u64 = 30;
/// How long a read from the journal takes.
const READ_MS: u64 = 5;

impl World {
    /// Starts the controller on what the journal holds.
    pub(super) fn start_controller(&mut self) -> Result<(), String> {
        let restored = self.journal.restore()?;
        self.boots = restored.boot;
        let now = self.site_now(self.now_ms);
        let controller = Controller::new(self.setup.clone(), restored, self.options.guard, now);
        #[cfg(feature = "sabotage")]
        let controller = {
            let mut controller = controller;
            self.options.broken_rule.into_iter().for_each(|rule| controller.sabotage(rule));
            controller
        };
        self.controller = Some(Running { controller, started_ms: self.now_ms });
        self.oracle.note(|| "the controller starts".to_owned());
        if self.broker_up {
            self.broker_link += 1;
            let link = self.broker_link;
            self.later(500, Event::BrokerConnected { link });
        }
        Ok(())
    }

    /// Kills the controller: whatever is not on disk is lost, and all connections are.
    pub(super) fn crash(&mut self) {
        self.controller = None;
        self.journal.crash();
        self.last_transaction_record.clear();
        self.broker_link += 1;
        for station in 0..self.posts.len() {
            self.disconnect(station, "connection reset");
        }
    }

    /// The time as the controller knows it; its monotonic clock starts with the process.
    fn site_now(&self, started_ms: u64) -> Now {
        let now = self.now();
        Now {
            mono: Mono::from_ms(self.now_ms - started_ms),
            utc: now.utc.plus_ms(self.clock_error_ms),
            utc_trusted: true,
        }
    }

    /// Hands an input to the site and carries its outputs out.
    pub(super) fn tell_site(&mut self, input: Input) {
        let Some(started_ms) = self.controller.as_ref().map(|running| running.started_ms) else { return };
        let now = self.site_now(started_ms);
        let mut outputs = std::mem::take(&mut self.outputs);
        if let Some(running) = &mut self.controller {
            running.controller.handle(input, now, &mut outputs);
        }
        for output in outputs.drain(..) {
            self.carry_out(output);
        }
        self.outputs = outputs;
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Frame { station, connection, text } => self.send_to_station(station.0, connection, text),
            Output::Close { station, connection, reason } => {
                self.oracle.note(|| format!("the controller closes the connection of station {}: {reason}", station.0));
                if self.posts[station.0].open.is_some_and(|open| open.connection == connection) {
                    self.disconnect(station.0, "closed by the controller");
                }
            }
            Output::Append(record) => self.append(record),
            Output::Snapshot { through, state } => self.journal.keep_snapshot(through, state),
            Output::ReadRecords { from, limit } => {
                let records = self.journal.read(from, limit);
                let boot = self.boots;
                self.later(READ_MS, Event::Read { boot, records });
            }
            Output::Acknowledged { through } => self.journal.acknowledge(through),
            Output::Publish(publication) => self.publish(publication),
            Output::Remember(memory) => self.journal.remember(memory),
            Output::Reply { .. } => {}
            Output::Log { level, message } => self.log(level, &message),
        }
    }

    fn log(&mut self, level: LogLevel, message: &str) {
        match level {
            LogLevel::Error => self.oracle.violate("no_promise_is_broken", message.to_owned()),
            LogLevel::Warn | LogLevel::Info => self.oracle.note(|| format!("{level:?}: {message}")),
            LogLevel::Debug => {}
        }
    }

    fn append(&mut self, record: Record) {
        // The debug form has every field, and is the same for the same record.
        self.trace.write(format!("{record:?}").as_bytes());
        if let RecordBody::AlarmRaised(alarm) = &record.body
            && alarm.key.kind == AlarmKind::GuardDisagrees
        {
            self.oracle.the_guard_agrees(&alarm.message);
        }
        if let Some(charger) = charger_of(&record.body)
            && let Some(station) = self.posts.iter().position(|post| post.station.options().identity == charger)
        {
            self.last_transaction_record.insert(station, record.sequence.0);
        }
        self.journal.append(record);
        self.start_flush(self.journal.flush_ms());
    }

    fn start_flush(&mut self, after_ms: u64) {
        if !self.journal.flushing {
            self.journal.flushing = true;
            let boot = self.boots;
            self.later(after_ms, Event::Flushed { boot });
        }
    }

    pub(super) fn flushed(&mut self, boot: u64) {
        if boot != self.boots || self.controller.is_none() {
            return;
        }
        self.journal.flushing = false;
        if self.journal.full {
            if !self.journal.told_full {
                self.journal.told_full = true;
                let error = "no space left on device".to_owned();
                self.tell_site(Input::Journal(JournalInput::Failed { error }));
            }
            self.start_flush(1_000);
            return;
        }
        let through = self.journal.flush();
        if std::mem::take(&mut self.journal.told_full) {
            self.tell_site(Input::Journal(JournalInput::Recovered));
        }
        self.tell_site(Input::Journal(JournalInput::Durable { through }));
        if self.journal.has_pending() {
            self.start_flush(self.journal.flush_ms());
        }
    }

    pub(super) fn records_read(&mut self, boot: u64, records: Vec<Record>) {
        if boot == self.boots && self.controller.is_some() {
            self.tell_site(Input::Journal(JournalInput::Records { records }));
        }
    }

    fn publish(&mut self, publication: Publication) {
        if let Some(sequence) = publication.sequence {
            self.oracle.nothing_published_before_durable(sequence.0, self.journal.durable_through());
        }
        if !self.broker_up || publication.sequence.is_none() {
            return;
        }
        let link = self.broker_link;
        let (sequence, payload) = (publication.sequence, publication.payload);
        self.later(BROKER_MS, Event::Published { link, sequence, payload });
    }

    pub(super) fn published(&mut self, link: u64, sequence: Option<Sequence>, payload: &str) {
        let Some(sequence) = sequence.filter(|_| link == self.broker_link) else { return };
        self.trace.write(payload.as_bytes());
        self.cloud.receive(payload);
        self.later(BROKER_MS, Event::Acknowledged { link, sequence });
    }

    pub(super) fn acknowledged(&mut self, link: u64, sequence: Sequence) {
        if link == self.broker_link {
            self.tell_site(Input::Cloud(CloudInput::Acknowledged { sequence }));
        }
    }

    pub(super) fn broker_connected(&mut self, link: u64) {
        if link == self.broker_link && self.broker_up {
            self.tell_site(Input::Cloud(CloudInput::Connected));
        }
    }

    pub(super) fn broker_lost(&mut self) {
        self.broker_up = false;
        self.broker_link += 1;
        self.tell_site(Input::Cloud(CloudInput::Disconnected { error: "connection refused".to_owned() }));
    }

    pub(super) fn broker_back(&mut self) {
        self.broker_up = true;
        self.broker_link += 1;
        let link = self.broker_link;
        self.later(1_000, Event::BrokerConnected { link });
    }

    /// A frame leaves the controller for a station.
    fn send_to_station(&mut self, station: usize, connection: ConnectionId, text: String) {
        self.counts.frames += 1;
        self.trace.write(text.as_bytes());
        if let Some(id) = answer_id(&text) {
            self.oracle.no_answer_before_durable(station, id, self.journal.durable_through());
        }
        let post = &self.posts[station];
        if post.open.is_none_or(|open| open.connection != connection) {
            return;
        }
        self.oracle.note(|| format!("to {station}: {text}"));
        if post.net.half_open {
            return;
        }
        let (after, epoch) = (post.net.latency_ms, post.epoch);
        let after = self.posts[station].to_station.in_order(self.now_ms, after);
        self.later(after, Event::ToStation { station, epoch, text });
    }

    /// A frame of a station arrives at the controller.
    pub(super) fn frame_to_site(&mut self, station: usize, epoch: u64, text: String) {
        let post = &self.posts[station];
        let Some(open) = post.open.filter(|_| post.epoch == epoch) else { return };
        self.oracle.note(|| format!("from {station}: {text}"));
        self.trace.write(text.as_bytes());
        let message = transaction_message_id(&text).map(str::to_owned);
        self.tell_site(Input::StationFrame { station: StationIndex(station), connection: open.connection, text });
        if let Some(message) = message {
            let sequence = self.last_transaction_record.get(&station).copied().unwrap_or(0);
            self.oracle.transaction_message_taken(station, &message, sequence);
        }
    }
}

/// The station that a transaction record is about.
fn charger_of(body: &RecordBody) -> Option<&str> {
    match body {
        RecordBody::TransactionStarted { facts, .. }
        | RecordBody::TransactionUpdated { facts, .. }
        | RecordBody::TransactionPriced { facts, .. }
        | RecordBody::TransactionEnded { facts, .. } => Some(facts.charger.as_str()),
        RecordBody::ChargerConnected { .. }
        | RecordBody::ChargerBooted { .. }
        | RecordBody::ChargerDisconnected { .. }
        | RecordBody::ChargerStatus { .. }
        | RecordBody::ChargerTamed { .. }
        | RecordBody::AlarmRaised(_)
        | RecordBody::AlarmCleared(_)
        | RecordBody::OutsideLimit(_)
        | RecordBody::OutsideLimitEnded { .. }
        | RecordBody::LimitProven(_)
        | RecordBody::LimitChanged { .. }
        | RecordBody::ConfigurationChanged { .. }
        | RecordBody::CommandExecuted { .. }
        | RecordBody::StoreRecovered { .. } => None,
    }
}

/// The message id of a CALLRESULT.
fn answer_id(frame: &str) -> Option<&str> {
    frame.strip_prefix("[3,\"").and_then(|rest| rest.split('"').next())
}

/// The message id of a CALL about a transaction.
fn transaction_message_id(frame: &str) -> Option<&str> {
    let mut parts = frame.strip_prefix("[2,\"")?.splitn(4, '"');
    let (id, _, action) = (parts.next()?, parts.next()?, parts.next()?);
    ["StartTransaction", "StopTransaction", "TransactionEvent"].contains(&action).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_found_without_reading_the_frame() {
        assert_eq!(answer_id(r#"[3,"a-1",{}]"#), Some("a-1"));
        assert_eq!(transaction_message_id(r#"[2,"a-1","StopTransaction",{}]"#), Some("a-1"));
        assert_eq!(transaction_message_id(r#"[2,"a-1","Heartbeat",{}]"#), None);
    }
}
