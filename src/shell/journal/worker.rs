//! The thread that owns the store.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::open::BLOCK;
use super::side::{self, Marks, State};
use super::store::{Fault, Store, guarded};
use super::{MAX_WAITING, Reader, Request};
use crate::engine::model::ids::Sequence;
use crate::engine::model::record::Record;
use crate::engine::site::io::{Input, JournalInput};
use crate::engine::time::Mono;
use crate::shell::clock::Clock;

/// Records in one commit at most: half a block of reserved numbers, some ms of writing.
const BATCH: usize = 500;
/// A failed store is tried again after so long, in ms.
const RETRY_MS: u64 = 2_000;
/// Records for which nobody waits are written after so long, in ms, or with the next one for which somebody does: each commit costs the flash
/// several times what a record has.
const LATER_MS: u64 = 15_000;
/// The cloud's cursor is written when it has moved by so much (a backlog that leaves moves it thousands of times a second, and reads wait for each
/// synchronisation) ...
const CURSOR_STEP: u64 = 500;
/// ... or after so long, in ms: losing it costs duplicates, which the cloud knows by their numbers; writing it costs as much flash as some
/// transactions.
const CURSOR_MS: u64 = 600_000;
/// ... and not again within so many ms: a backlog that leaves at 20,000 a second would have the disk synchronise its file 40 times.
const CURSOR_PAUSE_MS: u64 = 500;
/// Records are deleted in lots of this size, so that a deletion is worth its sync ...
const PRUNE_LEAST: u64 = 250;
/// ... and does not hold up a commit.
const PRUNE_MOST: u64 = 1_000;
/// While more than so many records leave for the cloud nothing is deleted: it would hold up the reads ...
const LEAVING: u64 = 2_000;
/// ... which is so as long as the cursor has moved within so many ms ...
const LEAVING_MS: u64 = 5_000;
/// ... and for so long at most, in ms: a link on which a backlog needs hours leaves time for both.
const PRUNE_LATER_MS: u64 = 600_000;
/// The pause between two lots, in ms, while more is to be deleted.
const PRUNE_PAUSE_MS: u64 = 20;
/// Without anything to do the thread looks up so often.
const IDLE: Duration = Duration::from_secs(60);

/// Who can make room on a full disk.
struct Relief(Box<dyn Fn() + Send>);

impl fmt::Debug for Relief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relief")
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    home: PathBuf,
    clock: Clock,
    /// Acknowledged records that are kept all the same.
    history: u64,
    store: Option<Store>,
    state: State,
    marks: Marks,
    /// The first record kept, remembered while the store is closed.
    first: u64,
    durable: u64,
    snapshot_through: u64,
    waiting: VecDeque<Record>,
    /// The last waiting record for which somebody waits; 0 if there is none.
    promised: u64,
    /// Since when records wait.
    waiting_since: Option<Mono>,
    snapshot: Option<(Sequence, Vec<u8>)>,
    reads: VecDeque<(Sequence, usize, Option<Reader>)>,
    acknowledged: u64,
    /// When that last moved.
    acknowledged_at: Mono,
    cursor_since: Option<Mono>,
    /// When its file was last written, in this life.
    cursor_at: Option<Mono>,
    /// Since when there is something to be deleted.
    prune_since: Option<Mono>,
    failed: bool,
    retry_at: Mono,
    relief: Option<Relief>,
}

impl Worker {
    pub(super) fn new(
        home: PathBuf,
        settings: (Clock, u64),
        files: (Store, State, Marks),
        through: (u64, u64),
    ) -> Self {
        let (clock, history) = settings;
        let (store, state, marks) = files;
        let (durable, snapshot_through) = through;
        Self {
            home,
            clock,
            history,
            first: store.first(),
            acknowledged: state.acknowledged,
            store: Some(store),
            state,
            marks,
            durable,
            snapshot_through,
            waiting: VecDeque::new(),
            promised: 0,
            waiting_since: None,
            snapshot: None,
            reads: VecDeque::new(),
            acknowledged_at: Mono::START,
            cursor_since: None,
            cursor_at: None,
            prune_since: None,
            failed: false,
            retry_at: Mono::START,
            relief: None,
        }
    }

    pub(super) fn relieved_by(&mut self, relief: Box<dyn Fn() + Send>) {
        self.relief = Some(Relief(relief));
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    pub(super) fn run(mut self, requests: &Receiver<Request>, inbox: &mpsc::Sender<Input>, closing: &AtomicBool) {
        loop {
            let open = self.take_requests(requests);
            // Draining goes on after the handle is gone, but not for ever on a disk that refuses.
            let closing = closing.load(Ordering::SeqCst);
            if closing {
                self.cursor_since = Some(Mono::START);
                self.promised = self.waiting.back().map_or(0, |last| last.sequence.0);
                self.retry_at = Mono::START;
            }
            self.work_and_report(inbox);
            if closing && (!open || self.store.is_none()) {
                // The next start does without it.
                let _ = self.marks.settle(self.durable);
                return;
            }
        }
    }

    /// Takes what waits, up to a batch. False: nobody can ask any more.
    fn take_requests(&mut self, requests: &Receiver<Request>) -> bool {
        if self.waiting.len() >= MAX_WAITING {
            // The rest waits in the queue; when that is full too, the site is told by the call.
            std::thread::sleep(self.pause().min(Duration::from_millis(100)));
            return true;
        }
        match requests.recv_timeout(self.pause()) {
            Ok(request) => self.take(request),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        for _ in 1..BATCH {
            match requests.try_recv() {
                Ok(request) => self.take(request),
                Err(_) => return true,
            }
        }
        true
    }

    fn pause(&self) -> Duration {
        let now = self.clock.mono();
        if self.failed {
            return Duration::from_millis(self.retry_at.since(now));
        }
        let cursor = self.cursor_since.map(|since| self.cursor_due(since));
        let records = self.waiting_since.map(|since| since.plus_ms(LATER_MS));
        let prune = self.prune_since.map(|since| self.prune_due(since, now).max(now.plus_ms(PRUNE_PAUSE_MS)));
        let next = [cursor, records, prune].into_iter().flatten().min();
        next.map_or(IDLE, |at| Duration::from_millis(at.since(now)).min(IDLE))
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Append(records) => {
                for record in records {
                    let expected = self.waiting.back().map_or(self.durable, |last| last.sequence.0) + 1;
                    assert_eq!(record.sequence.0, expected, "records are numbered without a gap");
                    if !record.body.can_wait() {
                        self.promised = record.sequence.0;
                    }
                    self.waiting.push_back(record);
                    self.waiting_since.get_or_insert(self.clock.mono());
                }
            }
            Request::Snapshot { through, state } => self.snapshot = Some((through, state)),
            Request::Acknowledged(through) => {
                if through.0 > self.acknowledged {
                    self.acknowledged = through.0;
                    self.acknowledged_at = self.clock.mono();
                    self.cursor_since.get_or_insert(self.clock.mono());
                }
            }
            Request::Read { from, limit, answer } => {
                // One reader asks again only after an answer or a while: older questions are not waited for any more.
                if self.reads.len() >= BATCH {
                    self.reads.pop_front();
                }
                self.reads.push_back((from, limit, answer));
            }
        }
    }

    fn work_and_report(&mut self, inbox: &mpsc::Sender<Input>) {
        let retry = self.failed && self.clock.mono() >= self.retry_at;
        if self.store.is_some() || retry {
            if let Err(fault) = self.work(inbox) {
                self.fail(fault, inbox);
            } else {
                self.recovered(inbox);
            }
        }
        while let Some((from, limit, answer)) = self.reads.pop_front() {
            if let Some((answer, _place)) = answer {
                // Whoever asked may have gone. A failed disk is reported by the site's own work.
                let _ = answer.send(self.read_durable(from, limit));
                continue;
            }
            let records = match self.store.as_ref().map(|store| store.read(from.0, limit)) {
                Some(Ok(mut records)) => {
                    records.retain(|record| record.sequence.0 <= self.durable);
                    records
                }
                Some(Err(fault)) => {
                    self.fail(fault, inbox);
                    Vec::new()
                }
                None => Vec::new(),
            };
            tell(inbox, JournalInput::Records { records });
        }
    }

    fn read_durable(&self, from: Sequence, limit: usize) -> Result<Vec<Record>, String> {
        let store = self.store.as_ref().ok_or("the disk refuses")?;
        let mut records = store.read(from.0, limit).map_err(|fault| match fault {
            Fault::Environment(error) | Fault::Newer(error) | Fault::Damaged(error) => error,
        })?;
        records.retain(|record| record.sequence.0 <= self.durable);
        Ok(records)
    }

    fn work(&mut self, inbox: &mpsc::Sender<Input>) -> Result<(), Fault> {
        let mut store = match self.store.take() {
            Some(store) => store,
            None => self.reopen()?,
        };
        while self.must_commit() {
            self.commit(&mut store)?;
            self.recovered(inbox);
            tell(inbox, JournalInput::Durable { through: Sequence(self.durable) });
        }
        if let Some((through, state)) = &self.snapshot {
            side::write_snapshot(&self.home, through.0, state)?;
            self.snapshot_through = through.0;
            self.snapshot = None;
        }
        self.write_cursor()?;
        self.prune(&mut store)?;
        self.first = store.first();
        self.store = Some(store);
        Ok(())
    }

    /// Whether what waits is written now. A snapshot may fold it in, and must not be ahead of the records.
    fn must_commit(&self) -> bool {
        let waited = self.waiting_since.is_some_and(|since| self.clock.mono() >= since.plus_ms(LATER_MS));
        let wanted = self.promised > self.durable || self.snapshot.is_some() || self.waiting.len() >= BATCH;
        !self.waiting.is_empty() && (waited || wanted || self.failed)
    }

    fn commit(&mut self, store: &mut Store) -> Result<(), Fault> {
        let count = self.waiting.len().min(BATCH);
        let batch = &self.waiting.make_contiguous()[..count];
        let Some(last) = batch.last().map(|record| record.sequence.0) else { return Ok(()) };
        if last > self.state.reserved {
            let reserved = State { reserved: self.durable + BLOCK, ..self.state.clone() };
            side::write_state(&self.home, &reserved)?;
            self.state = reserved;
        }
        store.append(batch)?;
        self.marks.write(last, self.clock.mono())?;
        self.durable = last;
        self.waiting.drain(..count);
        if self.waiting.is_empty() {
            self.waiting_since = None;
        }
        Ok(())
    }

    fn write_cursor(&mut self) -> Result<(), Fault> {
        let Some(since) = self.cursor_since else { return Ok(()) };
        let now = self.clock.mono();
        if self.acknowledged > self.state.acknowledged && (now >= self.cursor_due(since) || since == Mono::START) {
            self.cursor_at = Some(now);
            let state = State { acknowledged: self.acknowledged, ..self.state.clone() };
            side::write_state(&self.home, &state)?;
            self.state = state;
        }
        if self.acknowledged == self.state.acknowledged {
            self.cursor_since = None;
        }
        Ok(())
    }

    /// When the cursor that moved at `since` is written.
    fn cursor_due(&self, since: Mono) -> Mono {
        let late = since.plus_ms(CURSOR_MS);
        let moved = self.acknowledged - self.state.acknowledged;
        let soon = self.cursor_at.map_or(since, |at| at.plus_ms(CURSOR_PAUSE_MS));
        if moved >= CURSOR_STEP { late.min(soon) } else { late }
    }

    /// Deletes what the cloud has, a snapshot holds and no history wants.
    fn prune(&mut self, store: &mut Store) -> Result<(), Fault> {
        let through = self.state.acknowledged.min(self.snapshot_through).min(self.durable.saturating_sub(self.history));
        if store.first() == 0 || through < store.first() + PRUNE_LEAST {
            self.prune_since = None;
            return Ok(());
        }
        let now = self.clock.mono();
        let since = *self.prune_since.get_or_insert(now);
        if now >= self.prune_due(since, now) {
            store.prune(through, PRUNE_MOST)?;
        }
        Ok(())
    }

    /// When what is to be deleted since `since` is deleted.
    fn prune_due(&self, since: Mono, now: Mono) -> Mono {
        let moves = now.since(self.acknowledged_at) < LEAVING_MS;
        let leaves = moves && self.durable.saturating_sub(self.acknowledged) > LEAVING;
        since.plus_ms(if leaves { PRUNE_LATER_MS } else { 0 })
    }

    fn reopen(&self) -> Result<Store, Fault> {
        // To open a store costs a copy of it: not every two seconds on a disk that is full.
        side::try_to_write(&self.home)?;
        let (store, last) = guarded(|| {
            let mut store = Store::open(&self.home.join("db"))?;
            let last = store.resume(self.first)?;
            Ok((store, last))
        })?;
        if last < self.durable {
            return Err(Fault::Damaged(format!("it ends at record {last} and had records up to {}", self.durable)));
        }
        Ok(store)
    }

    fn fail(&mut self, fault: Fault, inbox: &mpsc::Sender<Input>) {
        // sled refuses everything after its first error; only a new opening heals it.
        self.store = None;
        self.retry_at = self.clock.mono().plus_ms(RETRY_MS);
        if let Some(Relief(relief)) = self.relief.as_ref().filter(|_| fault.is_full_disk()) {
            relief();
        }
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        let path = self.home.display();
        let error = match fault {
            Fault::Environment(error) => {
                format!("the store {path} cannot be written: {error}; free space or mount it writable")
            }
            Fault::Newer(error) => format!("the store {path}: {error}"),
            Fault::Damaged(error) => {
                format!(
                    "the store {path} is damaged: {error}; restart siteward, which sets it aside, and replace the disk"
                )
            }
        };
        tell(inbox, JournalInput::Failed { error });
    }

    fn recovered(&mut self, inbox: &mpsc::Sender<Input>) {
        if std::mem::take(&mut self.failed) {
            tell(inbox, JournalInput::Recovered);
        }
    }
}

fn tell(inbox: &mpsc::Sender<Input>, input: JournalInput) {
    // The site has ended: there is nobody left to tell.
    let _ = inbox.blocking_send(Input::Journal(input));
}
