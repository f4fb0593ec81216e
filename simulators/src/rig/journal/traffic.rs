//! What a site records: charging sessions as a real day has them, each with its chargers' states around it.

use siteward::engine::model::exchange::ConnectorStatus;
use siteward::engine::model::ids::{IdToken, Sequence, StationId, TransactionId};
use siteward::engine::model::record::{Record, RecordBody, Stamp, TransactionFacts};
use siteward::engine::time::{Mono, Utc};
use siteward::engine::units::Energy;

use crate::rng::Dice;

/// The first day: 2026-03-01.
const FIRST_MS: u64 = 1_772_323_200_000;
/// A day, in ms.
pub(super) const DAY_MS: u64 = 86_400_000;
/// A session makes so many records: the start, its end, one every quarter of an hour between them, and four states of the connector.
pub(super) const EACH: u64 = 12;
const UPDATES: u64 = EACH - 6;
const QUARTER_MS: u64 = 900_000;
const SESSION_MS: u64 = (UPDATES + 1) * QUARTER_MS;
/// Sessions of a station in a day.
const SESSIONS_EACH: u64 = 4;
/// The first station of those that number their events.
const NUMBERS: u64 = 2;
/// What a session takes in a quarter of an hour.
const WH: i64 = 2_750;

/// A site with so many records a day.
#[derive(Debug)]
pub(super) struct Traffic {
    sessions: u64,
    dice: Dice,
    promises: bool,
    day: u64,
    /// What today still brings, the next one last.
    today: Vec<(u64, RecordBody)>,
    last: u64,
}

impl Traffic {
    /// `records_a_day` is rounded to whole sessions.
    pub(super) fn new(records_a_day: u64, seed: u64) -> Self {
        Self {
            sessions: (records_a_day / EACH).max(1),
            dice: Dice::new(seed),
            promises: false,
            day: 0,
            today: Vec::new(),
            last: 0,
        }
    }

    /// Only records for which a station waits: those of transactions that it numbers.
    pub(super) const fn of_promises(mut self) -> Self {
        self.promises = true;
        self
    }

    /// Begins the day that follows, whatever of this one is left.
    pub(super) fn dawn(&mut self) {
        self.today.clear();
        let stations = self.sessions.div_ceil(SESSIONS_EACH);
        for number in 0..self.sessions {
            let begin = self.dice.below(DAY_MS - SESSION_MS - 120_000);
            let id = self.day * self.sessions + number + 1;
            let station = if self.promises { NUMBERS } else { number % stations };
            session(id, self.day * DAY_MS + begin, station, &mut self.dice, &mut self.today);
        }
        self.today.retain(|(_, body)| !self.promises || !matches!(body, RecordBody::ChargerStatus { .. }));
        self.today.sort_by_key(|(at_ms, _)| std::cmp::Reverse(*at_ms));
        self.day += 1;
    }

    /// When the next record of today is made, in ms since the first day; `None`: the day is over.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.today.last().map(|(at_ms, _)| *at_ms)
    }

    /// The next record, of the next day where this one is over.
    pub(super) fn next(&mut self) -> Record {
        loop {
            if let Some((at_ms, body)) = self.today.pop() {
                self.last += 1;
                let utc = utc(at_ms);
                let stamp = Stamp { utc, trusted: true, mono: Mono::from_ms(at_ms), boot: 1 };
                return Record { sequence: Sequence(self.last), stamp, body };
            }
            self.dawn();
        }
    }

    /// Leaves the next record of today out.
    pub(super) fn skip(&mut self) {
        self.today.pop();
    }

    /// The next so many.
    pub(super) fn take(&mut self, count: u64) -> Vec<Record> {
        (0..count).map(|_| self.next()).collect()
    }
}

fn utc(at_ms: u64) -> Utc {
    Utc::from_unix_ms(i64::try_from(FIRST_MS + at_ms).unwrap_or(i64::MAX))
}

/// One session. Every third station speaks OCPP 2.0.1: it numbers its events, and waits for the answer to each.
fn session(id: u64, begin_ms: u64, station: u64, dice: &mut Dice, records: &mut Vec<(u64, RecordBody)>) {
    let charger = StationId::new(&format!("CP{:03}", station + 1));
    let numbered = |number: u64| (station % 3 == NUMBERS).then(|| i64::try_from(number).unwrap_or(0));
    let at = |number: u64| begin_ms + 20_000 + number * QUARTER_MS;
    let meter = |number: u64| {
        let sessions = i64::try_from(id).unwrap_or(0) * 7 * WH;
        Some(Energy::from_wh(sessions + i64::try_from(number).unwrap_or(0) * WH))
    };
    let facts = TransactionFacts {
        transaction: TransactionId::new(&id.to_string()),
        charger: charger.clone(),
        evse: 1,
        connector: 1,
        token: Some(IdToken::new("04A2B3C4D5E6F7")),
        started: utc(at(0)),
        meter_start: meter(0),
    };
    let mut status = |at_ms: u64, status: ConnectorStatus| {
        let charger = charger.clone();
        records.push((at_ms, RecordBody::ChargerStatus { charger, evse: 1, connector: 1, status, error: None }));
    };
    let over = at(UPDATES + 1);
    status(at(0) - dice.between(3_000, 20_000), ConnectorStatus::Preparing);
    status(at(0) + dice.between(500, 3_000), ConnectorStatus::Charging);
    status(over - dice.between(100, 2_000), ConnectorStatus::Finishing);
    status(over + dice.between(5_000, 60_000), ConnectorStatus::Available);
    let started = RecordBody::TransactionStarted { facts: facts.clone(), seq_no: numbered(0), offline: false };
    records.push((at(0), started));
    for number in 1..=UPDATES {
        let body = RecordBody::TransactionUpdated {
            facts: facts.clone(),
            seq_no: numbered(number),
            at: utc(at(number)),
            meter: meter(number),
            trigger: Some("MeterValuePeriodic".to_owned()),
            offline: false,
            charging: None,
        };
        records.push((at(number), body));
    }
    let ended = RecordBody::TransactionEnded {
        facts,
        seq_no: numbered(UPDATES + 1),
        ended: utc(over),
        meter_stop: meter(UPDATES + 1),
        reason: Some("EVDisconnected".to_owned()),
        reconstructed: false,
        cost: None,
    };
    records.push((over, ended));
}
