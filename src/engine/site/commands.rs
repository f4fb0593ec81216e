//! Commands from people on site and from the cloud, and the link to the cloud.

use super::errands::Waiting;
use super::io::{CloudInput, LogLevel, Output};
use super::{Purpose, Site, log};
use crate::engine::cloud::answers::Seen;
use crate::engine::cloud::intake::{kind, read_command};
use crate::engine::cloud::messages::response;
use crate::engine::cloud::outbox::OutboxAction;
use crate::engine::model::command::{Command, CommandOutcome};
use crate::engine::model::errand::Errand;
use crate::engine::model::exchange::{StationCall, StationReply};
use crate::engine::model::ids::{IdToken, RequestId, Sequence, StationId, TransactionId};
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::StationIndex;
use crate::engine::ocpp::Priority;
use crate::engine::time::Now;

/// The state topic is published at most so often, when something has changed.
const STATE_MS: u64 = 1_000;

/// And so much of it in a second at most: that of a large site would fill a mobile link, and use up its plan (this is 170 MB a day).
const STATE_BYTES_PER_MS: u64 = 2;

/// Answers held while the disk is slow; the askers of the oldest have given up long before.
const MAX_HELD: usize = 1_000;

/// And at least so often, so that the measured values in it are not old.
const STATE_REPEAT_MS: u64 = 30_000;

/// A command of the cloud that waits for a station's answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CloudRequest {
    id: String,
    kind: &'static str,
    response_topic: Option<String>,
    correlation: Option<Vec<u8>>,
}

/// What became of a command at once.
enum Done {
    Now(CommandOutcome),
    /// A station has to answer first.
    Call(StationIndex, StationCall),
    /// The shell has to do it.
    Errand(Errand),
}

impl Site {
    pub(super) fn requested(&mut self, request: RequestId, command: Command, now: Now, out: &mut Vec<Output>) {
        let before = self.ledger.last();
        match self.carry_out(command, now, out) {
            Done::Now(outcome) => {
                let last = self.ledger.last();
                let needs = if last == before { self.durable } else { last };
                self.say_durably(needs, Output::Reply { request, outcome }, out);
            }
            Done::Call(station, call) => {
                self.call(station, call, (Priority::Normal, Purpose::Request(request)), now, out);
            }
            Done::Errand(errand) => self.send_errand(errand, Waiting::Person(request), now, out),
        }
    }

    fn carry_out(&mut self, command: Command, now: Now, out: &mut Vec<Output>) -> Done {
        match command {
            Command::OcppCall { charger, action, payload } => {
                self.to_station(&charger, StationCall::Raw { action, payload })
            }
            Command::TransactionStart { charger, connector, token } => self.remote_start(&charger, connector, token),
            Command::TransactionStop { transaction } => self.remote_stop(transaction),
            Command::Commission { charger } => Done::Now(self.commission(&charger, now, out)),
            Command::CommissionStop { charger } => Done::Now(self.stop_commissioning(&charger, now)),
            Command::LimitSet(order) => Done::Now(self.set_limit(order, now, out)),
            Command::LimitClear { target, origin } => Done::Now(self.clear_limit(&target, &origin, now, out)),
            Command::Dim { active, until, input } => Done::Now(self.dim(active, until, input, (now, out))),
            Command::DelayClear { charger } => Done::Now(self.clear_delay(&charger, now, out)),
            Command::Boost { place, length } => Done::Now(self.set_boost(&place, length, now, out)),
            Command::BoostClear { place } => Done::Now(self.clear_boost(&place, now, out)),
            Command::Target { place, energy, departure } => {
                Done::Now(self.set_target(&place, (energy, departure), now, out))
            }
            Command::TargetClear { place } => Done::Now(self.clear_target(&place, now, out)),
            Command::CdrCredit { cdr, reason, reissue, ended, meter_stop } => {
                Done::Now(self.credit_cdr((&cdr, &reason, reissue), (ended, meter_stop), (now, out)))
            }
            Command::TariffsReplace { tariffs } => Done::Now(self.replace_tariffs(tariffs, now, out)),
            Command::Errand(errand) => Done::Errand(errand),
            Command::Tokens(order) => Done::Now(self.change_tokens(order, now, out)),
            Command::EventsAcknowledge { store_id: Some(store_id), .. } if store_id != self.store_id => {
                // It has got events of the same numbers from the store before this one.
                rejected(format!(
                    "the site has another store than {store_id:?} by now: acknowledge events whose id begins with {:?}",
                    self.store_id
                ))
            }
            Command::EventsAcknowledge { sequence, store_id: _ } => {
                Done::Now(self.with_outbox(|outbox| outbox.application_acknowledged(sequence)))
            }
            Command::EventsReplay { from } => Done::Now(self.with_outbox(|outbox| outbox.replay(from))),
        }
    }

    fn to_station(&self, charger: &StationId, call: StationCall) -> Done {
        match self.setup.topology.find_station(charger) {
            Some(station) if self.stations[station.0].session.is_some() => Done::Call(station, call),
            Some(_) => Done::Now(CommandOutcome::NotConnected),
            None => rejected(format!("there is no charger {charger} in site.toml")),
        }
    }

    fn remote_start(&mut self, charger: &StationId, connector: u32, token: IdToken) -> Done {
        let station = self.setup.topology.find_station(charger);
        if station.is_some_and(|station| self.setup.topology.find_evse(station, connector).is_none()) {
            return rejected(format!("{charger} has no connector {connector}; they are numbered from 1"));
        }
        self.last_call += 1;
        let start_id = i32::try_from(self.last_call % 1_000_000_000).unwrap_or(1);
        self.to_station(charger, StationCall::Start { evse: connector, token, start_id })
    }

    fn remote_stop(&self, transaction: TransactionId) -> Done {
        let open = self.ledger.open().find(|open| open.facts.transaction == transaction);
        match open.map(|open| open.facts.charger.clone()) {
            Some(charger) => self.to_station(&charger, StationCall::Stop { transaction }),
            None => rejected(format!("no transaction {transaction} is running")),
        }
    }

    fn with_outbox(
        &mut self,
        act: impl FnOnce(&mut crate::engine::cloud::outbox::Outbox) -> Result<(), String>,
    ) -> CommandOutcome {
        match &mut self.cloud {
            Some(cloud) => match act(&mut cloud.outbox) {
                Ok(()) => CommandOutcome::Accepted { data: None },
                Err(error) => CommandOutcome::Rejected { error },
            },
            None => CommandOutcome::Rejected { error: "no cloud is configured".to_owned() },
        }
    }

    pub(super) fn cloud_said(&mut self, said: CloudInput, now: Now, out: &mut Vec<Output>) {
        let Some(cloud) = &mut self.cloud else { return };
        match said {
            CloudInput::Connected => {
                cloud.connected = true;
                cloud.since = now.mono;
                cloud.error = None;
                cloud.state_changed = true;
                cloud.outbox.connected();
                cloud.telemetry.courier().connected();
                log(out, LogLevel::Info, "the cloud's broker is connected".to_owned());
            }
            CloudInput::Disconnected { error } => {
                if std::mem::replace(&mut cloud.connected, false) {
                    cloud.since = now.mono;
                    log(
                        out,
                        LogLevel::Warn,
                        format!("the cloud's broker is lost: {error}; events are kept until it is back"),
                    );
                } else if cloud.error.as_ref() != Some(&error) {
                    log(out, LogLevel::Warn, format!("the cloud's broker cannot be reached: {error}"));
                }
                cloud.error = Some(error);
                cloud.outbox.disconnected();
                cloud.telemetry.courier().disconnected();
            }
            CloudInput::Acknowledged { sequences } => {
                sequences.into_iter().for_each(|sequence| cloud.outbox.broker_acknowledged(sequence));
            }
            CloudInput::NotTaken { sequence, reason } => {
                log(out, LogLevel::Debug, format!("the broker did not take event {sequence}: {reason}"));
                cloud.outbox.not_taken(sequence, now.mono);
            }
            CloudInput::IntervalTaken { interval } => cloud.telemetry.courier().taken(interval),
            CloudInput::IntervalNotTaken { interval, reason } => {
                log(out, LogLevel::Debug, format!("the broker did not take interval {interval}: {reason}"));
                cloud.telemetry.courier().not_taken(interval, now.mono);
            }
            CloudInput::Message { payload, response_topic, correlation } => {
                self.cloud_command(&payload, (response_topic, correlation), now, out);
            }
        }
        self.cloud_poll(now, out);
    }

    fn cloud_command(
        &mut self,
        payload: &[u8],
        (response_topic, correlation): (Option<String>, Option<Vec<u8>>),
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let intake = match read_command(payload) {
            Ok(intake) => intake,
            Err(rejection) => {
                let outcome = CommandOutcome::Rejected { error: rejection.error };
                let text = response(rejection.id.as_deref(), &outcome);
                return self.respond(self.durable, text, (response_topic, correlation), out);
            }
        };
        let request = CloudRequest { id: intake.id, kind: kind(&intake.command), response_topic, correlation };
        let seen = self.cloud.as_mut().map_or(Seen::New, |cloud| cloud.answers.begin(&request.id));
        match seen {
            Seen::Answered(text) => {
                let needs = self.ledger.last();
                return self.respond(needs, text, (request.response_topic, request.correlation), out);
            }
            // It came again while it is being carried out: the one answer will do.
            Seen::Running => return,
            Seen::New => {}
        }
        // Answered by an earlier run of the daemon: how it ended is known, what came back is not.
        if let Some(known) = self.ledger.command(&request.id) {
            let outcome = outcome_of_record(&known.status, known.error.clone());
            let text = response(Some(&request.id), &outcome);
            // It does not run: the next one with this id must not wait for an answer that never comes.
            if let Some(cloud) = &mut self.cloud {
                cloud.answers.answer(&request.id, &text);
            }
            return self.respond(self.durable, text, (request.response_topic, request.correlation), out);
        }
        if intake.expires.is_some_and(|expires| now.utc_trusted && now.utc >= expires) {
            return self.cloud_answer(&request, &CommandOutcome::Expired, now, out);
        }
        match self.carry_out(intake.command, now, out) {
            Done::Now(outcome) => self.cloud_answer(&request, &outcome, now, out),
            Done::Call(station, call) => {
                self.call(station, call, (Priority::Normal, Purpose::Cloud(request)), now, out);
            }
            Done::Errand(errand) => self.send_errand(errand, Waiting::Cloud(request), now, out),
        }
    }

    pub(super) fn cloud_answer(
        &mut self,
        request: &CloudRequest,
        outcome: &CommandOutcome,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        // An acknowledgement of events that made an event itself would never end.
        let needs = if matches!(request.kind, "events.acknowledge" | "events.replay") {
            self.durable
        } else {
            let (status, error) = status_of(outcome);
            let (id, kind) = (request.id.clone(), request.kind.to_owned());
            self.record(RecordBody::CommandExecuted { id, kind, status: status.to_owned(), error }, now, out)
        };
        let text = response(Some(&request.id), outcome);
        if let Some(cloud) = &mut self.cloud {
            cloud.answers.answer(&request.id, &text);
        }
        self.respond(needs, text, (request.response_topic.clone(), request.correlation.clone()), out);
    }

    fn respond(
        &mut self,
        needs: Sequence,
        text: String,
        (topic, correlation): (Option<String>, Option<Vec<u8>>),
        out: &mut Vec<Output>,
    ) {
        if let Some(cloud) = &self.cloud {
            let response = cloud.messages.response(text, topic, correlation);
            self.say_durably(needs, Output::Publish(response), out);
        }
    }

    /// An answer that promises something leaves when the record of it is durable; what is asked for takes effect at once.
    fn say_durably(&mut self, needs: Sequence, answer: Output, out: &mut Vec<Output>) {
        if needs <= self.durable {
            return out.push(answer);
        }
        if self.held_answers.len() >= MAX_HELD {
            self.held_answers.remove(0);
        }
        self.held_answers.push((needs, answer));
    }

    /// Lets go of the answers of which the records are durable now.
    pub(super) fn release_answers(&mut self, out: &mut Vec<Output>) {
        let durable = self.durable;
        let (ready, waiting): (Vec<_>, Vec<_>) = self.held_answers.drain(..).partition(|(needs, _)| *needs <= durable);
        self.held_answers = waiting;
        out.extend(ready.into_iter().map(|(_, answer)| answer));
    }

    /// Does what the outbox wants done.
    pub(super) fn cloud_poll(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(cloud) = &mut self.cloud else { return };
        for action in cloud.outbox.poll(now.mono) {
            out.push(match action {
                OutboxAction::Read { from, limit } => Output::ReadRecords { from, limit },
                OutboxAction::Publish(record) => Output::Publish(cloud.messages.event(&record)),
                OutboxAction::Acknowledged(through) => Output::Acknowledged { through },
            });
        }
        self.telemetry_poll(now, out);
    }

    pub(super) fn cloud_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        self.cloud_poll(now, out);
        let Some(cloud) = &self.cloud else { return };
        let waited = now.mono >= cloud.state_due;
        let repeat = now.mono >= cloud.state_due.plus_ms(STATE_REPEAT_MS);
        if !cloud.connected || !waited || !(cloud.state_changed || repeat) {
            return;
        }
        let status = self.status(now);
        if let Some(cloud) = &mut self.cloud {
            let publication = cloud.messages.state(&status);
            let bytes = u64::try_from(publication.payload.len()).unwrap_or(u64::MAX);
            out.push(Output::Publish(publication));
            cloud.state_due = now.mono.plus_ms(STATE_MS.max(bytes / STATE_BYTES_PER_MS));
            cloud.state_changed = false;
        }
    }
}

fn rejected(error: String) -> Done {
    Done::Now(CommandOutcome::Rejected { error })
}

/// A station's reply as the end of a command.
pub(super) fn outcome(reply: StationReply) -> CommandOutcome {
    match reply {
        StationReply::Accepted { payload } => CommandOutcome::Accepted { data: Some(payload) },
        StationReply::Refused { status, payload } => {
            CommandOutcome::Failed { error: format!("the station answered {status}"), data: Some(payload) }
        }
        StationReply::Error { code, description } => {
            let error = format!("the station answered with the error {code}: {description}");
            CommandOutcome::Failed { error, data: None }
        }
        StationReply::Timeout | StationReply::Overtaken => CommandOutcome::TimedOut,
        StationReply::Disconnected => CommandOutcome::NotConnected,
    }
}

fn status_of(outcome: &CommandOutcome) -> (&'static str, Option<String>) {
    match outcome {
        CommandOutcome::Accepted { .. } => ("accepted", None),
        CommandOutcome::Rejected { error } => ("rejected", Some(error.clone())),
        CommandOutcome::Failed { error, .. } => ("failed", Some(error.clone())),
        CommandOutcome::TimedOut => ("failed", Some("the station did not answer in time".to_owned())),
        CommandOutcome::NotConnected => ("failed", Some("the station is not connected".to_owned())),
        CommandOutcome::Expired => ("expired", None),
    }
}

fn outcome_of_record(status: &str, error: Option<String>) -> CommandOutcome {
    let error = error.unwrap_or_default();
    match status {
        "accepted" => CommandOutcome::Accepted { data: None },
        "rejected" => CommandOutcome::Rejected { error },
        "expired" => CommandOutcome::Expired,
        _ => CommandOutcome::Failed { error, data: None },
    }
}
