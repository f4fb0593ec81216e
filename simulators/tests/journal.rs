//! The journal on a real disk: restarts, kills, damage, refusals.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail the test")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use siteward::engine::model::exchange::ConnectorStatus;
use siteward::engine::model::ids::{Sequence, StationId};
use siteward::engine::model::record::{Record, RecordBody, Stamp};
use siteward::engine::site::io::{Input, JournalInput};
use siteward::engine::time::{Mono, Utc};
use siteward::shell::clock::Clock;
use siteward::shell::journal::{HISTORY, Journal, JournalHandle, OpenError, Opened, in_guarded_open};
use siteward_sim::rig::journal::{JournalOptions, measure};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

const CHILD: &str = "SITEWARD_TEST_JOURNAL";

fn record(sequence: u64) -> Record {
    let stamp =
        Stamp { utc: Utc::from_unix_ms(1_772_366_400_000), trusted: true, mono: Mono::from_ms(sequence), boot: 1 };
    Record {
        sequence: Sequence(sequence),
        stamp,
        body: RecordBody::StoreRecovered { missing: format!("{sequence:_>200}") },
    }
}

fn records(range: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    range.map(record).collect()
}

/// An open journal, and by how many ms its clock is to be ahead.
fn pushed_on(path: &Path) -> (Running, &'static AtomicU64) {
    let ahead: &'static AtomicU64 = Box::leak(Box::default());
    (Running::new(Journal::open(path, HISTORY, Clock::ahead_by(ahead)).unwrap().journal), ahead)
}

fn open(dir: &Path) -> Opened {
    Journal::open(dir, HISTORY, Clock::start()).unwrap()
}

struct Running {
    handle: JournalHandle,
    inbox: mpsc::Receiver<Input>,
}

impl Running {
    fn new(journal: Journal) -> Self {
        let (sender, inbox) = mpsc::channel(64);
        Self { handle: journal.start(sender).unwrap(), inbox }
    }

    fn next(&mut self) -> JournalInput {
        match self.inbox.blocking_recv().expect("the journal speaks") {
            Input::Journal(input) => input,
            other => panic!("{other:?}"),
        }
    }

    fn append(&mut self, range: std::ops::RangeInclusive<u64>) {
        let last = *range.end();
        self.handle.append(records(range)).unwrap();
        self.await_durable(last);
    }

    fn await_durable(&mut self, last: u64) {
        loop {
            match self.next() {
                JournalInput::Durable { through } if through.0 == last => return,
                JournalInput::Durable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn read(&mut self, from: u64, limit: usize) -> Vec<Record> {
        self.handle.read(Sequence(from), limit).unwrap();
        match self.next() {
            JournalInput::Records { records } => records,
            other => panic!("{other:?}"),
        }
    }

    fn close(self) {
        drop(self.inbox);
        self.handle.close();
    }
}

#[test]
fn what_was_durable_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    assert_eq!((opened.boot, opened.last, opened.acknowledged), (1, Sequence(0), Sequence(0)));
    assert!(opened.snapshot.is_none() && opened.records.is_empty() && opened.damage.is_none());
    assert_eq!(opened.store_id.len(), 16);
    let store_id = opened.store_id.clone();
    let mut journal = Running::new(opened.journal);
    journal.append(1..=10);
    assert_eq!(journal.read(4, 3), records(4..=6));
    assert_eq!(journal.read(11, 3), vec![]);
    journal.handle.acknowledged(Sequence(7)).unwrap();
    journal.close();

    let opened = open(dir.path());
    assert_eq!((opened.boot, opened.last, opened.acknowledged), (2, Sequence(10), Sequence(7)));
    assert_eq!(opened.store_id, store_id);
    assert_eq!(opened.records, records(1..=10));
    assert_eq!(opened.damage, None);
}

#[test]
fn a_snapshot_stands_for_the_records_folded_into_it() {
    let dir = TempDir::new().unwrap();
    let mut journal = Running::new(open(dir.path()).journal);
    journal.append(1..=5);
    journal.handle.snapshot(Sequence(5), b"state at 5".to_vec()).unwrap();
    journal.append(6..=8);
    journal.close();
    let opened = open(dir.path());
    assert_eq!(opened.snapshot, Some((Sequence(5), b"state at 5".to_vec())));
    assert_eq!(opened.records, records(6..=8));
}

#[test]
fn a_lost_snapshot_or_state_file_loses_nothing_while_all_records_are_kept() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let store_id = opened.store_id.clone();
    let mut journal = Running::new(opened.journal);
    journal.append(1..=5);
    journal.handle.snapshot(Sequence(5), b"state".to_vec()).unwrap();
    journal.handle.acknowledged(Sequence(5)).unwrap();
    journal.close();
    fs::write(dir.path().join("journal/snapshot"), b"garbage that is no snapshot").unwrap();
    fs::write(dir.path().join("journal/state"), b"00000000 {}").unwrap();
    let opened = open(dir.path());
    assert_eq!((opened.damage, opened.snapshot, opened.store_id), (None, None, store_id));
    assert_eq!(opened.records, records(1..=5));
    assert_eq!(opened.acknowledged, Sequence(0), "sent again rather than not at all");
}

#[test]
fn waiting_records_are_committed_together() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let (sender, inbox) = mpsc::channel(64);
    // The thread starts with all of them waiting or takes them as they come: far fewer commits than records either way.
    let handle = opened.journal.start(sender).unwrap();
    for sequence in 1..=2_000 {
        handle.append(vec![record(sequence)]).unwrap();
    }
    let mut running = Running { handle, inbox };
    let mut commits = 0;
    loop {
        match running.next() {
            JournalInput::Durable { through } => {
                commits += 1;
                if through == Sequence(2_000) {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(commits < 1_000, "{commits} commits for 2000 records");
}

fn status(sequence: u64) -> Record {
    let body = RecordBody::ChargerStatus {
        charger: StationId::new("CP001"),
        evse: 1,
        connector: 1,
        status: ConnectorStatus::Available,
        error: None,
    };
    Record { body, ..record(sequence) }
}

#[test]
fn records_for_which_nobody_waits_are_written_with_the_next_promise() {
    let dir = TempDir::new().unwrap();
    let mut journal = Running::new(open(dir.path()).journal);
    for sequence in 1..=3 {
        journal.handle.append(vec![status(sequence)]).unwrap();
        assert_eq!(journal.read(1, 3), vec![], "not durable, so nobody is told of it");
    }
    journal.handle.append(vec![record(4)]).unwrap();
    assert_eq!(journal.next(), JournalInput::Durable { through: Sequence(4) }, "one commit for all");
    assert_eq!(journal.read(1, 3), (1..=3).map(status).collect::<Vec<_>>());
    // The end of the process waits for nothing.
    journal.handle.append(vec![status(5)]).unwrap();
    journal.close();
    assert_eq!(open(dir.path()).last, Sequence(5));
}

#[test]
fn records_for_which_nobody_waits_are_written_before_long_and_before_a_snapshot_of_them() {
    let dir = TempDir::new().unwrap();
    let good = dir.path().join("good");
    let (mut journal, ahead) = pushed_on(&good);
    journal.handle.append(vec![status(1)]).unwrap();
    assert_eq!(journal.read(1, 1), vec![]);
    ahead.fetch_add(15_000, Ordering::SeqCst);
    journal.handle.read(Sequence(1), 1).unwrap();
    assert_eq!(journal.next(), JournalInput::Durable { through: Sequence(1) });
    assert_eq!(journal.next(), JournalInput::Records { records: vec![status(1)] });
    journal.handle.append(vec![status(2)]).unwrap();
    // A snapshot ahead of its records would be taken for a store that came up short.
    journal.handle.snapshot(Sequence(2), b"state".to_vec()).unwrap();
    journal.await_durable(2);
    assert_eq!(journal.read(2, 1), vec![status(2)]);
    torn_copy(&good, &dir.path().join("cut"));
    assert_eq!(open(&dir.path().join("cut")).damage, None);
}

#[test]
fn the_cursor_is_written_seldom_and_at_the_end() {
    let dir = TempDir::new().unwrap();
    let (mut journal, ahead) = pushed_on(dir.path());
    journal.append(1..=700);
    let written = || fs::read_to_string(dir.path().join("journal/state")).unwrap();
    let wrote = |through: u64| written().contains(&format!("\"acknowledged\":{through},"));
    journal.handle.acknowledged(Sequence(20)).unwrap();
    journal.read(1, 1);
    assert!(wrote(0), "a few duplicates cost less than a file: {}", written());
    journal.handle.acknowledged(Sequence(520)).unwrap();
    journal.read(1, 1);
    assert!(wrote(520), "{}", written());
    journal.handle.acknowledged(Sequence(521)).unwrap();
    // It is known before the time passes.
    journal.read(1, 1);
    ahead.fetch_add(600_000, Ordering::SeqCst);
    journal.read(1, 1);
    assert!(wrote(521), "{}", written());
    journal.handle.acknowledged(Sequence(522)).unwrap();
    journal.close();
    assert!(wrote(522), "{}", written());
}

#[test]
fn the_figures_of_the_journal_are_measured_on_a_disk() {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let options = JournalOptions { records: 40, minutes: 10, days: 3, away: 1, history: 500 };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    measure(dir, &options, |line| SAID.lock().unwrap().push(line.to_owned())).unwrap();
    let said = SAID.lock().unwrap().join("\n");
    for part in [
        "groups of   1:",
        "groups of 100:",
        "  2400 records a day:",
        " 36000 records a day:",
        "day 3 ",
        "power was cut:",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains(" 0 records/s") && !said.contains(" 0.0 MB"), "{said}");
}

#[test]
fn only_what_is_acknowledged_folded_and_older_than_the_history_is_deleted() {
    let dir = TempDir::new().unwrap();
    let mut journal = Running::new(open(dir.path()).journal);
    let last = HISTORY + 2_000;
    journal.append(1..=last);
    journal.handle.acknowledged(Sequence(last)).unwrap();
    journal.append(last + 1..=last + 1);
    assert_eq!(journal.read(1, 1), records(1..=1), "no snapshot: nothing is deleted");
    journal.handle.snapshot(Sequence(1_500), b"state".to_vec()).unwrap();
    // Deletion goes in lots of 1000, one with each round of work.
    journal.append(last + 2..=last + 2);
    journal.append(last + 3..=last + 3);
    assert_eq!(journal.read(1, 1), records(1_501..=1_501));
    journal.close();
    let opened = open(dir.path());
    assert_eq!(opened.damage, None);
    assert_eq!(opened.snapshot.map(|(through, _)| through), Some(Sequence(1_500)));
    assert_eq!(opened.records.len() as u64, last + 3 - 1_500);
}

#[test]
fn unacknowledged_records_are_never_deleted() {
    let dir = TempDir::new().unwrap();
    let (mut journal, ahead) = pushed_on(dir.path());
    let last = HISTORY + 3_000;
    journal.append(1..=last);
    journal.handle.snapshot(Sequence(last), b"state".to_vec()).unwrap();
    journal.handle.acknowledged(Sequence(600)).unwrap();
    journal.append(last + 1..=last + 1);
    assert_eq!(journal.read(1, 1), records(1..=1), "a backlog that leaves is not held up");
    // It stands still, for now.
    ahead.fetch_add(5_000, Ordering::SeqCst);
    journal.append(last + 2..=last + 2);
    assert_eq!(journal.read(1, 1), records(601..=601));
}

#[test]
fn a_backlog_that_leaves_for_long_does_not_keep_what_is_delivered() {
    let dir = TempDir::new().unwrap();
    let (mut journal, ahead) = pushed_on(dir.path());
    let last = HISTORY + 6_000;
    journal.append(1..=last);
    journal.handle.snapshot(Sequence(last), b"state".to_vec()).unwrap();
    journal.handle.acknowledged(Sequence(500)).unwrap();
    // Ten minutes in steps that are no standstill.
    for step in 0..320_u64 {
        let first = journal.read(1, 1)[0].sequence.0;
        match step {
            ..290 => assert_eq!(first, 1, "after {} s", step * 2),
            // The cursor is written then, too.
            310.. => assert!(first > 500, "{first} after {} s", step * 2),
            _ => {}
        }
        ahead.fetch_add(2_000, Ordering::SeqCst);
        journal.handle.acknowledged(Sequence(501 + step)).unwrap();
    }
}

#[test]
fn a_disk_that_refuses_is_reported_once_and_records_are_kept_until_it_takes_them() {
    let dir = TempDir::new().unwrap();
    let mut journal = Running::new(open(dir.path()).journal);
    journal.append(1..=1_000);
    // The next block of numbers cannot be reserved: its file's place is taken by a directory.
    let obstacle = dir.path().join("journal/state.new");
    fs::create_dir(&obstacle).unwrap();
    journal.handle.append(records(1_001..=1_001)).unwrap();
    match journal.next() {
        JournalInput::Failed { error } => {
            assert!(error.contains("cannot be written") && error.contains("journal"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    journal.handle.append(records(1_002..=1_005)).unwrap();
    assert_eq!(journal.read(1, 5), vec![], "no answer is missing, but there is nothing to read from");
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(journal.next(), JournalInput::Recovered);
    journal.await_durable(1_005);
    assert_eq!(journal.read(999, 10), records(999..=1_005));
    journal.close();
    assert_eq!(open(dir.path()).last, Sequence(1_005));
}

#[test]
fn readers_leave_room_for_records_while_the_thread_is_held_up() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let (sender, inbox) = mpsc::channel(1);
    let handle = opened.journal.start(sender).unwrap();
    // Nobody takes what the thread tells: it stands still, as on a disk that hangs.
    for _ in 0..3 {
        handle.read(Sequence(1), 1).unwrap();
    }
    let mut refused = 0;
    for _ in 0..10_000 {
        let (answer, _) = oneshot::channel();
        refused += u32::from(handle.read_for(Sequence(1), 1, answer).is_err());
    }
    let appended = handle.append(records(1..=1));
    drop(inbox);
    handle.close();
    assert_eq!(appended, Ok(()), "{refused} readers refused");
    assert_eq!(open(dir.path()).last, Sequence(1));
}

#[test]
fn a_path_that_cannot_be_written_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    // A place below a file refuses root as well, which a read-only mode does not.
    let error = Journal::open(&file.join("store"), HISTORY, Clock::start()).unwrap_err();
    assert!(matches!(error, OpenError::NotWritable { .. }));
    let text = error.to_string();
    assert!(
        text.contains("is not writable") && text.contains("user siteward") && text.contains("store.path"),
        "{text}"
    );
}

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path());
    let error = Journal::open(dir.path(), HISTORY, Clock::start()).unwrap_err().to_string();
    assert!(error.contains("in use by another siteward"), "{error}");
    drop(opened);
    assert_eq!(open(dir.path()).damage, None);
}

/// A copy of the store as a power cut would leave it: everything durable, nothing closed.
fn torn_copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            torn_copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Opens a damaged copy: either all is there, or a new store says what is missing and the old one lies beside it.
fn judge(dir: &Path, store_id: &str, last: u64, what: &str) -> bool {
    let opened = Journal::open(dir, HISTORY, Clock::start()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let Some(damage) = opened.damage else {
        assert_eq!(
            (opened.store_id.as_str(), opened.last, opened.records.len() as u64),
            (store_id, Sequence(last), last),
            "{what}"
        );
        return false;
    };
    assert!(damage.contains("journal.damaged-1") && damage.contains("records 1 to 300"), "{what}: {damage}");
    assert!(dir.join("journal.damaged-1/db").exists(), "{what}");
    assert_ne!(opened.store_id, store_id, "{what}: a new store never repeats an event's id");
    assert_eq!((opened.last, opened.boot, opened.records.len()), (Sequence(0), 1, 0), "{what}");
    let mut journal = Running::new(opened.journal);
    journal.append(1..=1);
    journal.close();
    let again = Journal::open(dir, HISTORY, Clock::start()).unwrap();
    assert_eq!((again.last, again.damage), (Sequence(1), None), "{what}: said once, then it works");
    true
}

fn quiet_guarded_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !in_guarded_open() {
            hook(panic);
        }
    }));
}

#[test]
fn a_damaged_store_is_set_aside_and_never_silent() {
    quiet_guarded_panics();
    let dir = TempDir::new().unwrap();
    let opened = open(&dir.path().join("good"));
    let store_id = opened.store_id.clone();
    let mut journal = Running::new(opened.journal);
    journal.append(1..=300);
    let copy = |name: &str| {
        let to = dir.path().join(name);
        torn_copy(&dir.path().join("good"), &to);
        to
    };
    assert!(!judge(&copy("whole"), &store_id, 300, "nothing damaged"));
    let size = fs::metadata(dir.path().join("good/journal/db/db")).unwrap().len();
    let mut set_aside = 0;
    for part in [0, 1, 4, 9] {
        let to = copy(&format!("short-{part}"));
        let db = fs::OpenOptions::new().write(true).open(to.join("journal/db/db")).unwrap();
        db.set_len(size * part / 10).unwrap();
        set_aside += u32::from(judge(&to, &store_id, 300, &format!("cut to {part}/10")));
    }
    let mut dice: u64 = 0x5eed;
    for trial in 0..40 {
        let to = copy(&format!("flip-{trial}"));
        let mut bytes = fs::read(to.join("journal/db/db")).unwrap();
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let at = usize::try_from(dice >> 20).unwrap() % written;
        bytes[at] ^= 1 << (dice >> 61);
        fs::write(to.join("journal/db/db"), &bytes).unwrap();
        set_aside += u32::from(judge(&to, &store_id, 300, &format!("bit flipped at {at} of {written}")));
    }
    assert!(set_aside >= 10, "the damage was real: {set_aside} set aside");
}

#[test]
fn a_lost_database_is_noticed() {
    let dir = TempDir::new().unwrap();
    let mut journal = Running::new(open(dir.path()).journal);
    journal.append(1..=300);
    journal.close();
    fs::remove_dir_all(dir.path().join("journal/db")).unwrap();
    let damage = open(dir.path()).damage.expect("said");
    assert!(damage.contains("ends at record 0 and had records up to 300"), "{damage}");
}

#[test]
fn a_start_that_was_cut_off_while_setting_aside_is_finished() {
    let dir = TempDir::new().unwrap();
    let store_id = open(dir.path()).store_id;
    fs::rename(dir.path().join("journal"), dir.path().join("journal.new")).unwrap();
    assert_eq!(open(dir.path()).store_id, store_id);
}

#[test]
fn a_first_start_that_was_cut_off_is_no_damage() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("journal.new/db")).unwrap();
    assert_eq!(open(dir.path()).damage, None);
}

/// Runs only as the child of the next test: appends until it is killed, and says what is durable.
#[test]
fn child_that_appends() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let opened = open(Path::new(&dir));
    assert_eq!(opened.damage, None);
    let mut next = opened.last.0 + 1;
    let mut journal = Running::new(opened.journal);
    loop {
        journal.append(next..=next + 2);
        println!("durable {}", next + 2);
        journal.handle.acknowledged(Sequence(next)).unwrap();
        next += 3;
    }
}

#[test]
fn kill_9_loses_nothing_that_was_durable() {
    let dir = TempDir::new().unwrap();
    let mut promised = 0;
    for round in 1..=8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_appends", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.split("durable ").nth(1) {
                promised = number.parse().unwrap();
                seen += 1;
                if seen == 20 * round {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let opened = open(dir.path());
        assert_eq!(opened.damage, None);
        assert!(opened.last.0 >= promised, "{} durable, {} there", promised, opened.last);
        assert_eq!(opened.records, records(1..=opened.last.0));
        assert!(opened.acknowledged.0 <= opened.last.0);
        drop(opened);
    }
    assert!(promised > 100, "the child worked: {promised}");
}
