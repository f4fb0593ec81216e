//! Wishes that are told: by commands, and by cars.

use serde_json::json;

use super::io::{LogLevel, Output};
use super::{Site, log};
use crate::engine::model::command::CommandOutcome;
use crate::engine::model::record::RecordBody;
use crate::engine::model::topology::{Evse, EvseIndex, StationIndex};
use crate::engine::model::wish::{
    Boost, BoostEnd, BoostLength, CarNeeds, MAX_AHEAD_MS, MAX_BOOST_MINUTES, Place, Target, TargetEnd, TargetSource,
    clock_text,
};
use crate::engine::time::{Mono, Now, Utc};
use crate::engine::units::Energy;

impl Site {
    /// `charging.boost`.
    pub(super) fn set_boost(
        &mut self,
        place: &Place,
        length: BoostLength,
        now: Now,
        out: &mut Vec<Output>,
    ) -> CommandOutcome {
        let done = self.place(place).and_then(|index| Ok((index, boost_end(length, now)?)));
        let (index, (until, ends)) = match done {
            Ok(done) => done,
            Err(error) => return CommandOutcome::Rejected { error },
        };
        let transaction = self.open_at(index).map(|open| open.facts.transaction.clone());
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let charger = self.station_id(station).clone();
        let text = clock_text(until, now.utc, self.setup.timezone);
        log(out, LogLevel::Info, format!("{charger} connector {number} goes first until {text}"));
        // A wait after a power cut is for the grid: who is in a hurry does not end it unless the site's owner has said so.
        if self.setup.outside.boost_ends_random_start {
            self.start_now(station);
        }
        let starts_in_s = self.waits_until(station, now.mono).map(|until| until.since(now.mono) / 1_000);
        let data = json!({
            "charger": charger, "connector": number, "transaction_id": transaction, "until": until,
            "starts_in_s": starts_in_s,
        });
        let boost = Boost { transaction, until, ends, boot: self.boot, trusted: now.utc_trusted };
        self.record(RecordBody::BoostSet { charger, evse: number, boost }, now, out);
        self.refresh_wishes();
        self.evses[index.0].appetite.end_rest();
        self.dirty = true;
        CommandOutcome::Accepted { data: Some(data.to_string()) }
    }

    /// `charging.boost.clear`. What is not there need not be taken back.
    pub(super) fn clear_boost(&mut self, place: &Place, now: Now, out: &mut Vec<Output>) -> CommandOutcome {
        let index = match self.place(place) {
            Ok(index) => index,
            Err(error) => return CommandOutcome::Rejected { error },
        };
        let Evse { station, number, .. } = self.setup.topology.evse(index);
        let charger = self.station_id(station).clone();
        if self.ledger.station(&charger).is_some_and(|facts| facts.boosts.contains_key(&number)) {
            log(out, LogLevel::Info, format!("{charger} connector {number} goes first no longer"));
            self.record(RecordBody::BoostEnded { charger, evse: number, cause: BoostEnd::Cleared }, now, out);
            self.refresh_wishes();
            self.dirty = true;
        }
        CommandOutcome::Accepted { data: None }
    }

    /// `charging.target`.
    pub(super) fn set_target(
        &mut self,
        place: &Place,
        (energy, departure): (Energy, Utc),
        now: Now,
        out: &mut Vec<Output>,
    ) -> CommandOutcome {
        let found = self.place(place).and_then(|index| {
            check_departure(departure, now)?;
            match self.open_at(index) {
                Some(open) => Ok((index, open.facts.transaction.clone())),
                None => Err("no transaction is running there; a target belongs to one".to_owned()),
            }
        });
        let (index, transaction) = match found {
            Ok(found) => found,
            Err(error) => return CommandOutcome::Rejected { error },
        };
        self.set_target_of(index, Target { energy, departure, source: TargetSource::Command }, now, out);
        let data = json!({
            "transaction_id": transaction, "energy_wh": energy, "departure": departure,
            "missing_wh": self.course(index).map(|course| course.missing),
        });
        CommandOutcome::Accepted { data: Some(data.to_string()) }
    }

    /// `charging.target.clear`: also the target of the token or the car, for this transaction.
    pub(super) fn clear_target(&mut self, place: &Place, now: Now, out: &mut Vec<Output>) -> CommandOutcome {
        match self.place(place) {
            Ok(index) => {
                self.end_target(index, TargetEnd::Cleared, (now, out));
                CommandOutcome::Accepted { data: None }
            }
            Err(error) => CommandOutcome::Rejected { error },
        }
    }

    /// What a car needs. Says whether it can be used.
    pub(super) fn car_needs(
        &mut self,
        station: StationIndex,
        evse: u32,
        needs: CarNeeds,
        now: Now,
        out: &mut Vec<Output>,
    ) -> bool {
        let charger = self.station_id(station);
        let Some(index) = self.setup.topology.find_evse(station, evse) else {
            log(
                out,
                LogLevel::Warn,
                format!("{charger} tells what the car at EVSE {evse} needs, which it does not have"),
            );
            return false;
        };
        let ahead =
            |departure: Utc| !now.utc_trusted || (departure > now.utc && departure.since(now.utc) <= MAX_AHEAD_MS);
        let target = needs.energy.is_some() && needs.departure.is_some_and(ahead);
        log(
            out,
            LogLevel::Info,
            format!(
                "{charger} EVSE {evse}: the car needs {} by {}, at least {} per phase",
                needs.energy.map_or("an unknown energy".to_owned(), super::wishes::kwh),
                needs.departure.map_or("no stated time".to_owned(), |at| at.to_string()),
                needs.min.map_or("the usual current".to_owned(), |min| min.to_string()),
            ),
        );
        self.note_needs(index, if target { needs } else { CarNeeds { energy: None, departure: None, ..needs } });
        self.dirty = true;
        target || needs.min.is_some()
    }

    /// Which EVSE is meant.
    fn place(&self, place: &Place) -> Result<EvseIndex, String> {
        let topology = &self.setup.topology;
        match place {
            Place::Connector { charger, connector } => {
                let station = topology
                    .find_station(charger)
                    .ok_or_else(|| format!("there is no charger {charger} in site.toml"))?;
                topology
                    .find_evse(station, *connector)
                    .ok_or_else(|| format!("{charger} has no connector {connector}; they are numbered from 1"))
            }
            Place::Transaction(transaction) => {
                let open = self.ledger.open().find(|open| open.facts.transaction == *transaction);
                let open = open.ok_or_else(|| format!("no transaction {transaction} is running"))?;
                let station = topology.find_station(&open.facts.charger);
                let index = station.and_then(|station| topology.find_evse(station, open.facts.evse));
                index.ok_or_else(|| format!("transaction {transaction} runs at a connector that is not in site.toml"))
            }
        }
    }
}

/// When a boost ends, by the calendar and by the monotonic clock.
fn boost_end(length: BoostLength, now: Now) -> Result<(Utc, Mono), String> {
    let longest_ms = MAX_BOOST_MINUTES * 60_000;
    let ms = match length {
        BoostLength::Minutes(minutes) => minutes.saturating_mul(60_000),
        BoostLength::Until(_) if !now.utc_trusted => {
            return Err("the site's clock is not synchronised, so `until` cannot be timed; give `minutes`".to_owned());
        }
        BoostLength::Until(until) => u64::try_from(until.since(now.utc)).unwrap_or(0),
    };
    if ms == 0 {
        return Err("the boost would be over already; `until` must be a time to come".to_owned());
    }
    if ms > longest_ms {
        return Err(format!("a boost lasts {MAX_BOOST_MINUTES} minutes at most; set it again when it ends"));
    }
    Ok((now.utc.plus_ms(i64::try_from(ms).unwrap_or(0)), now.mono.plus_ms(ms)))
}

fn check_departure(departure: Utc, now: Now) -> Result<(), String> {
    if !now.utc_trusted {
        return Err("the site's clock is not synchronised, so a departure cannot be timed; try again later".to_owned());
    }
    match departure.since(now.utc) {
        ahead if ahead <= 0 => Err("`departure` is in the past".to_owned()),
        ahead if ahead > MAX_AHEAD_MS => Err("`departure` is more than seven days ahead".to_owned()),
        _ => Ok(()),
    }
}
