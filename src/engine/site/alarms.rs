//! Conditions that somebody must know of: raised once, cleared once, each with what to do.

use super::ledger::stands;
use super::{Output, Site};
use crate::engine::model::alarm::{Alarm, AlarmKey, AlarmKind, Severity};
use crate::engine::model::ids::StationId;
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{CircuitIndex, EvseIndex, MeterIndex, StationIndex};
use crate::engine::time::Now;
use crate::engine::units::Current;

/// A station that is away this long is missed. Longer than a restart of it takes.
const STATION_LOST_MS: u64 = 120_000;

/// A broker that is away this long is missed.
const CLOUD_LOST_MS: u64 = 60_000;

/// A circuit may be above its limit for so long while cuts work their way to the cars; see docs/safety.md.
const ABOVE_LIMIT_MS: u64 = 10_000;

/// A meter is given so long after the start before it is missed.
pub(super) const FIRST_READING_MS: u64 = 10_000;

impl Site {
    /// What has to be said at the start leaves with the first tick.
    pub(super) fn begin(&mut self, (damage, cause): (Option<String>, Option<String>), now: Now) {
        self.start_notes = Some(super::StartNotes { damage, cause });
        self.slow_due = now.mono;
    }

    /// Tells of what was decided about the configuration.
    pub(super) fn configuration_changed(&mut self, cause: String, now: Now, out: &mut Vec<Output>) {
        let (version, tokens_file) = (self.setup.version.clone(), self.tokens.file);
        self.record(RecordBody::ConfigurationChanged { version, cause, tokens_file }, now, out);
    }

    fn say_start_notes(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(notes) = self.start_notes.take() else { return };
        if let Some(missing) = notes.damage {
            self.record(RecordBody::StoreRecovered { missing: missing.clone() }, now, out);
            self.raise(
                (AlarmKind::StoreRecovered, "", Severity::Critical),
                format!("The store was damaged and set aside; a new one was begun. {missing}"),
                "Keep the folder that was set aside, and compare the stations' own records with the cloud's.",
                (now, out),
            );
        }
        self.configuration_changed(notes.cause.unwrap_or_else(|| "start".to_owned()), now, out);
        match self.setup.unsafe_fallback.clone() {
            Some(what) => self.raise(
                (AlarmKind::FallbackUnsafe, "", Severity::Critical),
                format!("The site is {what}."),
                "Run `siteward check`: it names the charger or circuit to change.",
                (now, out),
            ),
            None => self.clear(AlarmKind::FallbackUnsafe, "", now, out),
        }
        let gone = self.ledger.alarms().iter().map(|alarm| alarm.key.clone()).filter(|key| !self.is_watched(key));
        for key in gone.collect::<Vec<_>>() {
            self.clear(key.kind, &key.subject, now, out);
        }
    }

    /// Whether what the alarm is about is still in the configuration.
    fn is_watched(&self, key: &AlarmKey) -> bool {
        let topology = &self.setup.topology;
        let subject = key.subject.as_str();
        match key.kind {
            AlarmKind::MeterLost | AlarmKind::MeterUntrusted => {
                topology.meters().iter().any(|meter| meter.id.as_str() == subject)
            }
            AlarmKind::InverterLost => topology.inverters().iter().any(|inverter| inverter.id.as_str() == subject),
            AlarmKind::StationLost
            | AlarmKind::LeaseNotProven
            | AlarmKind::LeaseNotSpoken
            | AlarmKind::StationClockWrong
            | AlarmKind::PaginationBroken
            | AlarmKind::SignatureWrong
            | AlarmKind::SignedEnergyDiffers
            | AlarmKind::SignedValueTooLong
            | AlarmKind::WriteBudgetExhausted => topology.find_station(&StationId::new(subject)).is_some(),
            AlarmKind::StationAboveLimit
            | AlarmKind::LimitRefused
            | AlarmKind::ConnectorFault
            | AlarmKind::TargetNotMet => subject.rsplit_once('/').is_some_and(|(station, evse)| {
                let station = topology.find_station(&StationId::new(station));
                station.is_some_and(|station| {
                    evse == "0" || evse.parse().is_ok_and(|evse| topology.find_evse(station, evse).is_some())
                })
            }),
            AlarmKind::CircuitAboveLimit => {
                topology.circuits().iter().any(|circuit| circuit.id.as_str() == subject && circuit.meter.is_some())
            }
            AlarmKind::GuardDisagrees => topology.circuits().iter().any(|circuit| circuit.id.as_str() == subject),
            AlarmKind::CloudLost => self.cloud.is_some(),
            AlarmKind::FallbackUnsafe
            | AlarmKind::StoreFailed
            | AlarmKind::StoreRecovered
            | AlarmKind::CdrWithheld
            | AlarmKind::ClockUntrusted => true,
            AlarmKind::EnergyBalance => self.is_balanced(subject),
            // Whoever still waits connects again.
            AlarmKind::ChargerPending => false,
        }
    }

    pub(super) fn raise(
        &mut self,
        (kind, subject, severity): (AlarmKind, &str, Severity),
        message: String,
        remedy: &str,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let key = AlarmKey::new(kind, subject);
        if stands(self.ledger.alarms(), &key) {
            return;
        }
        super::log(out, super::LogLevel::Warn, format!("alarm: {message} {remedy}"));
        self.record(RecordBody::AlarmRaised(Alarm { key, severity, message, remedy: remedy.to_owned() }), now, out);
    }

    /// Raises an alarm, or says anew what stands in other words.
    pub(super) fn restate(
        &mut self,
        (kind, subject, severity): (AlarmKind, &str, Severity),
        message: String,
        remedy: &str,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let key = AlarmKey::new(kind, subject);
        if self.ledger.alarms().iter().any(|alarm| alarm.key == key && alarm.message != message) {
            self.clear(kind, subject, now, out);
        }
        self.raise((kind, subject, severity), message, remedy, (now, out));
    }

    /// Whether any alarm of a kind stands: cheaper to ask than to say whose it would be, where it is asked for each station every second.
    pub(super) fn has_alarm(&self, kind: AlarmKind) -> bool {
        self.ledger.alarms().iter().any(|alarm| alarm.key.kind == kind)
    }

    pub(super) fn clear(&mut self, kind: AlarmKind, subject: &str, now: Now, out: &mut Vec<Output>) {
        let is = |key: &AlarmKey| key.kind == kind && key.subject == subject;
        let Some(alarm) = self.ledger.alarms().iter().find(|alarm| is(&alarm.key)).cloned() else { return };
        super::log(out, super::LogLevel::Info, format!("alarm over: {}", alarm.message));
        self.record(RecordBody::AlarmCleared(alarm), now, out);
    }

    /// The guard has its own idea of what may leave. That is never normal.
    pub(super) fn guard_disagrees(
        &mut self,
        circuit: CircuitIndex,
        message: Option<String>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let subject = self.setup.topology.circuit(circuit).id.to_string();
        match message {
            Some(message) => self.raise(
                (AlarmKind::GuardDisagrees, &subject, Severity::Critical),
                message,
                "Somebody's charging profile, by `siteward ocpp` or from the cloud, may have been too high; if there was none, Siteward has miscounted: report it, with the output of `siteward events`.",
                (now, out),
            ),
            None => self.clear(AlarmKind::GuardDisagrees, &subject, now, out),
        }
    }

    /// Looks at all conditions that only time brings.
    pub(super) fn watch(&mut self, now: Now, out: &mut Vec<Output>) {
        self.say_start_notes(now, out);
        for index in 0..self.meters.len() {
            self.watch_meter(MeterIndex(index), now, out);
        }
        self.watch_trust(now, out);
        for index in 0..self.inverters.len() {
            self.watch_inverter(index, now, out);
        }
        for index in 0..self.stations.len() {
            self.watch_station(StationIndex(index), now, out);
        }
        for index in 0..self.evses.len() {
            self.watch_evse(EvseIndex(index), now, out);
        }
        for index in 0..self.backgrounds.len() {
            self.watch_circuit(CircuitIndex(index), now, out);
        }
        self.watch_cloud(now, out);
        self.watch_store(now, out);
        self.watch_pending(now, out);
        if now.utc_trusted {
            self.clear(AlarmKind::ClockUntrusted, "", now, out);
        } else {
            self.raise(
                (AlarmKind::ClockUntrusted, "", Severity::Error),
                "The calendar time is not known; stations and records have a wrong time.".to_owned(),
                "Give the gateway a time server it can reach, or set its clock.",
                (now, out),
            );
        }
    }

    fn watch_inverter(&mut self, index: usize, now: Now, out: &mut Vec<Output>) {
        let inverter = self.setup.topology.inverters()[index].clone();
        let state = &self.inverters[index];
        let fresh = state.last.as_ref().is_some_and(|last| last.fresh(now.mono, inverter.stale_after_ms).is_some());
        if fresh {
            return self.clear(AlarmKind::InverterLost, inverter.id.as_str(), now, out);
        }
        if now.mono.since(self.started) < FIRST_READING_MS.max(inverter.stale_after_ms) {
            return;
        }
        let why = state.fault.as_ref().map_or_else(|| "no reading came".to_owned(), ToString::to_string);
        self.raise(
            (AlarmKind::InverterLost, inverter.id.as_str(), Severity::Warning),
            format!("Inverter {} gives no reading: {why}.", inverter.id),
            "Many switch off at night. If it is day, check its power, network, address and unit_id.",
            (now, out),
        );
    }

    fn watch_station(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let state = &self.stations[station.0];
        if state.session.is_some() && !self.has_alarm(AlarmKind::StationLost) {
            return;
        }
        let charger = self.station_id(station).clone();
        if state.session.is_some() {
            return self.clear(AlarmKind::StationLost, charger.as_str(), now, out);
        }
        if now.mono.since(state.since) >= STATION_LOST_MS {
            self.raise(
                (AlarmKind::StationLost, charger.as_str(), Severity::Error),
                format!("{charger} is not connected."),
                "It counts at what it may draw without us. Check its power, its network and the URL of the CSMS in its settings.",
                (now, out),
            );
        }
    }

    /// A station is above its limit as long as its samples say so; after a start they need a while to come.
    fn watch_evse(&mut self, index: EvseIndex, now: Now, out: &mut Vec<Output>) {
        if now.mono.since(self.started) >= STATION_LOST_MS {
            self.watch_conduct(index, now, out);
        }
    }

    fn watch_circuit(&mut self, index: CircuitIndex, now: Now, out: &mut Vec<Output>) {
        let circuit = self.setup.topology.circuit(index).clone();
        let Some(state) = self.plan_state.circuits.get(index.0) else { return };
        let limit = state.limit;
        let measured = circuit.meter.and_then(|meter| {
            let stale_after_ms = self.setup.topology.meters()[meter.0].stale_after_ms;
            self.meters[meter.0].last.as_ref()?.fresh(now.mono, stale_after_ms)?.current.complete()
        });
        let Some(measured) = measured else { return };
        let above = measured - limit;
        let Some((phase, &excess)) = above.iter().max_by_key(|(_, excess)| **excess) else { return };
        let id = circuit.id.as_str();
        if excess <= Current::ZERO {
            self.above_since.remove(&index);
            return self.clear(AlarmKind::CircuitAboveLimit, id, now, out);
        }
        let since = *self.above_since.entry(index).or_insert(now.mono);
        if now.mono.since(since) >= ABOVE_LIMIT_MS {
            self.raise(
                (AlarmKind::CircuitAboveLimit, id, Severity::Critical),
                format!("Circuit {id} has been {excess} above its limit of {} on {phase} for 10 s.", limit.of(phase)),
                "The stations are cut as far as they can be. Look for other loads, and for a station that does not obey.",
                (now, out),
            );
        }
    }

    fn watch_cloud(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(cloud) = &self.cloud else { return };
        if cloud.connected {
            return self.clear(AlarmKind::CloudLost, "", now, out);
        }
        if now.mono.since(cloud.since) >= CLOUD_LOST_MS {
            let why = cloud.error.clone().unwrap_or_else(|| "no connection yet".to_owned());
            self.raise(
                (AlarmKind::CloudLost, "", Severity::Error),
                format!("The cloud's broker cannot be reached: {why}."),
                "The site goes on by itself and keeps all events. Check the internet connection and [cloud] in site.toml.",
                (now, out),
            );
        }
    }

    fn watch_store(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.store_error.clone() {
            Some(error) => self.raise(
                (AlarmKind::StoreFailed, "", Severity::Critical),
                format!("The store cannot be written: {error}."),
                "Limits are kept, but stations get no answer to transaction messages and must keep them. Free the disk or replace it.",
                (now, out),
            ),
            None => self.clear(AlarmKind::StoreFailed, "", now, out),
        }
    }
}
