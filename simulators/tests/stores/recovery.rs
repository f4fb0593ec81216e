//! `siteward journal` on a damaged store, held against what was written into it and what of that still stands in its files.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Output};

use siteward::engine::cloud::messages::Messages;
use siteward::engine::model::ids::SiteId;
use siteward::engine::model::record::Record;
use tempfile::TempDir;

use crate::filled::{Filled, record};
use crate::rig;
use crate::tree::Tree;

/// How the JSON of every record begins.
const BEGIN: &[u8] = b"{\"sequence\":";
/// How a packed one begins.
const MARK: &[u8] = &[0xf5, 0xc0, 0xff];
/// What packed ones have in common.
const DICTIONARY: &[u8] = include_bytes!("../../../src/shell/journal/dictionary-2.txt");
/// What stands before it: checksum and version.
const HEADER: usize = 5;

fn siteward(task: &[&str], option: &str, store: &Path) -> Output {
    let mut command = Command::new(rig::siteward());
    command.args(["journal"]).args(task).arg(option).arg(store).args(["--config", "none/site.toml"]);
    command.output().unwrap()
}

/// `siteward journal verify`: whether it calls the store good.
pub(crate) fn verify(store: &Path) -> Result<bool, String> {
    let output = siteward(&["verify"], "--store", store);
    match output.status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(format!("verify: {output:?}")),
    }
}

/// `siteward journal recover`: which of these records it does not give.
pub(crate) fn lacking(aside: &Path, numbers: RangeInclusive<u64>) -> Result<Vec<u64>, String> {
    let (_, lines) = recovered(aside)?;
    let mut found = BTreeSet::new();
    for line in &lines {
        let event: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        found.extend(event["sequence"].as_u64());
    }
    Ok(numbers.filter(|number| !found.contains(number)).collect())
}

/// How `siteward journal recover` ends, and its lines.
fn recovered(aside: &Path) -> Result<(i32, Vec<String>), String> {
    let place = TempDir::new().unwrap();
    let file = place.path().join("recovered.jsonl");
    let output = siteward(&["recover", "--out", file.to_str().unwrap()], "--from", aside);
    let code = output.status.code().filter(|code| *code < 2).ok_or_else(|| format!("recover: {output:?}"))?;
    Ok((code, std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect()))
}

/// `siteward journal recover`: every record of which a copy was not hit is there, none is wrong, and it ends with 0 only if none is missing.
pub(crate) fn recover(aside: &Path, store: &Filled, files: &Tree) -> Result<&'static str, String> {
    let (code, lines) = recovered(aside)?;
    let mut found = BTreeSet::new();
    for line in &lines {
        let event: serde_json::Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let sequence = event["sequence"].as_u64().unwrap();
        let written = [store.store_id.as_str(), "-"].map(|store_id| {
            let messages = Messages::new("", &SiteId::new("-"), store_id);
            messages.event(&record(sequence, store.large)).payload
        });
        if !(1..=store.last).contains(&sequence) || !written.iter().any(|written| written == line) {
            return Err(format!("recover gives what was not written: {line}"));
        }
        if !found.insert(sequence) {
            return Err(format!("record {sequence} is given twice"));
        }
    }
    let intact = intact(store, files);
    let forgotten: Vec<u64> = (store.first..=store.last).filter(|n| intact.contains(n) && !found.contains(n)).collect();
    if !forgotten.is_empty() {
        return Err(format!("recover leaves out what is whole: {forgotten:?}"));
    }
    let missing: Vec<u64> = (store.first..=store.last).filter(|n| !found.contains(n)).collect();
    if code == 0 && !missing.is_empty() {
        return Err(format!("recover ends with 0 and lacks {missing:?}"));
    }
    Ok(match (missing.is_empty(), missing.len() as u64 == store.last + 1 - store.first) {
        (true, _) => "set aside, all recovered",
        (false, false) => "set aside, some recovered",
        (false, true) => "set aside, none recovered",
    })
}

/// The records of which a whole copy stands somewhere in the files of the database.
fn intact(store: &Filled, files: &Tree) -> BTreeSet<u64> {
    let whole = values(store);
    let by_checksum: BTreeMap<&[u8], (u64, &Vec<u8>)> =
        whole.iter().map(|(number, value)| (&value[..4], (*number, value))).collect();
    let mut found = BTreeSet::new();
    for bytes in files.values() {
        for at in places(bytes) {
            let known = by_checksum.get(&bytes[at..at + 4]);
            found.extend(known.filter(|(_, value)| bytes[at..].starts_with(value)).map(|(number, _)| *number));
        }
    }
    found
}

/// Each record as it stands in the undamaged files, with its header.
fn values(store: &Filled) -> BTreeMap<u64, Vec<u8>> {
    let mut values = BTreeMap::new();
    for bytes in store.files.values() {
        for at in places(bytes) {
            let Some((json, length)) = json_at(&bytes[at + HEADER..]) else { continue };
            let Ok(found) = serde_json::from_slice::<Record>(&json) else { continue };
            let number = found.sequence.0;
            if (1..=store.last).contains(&number) && found == record(number, store.large) {
                values.insert(number, bytes[at..at + HEADER + length].to_vec());
            }
        }
    }
    assert!((store.first..=store.last).all(|number| values.contains_key(&number)), "all of them were found");
    values
}

/// The JSON of what begins there behind its header, and how long it is in the file.
fn json_at(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let Some(mut rest) = bytes.strip_prefix(MARK) else {
        let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<serde_json::Value>();
        values.next()?.ok()?;
        let length = values.byte_offset();
        return Some((bytes[..length].to_vec(), length));
    };
    let mut number = || {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first()?;
            rest = after;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    let (json, length) = (number()?, number()?);
    let json = lz4_flex::block::decompress_with_dict(rest.get(..length)?, json, DICTIONARY).ok()?;
    Some((json, bytes.len() - rest.len() + length))
}

/// Where a record seems to begin with its header.
fn places(bytes: &[u8]) -> Vec<usize> {
    let begins = |at: &usize| bytes[*at..].starts_with(BEGIN) || bytes[*at..].starts_with(MARK);
    (HEADER..bytes.len()).filter(begins).map(|at| at - HEADER).collect()
}
