//! The commissioning test: a station is lowered, read back, measured, and left in silence on purpose until its lease is over.
//!
//! Nothing of the safety is switched off for it. The test only lowers (a cap on what the plan gives), and while the station is left in
//! silence all its EVSEs count at their maximum, whatever their leases say: room for that is made first, or the step is not made.

use super::io::{LogLevel, Output};
use super::proof::Said;
use super::tether::STEP_MARGIN_MS;
use super::{Purpose, Site, log};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::commission::{CommissionReport, CommissionStep, StepOutcome, Verdict};
use crate::engine::model::exchange::{OcppVersion, StationReply};
use crate::engine::model::ids::StationId;
use crate::engine::model::topology::{EvseIndex, Station, StationIndex};
use crate::engine::time::{Mono, Now};
use crate::engine::units::Current;

/// The lease of limits during the test, in ms: nobody waits for hours.
const LEASE_MS: u64 = 120_000;

/// How often limits are renewed meanwhile.
const RENEW_MS: u64 = 30_000;

/// How long a station may take to accept a limit, in ms: a time-out of a call, and another try.
const ACCEPT_MS: u64 = 75_000;

/// How long others may take to make room, in ms.
const ROOM_MS: u64 = 60_000;

/// The first limit of the test.
const FIRST: Current = Current::from_a(10);

/// A current within this of a limit keeps it: the meter's class and the pilot's tolerance.
const TOLERANCE: Current = Current::from_ma(1_500);

/// A limit must differ from the fallback by this for its step to be seen.
const VISIBLE: Current = Current::from_a(3);

/// Less than this is no charging car.
const CHARGES: Current = Current::from_a(1);

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The cap has been lowered; waits until the station has accepted.
    Lowering,
    /// The station was asked for its schedule.
    Reading,
    /// Waits for meter values.
    Measuring,
    /// Others make room for the worst that can happen.
    Room,
    /// Nothing is sent; waits for the fallback.
    Silent,
    /// The cap is gone; waits until the station has accepted.
    Restoring,
}

/// A test that runs or has run.
#[derive(Clone, Debug)]
pub(super) struct Commissioning {
    station: StationIndex,
    evse: EvseIndex,
    phase: Phase,
    since: Mono,
    /// The limits still to be tried; the last one is held while nothing is sent.
    caps: Vec<Current>,
    cap: Current,
    /// What the station was really given under the cap.
    held: Current,
    /// When the held limit steps to the fallback.
    steps_at: Mono,
    running: bool,
    report: CommissionReport,
}

impl Site {
    /// Begins the test of a station.
    pub(super) fn commission(&mut self, charger: &StationId, now: Now, out: &mut Vec<Output>) -> CommandOutcome {
        let Some(station) = self.setup.topology.find_station(charger) else {
            return CommandOutcome::Rejected { error: format!("there is no charger {charger} in site.toml") };
        };
        if let Some(running) = self.commissioning.as_ref().filter(|running| running.running) {
            let error = format!("{} is being commissioned; one at a time", running.report.charger);
            return CommandOutcome::Rejected { error };
        }
        let Some((_, session)) = &self.stations[station.0].session else { return CommandOutcome::NotConnected };
        let version = session.version();
        // Where a car charges there is more to be seen.
        let evses = || self.setup.topology.evses_of(station);
        let busy = evses().find(|evse| self.transaction_of(*evse).is_some());
        let Some(evse) = busy.or_else(|| evses().next()) else { return CommandOutcome::NotConnected };
        let settings = self.setup.topology.station(station);
        let mut caps = caps(settings);
        let cap = if caps.is_empty() { settings.min } else { caps.remove(0) };
        log(out, LogLevel::Info, format!("{charger} is being commissioned"));
        self.commissioning = Some(Commissioning {
            station,
            evse,
            phase: Phase::Lowering,
            since: now.mono,
            caps,
            cap,
            held: Current::ZERO,
            steps_at: now.mono,
            running: true,
            report: self.first_report(station, evse, version, now),
        });
        self.dirty = true;
        CommandOutcome::Accepted { data: None }
    }

    fn first_report(&self, station: StationIndex, evse: EvseIndex, version: OcppVersion, now: Now) -> CommissionReport {
        let settings = self.setup.topology.station(station);
        let info = self.ledger.station(&settings.id).and_then(|facts| facts.info.clone()).unwrap_or_default();
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        CommissionReport {
            format: "siteward-commissioning/1".to_owned(),
            site: self.setup.topology.site().to_string(),
            version: self.setup.version.clone(),
            charger: settings.id.to_string(),
            evse: self.setup.topology.evse(evse).number,
            vendor: said(info.vendor),
            model: said(info.model),
            serial: info.serial,
            firmware: info.firmware,
            ocpp_version: version.subprotocol().trim_start_matches("ocpp").to_owned(),
            station_model: settings.model.name.clone(),
            lease: self.evses[evse.0].tether.form().name().to_owned(),
            lease_s: LEASE_MS / 1_000,
            fallback_a: settings.fallback.as_a(),
            min_a: settings.min.as_a(),
            max_a: settings.max.as_a(),
            began: now.utc,
            ended: now.utc,
            clock_trusted: now.utc_trusted,
            doing: Some("lowering the limit".to_owned()),
            verdict: None,
            steps: Vec::new(),
        }
    }

    /// The test of a station that runs or was the last one; `None` if it was never tested in this run.
    #[must_use]
    pub fn commission_report(&self, charger: &StationId) -> Option<CommissionReport> {
        let commissioning = self.commissioning.as_ref()?;
        (commissioning.report.charger == charger.as_str()).then(|| commissioning.report.clone())
    }

    /// The most that an EVSE is given while it is tested.
    pub(super) fn commission_cap(&self, evse: EvseIndex) -> Current {
        let test = self.commissioning.as_ref().filter(|test| test.running && test.evse == evse);
        test.map_or(Current::MAX, |test| if test.phase == Phase::Restoring { Current::MAX } else { test.cap })
    }

    /// Whether nothing is sent to a station.
    pub(super) fn is_silenced(&self, station: StationIndex) -> bool {
        self.commissioning
            .as_ref()
            .is_some_and(|test| test.running && test.station == station && test.phase == Phase::Silent)
    }

    /// Whether a station is being tested.
    pub(super) fn is_commissioned(&self, station: StationIndex) -> bool {
        self.commissioning.as_ref().is_some_and(|test| test.running && test.station == station)
    }

    /// The terms of a lease during the test: how often it is renewed and how long it lasts, in ms.
    pub(super) const fn commission_terms() -> (u64, u64) {
        (RENEW_MS, LEASE_MS)
    }

    /// Goes on with the test. Once a second.
    pub(super) fn commission_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(test) = self.commissioning.clone().filter(|test| test.running) else { return };
        self.dirty = true;
        if self.stations[test.station.0].session.is_none() {
            self.note(
                "connection",
                StepOutcome::Failed,
                "the station has disconnected during the test".to_owned(),
                now,
            );
            return self.end_test(now, out);
        }
        let waited_ms = now.mono.since(test.since);
        match test.phase {
            Phase::Lowering => self.lowering(&test, waited_ms, now, out),
            Phase::Reading => {
                if waited_ms > ACCEPT_MS {
                    self.schedule_read(&StationReply::Timeout, now);
                }
            }
            Phase::Measuring => self.measuring(&test, waited_ms, now),
            Phase::Room => self.making_room(&test, waited_ms, now, out),
            Phase::Silent => self.silent(&test, now, out),
            Phase::Restoring => self.restoring(&test, waited_ms, now, out),
        }
    }

    fn lowering(&mut self, test: &Commissioning, waited_ms: u64, now: Now, out: &mut Vec<Output>) {
        let tether = &self.evses[test.evse.0].tether;
        let accepted = tether.offered().filter(|sent| sent.limit <= test.cap && sent.sent_at >= test.since);
        let at_rest = tether.pending().is_none() && tether.refused_at().is_none() && !tether.needs_limit();
        let unchanged = tether.offered().filter(|sent| sent.limit <= test.cap && waited_ms > 3_000);
        match accepted.or(unchanged).filter(|_| at_rest) {
            Some(sent) => {
                let text = format!("told {}, accepted", sent.limit);
                if let Some(test) = &mut self.commissioning {
                    test.held = sent.limit;
                }
                self.note("limit accepted", StepOutcome::Passed, text, now);
                self.enter(Phase::Reading, "asking for the schedule", now);
                self.ask_schedule(test.evse, Purpose::Commission, now, out);
            }
            None if waited_ms > ACCEPT_MS => {
                let text = format!("a limit of at most {} was not accepted", test.cap);
                self.note("limit accepted", StepOutcome::Failed, text, now);
                self.end_test(now, out);
            }
            None => {}
        }
    }

    /// The station has answered what its schedule is.
    pub(super) fn schedule_read(&mut self, reply: &StationReply, now: Now) {
        let Some(test) = self.commissioning.clone().filter(|test| test.running && test.phase == Phase::Reading) else {
            return;
        };
        let fallback = self.setup.topology.station(test.station).fallback;
        let (outcome, text) = match self.read_schedule(test.evse, reply, now) {
            Said::Falls if test.held == fallback => {
                (StepOutcome::Passed, format!("says {fallback} now, and no more when the lease is over"))
            }
            Said::FallsFrom(present) => {
                let text = format!(
                    "says {present} now, less than the {} that it was told, and at most {fallback} when the lease is over",
                    test.held
                );
                (StepOutcome::Passed, text)
            }
            Said::Falls => {
                (StepOutcome::Passed, format!("says {} now, and at most {fallback} when the lease is over", test.held))
            }
            Said::Contradicts(why) => (StepOutcome::Failed, why),
            Said::Nothing(why) => (StepOutcome::NotMeasured, why.to_owned()),
        };
        self.note("schedule read back", outcome, text, now);
        self.enter(Phase::Measuring, "measuring the current", now);
    }

    fn measuring(&mut self, test: &Commissioning, waited_ms: u64, now: Now) {
        let model = &self.setup.topology.station(test.station).model;
        let patience_ms = model.reaction_ms + 3 * model.meter_interval_ms + 10_000;
        let after = test.since.plus_ms(model.reaction_ms);
        let Some(drawn) = self.drawn(test.evse, after) else {
            if waited_ms > patience_ms || self.transaction_of(test.evse).is_none() {
                self.note("current follows", StepOutcome::NotMeasured, self.why_not_measured(test.evse), now);
                self.next_cap(test, now);
            }
            return;
        };
        let outcome = if drawn <= test.held + TOLERANCE {
            if drawn < CHARGES && test.held >= self.setup.topology.station(test.station).min {
                (StepOutcome::NotMeasured, "the car takes no current".to_owned())
            } else {
                (StepOutcome::Passed, format!("{drawn} are drawn under a limit of {}", test.held))
            }
        } else if waited_ms > patience_ms {
            (StepOutcome::Failed, format!("{drawn} are drawn where {} are allowed", test.held))
        } else {
            return;
        };
        self.note("current follows", outcome.0, outcome.1, now);
        self.next_cap(test, now);
    }

    fn why_not_measured(&self, evse: EvseIndex) -> String {
        match self.transaction_of(evse) {
            None => "no car charges here".to_owned(),
            Some(_) => "the station sends no fresh meter values with currents".to_owned(),
        }
    }

    /// Goes on to the next limit, or to the silence.
    fn next_cap(&mut self, test: &Commissioning, now: Now) {
        let mut caps = test.caps.clone();
        if caps.is_empty() {
            for evse in self.setup.topology.evses_of(test.station) {
                self.evses[evse.0].tether.suspect(true);
            }
            return self.enter(Phase::Room, "making room for the worst case", now);
        }
        let cap = caps.remove(0);
        if let Some(test) = &mut self.commissioning {
            (test.cap, test.caps) = (cap, caps);
        }
        self.enter(Phase::Lowering, "changing the limit", now);
    }

    fn making_room(&mut self, test: &Commissioning, waited_ms: u64, now: Now, out: &mut Vec<Output>) {
        // A plan that counts it at its maximum has to be made first, and its cuts have to be confirmed.
        let fits = waited_ms > 2_000 && !self.is_too_full_above(test.evse);
        let sent = self.evses[test.evse.0].tether.offered();
        let fresh = sent.filter(|sent| now.mono.since(sent.sent_at) < RENEW_MS && sent.steps_at > now.mono);
        if let Some(sent) = fresh.filter(|_| fits && self.evses[test.evse.0].tether.pending().is_none()) {
            if let Some(test) = &mut self.commissioning {
                (test.held, test.steps_at) = (sent.limit, sent.steps_at);
            }
            self.enter(Phase::Silent, "silent: waiting for the fallback", now);
        } else if waited_ms > ROOM_MS {
            let text = "its maximum does not fit beside what others draw now; repeat the test when fewer cars charge";
            self.note("falls back by itself", StepOutcome::NotMeasured, text.to_owned(), now);
            self.restore(now);
        }
        let _ = out;
    }

    fn silent(&mut self, test: &Commissioning, now: Now, out: &mut Vec<Output>) {
        let settings = self.setup.topology.station(test.station);
        let (fallback, model) = (settings.fallback, &settings.model);
        let over_ms = STEP_MARGIN_MS + model.reaction_ms + 3 * model.meter_interval_ms;
        let charger = settings.id.clone();
        let silent_s = now.mono.since(test.since) / 1_000;
        let visible = test.held.ma().abs_diff(fallback.ma()) >= VISIBLE.ma().unsigned_abs();
        let before = self.evses[test.evse.0].measured.as_ref().map(|sample| sample.for_display().current.max());
        let seen_before = before.is_some_and(|drawn| drawn > fallback + TOLERANCE || test.held < fallback);
        if silent_s < 2 && (!visible || !seen_before || self.transaction_of(test.evse).is_none()) {
            let why = match before {
                _ if self.transaction_of(test.evse).is_none() => "no car charges here".to_owned(),
                _ if !visible => format!("the limit of {} is too near to the fallback of {fallback}", test.held),
                None => self.why_not_measured(test.evse),
                Some(drawn) => format!("the car draws {drawn}, too little for a step to {fallback} to be seen"),
            };
            self.note("falls back by itself", StepOutcome::NotMeasured, why, now);
            return self.restore(now);
        }
        let late = now.mono > test.steps_at.plus_ms(over_ms);
        let Some(drawn) = self.drawn(test.evse, test.since) else {
            if late || self.transaction_of(test.evse).is_none() {
                self.note("falls back by itself", StepOutcome::NotMeasured, self.why_not_measured(test.evse), now);
                self.restore(now);
            }
            return;
        };
        let stepped = if test.held > fallback {
            drawn <= fallback + TOLERANCE
        } else {
            drawn > test.held + TOLERANCE && drawn <= fallback + TOLERANCE
        };
        let early = now.mono < test.steps_at.minus_ms(STEP_MARGIN_MS);
        if stepped && early && test.held < fallback {
            let text = format!("it rises to {drawn} after {silent_s} s already, before others have stepped down");
            self.note("falls back by itself", StepOutcome::Failed, text, now);
            self.not_trusted(&charger, test.station, now, out);
            self.restore(now);
        } else if stepped {
            let text = format!(
                "{drawn} after {silent_s} s of silence; configured: {fallback} when the lease of {} s is over",
                LEASE_MS / 1_000
            );
            self.note("falls back by itself", StepOutcome::Passed, text, now);
            self.lease_proven(test.station, now, out);
            self.restore(now);
        } else if late {
            let text =
                format!("{drawn} are still drawn after {silent_s} s of silence; it should have fallen to {fallback}");
            self.note("falls back by itself", StepOutcome::Failed, text, now);
            self.not_trusted(&charger, test.station, now, out);
            self.restore(now);
        }
    }

    fn not_trusted(&mut self, charger: &StationId, station: StationIndex, now: Now, out: &mut Vec<Output>) {
        self.trust_lease(station, false);
        self.raise(
            (AlarmKind::LeaseNotProven, charger.as_str(), Severity::Error),
            format!("{charger} did not fall to its fallback by itself when it was commissioned."),
            "It counts at its maximum whenever it is silent. Try another `lease` in its model, or the model no-lease, and commission it again.",
            (now, out),
        );
    }

    /// The test lets go of the station.
    fn restore(&mut self, now: Now) {
        if let Some(test) = &self.commissioning {
            for evse in self.setup.topology.evses_of(test.station) {
                self.evses[evse.0].tether.suspect(false);
            }
        }
        self.enter(Phase::Restoring, "restoring the limit", now);
    }

    fn restoring(&mut self, test: &Commissioning, waited_ms: u64, now: Now, out: &mut Vec<Output>) {
        let tether = &self.evses[test.evse.0].tether;
        let renewed = tether.offered().is_some_and(|sent| sent.sent_at >= test.since) && tether.pending().is_none();
        if renewed {
            let text = format!("told {}, accepted", tether.offered().map_or(Current::ZERO, |sent| sent.limit));
            self.note("limit restored", StepOutcome::Passed, text, now);
            self.end_test(now, out);
        } else if waited_ms > ACCEPT_MS {
            self.note("limit restored", StepOutcome::Failed, "no limit was accepted after the test".to_owned(), now);
            self.end_test(now, out);
        }
    }

    /// The current that was measured after `after`, on the phase that carries most.
    fn drawn(&self, evse: EvseIndex, after: Mono) -> Option<Current> {
        self.transaction_of(evse)?;
        let sample = self.evses[evse.0].measured.as_ref().filter(|sample| sample.at() >= after)?;
        Some(sample.for_display().current.max())
    }

    fn enter(&mut self, phase: Phase, doing: &str, now: Now) {
        if let Some(test) = &mut self.commissioning {
            test.phase = phase;
            test.since = now.mono;
            test.report.doing = Some(doing.to_owned());
        }
        self.dirty = true;
    }

    fn note(&mut self, name: &str, outcome: StepOutcome, text: String, now: Now) {
        let Some(test) = &self.commissioning else { return };
        let measured_a = self.drawn(test.evse, test.since).map(Current::as_a);
        let (took_s, limit_a) = (now.mono.since(test.since) / 1_000, Some(test.held.as_a()));
        let step = CommissionStep { name: name.to_owned(), outcome, text, at: now.utc, took_s, limit_a, measured_a };
        if let Some(test) = &mut self.commissioning {
            test.report.steps.push(step);
        }
    }

    fn end_test(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(test) = &mut self.commissioning else { return };
        test.running = false;
        test.report.doing = None;
        test.report.ended = now.utc;
        let verdict = test.report.judge();
        test.report.verdict = Some(verdict);
        let (report, station) = (test.report.clone(), test.station);
        for evse in self.setup.topology.evses_of(station) {
            self.evses[evse.0].tether.suspect(false);
        }
        let word = match verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Incomplete => "could not measure everything in",
        };
        log(out, LogLevel::Info, format!("{} has {word} its commissioning", report.charger));
        out.push(Output::Commissioned(Box::new(report)));
    }
}

/// The limits that are tried: 10 A, the minimum, and one that differs from the fallback so that its step can be seen.
fn caps(station: &Station) -> Vec<Current> {
    let first = FIRST.max(station.min).min(station.max);
    let far = |limit: &Current| *limit >= station.fallback + VISIBLE;
    let above = [first, Current::from_a(13), Current::from_a(16), station.max];
    let last = above.into_iter().find(|limit| far(limit) && *limit <= station.max).unwrap_or(station.min);
    let mut caps = vec![first, station.min, last];
    caps.dedup();
    caps
}
