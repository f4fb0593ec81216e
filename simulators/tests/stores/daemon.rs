//! The real daemon on damaged stores: it starts, says it, works, and after `kill -9` finds its new store good.

use std::fs;
use std::path::{Path, PathBuf};

use siteward::engine::model::alarm::AlarmKind;
use siteward_sim::rng::Dice;

use crate::filled::{large, old, young};
use crate::recovery::recover;
use crate::rig::Rig;
use crate::tree::{self, Tree};

const DB: &str = "db/db";

/// What the daemon answers at `path`, if it does and is well.
fn ask(rig: &Rig, path: &str) -> Option<String> {
    ureq::get(format!("http://{}{path}", rig.ports.api)).call().ok()?.body_mut().read_to_string().ok()
}

fn is_said(rig: &Rig) -> bool {
    let alarms = rig.status().map(|status| status.alarms).unwrap_or_default();
    alarms.iter().any(|alarm| alarm.key.kind == AlarmKind::StoreRecovered)
}

/// Starts the daemon on `store` after `damage` was done to it.
fn survives(store: &crate::filled::Filled, damage: impl Fn(&mut Tree)) {
    let mut files = store.files.clone();
    damage(&mut files);
    let rig = Rig::new("");
    let dir = rig.directory.path().join("store");
    tree::write(&files, &dir.join("journal"));
    rig.start();
    rig.until("the alarm is raised", || is_said(&rig));
    rig.until("it is ready", || ask(&rig, "/readyz").is_some());
    let aside = dir.join("journal.damaged-1");
    assert_eq!(tree::differences(&files, &tree::read(&aside)), Vec::<PathBuf>::new(), "set aside as it was");
    let events = || ask(&rig, "/api/v1/events").unwrap_or_default();
    rig.until("the event is durable", || events().contains("siteward.store.recovered"));
    let before = events();
    assert!(before.contains(&format!("records {} to {}", store.acknowledged + 1, store.last)), "{before}");
    rig.kill();
    rig.start();
    rig.until("it is ready again", || ask(&rig, "/readyz").is_some());
    rig.until("the first event is still there", || events().contains("siteward.store.recovered"));
    assert!(is_said(&rig), "the alarm stands until somebody has looked");
    assert!(!dir.join("journal.damaged-2").exists(), "the new store is good");
    assert_eq!(rig.stop(), Some(0));
    println!("{:?}", recover(&aside, store, &files).unwrap());
    let written = fs::read_to_string(rig.directory.path().join("log")).unwrap();
    assert!(!written.contains("panicked") && written.contains("a damaged store was set aside"), "{written}");
}

fn file<'a>(files: &'a mut Tree, path: &str) -> &'a mut Vec<u8> {
    files.get_mut(Path::new(path)).unwrap()
}

#[test]
fn a_daemon_with_a_database_that_was_cut_off() {
    survives(young(), |files| {
        let db = file(files, DB);
        // The database makes room for more than it has.
        let used = db.iter().rposition(|byte| *byte != 0).unwrap();
        db.truncate(used / 3);
    });
}

#[test]
fn a_daemon_with_bits_flipped_all_over() {
    survives(old(), |files| {
        let mut dice = Dice::new(7);
        let db = file(files, DB);
        for _ in 0..64 {
            let at = usize::try_from(dice.below(u64::try_from(db.len()).unwrap())).unwrap();
            db[at] ^= 1 << dice.below(8);
        }
    });
}

#[test]
fn a_daemon_without_its_database() {
    survives(young(), |files| files.retain(|path, _| !path.starts_with("db")));
}

#[test]
fn a_daemon_with_a_database_of_zeros() {
    survives(old(), |files| file(files, DB).fill(0));
}

#[test]
fn a_daemon_with_a_database_of_anything() {
    survives(young(), |files| {
        let mut dice = Dice::new(9);
        file(files, DB).fill_with(|| dice.bits().to_le_bytes()[0]);
    });
}

#[test]
fn a_daemon_without_the_files_of_large_records() {
    survives(large(), |files| files.retain(|path, _| !path.starts_with("db/blobs")));
}
