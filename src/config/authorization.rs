//! `[authorization]`: who may charge.

use std::collections::BTreeMap;

use super::files::{Places, read_text, resolve_or_report};
use super::problem::Problem;
use super::reader::Section;
use super::tokens;
use crate::engine::model::token::{AuthorizationSetup, LimitedUse, MAX_TOKEN_CHARACTERS, TokenEntry, UnknownToken};
use crate::engine::model::topology::MINIMUM_OFFER;
use crate::engine::model::wish::Wish;
use crate::engine::units::{Current, Energy};

/// More than any battery takes: beyond it the limit is none.
const MAX_LIMITED_WH: i32 = 1_000_000;

/// What `[authorization]` says, with the problems of the tokens file.
#[derive(Debug, Default)]
pub(super) struct Authorization {
    pub(super) setup: AuthorizationSetup,
    pub(super) tokens: Vec<TokenEntry>,
    pub(super) groups: BTreeMap<String, Wish>,
    pub(super) problems: Vec<Problem>,
}

/// `[authorization]`.
pub(super) fn authorization(root: &Section<'_>, places: &Places) -> Authorization {
    let section = root.section("authorization", "[authorization]");
    let document = section.document;
    let mut result = Authorization { setup: setup(&section), ..Authorization::default() };
    if let Some(file) = section.text("tokens_file")
        && let Some(path) = resolve_or_report(document, places, "tokens_file", &file)
    {
        match read_text(&path) {
            Ok(text) => ((result.tokens, result.groups), result.problems) = tokens::parse(&path, &text),
            Err(reason) => {
                let message = format!(
                    "`tokens_file`: {} cannot be read: {reason}; create it with [[tokens]] entries, or remove the key",
                    path.display()
                );
                document.error(file.at, message);
            }
        }
    }
    section.finish();
    result
}

fn setup(section: &Section<'_>) -> AuthorizationSetup {
    let default = AuthorizationSetup::default();
    let choices = [
        ("reject", UnknownToken::Reject),
        ("accept", UnknownToken::Accept),
        ("accept-limited", UnknownToken::AcceptLimited),
    ];
    let unknown = section.choice("offline_unknown", &choices).map_or(default.unknown, |choice| choice.value);
    let stop = section.boolean("stop_blocked").map_or(default.stop_refused, |found| found.value);
    let lists = section.boolean("local_lists").map_or(default.local_lists, |found| found.value);
    let days = section.integer("cache_days", 1..=365).and_then(|found| u32::try_from(found.value).ok());
    AuthorizationSetup {
        unknown,
        limited: limited(section, unknown),
        stop_refused: stop,
        master_pass_group: master_pass(section),
        cache_days: days,
        local_lists: lists,
    }
}

fn limited(section: &Section<'_>, unknown: UnknownToken) -> LimitedUse {
    let default = LimitedUse::default();
    for key in ["limited_kwh", "limited_minutes", "limited_a"] {
        if let Some((at, _)) = section.raw(key).filter(|_| unknown != UnknownToken::AcceptLimited) {
            let message = format!("`{key}` has no effect without offline_unknown = \"accept-limited\"");
            section.document.warn(at, message);
        }
    }
    // A thousandth of a kWh is a Wh.
    let energy = section.thousandths("limited_kwh", 100..=MAX_LIMITED_WH);
    let minutes = section.integer("limited_minutes", 1..=1_440).and_then(|found| u32::try_from(found.value).ok());
    let max = section.thousandths("limited_a", MINIMUM_OFFER.ma()..=1_000_000);
    LimitedUse {
        energy: energy.map_or(default.energy, |found| Energy::from_wh(i64::from(found.value))),
        minutes: minutes.unwrap_or(default.minutes),
        max: max.map(|found| Current::from_ma(found.value)),
    }
}

fn master_pass(section: &Section<'_>) -> Option<String> {
    let group = section.text("master_pass_group")?;
    let length = group.value.chars().count();
    let good = (1..=MAX_TOKEN_CHARACTERS).contains(&length) && !group.value.chars().any(char::is_control);
    if !good {
        let message = format!(
            "`master_pass_group` is {:?}, and must be the name of a group of tokens, 1 to {MAX_TOKEN_CHARACTERS} printable characters",
            group.value
        );
        section.document.error(group.at, message);
    }
    Some(group.value).filter(|_| good)
}
