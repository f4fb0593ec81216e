//! Does a station itself say that it will fall to its fallback? `GetCompositeSchedule` beyond the end of the lease, asked now and then.
//!
//! Asked after a boot or a start of the daemon, and once a day, while a transaction runs (many stations know no schedule without one) at a
//! limit that differs from the fallback, and never while a circuit is too full. A station that cannot answer is taken as its model says. One
//! that contradicts its lease counts at its maximum whenever it is silent, with an alarm, until it says something else.

use super::clock::{CLOCK_LOST_MS, CLOCK_OFFSET_MS};
use super::io::LogLevel;
use super::ledger::stands;
use super::tether::SentLimit;
use super::{Output, Purpose, Site, log};
use crate::engine::model::alarm::{AlarmKey, AlarmKind, Severity};
use crate::engine::model::exchange::{OcppVersion, StationCall, StationReply, WrittenIn};
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{Evse, EvseIndex, LeaseForm, LimitUnit, StationIndex};
use crate::engine::ocpp::{Composite, Priority};
use crate::engine::time::{Mono, Now};
use crate::engine::units::Current;

/// After a start or a boot, so long until the station is asked.
const FIRST_MS: u64 = 30_000;

/// A station that boots again and again is not asked each time.
const APART_MS: u64 = 600_000;

/// An answer holds for so long.
const DAY_MS: u64 = 86_400_000;

/// A station that does not answer, or not to the point, is asked so often.
const TRIES: u8 = 3;

/// How much a schedule may differ from what was sent: rounding, and watts made of amperes.
const TOLERANCE: Current = Current::from_ma(500);

/// How far behind the end of the lease a station is asked: its clock may be that much behind.
const BEYOND_MS: u64 = 15_000;

/// What is known of a station's lease.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Proof {
    /// When the station is asked next.
    due: Mono,
    /// When it was asked last.
    asked_at: Option<Mono>,
    /// An answer is awaited.
    asking: bool,
    tries: u8,
}

impl Proof {
    /// The station has booted: what it said before may not hold any more.
    pub(super) fn booted(&mut self, now: Mono) {
        let apart = self.asked_at.map_or(now, |at| at.plus_ms(APART_MS));
        self.due = self.due.min(now.plus_ms(FIRST_MS).max(apart));
        self.tries = 0;
    }

    fn next(&mut self, after_ms: u64, now: Mono) {
        self.due = now.plus_ms(after_ms);
        self.asking = false;
    }
}

/// What a station's schedule says of its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It will fall to the fallback.
    Falls,
    /// The same, but it allows less now than it was told: something else limits it too, or it does not go by what it was told.
    FallsFrom(Current),
    /// It will not, or does not even have the limit: why.
    Contradicts(String),
    /// It keeps to what it was told. That it will fall is in no schedule: its lease rests on the connection.
    Obeys(Current),
    /// Nothing of use: why.
    Nothing(&'static str),
}

/// Judges a schedule that was asked for `now`, given what was sent. `shift_s`: how many s of it had passed then.
pub(super) fn judge(
    schedule: &Composite,
    (sent, form): (SentLimit, LeaseForm),
    fallback: Current,
    (shift_s, now): (i64, Mono),
) -> Said {
    let in_s = |at: Mono| shift_s + i64::try_from(at.since(now) / 1_000).unwrap_or(i64::MAX);
    let Some(present) = schedule.at(shift_s + 1) else {
        return Said::Nothing("its schedule does not cover the present");
    };
    if present > sent.limit + TOLERANCE {
        return Said::Contradicts(format!("it says that {present} is allowed now, and was told {}", sent.limit));
    }
    if form == LeaseForm::MaxOfflineDuration {
        return Said::Obeys(present);
    }
    let Some(after) = schedule.at(in_s(sent.steps_at.plus_ms(BEYOND_MS))) else {
        return Said::Nothing("its schedule ends before the lease does");
    };
    if after > fallback + TOLERANCE {
        return Said::Contradicts(format!(
            "it says that {after} will be allowed when the lease is over, not {fallback}"
        ));
    }
    if present + TOLERANCE < sent.limit { Said::FallsFrom(present) } else { Said::Falls }
}

impl Site {
    /// What earlier runs have found out.
    pub(super) fn begin_proof(&mut self, station: StationIndex, now: Now) {
        let settings = self.setup.topology.station(station);
        let facts = self.ledger.station(&settings.id);
        let contradicted =
            stands(self.ledger.alarms(), &AlarmKey::new(AlarmKind::LeaseNotProven, settings.id.as_str()));
        let spoken = facts.and_then(|facts| facts.version);
        let chosen = facts.and_then(|facts| facts.chosen_lease).filter(|_| settings.model.lease == LeaseForm::Auto);
        for evse in self.setup.topology.evses_of(station) {
            let number = self.setup.topology.evse(evse).number;
            let told_in = facts.filter(|facts| facts.tamed.contains_key(&number)).map(|facts| facts.lease_form(number));
            let tether = &mut self.evses[evse.0].tether;
            if let Some((form, proven)) = chosen {
                tether.choose(form, proven, now.mono);
            }
            if told_in.is_some_and(|form| form != tether.form()) {
                tether.forget(now.mono);
            } else if chosen.is_some() {
                tether.known_as(told_in.is_some(), now.mono);
            }
            if contradicted {
                tether.trust(false);
            }
            tether.spoke(spoken.is_none_or(|version| tether.form().is_known_to(version)));
        }
        self.stations[station.0].proof.due = now.mono.plus_ms(FIRST_MS);
    }

    /// A station has connected: whether it speaks the version that its form of lease needs, and what may have ended while it was away.
    pub(super) fn leases_connected(
        &mut self,
        station: StationIndex,
        version: OcppVersion,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        for evse in self.setup.topology.evses_of(station) {
            let tether = &mut self.evses[evse.0].tether;
            tether.connected(tether.form().is_known_to(version), now.mono);
        }
        let charger = self.station_id(station).clone();
        let form = self.form_of(station);
        if form.is_known_to(version) {
            return self.clear(AlarmKind::LeaseNotSpoken, charger.as_str(), now, out);
        }
        let spoken = version.subprotocol();
        self.raise(
            (AlarmKind::LeaseNotSpoken, charger.as_str(), Severity::Error),
            format!("{charger} speaks {spoken}, and its lease {:?} needs ocpp2.1.", form.name()),
            "It counts at its maximum whenever it is silent. Set it to OCPP 2.1, or choose another `lease` in its model.",
            (now, out),
        );
    }

    /// What stations' clocks and schedules say of their leases. Once a second.
    pub(super) fn watch_leases(&mut self, now: Now, out: &mut Vec<Output>) {
        for index in 0..self.stations.len() {
            let station = StationIndex(index);
            self.watch_writes(station, now, out);
            self.watch_clock(station, now, out);
            self.pass_over_refused_form(station, now, out);
            if let Some(evse) = self.to_ask(station, now.mono) {
                self.ask_schedule(evse, Purpose::Proof(evse), now, out);
                let proof = &mut self.stations[index].proof;
                proof.asking = true;
                proof.asked_at = Some(now.mono);
            }
        }
    }

    /// The EVSE of a station that is to be asked now.
    fn to_ask(&self, station: StationIndex, now: Mono) -> Option<EvseIndex> {
        let state = &self.stations[station.0];
        let leased = self.setup.topology.station(station).model.lease != LeaseForm::None;
        if state.proof.asking || now < state.proof.due || !leased || self.is_commissioned(station) {
            return None;
        }
        let fallback = self.setup.topology.station(station).fallback;
        self.setup.topology.evses_of(station).find(|evse| {
            let tether = &self.evses[evse.0].tether;
            let differs = tether.offered().is_some_and(|sent| sent.limit != fallback && sent.steps_at > now);
            let at_rest = !tether.needs_limit() && !tether.is_settling(now) && tether.refused_at().is_none();
            let undisturbed = self.reachable(*evse) && !self.is_too_full_above(*evse);
            differs && at_rest && undisturbed && self.transaction_of(*evse).is_some()
        })
    }

    /// Asks for the schedule of an EVSE up to behind the end of its lease.
    pub(super) fn ask_schedule(&mut self, evse: EvseIndex, purpose: Purpose, now: Now, out: &mut Vec<Output>) {
        let Evse { station, number, .. } = self.setup.topology.evse(evse);
        let tether = &self.evses[evse.0].tether;
        // A renewal may leave before the answer comes, and what is read must reach beyond the end of that lease too.
        let renewed = |limit: Current| now.mono.plus_ms(tether.stretched_ms(limit, self.terms(evse).1));
        let ends = tether.offered().map_or(now.mono, |sent| sent.steps_at.max(renewed(sent.limit)));
        let ahead_s = (ends.since(now.mono) + 2 * BEYOND_MS).div_ceil(1_000);
        let unit = match self.written_in(station) {
            WrittenIn::Amperes => LimitUnit::Amperes,
            WrittenIn::Watts { .. } => LimitUnit::Watts,
        };
        let duration_s = u32::try_from(ahead_s).unwrap_or(u32::MAX);
        let call = StationCall::GetCompositeSchedule { evse: number, duration_s, unit };
        self.call(station, call, (Priority::Background, purpose), now, out);
    }

    /// What an answer to [`Site::ask_schedule`] says.
    pub(super) fn read_schedule(&self, evse: EvseIndex, reply: &StationReply, now: Now) -> Said {
        let station = self.setup.topology.evse(evse).station;
        let StationReply::Accepted { payload } = reply else { return Said::Nothing("it does not answer that") };
        let version =
            self.stations[station.0].session.as_ref().map_or(OcppVersion::V16, |(_, session)| session.version());
        let settings = self.setup.topology.station(station);
        let mw_per_a = match self.written_in(station) {
            WrittenIn::Watts { mw_per_a } => mw_per_a,
            WrittenIn::Amperes => {
                let phases = i64::try_from(settings.wiring.terminals()).unwrap_or(3);
                i64::from(self.setup.topology.voltage().mv()) * phases
            }
        };
        let schedule = Composite::read(version, payload, mw_per_a);
        let (Some(schedule), Some(sent)) = (schedule, self.evses[evse.0].tether.offered()) else {
            return Said::Nothing("its answer has no schedule");
        };
        // Where it says when its schedule begins, and that is not wholly out of place, that counts.
        let began = schedule.starts.map_or(0, |starts| self.station_time(station, now).since(starts));
        let shift_s = if began.saturating_abs() < 3_600_000 { began.div_euclid(1_000) } else { 0 };
        let form = self.evses[evse.0].tether.form();
        judge(&schedule, (sent, form), settings.fallback, (shift_s, now.mono))
    }

    pub(super) fn schedule_told(&mut self, evse: EvseIndex, reply: &StationReply, now: Now, out: &mut Vec<Output>) {
        let station = self.setup.topology.evse(evse).station;
        self.dirty = true;
        match self.read_schedule(evse, reply, now) {
            Said::FallsFrom(present) if self.has_better_form(station) => {
                self.lease_contradicted(station, &format!("it says that only {present} is allowed now"), now, out);
            }
            Said::Falls | Said::FallsFrom(_) => self.lease_proven(station, now, out),
            Said::Obeys(_) => self.lease_obeyed(station, now, out),
            Said::Contradicts(why) => self.lease_contradicted(station, &why, now, out),
            Said::Nothing(why) => {
                let gone = matches!(reply, StationReply::Disconnected);
                let proof = &mut self.stations[station.0].proof;
                proof.tries = proof.tries.saturating_add(u8::from(!gone));
                let after_ms = if proof.tries < TRIES { FIRST_MS } else { DAY_MS };
                proof.next(after_ms, now.mono);
                if proof.tries == TRIES {
                    proof.tries = 0;
                    let charger = self.station_id(station);
                    log(out, LogLevel::Info, format!("{charger} does not say what its schedule will be: {why}"));
                }
            }
        }
    }

    pub(super) fn lease_proven(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let charger = self.station_id(station).clone();
        self.stations[station.0].proof.next(DAY_MS, now.mono);
        self.clear(AlarmKind::LeaseNotProven, charger.as_str(), now, out);
        let form = self.form_of(station);
        self.trust_lease(station, true);
        let auto = self.setup.topology.station(station).model.lease == LeaseForm::Auto;
        let known = self.ledger.station(&charger).and_then(|facts| facts.chosen_lease);
        if auto && known != Some((form, true)) {
            log(out, LogLevel::Info, format!("{charger} falls back by itself: lease {}", form.name()));
            self.record(RecordBody::LeaseChosen { charger, form, proven: true }, now, out);
        }
    }

    /// What a schedule cannot show is as its model says; where no model says it, it waits for a test.
    fn lease_obeyed(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        self.stations[station.0].proof.next(DAY_MS, now.mono);
        let holds = self.setup.topology.evses_of(station).all(|evse| self.evses[evse.0].tether.holds());
        let auto = self.setup.topology.station(station).model.lease == LeaseForm::Auto;
        if !auto || holds {
            return;
        }
        let charger = self.station_id(station).clone();
        let form = self.form_of(station).name();
        self.raise(
            (AlarmKind::LeaseNotProven, charger.as_str(), Severity::Error),
            format!("Of the forms of lease only {form} is left for {charger}, and no schedule can show that it works."),
            "It counts at its maximum whenever it is silent, until `siteward commission` has shown it.",
            (now, out),
        );
    }

    fn lease_contradicted(&mut self, station: StationIndex, why: &str, now: Now, out: &mut Vec<Output>) {
        if self.may_try_others(station) && self.try_next_form(station, now, out) {
            return;
        }
        let charger = self.station_id(station).clone();
        self.stations[station.0].proof.next(DAY_MS, now.mono);
        self.trust_lease(station, false);
        self.raise(
            (AlarmKind::LeaseNotProven, charger.as_str(), Severity::Error),
            format!("{charger} will not fall to its fallback by itself: {why}."),
            "It counts at its maximum whenever it is silent. Try `siteward commission`, another `lease` in its model, or another model.",
            (now, out),
        );
    }

    /// With `lease = "auto"` a form that the station refuses is passed over.
    fn pass_over_refused_form(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let settings = self.setup.topology.station(station);
        let min = settings.min;
        if !self.has_better_form(station) {
            return;
        }
        let refused = self.setup.topology.evses_of(station).any(|evse| {
            let tether = &self.evses[evse.0].tether;
            let limit = tether.refused_at().is_some() && tether.refused_limit() == Some(min);
            limit || (tether.form().has_base() && tether.refuses_base())
        });
        if refused {
            self.try_next_form(station, now, out);
        }
    }

    /// With `lease = "auto"`, whether there is a form left that the station may follow better.
    fn has_better_form(&self, station: StationIndex) -> bool {
        self.may_try_others(station) && Some(&self.form_of(station)) != self.tried(station).last()
    }

    /// With `lease = "auto"`, whether another form may still be tried. The last of all is not left again: what it has left in the station has
    /// no end as long as the station is connected, and would lie above all that others say.
    fn may_try_others(&self, station: StationIndex) -> bool {
        let auto = self.setup.topology.station(station).model.lease == LeaseForm::Auto;
        auto && self.form_of(station) != LeaseForm::MaxOfflineDuration
    }

    /// The forms that `lease = "auto"` tries with a station, by what it speaks.
    fn tried(&self, station: StationIndex) -> &'static [LeaseForm] {
        let session = self.stations[station.0].session.as_ref();
        LeaseForm::tried(session.map_or(OcppVersion::V16, |(_, session)| session.version()))
    }

    fn form_of(&self, station: StationIndex) -> LeaseForm {
        let first = self.setup.topology.evses_of(station).next();
        first.map_or(LeaseForm::None, |evse| self.evses[evse.0].tether.form())
    }

    /// Goes on to the next form of lease; after the last it begins with the first again, and `false` says so.
    fn try_next_form(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) -> bool {
        let tried = self.tried(station);
        let at = tried.iter().position(|form| *form == self.form_of(station)).map_or(0, |at| at + 1);
        let form = tried.get(at).copied();
        let next = form.unwrap_or(tried[0]);
        let charger = self.station_id(station).clone();
        log(out, LogLevel::Info, format!("{charger} does not keep to its lease; now tried: {}", next.name()));
        for evse in self.setup.topology.evses_of(station) {
            self.evses[evse.0].tether.choose(next, false, now.mono);
            self.evses[evse.0].limited_transaction = None;
        }
        self.record(RecordBody::LeaseChosen { charger, form: next, proven: false }, now, out);
        self.stations[station.0].proof.next(FIRST_MS, now.mono);
        self.stations[station.0].proof.tries = 0;
        form.is_some()
    }

    pub(super) fn trust_lease(&mut self, station: StationIndex, trusted: bool) {
        for evse in self.setup.topology.evses_of(station) {
            self.evses[evse.0].tether.trust(trusted);
        }
        self.dirty = true;
    }

    /// A clock that is far away may jump at any moment, and the schedules with it.
    fn watch_clock(&mut self, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        let Some(offset_ms) = self.stations[station.0].clock.offset_ms(now) else { return };
        let charger = self.station_id(station).clone();
        let away = offset_ms.saturating_abs();
        let key = AlarmKey::new(AlarmKind::StationClockWrong, charger.as_str());
        let stated = self.setup.topology.station(station).model.lease.is_stated();
        if away <= CLOCK_OFFSET_MS {
            let contradicted =
                stands(self.ledger.alarms(), &AlarmKey::new(AlarmKind::LeaseNotProven, charger.as_str()));
            if stated && !contradicted && stands(self.ledger.alarms(), &key) {
                self.trust_lease(station, true);
            }
            return self.clear(AlarmKind::StationClockWrong, charger.as_str(), now, out);
        }
        // While our own clock is not set, nobody knows who is wrong.
        if !now.utc_trusted || !self.stations[station.0].clock.is_deaf() {
            return;
        }
        let lost = away > CLOCK_LOST_MS;
        if lost {
            self.trust_lease(station, false);
        }
        let (so, direction) = (away / 1_000, if offset_ms > 0 { "ahead" } else { "behind" });
        let then = if lost {
            "It counts at its maximum whenever it is silent. Set its clock, then restart it."
        } else {
            "Its schedules are written for its own clock. Set its clock, or let it take the time from the heartbeat."
        };
        self.raise(
            (AlarmKind::StationClockWrong, charger.as_str(), Severity::Warning),
            format!("The clock of {charger} is {so} s {direction}, and does not follow the time that it is told."),
            then,
            (now, out),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::exchange::OcppVersion;

    const NOW: Mono = Mono::from_ms(50_000);

    fn amps(a: i32) -> Current {
        Current::from_a(a)
    }

    fn said(periods: &str, duration_s: u32) -> Said {
        said_of(LeaseForm::TxDefaultProfile, periods, duration_s)
    }

    fn said_of(form: LeaseForm, periods: &str, duration_s: u32) -> Said {
        let text = format!(
            r#"{{"chargingSchedule":{{"duration":{duration_s},"chargingRateUnit":"A","chargingSchedulePeriod":[{periods}]}}}}"#
        );
        let schedule = Composite::read(OcppVersion::V16, &text, 690_000).expect("a schedule");
        let sent = SentLimit::lasting(amps(16), NOW, 120_000);
        judge(&schedule, (sent, form), amps(6), (0, NOW))
    }

    #[test]
    fn a_schedule_beyond_the_end_of_the_lease_proves_or_contradicts_it() {
        let falls = r#"{"startPeriod":0,"limit":16},{"startPeriod":120,"limit":6}"#;
        assert_eq!(said(falls, 150), Said::Falls);
        assert!(matches!(said(r#"{"startPeriod":0,"limit":16}"#, 150), Said::Contradicts(_)));
        assert!(matches!(
            said(r#"{"startPeriod":0,"limit":32},{"startPeriod":120,"limit":6}"#, 150),
            Said::Contradicts(_)
        ));
        // A station that steps earlier or lower errs to the safe side.
        assert_eq!(said(r#"{"startPeriod":0,"limit":6}"#, 150), Said::FallsFrom(amps(6)));
        assert!(matches!(said(falls, 130), Said::Nothing(_)));
        // What holds when it is offline is in no schedule.
        let offline = LeaseForm::MaxOfflineDuration;
        assert_eq!(said_of(offline, r#"{"startPeriod":0,"limit":16}"#, 150), Said::Obeys(amps(16)));
        assert!(matches!(said_of(offline, r#"{"startPeriod":0,"limit":32}"#, 150), Said::Contradicts(_)));
    }
}
