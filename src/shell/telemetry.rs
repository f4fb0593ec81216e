//! The telemetry ring on disk: one thread owns it, numbers intervals, and drops the oldest where room is short.
//!
//! Below `store.path` lies the directory `telemetry`: `ring` (its name and cursor) and segments, each named by its first number, with a line for each
//! interval: `crc32 (of what follows, 8 hexadecimal digits) number JSON`. Telemetry is no promise: what cannot be written is dropped, and its
//! numbers are not given again, so that the gap is seen. Nothing is sent before it is on the disk, or a power cut could give a number twice.

mod ring;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::engine::site::io::{Input, TelemetryInput};
use ring::Ring;

/// Requests that may wait for the thread. Beyond it they are dropped: telemetry never holds anything up.
const QUEUE: usize = 64;

#[derive(Debug)]
enum Request {
    Append(Vec<String>),
    Read { from: u64, limit: usize },
    Acknowledged(u64),
    GiveWay,
    End,
}

/// The way to the ring's thread. No call waits; what finds no room in the queue is dropped. Dropping it ends the thread.
#[derive(Debug)]
pub struct TelemetryHandle {
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// Asks the ring for room, from whichever thread needs it.
#[derive(Clone, Debug)]
pub struct Relief(SyncSender<Request>);

impl Relief {
    /// The disk is full: half of what the ring keeps goes.
    pub fn give_way(&self) {
        let _ = self.0.try_send(Request::GiveWay);
    }
}

impl TelemetryHandle {
    /// Starts the thread for the ring below `store`, where all together has at most `room` bytes: the ring has what the rest leaves. It answers into
    /// `inbox` and waits there while it is full.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(store: &Path, room: u64, inbox: mpsc::Sender<Input>) -> std::io::Result<Self> {
        let (requests, receiver) = sync_channel(QUEUE);
        let store = store.to_owned();
        let thread = std::thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(move || Worker { store, room, ring: None, complained: false }.run(&receiver, &inbox))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Keeps intervals, in order.
    pub fn append(&self, intervals: Vec<String>) {
        self.send(Request::Append(intervals));
    }

    /// Asks for intervals from `from` on; they come as an input to the site.
    pub fn read(&self, from: u64, limit: usize) {
        self.send(Request::Read { from, limit });
    }

    /// Everything up to `through` was delivered.
    pub fn acknowledged(&self, through: u64) {
        self.send(Request::Acknowledged(through));
    }

    /// Who needs room on the disk more than telemetry does asks here.
    #[must_use]
    pub fn relief(&self) -> Option<Relief> {
        self.requests.clone().map(Relief)
    }

    fn send(&self, request: Request) {
        if let Some(requests) = &self.requests {
            let _ = requests.try_send(request);
        }
    }
}

impl Drop for TelemetryHandle {
    fn drop(&mut self) {
        // Whoever asks for room may have the queue for longer than this.
        if let Some(requests) = self.requests.take() {
            let _ = requests.send(Request::End);
        }
        if let Some(thread) = self.thread.take() {
            // A panic there has aborted the process already.
            let _ = thread.join();
        }
    }
}

struct Worker {
    store: PathBuf,
    room: u64,
    /// `None`: it cannot be opened. It is tried again with each interval.
    ring: Option<Ring>,
    complained: bool,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>, inbox: &mpsc::Sender<Input>) {
        self.open();
        self.tell_kept(inbox);
        while let Ok(request) = requests.recv() {
            match request {
                Request::Append(intervals) => {
                    self.open();
                    let written = self.ring.as_mut().map(|ring| ring.append(&intervals, self.room));
                    if let Some(written) = written {
                        self.note(&written);
                    }
                    self.tell_kept(inbox);
                }
                Request::Read { from, limit } => {
                    let intervals = self.ring.as_ref().map(|ring| ring.read(from, limit)).unwrap_or_default();
                    tell(inbox, TelemetryInput::Intervals { intervals });
                }
                Request::Acknowledged(through) => {
                    if let Some(ring) = &mut self.ring {
                        ring.acknowledged(through);
                    }
                }
                Request::End => break,
                Request::GiveWay => {
                    if let Some(dropped) = self.ring.as_mut().map(Ring::give_way).filter(|dropped| *dropped > 0) {
                        tracing::warn!(
                            "the disk is full: {dropped} bytes of telemetry were dropped to make room for the journal; free space on it"
                        );
                        self.tell_kept(inbox);
                    }
                }
            }
        }
        let saved = self.ring.as_mut().map_or(Ok(()), Ring::save);
        self.note(&saved);
    }

    fn open(&mut self) {
        if self.ring.is_some() {
            return;
        }
        match Ring::open(&self.store) {
            Ok(ring) => self.ring = Some(ring),
            Err(error) => self.note(&Err(error)),
        }
    }

    /// Says what is wrong once, until it is right again.
    fn note(&mut self, result: &std::io::Result<()>) {
        if let Some(error) = result.as_ref().err().filter(|_| !self.complained) {
            let path = self.store.display();
            tracing::warn!(
                "telemetry cannot be kept in {path}/telemetry and is dropped: {error}; free space, or give the folder to the user siteward"
            );
        }
        self.complained = result.is_err();
    }

    fn tell_kept(&self, inbox: &mpsc::Sender<Input>) {
        if let Some(ring) = &self.ring {
            let (dropped, newest) = ring.kept();
            tell(inbox, TelemetryInput::Kept { ring: ring.name().to_owned(), dropped, newest });
        }
    }
}

fn tell(inbox: &mpsc::Sender<Input>, input: TelemetryInput) {
    // The site has ended: there is nobody left to tell.
    let _ = inbox.blocking_send(Input::Telemetry(input));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_numbered_and_read_back_also_by_the_next_run() {
        let store = tempfile::TempDir::new().unwrap();
        let (sender, mut inbox) = mpsc::channel(16);
        let start = || TelemetryHandle::start(store.path(), 10_000_000, sender.clone()).unwrap();
        let handle = start();
        let Some(Input::Telemetry(TelemetryInput::Kept { ring, dropped: 0, newest: 0 })) = inbox.recv().await else {
            panic!("an empty ring")
        };
        handle.append(vec!["{\"a\":1}".to_owned(), "{\"a\":2}".to_owned()]);
        let kept = |dropped, newest| Input::Telemetry(TelemetryInput::Kept { ring: ring.clone(), dropped, newest });
        assert_eq!(inbox.recv().await, Some(kept(0, 2)));
        handle.acknowledged(1);
        drop(handle);
        let handle = start();
        assert_eq!(inbox.recv().await, Some(kept(1, 2)), "the same ring, with its cursor");
        handle.read(2, 10);
        let intervals = vec![(2, "{\"a\":2}".to_owned())];
        assert_eq!(inbox.recv().await, Some(Input::Telemetry(TelemetryInput::Intervals { intervals })));
        handle.relief().unwrap().give_way();
        assert_eq!(inbox.recv().await, Some(kept(2, 2)));
        handle.append(vec!["{}".to_owned()]);
        assert_eq!(inbox.recv().await, Some(kept(2, 3)), "no number is given twice");
    }
}
