//! The ring's files.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A segment takes no more once it has so many bytes: so much is dropped at once.
const SEGMENT_BYTES: u64 = 128 << 10;
/// An answer to a read is cut there.
const READ_BYTES: usize = 256 << 10;
/// The cursor is written with each so many appends, and at the end: losing it costs repetitions, which are known by their numbers.
const SAVE_EVERY: u32 = 8;
const RING: &str = "ring";
const EXTENSION: &str = "jsonl";

/// What must be known without the segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    name: String,
    /// Everything up to here was delivered.
    acknowledged: u64,
    /// No number below is given any more.
    next: u64,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    first: u64,
    /// At most: where the ring was full or refused, fewer are there.
    last: u64,
    bytes: u64,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Ring {
    store: PathBuf,
    home: PathBuf,
    state: State,
    segments: VecDeque<Segment>,
    unsaved: u32,
}

impl Ring {
    /// Opens the ring below `store`, or makes one.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let home = store.join("telemetry");
        fs::create_dir_all(&home)?;
        let known = fs::read_to_string(home.join(RING)).ok().and_then(|text| serde_json::from_str::<State>(&text).ok());
        let is_new = known.is_none();
        let state = match known {
            Some(state) => state,
            None => State { name: random_name()?, acknowledged: 0, next: 1 },
        };
        let mut segments = segments_in(&home)?;
        let mut next = state.next.max(state.acknowledged + 1);
        if let Some(newest) = segments.back_mut() {
            let text = fs::read_to_string(&newest.path).unwrap_or_default();
            let (good, last) = whole_lines(&text);
            if good < newest.bytes {
                // What a power cut has torn was never sent.
                OpenOptions::new().write(true).open(&newest.path)?.set_len(good)?;
                newest.bytes = good;
            }
            newest.last = last.unwrap_or(newest.first.saturating_sub(1));
            next = next.max(newest.last + 1).max(newest.first);
        }
        let mut ring = Self { store: store.to_owned(), home, state: State { next, ..state }, segments, unsaved: 0 };
        if is_new {
            ring.save()?;
        }
        ring.forget();
        Ok(ring)
    }

    pub(super) fn name(&self) -> &str {
        &self.state.name
    }

    /// Everything up to the first is gone or delivered; the second is the last that there may be.
    pub(super) fn kept(&self) -> (u64, u64) {
        let newest = self.state.next - 1;
        let before = self.segments.front().map_or(newest, |oldest| oldest.first - 1);
        (before.max(self.state.acknowledged), newest)
    }

    /// Keeps intervals. All below the store together has at most `room` bytes afterwards, if dropping older ones can do it.
    ///
    /// # Errors
    /// What the system says; the intervals are dropped then, and their numbers not given again.
    pub(super) fn append(&mut self, intervals: &[String], room: u64) -> io::Result<()> {
        let first = self.state.next;
        let numbered = (first..).zip(intervals);
        let text: String = numbered.map(|(number, interval)| line(number, interval)).collect();
        self.state.next += u64::try_from(intervals.len()).unwrap_or(0);
        let wanted = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let others = size_of(&self.store).saturating_sub(size_of(&self.home));
        let allowed = room.saturating_sub(others).saturating_sub(wanted);
        while self.bytes() > allowed && self.segments.len() > 1 {
            self.drop_oldest();
        }
        let written = self.write(first, text.as_bytes()).or_else(|_| {
            // A full disk: once more with half as much on it.
            self.give_way();
            self.write(first, text.as_bytes())
        });
        self.unsaved += 1;
        if self.unsaved >= SAVE_EVERY {
            self.save()?;
        }
        written
    }

    fn write(&mut self, first: u64, text: &[u8]) -> io::Result<()> {
        if self.segments.back().is_none_or(|newest| newest.bytes >= SEGMENT_BYTES) {
            let path = self.home.join(format!("{first:020}.{EXTENSION}"));
            File::create(&path)?;
            File::open(&self.home)?.sync_all()?;
            self.segments.push_back(Segment { path, first, last: first.saturating_sub(1), bytes: 0 });
        }
        let Some(newest) = self.segments.back_mut() else { return Ok(()) };
        let mut file = OpenOptions::new().append(true).open(&newest.path)?;
        let written = file.write_all(text).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // No half line before the next one.
            let _ = file.set_len(newest.bytes);
            return Err(error);
        }
        newest.bytes += u64::try_from(text.len()).unwrap_or(0);
        newest.last = self.state.next - 1;
        Ok(())
    }

    /// At most `limit` intervals from `from` on, in order. What cannot be read is left out.
    pub(super) fn read(&self, from: u64, limit: usize) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for segment in self.segments.iter().filter(|segment| segment.last >= from) {
            let text = fs::read_to_string(&segment.path).unwrap_or_default();
            for (number, interval) in text.lines().filter_map(parsed).filter(|(number, _)| *number >= from) {
                bytes += interval.len();
                if found.len() >= limit || (bytes > READ_BYTES && !found.is_empty()) {
                    return found;
                }
                found.push((number, interval.to_owned()));
            }
        }
        found
    }

    /// Everything up to `through` was delivered.
    pub(super) fn acknowledged(&mut self, through: u64) {
        self.state.acknowledged = self.state.acknowledged.max(through.min(self.state.next - 1));
        self.forget();
    }

    /// Deletes what was delivered. The newest stays: it says which numbers were given.
    fn forget(&mut self) {
        while self.segments.len() > 1
            && self.segments.front().is_some_and(|oldest| oldest.last <= self.state.acknowledged)
        {
            self.drop_oldest();
        }
    }

    /// Drops half of the segments, the oldest first, and the last one when there is no other. How many bytes that gives.
    pub(super) fn give_way(&mut self) -> u64 {
        let before = self.bytes();
        if self.segments.len() == 1 && self.save().is_err() {
            return 0;
        }
        for _ in 0..self.segments.len().div_ceil(2) {
            self.drop_oldest();
        }
        before - self.bytes()
    }

    /// Writes name and cursor.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let text = serde_json::to_string(&self.state).map_err(io::Error::other)?;
        let new = self.home.join("ring.new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, self.home.join(RING))?;
        File::open(&self.home)?.sync_all()?;
        self.unsaved = 0;
        Ok(())
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            let _ = fs::remove_file(oldest.path);
        }
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

/// The segments by their names, the oldest first.
fn segments_in(home: &Path) -> io::Result<VecDeque<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(home)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(first) = name.filter(|first| *first > 0 && path.extension().is_some_and(|end| end == EXTENSION)) {
            let bytes = fs::metadata(&path)?.len();
            found.push(Segment { path, first, last: first, bytes });
        }
    }
    found.sort_by_key(|segment: &Segment| segment.first);
    let next_ones: Vec<u64> = found.iter().skip(1).map(|segment| segment.first).collect();
    for (segment, next) in found.iter_mut().zip(next_ones) {
        segment.last = next - 1;
    }
    Ok(found.into())
}

/// How many bytes the whole lines have from the beginning on, and the last number among them.
fn whole_lines(text: &str) -> (u64, Option<u64>) {
    let (mut good, mut last) = (0, None);
    for line in text.split_inclusive('\n') {
        let Some((number, _)) = line.strip_suffix('\n').and_then(parsed) else { break };
        good += u64::try_from(line.len()).unwrap_or(0);
        last = Some(number);
    }
    (good, last)
}

fn line(number: u64, interval: &str) -> String {
    let text = format!("{number} {interval}");
    format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()))
}

fn parsed(line: &str) -> Option<(u64, &str)> {
    let (crc, text) = line.split_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(text.as_bytes()) {
        return None;
    }
    let (number, interval) = text.split_once(' ')?;
    Some((number.parse().ok()?, interval))
}

/// The bytes of all files below a folder, as far as they can be seen.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u64 = 100 << 20;

    fn intervals(count: usize, bytes: usize) -> Vec<String> {
        vec![format!("\"{}\"", "x".repeat(bytes)); count]
    }

    fn numbers(found: &[(u64, String)]) -> Vec<u64> {
        found.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room_and_the_gap_is_seen() {
        let store = tempfile::TempDir::new().unwrap();
        let mut ring = Ring::open(store.path()).unwrap();
        for _ in 0..40 {
            ring.append(&intervals(10, 5_000), 1 << 20).unwrap();
        }
        assert!(size_of(store.path()) <= 1 << 20, "{}", size_of(store.path()));
        let (dropped, newest) = ring.kept();
        assert!(dropped > 150 && newest == 400, "{dropped} {newest}");
        assert_eq!(numbers(&ring.read(1, 3)), [dropped + 1, dropped + 2, dropped + 3]);
        // What else lies in the store has the first right to the room.
        fs::write(store.path().join("journal"), vec![0; 900 << 10]).unwrap();
        ring.append(&intervals(1, 5_000), 1 << 20).unwrap();
        assert!(ring.bytes() <= 2 * SEGMENT_BYTES, "{}", ring.bytes());
        assert_eq!(ring.kept().1, 401);
    }

    #[test]
    fn what_was_delivered_goes_and_no_number_comes_again() {
        let store = tempfile::TempDir::new().unwrap();
        let mut ring = Ring::open(store.path()).unwrap();
        for _ in 0..10 {
            ring.append(&intervals(10, 5_000), ROOM).unwrap();
        }
        assert!(ring.segments.len() > 2);
        ring.acknowledged(100);
        assert_eq!((ring.segments.len(), ring.kept()), (1, (100, 100)));
        // The power is cut: the cursor is lost in part, the numbers are not.
        let mut ring = Ring::open(store.path()).unwrap();
        assert_eq!(ring.kept().1, 100);
        ring.append(&intervals(1, 10), ROOM).unwrap();
        assert_eq!(numbers(&ring.read(101, 9)), [101]);
        while ring.give_way() > 0 {}
        assert_eq!(ring.kept(), (101, 101));
        assert_eq!(Ring::open(store.path()).unwrap().kept(), (101, 101));
    }

    #[test]
    fn a_torn_or_a_rotten_line_is_left_out() {
        let store = tempfile::TempDir::new().unwrap();
        let mut ring = Ring::open(store.path()).unwrap();
        for number in 0..3 {
            ring.append(&[format!("{{\"a\":{number}}}")], ROOM).unwrap();
        }
        let path = ring.segments[0].path.clone();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 5]).unwrap();
        let mut ring = Ring::open(store.path()).unwrap();
        assert_eq!(numbers(&ring.read(1, 9)), [1, 2]);
        ring.append(&["{}".to_owned()], ROOM).unwrap();
        assert_eq!(numbers(&ring.read(1, 9)), [1, 2, 3]);
        let rotten = fs::read_to_string(&path).unwrap().replacen("\"a\":0", "\"a\":7", 1);
        fs::write(&path, rotten).unwrap();
        assert_eq!(numbers(&ring.read(1, 9)), [2, 3]);
    }

    #[test]
    fn a_disk_that_refuses_costs_the_interval_and_its_number() {
        let store = tempfile::TempDir::new().unwrap();
        let mut ring = Ring::open(store.path()).unwrap();
        ring.append(&intervals(1, 10), ROOM).unwrap();
        fs::remove_dir_all(&ring.home).unwrap();
        assert!(ring.append(&intervals(2, 10), ROOM).is_err());
        fs::create_dir(&ring.home).unwrap();
        ring.append(&intervals(1, 10), ROOM).unwrap();
        assert_eq!(numbers(&ring.read(1, 9)), [4]);
    }
}
