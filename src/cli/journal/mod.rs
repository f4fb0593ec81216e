//! `siteward journal`: the store on disk, while the controller does not run.

mod export;
mod recover;
mod verify;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::{Configuration, Failure, plain};
use crate::engine::cloud::messages::Messages;
use crate::engine::model::ids::SiteId;
use crate::engine::model::record::Record;
use crate::shell::journal::{Look, LookError, look};
use crate::shell::panic::quiet_in_guarded_open;

/// `store.path` where the file does not name it.
const DEFAULT_STORE: &str = "/var/lib/siteward";

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub(super) enum JournalTask {
    /// Check every record, the snapshot and the cursor; changes nothing. Ends with 0 if the store is good, with 1 if it is damaged.
    Verify(Place),
    /// Print the records as JSON lines, in the form of `siteward events --json`.
    Export(ExportArgs),
    /// Read what can be read of a damaged store, and say what is missing.
    Recover(RecoverArgs),
}

/// Where the store is.
#[derive(Debug, Args)]
pub(super) struct Place {
    #[command(flatten)]
    configuration: Configuration,
    /// The store's directory; without it, `store.path` of the configuration. Also one that was set aside (journal.damaged-1).
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

/// `siteward journal export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    place: Place,
    /// Begin behind the record with this sequence number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
}

/// `siteward journal recover`.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    configuration: Configuration,
    /// The damaged store, such as /var/lib/siteward/journal.damaged-1. It is not changed.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Write the records as JSON lines into this file, which must not exist; without --out and --into, to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Make a good store of it in this directory, which must have none, to be used as `store.path`. Only if nothing that it needs is
    /// missing.
    #[arg(long, value_name = "STORE", conflicts_with = "out")]
    into: Option<PathBuf>,
}

/// The part of the configuration that is needed here. The rest may be unreadable for whoever asks.
#[derive(Default, Deserialize)]
struct File {
    site: Option<Site>,
    store: Option<Store>,
}

#[derive(Deserialize)]
struct Site {
    id: Option<String>,
}

#[derive(Deserialize)]
struct Store {
    path: Option<PathBuf>,
}

/// Does what was asked, and says how the process ends.
pub(super) fn journal(task: &JournalTask, out: &mut dyn Write) -> Result<u8, Failure> {
    quiet_in_guarded_open();
    match task {
        JournalTask::Verify(place) => verify::verify(place, out),
        JournalTask::Export(args) => export::export(args, out),
        JournalTask::Recover(args) => recover::recover(args, out),
    }
}

impl Place {
    fn directory(&self) -> Result<PathBuf, Failure> {
        if let Some(directory) = &self.store {
            return Ok(directory.clone());
        }
        let path = &self.configuration.config;
        let file = read(path).map_err(|error| {
            let message = format!("cannot read {}: {error}; name the store with --store DIR", path.display());
            Failure::new(Failure::CONFIG, message)
        })?;
        let named = file.store.and_then(|store| store.path).unwrap_or_else(|| DEFAULT_STORE.into());
        // As the controller takes it: beside the configuration, unless it is absolute.
        Ok(path.parent().unwrap_or(Path::new("")).join(named))
    }
}

fn read(path: &Path) -> Result<File, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    toml::from_str(&text).map_err(|error| error.message().to_owned())
}

fn seen(dir: &Path, dig: bool) -> Result<Look, Failure> {
    look(dir, dig).map_err(|error| {
        let code = match error {
            LookError::NoStore(_) => Failure::UNKNOWN,
            LookError::InUse(_) | LookError::Environment(_) => Failure::REFUSED,
        };
        Failure::new(code, plain(&error.to_string()))
    })
}

/// Writes records in the form of `siteward events --json`. A store does not know its site: the name comes from the configuration, and is
/// `-` where that cannot be read.
fn lines<'a>(
    configuration: &Configuration,
    look: &Look,
    records: impl Iterator<Item = &'a Record>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let site = read(&configuration.config).unwrap_or_default().site.and_then(|site| site.id);
    let messages =
        Messages::new("", &SiteId::new(site.as_deref().unwrap_or("-")), look.store_id.as_deref().unwrap_or("-"));
    for record in records {
        writeln!(out, "{}", messages.event(record).payload)?;
    }
    Ok(())
}

/// `5` or `5 to 7`.
fn range((first, last): (u64, u64)) -> String {
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::ids::Sequence;
    use crate::engine::model::record::{RecordBody, Stamp};
    use crate::engine::site::io::{Input, JournalInput};
    use crate::engine::time::{Mono, Utc};
    use crate::shell::clock::Clock;
    use crate::shell::journal::{HISTORY, Journal};
    use std::os::unix::fs::FileExt as _;
    use tempfile::TempDir;

    const LAST: u64 = 200;

    /// A text of its own for each record, which stands in the files as it is since nothing is like it.
    fn name(sequence: u64) -> String {
        format!("{:016x}", sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A store with [`LAST`] records, acknowledged up to 150, with a snapshot of 100.
    fn store(dir: &Path) {
        let opened = Journal::open(dir, HISTORY, Clock::start()).unwrap();
        let (sender, mut inbox) = tokio::sync::mpsc::channel(64);
        let journal = opened.journal.start(sender).unwrap();
        let record = |sequence| Record {
            sequence: Sequence(sequence),
            stamp: Stamp { utc: Utc::from_unix_ms(0), trusted: true, mono: Mono::from_ms(sequence), boot: 1 },
            body: RecordBody::StoreRecovered { missing: name(sequence) },
        };
        journal.append((1..=LAST).map(record).collect()).unwrap();
        loop {
            match inbox.blocking_recv().unwrap() {
                Input::Journal(JournalInput::Durable { through: Sequence(LAST) }) => break,
                Input::Journal(JournalInput::Durable { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        journal.snapshot(Sequence(100), b"folded".to_vec()).unwrap();
        journal.acknowledged(Sequence(150)).unwrap();
        drop(inbox);
        journal.close();
    }

    fn configuration() -> Configuration {
        Configuration { config: PathBuf::from("/nowhere/site.toml") }
    }

    fn place(dir: &Path) -> Place {
        Place { configuration: configuration(), store: Some(dir.to_owned()) }
    }

    fn ran(task: &JournalTask) -> (u8, String) {
        let mut out = Vec::new();
        match journal(task, &mut out) {
            Ok(code) => (code, String::from_utf8(out).unwrap()),
            Err(Failure::Said(code, message)) => (code, message),
            Err(Failure::Output(error)) => panic!("{error}"),
        }
    }

    fn recover(from: &Path, out: Option<PathBuf>, into: Option<PathBuf>) -> (u8, String) {
        ran(&JournalTask::Recover(RecoverArgs { configuration: configuration(), from: from.to_owned(), out, into }))
    }

    /// Breaks the text of one record wherever a copy of it stands.
    fn damage(dir: &Path, sequence: u64) {
        let path = dir.join("journal/db/db");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let wanted = name(sequence);
        let places = bytes.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted.as_bytes());
        let places: Vec<usize> = places.map(|(at, _)| at).collect();
        assert!(!places.is_empty());
        for at in places {
            file.write_all_at(b"~", at as u64).unwrap();
        }
    }

    #[test]
    fn a_good_store_is_verified_and_exported() {
        let dir = TempDir::new().unwrap();
        store(dir.path());
        let (code, text) = ran(&JournalTask::Verify(place(dir.path())));
        assert_eq!(code, 0, "{text}");
        for line in [
            "records       200: 1 to 200",
            "acknowledged  up to 150",
            "snapshot      up to 100, 6 bytes",
            "good: every record",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let (code, text) = ran(&JournalTask::Export(ExportArgs { place: place(dir.path()), after: 198 }));
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((code, lines.len()), (0, 2), "{text}");
        assert_eq!((&lines[0]["sequence"], &lines[0]["type"]), (&199.into(), &"siteward.store.recovered".into()));
        assert_eq!(lines[1]["source"], "/siteward/-");
        let opened = Journal::open(dir.path(), HISTORY, Clock::start()).unwrap();
        assert_eq!((opened.boot, opened.damage), (2, None), "looking changed nothing");
    }

    #[test]
    fn a_store_in_use_or_none_is_said() {
        let dir = TempDir::new().unwrap();
        let (code, text) = ran(&JournalTask::Verify(place(dir.path())));
        assert!(code == 4 && text.contains("there is no store"), "{code} {text}");
        let opened = Journal::open(dir.path(), HISTORY, Clock::start()).unwrap();
        let (code, text) = ran(&JournalTask::Verify(place(dir.path())));
        assert!(code == 5 && text.contains("systemctl stop siteward"), "{code} {text}");
        drop(opened);
        let (code, text) = ran(&JournalTask::Verify(place(dir.path())));
        assert!(code == 0 && text.contains("records       none"), "{code} {text}");
    }

    #[test]
    fn one_broken_record_is_named_and_the_others_are_read() {
        let dir = TempDir::new().unwrap();
        store(dir.path());
        damage(dir.path(), 120);
        let (code, text) = ran(&JournalTask::Verify(place(dir.path())));
        assert!(code == 1 && text.contains("damaged: ") && text.contains("cannot be read"), "{code} {text}");
        let (code, text) = ran(&JournalTask::Export(ExportArgs { place: place(dir.path()), after: 0 }));
        assert!(code == 1 && text.contains("siteward journal recover --from"), "{code} {text}");

        let opened = Journal::open(dir.path(), HISTORY, Clock::start()).unwrap();
        assert!(opened.damage.is_some(), "the daemon sets it aside");
        drop(opened);
        let (from, file) = (dir.path().join("journal.damaged-1"), dir.path().join("recovered.jsonl"));
        let (code, text) = recover(&from, Some(file.clone()), None);
        assert!(
            code == 1 && text.contains("199 records read") && text.contains("missing: 120; the cloud has them"),
            "{text}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 199);
        let (code, text) = recover(&from, Some(file), None);
        assert!(code == 1 && text.contains("exists"), "nothing is overwritten: {text}");
        let (code, text) = recover(&from, None, Some(dir.path().join("new")));
        assert!(code == 1 && text.contains("cannot have gaps"), "120 is not in the snapshot: {code} {text}");
    }

    #[test]
    fn a_store_becomes_whole_where_what_is_broken_is_not_needed_any_more() {
        let dir = TempDir::new().unwrap();
        store(dir.path());
        damage(dir.path(), 90);
        let into = dir.path().join("new");
        let (code, text) = recover(dir.path(), None, Some(into.clone()));
        assert!(code == 0 && text.contains("missing: 90; the cloud has them"), "{code} {text}");
        let before = look(dir.path(), false).unwrap().store_id;
        let opened = Journal::open(&into, HISTORY, Clock::start()).unwrap();
        assert_eq!((Some(opened.store_id), opened.last, opened.acknowledged), (before, Sequence(200), Sequence(150)));
        assert_eq!((opened.snapshot.unwrap().0, opened.records.len(), opened.boot), (Sequence(100), 100, 2));
        let (code, text) = recover(dir.path(), None, Some(into));
        assert!(code == 1 && text.contains("has a store already"), "{code} {text}");
    }
}
