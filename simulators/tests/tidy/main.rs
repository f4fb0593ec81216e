//! Holds the shape of the repository: which module may name which, how long a file and a function may be, that the
//! documents lead somewhere. What clippy can say is said in `Cargo.toml` and `.clippy.toml`; this is the rest.
//!
//! A finding reads `FILE:LINE: what is wrong: what to do instead`.

mod arrows;
mod docs;
mod size;
mod source;
mod tree;

use std::fmt::Write as _;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// The file, from the top of the repository.
    file: String,
    /// The line, from 1.
    line: usize,
    /// What is wrong.
    rule: String,
    /// What to do instead.
    remedy: String,
}

impl Finding {
    fn new(file: &str, line: usize, rule: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, rule: rule.into(), remedy: remedy.into() }
    }
}

/// Fails with all findings at once.
#[track_caller]
fn expect_none(findings: &[Finding]) {
    let mut text = String::new();
    for Finding { file, line, rule, remedy } in findings {
        let _ = writeln!(text, "{file}:{line}: {rule}: {remedy}");
    }
    assert!(findings.is_empty(), "{} finding(s)\n{text}", findings.len());
}

#[test]
fn modules_name_only_what_they_may() {
    expect_none(&tree::rust_files().iter().flat_map(arrows::check_layers).collect::<Vec<_>>());
}

#[test]
fn packages_stay_in_their_place() {
    expect_none(&tree::rust_files().iter().flat_map(arrows::check_packages).collect::<Vec<_>>());
}

#[test]
fn files_and_functions_are_short() {
    expect_none(&tree::rust_files().iter().flat_map(size::check).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_half_done() {
    expect_none(&tree::rust_files().iter().flat_map(source::check_words).collect::<Vec<_>>());
}

#[test]
fn files_have_names_that_say_something() {
    expect_none(&tree::check_names());
}

#[test]
fn nothing_points_at_somebodys_machine() {
    expect_none(&tree::text_files().iter().flat_map(tree::check_paths).collect::<Vec<_>>());
}

#[test]
fn every_document_is_in_the_index() {
    expect_none(&docs::check_index());
}

#[test]
fn links_in_documents_lead_somewhere() {
    expect_none(&docs::check_links());
}

#[test]
fn make_targets_in_documents_exist() {
    expect_none(&docs::check_make_targets());
}
