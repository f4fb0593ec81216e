//! A configuration that came by `configuration.put`: when it holds instead of `site.toml`, what it must not change, and what it has to
//! show before it is kept.
//!
//! `site.toml` belongs to whoever stands before the switchboard. So a configuration that was sent holds only as long as that file is the one that
//! it was sent for: once somebody changes it on site, it holds again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::schema::Config;
use crate::engine::model::ids::StationId;
use crate::engine::model::status::SiteStatus;
use crate::engine::model::topology::{Circuit, CircuitIndex, Station, Topology};
use crate::engine::units::{Current, PerPhase, Phase, Power};

/// A configuration on probation with which the daemon has started so often without passing it is given up.
const MOST_STARTS: u32 = 3;

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

/// What a configuration that was sent changes although only somebody on site may: names on which the site is found, and anything that lets
/// more current flow through a circuit than `site.toml` says.
#[must_use]
pub fn only_on_site(site: &Config, sent: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must_stay = |what: &str, same: bool| {
        if !same {
            wrong.push(format!("{what} can only be changed on site"));
        }
    };
    must_stay("`id` in [site]", site.topology.site() == sent.topology.site());
    must_stay("`voltage_v` in [site]", site.topology.voltage() == sent.topology.voltage());
    must_stay("`path` in [store]", site.store.path == sent.store.path);
    must_stay("`listen` in [api]", site.api.listen == sent.api.listen);
    must_stay("`allow_unsafe_fallback` in [site]", site.site.allow_unsafe_fallback || !sent.site.allow_unsafe_fallback);
    must_stay("`count_feed_in` in [charging]", site.charging.count_feed_in || !sent.charging.count_feed_in);
    must_stay(
        "[dimming]",
        site.outside.dimming.is_none()
            || (site.outside.dimming == sent.outside.dimming && site.dimming_device == sent.dimming_device),
    );
    must_stay("`remote_configuration` in [cloud]", is_remote(site) || !is_remote(sent));
    for (index, circuit) in site.topology.circuits().iter().enumerate() {
        wrong.extend(circuit_grows((&site.topology, CircuitIndex(index), circuit), &sent.topology));
    }
    for station in site.topology.stations() {
        wrong.extend(station_moves((&site.topology, station), &sent.topology));
    }
    wrong
}

fn is_remote(config: &Config) -> bool {
    config.cloud.as_ref().is_some_and(|cloud| cloud.remote_configuration)
}

fn circuit_grows((site, index, circuit): (&Topology, CircuitIndex, &Circuit), sent: &Topology) -> Vec<String> {
    let at = |key: &str| format!("circuit {}: `{key}` can only be {{}} on site", circuit.id);
    let Some(other) = sent.circuits().iter().find(|other| other.id == circuit.id) else {
        return vec![format!("circuit {} can only be removed on site", circuit.id)];
    };
    let mut wrong = Vec::new();
    let mut grows = |key: &str, more: bool, verb: &str| {
        if more {
            wrong.push(at(key).replace("{}", verb));
        }
    };
    let exceeds =
        |new: PerPhase<Current>, old: PerPhase<Current>| Phase::ALL.iter().any(|phase| new.of(*phase) > old.of(*phase));
    grows("limit_a", exceeds(other.limit, circuit.limit), "raised");
    let bound = |old: Option<i64>, new: Option<i64>| old.is_some_and(|old| new.is_none_or(|new| new > old));
    let power = |circuit: &Circuit| circuit.max_power.map(Power::w);
    let unbalance = |circuit: &Circuit| circuit.max_unbalance.map(|most| i64::from(most.ma()));
    grows("limit_w", bound(power(circuit), power(other)), "raised");
    grows("max_unbalance_a", bound(unbalance(circuit), unbalance(other)), "raised");
    let short = match (circuit.short_time, other.short_time) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => new.limit > old.limit || new.lasts_ms > old.lasts_ms,
    };
    grows("short_time_a", short, "raised");
    let assumed = match (circuit.unmeasured_load, other.unmeasured_load) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(old), Some(new)) => exceeds(old, new),
    };
    grows("unmeasured_load_a", assumed, "lowered");
    let meter = |topology: &Topology, circuit: &Circuit| {
        circuit.meter.and_then(|meter| topology.meters().get(meter.0)).map(|meter| meter.id.clone())
    };
    grows("meter", meter(site, circuit) != meter(sent, other), "changed");
    // Circuits may be added, also between two: then the old one above must still be above.
    let above = |topology: &Topology, of: CircuitIndex| {
        topology.path_to_grid(of).map(|above| topology.circuit(above).id.clone()).collect::<Vec<_>>()
    };
    let sent_index = sent.circuits().iter().position(|one| one.id == circuit.id).map_or(index, CircuitIndex);
    let sent_above = above(sent, sent_index);
    grows("parent", above(site, index).iter().any(|id| !sent_above.contains(id)), "changed");
    wrong
}

fn station_moves((site, station): (&Topology, &Station), sent: &Topology) -> Vec<String> {
    let id: &StationId = &station.id;
    // A charger that is taken out gets no limits any more, but goes on standing there: only its fallback bounds it then.
    let Some(other) = sent.find_station(id).map(|index| sent.station(index)) else {
        return vec![format!("charger {id} can only be removed on site")];
    };
    let mut wrong = Vec::new();
    let circuit = |topology: &Topology, station: &Station| topology.circuit(station.circuit).id.clone();
    let mut must_stay = |key: &str, same: bool| {
        if !same {
            wrong.push(format!("charger {id}: `{key}` can only be changed on site"));
        }
    };
    must_stay("circuit", circuit(site, station) == circuit(sent, other));
    must_stay("phases", station.wiring == other.wiring);
    must_stay("connectors", station.evse_count == other.evse_count);
    must_stay("model", station.model == other.model);
    must_stay("max_a", other.max <= station.max);
    must_stay("fallback_a", other.fallback == station.fallback);
    wrong
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
