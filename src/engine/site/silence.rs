//! The part of a commissioning test in which a station is left in silence on purpose, until its lease is over.
//!
//! Nobody knows yet what it will do then. So it counts at its maximum where that fits beside the others, who are lowered for it and keep
//! their minimums. Where it does not fit, it counts by what it was told, like any station that cannot be reached: that takes a lease that is
//! trusted anyway. Its meter values are watched all the while: at the first that is above its limit the silence ends.
//!
//! A lease that rests on the connection (`max-offline-duration`) does not run out in silence. There the connection is closed and the station is
//! turned away until the lease must be over. What it does meanwhile nobody sees; what ended offline does not come back, so that its first meter
//! values after that, before it is told anything, show whether it fell.

use super::commission::{ACCEPT_MS, CHARGES, Commissioning, FALLS_BACK, Phase, TOLERANCE, VISIBLE};
use super::io::Output;
use super::tether::STEP_MARGIN_MS;
use super::{Site, log};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::commission::{Fall, StepOutcome};
use crate::engine::model::topology::{CircuitIndex, EvseIndex, LeaseForm, StationIndex};
use crate::engine::site::io::LogLevel;
use crate::engine::time::{Mono, Now};
use crate::engine::units::{Current, PerPhase};

/// A plan that counts the station at its maximum has to be made, and its cuts have to leave.
const PLAN_MS: u64 = 2_000;

/// How long a station may take to connect again when it is not turned away any more, in ms: stations wait longer after each try.
const RECONNECT_MS: u64 = 300_000;

/// Nobody waits longer than this for a lease to end: a limit below the fallback outlasts all others of the site.
const LONGEST_MS: u64 = 900_000;

impl Site {
    /// Decides how the station counts while it is left in silence, and lets others make room for that.
    pub(super) fn prepare_silence(&mut self, test: &Commissioning, now: Now) {
        let trusted = self.evses[test.evse.0].tether.holds();
        let at_maximum = self.has_room_for_maximum(test.station, trusted);
        if !at_maximum && !trusted {
            let max = self.setup.topology.station(test.station).max;
            let text = format!(
                "nothing says yet that it falls back, and its maximum of {max} does not fit beside the others: repeat the test when fewer cars charge"
            );
            self.note(FALLS_BACK, StepOutcome::NotMeasured, text, now);
            return self.restore(now);
        }
        self.make_room(at_maximum, now);
    }

    fn make_room(&mut self, at_maximum: bool, now: Now) {
        self.suspect_tested(at_maximum);
        if let Some(test) = &mut self.commissioning {
            test.at_maximum = at_maximum;
        }
        self.enter(Phase::Room, "making room beside the other chargers", now);
    }

    /// Whether the maximum of a station fits while the others keep their minimums; or, where it has to, while they are paused.
    fn has_room_for_maximum(&self, station: StationIndex, keep_others: bool) -> bool {
        let settings = self.setup.topology.station(station);
        let of_station = |index: usize| self.setup.topology.evse(EvseIndex(index)).station == station;
        let least = |index: usize| -> PerPhase<Current> {
            let (state, tether) = (&self.plan_state.evses[index], &self.evses[index].tether);
            if of_station(index) {
                return settings.wiring.phases().spread(settings.max);
            }
            if !state.reachable {
                return state.committed;
            }
            let served = tether.offered().is_some_and(|sent| sent.limit >= state.min);
            let kept = tether.refuses_pause() || (keep_others && served);
            state.phases.spread(if kept { state.min } else { Current::ZERO })
        };
        self.fits_above(station, &least)
    }

    /// Whether the circuits above a station bear what the EVSEs draw by `of`, beside the background of the last plan.
    fn fits_above(&self, station: StationIndex, of: &dyn Fn(usize) -> PerPhase<Current>) -> bool {
        let topology = &self.setup.topology;
        let settings = topology.station(station);
        if self.plan_state.evses.len() != self.evses.len() {
            return false;
        }
        let fits = |circuit: CircuitIndex| {
            let state = &self.plan_state.circuits[circuit.0];
            let mut room = state.limit - state.background;
            for index in 0..self.evses.len() {
                let evse = topology.evse(EvseIndex(index));
                if topology.path_to_grid(evse.circuit).any(|above| above == circuit) {
                    room = room - of(index);
                }
            }
            settings.wiring.phases().iter().all(|phase| room.of(phase) >= Current::ZERO)
        };
        topology.path_to_grid(settings.circuit).all(fits)
    }

    /// Whether a circuit above the station would carry too much even when all cuts of others are carried out.
    fn is_crowded(&self, test: &Commissioning) -> bool {
        let fallback = self.setup.topology.station(test.station).fallback;
        let of = |index: usize| -> PerPhase<Current> {
            let state = &self.plan_state.evses[index];
            let most = if self.setup.topology.evse(EvseIndex(index)).station == test.station {
                self.evses[index].tether.offered().map_or(Current::MAX, |sent| sent.limit.max(fallback))
            } else if state.reachable {
                self.plan.offers.get(index).map_or(Current::MAX, |offer| offer.limit)
            } else {
                Current::MAX
            };
            state.committed.map(|committed| committed.min(most))
        };
        !self.fits_above(test.station, &of)
    }

    /// All EVSEs of the station under test count at their maximum, or as usual again.
    pub(super) fn suspect_tested(&mut self, suspect: bool) {
        let Some(station) = self.commissioning.as_ref().map(|test| test.station) else { return };
        for evse in self.setup.topology.evses_of(station) {
            self.evses[evse.0].tether.suspect(suspect);
        }
        self.dirty = true;
    }

    pub(super) fn making_room(&mut self, test: &Commissioning, waited_ms: u64, now: Now, out: &mut Vec<Output>) {
        if waited_ms <= PLAN_MS {
            return;
        }
        let tether = &self.evses[test.evse.0].tether;
        let (renew_ms, _) = self.commission_terms(test.station);
        let fresh = |sent_at: Mono, steps_at: Mono| now.mono.since(sent_at) < renew_ms && steps_at > now.mono;
        let sent = tether.offered().filter(|sent| fresh(sent.sent_at, sent.steps_at) && tether.pending().is_none());
        let fits = !self.is_too_full_above(test.evse);
        match sent.filter(|_| fits) {
            Some(sent) => {
                if let Some(test) = &mut self.commissioning {
                    (test.held, test.told_at, test.steps_at) = (sent.limit, sent.sent_at, sent.steps_at);
                }
                self.begin_silence(now, out);
            }
            None if waited_ms <= ACCEPT_MS => {}
            None if test.at_maximum && tether.holds() => self.make_room(false, now),
            None => {
                let text = "the circuits above it are full; repeat the test when fewer cars charge".to_owned();
                self.note(FALLS_BACK, StepOutcome::NotMeasured, text, now);
                self.restore(now);
            }
        }
    }

    /// Begins the silence, unless it is plain that nothing would be seen in it.
    fn begin_silence(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(test) = self.commissioning.clone() else { return };
        let fallback = self.setup.topology.station(test.station).fallback;
        let before = self.evses[test.evse.0].measured.as_ref().map(|sample| sample.for_display().current.max());
        let visible = test.held.ma().abs_diff(fallback.ma()) >= VISIBLE.ma().unsigned_abs();
        let left_s = test.steps_at.since(now.mono) / 1_000;
        let why = match before {
            _ if !self.is_charging(test.evse) => Some(self.why_not_measured(test.evse)),
            _ if !visible => Some(format!(
                "the {} that the site has for it are too near to the fallback of {fallback}; repeat the test when there is more room",
                test.held
            )),
            _ if left_s > LONGEST_MS / 1_000 => {
                Some(format!("its lease would be over only in {} min; nobody waits for that", left_s / 60))
            }
            None => Some(self.why_not_measured(test.evse)),
            Some(drawn) if test.held > fallback && drawn <= fallback + TOLERANCE => Some(format!(
                "the car draws {drawn}, too little for a fall to {fallback} to be seen; repeat the test with a car that takes at least {}",
                fallback + VISIBLE
            )),
            Some(_) => None,
        };
        if let Some(why) = why {
            self.note(FALLS_BACK, StepOutcome::NotMeasured, why, now);
            return self.restore(now);
        }
        if self.rests_on_connection(&test) {
            return self.keep_out(&test, now, out);
        }
        let rises = if test.held > fallback { "falls" } else { "rises" };
        let doing =
            format!("silent on purpose: nothing is sent, until the current {rises} to {fallback} in about {left_s} s");
        self.enter(Phase::Silent, &doing, now);
    }

    /// Whether the lease under test ends because the station is offline.
    fn rests_on_connection(&self, test: &Commissioning) -> bool {
        self.evses[test.evse.0].tether.form() == LeaseForm::MaxOfflineDuration
    }

    /// Whether the station under test is offline on purpose.
    pub(super) fn is_kept_out(&self, test: &Commissioning) -> bool {
        test.phase == Phase::Silent && self.rests_on_connection(test)
    }

    /// Closes the connection, and lets nobody in before the lease must be over.
    fn keep_out(&mut self, test: &Commissioning, now: Now, out: &mut Vec<Output>) {
        let lasts_ms = test.steps_at.since(test.told_at);
        if let Some(test) = &mut self.commissioning {
            (test.told_at, test.steps_at) = (now.mono, now.mono.plus_ms(lasts_ms));
        }
        let station = test.station;
        out.push(Output::TurnAway { station, for_ms: lasts_ms + STEP_MARGIN_MS });
        if let Some((connection, _)) = &self.stations[station.0].session {
            let reason = "its lease is being tested; connect again until it works".to_owned();
            out.push(Output::Close { station, connection: *connection, reason });
        }
        let doing = format!(
            "kept offline on purpose for {} s; its first meter values after that show what it has become",
            (lasts_ms + STEP_MARGIN_MS) / 1_000
        );
        self.enter(Phase::Silent, &doing, now);
    }

    pub(super) fn silent(&mut self, test: &Commissioning, now: Now, out: &mut Vec<Output>) {
        let settings = self.setup.topology.station(test.station);
        let (fallback, model) = (settings.fallback, &settings.model);
        let over_ms = STEP_MARGIN_MS + model.reaction_ms + 3 * model.meter_interval_ms;
        let away_ms = if self.rests_on_connection(test) { RECONNECT_MS } else { 0 };
        let late = now.mono > test.steps_at.plus_ms(over_ms + away_ms);
        let after_s = |at: Mono| at.since(test.told_at) / 1_000;
        let charging = self.is_charging(test.evse);
        if self.is_crowded(test) {
            let text = "another load needs the current: the silence was ended early; repeat the test";
            self.note(FALLS_BACK, StepOutcome::NotMeasured, text.to_owned(), now);
            return self.restore(now);
        }
        let Some((at, drawn)) = self.sample_after(test.evse, test.since) else {
            if late || !charging {
                self.note(FALLS_BACK, StepOutcome::NotMeasured, self.why_not_measured(test.evse), now);
                self.restore(now);
            }
            return;
        };
        let most = test.held.max(fallback);
        if drawn > most + TOLERANCE {
            let text = format!(
                "rose to {drawn} {} s after the last message, where {most} are the most: nothing limits it when the lease is over",
                after_s(at)
            );
            return self.fails_silence(text, now, out);
        }
        let falls = test.held > fallback;
        let stepped = if falls { drawn <= fallback + TOLERANCE } else { drawn > test.held + TOLERANCE };
        if !stepped && !late {
            if let Some(test) = &mut self.commissioning {
                (test.high_at, test.fell_at) = (Some(at), None);
            }
        } else if !stepped {
            let text = format!(
                "still {drawn} {} s after the last message; it should have been {fallback} after {} s",
                after_s(now.mono),
                after_s(test.steps_at)
            );
            self.fails_silence(text, now, out);
        } else if let Some(fell_at) = test.fell_at.filter(|fell_at| *fell_at < at) {
            self.judge_fall(test, (fell_at, drawn), now, out);
        } else if let (Some(test), None) = (&mut self.commissioning, test.fell_at) {
            test.fell_at = Some(at);
        }
    }

    /// Two samples in a row are at the fallback: the first says when, the second what it has become.
    fn judge_fall(&mut self, test: &Commissioning, (fell_at, drawn): (Mono, Current), now: Now, out: &mut Vec<Output>) {
        let fallback = self.setup.topology.station(test.station).fallback;
        let (after_ms, due_ms) = (fell_at.since(test.told_at), test.steps_at.since(test.told_at));
        let (after_s, due_s) = (after_ms / 1_000, due_ms / 1_000);
        let early = fell_at < test.steps_at.minus_ms(STEP_MARGIN_MS);
        let fall = Fall {
            from_a: test.held.as_a(),
            to_a: drawn.as_a(),
            after_s,
            not_before_s: test.high_at.map_or(0, |at| at.since(test.told_at) / 1_000),
            due_s,
            counted_at_maximum: test.at_maximum,
        };
        if let Some(test) = &mut self.commissioning {
            test.report.fall = Some(fall);
        }
        if early && test.held < fallback {
            let text = format!("rises to {drawn} after {after_s} s already, before others have stepped down");
            return self.fails_silence(text, now, out);
        }
        let (outcome, text) = if early {
            let text = format!(
                "{drawn} already {after_s} s after the last message, long before the {due_s} s of its lease: the car took less by itself, or the charger's clock is wrong; repeat the test"
            );
            (StepOutcome::NotMeasured, text)
        } else if drawn < CHARGES && fallback >= CHARGES {
            let text = format!(
                "{drawn} after {after_s} s of silence, not {fallback}: the car has stopped, or the charger pauses; repeat the test with a car that goes on charging"
            );
            (StepOutcome::NotMeasured, text)
        } else {
            let step = if test.held > fallback { "fell" } else { "rose" };
            let text = format!(
                "{step} from {} to {drawn} by itself, {after_s} s after the last message (due: {fallback} after {due_s} s)",
                test.held
            );
            (StepOutcome::Passed, text)
        };
        self.note(FALLS_BACK, outcome, text, now);
        if outcome == StepOutcome::Passed {
            self.lease_proven(test.station, now, out);
        }
        self.restore(now);
    }

    fn fails_silence(&mut self, text: String, now: Now, out: &mut Vec<Output>) {
        self.note(FALLS_BACK, StepOutcome::Failed, text, now);
        if let Some(station) = self.commissioning.as_ref().map(|test| test.station) {
            let charger = self.station_id(station).clone();
            log(out, LogLevel::Warn, format!("{charger} does not fall back by itself"));
            self.trust_lease(station, false);
            self.raise(
                (AlarmKind::LeaseNotProven, charger.as_str(), Severity::Error),
                format!("{charger} did not fall to its fallback by itself when it was commissioned."),
                "It counts at its maximum whenever it is silent. Try another `lease` in its model, or the model no-lease, and commission it again.",
                (now, out),
            );
        }
        self.restore(now);
    }
}
