//! A start of the daemon on a store, in a process of its own: there an abort and a hang are seen as well.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use siteward::engine::model::ids::Sequence;
use siteward::engine::model::record::Record;
use siteward::shell::clock::Clock;
use siteward::shell::journal::{Journal, JournalHandle, OpenError};
use siteward_sim::net::clock::Clock as Watch;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use crate::filled::{Filled, await_durable, fold, record};

/// Where the child finds its store, what it keeps, and whether its records are large.
const CHILD: &str = "SITEWARD_TEST_STORE";
/// Nothing here takes longer on a machine that works.
const PATIENCE_MS: u64 = 60_000;
/// Records that a start writes: enough that older ones are deleted and sled moves its pages.
pub(crate) const WORK: u64 = 250;

/// What the child is to do.
#[derive(Serialize, Deserialize)]
struct Order {
    dir: PathBuf,
    history: u64,
    large: bool,
    /// Where it leaves its [`Start`].
    answer: PathBuf,
}

/// What a start came to.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Why it would not start.
    pub(crate) refused: Option<String>,
    pub(crate) store_id: String,
    pub(crate) boot: u64,
    pub(crate) acknowledged: u64,
    pub(crate) last: u64,
    pub(crate) damage: Option<String>,
    /// The last record in the snapshot; 0 without one.
    pub(crate) through: u64,
    /// What is there and is not what was written.
    pub(crate) wrong: Vec<String>,
    /// What the journal's thread has reported while it worked.
    pub(crate) failed: Option<String>,
}

/// Starts on the store below `dir` as the daemon does, and lets it work. `Err`: it died or hung.
pub(crate) fn start(dir: &Path, store: &Filled) -> Result<Start, String> {
    let place = TempDir::new().unwrap();
    let answer = place.path().join("answer");
    let order = Order { dir: dir.to_owned(), history: store.history, large: store.large, answer: answer.clone() };
    let said = std::fs::File::create(place.path().join("said")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "start::child_that_starts", "--nocapture"])
        .env(CHILD, serde_json::to_string(&order).unwrap())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .unwrap();
    let watch = Watch::start();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if watch.mono().ms() > PATIENCE_MS {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err("it hangs".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if status.success() {
        return Ok(serde_json::from_slice(&std::fs::read(answer).unwrap()).unwrap());
    }
    Err(format!("it died, {status}: {}", std::fs::read_to_string(place.path().join("said")).unwrap()))
}

/// Runs only as a child.
#[test]
fn child_that_starts() {
    let Some(order) = std::env::var_os(CHILD) else { return };
    let order: Order = serde_json::from_str(order.to_str().unwrap()).unwrap();
    // The daemon's own: whatever is not caught on purpose ends the process.
    siteward::shell::panic::install();
    let done = started(&order).unwrap_or_else(|error| Start { refused: Some(error.to_string()), ..Start::default() });
    std::fs::write(&order.answer, serde_json::to_vec(&done).unwrap()).unwrap();
}

fn started(order: &Order) -> Result<Start, OpenError> {
    let opened = Journal::open(&order.dir, order.history, Clock::start())?;
    let through = opened.snapshot.as_ref().map_or(0, |(through, _)| through.0);
    let mut done = Start {
        store_id: opened.store_id,
        boot: opened.boot,
        acknowledged: opened.acknowledged.0,
        last: opened.last.0,
        damage: opened.damage,
        through,
        ..Start::default()
    };
    if opened.snapshot.is_some_and(|(_, state)| state != fold(through, order.large).snapshot()) {
        done.wrong.push(format!("the snapshot through {through}"));
    }
    let expected: Vec<Record> = (through + 1..=done.last).map(|sequence| record(sequence, order.large)).collect();
    if opened.records != expected {
        done.wrong.push(format!("the records from {} to {}", through + 1, done.last));
    }
    let (sender, mut inbox) = mpsc::channel(64);
    let handle = opened.journal.start(sender)?;
    done.failed = work(&handle, &mut inbox, order, &mut done).err();
    drop(inbox);
    handle.close();
    Ok(done)
}

/// Reads everything, as the cloud and people do; writes, takes a snapshot, lets the cloud have everything, so that older ones are deleted.
fn work(
    handle: &JournalHandle,
    inbox: &mut mpsc::Receiver<siteward::engine::site::io::Input>,
    order: &Order,
    done: &mut Start,
) -> Result<(), String> {
    let mut next = 1;
    while next <= done.last {
        let (answer, reader) = oneshot::channel();
        handle.read_for(Sequence(next), 100, answer).map_err(|error| error.to_string())?;
        let records = reader.blocking_recv().map_err(|error| error.to_string())??;
        let Some(last) = records.last().map(|record| record.sequence.0) else { break };
        done.wrong.extend(records.iter().filter_map(|found| {
            let sequence = found.sequence.0;
            (*found != record(sequence, order.large)).then(|| format!("record {sequence}, when it was read"))
        }));
        next = last + 1;
    }
    let end = done.last + WORK;
    let mut sent = done.last;
    while sent < end {
        let lot = 25.min(end - sent);
        handle
            .append((sent + 1..=sent + lot).map(|sequence| record(sequence, order.large)).collect())
            .map_err(|error| error.to_string())?;
        sent += lot;
        await_durable(inbox, sent)?;
        handle.acknowledged(Sequence(sent)).map_err(|error| error.to_string())?;
    }
    handle.snapshot(Sequence(end), fold(end, order.large).snapshot()).map_err(|error| error.to_string())?;
    handle.append(vec![record(end + 1, order.large)]).map_err(|error| error.to_string())?;
    await_durable(inbox, end + 1)
}
