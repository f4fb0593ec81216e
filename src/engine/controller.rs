//! The site under its guard: everything that happens is told to both, and no frame leaves that the guard has not seen.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::engine::guard::{Disagreement, Earlier, Guard, Verdict};
use crate::engine::model::ids::ConnectionId;
use crate::engine::model::limit::{LimitOrder, LimitTarget, StandingLimit};
use crate::engine::model::record::RecordBody;
use crate::engine::model::setup::Setup;
use crate::engine::model::topology::{CircuitIndex, EvseIndex, StationIndex};
use crate::engine::site::io::{Input, Output, WITHHELD};
use crate::engine::site::{Restored, Site};
use crate::engine::time::Now;

/// The site and its guard.
#[derive(Debug)]
pub struct Controller {
    site: Site,
    /// `None` only where somebody wants to see what the site does without it.
    guard: Option<Guard>,
    /// What the site wants to be remembered.
    site_memory: Vec<u8>,
    queue: VecDeque<Input>,
    said: Vec<Output>,
}

/// What both want to be remembered.
#[derive(Serialize, Deserialize)]
struct Memories<'a> {
    #[serde(borrow)]
    site: &'a RawValue,
    #[serde(borrow)]
    guard: &'a RawValue,
}

impl Controller {
    /// Starts both. `guarded`: without it the site runs alone, for tests of the site.
    #[must_use]
    pub fn new(setup: Setup, mut restored: Restored, guarded: bool, now: Now) -> Self {
        let memory = restored.remembered.take().unwrap_or_default();
        let (site_memory, guard_memory) = match serde_json::from_slice::<Memories<'_>>(&memory) {
            Ok(both) => (both.site.get().as_bytes().to_vec(), Some(both.guard.get().as_bytes().to_vec())),
            // Of a version without a guard.
            Err(_) => (memory, None),
        };
        let topology = &setup.topology;
        let mut tamed = Vec::new();
        for (index, evse) in topology.evses().iter().enumerate() {
            let station = topology.station(evse.station);
            let facts = restored.ledger.station(&station.id);
            let fallback = facts.and_then(|facts| facts.tamed.get(&evse.number));
            if fallback.is_some_and(|fallback| *fallback <= station.fallback) {
                tamed.push(EvseIndex(index));
            }
        }
        let earlier = Earlier { memory: guard_memory.as_deref(), tamed: &tamed };
        let mut guard = guarded.then(|| Guard::new(topology, earlier, now));
        restored.remembered = (!site_memory.is_empty()).then(|| site_memory.clone());
        let site = Site::new(setup, restored, now);
        for index in (0..site.topology().circuits().len()).map(CircuitIndex) {
            if let Some(guard) = &mut guard {
                guard.limits_changed(index, site.recorded_limits(index));
            }
        }
        Self { site, guard, site_memory, queue: VecDeque::new(), said: Vec::new() }
    }

    /// The site, to look at.
    #[must_use]
    pub const fn site(&self) -> &Site {
        &self.site
    }

    /// How often the guard has disagreed since the start.
    #[must_use]
    pub fn disagreed(&self) -> u64 {
        self.guard.as_ref().map_or(0, Guard::disagreed)
    }

    /// Breaks a rule of the site from now on.
    #[cfg(feature = "sabotage")]
    pub fn sabotage(&mut self, rule: crate::engine::site::sabotage::Sabotage) {
        self.site.sabotage(rule);
    }

    /// Takes in what happened and appends what is to be done to `out`.
    pub fn handle(&mut self, input: Input, now: Now, out: &mut Vec<Output>) {
        self.queue.push_back(input);
        // A frame that is kept back is answered to the site, which may send the next one for it: each ends one call of a bounded queue.
        while let Some(input) = self.queue.pop_front() {
            self.tell_guard(&input, now);
            let is_tick = input == Input::Tick;
            let mut said = std::mem::take(&mut self.said);
            self.site.handle(input, now, &mut said);
            self.tell_phases(now);
            for output in said.drain(..) {
                self.let_out(output, now, out);
            }
            self.said = said;
            if let Some(guard) = &mut self.guard {
                if is_tick {
                    guard.tick(now.mono);
                }
                self.queue.extend(
                    guard
                        .take_disagreements()
                        .into_iter()
                        .map(|Disagreement { circuit, message }| Input::GuardDisagrees { circuit, message }),
                );
            }
        }
    }

    fn tell_guard(&mut self, input: &Input, now: Now) {
        let Some(guard) = &mut self.guard else { return };
        match input {
            Input::StationConnected { station, .. } => guard.connected(*station, now.mono),
            Input::StationDisconnected { station, .. } => guard.disconnected(*station, now.mono),
            Input::StationFrame { station, text, .. } => guard.received(*station, text, now),
            Input::Meter { meter, asked_at, result: Ok(reading) } => guard.meter(*meter, reading, *asked_at, now.mono),
            Input::Meter { result: Err(_), .. }
            | Input::Tick
            | Input::Inverter { .. }
            | Input::Dimming { .. }
            | Input::Journal(_)
            | Input::Cloud(_)
            | Input::Telemetry(_)
            | Input::Request { .. }
            | Input::ErrandAnswered { .. }
            | Input::ConfigurationChanged { .. }
            | Input::Pending { .. }
            | Input::GuardDisagrees { .. } => {}
        }
    }

    /// Where the site learns which phases cars use, the guard is told before it judges what was said.
    fn tell_phases(&mut self, now: Now) {
        let Some(guard) = self.guard.as_mut().filter(|_| self.site.learns_phases()) else { return };
        for index in (0..self.site.topology().evses().len()).map(EvseIndex) {
            guard.car_phases(index, self.site.phases_of(index, now.mono));
        }
    }

    fn let_out(&mut self, output: Output, now: Now, out: &mut Vec<Output>) {
        match output {
            Output::Frame { station, connection, text } => self.let_frame_out((station, connection, text), now, out),
            Output::Append(record) => {
                if let (
                    RecordBody::OutsideLimit(StandingLimit { order: LimitOrder { target, .. }, .. })
                    | RecordBody::OutsideLimitEnded { target, .. },
                    Some(guard),
                ) = (&record.body, &mut self.guard)
                    && let LimitTarget::Circuit(circuit) = target
                    && let Some(circuit) = self.site.topology().find_circuit(circuit)
                {
                    guard.limits_changed(circuit, self.site.recorded_limits(circuit));
                }
                out.push(Output::Append(record));
            }
            other @ (Output::Close { .. }
            | Output::TurnAway { .. }
            | Output::Snapshot { .. }
            | Output::ReadRecords { .. }
            | Output::Acknowledged { .. }
            | Output::Telemetry { .. }
            | Output::ReadTelemetry { .. }
            | Output::TelemetryAcknowledged { .. }
            | Output::Publish(_)
            | Output::Reply { .. }
            | Output::Errand { .. }
            | Output::Commissioned(_)
            | Output::Log { .. }) => out.push(other),
        }
    }

    fn let_frame_out(
        &mut self,
        (station, connection, text): (StationIndex, ConnectionId, String),
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let verdict = self.guard.as_mut().map_or(Verdict::Pass, |guard| guard.sent(station, &text, now));
        match verdict {
            Verdict::Pass => out.push(Output::Frame { station, connection, text }),
            Verdict::Replace(text) => out.push(Output::Frame { station, connection, text }),
            Verdict::Withhold(why) => {
                // The site waits for an answer: it gets one that says what became of its call.
                let id = serde_json::from_str::<Vec<&RawValue>>(&text).ok();
                let id = id.and_then(|parts| parts.get(1).map(|id| id.get().to_owned())).unwrap_or_default();
                let why = serde_json::Value::String(format!("{WITHHELD}: {why}"));
                let text = format!(r#"[4,{id},"InternalError",{why},{{}}]"#);
                self.queue.push_back(Input::StationFrame { station, connection, text });
            }
        }
    }

    /// What the next run has to know, in one piece, if it has changed since this was asked last: to be kept on a RAM disk in place of the last
    /// one. Losing it costs current, not safety.
    ///
    /// It is about all stations, and changes with most of what is said to one: it is made when it is asked for, once for many inputs.
    #[must_use]
    pub fn take_memory(&mut self, now: Now) -> Option<Vec<u8>> {
        let news = self.site.take_memory(now);
        let has_news = news.is_some();
        if let Some(news) = news {
            self.site_memory = news;
        }
        let Some(guard) = &mut self.guard else { return has_news.then(|| self.site_memory.clone()) };
        if !(guard.take_news() || has_news) {
            return None;
        }
        let kept = guard.memory(now);
        let site: &[u8] = if self.site_memory.is_empty() { b"null" } else { &self.site_memory };
        // Both are JSON that was just written: reading it again to put it together would cost more than writing it.
        Some([b"{\"site\":", site, b",\"guard\":", &kept, b"}"].concat())
    }
}
