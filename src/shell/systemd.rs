//! What the service manager is told (`sd_notify(3)`). Without systemd every call does nothing.

use systemd::daemon;

use crate::engine::model::status::SiteStatus;
use crate::engine::time::Mono;

/// The watchdog is fed once a second: a cycle of 200 ms that fails is noticed within the unit's `WatchdogSec`.
const WATCHDOG_EVERY_MS: u64 = 1_000;

/// The status line is for people; no need for more.
const STATUS_EVERY_MS: u64 = 5_000;

/// Tells systemd how the daemon is doing.
#[derive(Clone, Debug)]
pub struct Notifier {
    active: bool,
    watchdog_fed: Option<Mono>,
    status_told: Option<Mono>,
    status: String,
}

impl Notifier {
    /// Talks to the service manager that started this process, if one did.
    #[must_use]
    pub fn from_environment() -> Self {
        Self { active: std::env::var_os("NOTIFY_SOCKET").is_some(), ..Self::silent() }
    }

    /// Talks to nobody.
    #[must_use]
    pub const fn silent() -> Self {
        Self { active: false, watchdog_fed: None, status_told: None, status: String::new() }
    }

    /// Everything listens and the first control cycle is done.
    pub fn ready(&self) {
        self.tell(&[(daemon::STATE_READY, "1")]);
    }

    /// The configuration is being read again; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        self.tell(&[(daemon::STATE_RELOADING, "1")]);
    }

    /// The daemon stops on purpose.
    pub fn stopping(&self) {
        self.tell(&[
            (daemon::STATE_STOPPING, "1"),
            (daemon::STATE_STATUS, "Stopping; chargers keep their safe limits"),
        ]);
    }

    /// A control cycle is completed: the only thing that feeds the watchdog.
    pub fn control_cycle_done(&mut self, status: &SiteStatus, now: Mono) {
        if !self.active {
            return;
        }
        if self.watchdog_fed.is_none_or(|fed| now.since(fed) >= WATCHDOG_EVERY_MS) {
            self.tell(&[(daemon::STATE_WATCHDOG, "1")]);
            self.watchdog_fed = Some(now);
        }
        if self.status_told.is_none_or(|told| now.since(told) >= STATUS_EVERY_MS) {
            let line = status_line(status);
            if line != self.status {
                self.tell(&[(daemon::STATE_STATUS, &line)]);
                self.status = line;
            }
            self.status_told = Some(now);
        }
    }

    fn tell(&self, state: &[(&str, &str)]) {
        if !self.active {
            return;
        }
        let clean: Vec<(&str, String)> = state.iter().map(|(key, value)| (*key, sanitised(value))).collect();
        if let Err(error) = daemon::notify(clean.iter()) {
            tracing::debug!("cannot notify systemd: {error}");
        }
    }
}

/// A newline would start another assignment, a NUL would end the process inside the library.
fn sanitised(value: &str) -> String {
    value.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn status_line(status: &SiteStatus) -> String {
    let connected = status.chargers.iter().filter(|charger| charger.connected).count();
    let mut line = format!(
        "{connected} of {} chargers connected, {} transactions, {} alarms",
        status.chargers.len(),
        status.transactions.len(),
        status.alarms.len()
    );
    if let Some(cloud) = &status.cloud {
        line += if cloud.connected { ", cloud connected" } else { ", cloud away" };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::status::{ChargerStatus, CloudStatus};

    #[test]
    fn text_cannot_smuggle_in_another_assignment() {
        assert_eq!(sanitised("a\nREADY=1\0b"), "a READY=1 b");
    }

    #[test]
    fn the_status_line_says_how_it_is() {
        let here = ChargerStatus { connected: true, ..ChargerStatus::default() };
        let status = SiteStatus {
            chargers: vec![here, ChargerStatus::default()],
            cloud: Some(CloudStatus::default()),
            ..SiteStatus::default()
        };
        assert_eq!(status_line(&status), "1 of 2 chargers connected, 0 transactions, 0 alarms, cloud away");
    }
}
