//! What a car may still draw by limits that are not in force any more.

use super::hold::{Ms, WIDE_EXTRA_MS};
use crate::engine::units::Current;

/// More old limits than this are counted as fewer ones that say at least as much. A station that answers a call in 100 ms never has so many.
const MOST: usize = 32;

/// Old limits, each with the moment until which a car may draw them. A later one never lengthens the time of another.
#[derive(Clone, Debug, Default)]
pub(super) struct Settling(Vec<(Current, Ms)>);

impl Settling {
    /// `old` may be drawn until then.
    pub(super) fn add(&mut self, old: Current, until: Ms, now: Ms) {
        self.0.retain(|(other, end)| *end + WIDE_EXTRA_MS > now && (*other > old || *end > until));
        if self.0.iter().any(|(other, end)| *other >= old && *end >= until) {
            return;
        }
        self.0.push((old, until));
        if self.0.len() > MOST {
            let (first, end) = self.0.remove(0);
            let (other, later) = self.0[0];
            self.0[0] = (first.max(other), end.max(later));
        }
    }

    /// The most that may be drawn, if each counts so much longer.
    pub(super) fn most(&self, at: Ms, extra: Ms) -> Current {
        let live = self.0.iter().filter(|(_, until)| at < until + extra);
        live.map(|(old, _)| *old).max().unwrap_or(Current::ZERO)
    }

    /// The next moment at which [`Settling::most`] may say something else.
    pub(super) fn next_change(&self, now: Ms) -> Option<Ms> {
        let ends = self.0.iter().flat_map(|(_, until)| [*until, until + WIDE_EXTRA_MS]);
        ends.filter(|end| *end >= now).min()
    }
}
