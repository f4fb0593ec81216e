//! Stores with records of every kind, written by the daemon's own journal.

use std::sync::OnceLock;

use siteward::engine::model::ids::{IdToken, Sequence};
use siteward::engine::model::record::{Record, RecordBody, Stamp};
use siteward::engine::model::token::{ListPart, TokensOrder};
use siteward::engine::site::io::{Input, JournalInput};
use siteward::engine::site::ledger::Ledger;
use siteward::engine::time::{Mono, Utc};
use siteward::shell::clock::Clock;
use siteward::shell::journal::{Journal, JournalHandle};
use siteward_sim::rng::Dice;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use crate::tree::{self, Tree};

/// What one start of the daemon writes.
pub(crate) const SESSION: u64 = 300;

/// A store, and what was written into it.
pub(crate) struct Filled {
    pub(crate) files: Tree,
    pub(crate) store_id: String,
    /// The first record that is kept.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) acknowledged: u64,
    /// How many acknowledged records its daemon keeps.
    pub(crate) history: u64,
    /// It has records as large as a message with tokens makes them.
    pub(crate) large: bool,
}

/// An example of every kind of record.
pub(crate) fn bodies() -> &'static [RecordBody] {
    static BODIES: OnceLock<Vec<RecordBody>> = OnceLock::new();
    BODIES.get_or_init(|| {
        let lines = include_str!("../../../src/engine/cloud/golden/records.jsonl").lines();
        lines.map(|line| serde_json::from_str::<Record>(line).unwrap().body).collect()
    })
}

/// The record with a number, the same each time.
pub(crate) fn record(sequence: u64, large: bool) -> Record {
    let boot = (sequence - 1) / SESSION + 1;
    let mono = Mono::from_ms(sequence * 61_000);
    let utc = Utc::from_unix_ms(1_772_366_400_000).plus_ms(i64::try_from(sequence).unwrap() * 61_000);
    let stamp = Stamp { utc, trusted: sequence % 40 > 2, mono, boot };
    let bodies = bodies();
    let mut body = bodies[usize::try_from(sequence * 7).unwrap() % bodies.len()].clone();
    if large && sequence.is_multiple_of(23) {
        let part = ListPart { list: "2026-03-01".to_owned(), part: u32::try_from(sequence).unwrap(), parts: 4_000 };
        // As different as cards are: a list that can be packed to nothing would not fill the database's pages.
        let mut dice = Dice::new(sequence);
        let tokens =
            (0..sequence * 31 % 9_000).map(|_| IdToken::new(&format!("{:014X}", dice.below(1 << 56)))).collect();
        // Two forms of it: entries carry more than their token.
        body = if sequence.is_multiple_of(2) {
            RecordBody::TokensChanged { order: Box::new(TokensOrder::Delete { tokens }), revokes: true }
        } else {
            RecordBody::StoreRecovered { missing: format!("{part:?} {tokens:?}") }
        };
    }
    Record { sequence: Sequence(sequence), stamp, body }
}

/// The state that the records from 1 to `through` make.
pub(crate) fn fold(through: u64, large: bool) -> Ledger {
    let mut ledger = Ledger::default();
    for sequence in 1..=through {
        ledger.apply(&record(sequence, large));
    }
    ledger
}

/// Waits until `last` is durable.
pub(crate) fn await_durable(inbox: &mut mpsc::Receiver<Input>, last: u64) -> Result<(), String> {
    loop {
        match inbox.blocking_recv() {
            Some(Input::Journal(JournalInput::Durable { through })) if through.0 >= last => return Ok(()),
            Some(Input::Journal(JournalInput::Durable { .. } | JournalInput::Records { .. })) => {}
            Some(Input::Journal(JournalInput::Failed { error })) => return Err(error),
            other => return Err(format!("{other:?}")),
        }
    }
}

/// A store of one run, closed in order.
pub(crate) fn young() -> &'static Filled {
    static STORE: OnceLock<Filled> = OnceLock::new();
    STORE.get_or_init(|| fill(1, 10_000, false))
}

/// A store of four runs of which most is deleted again, as `kill -9` leaves it.
pub(crate) fn old() -> &'static Filled {
    static STORE: OnceLock<Filled> = OnceLock::new();
    STORE.get_or_init(|| fill(4, 150, false))
}

/// A store with records so large that sled keeps some of its pages in files of their own.
pub(crate) fn large() -> &'static Filled {
    static STORE: OnceLock<Filled> = OnceLock::new();
    STORE.get_or_init(|| fill(2, 200, true))
}

fn fill(sessions: u64, history: u64, large: bool) -> Filled {
    let dir = TempDir::new().unwrap();
    let mut dice = Dice::new(sessions);
    let mut store_id = String::new();
    let mut files = Tree::new();
    for session in 1..=sessions {
        let opened = Journal::open(dir.path(), history, Clock::start()).unwrap();
        assert_eq!((opened.damage, opened.boot), (None, session));
        store_id = opened.store_id;
        let (sender, mut inbox) = mpsc::channel(64);
        let handle = opened.journal.start(sender).unwrap();
        run(&handle, &mut inbox, session, &mut dice, large);
        if session == sessions && sessions > 2 {
            // Its answer comes when everything before it is done.
            let (answer, reader) = oneshot::channel();
            handle.read_for(Sequence(1), 1, answer).unwrap();
            reader.blocking_recv().unwrap().unwrap();
            files = tree::read(&dir.path().join("journal"));
        }
        drop(inbox);
        handle.close();
    }
    if files.is_empty() {
        files = tree::read(&dir.path().join("journal"));
    }
    let place = TempDir::new().unwrap();
    tree::write(&files, &place.path().join("journal"));
    let look = siteward::shell::journal::look(place.path(), false).unwrap();
    assert!(look.findings.is_empty() && look.missing().is_empty(), "{:?}", look.findings);
    let (first, last) = (*look.records.keys().next().unwrap(), sessions * SESSION);
    assert!(look.records.values().all(|found| *found == record(found.sequence.0, large)), "as written");
    assert_eq!(look.records.keys().next_back(), Some(&last));
    assert_eq!(first > 1, sessions > 1, "the older ones were deleted: {first}");
    Filled { files, store_id, first, last, acknowledged: look.acknowledged, history, large }
}

/// Writes one session's records in groups, with snapshots and a cursor behind them.
fn run(handle: &JournalHandle, inbox: &mut mpsc::Receiver<Input>, session: u64, dice: &mut Dice, large: bool) {
    let end = session * SESSION;
    let mut sent = end - SESSION;
    while sent < end {
        let group = dice.between(1, 8).min(end - sent);
        handle.append((sent + 1..=sent + group).map(|sequence| record(sequence, large)).collect()).unwrap();
        sent += group;
        await_durable(inbox, sent).unwrap();
        if dice.below(12) == 0 {
            handle.snapshot(Sequence(sent), fold(sent, large).snapshot()).unwrap();
        }
        handle.acknowledged(Sequence(sent.saturating_sub(40))).unwrap();
    }
}
