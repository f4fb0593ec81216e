//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Finding;
use crate::source::Source;

/// What may be seen at the top: a newcomer reads this list first.
const TOP: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "configs",
    "debian",
    "docs",
    "simulators",
    "src",
    // Not in version control.
    "target",
];

/// Built, or not ours.
const SKIPPED_FOLDERS: &[&str] =
    &["target", ".git", ".venv", ".tools", "__pycache__", "debian/siteward", "debian/.debhelper"];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "common", "misc", "stuff"];

/// A text file with its place from the top of the repository.
pub(crate) struct Text {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    let simulators = Path::new(env!("CARGO_MANIFEST_DIR"));
    simulators.parent().expect("the simulators are a folder of the repository").to_path_buf()
}

/// All Rust sources of the product and the simulators, tests included, without the stand-ins for other people's packages.
pub(crate) fn rust_files() -> Vec<Source> {
    let files = text_files().into_iter();
    let ours = files.filter(|file| file.path.ends_with(".rs") && !file.path.starts_with(".cargo/"));
    let sources: Vec<Source> = ours.map(|file| Source::new(&file.path, &file.text)).collect();
    assert!(sources.len() > 10, "the sources were not found below {}", root().display());
    sources
}

/// All files that are text, in order.
pub(crate) fn text_files() -> Vec<Text> {
    let mut files = Vec::new();
    walk(&root(), "", &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<Text>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries.flatten() {
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let is_skipped =
            SKIPPED_FOLDERS.iter().any(|skipped| path == *skipped || path.ends_with(&format!("/{skipped}")));
        if is_skipped {
            continue;
        }
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{path}/"), files);
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            files.push(Text { path, text });
        }
    }
}

/// The top level holds what it should, and no file is called `utils.rs`.
pub(crate) fn check_names() -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in fs::read_dir(root()).expect("the repository can be read").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP.contains(&name.as_str()) {
            findings.push(Finding::new(
                &name,
                1,
                "does not belong at the top level",
                "put it into a folder, or make it a dotfile",
            ));
        }
    }
    for file in text_files() {
        let stem =
            Path::new(&file.path).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let folder_is_empty_name = file.path.split('/').any(|part| EMPTY_NAMES.contains(&part));
        if file.path.ends_with(".rs") && (EMPTY_NAMES.contains(&stem.as_str()) || folder_is_empty_name) {
            findings.push(Finding::new(&file.path, 1, "a name that says nothing", "name it after the noun inside"));
        }
    }
    findings
}

/// No path that exists on one machine only.
pub(crate) fn check_paths(file: &Text) -> Vec<Finding> {
    // Put together here, or this file would be a finding.
    let private = [["/ho", "me/"], ["/ro", "ot/"], ["/wo", "rk/"], ["/Use", "rs/"]].map(|halves| halves.concat());
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let hit = private.iter().find(|path| starts_a_path(line, path));
        if let Some(path) = hit {
            let rule = format!("`{path}` exists on one machine only");
            findings.push(Finding::new(
                &file.path,
                number + 1,
                rule,
                "a path from the top of the repository, or a variable",
            ));
        }
    }
    findings
}

/// `path` stands in `line` where a path begins, not in the middle of one (`https://example.org/home/` is fine).
fn starts_a_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || "._-)}$/".contains(before))
    })
}

#[test]
fn a_path_in_the_middle_of_an_address_is_not_one_on_a_machine() {
    let here = ["/ho", "me/"].concat();
    assert!(starts_a_path(&format!("see {here}pi"), &here));
    assert!(starts_a_path(&format!("\"{here}pi\""), &here));
    assert!(!starts_a_path(&format!("https://example.org{here}pi"), &here));
}
