//! What the cloud wants of the site: limits on circuits, now and then, and storms of them.

use siteward::engine::site::io::{CloudInput, Input};
use siteward::engine::units::Current;

use super::{Event, World};

/// How far apart the commands of a storm are.
const STORM_MS: u64 = 2_000;
/// A command that cannot be delivered is tried again after so long.
const AGAIN_MS: u64 = 5_000;

impl World {
    /// The next command of a storm, or the one that ends it.
    pub(super) fn storm(&mut self, circuit: usize, until_ms: u64) {
        if !self.reaches_the_controller() {
            self.later(AGAIN_MS, Event::Storm { circuit, until_ms });
            return;
        }
        if self.now_ms >= until_ms {
            self.command_limit(circuit, None);
            return;
        }
        let limit = self.dice.chance(800_000).then(|| self.storm_limit(circuit));
        self.command_limit(circuit, limit);
        self.later(STORM_MS, Event::Storm { circuit, until_ms });
    }

    /// Between half and all of what the circuit has for charging, so that what cannot be charged away does not decide.
    fn storm_limit(&mut self, circuit: usize) -> Current {
        let plan = &self.site.circuit[circuit];
        let assumed = plan.unmeasured_a.unwrap_or(0);
        let free = i64::from(plan.limit_a - assumed);
        let percent = i64::try_from(self.dice.between(50, 100)).unwrap_or(100);
        Current::from_a(assumed + i32::try_from(free * percent / 100).unwrap_or(0))
    }

    const fn reaches_the_controller(&self) -> bool {
        self.controller.is_some() && self.paused_until.is_none() && self.broker_up && self.broker_told
    }

    fn command_limit(&mut self, circuit: usize, limit: Option<Current>) {
        self.commands += 1;
        let (id, name) = (self.commands, &self.site.circuit[circuit].id);
        let payload = match limit {
            Some(limit) => format!(
                r#"{{"id":"storm-{id}","type":"limit.set","data":{{"circuit":"{name}","limit_a":{:.1}}}}}"#,
                limit.as_a()
            ),
            None => format!(r#"{{"id":"storm-{id}","type":"limit.clear","data":{{"circuit":"{name}"}}}}"#),
        };
        let before = self.limits_from_outside[circuit];
        // The grace begins anew only where there is less than before.
        let since = match (before, limit) {
            (Some((old, since)), Some(new)) if new >= old => since,
            (None | Some(_), _) => self.now_ms,
        };
        self.limits_from_outside[circuit] = limit.map(|limit| (limit, since));
        let times = if self.commands_twice { 2 } else { 1 };
        for _ in 0..times {
            let message =
                CloudInput::Message { payload: payload.clone().into_bytes(), response_topic: None, correlation: None };
            self.tell_site(Input::Cloud(message));
        }
    }
}
