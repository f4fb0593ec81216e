//! Typed reading of TOML tables that reports everything wrong with its place instead of stopping at the first fault.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Document;

/// A value and the byte offset that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) at: usize,
    pub(super) value: T,
}

impl<T> At<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { at: self.at, value: f(self.value) }
    }
}

/// A table of the file. It remembers which keys were asked for: all others are unknown.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) document: &'a Document<'a>,
    /// How a person names it, such as `[site]` or `[[chargers]]`.
    pub(super) label: &'static str,
    /// Where it begins.
    pub(super) at: usize,
    table: Option<&'a DeTable<'a>>,
    /// Something else stands where the table should be; that was said, and nothing is missed in it any more.
    broken: bool,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(document: &'a Document<'a>, table: &'a DeTable<'a>) -> Self {
        Self::new(document, "the file", 0, Some(table))
    }

    fn new(document: &'a Document<'a>, label: &'static str, at: usize, table: Option<&'a DeTable<'a>>) -> Self {
        Self { document, label, at, table, broken: false, known: RefCell::default() }
    }

    /// Whether the file has this table at all.
    pub(super) const fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Where an array begins and how many entries it has.
    pub(super) fn count(&self, key: &'static str) -> Option<(usize, usize)> {
        let value = self.value(key)?;
        value.get_ref().as_array().map(|array| (value.span().start, array.len()))
    }

    /// Reports a missing key with an example of a right one.
    pub(super) fn require(&self, key: &'static str, example: &str) {
        if !self.has(key) && !self.broken {
            let message = format!("{} needs `{key}`: add for example `{key} = {example}`", self.label);
            self.document.error(self.at, message);
        }
    }

    fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.table?.get(key)
    }

    /// The value as TOML has it, for a type that only one place reads.
    pub(super) fn raw(&self, key: &'static str) -> Option<(usize, &'a DeValue<'a>)> {
        self.value(key).map(|value| (value.span().start, value.get_ref()))
    }

    /// A table below this one; an absent one gives only defaults.
    pub(super) fn section(&self, key: &'static str, label: &'static str) -> Section<'a> {
        let Some(value) = self.value(key) else { return Self::new(self.document, label, self.at, None) };
        let at = value.span().start;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(key, value, &format!("a table: write {label} on a line of its own"));
        }
        Self { broken: table.is_none(), ..Self::new(self.document, label, at, table) }
    }

    /// All tables of an array of tables.
    pub(super) fn sections(&self, key: &'static str, label: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let expected = format!("an array of tables: write {label} above each entry");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, &expected);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => sections.push(Self::new(self.document, label, item.span().start, Some(table))),
                None => self.wrong_type(key, item, &expected),
            }
        }
        sections
    }

    /// All tables below a key, with the names that the file gives them.
    pub(super) fn named_sections(&self, key: &'static str, label: &'static str) -> Vec<(At<String>, Section<'a>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let expected = format!("a table of tables: write {label} on a line of its own above each");
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, &expected);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (name, item) in table.iter() {
            let at = name.span().start;
            match item.get_ref().as_table() {
                Some(table) => {
                    let name = At { at, value: name.get_ref().to_string() };
                    sections.push((name, Self::new(self.document, label, at, Some(table))));
                }
                None => self.wrong_type(key, item, &expected),
            }
        }
        sections
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let found = value.get_ref().type_str();
        self.document
            .error(value.span().start, format!("`{key}` is {} {found}, and must be {expected}", article(found)));
    }

    /// A string.
    pub(super) fn text(&self, key: &'static str) -> Option<At<String>> {
        let value = self.value(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At { at: value.span().start, value: text.to_owned() }),
            None => {
                self.wrong_type(key, value, "a string in quotes");
                None
            }
        }
    }

    /// Several strings.
    pub(super) fn texts(&self, key: &'static str) -> Option<At<Vec<At<String>>>> {
        let value = self.value(key)?;
        let expected = "an array of strings, such as [\"L1\", \"L2\", \"L3\"]";
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, expected);
            return None;
        };
        let mut texts = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { at: item.span().start, value: text.to_owned() }),
                None => {
                    self.wrong_type(key, item, expected);
                    return None;
                }
            }
        }
        Some(At { at: value.span().start, value: texts })
    }

    /// One string or several.
    pub(super) fn text_or_texts(&self, key: &'static str) -> Option<At<Vec<At<String>>>> {
        let value = self.value(key)?;
        if value.get_ref().as_array().is_some() {
            return self.texts(key);
        }
        self.text(key).map(|text| At { at: text.at, value: vec![text] })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Option<At<bool>> {
        let value = self.value(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(key, value, "true or false, without quotes");
        }
        found.map(|found| At { at: value.span().start, value: found })
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<i64>) -> Option<At<i64>> {
        let value = self.value(key)?;
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, &expected);
            return None;
        };
        let parsed = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let Some(parsed) = parsed.filter(|parsed| range.contains(parsed)) else {
            self.document.error(value.span().start, format!("`{key}` is {integer}, and must be {expected}"));
            return None;
        };
        Some(At { at: value.span().start, value: parsed })
    }

    /// A number with at most three decimals, as thousandths. `range` is in thousandths too.
    pub(super) fn thousandths(&self, key: &'static str, range: RangeInclusive<i32>) -> Option<At<i32>> {
        let value = self.value(key)?;
        self.read_thousandths(key, value, range)
    }

    /// One number for all phases, or an array with one for each of L1, L2 and L3, as thousandths.
    pub(super) fn thousandths_per_phase(&self, key: &'static str, range: RangeInclusive<i32>) -> Option<At<[i32; 3]>> {
        let value = self.value(key)?;
        let at = value.span().start;
        let Some(array) = value.get_ref().as_array() else {
            return self.read_thousandths(key, value, range).map(|same| same.map(|same| [same; 3]));
        };
        if array.len() != 3 {
            let message = format!(
                "`{key}` has {} values, and must be one number for all phases or three numbers, for L1, L2 and L3",
                array.len()
            );
            self.document.error(at, message);
            return None;
        }
        let values: Vec<Option<At<i32>>> =
            array.iter().map(|item| self.read_thousandths(key, item, range.clone())).collect();
        let values: Option<Vec<i32>> = values.into_iter().map(|item| item.map(|item| item.value)).collect();
        let values: [i32; 3] = values?.try_into().ok()?;
        Some(At { at, value: values })
    }

    /// An array of numbers that rise, as thousandths.
    pub(super) fn rising_thousandths(&self, key: &'static str, range: RangeInclusive<i32>) -> Option<At<Vec<i32>>> {
        let value = self.value(key)?;
        let at = value.span().start;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "an array of numbers that rise, such as [6, 8, 10, 13, 16]");
            return None;
        };
        let values: Vec<Option<At<i32>>> =
            array.iter().map(|item| self.read_thousandths(key, item, range.clone())).collect();
        let values: Option<Vec<i32>> = values.into_iter().map(|item| item.map(|item| item.value)).collect();
        let values = values?;
        if values.is_empty() || values.windows(2).any(|pair| pair[0] >= pair[1]) {
            let message = format!("`{key}` must be an array of numbers that rise, such as [6, 8, 10, 13, 16]");
            self.document.error(at, message);
            return None;
        }
        Some(At { at, value: values })
    }

    /// Exactly `count` numbers with at most three decimals, as thousandths.
    pub(super) fn thousandths_list(
        &self,
        key: &'static str,
        range: RangeInclusive<i32>,
        count: usize,
    ) -> Option<At<Vec<i32>>> {
        let value = self.value(key)?;
        let at = value.span().start;
        let Some(array) = value.get_ref().as_array().filter(|array| array.len() == count) else {
            self.document.error(at, format!("`{key}` must be an array of {count} numbers"));
            return None;
        };
        let values: Vec<Option<At<i32>>> =
            array.iter().map(|item| self.read_thousandths(key, item, range.clone())).collect();
        let values: Option<Vec<i32>> = values.into_iter().map(|item| item.map(|item| item.value)).collect();
        Some(At { at, value: values? })
    }

    fn read_thousandths(&self, key: &str, value: &Spanned<DeValue<'_>>, range: RangeInclusive<i32>) -> Option<At<i32>> {
        let at = value.span().start;
        let expected = format!("a number from {} to {}", decimal(*range.start()), decimal(*range.end()));
        let (text, parsed) = match value.get_ref() {
            DeValue::Integer(integer) if integer.radix() == 10 => {
                (integer.as_str(), parse_thousandths(integer.as_str()))
            }
            DeValue::Float(float) => (float.as_str(), parse_thousandths(float.as_str())),
            _ => {
                self.wrong_type(key, value, &expected);
                return None;
            }
        };
        match parsed {
            Some(parsed) if range.contains(&parsed) => Some(At { at, value: parsed }),
            Some(_) => {
                self.document.error(at, format!("`{key}` is {text}, and must be {expected}"));
                None
            }
            None => {
                let message = format!("`{key}` is {text}, and must be {expected} with at most three decimals");
                self.document.error(at, message);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<At<T>> {
        let text = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(text.map(|_| *value));
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.document.error(text.at, format!("`{key}` is {:?}, and must be {}", text.value, one_of(&names)));
        None
    }

    /// Reports every key that nobody has asked for. The last call on a section.
    pub(super) fn finish(self) {
        let known = self.known.into_inner();
        let Some(table) = self.table else { return };
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let remedy = nearest(name, known.iter().copied()).map_or_else(
                || format!("known here are: {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            self.document.error(key.span().start, format!("unknown key `{name}` in {}; {remedy}", self.label));
        }
        #[cfg(test)]
        recorded::keep(self.label, &known);
    }
}

/// Reads a plain decimal number with at most three decimals as thousandths. `None` for anything else.
fn parse_thousandths(text: &str) -> Option<i32> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 3 || !plain(whole) || !plain(fraction) {
        return None;
    }
    let magnitude: i32 = format!("{whole}{fraction:0<3}").parse().ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

/// Thousandths as a person writes them, without needless zeros.
pub(super) fn decimal(thousandths: i32) -> String {
    let sign = if thousandths < 0 { "-" } else { "" };
    let magnitude = thousandths.unsigned_abs();
    let text = format!("{sign}{}.{:03}", magnitude / 1000, magnitude % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The candidate that a person most likely meant, if one is near.
pub(super) fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // One slip in three characters is still a slip; more is another word.
    let most = (name.chars().count() / 3).clamp(1, 3);
    let name = name.to_lowercase();
    candidates
        .map(|candidate| {
            let known = candidate.to_lowercase();
            // A unit that was left off (`limit` for `limit_a`) is the most common slip of all.
            let unit_left_off = name.len() >= 3 && known.strip_prefix(&name).is_some_and(|end| end.starts_with('_'));
            let distance = if unit_left_off { 0 } else { strsim::damerau_levenshtein(&name, &known) };
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// Which keys the reader asks for, so that a test can hold the documentation against them.
#[cfg(test)]
pub(super) mod recorded {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static KEYS: RefCell<BTreeSet<(&'static str, &'static str)>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(in super::super) fn keep(label: &'static str, known: &[&'static str]) {
        KEYS.with_borrow_mut(|keys| keys.extend(known.iter().map(|key| (label, *key))));
    }

    pub(in super::super) fn take() -> BTreeSet<(&'static str, &'static str)> {
        KEYS.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly_or_not_at_all() {
        assert_eq!(parse_thousandths("62.5"), Some(62_500));
        assert_eq!(parse_thousandths("-0.001"), Some(-1));
        assert_eq!(parse_thousandths("+16.000000"), Some(16_000));
        for text in ["0.0001", "inf", "nan", "1e3", "9999999", "", ".5", "-"] {
            assert_eq!(parse_thousandths(text), None, "{text}");
        }
        assert_eq!([decimal(62_500), decimal(6_000), decimal(-50), decimal(0)], ["62.5", "6", "-0.05", "0"]);
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["limit_a", "parent", "meter"];
        assert_eq!(nearest("limt_a", known.into_iter()), Some("limit_a"));
        assert_eq!(nearest("Meter", known.into_iter()), Some("meter"));
        assert_eq!(nearest("limit", known.into_iter()), Some("limit_a"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
