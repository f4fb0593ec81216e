//! A configuration that came by `configuration.put` or `charger.approve`: when it holds instead of `site.toml`, what it must not change, and what it has to
//! show before it is kept.
//!
//! `site.toml` belongs to whoever stands before the switchboard. So a configuration that was sent holds only as long as that file is the one that
//! it was sent for: once somebody changes it on site, it holds again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::engine::model::status::SiteStatus;
use crate::engine::time::Mono;

mod approve;
mod on_site;

pub use approve::with_charger;
pub use on_site::only_on_site;

/// How long a configuration that was sent has time to show that it works, in s: chargers on mobile networks are back by then.
pub const PROBATION_S: u64 = 300;

/// A configuration on probation with which the daemon has started so often without passing it is given up.
const MOST_STARTS: u32 = 3;

/// What has worked for so long without a break has passed, in ms.
const STEADY_MS: u64 = 10_000;

/// Which configuration holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InForce {
    /// `site.toml`.
    Site,
    /// The one that was sent, and has passed its probation.
    Confirmed,
    /// The one that was sent last, on probation.
    Trial,
}

/// The configurations that were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteState {
    /// The one that has passed.
    #[serde(default)]
    pub confirmed: Option<Sent>,
    /// The one on probation.
    #[serde(default)]
    pub trial: Option<Trial>,
}

/// A configuration that was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its text.
    pub toml: String,
    /// The text of `site.toml` for which it was sent.
    pub base: String,
}

/// A configuration on probation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The configuration.
    pub sent: Sent,
    /// How often the daemon has started with it.
    pub starts: u32,
    /// What worked before.
    pub before: Working,
}

/// What of a site works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Working {
    /// The broker is connected.
    pub cloud: bool,
    /// The meters with a fresh reading.
    pub meters: BTreeSet<String>,
    /// The chargers that are connected.
    pub chargers: BTreeSet<String>,
}

impl RemoteState {
    /// Which configuration the daemon starts with, while `site.toml` reads `site`; and why that is another one than before, if it is.
    pub fn begin(&mut self, site: &str) -> (InForce, Option<String>) {
        let sent = self.confirmed.iter().chain(self.trial.iter().map(|trial| &trial.sent));
        if sent.into_iter().any(|sent| sent.base != site) {
            *self = Self::default();
            return (InForce::Site, Some("site.toml was changed on site".to_owned()));
        }
        let mut why = None;
        if let Some(trial) = &mut self.trial {
            if trial.starts < MOST_STARTS {
                trial.starts += 1;
                return (InForce::Trial, None);
            }
            why = Some(self.give_up(&format!("it was not passed in {MOST_STARTS} starts")));
        }
        (self.latest_good(), why)
    }

    /// The text of that configuration; `None`: it is that of `site.toml`.
    #[must_use]
    pub fn text(&self, which: InForce) -> Option<&str> {
        match which {
            InForce::Site => None,
            InForce::Confirmed => self.confirmed.as_ref().map(|sent| sent.toml.as_str()),
            InForce::Trial => self.trial.as_ref().map(|trial| trial.sent.toml.as_str()),
        }
    }

    /// Which one holds when there is none on probation.
    const fn latest_good(&self) -> InForce {
        if self.confirmed.is_some() { InForce::Confirmed } else { InForce::Site }
    }

    /// Gives up the configuration on probation; returns what is to be told.
    pub fn give_up(&mut self, why: &str) -> String {
        self.trial = None;
        let back = if self.confirmed.is_some() { "the one before" } else { "site.toml" };
        format!("rolled back to {back}: {why}")
    }

    /// The one in force cannot be used; returns what is to be told.
    pub fn cannot_use(&mut self, which: InForce, why: &str) -> Option<String> {
        match which {
            InForce::Site => None,
            InForce::Trial => Some(self.give_up(why)),
            InForce::Confirmed => {
                *self = Self::default();
                Some(format!("rolled back to site.toml: {why}"))
            }
        }
    }

    /// The one on probation has passed.
    pub fn confirm(&mut self) {
        self.confirmed = self.trial.take().map(|trial| trial.sent);
    }
}

impl Working {
    /// What works now.
    #[must_use]
    pub fn of(status: &SiteStatus) -> Self {
        Self {
            cloud: status.cloud.as_ref().is_some_and(|cloud| cloud.connected),
            meters: status.meters.iter().filter(|meter| meter.fresh).map(|meter| meter.id.clone()).collect(),
            chargers: status.chargers.iter().filter(|charger| charger.connected).map(|one| one.id.clone()).collect(),
        }
    }

    /// What worked before and does not now, in words; nothing: it has passed. Meters and the broker do not fail by themselves at just this
    /// moment; of the chargers that connect by a mobile network some may, so half of them are enough. What is not configured any more is not
    /// missed.
    #[must_use]
    pub fn missing(&self, status: &SiteStatus) -> Vec<String> {
        let now = Self::of(status);
        let mut missing = Vec::new();
        if self.cloud && !now.cloud {
            missing.push("the broker is not connected".to_owned());
        }
        let meters = status.meters.iter().map(|meter| &meter.id).filter(|id| self.meters.contains(*id));
        missing.extend(
            meters.filter(|id| !now.meters.contains(*id)).map(|id| format!("meter {id} gives no fresh reading")),
        );
        let expected: Vec<&String> =
            status.chargers.iter().map(|charger| &charger.id).filter(|id| self.chargers.contains(*id)).collect();
        let there = expected.iter().filter(|id| now.chargers.contains(**id)).count();
        if there * 2 < expected.len() {
            missing.push(format!("only {there} of {} chargers have come back", expected.len()));
        }
        missing
    }
}

/// A configuration on probation, watched from its start on.
#[derive(Clone, Debug)]
pub struct Probation {
    before: Working,
    ends: Mono,
    good_since: Option<Mono>,
}

/// How it goes with a configuration on probation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is looked at again.
    Waits,
    /// It has passed.
    Passed,
    /// It has not, for that reason.
    Failed(String),
}

impl Probation {
    /// Begins at `now` and lasts `lasts_s` seconds at most. `before`: what must work again.
    #[must_use]
    pub const fn new(before: Working, now: Mono, lasts_s: u64) -> Self {
        Self { before, ends: now.plus_ms(lasts_s.saturating_mul(1_000)), good_since: None }
    }

    /// Judges the site as it is.
    pub fn look(&mut self, status: &SiteStatus, now: Mono) -> Verdict {
        let missing = self.before.missing(status);
        if missing.is_empty() {
            if now.since(*self.good_since.get_or_insert(now)) >= STEADY_MS {
                return Verdict::Passed;
            }
        } else {
            self.good_since = None;
        }
        if now < self.ends {
            return Verdict::Waits;
        }
        let too_short = "it did not work for long enough".to_owned();
        Verdict::Failed(if missing.is_empty() { too_short } else { missing.join("; ") })
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
