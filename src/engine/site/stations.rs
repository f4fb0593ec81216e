//! The stations' connections: sessions, what stations ask, what they answer.

use super::billing::takes_energy;
use super::clock::StationClock;
use super::io::{LogLevel, Output};
use super::proof::Proof;
use super::signed::has_signed;
use super::writes::Writes;
use super::{Purpose, Site, log};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::exchange::{
    BootInfo, ConnectorStatus, OcppVersion, StationAnswer, StationCall, StationReply, StationRequest,
};
use crate::engine::model::ids::{ConnectionId, Sequence};
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{EvseIndex, StationIndex};
use crate::engine::ocpp::{CallKey, CallToken, Priority, Session, SessionEvent, SessionOutput};
use crate::engine::time::{Mono, Now, Utc};

/// A station that has not booted so long after it connected will not: it was up before we were.
const BOOT_WAIT_MS: u64 = 5_000;

/// A station has noticed that its connection is gone when so many of its pings were due without an answer.
const PINGS_UNTIL_OFFLINE: u64 = 3;

/// The longest time between two pings of a station, in s.
const MOST_PING_S: u64 = 30;

/// A station as the site sees it.
#[derive(Debug)]
pub(super) struct StationState {
    pub(super) session: Option<(ConnectionId, Session)>,
    pub(super) since: Mono,
    /// It let a call go unanswered and has answered none since.
    pub(super) unresponsive: bool,
    /// When it could be reached again after it could not.
    pub(super) heard_again: Option<Mono>,
    /// It was told in this run what to measure.
    configured: bool,
    /// What it said last of itself as a whole (EVSE 0).
    status: Option<ConnectorStatus>,
    /// What its clock says.
    pub(super) clock: StationClock,
    /// The charging profiles that it was sent.
    pub(super) writes: Writes,
    /// What is known of its lease.
    pub(super) proof: Proof,
}

impl StationState {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            session: None,
            since: now,
            unresponsive: false,
            heard_again: None,
            configured: false,
            status: None,
            clock: StationClock::default(),
            writes: Writes::default(),
            proof: Proof::default(),
        }
    }

    /// The OCPP version that it speaks, while it is connected.
    pub(super) fn version(&self) -> Option<OcppVersion> {
        self.session.as_ref().map(|(_, session)| session.version())
    }

    /// It is connected and was told in this run what to measure: before that a station that boots refuses calls.
    pub(super) const fn is_set_up(&self) -> bool {
        self.session.is_some() && self.configured
    }
}

/// An answer that waits until its record is durable.
#[derive(Debug)]
pub(super) struct HeldAnswer {
    needs: Sequence,
    station: StationIndex,
    connection: ConnectionId,
    token: CallToken,
    answer: StationAnswer,
}

impl Site {
    pub(super) fn station_connected(
        &mut self,
        station: StationIndex,
        (connection, version): (ConnectionId, OcppVersion),
        now: Now,
        out: &mut Vec<Output>,
    ) {
        self.drop_session(station, now, out);
        let seed = self.setup.seed ^ (self.boot << 40) ^ connection.0;
        let state = &mut self.stations[station.0];
        state.session = Some((connection, Session::new(version, seed)));
        state.since = now.mono;
        state.unresponsive = false;
        state.heard_again = Some(now.mono);
        state.clock.connected();
        self.lists.connected(station);
        self.leases_connected(station, version, now, out);
        let charger = self.station_id(station).clone();
        log(out, LogLevel::Info, format!("{charger} connected with {}", version.subprotocol()));
        self.record(RecordBody::ChargerConnected { charger, version }, now, out);
        self.dirty = true;
    }

    pub(super) fn station_disconnected(
        &mut self,
        station: StationIndex,
        connection: ConnectionId,
        reason: &str,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let current = self.stations[station.0].session.as_ref().is_some_and(|(id, _)| *id == connection);
        if !current {
            return;
        }
        let charger = self.station_id(station).clone();
        log(out, LogLevel::Info, format!("{charger} disconnected: {reason}"));
        self.drop_session(station, now, out);
        self.stations[station.0].since = now.mono;
        self.record(RecordBody::ChargerDisconnected { charger, reason: reason.to_owned() }, now, out);
        self.dirty = true;
    }

    fn drop_session(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let Some((connection, mut session)) = self.stations[station.0].session.take() else { return };
        self.held.retain(|held| held.station != station || held.connection != connection);
        for evse in self.setup.topology.evses_of(station) {
            self.evses[evse.0].tether.disconnected(now.mono);
        }
        for (key, reply) in session.end() {
            self.replied(station, key, reply, (now, out));
        }
    }

    pub(super) fn station_frame(
        &mut self,
        station: StationIndex,
        connection: ConnectionId,
        text: &str,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let mut said = SessionOutput::default();
        match &mut self.stations[station.0].session {
            Some((current, session)) if *current == connection => session.receive(text, now, &mut said),
            Some(_) | None => return,
        }
        self.pump(station, said, now, out);
    }

    /// Carries out what a session said, until it says nothing more.
    fn pump(&mut self, station: StationIndex, said: SessionOutput, now: Now, out: &mut Vec<Output>) {
        let Some((connection, _)) = self.stations[station.0].session.as_ref() else { return };
        let connection = *connection;
        out.extend(said.frames.into_iter().map(|text| Output::Frame { station, connection, text }));
        for event in said.events {
            match event {
                SessionEvent::Request { token, request } => self.asked(station, token, request, (now, out)),
                SessionEvent::Reply { key, reply } => self.replied(station, key, reply, (now, out)),
                SessionEvent::Late { key, reply } => self.limit_answered_late(station, (key, reply), now, out),
                SessionEvent::Fault { message } => {
                    let charger = self.station_id(station);
                    log(out, LogLevel::Warn, format!("{charger}: {message}"));
                }
            }
        }
        if let Some(reason) = said.close {
            out.push(Output::Close { station, connection, reason });
        }
    }

    /// A station need not boot or report again because we did (OCPP 1.6 §4.2): ask for what we do not know.
    fn ask_silent_station(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let state = &self.stations[station.0];
        if state.session.is_none() || state.configured || now.mono.since(state.since) < BOOT_WAIT_MS {
            return;
        }
        self.configure(station, now, out);
        for evse in self.setup.topology.evses_of(station).collect::<Vec<_>>() {
            let number = self.setup.topology.evse(evse).number;
            let call = StationCall::Trigger { message: "StatusNotification".to_owned(), evse: Some(number) };
            self.call(station, call, (Priority::Background, Purpose::Trigger), now, out);
        }
    }

    pub(super) fn tick_sessions(&mut self, now: Now, out: &mut Vec<Output>) {
        for index in 0..self.stations.len() {
            self.ask_silent_station(StationIndex(index), now, out);
            let mut said = SessionOutput::default();
            if let Some((_, session)) = &mut self.stations[index].session {
                session.tick(now.mono, &mut said);
                if !said.frames.is_empty() || !said.events.is_empty() || said.close.is_some() {
                    self.pump(StationIndex(index), said, now, out);
                }
            }
        }
    }

    /// Sends a call, or ends it at once if the station is not connected.
    pub(super) fn call(
        &mut self,
        station: StationIndex,
        call: StationCall,
        (priority, purpose): (Priority, Purpose),
        now: Now,
        out: &mut Vec<Output>,
    ) {
        self.last_call += 1;
        let key = CallKey(self.last_call);
        self.calls.insert(key, (station, purpose));
        let mut said = SessionOutput::default();
        match &mut self.stations[station.0].session {
            Some((_, session)) => session.call(key, call, priority, now.mono, &mut said),
            None => return self.replied(station, key, StationReply::Disconnected, (now, out)),
        }
        self.pump(station, said, now, out);
    }

    pub(super) fn answer(
        &mut self,
        station: StationIndex,
        token: CallToken,
        answer: &StationAnswer,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let mut said = SessionOutput::default();
        if let Some((_, session)) = &mut self.stations[station.0].session {
            session.answer(token, answer, &mut said);
        }
        self.pump(station, said, now, out);
    }

    pub(super) fn leave_unanswered(&mut self, station: StationIndex, token: CallToken) {
        if let Some((_, session)) = &mut self.stations[station.0].session {
            session.forget(token);
        }
    }

    /// Answers once the record `needs` is durable: durable before promised.
    pub(super) fn answer_durably(
        &mut self,
        needs: Sequence,
        (station, token): (StationIndex, CallToken),
        answer: StationAnswer,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        #[cfg(feature = "sabotage")]
        let needs = if self.breaks(super::sabotage::Sabotage::AnswerBeforeDurable) { self.durable } else { needs };
        if needs <= self.durable {
            return self.answer(station, token, &answer, (now, out));
        }
        if let Some((connection, _)) = &self.stations[station.0].session {
            self.held.push(HeldAnswer { needs, station, connection: *connection, token, answer });
        }
    }

    pub(super) fn release_held(&mut self, now: Now, out: &mut Vec<Output>) {
        let durable = self.durable;
        let (ready, waiting): (Vec<_>, Vec<_>) = self.held.drain(..).partition(|held| held.needs <= durable);
        self.held = waiting;
        for held in ready {
            self.answer(held.station, held.token, &held.answer, (now, out));
        }
    }

    fn asked(
        &mut self,
        station: StationIndex,
        token: CallToken,
        request: StationRequest,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let answer = match request {
            StationRequest::Boot { info, .. } => self.booted(station, info, now, out),
            StationRequest::Heartbeat => {
                self.tell_time(station, now);
                StationAnswer::Heartbeat { now: now.utc }
            }
            StationRequest::Status { evse, connector, status, error, at } => {
                if let Some(at) = at {
                    self.heard_time(station, at, now);
                }
                self.status_reported(station, (evse, connector), (status, error), (now, out));
                if let Some(charging) = takes_energy(status) {
                    self.note_activity(station, (evse, charging), at.unwrap_or(now.utc), (now, out));
                }
                StationAnswer::Taken
            }
            StationRequest::Authorize { token } => {
                StationAnswer::Authorize { admission: self.admit(station, &token, now, out) }
            }
            StationRequest::MeterValues { readings } => {
                if let Some(at) = readings.iter().filter_map(|reading| reading.at).max() {
                    self.heard_time(station, at, now);
                }
                if has_signed(&readings) {
                    return self.signed_meter_values(station, token, &readings, (now, out));
                }
                self.meter_values(station, &readings, now, out);
                StationAnswer::Taken
            }
            StationRequest::ChargingNeeds { evse, needs } => {
                StationAnswer::ChargingNeeds { used: self.car_needs(station, evse, needs, now, out) }
            }
            StationRequest::DataTransfer { vendor, message } => {
                let charger = self.station_id(station);
                let message = message.unwrap_or_default();
                log(out, LogLevel::Debug, format!("{charger}: DataTransfer {vendor} {message} is not known here"));
                StationAnswer::UnknownVendor
            }
            StationRequest::Notify { action, summary } => {
                log(out, LogLevel::Debug, format!("{}: {action} {summary}", self.station_id(station)));
                StationAnswer::Taken
            }
            transaction @ (StationRequest::StartTransaction { .. }
            | StationRequest::StopTransaction { .. }
            | StationRequest::TransactionEvent(_)) => {
                if let StationRequest::TransactionEvent(event) = &transaction
                    && !event.offline
                {
                    self.heard_time(station, event.at, now);
                }
                return self.transaction_message(station, token, transaction, (now, out));
            }
        };
        self.answer(station, token, &answer, (now, out));
    }

    fn booted(&mut self, station: StationIndex, info: BootInfo, now: Now, out: &mut Vec<Output>) -> StationAnswer {
        let charger = self.station_id(station).clone();
        let firmware = info.firmware.as_deref().unwrap_or("unknown firmware");
        log(out, LogLevel::Info, format!("{charger} booted: {} {}, {firmware}", info.vendor, info.model));
        self.record(RecordBody::ChargerBooted { charger, info }, now, out);
        for evse in self.setup.topology.evses_of(station) {
            self.evses[evse.0].tether.booted(now.mono);
        }
        self.remember_due = true;
        self.booted_after_cut(station, now, out);
        self.tell_time(station, now);
        self.stations[station.0].configured = false;
        self.stations[station.0].proof.booted(now.mono);
        self.configure(station, now, out);
        self.dirty = true;
        StationAnswer::Boot { accepted: true, now: now.utc, interval_s: self.setup.heartbeat_s }
    }

    /// The time by the station's clock, in which its schedules run.
    pub(super) fn station_time(&self, station: StationIndex, now: Now) -> Utc {
        self.stations[station.0].clock.time(now)
    }

    /// The station is told the time. If that sets its clock, the schedules that it holds are out of place.
    fn tell_time(&mut self, station: StationIndex, now: Now) {
        if self.stations[station.0].clock.tell(now) {
            self.clock_moved(station, now);
        }
    }

    /// The station wrote a time.
    pub(super) fn heard_time(&mut self, station: StationIndex, at: Utc, now: Now) {
        if self.stations[station.0].clock.heard(at, now) {
            self.clock_moved(station, now);
        }
    }

    fn clock_moved(&mut self, station: StationIndex, now: Now) {
        let evses: Vec<EvseIndex> = self.setup.topology.evses_of(station).collect();
        for evse in evses {
            // What has not left yet is written for the clock that it had.
            self.withdraw_queued(evse);
            self.evses[evse.0].tether.booted(now.mono);
        }
        self.remember_due = true;
        self.dirty = true;
    }

    /// Tells the station what to measure and how often: without currents it can only be controlled by what it was told.
    fn configure(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let state = &mut self.stations[station.0];
        let Some((_, session)) = &state.session else { return };
        if std::mem::replace(&mut state.configured, true) {
            return;
        }
        let seconds = (self.setup.topology.station(station).model.meter_interval_ms / 1000).max(1).to_string();
        let measurands = "Current.Import,Power.Active.Import,Energy.Active.Import.Register";
        let model = &self.setup.topology.station(station).model;
        let ping = (model.offline_after_ms / (1_000 * PINGS_UNTIL_OFFLINE)).clamp(1, MOST_PING_S).to_string();
        let version = session.version();
        let rests = version == OcppVersion::V21 && model.lease.may_rest_on_the_connection();
        let on_connection = rests.then_some(("OCPPCommCtrlr.WebSocketPingInterval", ping.as_str()));
        let settings: &[(&str, &str)] = match version {
            OcppVersion::V16 => &[
                ("MeterValuesSampledData", measurands),
                ("MeterValueSampleInterval", &seconds),
                ("ClockAlignedDataInterval", "0"),
            ],
            OcppVersion::V201 | OcppVersion::V21 => &[
                ("SampledDataCtrlr.TxStartedMeasurands", "Energy.Active.Import.Register"),
                ("SampledDataCtrlr.TxUpdatedMeasurands", measurands),
                ("SampledDataCtrlr.TxUpdatedInterval", &seconds),
                ("SampledDataCtrlr.TxEndedMeasurands", "Energy.Active.Import.Register"),
            ],
        };
        let master = self.setup.authorization.master_pass_group.clone();
        let known = version != OcppVersion::V16;
        let master = master.as_deref().filter(|_| known).map(|group| ("AuthCtrlr.MasterPassGroupId", group));
        for (key, value) in settings.iter().chain(&on_connection).chain(&master) {
            let call = StationCall::ChangeConfiguration { key: (*key).to_owned(), value: (*value).to_owned() };
            let purpose = Purpose::Configure((*key).to_owned());
            self.call(station, call, (Priority::Background, purpose), now, out);
        }
        self.send_rating(station, now, out);
    }

    fn status_reported(
        &mut self,
        station: StationIndex,
        (evse, connector): (u32, u32),
        (status, error): (ConnectorStatus, Option<String>),
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let charger = self.station_id(station).clone();
        if evse == 0 {
            self.connector_fault(&charger, evse, error.as_deref(), (now, out));
            if self.stations[station.0].status.replace(status) == Some(status) {
                return;
            }
        } else {
            let Some(index) = self.setup.topology.find_evse(station, evse) else {
                let known = self.setup.topology.station(station).evse_count;
                log(
                    out,
                    LogLevel::Warn,
                    format!("{charger} reports connector {evse}, but site.toml says connectors = {known}"),
                );
                return;
            };
            self.connector_fault(&charger, evse, error.as_deref(), (now, out));
            let control = &mut self.evses[index.0];
            if control.status == Some(status) {
                return;
            }
            control.status = Some(status);
            self.dirty = true;
        }
        self.record(RecordBody::ChargerStatus { charger, evse, connector, status, error }, now, out);
    }

    fn connector_fault(
        &mut self,
        charger: &crate::engine::model::ids::StationId,
        evse: u32,
        error: Option<&str>,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let subject = format!("{charger}/{evse}");
        match error {
            Some(error) => self.raise(
                (AlarmKind::ConnectorFault, &subject, Severity::Warning),
                format!("{charger} connector {evse} reports {error}."),
                "Look at the station; the maker's manual says what this error means.",
                (now, out),
            ),
            None => self.clear(AlarmKind::ConnectorFault, &subject, now, out),
        }
    }

    fn replied(
        &mut self,
        station: StationIndex,
        key: CallKey,
        reply: StationReply,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let Some((_, purpose)) = self.calls.remove(&key) else { return };
        let silent = match reply {
            StationReply::Timeout => true,
            // It had little time: that says nothing of it.
            StationReply::Overtaken => self.stations[station.0].unresponsive,
            StationReply::Accepted { .. }
            | StationReply::Refused { .. }
            | StationReply::Error { .. }
            | StationReply::Disconnected => false,
        };
        // What a station need not know it may leave unanswered: triggered samples, costs, local lists, a memory of tokens. That alone does not make
        // it silent.
        let optional =
            silent && matches!(purpose, Purpose::Sample(_) | Purpose::Cost | Purpose::List | Purpose::ClearCache);
        if !optional && self.stations[station.0].unresponsive != silent {
            self.stations[station.0].unresponsive = silent;
            self.dirty = true;
            if !silent {
                self.stations[station.0].heard_again = Some(now.mono);
            }
            if silent {
                let charger = self.station_id(station);
                let holds = self.setup.topology.evses_of(station).all(|evse| self.evses[evse.0].tether.holds());
                let counts = if holds {
                    "what it was last told"
                } else {
                    "its maximum, since nothing proves that it falls back"
                };
                log(out, LogLevel::Warn, format!("{charger} does not answer its calls; it counts at {counts}"));
            }
        }
        match purpose {
            Purpose::Limit(evse) => self.limit_answered(evse, (key, reply), now, out),
            Purpose::Proof(evse) => self.schedule_told(evse, &reply, now, out),
            Purpose::Commission => self.schedule_read(&reply, now),
            Purpose::Rating => {
                if let StationReply::Refused { status, .. } = reply {
                    let charger = self.station_id(station);
                    log(out, LogLevel::Info, format!("{charger} answers {status} to its rating; nothing rests on it"));
                }
            }
            Purpose::Configure(setting) => {
                if let StationReply::Refused { status, .. } = reply {
                    let charger = self.station_id(station);
                    log(out, LogLevel::Info, format!("{charger} answers {status} to {setting}; it is taken as it is"));
                }
            }
            Purpose::Trigger => {}
            Purpose::Sample(evse) => self.sample_asked(evse, &reply),
            Purpose::Cost => self.cost_told(station, &reply, out),
            Purpose::Enforce(evse) => self.enforced(evse, &reply, out),
            Purpose::End(transaction) => self.end_answered(station, &transaction, &reply, out),
            Purpose::ClearCache => self.cache_cleared(station, &reply, out),
            Purpose::List => self.list_answered(station, &reply, (now, out)),
            Purpose::Request(request) => {
                out.push(Output::Reply { request, outcome: super::commands::outcome(reply) });
            }
            Purpose::Cloud(request) => self.cloud_answer(&request, &super::commands::outcome(reply), now, out),
        }
    }

    /// The EVSEs of a station that may be steered now.
    pub(super) fn reachable(&self, evse: EvseIndex) -> bool {
        let state = &self.stations[self.setup.topology.evse(evse).station.0];
        state.session.is_some() && !state.unresponsive
    }
}
