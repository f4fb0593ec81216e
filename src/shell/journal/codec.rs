//! How a record stands in the database, and how it is found again where the database itself is broken.
//!
//! A value is `crc32 (4, big endian, over all that follows) | version (1) | the record as JSON`. The JSON begins with the sequence number, so
//! that a record can be recognised in any pile of bytes and needs no key to be understood.

use serde::de::IgnoredAny;

use super::store::Fault;
use crate::engine::model::record::Record;

/// The version that is written. Every smaller one that was ever released is read.
const VERSION: u8 = 1;
/// crc32, version.
const HEADER: usize = 4 + 1;
/// How the JSON of every record begins.
const BEGIN: &[u8] = b"{\"sequence\":";

/// The number that a key of the database stands for.
pub(super) fn number_of(key: &[u8]) -> Result<u64, Fault> {
    match <[u8; 8]>::try_from(key) {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => Err(Fault::Damaged(format!("a key has {} bytes instead of 8", key.len()))),
    }
}

pub(super) fn encode(record: &Record) -> Result<Vec<u8>, Fault> {
    let mut body = vec![VERSION];
    serde_json::to_writer(&mut body, record).map_err(|error| Fault::Environment(error.to_string()))?;
    let mut value = crc32fast::hash(&body).to_be_bytes().to_vec();
    value.append(&mut body);
    Ok(value)
}

/// Reads the value that stands under the key `number`. Damage is what the checksum contradicts; a record that is whole and not understood
/// was written by a newer version, and the store is left alone for that version.
pub(super) fn decode(number: u64, value: &[u8]) -> Result<Record, Fault> {
    let damaged = |what: String| Fault::Damaged(format!("record {number} {what}"));
    if value.len() < HEADER {
        return Err(damaged("is too short".to_owned()));
    }
    let (crc, body) = value.split_at(4);
    if crc != crc32fast::hash(body).to_be_bytes() {
        return Err(damaged("has a wrong checksum".to_owned()));
    }
    let record = match body[0] {
        0 => return Err(damaged("has the format 0, which was never written".to_owned())),
        1 => serde_json::from_slice::<Record>(&body[1..]).map_err(|error| {
            Fault::Newer(format!(
                "record {number} is whole, but this siteward does not understand it ({error}); a newer one wrote it: install that version again"
            ))
        })?,
        newer => {
            // Not damage: set aside, it could not be read by the version that wrote it either.
            return Err(Fault::Newer(format!(
                "record {number} has the format {newer}, written by a newer siteward; this one reads up to {VERSION}: install that version again"
            )));
        }
    };
    if record.sequence.0 == number { Ok(record) } else { Err(damaged(format!("says that it is {}", record.sequence))) }
}

/// What stands somewhere in a pile of bytes.
#[derive(Debug)]
pub(super) struct Scan {
    /// Records with a right checksum, as they come: old copies of the same record among them.
    pub(super) records: Vec<Record>,
    /// Whole records of a newer version.
    pub(super) newer: u64,
}

/// Looks at every place of `bytes` for a record with its header. Trusts nothing but the checksum.
pub(super) fn scan(bytes: &[u8]) -> Scan {
    let mut found = Scan { records: Vec::new(), newer: 0 };
    let mut at = HEADER;
    while let Some(start) = next_begin(bytes, at) {
        at = start + BEGIN.len();
        let Some(length) = json_length(&bytes[start..]) else { continue };
        match record_of(&bytes[start - HEADER..start + length]) {
            Ok(record) => found.records.push(record),
            Err(Fault::Newer(_)) => found.newer += 1,
            // Broken, or the beginning of a record in the text of another: the next may stand inside of it.
            Err(Fault::Damaged(_) | Fault::Environment(_)) => continue,
        }
        at = start + length;
    }
    found
}

fn next_begin(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let mut at = 0;
    loop {
        at += rest[at..].iter().position(|byte| *byte == b'{')?;
        if rest[at..].starts_with(BEGIN) {
            return Some(from + at);
        }
        at += 1;
    }
}

/// The length of the JSON value at the start of `bytes`, if there is a whole one.
fn json_length(bytes: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// [`decode`] without a key: the record says its number itself.
fn record_of(value: &[u8]) -> Result<Record, Fault> {
    let json = value.get(HEADER + BEGIN.len()..).unwrap_or_default();
    let digits = json.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&json[..digits]).ok().and_then(|digits| digits.parse().ok());
    number.map_or_else(|| Err(Fault::Damaged("no number".to_owned())), |number| decode(number, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::ids::Sequence;
    use crate::engine::model::record::{RecordBody, Stamp};
    use crate::engine::time::{Mono, Utc};

    fn record(sequence: u64) -> Record {
        let stamp = Stamp { utc: Utc::from_unix_ms(0), trusted: true, mono: Mono::from_ms(7), boot: 1 };
        // What a record says may look like the beginning of another.
        let body = RecordBody::StoreRecovered { missing: "{\"sequence\":1} {\"sequence\":2,".to_owned() };
        Record { sequence: Sequence(sequence), stamp, body }
    }

    fn with_version(version: u8, json: &str) -> Vec<u8> {
        let body = [&[version], json.as_bytes()].concat();
        [crc32fast::hash(&body).to_be_bytes().as_slice(), &body].concat()
    }

    #[test]
    fn a_record_comes_back_under_its_own_number_only() {
        let value = encode(&record(12)).unwrap();
        assert_eq!(decode(12, &value).unwrap(), record(12));
        assert!(matches!(decode(13, &value), Err(Fault::Damaged(text)) if text.contains("says that it is 12")));
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let value = encode(&record(12)).unwrap();
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(12, &flipped), Err(Fault::Damaged(_))), "bit {bit}");
            assert!(scan(&flipped).records.is_empty(), "bit {bit}");
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_no_damage() {
        let newer = with_version(VERSION + 1, r#"{"sequence":5,"by":"somebody"}"#);
        assert!(matches!(decode(5, &newer), Err(Fault::Newer(text)) if text.contains("newer siteward")));
        let unknown = with_version(1, r#"{"sequence":5,"stamp":{},"body":{"invented_later":{}}}"#);
        assert!(matches!(decode(5, &unknown), Err(Fault::Newer(text)) if text.contains("does not understand")));
        assert!(matches!(decode(5, &with_version(0, "{}")), Err(Fault::Damaged(_))));
        assert_eq!(scan(&[newer, unknown].concat()).newer, 2);
    }

    #[test]
    fn records_are_found_between_anything() {
        let mut pile = vec![0xff; 3];
        for sequence in 1..=20 {
            pile.extend(encode(&record(sequence)).unwrap());
            pile.extend([0, b'{', b'"', 0x7f]);
        }
        let found = scan(&pile);
        assert_eq!(found.records, (1..=20).map(record).collect::<Vec<_>>());
        assert_eq!(found.newer, 0);
        assert_eq!(scan(&pile[..pile.len() - 20]).records.len(), 19);
        assert!(scan(&[]).records.is_empty() && scan(BEGIN).records.is_empty());
    }
}
