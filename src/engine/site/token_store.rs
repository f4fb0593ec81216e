//! The tokens that came by command: part of the fold of the records.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::engine::model::ids::IdToken;
use crate::engine::model::token::{ListPart, TokenEntry, TokensOrder, key_of};
use crate::engine::time::Utc;

/// The tokens that came by command, by their [`key_of`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenStore {
    /// Changes with every change of what the site knows, those of the file at a start among them.
    revision: u32,
    /// What the file held at the last start: [`digest_of`](crate::engine::model::token::digest_of) it.
    file: u64,
    /// When a token last lost its right by command.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Utc>,
    #[serde(with = "as_list")]
    entries: BTreeMap<String, TokenEntry>,
    /// A list of which not all parts have come yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished: Option<Unfinished>,
}

/// A list of which not all parts have come yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Unfinished {
    list: String,
    parts: u32,
    seen: BTreeSet<u32>,
    entries: BTreeMap<String, (u32, TokenEntry)>,
    /// What was changed meanwhile: it stands over the list, or a token that was blocked while the list was on its way would charge again.
    later: BTreeMap<String, Option<TokenEntry>>,
}

impl TokenStore {
    /// Nothing was ever changed by command, and there was no file.
    pub(super) const fn is_untouched(&self) -> bool {
        self.revision == 0 && self.file == 0 && self.unfinished.is_none()
    }

    /// The entry of a token, by its [`key_of`].
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&TokenEntry> {
        self.entries.get(key)
    }

    /// All entries, by their [`key_of`].
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<String, TokenEntry> {
        &self.entries
    }

    /// Another number with every change of what the site knows.
    #[must_use]
    pub const fn revision(&self) -> u32 {
        self.revision
    }

    /// When a token last lost its right by command.
    #[must_use]
    pub const fn revoked(&self) -> Option<Utc> {
        self.revoked
    }

    /// How many entries there would be after an order.
    pub(super) fn count_after(&self, order: &TokensOrder) -> usize {
        let new = |entries: &[TokenEntry]| {
            entries.iter().filter(|entry| !self.entries.contains_key(&key_of(&entry.token))).count()
        };
        match order {
            TokensOrder::Update { entries } => self.entries.len() + new(entries),
            TokensOrder::Delete { .. } => self.entries.len(),
            TokensOrder::Replace { entries } => entries.len(),
            TokensOrder::ReplacePart { part, entries } => {
                let begun = self.unfinished.as_ref().filter(|begun| begun.list == part.list && part.part > 1);
                entries.len() + begun.map_or(0, |begun| begun.entries.len())
            }
        }
    }

    /// Why a part cannot be taken now; `None` if it can.
    pub(super) fn refuses(&self, part: &ListPart, entries: &[TokenEntry]) -> Option<String> {
        if part.part == 1 {
            return None;
        }
        let ListPart { list, part: number, parts } = part;
        let Some(begun) = self.unfinished.as_ref().filter(|begun| begun.list == *list) else {
            return Some(format!("list {list:?} is not begun: send its part 1 first, then the others in any order"));
        };
        if begun.parts != *parts {
            return Some(format!("part 1 of list {list:?} said that it has {} parts, not {parts}", begun.parts));
        }
        entries.iter().find_map(|entry| {
            let (earlier, _) = begun.entries.get(&key_of(&entry.token)).filter(|(earlier, _)| earlier != number)?;
            let token = entry.token.as_str();
            Some(format!("token {token:?} stands in part {earlier} of list {list:?} already; name each token once"))
        })
    }

    /// The parts that an unfinished list still lacks.
    pub(super) fn missing(&self, list: &str) -> Vec<u32> {
        let begun = self.unfinished.as_ref().filter(|begun| begun.list == list);
        begun.map(|begun| (1..=begun.parts).filter(|part| !begun.seen.contains(part)).collect()).unwrap_or_default()
    }

    /// Folds an order in. `revoked`: a token loses its right by it, at that time.
    pub(super) fn apply(&mut self, order: &TokensOrder, revoked: Option<Utc>) {
        match order {
            TokensOrder::Update { entries } => {
                for entry in entries {
                    self.put(key_of(&entry.token), Some(entry));
                }
            }
            TokensOrder::Delete { tokens } => {
                for token in tokens {
                    self.put(key_of(token), None);
                }
            }
            TokensOrder::Replace { entries } => {
                self.entries = entries.iter().map(|entry| (key_of(&entry.token), entry.clone())).collect();
                self.unfinished = None;
            }
            TokensOrder::ReplacePart { part, entries } => {
                if !self.take_part(part, entries) {
                    return;
                }
            }
        }
        self.revision = self.revision.saturating_add(1);
        self.revoked = revoked.or(self.revoked);
    }

    /// The file as the daemon found it when it started.
    pub(super) const fn file_read(&mut self, digest: u64) {
        if self.file != digest {
            self.file = digest;
            self.revision = self.revision.saturating_add(1);
        }
    }

    fn put(&mut self, key: String, entry: Option<&TokenEntry>) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.later.insert(key.clone(), entry.cloned());
        }
        match entry {
            Some(entry) => self.entries.insert(key, entry.clone()),
            None => self.entries.remove(&key),
        };
    }

    /// Whether the list is whole with this part, and has taken its place.
    fn take_part(&mut self, part: &ListPart, entries: &[TokenEntry]) -> bool {
        if part.part == 1 {
            self.unfinished = None;
        }
        let begun = self.unfinished.get_or_insert_with(|| Unfinished {
            list: part.list.clone(),
            parts: part.parts,
            ..Unfinished::default()
        });
        begun.entries.retain(|_, (earlier, _)| *earlier != part.part);
        begun.entries.extend(entries.iter().map(|entry| (key_of(&entry.token), (part.part, entry.clone()))));
        begun.seen.insert(part.part);
        let whole = (1..=begun.parts).all(|part| begun.seen.contains(&part));
        if let Some(list) = self.unfinished.take_if(|_| whole) {
            self.entries = list.entries.into_iter().map(|(key, (_, entry))| (key, entry)).collect();
            for (key, entry) in list.later {
                self.put(key, entry.as_ref());
            }
        }
        whole
    }
}

/// Whether one of the entries that there were may charge and none of those after it may with its token.
pub(super) fn lose_their_right<'a>(
    mut had: impl Iterator<Item = &'a TokenEntry>,
    after: &[TokenEntry],
    may: impl Fn(&TokenEntry) -> bool,
) -> bool {
    let kept: BTreeSet<String> = after.iter().filter(|entry| may(entry)).map(|entry| key_of(&entry.token)).collect();
    had.any(|entry| may(entry) && !kept.contains(&key_of(&entry.token)))
}

/// The first token that is named a second time.
pub(super) fn first_twice<'a>(mut tokens: impl Iterator<Item = &'a IdToken>) -> Option<&'a IdToken> {
    let mut seen = BTreeSet::new();
    tokens.find(|token| !seen.insert(key_of(token)))
}

/// The entries as a list: their keys are made of them.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{TokenEntry, key_of};

    pub(super) fn serialize<S: Serializer>(
        entries: &BTreeMap<String, TokenEntry>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(entries.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, TokenEntry>, D::Error> {
        let list = Vec::<TokenEntry>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|entry| (key_of(&entry.token), entry)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::exchange::AuthorizationStatus;
    use crate::engine::model::wish::Wish;

    fn entry(token: &str, status: AuthorizationStatus) -> TokenEntry {
        TokenEntry { token: IdToken::new(token), status, group: None, expires: None, wish: Wish::default() }
    }

    fn accepted(tokens: &[&str]) -> Vec<TokenEntry> {
        tokens.iter().map(|token| entry(token, AuthorizationStatus::Accepted)).collect()
    }

    fn part(part: u32, tokens: &[&str]) -> TokensOrder {
        let part = ListPart { list: "monday".to_owned(), part, parts: 3 };
        TokensOrder::ReplacePart { part, entries: accepted(tokens) }
    }

    fn keys(store: &TokenStore) -> Vec<&str> {
        store.entries().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_list_in_parts_takes_its_place_with_the_last_part_and_not_before() {
        let mut store = TokenStore::default();
        store.apply(&TokensOrder::Update { entries: accepted(&["OLD"]) }, None);
        let before = store.revision();
        for (number, tokens) in [(1, ["A"]), (3, ["C"])] {
            store.apply(&part(number, &tokens), None);
            assert_eq!((keys(&store), store.revision()), (vec!["old"], before));
        }
        assert_eq!(store.missing("monday"), [2]);
        // It survives a restart.
        let text = serde_json::to_string(&store).unwrap();
        store = serde_json::from_str(&text).unwrap();
        store.apply(&part(2, &["B"]), None);
        assert_eq!(keys(&store), ["a", "b", "c"]);
        assert_eq!((store.revision(), store.missing("monday")), (before + 1, vec![]));
    }

    #[test]
    fn what_is_blocked_while_a_list_comes_stays_blocked() {
        let mut store = TokenStore::default();
        store.apply(&part(1, &["A"]), None);
        store.apply(&TokensOrder::Update { entries: vec![entry("a", AuthorizationStatus::Blocked)] }, None);
        store.apply(&TokensOrder::Delete { tokens: vec![IdToken::new("b")] }, None);
        store.apply(&part(2, &["B"]), None);
        store.apply(&part(3, &["C"]), None);
        assert_eq!(keys(&store), ["a", "c"]);
        assert_eq!(store.get("a").map(|entry| entry.status), Some(AuthorizationStatus::Blocked));
    }

    #[test]
    fn a_part_that_does_not_fit_its_list_is_refused_and_the_first_begins_anew() {
        let mut store = TokenStore::default();
        let refused = |store: &TokenStore, order: &TokensOrder| match order {
            TokensOrder::ReplacePart { part, entries } => store.refuses(part, entries),
            _ => None,
        };
        assert!(refused(&store, &part(2, &["A"])).unwrap().contains("send its part 1 first"));
        store.apply(&part(1, &["A", "B"]), None);
        let twice = refused(&store, &part(2, &["b"])).unwrap();
        assert_eq!(twice, "token \"b\" stands in part 1 of list \"monday\" already; name each token once");
        let fewer = ListPart { list: "monday".to_owned(), part: 2, parts: 2 };
        assert!(store.refuses(&fewer, &[]).unwrap().contains("has 3 parts, not 2"));
        store.apply(&part(2, &["C"]), None);
        store.apply(&part(1, &["D"]), None);
        assert_eq!((store.missing("monday"), store.count_after(&part(2, &["E"]))), (vec![2, 3], 2));
    }

    #[test]
    fn every_change_of_the_file_is_another_revision() {
        let mut store = TokenStore::default();
        store.file_read(0);
        assert!(store.is_untouched());
        for digest in [7, 7, 8] {
            store.file_read(digest);
        }
        assert_eq!(store.revision(), 2);
    }
}
