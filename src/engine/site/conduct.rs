//! A station that draws more than it may: budgeted at what it draws, told again, then stopped, then taken out of service.

use super::io::{LogLevel, Output};
use super::{Purpose, Site, log};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::exchange::{OcppVersion, StationCall, StationReply};
use crate::engine::model::topology::{Evse, EvseIndex};
use crate::engine::ocpp::Priority;
use crate::engine::time::{Mono, Now};
use crate::engine::units::{Current, PerPhase};

/// A sample above the limit by more than this is the station's fault, not its meter's (class B with its PWM tolerance).
const ABOVE: Current = Current::from_ma(1_500);

/// So many samples must say so before somebody is told.
const ALARM_SAMPLES: u32 = 2;

/// So many samples in a row, over [`STOP_MS`], must say so before the transaction is stopped.
const STOP_SAMPLES: u32 = 3;

/// How long a station is told its limit again before its transaction is stopped.
const STOP_MS: u64 = 30_000;

/// How long it may go on after that before it is taken out of service.
const OUT_OF_SERVICE_MS: u64 = 30_000;

/// Another offence within this time of a stop leads out of service.
const REMEMBERED_MS: u64 = 600_000;

/// Every meter has shown by then that a station draws less again; the slowest known ones have new values once a minute.
pub(super) const SEEN_WITHIN_MS: u64 = 120_000;

/// After so long without an offence a station that was taken out of service is taken in again.
const RESPITE_MS: u64 = 600_000;

/// What was done about a station above its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Measure {
    /// Nothing but telling it again.
    #[default]
    Told,
    /// Its transaction was stopped.
    Stopped(Mono),
    /// It was taken out of service; it keeps within its limit since then.
    OutOfService(Option<Mono>),
}

/// How one EVSE keeps its limit.
#[derive(Clone, Debug, Default)]
pub(super) struct Conduct {
    /// So many samples in a row were above.
    samples: u32,
    since: Option<Mono>,
    /// What it drew by the last of them.
    drawn: PerPhase<Current>,
    /// It is above no more, but its car may still be on its way down, and the meter behind, until then.
    settles_until: Option<Mono>,
    measure: Measure,
    stopped_at: Option<Mono>,
}

impl Conduct {
    /// Whether its last sample was above its limit.
    pub(super) const fn is_above(&self) -> bool {
        self.samples > 0
    }

    /// What it draws, while that is above its limit or was until just now. `unseen`: whether a meter still shows what was at a time.
    pub(super) fn drawn(&self, now: Mono, unseen: impl FnOnce(Mono) -> bool) -> Option<PerPhase<Current>> {
        let settles = self.settles_until.is_some_and(|until| now < until);
        let counts = self.is_above() || settles || self.settled_at(now).is_some_and(unseen);
        counts.then_some(self.drawn)
    }

    /// When its car had come down after it was above its limit, if that was just now.
    pub(super) fn settled_at(&self, now: Mono) -> Option<Mono> {
        self.settles_until.filter(|at| now.since(*at) < SEEN_WITHIN_MS)
    }

    /// A sample was within its limit. `reaction_ms`: how long its car takes to follow.
    fn obeys(&mut self, reaction_ms: u64, now: Mono) {
        if self.is_above() {
            self.settles_until = Some(now.plus_ms(reaction_ms));
        }
        self.samples = 0;
        self.since = None;
    }

    /// What is to be done next about it, if anything.
    fn next(&self, now: Mono) -> Option<Measure> {
        let since = self.since.filter(|_| self.samples >= STOP_SAMPLES)?;
        let repeated = self.stopped_at.is_some_and(|at| now.since(at) < REMEMBERED_MS);
        match self.measure {
            Measure::Told if now.since(since) < STOP_MS => None,
            Measure::Told if repeated => Some(Measure::OutOfService(None)),
            Measure::Told => Some(Measure::Stopped(now)),
            Measure::Stopped(at) if now.since(at) < OUT_OF_SERVICE_MS => None,
            Measure::Stopped(_) => Some(Measure::OutOfService(None)),
            Measure::OutOfService(_) => None,
        }
    }
}

impl Site {
    /// Judges a fresh sample of the current: does the car leave something unused, does the station keep its limit?
    pub(super) fn judge_sample(
        &mut self,
        evse: EvseIndex,
        current: PerPhase<Current>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let reachable = self.reachable(evse);
        let reaction_ms = self.setup.topology.station(self.setup.topology.evse(evse).station).model.reaction_ms;
        let control = &mut self.evses[evse.0];
        let drawn = current.max();
        let settled = !control.tether.is_settling(now.mono);
        let Some(offered) = control.tether.offered().filter(|_| settled) else { return };
        control.appetite.sample(drawn, offered.limit, now.mono);
        let may = control.tether.committed(reachable, now.mono);
        let conduct = &mut control.conduct;
        if drawn <= may + ABOVE {
            conduct.obeys(reaction_ms, now.mono);
            return self.keeps_its_limit(evse, now, out);
        }
        conduct.samples = conduct.samples.saturating_add(1);
        conduct.since.get_or_insert(now.mono);
        conduct.drawn = current;
        if let Measure::OutOfService(obeys) = &mut conduct.measure {
            *obeys = None;
        }
        if conduct.samples == ALARM_SAMPLES && conduct.measure == Measure::Told {
            let what = format!(
                "draws {drawn} where it may draw {may}: it is budgeted at what it draws and told its limit again"
            );
            self.say_conduct(evse, &what, now, out);
        }
        // The commissioning test judges the station itself; meanwhile it is budgeted at what it draws, as any.
        let tested = self.is_commissioned(self.setup.topology.evse(evse).station);
        if let Some(measure) = self.evses[evse.0].conduct.next(now.mono).filter(|_| !tested) {
            self.take_measure(evse, measure, (drawn, may), (now, out));
        }
    }

    /// It keeps its limit, or there is no word of the contrary any more.
    pub(super) fn keeps_its_limit(&mut self, evse: EvseIndex, now: Now, out: &mut Vec<Output>) {
        let conduct = &mut self.evses[evse.0].conduct;
        if let Measure::OutOfService(obeys) = &mut conduct.measure {
            obeys.get_or_insert(now.mono);
            return;
        }
        conduct.measure = Measure::Told;
        if self.has_alarm(AlarmKind::StationAboveLimit) {
            let subject = self.evse_name(evse);
            self.clear(AlarmKind::StationAboveLimit, &subject, now, out);
        }
    }

    fn take_measure(
        &mut self,
        index: EvseIndex,
        measure: Measure,
        (drawn, may): (Current, Current),
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let facts = self.ledger.station(self.station_id(station));
        let open = facts.and_then(|facts| facts.transaction_at(number)).map(|open| open.facts.transaction.clone());
        let excess = format!("goes on to draw {drawn} where it may draw {may}");
        match (measure, open) {
            (Measure::Stopped(_), Some(transaction)) => {
                let conduct = &mut self.evses[index.0].conduct;
                conduct.stopped_at = Some(now.mono);
                conduct.measure = measure;
                self.say_conduct(index, &format!("{excess}: its transaction {transaction} was stopped"), now, out);
                let call = StationCall::Stop { transaction };
                self.call(station, call, (Priority::Urgent, Purpose::Enforce(index)), now, out);
            }
            // It draws without a transaction: there is nothing to stop but the station.
            (Measure::Stopped(_) | Measure::Told | Measure::OutOfService(_), _) => {
                self.evses[index.0].conduct.measure = Measure::OutOfService(None);
                self.say_conduct(index, &format!("{excess}: it was taken out of service"), now, out);
                self.set_in_service(index, false, now, out);
            }
        }
    }

    fn set_in_service(&mut self, index: EvseIndex, in_service: bool, now: Now, out: &mut Vec<Output>) {
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let Some((_, session)) = &self.stations[station.0].session else { return };
        let state = if in_service { "Operative" } else { "Inoperative" };
        let payload = match session.version() {
            OcppVersion::V16 => format!(r#"{{"connectorId":{number},"type":"{state}"}}"#),
            OcppVersion::V201 | OcppVersion::V21 => {
                format!(r#"{{"operationalStatus":"{state}","evse":{{"id":{number}}}}}"#)
            }
        };
        let call = StationCall::Raw { action: "ChangeAvailability".to_owned(), payload };
        self.call(station, call, (Priority::Urgent, Purpose::Enforce(index)), now, out);
    }

    /// What a station answers to a stop or a change of availability.
    pub(super) fn enforced(&self, index: EvseIndex, reply: &StationReply, out: &mut Vec<Output>) {
        let answer = match reply {
            StationReply::Accepted { .. } => return,
            StationReply::Refused { status, .. } => status.clone(),
            StationReply::Error { code, description } => format!("{code} {description}"),
            StationReply::Timeout | StationReply::Overtaken | StationReply::Disconnected => "nothing".to_owned(),
        };
        let name = self.evse_name(index);
        log(
            out,
            LogLevel::Warn,
            format!("{name} was to be stopped for drawing more than it may, and answers {answer}"),
        );
    }

    /// Looks at what only time brings: a station that is silent about what it draws, and the end of a time out of service.
    pub(super) fn watch_conduct(&mut self, index: EvseIndex, now: Now, out: &mut Vec<Output>) {
        let station = self.setup.topology.evse(index).station;
        let silent = !self.reachable(index) || self.is_charging(index);
        // Without a sample it is taken to go on, unless nothing can charge there.
        if self.fresh_measured(index, now.mono).is_none() && !silent {
            let reaction_ms = self.setup.topology.station(station).model.reaction_ms;
            self.evses[index.0].conduct.obeys(reaction_ms, now.mono);
            self.keeps_its_limit(index, now, out);
        }
        let Measure::OutOfService(Some(obeys)) = self.evses[index.0].conduct.measure else { return };
        if now.mono.since(obeys) >= RESPITE_MS && self.reachable(index) {
            self.evses[index.0].conduct.measure = Measure::Told;
            self.set_in_service(index, true, now, out);
            self.keeps_its_limit(index, now, out);
        }
    }

    /// An alarm that stands from an earlier run: nobody knows any more whether the station was taken out of service, so it is taken in again
    /// when it keeps its limit long enough.
    pub(super) fn restore_conduct(&mut self) {
        for index in (0..self.evses.len()).map(EvseIndex) {
            let subject = self.evse_name(index);
            let stands = self.ledger.alarms().iter().any(|alarm| {
                alarm.key.kind == AlarmKind::StationAboveLimit
                    && alarm.key.subject == subject
                    && alarm.message.contains("out of service")
            });
            if stands {
                self.evses[index.0].conduct.measure = Measure::OutOfService(None);
            }
        }
    }

    fn say_conduct(&mut self, index: EvseIndex, what: &str, now: Now, out: &mut Vec<Output>) {
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let message = format!("{} connector {number} {what}.", self.station_id(station));
        self.restate(
            (AlarmKind::StationAboveLimit, &self.evse_name(index), Severity::Error),
            message,
            "Check the station's own settings and its phase rotation. It is left alone again when it keeps its limit.",
            (now, out),
        );
    }

    /// The name of an EVSE in alarms: `STATION/NUMBER`.
    pub(super) fn evse_name(&self, index: EvseIndex) -> String {
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        format!("{}/{number}", self.station_id(station))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_drawn_above_the_limit_counts_until_every_meter_has_shown_that_it_is_over() {
        let at = |second: u64| Mono::from_ms(second * 1_000);
        let drawn = PerPhase::splat(Current::from_a(10));
        let mut conduct = Conduct { samples: 1, drawn, ..Conduct::default() };
        assert_eq!(conduct.drawn(at(0), |_| false), Some(drawn), "it is above");
        conduct.obeys(5_000, at(10));
        assert_eq!(conduct.drawn(at(14), |_| false), Some(drawn), "its car is on its way down");
        assert_eq!(conduct.drawn(at(15), |_| false), None);
        assert_eq!(conduct.drawn(at(20), |settled| settled == at(15)), Some(drawn), "a meter still shows it");
        assert_eq!(conduct.drawn(at(15).plus_ms(SEEN_WITHIN_MS), |_| true), None, "no meter is that slow");
    }
}
