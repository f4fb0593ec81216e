//! `tokens.toml`: who may charge from the start.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::problem::{Document, Problem};
use super::reader::{At, Section};
use crate::engine::model::exchange::AuthorizationStatus;
use crate::engine::model::ids::IdToken;
use crate::engine::model::token::TokenEntry;
use crate::engine::time::Utc;

/// More people than any site has; a list beyond it would fill the memory of a small gateway.
const MAX_TOKENS: usize = 100_000;
/// OCPP 2.0.1's identifierString of 36 characters; OCPP 1.6 carries 20 (CiString20).
const MAX_TOKEN_CHARACTERS: usize = 36;

/// Reads the entries and what is wrong with them.
pub(super) fn parse(path: &Path, text: &str) -> (Vec<TokenEntry>, Vec<Problem>) {
    let document = Document::new(path, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        document.error(error.span().map_or(0, |span| span.start), format!("not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        return (Vec::new(), document.into_problems());
    }
    let root = Section::root(&document, table.get_ref());
    let sections = root.sections("tokens", "[[tokens]]");
    if sections.len() > MAX_TOKENS {
        document.error(0, format!("{} tokens are more than the {MAX_TOKENS} that are supported", sections.len()));
    }
    let mut entries = Vec::new();
    let mut groups = None;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for section in sections.into_iter().take(MAX_TOKENS) {
        let Some((at, entry)) = entry(section, &mut groups) else { continue };
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
    if let Some(at) = groups {
        // Once: a list may have a group at each of thousands.
        document.warn(
            at,
            "`group` is not effective in this version: a transaction is stopped with the token that started it",
        );
    }
    root.finish();
    (entries, document.into_problems())
}

/// Reads an entry. `groups` is where the first `group` stands.
fn entry(section: Section<'_>, groups: &mut Option<usize>) -> Option<(usize, TokenEntry)> {
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
    if let Some(group) = &group {
        groups.get_or_insert(group.at);
    }
    let expires = section.time("expires");
    section.finish();
    let token = token.filter(|token| check_token(document, "token", token))?;
    let entry = TokenEntry {
        token: IdToken::new(&token.value),
        status: status.map_or(AuthorizationStatus::Accepted, |status| status.value),
        group: group.map(|group| group.value),
        expires,
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
        let (entries, problems) = parse(Path::new("tokens.toml"), text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].to_string().starts_with("tokens.toml:7:9: warning: `group` is not effective"),
            "{problems:?}"
        );
        assert_eq!(entries[0].status, AuthorizationStatus::Accepted);
        assert_eq!(entries[1].status, AuthorizationStatus::Blocked);
        assert_eq!(entries[1].group.as_deref(), Some("staff"));
        assert_eq!(entries[1].expires.unwrap().to_string(), "2027-01-31T22:59:59.000Z");
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
