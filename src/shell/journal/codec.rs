//! How a record stands in the database, and how it is found again where the database itself is broken.
//!
//! A value is `crc32 (4, big endian, over all that follows) | form (1) | …`, followed by
//!
//! - form 1: the record as JSON, which begins with the sequence number;
//! - form 2: `mark (3) | length of the JSON | length of what follows | the JSON as an LZ4 block`, with the dictionary of this form; lengths are
//!   LEB128.
//!
//! So a record can be recognised in any pile of bytes, and needs no key to be understood. Form 2 is written where it is shorter: what a record costs the
//! flash is mostly how often the database writes it again beside its neighbours.

use std::borrow::Cow;

use lz4_flex::block::{compress_with_dict, decompress_into_with_dict};
use serde::de::IgnoredAny;

use super::store::Fault;
use crate::engine::model::record::Record;

/// The highest form that is known.
const VERSION: u8 = PACKED;
/// JSON as it is.
const PLAIN: u8 = 1;
/// JSON, packed.
const PACKED: u8 = 2;
/// crc32, form.
const HEADER: usize = 4 + 1;
/// How the JSON of every record begins.
const BEGIN: &[u8] = b"{\"sequence\":";
/// What follows the header of a packed record: no text has it.
const MARK: &[u8] = &[0xf5, 0xc0, 0xff];
/// What records have in common. It belongs to form 2 for ever; another one is another form.
const DICTIONARY: &[u8] = include_bytes!("dictionary-2.txt");
/// An LZ4 block is never shorter than its contents by more.
const MOST_PACKED: usize = 255;

/// The number that a key of the database stands for.
pub(super) fn number_of(key: &[u8]) -> Result<u64, Fault> {
    match <[u8; 8]>::try_from(key) {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => Err(Fault::Damaged(format!("a key has {} bytes instead of 8", key.len()))),
    }
}

pub(super) fn encode(record: &Record) -> Result<Vec<u8>, Fault> {
    let json = serde_json::to_vec(record).map_err(|error| Fault::Environment(error.to_string()))?;
    let packed = compress_with_dict(&json, DICTIONARY);
    let mut value = vec![0; 4];
    value.push(PACKED);
    value.extend_from_slice(MARK);
    push_length(&mut value, json.len());
    push_length(&mut value, packed.len());
    value.extend_from_slice(&packed);
    if value.len() >= HEADER + json.len() {
        value.truncate(4);
        value.push(PLAIN);
        value.extend_from_slice(&json);
    }
    let crc = crc32fast::hash(&value[4..]).to_be_bytes();
    value[..4].copy_from_slice(&crc);
    Ok(value)
}

/// Reads the value that stands under the key `number`. Damage is what the checksum contradicts; a record that is whole and not understood
/// was written by a newer version, and the store is left alone for that version.
pub(super) fn decode(number: u64, value: &[u8]) -> Result<Record, Fault> {
    let record = record_of(value, Some(number))?;
    if record.sequence.0 == number {
        return Ok(record);
    }
    Err(Fault::Damaged(format!("record {number} says that it is {}", record.sequence)))
}

/// How much room the JSON of a value takes.
pub(super) fn size_of(value: &[u8]) -> usize {
    match value.get(4) {
        Some(&PACKED) => Packed::at(value.get(HEADER..).unwrap_or_default()).map_or(value.len(), |packed| packed.json),
        _ => value.len(),
    }
}

/// [`decode`], with or without a key: the record says its number itself.
fn record_of(value: &[u8], number: Option<u64>) -> Result<Record, Fault> {
    let name = || number.map_or_else(|| "a record".to_owned(), |number| format!("record {number}"));
    let damaged = |what: &str| Fault::Damaged(format!("{} {what}", name()));
    let newer = |what: String| {
        // Not damage: set aside, it could not be read by the version that wrote it either.
        Fault::Newer(format!("{} {what}: install that version again", name()))
    };
    if value.len() < HEADER {
        return Err(damaged("is too short"));
    }
    let (crc, body) = value.split_at(4);
    if crc != crc32fast::hash(body).to_be_bytes() {
        return Err(damaged("has a wrong checksum"));
    }
    let json = match body[0] {
        0 => return Err(damaged("has the format 0, which was never written")),
        PLAIN => Some(Cow::Borrowed(&body[1..])),
        PACKED => Packed::at(&body[1..]).and_then(Packed::unpack).map(Cow::Owned),
        form => {
            return Err(newer(format!(
                "has the format {form}, written by a newer siteward; this one reads up to {VERSION}"
            )));
        }
    };
    let not_understood =
        |why: &str| newer(format!("is whole, but this siteward does not understand it ({why}); a newer one wrote it"));
    let json = json.ok_or_else(|| not_understood("what is packed in it cannot be unpacked"))?;
    serde_json::from_slice(&json).map_err(|error| not_understood(&error.to_string()))
}

/// A packed record behind its header.
#[derive(Clone, Copy)]
struct Packed<'a> {
    /// How long the JSON is.
    json: usize,
    block: &'a [u8],
    /// How long all of it is, with its mark.
    length: usize,
}

impl<'a> Packed<'a> {
    /// `None`: none begins at `bytes`, or it does not end there.
    fn at(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MARK)?;
        let (json, rest) = take_length(rest)?;
        let (length, rest) = take_length(rest)?;
        let block = rest.get(..length)?;
        // Whatever it says, no more memory is taken for it than it can fill.
        let most = length.saturating_mul(MOST_PACKED).saturating_add(MOST_PACKED);
        (json <= most).then_some(Self { json, block, length: bytes.len() - rest.len() + length })
    }

    fn unpack(self) -> Option<Vec<u8>> {
        let mut json = vec![0; self.json];
        let length = decompress_into_with_dict(self.block, &mut json, DICTIONARY).ok()?;
        (length == self.json).then_some(json)
    }
}

fn push_length(bytes: &mut Vec<u8>, length: usize) {
    let mut rest = length;
    while rest >= 0x80 {
        bytes.push(low_bits(rest) | 0x80);
        rest >>= 7;
    }
    bytes.push(low_bits(rest));
}

fn low_bits(value: usize) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or(0)
}

fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    // Four of them are 256 MB, more than any record has.
    for (index, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((length, &bytes[index + 1..]));
        }
    }
    None
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
        at = start + 1;
        let Some(length) = length_at(&bytes[start..]) else { continue };
        match record_of(&bytes[start - HEADER..start + length], None) {
            Ok(record) => found.records.push(record),
            Err(Fault::Newer(_)) => found.newer += 1,
            // Broken, or the beginning of a record in the text of another: the next may stand inside of it.
            Err(Fault::Damaged(_) | Fault::Environment(_)) => continue,
        }
        at = start + length;
    }
    found
}

/// The next place at which a record may begin behind its header.
fn next_begin(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let mut at = 0;
    loop {
        at += rest[at..].iter().position(|byte| *byte == BEGIN[0] || *byte == MARK[0])?;
        if rest[at..].starts_with(BEGIN) || rest[at..].starts_with(MARK) {
            return Some(from + at);
        }
        at += 1;
    }
}

/// The length of what begins at `bytes`, if all of it is there.
fn length_at(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(MARK) {
        return Packed::at(bytes).map(|packed| packed.length);
    }
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
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

    /// Every record that the daemon makes, one of each kind.
    fn kinds() -> Vec<Record> {
        let lines = include_str!("../../engine/cloud/golden/records.jsonl").lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn plain(record: &Record) -> Vec<u8> {
        with_version(PLAIN, &serde_json::to_string(record).unwrap())
    }

    fn with_version(version: u8, json: &str) -> Vec<u8> {
        sealed(&[&[version], json.as_bytes()].concat())
    }

    fn sealed(body: &[u8]) -> Vec<u8> {
        [crc32fast::hash(body).to_be_bytes().as_slice(), body].concat()
    }

    #[test]
    fn a_record_comes_back_under_its_own_number_only() {
        for value in [encode(&record(12)).unwrap(), plain(&record(12))] {
            assert_eq!(decode(12, &value).unwrap(), record(12));
            assert!(matches!(decode(13, &value), Err(Fault::Damaged(text)) if text.contains("says that it is 12")));
        }
    }

    #[test]
    fn records_of_every_kind_come_back_and_most_are_half_as_long() {
        let (mut long, mut short) = (0, 0);
        for record in kinds() {
            let value = encode(&record).unwrap();
            assert_eq!(decode(record.sequence.0, &value).unwrap(), record);
            let json = serde_json::to_vec(&record).unwrap().len();
            assert!(value.len() <= HEADER + json);
            assert!(size_of(&value) == if value[4] == PACKED { json } else { HEADER + json });
            (long, short) = (long + json, short + value.len());
        }
        assert!(short * 2 < long, "{short} of {long} bytes");
    }

    /// What lies on gateways was packed with it: another dictionary is another form.
    #[test]
    fn the_dictionary_stays_as_it_is() {
        assert_eq!((DICTIONARY.len(), crc32fast::hash(DICTIONARY)), (4_813, 0x21fa_3cf3));
    }

    #[test]
    fn what_cannot_be_packed_stands_as_it_is() {
        let missing = (0..60_u64).map(|n| char::from(b'!' + u8::try_from(n * n * n % 89).unwrap())).collect();
        let record = Record { body: RecordBody::StoreRecovered { missing }, ..record(3) };
        let value = encode(&record).unwrap();
        assert_eq!(decode(3, &value).unwrap(), record);
        assert_eq!(scan(&value).records, [record]);
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_memory_is_taken_for_them() {
        let packed = |json: usize, length: usize, block: &[u8]| {
            let mut body = [&[PACKED], MARK].concat();
            push_length(&mut body, json);
            push_length(&mut body, length);
            sealed(&[&body, block].concat())
        };
        for value in [packed(200_000_000, 3, b"abc"), packed(3, 200, b"abc"), packed(9, 3, b"abc"), packed(0, 0, b"")] {
            assert!(matches!(decode(1, &value), Err(Fault::Newer(text)) if text.contains("does not understand")));
        }
        assert!(take_length(&[0xff; 9]).is_none() && take_length(&[]).is_none());
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        for value in [encode(&record(12)).unwrap(), plain(&record(12))] {
            for bit in 0..value.len() * 8 {
                let mut flipped = value.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(matches!(decode(12, &flipped), Err(Fault::Damaged(_))), "bit {bit}");
                assert!(scan(&flipped).records.is_empty(), "bit {bit}");
            }
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
            let form = if sequence % 3 == 0 { plain(&record(sequence)) } else { encode(&record(sequence)).unwrap() };
            pile.extend(form);
            pile.extend([0, b'{', b'"', 0x7f, MARK[0], MARK[1]]);
        }
        let found = scan(&pile);
        assert_eq!(found.records, (1..=20).map(record).collect::<Vec<_>>());
        assert_eq!(found.newer, 0);
        assert_eq!(scan(&pile[..pile.len() - 20]).records.len(), 19);
        assert!(scan(&[]).records.is_empty() && scan(BEGIN).records.is_empty());
    }
}
