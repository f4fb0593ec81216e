//! Damage at 200 places: the daemon starts on it, and either all is there or the store lies aside and it is said what is missing.
//!
//! The places are thrown by dice. `SITEWARD_DAMAGE_SEED` throws others, `SITEWARD_DAMAGE_PLACES` more than these.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use siteward_sim::rng::Dice;
use tempfile::TempDir;

use crate::filled::{Filled, large, old, young};
use crate::recovery::{lacking, recover, verify};
use crate::start::{Start, WORK, start};
use crate::tree::{self, Tree};

/// What one test throws. There are eight, so that none is long, also on a machine that has much to do.
const PLACES: usize = 8;
const SEED: u64 = 20_261_129;
const PAGE: usize = 4_096;

/// One damage.
#[derive(Debug)]
enum Damage {
    /// A file ends there.
    Truncated(PathBuf, usize),
    /// So many bits of a file are flipped, the first of them in this byte.
    Flipped(PathBuf, usize, usize),
    Deleted(PathBuf),
    /// A page of zeros at this place.
    Zeroed(PathBuf, usize),
    /// At the first place stands what stands at the second.
    Misplaced(PathBuf, usize, usize),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(path, length) => write!(f, "{} cut to {length}", path.display()),
            Self::Flipped(path, bits, at) => write!(f, "{} with {bits} bits flipped, one at {at}", path.display()),
            Self::Deleted(path) => write!(f, "{} deleted", path.display()),
            Self::Zeroed(path, at) => write!(f, "{} with zeros at {at}", path.display()),
            Self::Misplaced(path, at, from) => write!(f, "{} with the page of {from} at {at}", path.display()),
        }
    }
}

/// Throws a damage and does it to `files`.
fn damaged(files: &mut Tree, dice: &mut Dice) -> Damage {
    loop {
        let (path, bytes) = hit(files, dice);
        let before = bytes.clone();
        // What was never written is mostly left out: nobody would notice.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
        let length = if dice.below(4) == 0 { bytes.len() } else { end };
        let mut within = |end: usize| usize::try_from(dice.below(u64::try_from(end).unwrap())).unwrap();
        let pages = length.div_ceil(PAGE);
        let damage = match within(20) {
            0..7 => {
                let most = if within(2) == 0 { 4 } else { 64 };
                let bits = 1 + within(most);
                let at: Vec<usize> = (0..bits).map(|_| within(length.max(1) * 8)).collect();
                for bit in &at {
                    if let Some(byte) = bytes.get_mut(bit / 8) {
                        *byte ^= 1 << (bit % 8);
                    }
                }
                Damage::Flipped(path.clone(), bits, at[0] / 8)
            }
            7..12 => {
                bytes.truncate(within(length.max(1)));
                Damage::Truncated(path.clone(), bytes.len())
            }
            12..15 => {
                let at = within(pages.max(1)) * PAGE;
                let page = at.min(bytes.len())..(at + PAGE).min(bytes.len());
                bytes[page].fill(0);
                Damage::Zeroed(path.clone(), at)
            }
            15..18 => {
                let (at, from) = (within(pages.max(1)) * PAGE, within(pages.max(1)) * PAGE);
                let size = PAGE.min(bytes.len() - at.max(from).min(bytes.len()));
                bytes.copy_within(from..from + size, at);
                Damage::Misplaced(path.clone(), at, from)
            }
            _ => {
                files.remove(&path);
                return Damage::Deleted(path);
            }
        };
        // A page of zeros among zeros is no damage.
        if *bytes != before {
            return damage;
        }
    }
}

/// The file that is hit: in two cases of three by size, so that it is the database; else any.
fn hit<'a>(files: &'a mut Tree, dice: &mut Dice) -> (PathBuf, &'a mut Vec<u8>) {
    let all: u64 = files.values().map(|bytes| u64::try_from(bytes.len()).unwrap()).sum();
    let by_size = dice.below(3) > 0;
    let mut throw = dice.below(if by_size { all } else { u64::try_from(files.len()).unwrap() });
    for (path, bytes) in files {
        let weight = if by_size { u64::try_from(bytes.len()).unwrap() } else { 1 };
        if throw < weight {
            return (path.clone(), bytes);
        }
        throw -= weight;
    }
    unreachable!("it was thrown below the sum of the weights")
}

/// How often what came of it.
type Tally = BTreeMap<&'static str, usize>;

/// Damages `store` at [`PLACES`] places behind `before` times as many, starts on each, and fails with all that does not hold.
fn damage(store: &Filled, name: &str, before: usize) {
    let seed = std::env::var("SITEWARD_DAMAGE_SEED").map_or(SEED, |text| text.parse().unwrap());
    let places = std::env::var("SITEWARD_DAMAGE_PLACES").map_or(PLACES, |text| text.parse().unwrap());
    let before = before * places;
    let (mut tally, mut broken) = (Tally::new(), Vec::new());
    for place in before + 1..=before + places {
        let mut dice = Dice::named(seed, &format!("{name} {place}"));
        let mut files = store.files.clone();
        let what = damaged(&mut files, &mut dice);
        let dir = TempDir::new().unwrap();
        match judge(dir.path(), store, &files) {
            Ok(outcome) => *tally.entry(outcome).or_default() += 1,
            Err(why) => broken.push(format!("place {place}: {what}: {why}")),
        }
    }
    println!("seed {seed}, store {name} ({} bytes, {} files): {tally:?}", size(&store.files), store.files.len());
    assert!(broken.is_empty(), "seed {seed}, store {name}: {} of {places} places\n{}", broken.len(), broken.join("\n"));
    assert!(tally.values().sum::<usize>() == places && tally.len() > 1, "the damage was real: {tally:?}");
}

fn size(files: &Tree) -> usize {
    files.values().map(Vec::len).sum()
}

fn demand(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Starts three times on what is left, and holds what was promised against what came of it.
fn judge(dir: &Path, store: &Filled, files: &Tree) -> Result<&'static str, String> {
    tree::write(files, &dir.join("journal"));
    let verified = verify(&dir.join("journal"))?;
    let first = start(dir, store)?;
    demand(first.refused.is_none(), || format!("refused: {first:?}"))?;
    demand(first.wrong.is_empty(), || format!("wrong: {:?}", first.wrong))?;
    if first.damage.is_none() {
        whole(&first, store)?;
        // sled may need the file of a large page that it had replaced only when it reads its log again.
        let is_blob = |path: &&PathBuf| path.starts_with("db/blobs") && !files.contains_key(*path);
        if first.failed.is_none() && store.files.keys().any(|path| is_blob(&path)) {
            return missed(dir, store, &first);
        }
        if first.failed.is_none() {
            goes_on(dir, store, &first)?;
            demand(!aside(dir).exists(), || "a good store was set aside".to_owned())?;
            return Ok(if verified { "unharmed" } else { "whole without a file beside it" });
        }
        // It was seen only at work, was said then, and the next start sees it as well.
        return later(dir, store, &first);
    }
    demand(!verified, || "`siteward journal verify` has called it good".to_owned())?;
    demand(first.failed.is_none(), || format!("the new store fails: {:?}", first.failed))?;
    demand(tree::differences(files, &tree::read(&aside(dir))).is_empty(), || {
        format!("set aside, it is not as it was: {:?}", tree::differences(files, &tree::read(&aside(dir))))
    })?;
    new_one(&first, store)?;
    goes_on(dir, store, &first)?;
    recover(&aside(dir), store, files)
}

fn aside(dir: &Path) -> PathBuf {
    dir.join("journal.damaged-1")
}

/// Everything that was durable is there.
fn whole(start: &Start, store: &Filled) -> Result<(), String> {
    let right = start.store_id == store.store_id
        && start.last == store.last
        && start.acknowledged <= store.acknowledged
        // Lost with its file, the cursor goes back to what is kept: sent again rather than not at all.
        && start.acknowledged + 1 >= store.first.min(store.acknowledged + 1)
        && (start.through >= store.first - 1)
        && start.boot > store.last.div_ceil(crate::filled::SESSION);
    demand(right, || format!("not whole, and nothing is said: {start:?}"))
}

/// The store that was begun has another name, and says what is missing.
fn new_one(start: &Start, store: &Filled) -> Result<(), String> {
    let damage = start.damage.as_deref().unwrap_or_default();
    let new = start.store_id != store.store_id && (start.boot, start.last, start.acknowledged) == (1, 0, 0);
    demand(new, || format!("no new store: {start:?}"))?;
    let lost = format!("records {} to {} at least had not been acknowledged", store.acknowledged + 1, store.last);
    let said = damage.contains("set aside as journal.damaged-1") && damage.contains(&lost);
    demand(said, || format!("not {lost:?} but {damage:?}"))
}

/// The next starts find the store of the last one good, with everything that was written into it.
fn goes_on(dir: &Path, store: &Filled, before: &Start) -> Result<(), String> {
    let mut before_boot = before.boot;
    let mut last = before.last;
    for _ in 0..2 {
        let next = start(dir, store)?;
        let good = next.refused.is_none()
            && next.damage.is_none()
            && next.failed.is_none()
            && next.wrong.is_empty()
            && next.store_id == before.store_id
            && next.boot == before_boot + 1
            && next.last > last;
        demand(good, || format!("the next start: {next:?} after {before:?}"))?;
        (before_boot, last) = (next.boot, next.last);
    }
    Ok(())
}

/// The starts after a good one on a store that lacks the file of a large page: if one of them misses it, that is said.
fn missed(dir: &Path, store: &Filled, first: &Start) -> Result<&'static str, String> {
    let mut last = first.last + WORK + 1;
    for _ in 0..2 {
        let next = start(dir, store)?;
        let right = next.refused.is_none() && next.failed.is_none() && next.wrong.is_empty();
        demand(right, || format!("{next:?} after {first:?}"))?;
        if next.damage.is_some() {
            demand(next.store_id != first.store_id && aside(dir).exists(), || format!("no new store: {next:?}"))?;
            let lost = lacking(&aside(dir), (first.last + 1).max(last - store.history)..=last)?;
            demand(lost.is_empty(), || format!("written since the first start and not recovered: {lost:?}"))?;
            return goes_on(dir, store, &next).map(|()| "missed by a later start");
        }
        demand(next.store_id == first.store_id && next.last == last, || format!("{next:?} after {first:?}"))?;
        last += WORK + 1;
    }
    Ok("not needed")
}

/// The start after one that failed at its work.
fn later(dir: &Path, store: &Filled, first: &Start) -> Result<&'static str, String> {
    let next = start(dir, store)?;
    let right = next.refused.is_none() && next.failed.is_none() && next.wrong.is_empty();
    demand(right, || format!("{next:?} after {first:?}"))?;
    if next.damage.is_some() {
        demand(next.store_id != first.store_id && aside(dir).exists(), || format!("no new store: {next:?}"))?;
    } else {
        demand(next.store_id == first.store_id && next.last >= first.last, || format!("{next:?} after {first:?}"))?;
    }
    goes_on(dir, store, &next)?;
    Ok(if next.damage.is_some() { "found at work, then set aside" } else { "found at work, then healed" })
}

#[test]
fn a_store_of_one_run_is_damaged() {
    damage(young(), "young", 0);
}

#[test]
fn a_store_of_one_run_is_damaged_again() {
    damage(young(), "young", 1);
}

#[test]
fn a_store_of_many_runs_is_damaged() {
    damage(old(), "old", 0);
}

#[test]
fn a_store_of_many_runs_is_damaged_again() {
    damage(old(), "old", 1);
}

#[test]
fn a_store_of_many_runs_is_damaged_elsewhere() {
    damage(old(), "old again", 0);
}

#[test]
fn a_store_of_many_runs_is_damaged_elsewhere_again() {
    damage(old(), "old again", 1);
}

#[test]
fn a_store_with_large_records_is_damaged() {
    damage(large(), "large", 0);
}

#[test]
fn a_store_with_large_records_is_damaged_again() {
    damage(large(), "large", 1);
}

/// Each file of a store is deleted, one at a time.
fn lose_each_file(store: &Filled) {
    let mut broken = Vec::new();
    // One of the files of large pages is like the other.
    let (blobs, others): (Vec<_>, Vec<_>) = store.files.keys().partition(|path| path.starts_with("db/blobs"));
    for path in others.into_iter().chain(blobs.into_iter().rev().step_by(4)) {
        let mut files = store.files.clone();
        files.remove(path);
        let dir = TempDir::new().unwrap();
        if let Err(why) = judge(dir.path(), store, &files) {
            broken.push(format!("{}: {why}", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_store_loses_a_file() {
    lose_each_file(young());
    lose_each_file(old());
}

#[test]
fn a_store_with_large_records_loses_a_file() {
    lose_each_file(large());
}
