//! What the cloud wants of the site: limits on circuits, now and then, and storms of them.

use siteward::engine::site::io::{CloudInput, Input};
use siteward::engine::units::{Current, Power};

use super::{Event, VOLTAGE, World};

/// How far apart the commands of a storm are.
const STORM_MS: u64 = 2_000;
/// A command that cannot be delivered is tried again after so long.
const AGAIN_MS: u64 = 5_000;

/// What the cloud limits a circuit to: there is one limit of it, of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// On each phase.
    Current(Current),
    /// On all phases together.
    Power(Power),
}

impl Outside {
    /// Whether nobody has less by this limit than by another.
    fn spares(self, other: Self) -> bool {
        match (self, other) {
            (Self::Current(new), Self::Current(old)) => new >= old,
            (Self::Power(new), Self::Power(old)) => new >= old,
            (Self::Current(_), Self::Power(_)) | (Self::Power(_), Self::Current(_)) => false,
        }
    }
}

impl World {
    /// The next command of a storm, in W or in A, or the one that ends it.
    pub(super) fn storm(&mut self, (circuit, watts): (usize, bool), until_ms: u64) {
        if !self.reaches_the_controller() {
            self.later(AGAIN_MS, Event::Storm { circuit, watts, until_ms });
            return;
        }
        if self.now_ms >= until_ms {
            self.command_limit(circuit, None);
            return;
        }
        let limit = self.dice.chance(800_000).then(|| self.storm_limit(circuit, watts));
        self.command_limit(circuit, limit);
        self.later(STORM_MS, Event::Storm { circuit, watts, until_ms });
    }

    /// Between half and all of what the circuit has for charging, so that what cannot be charged away does not decide.
    fn storm_limit(&mut self, circuit: usize, watts: bool) -> Outside {
        let plan = &self.site.circuit[circuit];
        let assumed = plan.unmeasured_a.unwrap_or(0);
        let percent = i64::try_from(self.dice.between(50, 100)).unwrap_or(100);
        let three_phases = |amperes: i32| i64::from(amperes) * 3 * i64::from(VOLTAGE.mv()) / 1_000;
        if watts {
            let most = plan.max_w.unwrap_or_else(|| three_phases(plan.limit_a));
            let free = most - three_phases(assumed);
            return Outside::Power(Power::from_w(three_phases(assumed) + free * percent / 100));
        }
        let free = i64::from(plan.limit_a - assumed);
        Outside::Current(Current::from_a(assumed + i32::try_from(free * percent / 100).unwrap_or(0)))
    }

    const fn reaches_the_controller(&self) -> bool {
        self.controller.is_some() && self.paused_until.is_none() && self.broker_up && self.broker_told
    }

    /// The grid operator dims the site, or lets it go.
    pub(super) fn dim(&mut self, active: bool) {
        if !self.reaches_the_controller() {
            self.later(AGAIN_MS, Event::Dim { active });
            return;
        }
        self.dimmed_since = active.then(|| self.dimmed_since.unwrap_or(self.now_ms));
        self.commands += 1;
        self.command(&format!(r#"{{"id":"dim-{}","type":"site.dim","data":{{"active":{active}}}}}"#, self.commands));
    }

    fn command_limit(&mut self, circuit: usize, limit: Option<Outside>) {
        self.commands += 1;
        let (id, name) = (self.commands, &self.site.circuit[circuit].id);
        let amount = limit.map(|limit| match limit {
            Outside::Current(limit) => format!(r#""limit_a":{:.1}"#, limit.as_a()),
            Outside::Power(limit) => format!(r#""limit_w":{}"#, limit.w()),
        });
        let payload = match amount {
            Some(amount) => {
                format!(r#"{{"id":"storm-{id}","type":"limit.set","data":{{"circuit":"{name}",{amount}}}}}"#)
            }
            None => format!(r#"{{"id":"storm-{id}","type":"limit.clear","data":{{"circuit":"{name}"}}}}"#),
        };
        let before = self.limits_from_outside[circuit];
        // The grace begins anew only where there is less than before.
        let since = match (before, limit) {
            (Some((old, since)), Some(new)) if new.spares(old) => since,
            (None | Some(_), _) => self.now_ms,
        };
        self.limits_from_outside[circuit] = limit.map(|limit| (limit, since));
        self.command(&payload);
    }

    fn command(&mut self, payload: &str) {
        let times = if self.commands_twice { 2 } else { 1 };
        for _ in 0..times {
            let message =
                CloudInput::Message { payload: payload.as_bytes().to_vec(), response_topic: None, correlation: None };
            self.tell_site(Input::Cloud(message));
        }
    }
}
