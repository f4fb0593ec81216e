//! Limits on their way to stations: what is sent when, what the answers mean, and what the next run has to know of it.

use serde::{Deserialize, Serialize};

use super::appetite::Appetite;
use super::io::Output;
use super::tether::{STEP_UP_DELAY_MS, SentLimit};
use super::{Purpose, Site};
use crate::engine::model::alarm::{AlarmKind, Severity};
use crate::engine::model::exchange::{LeasedLimit, StationCall, StationReply};
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{Evse, EvseIndex, LeaseForm};
use crate::engine::ocpp::Priority;
use crate::engine::time::{Mono, Now, Utc};
use crate::engine::units::Current;

/// A raise smaller than this waits for the next renewal.
const RAISE_STEP: Current = Current::from_a(1);

/// A cut smaller than this waits for the next renewal, unless a circuit is full.
const CUT_STEP: Current = Current::from_ma(500);

/// Between two raises of one EVSE. A car needs 5 s to follow the first (IEC 61851-1), and a meter value to show it.
const RAISE_PAUSE_MS: u64 = 5_000;

/// After a refused limit the next try waits so long.
const REFUSED_PAUSE_MS: u64 = 10_000;
/// What is remembered of the limits for the next run.
#[derive(Serialize, Deserialize)]
struct Remembered {
    station: String,
    evse: u32,
    limit: Current,
    steps_at: Utc,
    /// Whether the clock behind that time could be trusted.
    #[serde(default)]
    trusted: bool,
}

impl Site {
    /// What is to be sent to an EVSE now, if anything.
    pub(super) fn to_send(&self, evse: EvseIndex, full: bool, now: Mono) -> Option<(Current, Priority)> {
        let control = &self.evses[evse.0];
        let state = &self.stations[self.setup.topology.evse(evse).station.0];
        let refused = control.tether.refused_at().is_some_and(|at| now.since(at) < REFUSED_PAUSE_MS);
        if state.session.is_none() || control.tether.pending().is_some() || refused {
            return None;
        }
        let renew_ms = self.setup.topology.station(self.setup.topology.evse(evse).station).model.renew_ms;
        let last = control.tether.offered();
        if !self.reachable(evse) {
            return self.probe(evse, last, now);
        }
        let minimum = self.setup.topology.station(self.setup.topology.evse(evse).station).min;
        let may = control.tether.committed(true, now);
        let no_raise = |limit: Current| if limit.min(may) < minimum { Current::ZERO } else { limit.min(may) };
        let wanted = match self.plan.offers[evse.0].limit {
            // What refuses everything is tried with the least that every station knows.
            _ if control.tether.refused_at().is_some() => no_raise(minimum),
            // What does not keep its limit is told the same again, or to stop where nobody wants to charge. Its samples may also come from a
            // queue, and its lease may be over since: the same would be a raise then.
            _ if control.conduct.is_above() => match self.plan_state.evses[evse.0].demand {
                Current::ZERO => Current::ZERO,
                _ => no_raise(last.map_or(minimum, |last| last.limit)),
            },
            Current::ZERO if control.tether.refuses_pause() => minimum,
            limit => limit,
        };
        let Some(last) = last.filter(|_| !control.tether.needs_limit()) else {
            return Some((wanted, Priority::Urgent));
        };
        let cut = wanted < last.limit && (full || last.limit - wanted >= CUT_STEP || wanted == Current::ZERO);
        if cut {
            return Some((wanted, Priority::Urgent));
        }
        let rested = control.raised_at.is_none_or(|at| now.since(at) >= RAISE_PAUSE_MS) || last.limit == Current::ZERO;
        let wanted = if wanted > last.limit { self.paced(evse, wanted).max(last.limit) } else { wanted };
        let raise = wanted > last.limit && rested && (wanted - last.limit >= RAISE_STEP || last.limit == Current::ZERO);
        let due = now.since(last.sent_at) >= renew_ms;
        // Above its limit: told again at once.
        let told_again = control.conduct.is_above() && now.since(last.sent_at) >= REFUSED_PAUSE_MS;
        (raise || due || told_again).then_some((wanted, Priority::Normal))
    }

    /// What an EVSE is sent whose station did not answer the last call: no more than it has, now and then; and the least at once where a
    /// circuit above it is too full, since it may obey all the same.
    fn probe(&self, evse: EvseIndex, last: Option<SentLimit>, now: Mono) -> Option<(Current, Priority)> {
        let Evse { station, circuit, .. } = self.setup.topology.evse(evse);
        let settings = self.setup.topology.station(station);
        let has = last.map_or(Current::ZERO, |last| last.limit);
        let least = if self.evses[evse.0].tether.refuses_pause() { settings.min } else { Current::ZERO };
        let too_full = |circuit| {
            let room = self.room(circuit);
            room.is_some_and(|room| settings.wiring.phases().iter().any(|phase| room.of(phase) < Current::ZERO))
        };
        let wanted = match has {
            has if has < settings.min => Current::ZERO,
            _ if self.setup.topology.path_to_grid(circuit).any(too_full) => least,
            has => has,
        };
        if wanted < has {
            return Some((wanted, Priority::Urgent));
        }
        let due = last.is_none_or(|last| now.since(last.sent_at) >= settings.model.renew_ms);
        due.then_some((wanted, Priority::Normal))
    }

    pub(super) fn send_limit(
        &mut self,
        evse: EvseIndex,
        limit: Current,
        priority: Priority,
        (now, out): (Now, &mut Vec<Output>),
    ) {
        let Evse { station, number, .. } = self.setup.topology.evse(evse);
        let settings = self.setup.topology.station(station);
        let minimum = settings.min;
        let station_time = self.station_time(station, now);
        assert!(limit == Current::ZERO || limit >= minimum, "an offer between zero and the minimum must not leave");
        #[cfg(feature = "sabotage")]
        let is_lasting = self.breaks(super::sabotage::Sabotage::NoLease);
        #[cfg(not(feature = "sabotage"))]
        let is_lasting = false;
        let control = &mut self.evses[evse.0];
        let lasts_ms = if is_lasting { 86_400_000 } else { control.tether.lasts_ms(limit) };
        let lease = LeasedLimit {
            evse: number,
            limit,
            fallback: settings.fallback,
            now: station_time,
            lasts_ms,
            stack_level: settings.model.stack_level,
            phases: settings.wiring.phases().len(),
        };
        let before = control.tether.offered().map(|last| last.limit);
        if before.is_none_or(|before| limit > before) {
            control.raised_at = Some(now.mono);
        }
        if before != Some(limit) {
            control.moved_at = Some(now.mono);
        }
        match (limit >= minimum, control.served_since) {
            (true, None) => control.served_since = Some(now.mono),
            (false, Some(_)) => {
                control.served_since = None;
                control.appetite = Appetite::default();
                // Its turn is over: it waits behind those who wait already.
                control.wants_since = control.wants_since.map(|_| now.mono);
            }
            (true, Some(_)) | (false, None) => {}
        }
        control.tether.sent(limit, now.mono);
        if before.is_some_and(|before| limit > before) {
            self.raised(evse, limit, now.mono);
        }
        self.call(station, StationCall::SetLimit(lease), (priority, Purpose::Limit(evse)), now, out);
    }

    pub(super) fn limit_answered(&mut self, evse: EvseIndex, reply: StationReply, now: Now, out: &mut Vec<Output>) {
        let Evse { station, number, .. } = self.setup.topology.evse(evse);
        let charger = self.station_id(station).clone();
        let subject = format!("{charger}/{number}");
        self.dirty = true;
        let refusal = match reply {
            StationReply::Accepted { .. } => {
                let control = &mut self.evses[evse.0];
                if control.tether.pending().is_some_and(|sent| control.moved_at == Some(sent.sent_at)) {
                    control.moved_at = Some(now.mono);
                }
                control.tether.accepted(now.mono);
                self.remember_fallback(evse, now, out);
                if self.evses[evse.0].tether.refused_limit().is_none() {
                    self.clear(AlarmKind::LimitRefused, &subject, now, out);
                }
                return;
            }
            StationReply::Timeout | StationReply::Disconnected => return self.evses[evse.0].tether.unanswered(),
            StationReply::Refused { status, .. } => {
                self.evses[evse.0].tether.refused(now.mono);
                status
            }
            StationReply::Error { code, description } => {
                self.evses[evse.0].tether.failed(now.mono);
                format!("{code} {description}")
            }
        };
        self.raise(
            (AlarmKind::LimitRefused, &subject, Severity::Error),
            format!("{charger} connector {number} refuses its limit: {}.", refusal.trim()),
            "It counts at what it last accepted, or at its maximum. Check that smart charging is enabled in the station, and choose its `model` in site.toml.",
            (now, out),
        );
    }

    /// Notes to which fallback a station falls, if it has a lease and that is new.
    fn remember_fallback(&mut self, index: EvseIndex, now: Now, out: &mut Vec<Output>) {
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let settings = self.setup.topology.station(station);
        let (charger, fallback) = (settings.id.clone(), settings.fallback);
        let known = self.ledger.station(&charger).and_then(|facts| facts.tamed.get(&number)).copied();
        if settings.model.lease != LeaseForm::None && known != Some(fallback) {
            self.record(RecordBody::ChargerTamed { charger, evse: number, fallback }, now, out);
        }
    }

    /// Hands what may be in force at the stations to the next run.
    pub(super) fn remember_offers(&self, now: Now, out: &mut Vec<Output>) {
        let mut remembered = Vec::new();
        for (control, evse) in self.evses.iter().zip(self.setup.topology.evses()) {
            for sent in control.tether.candidates() {
                let left_ms = i64::try_from(sent.steps_at.since(now.mono)).unwrap_or(i64::MAX);
                remembered.push(Remembered {
                    station: self.station_id(evse.station).to_string(),
                    evse: evse.number,
                    limit: sent.limit,
                    steps_at: now.utc.plus_ms(left_ms),
                    trusted: now.utc_trusted,
                });
            }
        }
        if let Ok(bytes) = serde_json::to_vec(&remembered) {
            out.push(Output::Remember(bytes));
        }
    }

    /// Takes over what the last run remembered. The clock may have been set since: a lease lasts no longer than it can, and
    /// one of which the end is not certain counts as the worse of both its values.
    pub(super) fn restore_offers(&mut self, bytes: &[u8], now: Now) {
        let Ok(remembered) = serde_json::from_slice::<Vec<Remembered>>(bytes) else { return };
        for (control, evse) in self.evses.iter_mut().zip(self.setup.topology.evses()) {
            let station = self.setup.topology.station(evse.station);
            let longest = station.model.lease_ms + STEP_UP_DELAY_MS;
            let limits = remembered
                .iter()
                .filter(|entry| entry.station == station.id.as_str() && entry.evse == evse.number)
                .map(|entry| {
                    let left_ms = u64::try_from(entry.steps_at.since(now.utc)).unwrap_or(0).min(longest);
                    let certain = now.utc_trusted
                        && entry.trusted
                        && entry.steps_at.since(now.utc) <= i64::try_from(longest).unwrap_or(i64::MAX);
                    let (limit, left_ms) =
                        if certain { (entry.limit, left_ms) } else { (entry.limit.max(station.fallback), longest) };
                    SentLimit { limit, sent_at: now.mono, steps_at: now.mono.plus_ms(left_ms) }
                })
                .collect();
            control.tether.restore(limits);
        }
    }
}
