//! The stations' own transactions against the consumer's books.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::parts::{Parts, SITE};
use crate::net::cloud::lock;
use crate::net::fleet::ledger::Ledger;
use crate::net::fleet::report::Report;
use crate::net::fleet::sql::Datum;
use crate::station::TransactionTruth;

/// Complaints that are printed at most.
const PRINTED: usize = 20;
/// Events read at a time.
const PAGE: i64 = 5_000;

/// What was done and what came of it.
#[derive(Clone, Debug, Default)]
pub struct LosslessReport {
    /// The seed.
    pub seed: u64,
    /// How many stations.
    pub stations: usize,
    /// How long it took, in ms.
    pub took_ms: u64,
    /// How often the daemon was killed.
    pub kills: u64,
    /// How often the broker was killed.
    pub broker_kills: u64,
    /// How often its files were deleted.
    pub broker_wipes: u64,
    /// How often the consumer was killed.
    pub consumer_kills: u64,
    /// How long the link was cut, in ms.
    pub link_cut_ms: u64,
    /// How many events waited when it was mended.
    pub backlog: u64,
    /// Transactions of the stations.
    pub transactions: u64,
    /// Starts and ends of which a station has the answer.
    pub answered: u64,
    /// Of these, how many are not in the books.
    pub lost: u64,
    /// Starts, ends, updates, bills and commands that are in the books twice, or that nobody has sent.
    pub doubled: u64,
    /// What the stations' registers measured in transactions, in Wh.
    pub metered_wh: i64,
    /// What the ends of transactions say, in Wh.
    pub ended_wh: i64,
    /// What the bills say, in Wh.
    pub billed_wh: i64,
    /// Commands that were answered.
    pub commands: u64,
    /// What the books say of themselves.
    pub books: Report,
    /// What is wrong.
    pub complaints: Vec<String>,
}

impl LosslessReport {
    /// Whether everything is there once and to the Wh, and there was something.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.complaints.is_empty() && self.transactions > 0 && self.metered_wh > 0
    }

    fn complain(&mut self, text: String) {
        self.complaints.push(text);
    }
}

impl fmt::Display for LosslessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} stations, {} s, seed {}: the daemon killed {} times, the broker {} times with {} wipes, the consumer {} times, the link cut for {} s ({} events waited)",
            self.stations,
            self.took_ms / 1000,
            self.seed,
            self.kills,
            self.broker_kills,
            self.broker_wipes,
            self.consumer_kills,
            self.link_cut_ms / 1000,
            self.backlog
        )?;
        writeln!(
            f,
            "{} transactions, {} starts and ends answered: {} lost, {} doubled; {} commands answered; {} events, {} missing",
            self.transactions,
            self.answered,
            self.lost,
            self.doubled,
            self.commands,
            self.books.events,
            self.books.missing
        )?;
        write!(
            f,
            "metered {} Wh, told at the ends {} Wh, billed {} Wh",
            self.metered_wh, self.ended_wh, self.billed_wh
        )?;
        for complaint in self.complaints.iter().take(PRINTED) {
            write!(f, "\nWRONG: {complaint}")?;
        }
        if self.complaints.len() > PRINTED {
            write!(f, "\n… and {} more", self.complaints.len() - PRINTED)?;
        }
        Ok(())
    }
}

/// A transaction in the books.
#[derive(Clone, Debug, Default)]
struct Booked {
    starts: i64,
    ends: i64,
    energy_wh: Option<i64>,
    /// CDRs less credits, and their energy.
    bills: i64,
    billed_wh: i64,
}

type Name = (String, String);

/// Compares, once everything has arrived or nothing more comes.
pub(super) fn judge(report: &mut LosslessReport, parts: &Parts) {
    if !parts.is_drained() {
        let cloud = parts.cloud();
        report.complain(format!("not everything has arrived in time; the daemon says of the cloud: {cloud:?}"));
    }
    for error in parts.errors() {
        report.complain(format!("the daemon says: {error}"));
    }
    let compared = parts.books().and_then(|mut books| {
        report.books = books.report()?;
        let mut booked = booked(&mut books)?;
        compare(report, parts, &mut booked);
        events(report, parts, &mut books)
    });
    if let Err(error) = compared {
        report.complain(format!("the books cannot be read: {error}"));
    }
    let books = report.books.clone();
    if !books.is_whole() {
        report.complain(format!("the books are not whole:\n{books}"));
    }
    if books.streams.len() != 1 {
        report.complain(format!("{} stores instead of one: a kill damages none", books.streams.len()));
    }
}

fn booked(books: &mut Ledger) -> Result<BTreeMap<Name, Booked>, String> {
    let mut all: BTreeMap<Name, Booked> = BTreeMap::new();
    let text = "SELECT charger, transaction_id, starts, ends, energy_wh FROM transactions WHERE site = $1";
    for row in books.query(text, &[SITE.into()])? {
        let [charger, id, starts, ends, energy] = row.as_slice() else { continue };
        let booked = all.entry((charger.text().to_owned(), id.text().to_owned())).or_default();
        booked.starts += starts.number();
        booked.ends += ends.number();
        booked.energy_wh = if let Datum::Number(wh) = energy { Some(*wh) } else { None };
    }
    let text = "SELECT charger, transaction_id, credits, energy_wh FROM cdrs WHERE site = $1";
    for row in books.query(text, &[SITE.into()])? {
        let [charger, id, credits, energy] = row.as_slice() else { continue };
        let sign = if *credits == Datum::Null { 1 } else { -1 };
        let booked = all.entry((charger.text().to_owned(), id.text().to_owned())).or_default();
        booked.bills += sign;
        booked.billed_wh += sign * energy.number();
    }
    Ok(all)
}

fn compare(report: &mut LosslessReport, parts: &Parts, booked: &mut BTreeMap<Name, Booked>) {
    for station in &parts.stations {
        let station = lock(station);
        let charger = station.options().identity.clone();
        let mut in_transactions = 0;
        for truth in station.transactions() {
            in_transactions += truth.meter_stop_wh.unwrap_or(truth.meter_start_wh) - truth.meter_start_wh;
            let name = (charger.clone(), truth.id.clone().unwrap_or_default());
            one(report, &name, truth, &booked.remove(&name).unwrap_or_default());
        }
        report.metered_wh += in_transactions;
        if in_transactions != station.energy_wh(1) {
            report
                .complain(format!("{charger} has {} Wh, its transactions {in_transactions} Wh", station.energy_wh(1)));
        }
    }
    for ((charger, id), booked) in std::mem::take(booked) {
        report.doubled += 1;
        report.complain(format!("{charger} knows no transaction {id:?}, and the books do: {booked:?}"));
    }
    let (metered, ended, billed) = (report.metered_wh, report.ended_wh, report.billed_wh);
    if metered != ended || metered != billed {
        report.complain(format!("metered {metered} Wh, told {ended} Wh, billed {billed} Wh"));
    }
}

/// One transaction of a station.
fn one(report: &mut LosslessReport, (charger, id): &Name, truth: &TransactionTruth, booked: &Booked) {
    report.transactions += 1;
    report.ended_wh += booked.energy_wh.unwrap_or(0);
    report.billed_wh += booked.billed_wh;
    let mut wrong = Vec::new();
    for (what, answered, times) in
        [("start", truth.start_answered, booked.starts), ("end", truth.stop_answered, booked.ends)]
    {
        report.answered += u64::from(answered);
        if answered && times == 0 {
            report.lost += 1;
            wrong.push(format!("its {what} was answered and is lost"));
        }
        if times > 1 {
            report.doubled += 1;
            wrong.push(format!("its {what} is there {times} times"));
        }
    }
    let energy = truth.meter_stop_wh.map(|stop| stop - truth.meter_start_wh);
    if truth.stop_answered && booked.energy_wh != energy {
        wrong.push(format!("{energy:?} Wh metered, {:?} Wh told", booked.energy_wh));
    }
    if truth.stop_answered && (booked.bills != 1 || Some(booked.billed_wh) != energy) {
        report.doubled += u64::from(booked.bills > 1);
        wrong.push(format!("{energy:?} Wh metered, {} bills for {} Wh", booked.bills, booked.billed_wh));
    }
    if !truth.start_answered || !truth.stop_answered {
        wrong.push("the station still waits for an answer".to_owned());
    }
    for what in wrong {
        report.complain(format!("{charger} transaction {id:?}: {what}"));
    }
}

/// What only the events themselves say: that no update and no command is there twice, and that every answered command is there.
fn events(report: &mut LosslessReport, parts: &Parts, books: &mut Ledger) -> Result<(), String> {
    let mut updates: BTreeMap<(Name, i64), u64> = BTreeMap::new();
    let mut commands: BTreeMap<String, u64> = BTreeMap::new();
    let text = "SELECT sequence, type, body FROM events WHERE site = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
    let mut after = 0;
    loop {
        let rows = books.query(text, &[SITE.into(), after.into(), PAGE.into()])?;
        let Some(last) = rows.last().and_then(|row| row.first()) else { break };
        after = last.number();
        for row in &rows {
            let [_, kind, Datum::Bytes(body)] = row.as_slice() else { continue };
            let data = serde_json::from_slice::<Value>(body).map_err(|error| error.to_string())?;
            let data = &data["data"];
            let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
            match (kind.text(), data["seq_no"].as_i64()) {
                ("siteward.transaction.updated", Some(number)) => {
                    *updates.entry(((text("charger"), text("transaction_id")), number)).or_default() += 1;
                }
                ("siteward.command.executed", _) => *commands.entry(text("id")).or_default() += 1,
                _ => {}
            }
        }
    }
    for (((charger, id), number), times) in updates.into_iter().filter(|(_, times)| *times > 1) {
        report.doubled += 1;
        report.complain(format!("{charger} transaction {id}: event {number} is there {times} times"));
    }
    let answered = parts.commands.answered();
    report.commands = u64::try_from(answered.len()).unwrap_or(u64::MAX);
    for id in answered.keys() {
        match commands.get(id).copied().unwrap_or(0) {
            1 => {}
            0 => {
                report.lost += 1;
                report.complain(format!("command {id} was answered and is lost"));
            }
            times => {
                report.doubled += 1;
                report.complain(format!("command {id} was carried out {times} times"));
            }
        }
    }
    Ok(())
}
