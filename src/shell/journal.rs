//! The journal on disk: one thread owns it, groups commits, and says what is durable.
//!
//! Below `store.path` lies one directory `journal`: the database (`db/`), and beside it `state` (store id, boot counter, cursor of
//! the cloud), `mark` (the last durable record) and `snapshot`. A damaged one is set aside whole as `journal.damaged-<n>`.

mod blobs;
mod codec;
mod inspect;
mod keep;
mod open;
mod rebuild;
mod rehearsal;
mod side;
mod store;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::engine::model::ids::Sequence;
use crate::engine::model::record::Record;
use crate::engine::site::io::Input;
use crate::shell::clock::Clock;
pub use inspect::{Look, LookError, SnapshotLook, look};
pub use rebuild::rebuild;
pub use store::in_guarded_open;

/// Requests that may wait for the thread: some seconds of the busiest site while the disk is slow.
const QUEUE: usize = 4_096;
/// Questions of people that may wait for the thread: they share its queue with the records, which must find room, and each takes its time.
const MAX_READERS: usize = 16;
/// Records kept in memory while the disk refuses, besides those in the queue: about 10 MB.
pub const MAX_WAITING: usize = 20_000;
/// Acknowledged records that are kept for `events.replay` and for people unless the configuration says otherwise, about 5 MB.
pub const HISTORY: u64 = 10_000;

/// A store that cannot be opened, in words for the person who has to change it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or written.
    #[error("store path {path} is not writable: {error}; give it to the user siteward or change store.path")]
    NotWritable {
        /// Where.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// The store is there and cannot be used now.
    #[error("the store in {path} cannot be opened: {error}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why.
        error: String,
    },
}

/// The queue to the journal's thread is full: the disk has refused or hung for so long that [`MAX_WAITING`] records wait. A numbered
/// record that is not kept would be a gap, so the process has to end; the stations keep their safe limits by their leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk has not taken records for too long: {MAX_WAITING} wait in memory and no more can be kept")]
pub struct JournalFull;

/// What the store knew when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// The journal, to be started.
    pub journal: Journal,
    /// The store's random name.
    pub store_id: String,
    /// Counts the starts on this store, from 1.
    pub boot: u64,
    /// The cloud has everything up to here.
    pub acknowledged: Sequence,
    /// The last record.
    pub last: Sequence,
    /// The last snapshot, with the last record folded into it.
    pub snapshot: Option<(Sequence, Vec<u8>)>,
    /// The records after the snapshot, in order.
    pub records: Vec<Record>,
    /// What is known to be missing, if a damaged store was set aside. Said at every start until this store has a record.
    pub damage: Option<String>,
}

/// An opened journal whose thread does not run yet.
#[derive(Debug)]
pub struct Journal {
    worker: worker::Worker,
}

impl Journal {
    /// Opens the store below `dir`, or makes one. A damaged store is set aside and a new one begins. Reads every record once, so it
    /// takes a while (about 0.1 s for 10,000 records): call it before the control loop runs. `history` acknowledged records are kept
    /// ([`HISTORY`] unless somebody says otherwise).
    ///
    /// # Errors
    /// If the directory cannot be written, another process has the store, or the disk is full.
    pub fn open(dir: &Path, history: u64, clock: Clock) -> Result<Opened, OpenError> {
        open::open(dir, None, history, clock)
    }

    /// The same with a folder on a RAM disk, where what changes with each record and need not survive the machine is kept: that spares the flash a page
    /// with most commits. A folder that is not there does no harm.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_beside(dir: &Path, memory: Option<&Path>, history: u64, clock: Clock) -> Result<Opened, OpenError> {
        open::open(dir, memory, history, clock)
    }

    /// Asks `relief` for room whenever the disk is full.
    #[must_use]
    pub fn relieved_by(mut self, relief: impl Fn() + Send + 'static) -> Self {
        self.worker.relieved_by(Box::new(relief));
        self
    }

    /// Starts the thread. It answers into `inbox` and waits there while it is full.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(self, inbox: mpsc::Sender<Input>) -> Result<JournalHandle, OpenError> {
        let (requests, receiver) = sync_channel(QUEUE);
        let closing = Arc::new(AtomicBool::new(false));
        let worker = self.worker;
        let path = worker.home().to_owned();
        let thread_closing = Arc::clone(&closing);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || worker.run(&receiver, &inbox, &thread_closing))
            .map_err(|error| OpenError::Unusable { path, error: format!("no thread: {error}") })?;
        let readers = Arc::new(Semaphore::new(MAX_READERS));
        Ok(JournalHandle { requests: Some(requests), closing, readers, thread: Some(thread) })
    }
}

/// The way to the journal's thread. No call waits.
#[derive(Debug)]
pub struct JournalHandle {
    requests: Option<SyncSender<Request>>,
    closing: Arc<AtomicBool>,
    readers: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Request {
    Append(Vec<Record>),
    Snapshot { through: Sequence, state: Vec<u8> },
    Acknowledged(Sequence),
    Read { from: Sequence, limit: usize, answer: Option<Reader> },
}

/// A person who waits for records, with the place among [`MAX_READERS`].
type Reader = (ReadAnswer, OwnedSemaphorePermit);

/// Where records go that a person asked for; those that the site asked for go to the site.
pub type ReadAnswer = oneshot::Sender<Result<Vec<Record>, String>>;

impl JournalHandle {
    /// Appends records, numbered one after the other. They are durable when the site is told so.
    ///
    /// # Errors
    /// If no more can be kept: see [`JournalFull`].
    pub fn append(&self, records: Vec<Record>) -> Result<(), JournalFull> {
        self.send(Request::Append(records))
    }

    /// Stores the folded state. `through` must have been appended before.
    ///
    /// # Errors
    /// If the queue is full: the snapshot is left out, the next one makes it good.
    pub fn snapshot(&self, through: Sequence, state: Vec<u8>) -> Result<(), JournalFull> {
        self.send(Request::Snapshot { through, state })
    }

    /// The cloud (or, without one, nobody) needs the records up to `through` no more.
    ///
    /// # Errors
    /// If the queue is full: the next call makes it good.
    pub fn acknowledged(&self, through: Sequence) -> Result<(), JournalFull> {
        self.send(Request::Acknowledged(through))
    }

    /// Asks for records; they come as an input to the site, none while the disk fails.
    ///
    /// # Errors
    /// If the queue is full: nothing comes.
    pub fn read(&self, from: Sequence, limit: usize) -> Result<(), JournalFull> {
        self.send(Request::Read { from, limit, answer: None })
    }

    /// Asks for records for somebody other than the site: durable ones from `from` on, at most `limit`, or why there are none.
    ///
    /// # Errors
    /// If the queue is full, or 16 readers wait already: `answer` is dropped.
    pub fn read_for(&self, from: Sequence, limit: usize, answer: ReadAnswer) -> Result<(), JournalFull> {
        let place = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| JournalFull)?;
        self.send(Request::Read { from, limit, answer: Some((answer, place)) })
    }

    /// Writes what waits and ends the thread. Blocks until then: drop the inbox's receiver or keep it drained.
    pub fn close(mut self) {
        self.end();
    }

    fn send(&self, request: Request) -> Result<(), JournalFull> {
        match self.requests.as_ref().map(|requests| requests.try_send(request)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => Err(JournalFull),
        }
    }

    fn end(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has aborted the process already.
            let _ = thread.join();
        }
    }
}

impl Drop for JournalHandle {
    fn drop(&mut self) {
        self.end();
    }
}
