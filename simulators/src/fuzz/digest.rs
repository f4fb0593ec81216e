//! The whole state of a controller in some forty numbers: one for each of its fields, made of all that is below it.
//!
//! The debug form has every field, also those that somebody adds tomorrow. It is read as it is written and never kept.

use std::fmt::{self, Debug, Write};

use crate::rng::Fnv;

/// Fields of fields that are told apart: those of the controller, of its site, and of the site's link to the cloud (which lies in a `Some`).
const SITE: &str = "site";
const CLOUD: &str = "cloud";
/// How deep a name is looked for.
const DEEPEST: usize = 4;

/// A state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest(Vec<(String, u64)>);

impl Digest {
    /// Of everything below `state`.
    pub(super) fn of(state: &impl Debug) -> Self {
        let mut reader = Reader::default();
        // A writer that never fails.
        let _ = write!(reader, "{state:?}");
        Self(reader.fields.into_iter().map(|(name, hash)| (name, hash.value())).collect())
    }

    /// The fields that are not the same in another state, but for `allowed`.
    pub(super) fn changed<'a>(&'a self, other: &Self, allowed: &[&str]) -> Vec<&'a str> {
        let is_other = |(index, (name, hash)): (usize, &'a (String, u64))| {
            let same = other.0.get(index).is_some_and(|(other, theirs)| name == other && hash == theirs);
            (!same && !allowed.contains(&name.as_str())).then_some(name.as_str())
        };
        let mut changed: Vec<&str> = self.0.iter().enumerate().filter_map(is_other).collect();
        if self.0.len() != other.0.len() {
            changed.push("the fields themselves");
        }
        changed
    }

    #[cfg(test)]
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// Reads a debug form on the fly.
#[derive(Default)]
struct Reader {
    fields: Vec<(String, Fnv)>,
    names: [String; DEEPEST + 1],
    depth: usize,
    word: String,
    /// A name may come here.
    expects_name: bool,
    in_text: bool,
    escaped: bool,
}

impl Reader {
    fn take(&mut self, byte: u8) {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'(' | b'[' => {
                self.depth += 1;
                self.begin_word();
            }
            b'}' | b')' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' => self.begin_word(),
            b':' if self.expects_name => self.named(),
            byte if self.expects_name && self.depth <= DEEPEST && byte != b' ' => self.word.push(char::from(byte)),
            _ => {}
        }
    }

    fn begin_word(&mut self) {
        self.word.clear();
        self.expects_name = true;
    }

    fn named(&mut self) {
        self.expects_name = false;
        if self.depth > DEEPEST || !self.word.starts_with(|first: char| first.is_ascii_lowercase() || first == '_') {
            return;
        }
        self.names[self.depth].clone_from(&self.word);
        let in_cloud = self.names[1] == SITE && self.names[2] == CLOUD;
        let name = match self.depth {
            1 => self.names[1].clone(),
            2 if self.names[1] == SITE => self.names[2].clone(),
            4 if in_cloud => format!("{CLOUD}.{}", self.names[4]),
            _ => return,
        };
        self.fields.push((name, Fnv::default()));
    }
}

impl Write for Reader {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.take(byte);
        }
        // A name is a piece of its own, so that a piece belongs to one field: that of its end.
        if let Some((_, hash)) = self.fields.last_mut() {
            hash.write_long(text.as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Cloud {
        outbox: Vec<(u8, &'static str)>,
        until: Option<u8>,
    }

    #[derive(Debug)]
    #[expect(dead_code, reason = "read by its debug form alone")]
    struct Site {
        id: &'static str,
        cloud: Option<Cloud>,
        last: u8,
    }

    #[derive(Debug)]
    struct Controller {
        site: Site,
        guard: Option<u8>,
    }

    fn controller() -> Controller {
        let cloud = Cloud { outbox: vec![(1, "a: {"), (2, "\", last: 7")], until: None };
        Controller { site: Site { id: "x: 1, y", cloud: Some(cloud), last: 3 }, guard: Some(1) }
    }

    #[test]
    fn each_field_is_found_whatever_stands_in_texts() {
        let digest = Digest::of(&controller());
        assert_eq!(digest.names(), ["site", "id", "cloud", "cloud.outbox", "cloud.until", "last", "guard"]);
    }

    #[test]
    fn what_changed_is_named_and_what_may_change_is_not() {
        let before = Digest::of(&controller());
        let mut after = controller();
        after.site.last = 4;
        after.guard = None;
        if let Some(cloud) = &mut after.site.cloud {
            cloud.until = Some(3);
            cloud.outbox.clear();
        }
        let after = Digest::of(&after);
        assert_eq!(after.changed(&before, &[]), ["cloud.outbox", "cloud.until", "last", "guard"]);
        assert_eq!(after.changed(&before, &["guard", "cloud.until"]), ["cloud.outbox", "last"]);
        assert!(before.changed(&Digest::of(&controller()), &[]).is_empty());
    }
}
