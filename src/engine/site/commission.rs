//! The commissioning test: a station is lowered, read back, measured, and left in silence on purpose until its lease is over.
//!
//! Nothing of the safety is switched off for it. The test only lowers, within what the plan gives. Meanwhile its EVSE goes first, so that the
//! plan makes room for the limits of the test by lowering others. What counts while it is left in silence stands in [`super::silence`].

use super::io::{LogLevel, Output};
use super::proof::Said;
use super::{Purpose, Site, log};
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::commission::{CommissionReport, CommissionStep, StepOutcome, Verdict};
use crate::engine::model::exchange::{OcppVersion, StationReply};
use crate::engine::model::ids::StationId;
use crate::engine::model::topology::{EvseIndex, LeaseForm, Station, StationIndex};
use crate::engine::plan::EvseState;
use crate::engine::time::{Mono, Now};
use crate::engine::units::Current;

/// The longest lease of limits during the test, in ms: nobody waits for hours.
const LEASE_MS: u64 = 120_000;

/// How often limits are renewed meanwhile at least.
const RENEW_MS: u64 = 30_000;

/// How long somebody may take to plug a car in.
const CAR_WAIT_MS: u64 = 300_000;

/// So often a test goes on with another car where one has left.
const CARS: u8 = 4;

/// How long a station may take to accept a limit, in ms: a time-out of a call, and another try; and others to make room for it.
pub(super) const ACCEPT_MS: u64 = 75_000;

/// A limit below the one that was aimed at is taken after so long, if it serves the purpose: there is no more.
const SETTLE_MS: u64 = 15_000;

/// The first limit of the test.
const FIRST: Current = Current::from_a(10);

/// A current within this of a limit keeps it: the meter's class and the pilot's tolerance.
pub(super) const TOLERANCE: Current = Current::from_ma(1_500);

/// A limit must differ from the fallback by this for its step to be seen.
pub(super) const VISIBLE: Current = Current::from_a(3);

/// Less than this is no charging car.
pub(super) const CHARGES: Current = Current::from_a(1);

/// The EVSE under test goes before everybody, a boost included: it takes minutes.
const PRIORITY: i32 = 2_000;

/// The name of the step that matters most.
pub(super) const FALLS_BACK: &str = "falls back by itself";

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for a car.
    Car,
    /// The cap has been lowered; waits until the station has accepted.
    Lowering,
    /// The station was asked for its schedule.
    Reading,
    /// Waits for meter values.
    Measuring,
    /// Others make room for what may be drawn in the silence.
    Room,
    /// Nothing is sent; waits for the fallback.
    Silent,
    /// The cap is gone; waits until the station has accepted.
    Restoring,
}

/// A test that runs or has run.
#[derive(Clone, Debug)]
pub(super) struct Commissioning {
    pub(super) station: StationIndex,
    pub(super) evse: EvseIndex,
    pub(super) phase: Phase,
    pub(super) since: Mono,
    /// How many cars came.
    cars: u8,
    /// A car charges there, or did until just now.
    has_car: bool,
    /// The limits still to be tried; the last one is held while nothing is sent.
    caps: Vec<Current>,
    cap: Current,
    /// What the station was really given under the cap.
    pub(super) held: Current,
    /// When the held limit was sent.
    pub(super) told_at: Mono,
    /// When the held limit steps to the fallback.
    pub(super) steps_at: Mono,
    /// In the silence it counts at its maximum; otherwise by what it was told, like any station that cannot be reached.
    pub(super) at_maximum: bool,
    /// The last sample in the silence that was not at the fallback.
    pub(super) high_at: Option<Mono>,
    /// The first sample in the silence that was.
    pub(super) fell_at: Option<Mono>,
    /// A limit was seen not to be kept.
    disobeys: bool,
    pub(super) running: bool,
    pub(super) report: CommissionReport,
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
        let Some(evse) = self.setup.topology.evses_of(station).next() else { return CommandOutcome::NotConnected };
        let mut caps = caps(self.setup.topology.station(station));
        let cap = caps.remove(0);
        log(out, LogLevel::Info, format!("{charger} is being commissioned"));
        self.commissioning = Some(Commissioning {
            station,
            evse,
            phase: Phase::Car,
            since: now.mono,
            cars: 0,
            has_car: false,
            caps,
            cap,
            held: Current::ZERO,
            told_at: now.mono,
            steps_at: now.mono,
            at_maximum: false,
            high_at: None,
            fell_at: None,
            disobeys: false,
            running: true,
            report: self.first_report(station, evse, version, now),
        });
        self.awaiting_car(now);
        CommandOutcome::Accepted { data: None }
    }

    /// Ends the test of a station before its time: it gets its usual limit again.
    pub(super) fn stop_commissioning(&mut self, charger: &StationId, now: Now) -> CommandOutcome {
        let Some(test) = self.commissioning.as_ref().filter(|test| test.report.charger == charger.as_str()) else {
            return CommandOutcome::Rejected { error: format!("{charger} is not being commissioned") };
        };
        if test.running && test.phase != Phase::Restoring {
            let text = "the test was stopped by hand before its end".to_owned();
            self.note("stopped", StepOutcome::NotMeasured, text, now);
            self.restore(now);
        }
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
            lease_s: self.commission_terms(station).1 / 1_000,
            fallback_a: settings.fallback.as_a(),
            min_a: settings.min.as_a(),
            max_a: settings.max.as_a(),
            began: now.utc,
            ended: now.utc,
            clock_trusted: now.utc_trusted,
            ..CommissionReport::default()
        }
    }

    /// The test of a station that runs or was the last one; `None` if it was never tested in this run.
    #[must_use]
    pub fn commission_report(&self, charger: &StationId) -> Option<CommissionReport> {
        let commissioning = self.commissioning.as_ref()?;
        (commissioning.report.charger == charger.as_str()).then(|| commissioning.report.clone())
    }

    /// The test of a station that runs.
    pub(super) fn test_of(&self, station: StationIndex) -> Option<&Commissioning> {
        self.commissioning.as_ref().filter(|test| test.running && test.station == station)
    }

    /// The most that an EVSE is given while it is tested.
    pub(super) fn commission_cap(&self, evse: EvseIndex) -> Current {
        let test = self.commissioning.as_ref().filter(|test| test.running && test.evse == evse);
        test.map_or(Current::MAX, |test| match test.phase {
            Phase::Car | Phase::Restoring => Current::MAX,
            Phase::Lowering | Phase::Reading | Phase::Measuring => test.cap,
            Phase::Room | Phase::Silent => test.held,
        })
    }

    /// What the planner is told of an EVSE whose station is being tested. It goes first and wants what the test tries; while its limit is to
    /// stay as it is, nobody may count on a cut there.
    pub(super) fn under_test(&self, evse: EvseIndex, state: EvseState) -> EvseState {
        let Some(test) = self.test_of(self.setup.topology.evse(evse).station) else { return state };
        match test.phase {
            Phase::Car | Phase::Restoring => state,
            Phase::Silent => EvseState { reachable: false, ..state },
            Phase::Room if test.at_maximum => EvseState { reachable: false, ..state },
            Phase::Lowering | Phase::Reading | Phase::Measuring | Phase::Room if test.evse == evse => {
                let demand = state.demand.min(test.cap.max(state.min));
                let min = self.floor(test).max(state.min).min(demand.max(state.min));
                EvseState { demand, demand_is_maximum: false, min, priority: PRIORITY, ..state }
            }
            Phase::Lowering | Phase::Reading | Phase::Measuring | Phase::Room => state,
        }
    }

    /// The least limit that serves the purpose of the present step: the last one must differ from the fallback.
    fn floor(&self, test: &Commissioning) -> Current {
        let settings = self.setup.topology.station(test.station);
        let fall = test.caps.is_empty() && test.cap >= settings.fallback + VISIBLE;
        if fall { settings.fallback + VISIBLE } else { settings.min.min(test.cap) }
    }

    /// Whether nothing is sent to a station.
    pub(super) fn is_silenced(&self, station: StationIndex) -> bool {
        self.test_of(station).is_some_and(|test| test.phase == Phase::Silent)
    }

    /// Whether a station is being tested.
    pub(super) fn is_commissioned(&self, station: StationIndex) -> bool {
        self.test_of(station).is_some()
    }

    /// Whether the limits of a station have the short leases of the test.
    pub(super) fn has_test_leases(&self, station: StationIndex) -> bool {
        self.test_of(station).is_some_and(|test| test.phase != Phase::Restoring)
    }

    /// The terms of a lease during the test: how often it is renewed and how long it lasts, in ms.
    pub(super) fn commission_terms(&self, station: StationIndex) -> (u64, u64) {
        let model = &self.setup.topology.station(station).model;
        (model.renew_ms.min(RENEW_MS), model.lease_ms.min(LEASE_MS))
    }

    /// Goes on with the test. Once a second.
    pub(super) fn commission_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(test) = self.commissioning.clone().filter(|test| test.running) else { return };
        self.dirty = true;
        let is_away = self.stations[test.station.0].session.is_none();
        if is_away && !self.is_kept_out(&test) {
            let text = "the charger has lost its connection during the test".to_owned();
            self.note("connection", StepOutcome::Failed, text, now);
            return self.end_test(now, out);
        }
        let waited_ms = now.mono.since(test.since);
        if !is_away
            && test.has_car
            && test.cars < CARS
            && test.phase != Phase::Restoring
            && !self.is_charging(test.evse)
        {
            // What the next one is told begins with the present limit again.
            self.suspect_tested(false);
            if let Some(test) = &mut self.commissioning {
                test.has_car = false;
            }
            self.enter(Phase::Car, "the car has left", now);
            return self.awaiting_car(now);
        }
        match test.phase {
            Phase::Car => self.awaiting_car(now),
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

    /// Without a car no current can be measured: somebody has to plug one in. Where one charges is tested.
    fn awaiting_car(&mut self, now: Now) {
        let Some(test) = &self.commissioning else { return };
        let (station, waited_ms) = (test.station, now.mono.since(test.since));
        let charging = self.setup.topology.evses_of(station).find(|evse| self.is_charging(*evse));
        if charging.is_none() && waited_ms < CAR_WAIT_MS {
            let needed = self.setup.topology.station(station).fallback + VISIBLE;
            let doing = format!(
                "no car charges here: plug one in that takes at least {} and start it as a driver would; the test then goes on by itself (it waits for {} min)",
                needed.max(FIRST),
                CAR_WAIT_MS / 60_000
            );
            return self.say_doing(&doing);
        }
        if let (Some(test), Some(evse)) = (&mut self.commissioning, charging) {
            test.evse = evse;
            test.has_car = true;
            test.cars += 1;
            test.report.evse = self.setup.topology.evse(evse).number;
        }
        self.enter(Phase::Lowering, "lowering the limit", now);
    }

    fn lowering(&mut self, test: &Commissioning, waited_ms: u64, now: Now, out: &mut Vec<Output>) {
        let tether = &self.evses[test.evse.0].tether;
        let floor = if self.is_charging(test.evse) { self.floor(test) } else { Current::ZERO };
        let near = Current::from_ma(test.cap.ma() - Current::from_a(1).ma());
        let within = |limit: Current| limit <= test.cap && limit >= floor && (limit > near || waited_ms > SETTLE_MS);
        let told = tether.offered().filter(|sent| within(sent.limit));
        let told = told.filter(|sent| sent.sent_at >= test.since || waited_ms > 3_000);
        let at_rest = tether.pending().is_none() && tether.refused_at().is_none() && !tether.needs_limit();
        let refused = tether.refused_at().is_some() || tether.pending().is_some();
        match told.filter(|_| at_rest) {
            Some(sent) => {
                let text = format!("told {}, accepted", sent.limit);
                if let Some(test) = &mut self.commissioning {
                    test.held = sent.limit;
                }
                self.note("limit accepted", StepOutcome::Passed, text, now);
                self.enter(Phase::Reading, "asking for the schedule", now);
                self.ask_schedule(test.evse, Purpose::Commission, now, out);
            }
            None if waited_ms > ACCEPT_MS && refused => {
                let text =
                    format!("a limit of at most {} was not accepted; is smart charging enabled in it?", test.cap);
                self.note("limit accepted", StepOutcome::Failed, text, now);
                self.end_test(now, out);
            }
            None if waited_ms > ACCEPT_MS => {
                let why = self.sentence(test.evse, now);
                let text =
                    format!("the site has no {floor} for it now: {why}; repeat the test when there is more room");
                self.note("limit accepted", StepOutcome::NotMeasured, text, now);
                self.restore(now);
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
            Said::Obeys(present) => (
                StepOutcome::Passed,
                format!("says {present} now; what it does offline is in no schedule, and what is measured decides"),
            ),
            Said::Falls => {
                (StepOutcome::Passed, format!("says {} now, and at most {fallback} when the lease is over", test.held))
            }
            Said::Contradicts(why) => (StepOutcome::Failed, why),
            Said::Nothing(why) => (StepOutcome::NotSupported, format!("{why}; what is measured decides")),
        };
        self.note("schedule read back", outcome, text, now);
        self.enter(Phase::Measuring, "measuring the current", now);
    }

    fn measuring(&mut self, test: &Commissioning, waited_ms: u64, now: Now) {
        let settings = self.setup.topology.station(test.station);
        let model = &settings.model;
        let patience_ms = model.reaction_ms + 3 * model.meter_interval_ms + 10_000;
        let after = test.since.plus_ms(model.reaction_ms);
        let Some(drawn) = self.drawn(test.evse, after) else {
            if waited_ms > patience_ms || !self.is_charging(test.evse) {
                self.note("current follows", StepOutcome::NotMeasured, self.why_not_measured(test.evse), now);
                self.next_cap(test, now);
            }
            return;
        };
        let outcome = if drawn <= test.held + TOLERANCE {
            if drawn < CHARGES && test.held >= settings.min {
                let text = "the car takes no current: is it full, or set to charge later?";
                (StepOutcome::NotMeasured, text.to_owned())
            } else {
                (StepOutcome::Passed, format!("{drawn} are drawn under a limit of {}", test.held))
            }
        } else if waited_ms > patience_ms {
            if let Some(test) = &mut self.commissioning {
                test.disobeys = true;
            }
            (StepOutcome::Failed, format!("{drawn} are drawn where {} are allowed", test.held))
        } else {
            return;
        };
        self.note("current follows", outcome.0, outcome.1, now);
        self.next_cap(test, now);
    }

    pub(super) fn why_not_measured(&self, evse: EvseIndex) -> String {
        if self.is_charging(evse) {
            "the charger sends no fresh meter values with currents (OCPP MeterValues, Current.Import)".to_owned()
        } else {
            "no car charges here; repeat the test with one".to_owned()
        }
    }

    /// Goes on to the next limit, or to the silence.
    fn next_cap(&mut self, test: &Commissioning, now: Now) {
        let disobeys = self.commissioning.as_ref().is_some_and(|test| test.disobeys);
        let no_lease = self.evses[test.evse.0].tether.form() == LeaseForm::None;
        let skip = match (disobeys, test.caps.is_empty() && no_lease) {
            (true, _) => Some("not tried: it does not keep to its limit even while it is told"),
            (false, true) => Some("its model has no lease: it counts at its maximum whenever it is silent"),
            (false, false) => None,
        };
        if let Some(why) = skip {
            self.note(FALLS_BACK, StepOutcome::NotMeasured, why.to_owned(), now);
            return self.restore(now);
        }
        let mut caps = test.caps.clone();
        if caps.is_empty() {
            return self.prepare_silence(test, now);
        }
        let cap = caps.remove(0);
        if let Some(test) = &mut self.commissioning {
            (test.cap, test.caps) = (cap, caps);
        }
        self.enter(Phase::Lowering, "changing the limit", now);
    }

    /// The test lets go of the station.
    pub(super) fn restore(&mut self, now: Now) {
        self.suspect_tested(false);
        self.enter(Phase::Restoring, "giving it its usual limit again", now);
    }

    fn restoring(&mut self, test: &Commissioning, waited_ms: u64, now: Now, out: &mut Vec<Output>) {
        let tether = &self.evses[test.evse.0].tether;
        let renewed = tether.offered().filter(|sent| sent.sent_at >= test.since && tether.pending().is_none());
        // A profile of a transaction is gone with it.
        let gone = tether.form() == LeaseForm::TxProfile && !self.is_charging(test.evse);
        if gone {
            self.end_test(now, out);
        } else if let Some(sent) = renewed {
            let text = format!("told {}, accepted", sent.limit);
            self.note("limit restored", StepOutcome::Passed, text, now);
            self.end_test(now, out);
        } else if waited_ms > ACCEPT_MS {
            self.note("limit restored", StepOutcome::Failed, "no limit was accepted after the test".to_owned(), now);
            self.end_test(now, out);
        }
    }

    /// The current that was measured after `after`, on the phase that carries most.
    pub(super) fn drawn(&self, evse: EvseIndex, after: Mono) -> Option<Current> {
        self.sample_after(evse, after).map(|(_, drawn)| drawn)
    }

    /// The same, with when it came.
    pub(super) fn sample_after(&self, evse: EvseIndex, after: Mono) -> Option<(Mono, Current)> {
        let sample = self.evses[evse.0].measured.as_ref().filter(|sample| sample.at() >= after)?;
        self.is_charging(evse).then(|| (sample.at(), sample.for_display().current.max()))
    }

    pub(super) fn enter(&mut self, phase: Phase, doing: &str, now: Now) {
        if let Some(test) = &mut self.commissioning {
            test.phase = phase;
            test.since = now.mono;
        }
        self.say_doing(doing);
    }

    fn say_doing(&mut self, doing: &str) {
        if let Some(test) = &mut self.commissioning {
            test.report.doing = Some(doing.to_owned());
        }
        self.dirty = true;
    }

    pub(super) fn note(&mut self, name: &str, outcome: StepOutcome, text: String, now: Now) {
        let Some(test) = &self.commissioning else { return };
        let measured_a = self.drawn(test.evse, test.since).map(Current::as_a);
        let (took_s, limit_a) = (now.mono.since(test.since) / 1_000, Some(test.held.as_a()));
        let step = CommissionStep { name: name.to_owned(), outcome, text, at: now.utc, took_s, limit_a, measured_a };
        if let Some(test) = &mut self.commissioning {
            test.report.steps.push(step);
        }
    }

    fn end_test(&mut self, now: Now, out: &mut Vec<Output>) {
        self.suspect_tested(false);
        let Some(test) = &mut self.commissioning else { return };
        test.running = false;
        test.report.doing = None;
        test.report.ended = now.utc;
        let verdict = test.report.judge();
        test.report.verdict = Some(verdict);
        let report = test.report.clone();
        let word = match verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Incomplete => "could not measure everything in",
        };
        log(out, LogLevel::Info, format!("{} has {word} its commissioning", report.charger));
        out.push(Output::Commissioned(Box::new(report)));
    }
}

/// The limits that are tried: 10 A, the minimum, and one that differs from the fallback so that its step can be seen. At least one.
fn caps(station: &Station) -> Vec<Current> {
    let first = FIRST.max(station.min).min(station.max);
    let far = |limit: &Current| *limit >= station.fallback + VISIBLE;
    let above = [first, Current::from_a(13), Current::from_a(16), station.max];
    let last = above.into_iter().find(|limit| far(limit) && *limit <= station.max).unwrap_or(station.min);
    let mut caps = vec![first, station.min, last];
    caps.dedup();
    caps
}
