//! What is wrong with a file, and where.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// A place in a file, as editors count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// Whether a problem keeps the daemon from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but somebody should look at it.
    Warning,
}

/// One thing that is wrong, where it is, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file that it is in.
    pub file: PathBuf,
    /// The place in the file.
    pub position: Position,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        let kind = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        write!(f, "{}:{line}:{column}: {kind}{}", self.file.display(), self.message)
    }
}

/// Why a configuration was refused: all its errors and warnings in the order of the file. There is at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// How many of them are errors.
    #[must_use]
    pub fn error_count(&self) -> usize {
        self.0.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl fmt::Display for Problems {
    /// One line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A file's text and what was found wrong in it. Places are byte offsets until they are reported.
#[derive(Debug)]
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    problems: RefCell<Vec<(usize, Severity, String)>>,
}

impl<'a> Document<'a> {
    pub(super) const fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, problems: RefCell::new(Vec::new()) }
    }

    pub(super) fn error(&self, at: usize, message: impl Into<String>) {
        self.problems.borrow_mut().push((at, Severity::Error, message.into()));
    }

    pub(super) fn warn(&self, at: usize, message: impl Into<String>) {
        self.problems.borrow_mut().push((at, Severity::Warning, message.into()));
    }

    /// The line of a byte offset, from 1, for a message that points to another place in the same file.
    pub(super) fn line(&self, at: usize) -> usize {
        self.position(at).line
    }

    fn position(&self, at: usize) -> Position {
        // Bytes, not `str` slices: an offset beyond the end or inside a character must not become a panic.
        let bytes = self.text.as_bytes();
        let before = &bytes[..at.min(bytes.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Position { line, column }
    }

    /// All problems in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut found = self.problems.take();
        found.sort_by_key(|(at, _, _)| *at);
        found.dedup();
        let file = self.file;
        found
            .into_iter()
            .map(|(at, severity, message)| Problem {
                file: file.to_owned(),
                position: self.position(at),
                severity,
                message,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let document = Document::new(Path::new("f"), "a = 1\nä = 2\n");
        assert_eq!(document.position(0), Position { line: 1, column: 1 });
        assert_eq!(document.position(6), Position { line: 2, column: 1 });
        // Byte 9 is the `=` sign: `ä` is two bytes and one character.
        assert_eq!(document.position(9), Position { line: 2, column: 3 });
        assert_eq!(document.position(9_999), Position { line: 3, column: 1 });
    }
}
