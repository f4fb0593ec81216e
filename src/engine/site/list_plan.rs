//! What stations shall know by themselves, and the messages that bring their local lists there. Pure: who is told when is in `local_lists`.

use std::collections::BTreeSet;

use crate::engine::model::exchange::{Admission, AuthorizationStatus};
use crate::engine::model::ids::IdToken;
use crate::engine::model::local_list::{ListEntry, ListUpdate};

/// So far apart are the versions of two revisions: the messages in between have versions of their own.
const SPACING: u32 = 64;

/// A differential update in more messages is sent as a whole list.
const MOST_PIECES: usize = 60;

/// A message has no more entries, whatever its station takes: it must not fill the link.
const MOST_ITEMS: usize = 200;

/// Of a station that does not say how many entries a message may have.
const USUAL_ITEMS: usize = 20;

/// An entry with its names left out has no more bytes in any version.
const ENTRY_BYTES: usize = 260;

/// A local list as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// Its version when a station has all of it.
    pub(super) version: i32,
    /// The entries by the keys of their tokens, in order.
    entries: Vec<(String, IdToken, Admission)>,
    /// All tokens fit.
    pub(super) whole: bool,
}

/// A token that may stand in a list.
pub(super) struct Candidate {
    pub(super) key: String,
    pub(super) token: IdToken,
    pub(super) admission: Admission,
}

/// The version of the list of a revision of the tokens: it grows with the revision, and that of another store is another one.
pub(super) fn version_of(store_id: &str, revision: u32) -> i32 {
    let store = store_id.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % 1_000;
    // At most 1,000,000,000 and 14,000,000 times 64: below the largest version.
    let version = (store + 1) * 1_000_000 + (revision % 14_000_000) * SPACING;
    i32::try_from(version).unwrap_or(i32::MAX)
}

impl Content {
    /// The tokens that go first, as many as fit: those that may charge before those that may not, of them those that were used last, then by
    /// name. One that is refused is worth a place where there is room: a station may let unknown tokens charge while it is cut off.
    pub(super) fn of(
        candidates: impl Iterator<Item = Candidate>,
        used: &BTreeSet<String>,
        most: usize,
        version: i32,
    ) -> Self {
        let mut all: Vec<Candidate> = candidates.collect();
        let whole = all.len() <= most;
        if !whole {
            all.sort_by_cached_key(|candidate| {
                let refused = candidate.admission.status != AuthorizationStatus::Accepted;
                (refused, !used.contains(&candidate.key), candidate.key.clone())
            });
            all.truncate(most);
        }
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let entries = all.into_iter().map(|candidate| (candidate.key, candidate.token, candidate.admission)).collect();
        Self { version, entries, whole }
    }

    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether a station that has one list need not be told the other.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.entries == other.entries
    }

    fn all(&self) -> Vec<ListEntry> {
        self.entries
            .iter()
            .map(|(_, token, admission)| ListEntry { token: token.clone(), admission: Some(admission.clone()) })
            .collect()
    }

    /// What changes from `before` to this.
    fn changes(&self, before: &Self) -> Vec<ListEntry> {
        let find =
            |content: &Self, key: &str| content.entries.binary_search_by(|(found, ..)| found.as_str().cmp(key)).ok();
        let gone = before.entries.iter().filter(|(key, ..)| find(self, key).is_none());
        let gone = gone.map(|(_, token, _)| ListEntry { token: token.clone(), admission: None });
        let set = self.entries.iter().filter(|(key, _, admission)| {
            find(before, key).is_none_or(|index| before.entries.get(index).is_none_or(|(.., old)| old != admission))
        });
        let set =
            set.map(|(_, token, admission)| ListEntry { token: token.clone(), admission: Some(admission.clone()) });
        // What goes makes the room for what comes.
        gone.chain(set).collect()
    }
}

/// The messages after which a station that has `held` has `target`; without `held` it may have anything. `items` and `bytes`: what a
/// message may have.
pub(super) fn updates(
    held: Option<&Content>,
    target: &Content,
    items: Option<usize>,
    bytes: Option<usize>,
) -> Vec<ListUpdate> {
    let by_items = items.unwrap_or(USUAL_ITEMS).clamp(1, MOST_ITEMS);
    let differential = held
        .filter(|held| held.version < target.version)
        .map(|held| cut(target.changes(held), by_items, bytes))
        .filter(|pieces| pieces.len() <= MOST_PIECES);
    let whole = || {
        let pieces = cut(target.all(), by_items, bytes);
        if pieces.is_empty() { vec![Vec::new()] } else { pieces }
    };
    let full =
        differential.as_ref().is_none_or(|pieces| pieces.iter().map(Vec::len).sum::<usize>() > target.len().max(1));
    let pieces = differential.filter(|_| !full).unwrap_or_else(whole);
    let count = pieces.len();
    let number = |index: usize| i32::try_from(count - 1 - index).unwrap_or(0);
    let piece =
        |(index, entries)| ListUpdate { version: target.version - number(index), full: full && index == 0, entries };
    pieces.into_iter().enumerate().map(piece).collect()
}

fn cut(entries: Vec<ListEntry>, items: usize, bytes: Option<usize>) -> Vec<Vec<ListEntry>> {
    let mut pieces: Vec<Vec<ListEntry>> = Vec::new();
    let mut used = 0;
    for entry in entries {
        let group = entry.admission.as_ref().and_then(|admission| admission.group.as_ref()).map_or(0, String::len);
        let size = ENTRY_BYTES + entry.token.as_str().len() + group;
        let fits = |piece: &Vec<ListEntry>| piece.len() < items && bytes.is_none_or(|bytes| used + size <= bytes);
        match pieces.last_mut().filter(|piece| fits(piece)) {
            Some(piece) => {
                used += size;
                piece.push(entry);
            }
            None => {
                used = size;
                pieces.push(vec![entry]);
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn candidate(token: &str, status: AuthorizationStatus) -> Candidate {
        Candidate { key: token.to_ascii_lowercase(), token: IdToken::new(token), admission: status.into() }
    }

    fn content(version: i32, tokens: &[(&str, AuthorizationStatus)], most: Option<usize>) -> Content {
        let most = most.unwrap_or(usize::MAX);
        let used = BTreeSet::from(["d".to_owned()]);
        Content::of(tokens.iter().map(|(token, status)| candidate(token, *status)), &used, most, version)
    }

    fn names(content: &Content) -> Vec<&str> {
        content.entries.iter().map(|(_, token, _)| token.as_str()).collect()
    }

    #[test]
    fn who_may_charge_and_was_here_lately_goes_first_where_not_all_fit() {
        use AuthorizationStatus::{Accepted, Blocked};
        let all = [("A", Blocked), ("B", Accepted), ("C", Accepted), ("D", Accepted)];
        assert_eq!(names(&content(1, &all, None)), ["A", "B", "C", "D"]);
        assert_eq!(names(&content(1, &all, Some(3))), ["B", "C", "D"]);
        assert_eq!(names(&content(1, &all, Some(2))), ["B", "D"]);
        assert_eq!(names(&content(1, &all, Some(0))), [""; 0]);
    }

    #[test]
    fn versions_grow_with_the_revision_and_differ_between_stores() {
        let of = |revision| version_of("5f1c9e0b7a3d2846", revision);
        assert!(of(0) > 0 && of(1) >= of(0) + 64 && of(13_999_999) > of(1));
        assert!(of(u32::MAX) > 0);
        assert_ne!(of(3), version_of("5f1c9e0b7a3d2847", 3));
    }

    #[test]
    fn a_list_goes_as_a_whole_only_where_nothing_is_known_or_most_of_it_changes() {
        use AuthorizationStatus::{Accepted, Blocked};
        let before = content(1_000, &[("A", Accepted), ("B", Accepted), ("C", Accepted), ("D", Accepted)], None);
        let after = content(1_064, &[("A", Accepted), ("B", Blocked), ("D", Accepted), ("E", Accepted)], None);
        let sent = updates(Some(&before), &after, Some(2), None);
        let shape: Vec<_> = sent.iter().map(|update| (update.version, update.full, update.entries.len())).collect();
        assert_eq!(shape, [(1_063, false, 2), (1_064, false, 1)]);
        assert_eq!((sent[0].entries[0].token.as_str(), &sent[0].entries[0].admission), ("C", &None));
        let shape = |held: Option<&Content>, target: &Content| -> Vec<(i32, bool, usize)> {
            let sent = updates(held, target, Some(3), None);
            sent.iter().map(|update| (update.version, update.full, update.entries.len())).collect()
        };
        assert_eq!(shape(None, &after), [(1_063, true, 3), (1_064, false, 1)]);
        let other = content(1_064, &[("X", Accepted), ("Y", Accepted)], None);
        assert_eq!(shape(Some(&before), &other), [(1_064, true, 2)]);
        assert_eq!(shape(None, &content(1_064, &[], None)), [(1_064, true, 0)]);
        assert_eq!(
            shape(Some(&before), &content(1_000, &[("A", Accepted)], None)),
            [(1_000, true, 1)],
            "no greater version"
        );
    }

    #[test]
    fn messages_keep_the_bytes_that_their_station_takes() {
        use AuthorizationStatus::Accepted;
        let tokens = ["A", "B", "C", "D", "E"].map(|token| (token, Accepted));
        let target = content(9_000, &tokens, None);
        let sizes =
            |bytes| updates(None, &target, None, Some(bytes)).iter().map(|u| u.entries.len()).collect::<Vec<_>>();
        assert_eq!(sizes(600), [2, 2, 1]);
        assert_eq!(sizes(1), [1, 1, 1, 1, 1], "one entry is the least that a message can have");
    }

    /// A station as the standards want it.
    fn applied(
        mut list: BTreeMap<String, Admission>,
        updates: &[ListUpdate],
        from: i32,
    ) -> BTreeMap<String, Admission> {
        let mut version = from;
        for update in updates {
            if update.full {
                list.clear();
            } else {
                assert!(update.version > version, "{update:?} after {version}");
            }
            version = update.version;
            for entry in &update.entries {
                match &entry.admission {
                    Some(admission) => drop(list.insert(entry.token.as_str().to_ascii_lowercase(), admission.clone())),
                    None => drop(list.remove(&entry.token.as_str().to_ascii_lowercase())),
                }
            }
        }
        list
    }

    proptest! {
        #[test]
        fn a_station_has_the_list_after_the_messages(
            before in proptest::collection::btree_map("[a-d]{1,3}", any::<bool>(), 0..40),
            after in proptest::collection::btree_map("[a-d]{1,3}", any::<bool>(), 0..40),
            items in 1..9_usize,
            known: bool,
        ) {
            let status = |may: bool| if may { AuthorizationStatus::Accepted } else { AuthorizationStatus::Blocked };
            let of = |tokens: &BTreeMap<String, bool>, version| {
                let candidates = tokens.iter().map(|(token, may)| candidate(token, status(*may)));
                Content::of(candidates, &BTreeSet::new(), usize::MAX, version)
            };
            let (held, target) = (of(&before, 5_000), of(&after, 5_064));
            let as_map = |content: &Content| -> BTreeMap<String, Admission> {
                content.entries.iter().map(|(key, _, admission)| (key.clone(), admission.clone())).collect()
            };
            let sent = updates(known.then_some(&held), &target, Some(items), None);
            prop_assert!(sent.iter().all(|update| update.entries.len() <= items));
            let list = applied(as_map(&held), &sent, held.version);
            prop_assert_eq!(list, as_map(&target));
            if let Some(last) = sent.last() {
                prop_assert_eq!(last.version, target.version);
            }
        }
    }
}
