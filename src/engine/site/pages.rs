//! The pages of signed values: what of them has come, what is missing, what came twice. Part of the fold of the records.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::engine::model::ids::Sequence;
use crate::engine::model::signed::{Page, PageFault, SignedNote};

/// So many signed values of a station are known again when they come twice: those of some transactions.
const REMEMBERED_VALUES: usize = 64;

/// So many meters of a station are followed, each with its classes; what it has had longest without a value is forgotten.
const MOST_METERS: usize = 16;

/// So many ranges of missing pages of a meter are kept.
const MOST_MISSING: usize = 16;

/// After so many pages in order nobody waits for the missing ones any more.
pub const FORGIVEN_AFTER: u32 = 50;

/// What is known of what a station's meters have signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signing {
    /// By meter and class.
    meters: BTreeMap<String, Pages>,
    /// What came last, by its fingerprint.
    recent: VecDeque<String>,
    /// The public key that the station sent last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The pages of one class of a meter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pages {
    last: u64,
    /// First and last of each range that has not come.
    missing: Vec<(u64, u64)>,
    repeated: bool,
    /// How many have come in order since something was wrong.
    in_order: u32,
    /// The record of the last one.
    by: Sequence,
}

/// A name for a signed text: the first half of its SHA-256.
#[must_use]
pub fn fingerprint(data: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, data.as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl Signing {
    /// Whether nothing was ever signed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this very value came before.
    #[must_use]
    pub fn knows(&self, fingerprint: &str) -> bool {
        self.recent.iter().any(|known| known == fingerprint)
    }

    /// What is wrong with a page that comes next. `None`: nothing, or it is one of those that were missing.
    #[must_use]
    pub fn fault(&self, page: &Page) -> Option<PageFault> {
        let pages = self.meters.get(&name(page))?;
        if page.number > pages.last {
            let (first, last) = (pages.last + 1, page.number - 1);
            return (first <= last).then_some(PageFault::Missing(first, last));
        }
        let was_missing = pages.missing.iter().any(|(first, last)| (*first..=*last).contains(&page.number));
        (!was_missing).then_some(PageFault::Repeated)
    }

    /// Whether pages are missing, or came twice, and nobody has made up for it yet.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.meters.values().any(|pages| pages.repeated || !pages.missing.is_empty())
    }

    /// Folds a signed value in.
    pub(super) fn take(&mut self, note: &SignedNote, by: Sequence) {
        self.recent.push_back(fingerprint(&note.value.data));
        if self.recent.len() > REMEMBERED_VALUES {
            self.recent.pop_front();
        }
        if let Some(key) = &note.value.key {
            self.key = Some(key.clone());
        }
        if let Some(page) = &note.page {
            self.turn(page, note.page_fault, by);
        }
    }

    fn turn(&mut self, page: &Page, fault: Option<PageFault>, by: Sequence) {
        if !self.meters.contains_key(&name(page)) && self.meters.len() >= MOST_METERS {
            let oldest = self.meters.iter().min_by_key(|(_, pages)| pages.by).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| self.meters.remove(&oldest));
        }
        let first = Pages { last: page.number, missing: Vec::new(), repeated: false, in_order: 0, by };
        let pages = self.meters.entry(name(page)).or_insert(first);
        pages.by = by;
        match fault {
            Some(PageFault::Missing(first, last)) => {
                pages.missing.push((first, last));
                if pages.missing.len() > MOST_MISSING {
                    pages.missing.remove(0);
                }
                pages.in_order = 0;
            }
            Some(PageFault::Repeated) => {
                pages.repeated = true;
                pages.in_order = 0;
            }
            None if page.number > pages.last => {
                pages.in_order = pages.in_order.saturating_add(1);
                if pages.in_order >= FORGIVEN_AFTER {
                    pages.missing.clear();
                    pages.repeated = false;
                }
            }
            None => pages.missing = without(&pages.missing, page.number),
        }
        // A meter that begins anew, as after it was exchanged for one of the same name, is followed from there.
        pages.last = match fault {
            Some(PageFault::Repeated) => page.number,
            Some(PageFault::Missing(..)) | None => pages.last.max(page.number),
        };
    }
}

fn name(page: &Page) -> String {
    format!("{} {}", page.meter, page.class)
}

/// The ranges without one page.
fn without(ranges: &[(u64, u64)], page: u64) -> Vec<(u64, u64)> {
    let mut left = Vec::with_capacity(ranges.len() + 1);
    for &(first, last) in ranges {
        if !(first..=last).contains(&page) {
            left.push((first, last));
            continue;
        }
        if first < page {
            left.push((first, page - 1));
        }
        if page < last {
            left.push((page + 1, last));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::ids::StationId;
    use crate::engine::model::signed::{Check, SignedValue};

    fn page(number: u64) -> Page {
        Page { meter: "m".to_owned(), class: 'T', number }
    }

    fn come(signing: &mut Signing, page: Page) -> Option<PageFault> {
        let page_fault = signing.fault(&page);
        let data = format!("{} {} {}", page.meter, page.class, page.number);
        let note = SignedNote {
            charger: StationId::new("CP1"),
            evse: 1,
            transaction: None,
            at: None,
            value: SignedValue { data, ..SignedValue::default() },
            page: Some(page),
            page_fault,
            check: Check::NotVerifiable,
            reason: None,
        };
        signing.take(&note, Sequence(1));
        page_fault
    }

    #[test]
    fn a_gap_is_seen_and_closes_when_all_that_was_missing_has_come() {
        let mut signing = Signing::default();
        assert_eq!(come(&mut signing, page(7)), None, "nobody knows what was before the first");
        assert_eq!(come(&mut signing, page(8)), None);
        assert_eq!(come(&mut signing, page(12)), Some(PageFault::Missing(9, 11)));
        assert!(signing.is_broken());
        for (late, broken) in [(10, true), (9, true), (11, false)] {
            assert_eq!(come(&mut signing, page(late)), None);
            assert_eq!(signing.is_broken(), broken);
        }
        assert_eq!(come(&mut signing, page(13)), None);
    }

    #[test]
    fn classes_and_meters_are_counted_by_themselves() {
        let mut signing = Signing::default();
        for other in [Page { class: 'F', ..page(100) }, Page { meter: "n".to_owned(), ..page(3) }, page(7), page(8)] {
            assert_eq!(come(&mut signing, other), None);
        }
        assert_eq!(come(&mut signing, Page { class: 'F', ..page(101) }), None);
        assert!(!signing.is_broken());
    }

    #[test]
    fn a_page_that_comes_twice_is_seen_until_many_were_in_order() {
        let mut signing = Signing::default();
        for number in [1, 2, 3] {
            come(&mut signing, page(number));
        }
        assert_eq!(come(&mut signing, page(2)), Some(PageFault::Repeated));
        for number in 3..u64::from(FORGIVEN_AFTER) + 2 {
            assert_eq!(come(&mut signing, page(number)), None, "{number}");
            assert!(signing.is_broken());
        }
        come(&mut signing, page(u64::from(FORGIVEN_AFTER) + 2));
        assert!(!signing.is_broken());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut signing = Signing::default();
        for number in 0..200 {
            come(&mut signing, Page { meter: format!("m{number}"), ..page(1) });
            come(&mut signing, Page { meter: "gaps".to_owned(), ..page(3 * number) });
        }
        assert!(signing.meters.len() <= MOST_METERS && signing.recent.len() <= REMEMBERED_VALUES);
        assert!(signing.meters.values().all(|pages| pages.missing.len() <= MOST_MISSING));
        let text = serde_json::to_string(&signing).expect("JSON");
        assert_eq!(serde_json::from_str::<Signing>(&text).expect("it is read again"), signing);
    }
}
