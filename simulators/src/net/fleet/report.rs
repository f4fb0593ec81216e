//! What the books of the reference consumer say.

use std::fmt;

use super::sql::{Datum, Sql, SqlError};

/// Sites that are listed by name at most: a terminal full.
const LISTED: usize = 40;

/// A stream: a site with one of its stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLine {
    /// The site.
    pub site: String,
    /// The store.
    pub store: String,
    /// The first sequence that is wanted.
    pub first: i64,
    /// Everything up to here is there.
    pub contiguous: i64,
    /// The highest that is there.
    pub highest: i64,
    /// Whether it is the site's newest store.
    pub live: bool,
    /// How often a replay of its hole was asked for.
    pub asked_times: i64,
}

/// A sum of CDRs in one currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The currency.
    pub currency: String,
    /// CDRs that are not credits.
    pub cdrs: i64,
    /// Credit CDRs.
    pub credits: i64,
    /// Energy billed, less that of the credits, in Wh.
    pub energy_wh: i64,
    /// Prices without tax, in 1/10000.
    pub net_e4: i64,
    /// Prices with tax, in 1/10000; of those that have none, without.
    pub gross_e4: i64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The streams, those with holes first.
    pub streams: Vec<StreamLine>,
    /// Different events.
    pub events: i64,
    /// Events that are not there although a later one is.
    pub missing: i64,
    /// Intervals of the telemetry.
    pub intervals: i64,
    /// Those between the first and the last of each ring that are not there: its site had no room for them.
    pub dropped: i64,
    /// Transactions.
    pub transactions: i64,
    /// Those that have ended.
    pub ended: i64,
    /// Those of which a start or an end was told by two events.
    pub doubled: i64,
    /// Energy of those that have ended, in Wh.
    pub energy_wh: i64,
    /// Bills.
    pub sums: Vec<Sum>,
    /// Messages in quarantine.
    pub quarantine: i64,
    /// Why the first of them is there.
    pub reason: Option<String>,
    /// The size of the database, in bytes.
    pub bytes: i64,
}

impl Report {
    /// Whether nothing is missing, doubled or in quarantine.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.missing == 0 && self.doubled == 0 && self.quarantine == 0
    }

    pub(super) fn read(sql: &mut dyn Sql) -> Result<Self, SqlError> {
        let mut report = Self { bytes: sql.size()?, ..Self::default() };
        let text = "SELECT site, store_id, first_sequence, contiguous, highest, live, asked_times FROM streams \
                    ORDER BY CASE WHEN highest > contiguous THEN 0 ELSE 1 END, site, store_id";
        report.streams = sql.query(text, &[])?.iter().map(|row| stream(row)).collect();
        report.events = one(sql, "SELECT COUNT(*) FROM events")?;
        let counted = "SELECT COUNT(*) FROM events AS e JOIN streams AS s ON s.site = e.site AND s.store_id = e.store_id \
                       WHERE s.highest > s.contiguous AND e.sequence > s.contiguous";
        let wanted: i64 = report.streams.iter().map(|stream| stream.highest - stream.contiguous).sum();
        report.missing = wanted - one(sql, counted)?;
        report.intervals = one(sql, "SELECT COUNT(*) FROM telemetry")?;
        let spans = "SELECT CAST(COALESCE(SUM(span), 0) AS BIGINT) FROM \
                     (SELECT MAX(sequence) - MIN(sequence) + 1 AS span FROM telemetry GROUP BY site, ring) AS spans";
        report.dropped = one(sql, spans)? - report.intervals;
        report.transactions = one(sql, "SELECT COUNT(*) FROM transactions")?;
        report.ended = one(sql, "SELECT COUNT(*) FROM transactions WHERE ends > 0")?;
        report.doubled = one(sql, "SELECT COUNT(*) FROM transactions WHERE ends > 1 OR starts > 1")?;
        report.energy_wh = one(sql, "SELECT CAST(COALESCE(SUM(energy_wh), 0) AS BIGINT) FROM transactions")?;
        let text = "SELECT currency, COUNT(*) - COUNT(credits), COUNT(credits), \
                    CAST(SUM(CASE WHEN credits IS NULL THEN energy_wh ELSE -energy_wh END) AS BIGINT), \
                    CAST(SUM(net_e4) AS BIGINT), CAST(SUM(COALESCE(gross_e4, net_e4)) AS BIGINT) FROM cdrs GROUP BY currency ORDER BY currency";
        report.sums = sql.query(text, &[])?.iter().map(|row| sum(row)).collect();
        report.quarantine = one(sql, "SELECT COUNT(*) FROM quarantine")?;
        let first = sql.query("SELECT reason FROM quarantine ORDER BY received_ms LIMIT 1", &[])?;
        report.reason = first.first().and_then(|row| row.first()).map(|reason| reason.text().to_owned());
        Ok(report)
    }
}

fn one(sql: &mut dyn Sql, text: &str) -> Result<i64, SqlError> {
    Ok(sql.query(text, &[])?.first().and_then(|row| row.first()).map_or(0, Datum::number))
}

fn number(row: &[Datum], column: usize) -> i64 {
    row.get(column).map_or(0, Datum::number)
}

fn text(row: &[Datum], column: usize) -> String {
    row.get(column).map_or(String::new(), |datum| datum.text().to_owned())
}

fn stream(row: &[Datum]) -> StreamLine {
    StreamLine {
        site: text(row, 0),
        store: text(row, 1),
        first: number(row, 2),
        contiguous: number(row, 3),
        highest: number(row, 4),
        live: number(row, 5) != 0,
        asked_times: number(row, 6),
    }
}

fn sum(row: &[Datum]) -> Sum {
    Sum {
        currency: text(row, 0),
        cdrs: number(row, 1),
        credits: number(row, 2),
        energy_wh: number(row, 3),
        net_e4: number(row, 4),
        gross_e4: number(row, 5),
    }
}

/// 1/10000 as a decimal number.
struct Amount(i64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.unsigned_abs() / 10_000, self.0.unsigned_abs() % 10_000);
        write!(f, "{}{whole}.{rest:04}", if self.0 < 0 { "-" } else { "" })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stream in self.streams.iter().take(LISTED) {
            write!(f, "{} ({}): {} to {}", stream.site, stream.store, stream.first, stream.contiguous)?;
            if stream.highest > stream.contiguous {
                write!(f, ", HOLE behind it, highest {}", stream.highest)?;
                match (stream.live, stream.asked_times) {
                    (false, _) => write!(f, ", of a store that is no more")?,
                    (true, times) => write!(f, ", asked for {times} times")?,
                }
            }
            writeln!(f)?;
        }
        if self.streams.len() > LISTED {
            writeln!(f, "… and {} more, without a hole unless listed", self.streams.len() - LISTED)?;
        }
        writeln!(
            f,
            "{} streams, {} events, {} missing, {} MB",
            self.streams.len(),
            self.events,
            self.missing,
            self.bytes / 1_000_000
        )?;
        writeln!(f, "{} intervals of telemetry, {} dropped by their sites", self.intervals, self.dropped)?;
        writeln!(
            f,
            "{} transactions, {} ended, {} told twice, {} Wh",
            self.transactions, self.ended, self.doubled, self.energy_wh
        )?;
        for sum in &self.sums {
            writeln!(
                f,
                "{} CDRs and {} credits: {} Wh, {} {} without tax, {} with it",
                sum.cdrs,
                sum.credits,
                sum.energy_wh,
                Amount(sum.net_e4),
                sum.currency,
                Amount(sum.gross_e4)
            )?;
        }
        match &self.reason {
            None => write!(f, "nothing in quarantine"),
            Some(reason) => write!(f, "{} in quarantine, the first because: {reason}", self.quarantine),
        }
    }
}
