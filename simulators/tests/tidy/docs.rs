//! Documents: each is in the index, their links lead somewhere, their commands exist.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::Finding;
use crate::tree::{Text, root, text_files};

/// A link in a document.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    target: String,
    line: usize,
}

/// Every document under `docs/` is linked from `docs/README.md`.
pub(crate) fn check_index() -> Vec<Finding> {
    let documents = documents();
    let index = documents.iter().find(|document| document.path == "docs/README.md");
    let Some(index) = index else {
        return vec![Finding::new("docs/README.md", 1, "is missing", "write the index of the documents")];
    };
    let linked: BTreeSet<String> =
        links(&index.text).iter().map(|link| resolve(&index.path, without_anchor(&link.target))).collect();
    let others = documents.iter().filter(|document| document.path.starts_with("docs/") && document.path != index.path);
    let missing = others.filter(|document| !linked.contains(&document.path));
    missing
        .map(|document| Finding::new(&document.path, 1, "is not in the index", "link it from docs/README.md"))
        .collect()
}

/// Every local link leads to a file, and to a heading where it names one.
pub(crate) fn check_links() -> Vec<Finding> {
    let documents = documents();
    let mut findings = Vec::new();
    for document in &documents {
        for link in links(&document.text).into_iter().filter(|link| is_local(&link.target)) {
            if let Some(rule) = broken(document, &link.target, &documents) {
                findings.push(Finding::new(&document.path, link.line, rule, "correct the link"));
            }
        }
    }
    findings
}

/// Every `make something` in a document is a target of the Makefile.
pub(crate) fn check_make_targets() -> Vec<Finding> {
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("there is a Makefile");
    let targets: BTreeSet<&str> = makefile.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let mut findings = Vec::new();
    for document in documents() {
        for (line, command) in make_commands(&document.text) {
            if !targets.contains(command.as_str()) {
                let rule = format!("`make {command}` does not exist");
                findings.push(Finding::new(&document.path, line, rule, "`make help` lists what does"));
            }
        }
    }
    findings
}

fn documents() -> Vec<Text> {
    text_files().into_iter().filter(|file| file.path.ends_with(".md")).collect()
}

fn is_local(target: &str) -> bool {
    !target.contains("://") && !target.starts_with("mailto:")
}

fn without_anchor(target: &str) -> &str {
    target.split('#').next().unwrap_or(target)
}

fn broken(document: &Text, target: &str, documents: &[Text]) -> Option<String> {
    let place = match without_anchor(target) {
        "" => document.path.clone(),
        file => resolve(&document.path, file),
    };
    if !root().join(&place).exists() {
        return Some(format!("`{target}` leads nowhere"));
    }
    let (_, anchor) = target.split_once('#')?;
    let other = documents.iter().find(|other| other.path == place)?;
    let has_heading = headings(&other.text).contains(anchor);
    (!has_heading).then(|| format!("`{place}` has no heading `#{anchor}`"))
}

/// Where a link from `from` leads, from the top of the repository.
fn resolve(from: &str, target: &str) -> String {
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    let mut place = PathBuf::new();
    for part in folder.join(target.trim_end_matches('/')).components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            Component::Normal(name) => place.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    place.to_string_lossy().into_owned()
}

/// The lines outside of code blocks, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((number + 1, line))
    })
}

fn links(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        for piece in line.split("](").skip(1) {
            let Some((target, _)) = piece.split_once(')') else { continue };
            let target = target.split_whitespace().next().unwrap_or_default();
            links.push(Link { target: target.to_owned(), line: number });
        }
    }
    links
}

/// The anchors of a document's headings, as the usual viewers make them.
fn headings(text: &str) -> BTreeSet<String> {
    let titles =
        prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| line.trim_start_matches('#').trim());
    titles
        .map(|title| {
            let kept = title
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .collect::<String>();
            kept.replace(' ', "-")
        })
        .collect()
}

/// Each `make NAME` in code: after a backquote or at the start of a line of a code block.
fn make_commands(text: &str) -> Vec<(usize, String)> {
    let mut commands = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let starts = line.split('`').chain(std::iter::once(line)).map(|piece| piece.trim_start_matches(['$', ' ']));
        for rest in starts.filter_map(|piece| piece.strip_prefix("make ")) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            if !name.is_empty() && line.contains(&format!("make {name}")) && is_code(line) {
                commands.push((number + 1, name));
            }
        }
    }
    commands.dedup();
    commands
}

/// A line with a command: it has a backquote, or begins with the command itself.
fn is_code(line: &str) -> bool {
    line.contains('`') || line.starts_with("make ") || line.starts_with("$ make ") || line.starts_with("    make ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "See [a](b.md#c) and [d](../e.md \"title\").\n```\n[no](x.md)\n```\n![picture](p.svg)";
        let targets: Vec<String> =
            links(text).into_iter().map(|link| format!("{}:{}", link.line, link.target)).collect();
        assert_eq!(targets, ["1:b.md#c", "1:../e.md", "5:p.svg"]);
    }

    #[test]
    fn links_are_resolved_from_their_document() {
        assert_eq!(resolve("docs/install.md", "../README.md"), "README.md");
        assert_eq!(resolve("docs/README.md", "install.md"), "docs/install.md");
        assert_eq!(resolve("README.md", "docs/"), "docs");
    }

    #[test]
    fn headings_become_anchors() {
        let anchors = headings("# The safety model\n```\n# not one\n```\n## 1. What, and why?");
        assert_eq!(anchors.into_iter().collect::<Vec<_>>(), ["1-what-and-why", "the-safety-model"]);
    }

    #[test]
    fn commands_are_found_in_code_only() {
        let text = "Run `make demo`.\nThis will make sense.\nmake test # all\n    make deb";
        assert_eq!(make_commands(text), [(1, "demo".to_owned()), (3, "test".to_owned()), (4, "deb".to_owned())]);
    }
}
