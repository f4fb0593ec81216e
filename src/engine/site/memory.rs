//! What the next run is handed of the limits that may be in force at the stations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::Site;
use super::tether::{SentLimit, Tether};
use super::writes::RememberedWrites;
use crate::engine::model::topology::{Evse, EvseIndex};
use crate::engine::time::{Now, Utc};
use crate::engine::units::Current;

/// A time that was written down may be off by so much: far less than the margin of a step.
const WRITTEN_DRIFT_MS: u64 = 500;

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
    /// The station has booted, or its clock was set, and it has accepted no limit since: it may have lost this one.
    #[serde(default)]
    booted: bool,
    /// Whether it was over was not known to this run either: the least that it may allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maybe: Option<Current>,
}

/// What the next run is handed of an EVSE, as it was written down last.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// What may be in force there.
    of: Vec<SentLimit>,
    booted: bool,
    /// The time less the monotonic clock in ms, and whether it could be trusted.
    clock: (i64, bool),
    limits: Vec<Box<RawValue>>,
}

impl Written {
    /// Whether it says that these limits may be in force, by this clock or one that differs by no more than the clock of a gateway drifts.
    fn says(&self, tether: &Tether, (clock, trusted): (i64, bool)) -> bool {
        let (written, was_trusted) = self.clock;
        let same_clock = written.abs_diff(clock) <= WRITTEN_DRIFT_MS && was_trusted == trusted;
        same_clock && self.booted == tether.has_booted() && tether.candidates().eq(self.of.iter().copied())
    }
}

/// What the next run is handed: each limit as it is read, and as JSON where it is written.
#[derive(Serialize, Deserialize)]
struct Memory<L> {
    limits: Vec<L>,
    /// The profiles that stations with a budget were sent.
    #[serde(default)]
    writes: BTreeMap<String, RememberedWrites>,
    /// When this was written.
    #[serde(default)]
    at: Utc,
}

/// What is read of it. A run before this one remembered the limits alone.
fn read_memory(bytes: &[u8]) -> Option<Memory<Remembered>> {
    let limits_alone = |limits| Memory { limits, writes: BTreeMap::new(), at: Utc::default() };
    serde_json::from_slice(bytes).ok().or_else(|| serde_json::from_slice(bytes).ok().map(limits_alone))
}

impl Site {
    /// What may be in force at the stations, for the next run, if it has changed since this was asked last.
    #[must_use]
    pub fn take_memory(&mut self, now: Now) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.memory_due) {
            return None;
        }
        for index in 0..self.evses.len() {
            self.write_down(EvseIndex(index), now);
        }
        let limits =
            self.evses.iter().flat_map(|control| control.written.limits.iter().map(|limit| &**limit)).collect();
        let budgeted = self.setup.topology.stations().iter().zip(&self.stations);
        let budgeted = budgeted.filter(|(station, _)| station.model.writes_per_day.is_some());
        let writes =
            budgeted.map(|(station, state)| (station.id.to_string(), state.writes.remember(now.mono))).collect();
        serde_json::to_vec(&Memory::<&RawValue> { limits, writes, at: now.utc }).ok()
    }

    /// Writes down what may be in force at an EVSE, unless it says that already: it is handed on far more often than it changes.
    fn write_down(&mut self, evse: EvseIndex, now: Now) {
        let Evse { station, number, .. } = self.setup.topology.evse(evse);
        let control = &mut self.evses[evse.0];
        let clock =
            (now.utc.unix_ms().saturating_sub(i64::try_from(now.mono.ms()).unwrap_or(i64::MAX)), now.utc_trusted);
        if control.written.says(&control.tether, clock) {
            return;
        }
        let id = &self.setup.topology.station(station).id;
        let booted = control.tether.has_booted();
        let in_words = |sent: SentLimit| {
            let left_ms = i64::try_from(sent.steps_at.since(now.mono)).unwrap_or(i64::MAX);
            let steps_at = now.utc.plus_ms(left_ms);
            Remembered {
                station: id.to_string(),
                evse: number,
                limit: sent.limit,
                steps_at,
                trusted: now.utc_trusted,
                booted,
                maybe: sent.maybe,
            }
        };
        let of: Vec<SentLimit> = control.tether.candidates().collect();
        let limits = of.iter().filter_map(|sent| to_raw_value(&in_words(*sent)).ok()).collect();
        control.written = Written { of, booted, clock, limits };
    }

    /// Takes over what the last run remembered. The clock may have been set since: a lease lasts no longer than it can, and
    /// one of which the end is not certain counts as the worse of both its values.
    pub(super) fn restore_offers(&mut self, bytes: &[u8], now: Now) {
        let Some(memory) = read_memory(bytes) else { return };
        let away_ms = u64::try_from(now.utc.since(memory.at)).unwrap_or(0);
        for (state, station) in self.stations.iter_mut().zip(self.setup.topology.stations()) {
            if let Some(writes) = memory.writes.get(station.id.as_str()) {
                state.writes.restore(writes, away_ms, now.mono);
            }
        }
        for (control, evse) in self.evses.iter_mut().zip(self.setup.topology.evses()) {
            let station = self.setup.topology.station(evse.station);
            let longest = control.tether.longest_ms();
            let entries = memory.limits.iter();
            let entries = entries.filter(|entry| entry.station == station.id.as_str() && entry.evse == evse.number);
            let booted = entries.clone().any(|entry| entry.booted);
            let limits = entries
                .map(|entry| {
                    let left_ms = u64::try_from(entry.steps_at.since(now.utc)).unwrap_or(0).min(longest);
                    let certain = now.utc_trusted
                        && entry.trusted
                        && entry.steps_at.since(now.utc) <= i64::try_from(longest).unwrap_or(i64::MAX);
                    if certain {
                        return SentLimit { maybe: entry.maybe, ..SentLimit::lasting(entry.limit, now.mono, left_ms) };
                    }
                    let least = entry.maybe.unwrap_or(entry.limit).min(station.fallback);
                    let most = entry.limit.max(station.fallback);
                    SentLimit { maybe: Some(least), ..SentLimit::lasting(most, now.mono, longest) }
                })
                .collect();
            control.tether.restore(limits, booted);
        }
    }
}
