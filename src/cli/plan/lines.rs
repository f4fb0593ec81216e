//! Lines of a bounded length.

use std::io::{self, BufRead, Read as _};

/// The longest line: a site of 10,000 EVSEs needs about 4 MB.
const LONGEST: u64 = 16 * 1024 * 1024;

/// One line of the input.
pub(super) enum Line {
    Text(String),
    /// It cannot be read; the rest of it was skipped.
    Bad(String),
    /// There are no more.
    End,
}

/// Reads and counts lines.
pub(super) struct Lines<R> {
    input: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, number: 0 }
    }

    /// The number of the last line, from 1.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn next(&mut self) -> io::Result<Line> {
        let mut bytes = Vec::new();
        if self.input.by_ref().take(LONGEST + 1).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        if bytes.last() != Some(&b'\n') && u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST) {
            self.input.skip_until(b'\n')?;
            return Ok(Line::Bad(format!("the line is longer than {LONGEST} bytes; send one state per line")));
        }
        Ok(match String::from_utf8(bytes) {
            Ok(text) => Line::Text(text),
            Err(error) => Line::Bad(format!("byte {}: not UTF-8", error.utf8_error().valid_up_to() + 1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_is_read() {
        let mut input = vec![b'x'; usize::try_from(LONGEST).expect("64 bit") + 10];
        input.extend_from_slice(b"\nnext\n\xff\nlast");
        let mut input = input.as_slice();
        let mut lines = Lines::new(&mut input);
        assert!(matches!(lines.next(), Ok(Line::Bad(why)) if why.starts_with("the line is longer")));
        assert!(matches!(lines.next(), Ok(Line::Text(text)) if text == "next\n"));
        assert!(matches!(lines.next(), Ok(Line::Bad(why)) if why == "byte 1: not UTF-8"));
        assert!(matches!(lines.next(), Ok(Line::Text(text)) if text == "last"));
        assert!(matches!(lines.next(), Ok(Line::End)));
        assert_eq!(lines.number(), 4);
    }
}
