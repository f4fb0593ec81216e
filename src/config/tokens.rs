//! `tokens.toml`: who may charge from the start, and what goes with a token or its group.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::problem::{Document, Problem};
use super::reader::{At, Section};
use crate::engine::model::exchange::AuthorizationStatus;
use crate::engine::model::ids::IdToken;
use crate::engine::model::token::{MAX_TOKEN_CHARACTERS, MAX_TOKENS, TokenEntry};
use crate::engine::model::topology::MINIMUM_OFFER;
use crate::engine::model::wish::{MAX_ENERGY, TimeOfDay, Wish};
use crate::engine::time::Utc;
use crate::engine::units::{Current, Energy};

/// No car needs more to begin with; no station gives more to one.
const MAX_CURRENT_MA: i32 = 1_000_000;

/// What the file holds.
pub(super) type Known = (Vec<TokenEntry>, BTreeMap<String, Wish>);

/// Reads the entries and what is wrong with them.
pub(super) fn parse(path: &Path, text: &str) -> (Known, Vec<Problem>) {
    let document = Document::new(path, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        document.error(error.span().map_or(0, |span| span.start), format!("not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        return (Known::default(), document.into_problems());
    }
    let root = Section::root(&document, table.get_ref());
    let sections = root.sections("tokens", "[[tokens]]");
    if sections.len() > MAX_TOKENS {
        document.error(0, format!("{} tokens are more than the {MAX_TOKENS} that are supported", sections.len()));
    }
    let groups = groups(&root);
    let mut entries = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for section in sections.into_iter().take(MAX_TOKENS) {
        let Some((at, entry)) = entry(section, &groups) else { continue };
        if let Some(first) = seen.insert(entry.token.as_str().to_ascii_lowercase(), at) {
            let line = document.line(first);
            let message = format!(
                "token {:?} stands on line {line} already (tokens are compared without regard to case); remove one",
                entry.token.as_str()
            );
            document.error(at, message);
        }
        entries.push(entry);
    }
    for (name, (at, _)) in &groups {
        if !entries.iter().any(|entry| entry.group.as_ref() == Some(name)) {
            document.warn(*at, format!("no token is in group {name:?}; write `group = {name:?}` at those that are"));
        }
    }
    root.finish();
    let groups = groups.into_iter().map(|(name, (_, wish))| (name, wish)).collect();
    ((entries, groups), document.into_problems())
}

/// `[groups.NAME]`, each with where it stands.
fn groups(root: &Section<'_>) -> BTreeMap<String, (usize, Wish)> {
    let mut groups = BTreeMap::new();
    for (name, section) in root.named_sections("groups", "[groups.NAME]") {
        check_token(section.document, "group", &name);
        let wish = wish(&section);
        section.finish();
        groups.insert(name.value, (name.at, wish));
    }
    groups
}

/// What a token and a group may both say.
fn wish(section: &Section<'_>) -> Wish {
    let current = |key| {
        let range = MINIMUM_OFFER.ma()..=MAX_CURRENT_MA;
        section.thousandths(key, range).map(|found| found.map(Current::from_ma))
    };
    let (min, max) = (current("min_a"), current("max_a"));
    if let (Some(min), Some(max)) = (&min, &max)
        && min.value > max.value
    {
        let message = format!("`min_a` is {}, and must be at most `max_a`, {}", min.value, max.value);
        section.document.error(min.at, message);
    }
    let most = i32::try_from(MAX_ENERGY.wh()).unwrap_or(i32::MAX);
    let priority = section.integer("priority", -100..=100).and_then(|found| i32::try_from(found.value).ok());
    let weight = section.integer("weight", 1..=1_000).and_then(|found| u32::try_from(found.value).ok());
    Wish {
        priority,
        weight,
        min: min.map(|min| min.value),
        max: max.map(|max| max.value),
        departure: departure(section),
        // A thousandth of a kWh is a Wh.
        energy: section.thousandths("energy_kwh", 1..=most).map(|found| Energy::from_wh(i64::from(found.value))),
    }
}

fn departure(section: &Section<'_>) -> Option<TimeOfDay> {
    let text = section.text("departure")?;
    let time = TimeOfDay::parse(&text.value);
    if time.is_none() {
        let message = format!(
            "`departure` is {:?}, and must be a time of day on the site's clocks, such as \"07:00\"",
            text.value
        );
        section.document.error(text.at, message);
    }
    time
}

/// A departure without an energy says nothing about how fast, and an energy without a departure neither.
fn check_target(section: &Section<'_>, own: &Wish, group: Option<&Wish>) {
    let departure = own.departure.or_else(|| group?.departure).is_some();
    let energy = own.energy.or_else(|| group?.energy).is_some();
    let (has, lacks, example) = match (departure, energy) {
        (true, false) => ("departure", "energy_kwh", "20"),
        (false, true) => ("energy_kwh", "departure", "\"07:00\""),
        (true, true) | (false, false) => return,
    };
    let message = format!("`{has}` needs `{lacks}` too, here or in the group: add for example `{lacks} = {example}`");
    section.document.error(section.at, message);
}

/// Reads an entry.
fn entry(section: Section<'_>, groups: &BTreeMap<String, (usize, Wish)>) -> Option<(usize, TokenEntry)> {
    let document = section.document;
    section.require("token", "\"04A2B3C4\"");
    let token = section.text("token");
    let status = section.choice(
        "status",
        &[
            ("Accepted", AuthorizationStatus::Accepted),
            ("Blocked", AuthorizationStatus::Blocked),
            ("Expired", AuthorizationStatus::Expired),
            ("Invalid", AuthorizationStatus::Invalid),
        ],
    );
    let group = section.text("group").filter(|group| check_token(document, "group", group));
    let of_group = group.as_ref().and_then(|group| groups.get(&group.value)).map(|(_, wish)| wish);
    let expires = section.time("expires");
    let wish = wish(&section);
    check_target(&section, &wish, of_group);
    section.finish();
    let token = token.filter(|token| check_token(document, "token", token))?;
    let entry = TokenEntry {
        token: IdToken::new(&token.value),
        status: status.map_or(AuthorizationStatus::Accepted, |status| status.value),
        group: group.map(|group| group.value),
        expires,
        wish,
    };
    Some((token.at, entry))
}

fn check_token(document: &Document<'_>, key: &str, token: &At<String>) -> bool {
    let length = token.value.chars().count();
    let good = (1..=MAX_TOKEN_CHARACTERS).contains(&length) && !token.value.chars().any(char::is_control);
    if !good {
        let message =
            format!("`{key}` is {:?}, and must have 1 to {MAX_TOKEN_CHARACTERS} printable characters", token.value);
        document.error(token.at, message);
    }
    good
}

impl Section<'_> {
    /// A point in time: a TOML date-time with an offset, or the same as a string.
    fn time(&self, key: &'static str) -> Option<Utc> {
        let (at, value) = self.raw(key)?;
        let text = match value {
            DeValue::Datetime(time) if time.offset.is_some() => Some(time.to_string()),
            DeValue::String(text) if text.contains('T') && has_offset(text) => Some(text.to_string()),
            _ => None,
        };
        let time = text.as_deref().and_then(Utc::parse);
        if time.is_none() {
            self.document.error(at, format!("`{key}` must be a time with its offset, such as 2027-01-31T23:59:59Z"));
        }
        time
    }
}

/// [`Utc::parse`] takes a time without an offset as UTC, for stations' sake; from a person it is ambiguous.
fn has_offset(text: &str) -> bool {
    let time = text.split_once('T').map_or("", |(_, time)| time);
    time.contains(['Z', 'z', '+', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_with_their_status_group_and_expiry() {
        let text = "[[tokens]]\ntoken = \"04A2\"\n\n[[tokens]]\ntoken = \"staff-7\"\nstatus = \"Blocked\"\n\
                    group = \"staff\"\nexpires = 2027-01-31T23:59:59+01:00\n";
        let ((entries, _), problems) = parse(Path::new("tokens.toml"), text);
        assert_eq!(problems, []);
        assert_eq!(entries[0].status, AuthorizationStatus::Accepted);
        assert_eq!(entries[1].status, AuthorizationStatus::Blocked);
        assert_eq!(entries[1].group.as_deref(), Some("staff"));
        assert_eq!(entries[1].expires.unwrap().to_string(), "2027-01-31T22:59:59.000Z");
    }

    #[test]
    fn what_goes_with_a_token_and_with_its_group_is_read() {
        let text = "[groups.staff]\npriority = 5\nweight = 300\nmax_a = 16\ndeparture = \"17:30\"\n\n[[tokens]]\ntoken = \"04A2\"\n\
                    group = \"staff\"\nmin_a = 8\nenergy_kwh = 12.5\n";
        let ((entries, groups), problems) = parse(Path::new("tokens.toml"), text);
        assert_eq!(problems, []);
        let staff = &groups["staff"];
        assert_eq!((staff.priority, staff.weight, staff.max), (Some(5), Some(300), Some(Current::from_a(16))));
        assert_eq!(staff.departure, TimeOfDay::parse("17:30"));
        let own = &entries[0].wish;
        assert_eq!(
            (own.min, own.energy, own.priority),
            (Some(Current::from_a(8)), Some(Energy::from_wh(12_500)), None)
        );
    }

    #[test]
    fn wrong_wishes_are_all_reported() {
        let text = "[groups.staff]\npriorty = 5\nweight = 0\n[groups.guests]\ndeparture = \"7:00\"\n[[tokens]]\ntoken = \"A\"\n\
                    group = \"staff\"\nmin_a = 13\nmax_a = 10\n[[tokens]]\ntoken = \"B\"\ndeparture = \"07:00\"\n[[tokens]]\n\
                    token = \"C\"\nenergy_kwh = 5\nmin_a = 5.9\n";
        let (_, problems) = parse(Path::new("t"), text);
        let mut found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(
            found,
            [
                "t:11:1: `departure` needs `energy_kwh` too, here or in the group: add for example `energy_kwh = 20`",
                "t:14:1: `energy_kwh` needs `departure` too, here or in the group: add for example `departure = \"07:00\"`",
                "t:17:9: `min_a` is 5.9, and must be a number from 6 to 1000",
                "t:2:1: unknown key `priorty` in [groups.NAME]; did you mean `priority`?",
                "t:3:10: `weight` is 0, and must be a whole number from 1 to 1000",
                "t:4:9: warning: no token is in group \"guests\"; write `group = \"guests\"` at those that are",
                "t:5:13: `departure` is \"7:00\", and must be a time of day on the site's clocks, such as \"07:00\"",
                "t:9:9: `min_a` is 13.0 A, and must be at most `max_a`, 10.0 A",
            ]
        );
    }

    #[test]
    fn wrong_tokens_are_all_reported() {
        let text = "[[tokens]]\ntoken = \"04a2\"\n[[tokens]]\ntoken = \"04A2\"\nexpires = \"2027-01-31\"\n[[tokens]]\n\
                    status = \"OK\"\n[[tokens]]\ntoken = \"\"\n";
        let (_, problems) = parse(Path::new("t"), text);
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "t:4:9: token \"04A2\" stands on line 2 already (tokens are compared without regard to case); remove one",
                "t:5:11: `expires` must be a time with its offset, such as 2027-01-31T23:59:59Z",
                "t:6:1: [[tokens]] needs `token`: add for example `token = \"04A2B3C4\"`",
                "t:7:10: `status` is \"OK\", and must be \"Accepted\", \"Blocked\", \"Expired\" or \"Invalid\"",
                "t:9:9: `token` is \"\", and must have 1 to 36 printable characters",
            ]
        );
    }
}
