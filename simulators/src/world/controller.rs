//! The controller's side of the world: the site, its journal, its broker.

use siteward::engine::controller::Controller;
use siteward::engine::model::alarm::AlarmKind;
use siteward::engine::model::ids::Sequence;
use siteward::engine::model::record::{Record, RecordBody};
use siteward::engine::model::topology::StationIndex;
use siteward::engine::site::io::{Carries, CloudInput, Input, JournalInput, LogLevel, Output, Publication};
use siteward::engine::site::ledger::Ledger;
use siteward::engine::time::{Mono, Now, Utc};

use super::tamper::Tampering;
use super::{Event, Running, World};

/// A controller without a clock counts from the beginning of 1970.
const NO_CLOCK: i64 = 0;

/// From the controller to the broker and on to the cloud, or back.
pub(super) const BROKER_MS: u64 = 30;
/// How long a read from the journal takes.
pub(super) const READ_MS: u64 = 5;

impl World {
    /// Starts the controller on what the journal holds.
    pub(super) fn start_controller(&mut self) -> Result<(), String> {
        let mut restored = self.journal.restore()?;
        if self.site.tampering == Some(Tampering::ForgetsAtRestart) {
            restored.ledger = Ledger::default();
        }
        self.boots = restored.boot;
        self.oracle.restart_equals_no_restart(self.journal.never_restarted(), &restored.ledger);
        let now = self.site_now(self.now_ms);
        let controller = Controller::new(self.setup.clone(), restored, self.site.guard, now);
        #[cfg(feature = "sabotage")]
        let controller = {
            let mut controller = controller;
            self.site.broken_rule.into_iter().for_each(|rule| controller.sabotage(rule));
            controller
        };
        self.controller = Some(Running { controller, started_ms: self.now_ms, told_at: now });
        self.oracle.note(|| "the controller starts".to_owned());
        self.show_ring();
        if self.broker_up {
            self.broker_link += 1;
            let link = self.broker_link;
            self.later(500, Event::BrokerConnected { link });
        }
        Ok(())
    }

    /// Kills the controller: whatever is not on disk is lost, and all connections are.
    pub(super) fn crash(&mut self) {
        let mut running = self.controller.take();
        if let Some(running) = &mut running {
            // What the next run has to know was written at each change, and is the same since the last one: it is made once, here.
            if let Some(memory) = running.controller.take_memory(running.told_at) {
                self.journal.remember(memory);
            }
        }
        if let Some(running) = running.filter(|_| !self.journal.has_pending()) {
            // Nothing was under way: what is on disk is all that there was.
            self.oracle.restart_equals_no_restart(self.journal.never_restarted(), running.controller.site().ledger());
        }
        self.paused_until = None;
        self.inbox.clear();
        self.broker_told = false;
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
        let mono = Mono::from_ms(self.now_ms - started_ms);
        if self.without_clock {
            let since_start = i64::try_from(mono.ms()).unwrap_or(i64::MAX);
            return Now { mono, utc: Utc::from_unix_ms(NO_CLOCK).plus_ms(since_start), utc_trusted: false };
        }
        Now { mono, utc: now.utc.plus_ms(self.clock_error_ms), utc_trusted: true }
    }

    /// Hands an input to the site and carries its outputs out.
    pub(super) fn tell_site(&mut self, input: Input) {
        if self.paused_until.is_some() {
            self.inbox.push(input);
            return;
        }
        let Some(started_ms) = self.controller.as_ref().map(|running| running.started_ms) else { return };
        let now = self.site_now(started_ms);
        let mut outputs = std::mem::take(&mut self.outputs);
        if let Some(running) = &mut self.controller {
            running.controller.handle(input, now, &mut outputs);
            running.told_at = now;
        }
        for output in outputs.drain(..) {
            self.carry_out(output);
        }
        self.outputs = outputs;
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Frame { station, connection, text } => {
                if let Some(id) = answer_id(&text) {
                    self.oracle.no_answer_before_durable(station.0, id, self.journal.durable_through());
                }
                self.send_to_station(station.0, connection, text);
            }
            Output::Close { station, connection, reason } => {
                self.oracle.note(|| format!("the controller closes the connection of station {}: {reason}", station.0));
                if self.posts[station.0].connection == Some(connection) {
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
            Output::Telemetry { intervals } => self.keep_telemetry(intervals),
            Output::ReadTelemetry { from, limit } => self.read_telemetry(from, limit),
            Output::TelemetryAcknowledged { through } => self.telemetry_delivered(through),
            Output::Publish(publication) => self.publish(publication),
            // Both belong to a commissioning test, which nobody begins here.
            Output::Commissioned(_) | Output::TurnAway { .. } | Output::Reply { .. } => {}
            // Files and the log: no command of the virtual cloud asks for them.
            Output::Errand { .. } => {}
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
        self.trace.write_long(format!("{record:?}").as_bytes());
        if let RecordBody::AlarmRaised(alarm) = &record.body {
            *self.counts.alarms.entry((alarm.key.kind, alarm.key.subject.clone())).or_default() += 1;
            if alarm.key.kind == AlarmKind::GuardDisagrees {
                self.oracle.the_guard_agrees(&alarm.message);
            }
        }
        if let Some(charger) = charger_of(&record.body)
            && let Some(station) = self.posts.iter().position(|post| post.station.options().identity == charger)
        {
            self.last_transaction_record.insert(station, record.sequence.0);
        }
        let sequence = record.sequence;
        self.journal.append(record);
        if self.site.tampering == Some(Tampering::DurableTooEarly) {
            self.later(0, Event::FlushedInName { sequence });
        }
        self.start_flush(self.journal.flush_ms());
    }

    /// While the controller stands still, an event happens to it when it goes on.
    fn waits(&mut self, event: impl FnOnce(&Self) -> Event) -> bool {
        let Some(until) = self.paused_until else { return false };
        let event = event(self);
        self.later(until.saturating_sub(self.now_ms) + 1, event);
        true
    }

    /// The controller goes on: all that has come meanwhile is taken in at once.
    pub(super) fn resume(&mut self) {
        self.paused_until = None;
        for input in std::mem::take(&mut self.inbox) {
            self.tell_site(input);
        }
    }

    fn start_flush(&mut self, after_ms: u64) {
        if !self.journal.flushing {
            self.journal.flushing = true;
            let boot = self.boots;
            self.later(after_ms, Event::Flushed { boot });
        }
    }

    pub(super) fn flushed(&mut self, boot: u64) {
        if boot != self.boots || self.controller.is_none() || self.waits(|_| Event::Flushed { boot }) {
            return;
        }
        self.journal.flushing = false;
        if let Some(error) = self.journal.refuses {
            if !self.journal.told_full {
                self.journal.told_full = true;
                let error = error.to_owned();
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

    fn publish(&mut self, Publication { carries, payload, .. }: Publication) {
        let (link, tampering) = (self.broker_link, self.site.tampering);
        match carries {
            Carries::Event(sequence) => {
                self.oracle.nothing_published_before_durable(sequence.0, self.journal.durable_through());
                let lost = sequence.0.is_multiple_of(100) && tampering == Some(Tampering::EventsAreLost);
                let event = match lost {
                    true => Event::Acknowledged { link, sequence },
                    false => Event::Published { link, sequence, payload },
                };
                if self.broker_up {
                    self.later(BROKER_MS, event);
                }
            }
            Carries::Interval(interval) if self.broker_up => {
                self.later(BROKER_MS, Event::IntervalPublished { link, interval, payload });
            }
            Carries::Interval(_) | Carries::Nothing => {}
        }
    }

    pub(super) fn published(&mut self, link: u64, sequence: Sequence, payload: &str) {
        if link != self.broker_link {
            return;
        }
        self.trace.write_long(payload.as_bytes());
        self.cloud.receive(payload);
        self.later(BROKER_MS, Event::Acknowledged { link, sequence });
    }

    pub(super) fn acknowledged(&mut self, link: u64, sequence: Sequence) {
        if link == self.broker_link {
            self.tell_site(Input::Cloud(CloudInput::Acknowledged { sequences: vec![sequence] }));
        }
    }

    pub(super) fn interval_taken(&mut self, link: u64, interval: u64) {
        if link == self.broker_link {
            self.tell_site(Input::Cloud(CloudInput::IntervalTaken { interval }));
        }
    }

    pub(super) fn broker_connected(&mut self, link: u64) {
        if link == self.broker_link && self.broker_up && !self.waits(|_| Event::BrokerConnected { link }) {
            self.broker_told = true;
            self.tell_site(Input::Cloud(CloudInput::Connected));
        }
    }

    pub(super) fn broker_lost(&mut self) {
        self.broker_up = false;
        self.broker_told = false;
        self.broker_link += 1;
        self.tell_site(Input::Cloud(CloudInput::Disconnected { error: "connection refused".to_owned() }));
    }

    pub(super) fn broker_back(&mut self) {
        self.broker_up = true;
        self.broker_link += 1;
        let link = self.broker_link;
        self.later(1_000, Event::BrokerConnected { link });
    }

    /// A frame of a station arrives at the controller.
    pub(super) fn frame_to_site(&mut self, station: usize, epoch: u64, text: String) {
        let post = &self.posts[station];
        let Some(connection) = post.connection.filter(|_| post.epoch == epoch && !post.net.half_open) else { return };
        if self.waits(|_| Event::ToSite { station, epoch, text: text.clone() }) {
            return;
        }
        self.oracle.note_text(format_args!("from {station}: {text}"));
        self.trace.write_long(text.as_bytes());
        let message = transaction_message_id(&text).map(str::to_owned);
        self.tell_site(Input::StationFrame { station: StationIndex(station), connection, text });
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
        | RecordBody::TransactionEnded { facts, .. }
        | RecordBody::TransactionCorrected { facts, .. }
        | RecordBody::CdrWithheld { facts, .. } => Some(facts.charger.as_str()),
        RecordBody::CdrCreated(note) => Some(note.charger.as_str()),
        RecordBody::SignedValue(note) => Some(note.charger.as_str()),
        RecordBody::ChargerConnected { .. }
        | RecordBody::ChargerBooted { .. }
        | RecordBody::ChargerDisconnected { .. }
        | RecordBody::ChargerStatus { .. }
        | RecordBody::ChargerTamed { .. }
        | RecordBody::LeaseChosen { .. }
        | RecordBody::AlarmRaised(_)
        | RecordBody::AlarmCleared(_)
        | RecordBody::OutsideLimit(_)
        | RecordBody::OutsideLimitEnded { .. }
        | RecordBody::LimitProven(_)
        | RecordBody::LimitChanged { .. }
        | RecordBody::BoostSet { .. }
        | RecordBody::BoostEnded { .. }
        | RecordBody::TargetSet { .. }
        | RecordBody::TargetEnded { .. }
        | RecordBody::EnergyBalanced(_)
        | RecordBody::ConfigurationChanged { .. }
        | RecordBody::TariffsReplaced { .. }
        | RecordBody::TokensChanged { .. }
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
