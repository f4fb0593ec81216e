//! The books: each event once, what transactions and bills follow from them, and how far each site's stream has come without a hole.
//!
//! Events may come in any order, since instances that share a subscription each get a part of them. So the primary key decides what is new,
//! every change of the books is one that does not depend on the order, and the cursor of a stream is the end of its prefix without a hole,
//! computed while its row is locked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{self, Cdr, Effect, End, Event, Message, Transaction};
use super::report::Report;
use super::sql::{Datum, Sql, SqlError, open};
use super::telemetry;
use crate::rng::Fnv;

/// The tables.
const SCHEMA: &str = include_str!("schema.sql");
const SCHEMA_TRIES: u32 = 5;
const SCHEMA_PAUSE: Duration = Duration::from_millis(200);
/// Event rows in one statement; below that, one each.
const ROWS: usize = 32;
/// Rows read at a time while a hole is looked behind.
const PAGE: i64 = 1_000;
/// The wait before a replay is asked for again, in ms: doubled each time, up to [`ASK_MAX_MS`].
const ASK_MS: i64 = 5_000;
/// See [`ASK_MS`].
const ASK_MAX_MS: i64 = 600_000;
/// Replays asked for at a time at most.
const ASKS: i64 = 200;

/// How a stream is begun and its holes are judged.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A site that is new to us must have everything from its first event on; else from what comes first.
    pub from_start: bool,
    /// A hole is a hole after so long, in ms: with other instances at work what is missing may be on its way to them.
    pub hole_after_ms: i64,
}

/// What became of a batch. It is in the database when this is returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Events that were new.
    pub new: u64,
    /// Intervals of the telemetry that were new.
    pub intervals: u64,
    /// What was there already.
    pub again: u64,
    /// Messages that were put into quarantine.
    pub unreadable: Vec<String>,
    /// How many transactions ended, and their energy in Wh.
    pub ended: u64,
    /// See [`Taken::ended`].
    pub energy_wh: i64,
    /// The live streams that were touched.
    pub streams: Vec<Position>,
}

/// How far the live stream of a site has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The site.
    pub site: String,
    /// The name of its store.
    pub store: String,
    /// Everything up to here is there.
    pub contiguous: i64,
    /// The highest event that is there.
    pub highest: i64,
    /// Whether something of it was new.
    pub news: bool,
}

/// A replay that is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The site.
    pub site: String,
    /// The first event that is missing.
    pub from: i64,
    /// How often it was asked for before.
    pub times: i64,
}

/// The books in a database.
pub struct Ledger {
    place: String,
    rules: Rules,
    sql: Option<Box<dyn Sql>>,
}

/// A row of `streams`.
#[derive(Clone, Copy, Debug)]
struct Stream {
    first: i64,
    contiguous: i64,
    highest: i64,
    live: bool,
    hole_since_ms: i64,
    ask_at_ms: i64,
    asked_times: i64,
}

type Name = (String, String);

impl Ledger {
    /// Opens the database and makes the tables that it lacks. What begins with `postgres://` is PostgreSQL, all else a SQLite file.
    ///
    /// # Errors
    /// If it cannot be opened, in words.
    pub fn open(place: &str, rules: Rules) -> Result<Self, String> {
        let mut ledger = Self { place: place.to_owned(), rules, sql: None };
        ledger.connect()?;
        Ok(ledger)
    }

    fn connect(&mut self) -> Result<&mut Box<dyn Sql>, String> {
        if self.sql.is_none() {
            let mut sql = open(&self.place)?;
            // Of two instances that begin at the same time with an empty database one may be refused.
            let mut tries = 1;
            while let Err(error) = sql.batch(SCHEMA) {
                if tries == SCHEMA_TRIES {
                    return Err(format!("the tables cannot be made: {}", error.text));
                }
                tries += 1;
                std::thread::sleep(SCHEMA_PAUSE);
            }
            self.sql = Some(sql);
        }
        self.sql.as_mut().ok_or_else(|| "no database".to_owned())
    }

    /// Runs `work` in one transaction: all of it is kept, or nothing.
    fn atomically<T>(&mut self, work: impl FnOnce(&mut dyn Sql) -> Result<T, SqlError>) -> Result<T, String> {
        let begin = self.connect()?.begin();
        self.transaction(begin, work)
    }

    fn transaction<T>(
        &mut self,
        begin: &str,
        work: impl FnOnce(&mut dyn Sql) -> Result<T, SqlError>,
    ) -> Result<T, String> {
        let sql = self.connect()?;
        let result = sql.batch(begin).and_then(|()| {
            let done = work(sql.as_mut())?;
            sql.batch("COMMIT")?;
            Ok(done)
        });
        let error = match result {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // What was begun is taken back; a connection that is not sound any more is made anew.
        let undone = sql.batch("ROLLBACK");
        if error.lost || undone.is_err_and(|undone| undone.lost) {
            self.sql = None;
        }
        Err(error.text)
    }

    /// Takes messages in, in one transaction. After an error nothing of them is there, and they can be given again.
    ///
    /// # Errors
    /// If the database does not take it, in its words.
    pub fn take(&mut self, messages: &[Message], now_ms: i64) -> Result<Taken, String> {
        let rules = self.rules;
        self.atomically(|sql| take(sql, messages, rules, now_ms))
    }

    /// The replays that are due, each claimed for this instance: holes that have lasted, and the sites of `check`, of which the end may be
    /// missing without anybody knowing.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn asks(&mut self, check: &[String], now_ms: i64) -> Result<Vec<Ask>, String> {
        let from_start = self.rules.from_start;
        self.atomically(|sql| {
            let mut asks = holes(sql, now_ms)?;
            for site in check {
                let text = "SELECT contiguous FROM streams WHERE site = $1 AND live = 1";
                let rows = sql.query(text, &[site.as_str().into()])?;
                let known = rows.first().and_then(|row| row.first()).map(Datum::number);
                if let Some(contiguous) = known.or(from_start.then_some(0)) {
                    asks.push(Ask { site: site.clone(), from: contiguous + 1, times: 0 });
                }
            }
            Ok(asks)
        })
    }

    /// What the books say.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn report(&mut self) -> Result<Report, String> {
        self.transaction("BEGIN", Report::read)
    }

    /// Asks the database directly, for whoever compares it with a truth.
    ///
    /// # Errors
    /// If the database does not answer.
    pub fn query(&mut self, text: &str, parameters: &[Datum]) -> Result<Vec<Vec<Datum>>, String> {
        self.transaction("BEGIN", |sql| sql.query(text, parameters))
    }
}

fn take(sql: &mut dyn Sql, messages: &[Message], rules: Rules, now_ms: i64) -> Result<Taken, SqlError> {
    let mut taken = Taken::default();
    let mut events: BTreeMap<(Name, i64), (Event, &[u8])> = BTreeMap::new();
    for message in messages {
        if telemetry::is_telemetry(message) {
            match telemetry::read(message) {
                Ok(interval) if telemetry::keep(sql, &interval, &message.body)? => taken.intervals += 1,
                Ok(_) => taken.again += 1,
                Err(reason) => quarantine(sql, message, &reason, (now_ms, &mut taken))?,
            }
            continue;
        }
        match event::read(message) {
            Ok(event) => {
                let key = ((event.site.clone(), event.store.clone()), event.sequence);
                if events.insert(key, (event, &message.body)).is_some() {
                    taken.again += 1;
                }
            }
            Err(reason) => quarantine(sql, message, &reason, (now_ms, &mut taken))?,
        }
    }
    // In the order of their names, so that two instances never wait for each other.
    let names: BTreeSet<Name> = events.keys().map(|(name, _)| name.clone()).collect();
    let mut streams = BTreeMap::new();
    for name in names {
        let lowest = events.range((name.clone(), 0)..).next().map_or(1, |((_, sequence), _)| *sequence);
        let stream = locked(sql, &name, (lowest, rules))?;
        streams.insert(name, stream);
    }
    let new = insert(sql, &events)?;
    taken.new = u64::try_from(new.len()).unwrap_or(u64::MAX);
    taken.again += u64::try_from(events.len() - new.len()).unwrap_or(0);
    for (key, (event, body)) in &events {
        if new.contains(key) {
            fold(sql, event, body, (now_ms, &mut taken))?;
        }
    }
    for (name, stream) in streams {
        let news: BTreeSet<i64> =
            new.range((name.clone(), 0)..=(name.clone(), i64::MAX)).map(|(_, sequence)| *sequence).collect();
        let after = advanced(sql, &name, stream, (&news, rules, now_ms))?;
        if after.live {
            let (contiguous, highest) = (after.contiguous, after.highest);
            taken.streams.push(Position { site: name.0, store: name.1, contiguous, highest, news: !news.is_empty() });
        }
    }
    Ok(taken)
}

fn quarantine(
    sql: &mut dyn Sql,
    message: &Message,
    reason: &str,
    (now_ms, taken): (i64, &mut Taken),
) -> Result<(), SqlError> {
    let mut digest = Fnv::default();
    digest.write(&message.body);
    let text = "INSERT INTO quarantine (topic, digest, reason, body, received_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
    let digest = format!("{:016x}-{}", digest.value(), message.body.len());
    // PostgreSQL has no text with a NUL in it; who sends one is not named exactly.
    let topic = message.topic.replace('\0', "?");
    let row = [topic.as_str().into(), digest.as_str().into(), reason.replace('\0', "?").as_str().into()];
    let [topic, digest, why] = row;
    if sql.execute(text, &[topic, digest, why, message.body.as_slice().into(), now_ms.into()])? > 0 {
        taken.unreadable.push(format!("{}: {reason}", message.topic));
    }
    Ok(())
}

/// The stream's row, locked until the transaction ends; begun if it is new.
fn locked(sql: &mut dyn Sql, name: &Name, (lowest, rules): (i64, Rules)) -> Result<Stream, SqlError> {
    let (site, store) = (name.0.as_str(), name.1.as_str());
    if let Some(stream) = read_stream(sql, name)? {
        return Ok(stream);
    }
    let others = sql.query("SELECT COUNT(*) FROM streams WHERE site = $1", &[site.into()])?;
    let known = others.first().and_then(|row| row.first()).map_or(0, Datum::number) > 0;
    // A store that follows one that we know is wanted whole.
    let first = if rules.from_start || known { 1 } else { lowest };
    let text = "INSERT INTO streams (site, store_id, first_sequence, contiguous, highest, live, hole_since_ms, ask_at_ms, asked_times) \
                VALUES ($1, $2, $3, $4, $4, 0, 0, 0, 0) ON CONFLICT DO NOTHING";
    sql.execute(text, &[site.into(), store.into(), first.into(), (first - 1).into()])?;
    read_stream(sql, name)?
        .ok_or_else(|| SqlError { text: format!("the stream of {site} cannot be begun"), lost: false })
}

fn read_stream(sql: &mut dyn Sql, name: &Name) -> Result<Option<Stream>, SqlError> {
    let text = format!(
        "SELECT first_sequence, contiguous, highest, live, hole_since_ms, ask_at_ms, asked_times FROM streams \
         WHERE site = $1 AND store_id = $2{}",
        sql.for_update()
    );
    let rows = sql.query(&text, &[name.0.as_str().into(), name.1.as_str().into()])?;
    Ok(rows.first().map(|row| {
        let at = |column: usize| row.get(column).map_or(0, Datum::number);
        Stream {
            first: at(0),
            contiguous: at(1),
            highest: at(2),
            live: at(3) != 0,
            hole_since_ms: at(4),
            ask_at_ms: at(5),
            asked_times: at(6),
        }
    }))
}

/// Inserts what is not there yet; says what that was.
fn insert(
    sql: &mut dyn Sql,
    events: &BTreeMap<(Name, i64), (Event, &[u8])>,
) -> Result<BTreeSet<(Name, i64)>, SqlError> {
    let all: Vec<_> = events.iter().collect();
    let mut new = BTreeSet::new();
    let (many, rest) = all.as_chunks::<ROWS>();
    let lots = many.iter().map(|lot| &lot[..]).chain(rest.chunks(1));
    for lot in lots {
        let rows: Vec<String> = (0..lot.len())
            .map(|row| {
                let at = row * 6;
                let [a, b, c, d, e, f] = [at + 1, at + 2, at + 3, at + 4, at + 5, at + 6];
                format!("(${a}, ${b}, ${c}, ${d}, ${e}, ${f})")
            })
            .collect();
        let text = format!(
            "INSERT INTO events (site, store_id, sequence, type, time, body) VALUES {} \
             ON CONFLICT DO NOTHING RETURNING site, store_id, sequence",
            rows.join(", ")
        );
        let mut parameters = Vec::with_capacity(lot.len() * 6);
        for (((site, store), sequence), (event, body)) in lot {
            parameters.extend([Datum::from(site.as_str()), store.as_str().into(), (*sequence).into()]);
            parameters.extend([Datum::from(event.kind.as_str()), event.time.as_str().into(), (*body).into()]);
        }
        for row in sql.query(&text, &parameters)? {
            if let [site, store, sequence] = row.as_slice() {
                new.insert(((site.text().to_owned(), store.text().to_owned()), sequence.number()));
            }
        }
    }
    Ok(new)
}

/// What a new event changes in the books.
fn fold(sql: &mut dyn Sql, event: &Event, body: &[u8], (now_ms, taken): (i64, &mut Taken)) -> Result<(), SqlError> {
    match &event.effect {
        Ok(Effect::None) => Ok(()),
        Ok(Effect::Started(transaction)) => started(sql, event, transaction),
        Ok(Effect::Ended(transaction, end)) => {
            taken.ended += 1;
            taken.energy_wh = taken.energy_wh.saturating_add(end.energy_wh.unwrap_or(0));
            ended(sql, event, (transaction, end), (1, 0))
        }
        Ok(Effect::Corrected(transaction, end)) => ended(sql, event, (transaction, end), (0, 1)),
        Ok(Effect::Cdr(cdr)) => bill(sql, event, cdr),
        // The event itself is kept, so that its sequence is no hole; what it should have meant, somebody has to look at.
        Err(reason) => {
            let message = Message { topic: format!("{}/{}", event.site, event.kind), body: body.to_vec() };
            quarantine(sql, &message, reason, (now_ms, taken))
        }
    }
}

fn started(sql: &mut dyn Sql, event: &Event, transaction: &Transaction) -> Result<(), SqlError> {
    let text = "INSERT INTO transactions AS t (site, store_id, charger, transaction_id, token, started, meter_start_wh, \
                starts, ends, corrections, end_sequence) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, 0, 0, 0) \
                ON CONFLICT (site, store_id, charger, transaction_id) DO UPDATE SET starts = t.starts + 1, \
                token = COALESCE(t.token, excluded.token), started = COALESCE(t.started, excluded.started), \
                meter_start_wh = COALESCE(t.meter_start_wh, excluded.meter_start_wh)";
    let parameters = named(event, transaction);
    sql.execute(text, &parameters).map(|_| ())
}

/// The end that was told last holds, whichever comes first.
fn ended(
    sql: &mut dyn Sql,
    event: &Event,
    (transaction, end): (&Transaction, &End),
    (ends, corrections): (i64, i64),
) -> Result<(), SqlError> {
    let text = "INSERT INTO transactions AS t (site, store_id, charger, transaction_id, token, started, meter_start_wh, \
                ends, corrections, end_sequence, ended, meter_stop_wh, energy_wh, gross_e4, currency, starts) \
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 0) \
                ON CONFLICT (site, store_id, charger, transaction_id) DO UPDATE SET \
                ends = t.ends + excluded.ends, corrections = t.corrections + excluded.corrections, \
                token = COALESCE(t.token, excluded.token), started = COALESCE(t.started, excluded.started), \
                meter_start_wh = COALESCE(t.meter_start_wh, excluded.meter_start_wh), \
                ended = CASE WHEN excluded.end_sequence > t.end_sequence THEN excluded.ended ELSE t.ended END, \
                meter_stop_wh = CASE WHEN excluded.end_sequence > t.end_sequence THEN excluded.meter_stop_wh ELSE t.meter_stop_wh END, \
                energy_wh = CASE WHEN excluded.end_sequence > t.end_sequence THEN excluded.energy_wh ELSE t.energy_wh END, \
                gross_e4 = CASE WHEN excluded.end_sequence > t.end_sequence THEN excluded.gross_e4 ELSE t.gross_e4 END, \
                currency = CASE WHEN excluded.end_sequence > t.end_sequence THEN excluded.currency ELSE t.currency END, \
                end_sequence = CASE WHEN excluded.end_sequence > t.end_sequence THEN excluded.end_sequence ELSE t.end_sequence END";
    let mut parameters = named(event, transaction);
    parameters.extend([ends.into(), corrections.into(), event.sequence.into(), end.ended.as_deref().into()]);
    parameters.extend([Datum::from(end.meter_stop_wh), end.energy_wh.into(), end.gross_e4.into()]);
    parameters.push(end.currency.as_deref().into());
    sql.execute(text, &parameters).map(|_| ())
}

/// What names a transaction, and what every event tells of it.
fn named(event: &Event, transaction: &Transaction) -> Vec<Datum> {
    vec![
        event.site.as_str().into(),
        event.store.as_str().into(),
        transaction.charger.as_str().into(),
        transaction.id.as_str().into(),
        transaction.token.as_deref().into(),
        transaction.started.as_deref().into(),
        transaction.meter_start_wh.into(),
    ]
}

fn bill(sql: &mut dyn Sql, event: &Event, cdr: &Cdr) -> Result<(), SqlError> {
    let text = "INSERT INTO cdrs (site, cdr_id, store_id, sequence, charger, transaction_id, credits, energy_wh, net_e4, gross_e4, \
                currency) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING";
    let names = [event.site.as_str().into(), cdr.id.as_str().into(), event.store.as_str().into()];
    let place = [event.sequence.into(), cdr.charger.as_str().into(), cdr.transaction.as_str().into()];
    let sums = [cdr.credits.as_deref().into(), cdr.energy_wh.into(), cdr.net_e4.into(), cdr.gross_e4.into()];
    let parameters: Vec<Datum> =
        names.into_iter().chain(place).chain(sums).chain([cdr.currency.as_str().into()]).collect();
    sql.execute(text, &parameters).map(|_| ())
}

/// Moves the stream's cursor over what has come, and says when a hole behind it is to be asked for.
fn advanced(
    sql: &mut dyn Sql,
    name: &Name,
    before: Stream,
    (news, rules, now_ms): (&BTreeSet<i64>, Rules, i64),
) -> Result<Stream, SqlError> {
    let Some(highest) = news.last().copied() else { return Ok(before) };
    let mut stream = before;
    stream.highest = before.highest.max(highest);
    while news.contains(&(stream.first - 1)) {
        stream.first -= 1;
    }
    while news.contains(&(stream.contiguous + 1)) {
        stream.contiguous += 1;
    }
    if before.highest > before.contiguous {
        stream.contiguous = reach(sql, name, stream.contiguous)?;
    }
    if !before.live {
        let text = "UPDATE streams SET live = 0, ask_at_ms = 0 WHERE site = $1 AND live = 1";
        sql.execute(text, &[name.0.as_str().into()])?;
        stream.live = true;
    }
    if stream.highest == stream.contiguous {
        (stream.hole_since_ms, stream.ask_at_ms, stream.asked_times) = (0, 0, 0);
    } else if stream.contiguous > before.contiguous || before.hole_since_ms == 0 || stream.ask_at_ms == 0 {
        // Another hole, or one that is being filled.
        (stream.hole_since_ms, stream.ask_at_ms, stream.asked_times) = (now_ms, now_ms + rules.hole_after_ms, 0);
    }
    let text = "UPDATE streams SET first_sequence = $1, contiguous = $2, highest = $3, live = 1, hole_since_ms = $4, ask_at_ms = $5, \
                asked_times = $6 WHERE site = $7 AND store_id = $8";
    let numbers = [stream.first, stream.contiguous, stream.highest, stream.hole_since_ms, stream.ask_at_ms];
    let mut parameters: Vec<Datum> = numbers.into_iter().map(Datum::from).collect();
    parameters.extend([stream.asked_times.into(), name.0.as_str().into(), name.1.as_str().into()]);
    sql.execute(text, &parameters)?;
    Ok(stream)
}

/// How far the events go on without a hole behind `contiguous`.
fn reach(sql: &mut dyn Sql, name: &Name, mut contiguous: i64) -> Result<i64, SqlError> {
    let text =
        "SELECT sequence FROM events WHERE site = $1 AND store_id = $2 AND sequence > $3 ORDER BY sequence LIMIT $4";
    loop {
        let parameters = [name.0.as_str().into(), name.1.as_str().into(), contiguous.into(), PAGE.into()];
        let rows = sql.query(text, &parameters)?;
        let before = contiguous;
        for sequence in rows.iter().filter_map(|row| row.first()).map(Datum::number) {
            if sequence != contiguous + 1 {
                return Ok(contiguous);
            }
            contiguous = sequence;
        }
        if contiguous - before < PAGE {
            return Ok(contiguous);
        }
    }
}

/// The holes that are due. Whoever moves the time of the next question forward has the question: another instance finds it moved.
fn holes(sql: &mut dyn Sql, now_ms: i64) -> Result<Vec<Ask>, SqlError> {
    let text = "SELECT site, store_id, contiguous, asked_times, ask_at_ms FROM streams WHERE ask_at_ms > 0 AND ask_at_ms <= $1 \
                ORDER BY site, store_id LIMIT $2";
    let mut asks = Vec::new();
    for row in sql.query(text, &[now_ms.into(), ASKS.into()])? {
        let [site, store, contiguous, times, due] = row.as_slice() else { continue };
        let wait = ASK_MS.checked_shl(u32::try_from(times.number()).unwrap_or(0).min(16)).unwrap_or(ASK_MAX_MS);
        let text = "UPDATE streams SET ask_at_ms = $1, asked_times = asked_times + 1 WHERE site = $2 AND store_id = $3 AND ask_at_ms = $4";
        let next = now_ms + wait.min(ASK_MAX_MS);
        if sql.execute(text, &[next.into(), site.clone(), store.clone(), due.clone()])? > 0 {
            let (site, from) = (site.text().to_owned(), contiguous.number() + 1);
            asks.push(Ask { site, from, times: times.number() });
        }
    }
    Ok(asks)
}
