//! A store in one small file: sled's files are half a megabyte of mostly zeros.
//!
//! `file <path> <length>` begins a file, `run <place> <length>` is followed by so many bytes of it and the end of a line; between runs
//! there are zeros. Nothing else stands in it.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::tree::Tree;

/// A run ends before so many zeros.
const GAP: usize = 32;

/// Packs files.
pub(crate) fn pack(files: &Tree) -> Vec<u8> {
    let mut packed = Vec::new();
    for (path, bytes) in files {
        let mut line = String::new();
        writeln!(line, "file {} {}", path.display(), bytes.len()).unwrap();
        packed.extend(line.bytes());
        for (at, run) in runs(bytes) {
            packed.extend(format!("run {at} {}\n", run.len()).bytes());
            packed.extend(run);
            packed.push(b'\n');
        }
    }
    packed
}

fn runs(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs = Vec::new();
    let mut at = 0;
    while let Some(skipped) = bytes[at..].iter().position(|byte| *byte != 0) {
        at += skipped;
        let rest = &bytes[at..];
        let zeros = rest.windows(GAP).position(|window| window.iter().all(|byte| *byte == 0));
        let end = zeros.unwrap_or_else(|| rest.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        runs.push((at, &rest[..end]));
        at += end;
    }
    runs
}

/// The files again.
pub(crate) fn unpack(packed: &[u8]) -> Tree {
    let mut files = Tree::new();
    let mut rest = packed;
    let mut path = PathBuf::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let words: Vec<&str> = std::str::from_utf8(&rest[..end]).unwrap().split(' ').collect();
        rest = &rest[end + 1..];
        let [what, name, length] = words[..] else { panic!("{words:?}") };
        let length: usize = length.parse().unwrap();
        if what == "file" {
            path = PathBuf::from(name);
            files.insert(path.clone(), vec![0; length]);
        } else {
            assert_eq!(what, "run");
            let at: usize = name.parse().unwrap();
            files.get_mut(&path).unwrap()[at..at + length].copy_from_slice(&rest[..length]);
            rest = &rest[length + 1..];
        }
    }
    files
}

#[test]
fn what_is_packed_comes_out_again() {
    let mut files = Tree::new();
    files.insert(PathBuf::from("empty"), Vec::new());
    files.insert(PathBuf::from("db/zeros"), vec![0; 100]);
    files.insert(
        PathBuf::from("db/db"),
        [vec![0; 40], vec![b'\n'; 3], vec![0; 31], vec![7], vec![0; 500], vec![9]].concat(),
    );
    let packed = pack(&files);
    assert_eq!(unpack(&packed), files);
    assert!(packed.len() < 200, "{}", packed.len());
}
