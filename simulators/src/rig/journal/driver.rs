//! The daemon's journal, driven as the daemon drives it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use siteward::engine::model::ids::Sequence;
use siteward::engine::model::record::Record;
use siteward::engine::site::io::{Input, JournalInput};
use siteward::engine::site::ledger::Ledger;
use siteward::shell::clock::Clock;
use siteward::shell::journal::{Journal, JournalHandle};
use tokio::sync::mpsc;

/// What the site stores a snapshot after.
const SNAPSHOT_EVERY: u64 = 1_000;
/// What the daemon's inbox holds.
const INBOX: usize = 1_024;
/// Every record is on the disk after so long, in ms.
const WRITTEN_MS: u64 = 15_000;

/// An open journal, and the state that the site would have.
pub(super) struct Driver {
    /// By how much its clock is ahead, in ms. It lives as long as the program, since a clock is copied everywhere.
    ahead_ms: &'static AtomicU64,
    handle: JournalHandle,
    inbox: mpsc::Receiver<Input>,
    /// Behind the handle: the journal clears it when it is closed.
    _memory: tempfile::TempDir,
    ledger: Ledger,
    /// The last record appended.
    pub(super) last: u64,
    /// The last that is on the disk.
    pub(super) durable: u64,
    /// How often something was said to be durable.
    pub(super) commits: u64,
    snapshot_at: u64,
}

impl Driver {
    /// Opens the store below `dir` and folds what it holds, as the daemon does at its start.
    pub(super) fn open(dir: &Path, history: u64) -> Result<Self, String> {
        let ahead_ms: &'static AtomicU64 = Box::leak(Box::default());
        // What systemd gives the daemon: a folder in memory.
        let memory = tempfile::tempdir_in("/dev/shm").map_err(|error| format!("/dev/shm: {error}"))?;
        let clock = Clock::ahead_by(ahead_ms);
        let opened =
            Journal::open_beside(dir, Some(memory.path()), history, clock).map_err(|error| error.to_string())?;
        if let Some(damage) = opened.damage {
            return Err(damage);
        }
        let (mut ledger, mut snapshot_at) = (Ledger::default(), 0);
        if let Some((through, state)) = opened.snapshot {
            ledger = Ledger::restore(&state).map_err(|error| error.to_string())?;
            snapshot_at = through.0;
        }
        opened.records.iter().for_each(|record| ledger.apply(record));
        let last = opened.last.0;
        let (sender, inbox) = mpsc::channel(INBOX);
        let handle = opened.journal.start(sender).map_err(|error| error.to_string())?;
        Ok(Self { ahead_ms, handle, inbox, _memory: memory, ledger, last, durable: last, commits: 0, snapshot_at })
    }

    /// Hands records over, and a snapshot when the site would.
    pub(super) fn append(&mut self, records: Vec<Record>) -> Result<(), String> {
        for record in &records {
            self.ledger.apply(record);
            self.last = record.sequence.0;
        }
        self.handle.append(records).map_err(|error| error.to_string())?;
        if self.last >= self.snapshot_at + SNAPSHOT_EVERY {
            self.snapshot_at = self.last;
            self.handle.snapshot(Sequence(self.last), self.ledger.snapshot()).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Waits until all are on the disk, the last of which somebody waits for.
    pub(super) fn wait(&mut self) -> Result<(), String> {
        while self.durable < self.last {
            self.hear()?;
        }
        Ok(())
    }

    /// The cloud has the records up to that one.
    pub(super) fn acknowledge(&self, through: u64) -> Result<(), String> {
        self.handle.acknowledged(Sequence(through)).map_err(|error| error.to_string())
    }

    /// Appends records as time passes, until all are on the disk.
    pub(super) fn live(&mut self, records: Vec<Record>) -> Result<(), String> {
        self.append(records)?;
        self.pass(WRITTEN_MS)
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ms: u64) -> Result<(), String> {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
        self.settle()
    }

    /// Waits until the journal has done what it has to do at this time.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.handle.read(Sequence(self.last), 0).map_err(|error| error.to_string())?;
        while !self.hear()? {}
        Ok(())
    }

    /// Takes the next word of the journal: whether it answers [`Driver::settle`].
    fn hear(&mut self) -> Result<bool, String> {
        match self.inbox.blocking_recv() {
            Some(Input::Journal(JournalInput::Durable { through })) => {
                self.durable = through.0;
                self.commits += 1;
            }
            Some(Input::Journal(JournalInput::Records { .. })) => return Ok(true),
            Some(Input::Journal(JournalInput::Failed { error })) => return Err(error),
            Some(_) => {}
            None => return Err("the journal has ended".to_owned()),
        }
        Ok(false)
    }

    /// Ends it in order.
    pub(super) fn close(self) {
        drop(self.inbox);
        self.handle.close();
    }
}
