//! The telemetry ring as the controller sees it, and what of it has reached the cloud.

use std::collections::{BTreeSet, VecDeque};

use siteward::engine::site::io::{Input, TelemetryInput};

use super::controller::{BROKER_MS, READ_MS};
use super::{Event, World};

/// It keeps no more: a day of a site with 40 stations, less for larger ones.
const MOST: usize = 4_000;
/// What came last may be on its way.
const UNDER_WAY_MS: u64 = 120_000;

/// What the ring keeps.
#[derive(Debug, Default)]
pub(super) struct Ring {
    kept: VecDeque<(u64, String)>,
    given: u64,
    acknowledged: u64,
    appended_ms: u64,
    /// What the cloud has got.
    arrived: BTreeSet<u64>,
    unreadable: u64,
}

impl Ring {
    fn said(&self) -> TelemetryInput {
        let dropped = self.kept.front().map_or(self.given, |(oldest, _)| oldest - 1).max(self.acknowledged);
        TelemetryInput::Kept { ring: "ring".to_owned(), dropped, newest: self.given }
    }

    fn forget(&mut self) {
        while self.kept.front().is_some_and(|(oldest, _)| *oldest <= self.acknowledged || self.kept.len() > MOST) {
            self.kept.pop_front();
        }
    }

    fn receive(&mut self, interval: u64, payload: &str) {
        let sequence = serde_json::from_str::<serde_json::Value>(payload).ok().and_then(|message| {
            message["data"]["samples"].as_array()?;
            message["sequence"].to_string().parse::<u64>().ok()
        });
        if sequence != Some(interval) {
            self.unreadable += 1;
        }
        self.arrived.insert(interval);
    }
}

impl World {
    /// The controller starts and is told what the ring has.
    pub(super) fn show_ring(&mut self) {
        self.ring_says(1, self.ring.said());
    }

    fn ring_says(&mut self, after_ms: u64, said: TelemetryInput) {
        let boot = self.boots;
        self.later(after_ms, Event::RingSaid { boot, said });
    }

    pub(super) fn ring_said(&mut self, boot: u64, said: TelemetryInput) {
        if boot == self.boots && self.controller.is_some() {
            self.tell_site(Input::Telemetry(said));
        }
    }

    pub(super) fn keep_telemetry(&mut self, intervals: Vec<String>) {
        let refuses = self.journal.refuses.is_some();
        for interval in intervals {
            self.ring.given += 1;
            if !refuses {
                self.ring.kept.push_back((self.ring.given, interval));
            }
        }
        self.ring.appended_ms = self.now_ms;
        self.ring.forget();
        self.ring_says(READ_MS, self.ring.said());
    }

    pub(super) fn read_telemetry(&mut self, from: u64, limit: usize) {
        let intervals = self.ring.kept.iter().filter(|(number, _)| *number >= from).take(limit).cloned().collect();
        self.ring_says(READ_MS, TelemetryInput::Intervals { intervals });
    }

    pub(super) fn telemetry_delivered(&mut self, through: u64) {
        self.ring.acknowledged = through;
        self.ring.forget();
    }

    pub(super) fn interval_published(&mut self, link: u64, interval: u64, payload: &str) {
        if link == self.broker_link {
            self.trace.write_long(payload.as_bytes());
            self.ring.receive(interval, payload);
            self.later(BROKER_MS, Event::IntervalTaken { link, interval });
        }
    }

    /// Whatever the ring still has, or had until the cloud had it, is there in the end.
    pub(super) fn judge_telemetry(&mut self) {
        let Ring { given, acknowledged, appended_ms, unreadable, .. } = self.ring;
        let settled = self.now_ms.saturating_sub(appended_ms) >= UNDER_WAY_MS;
        let lost = self.ring.kept.iter().filter(|(number, _)| !self.ring.arrived.contains(number)).count();
        if unreadable > 0 || (settled && lost > 0) {
            let what = format!(
                "{unreadable} intervals make no sense; of {given} the cloud has acknowledged {acknowledged}, and {lost} that are kept have not come"
            );
            self.oracle.violate("what_the_ring_keeps_reaches_the_cloud", what);
        }
    }
}
