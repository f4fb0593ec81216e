//! What can go wrong in the world, planned by a seed or written down in a scenario.

use serde::Deserialize;

use crate::meter::DeviceTrouble;
use crate::rng::Dice;

/// No fault thrown by dice reaches into this last part of a run: there everybody has to get something.
pub const QUIET_MS: u64 = 40 * 60_000;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A station's network is gone; both ends notice at once.
    LinkDown(usize),
    /// A station's frames vanish in both directions; the ends notice when their pings time out.
    HalfOpen(usize),
    /// A station's frames take so many ms.
    LinkSlow(usize, u64),
    /// A station loses power for a moment.
    StationReboot(usize),
    /// The grid meter is in trouble.
    Meter(DeviceTrouble),
    /// The controller is killed, and comes back when the fault ends.
    ControllerCrash,
    /// The broker cannot be reached.
    BrokerDown,
    /// The controller's calendar clock is wrong by so many ms.
    ClockStep(i64),
    /// The disk needs 3 s for a flush.
    DiskSlow,
    /// The disk takes nothing.
    DiskFull,
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it begins, in ms since the start of the world.
    pub at_ms: u64,
    /// How long it lasts, in ms.
    pub for_ms: u64,
    /// What it is.
    pub fault: Fault,
}

/// How a scenario file names a fault.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultFile {
    /// `link-down`, `half-open`, `link-slow`, `station-reboot`, `meter-silent`, `meter-exception`, `meter-frozen`, `meter-garbage`,
    /// `controller-crash`, `broker-down`, `clock-step`, `disk-slow`, `disk-full`.
    pub kind: String,
    /// When it begins, in s.
    pub at_s: u64,
    /// How long it lasts, in s.
    #[serde(default)]
    pub for_s: u64,
    /// Which station, from 0.
    #[serde(default)]
    pub station: usize,
    /// The latency or the clock's error, in ms.
    #[serde(default)]
    pub amount_ms: i64,
}

impl FaultFile {
    /// The fault with its time.
    ///
    /// # Errors
    /// If the kind is none of those named at [`FaultFile::kind`].
    pub fn planned(&self) -> Result<Planned, String> {
        let station = self.station;
        let fault = match self.kind.as_str() {
            "link-down" => Fault::LinkDown(station),
            "half-open" => Fault::HalfOpen(station),
            "link-slow" => Fault::LinkSlow(station, self.amount_ms.unsigned_abs()),
            "station-reboot" => Fault::StationReboot(station),
            "meter-silent" => Fault::Meter(DeviceTrouble::Silent),
            "meter-exception" => Fault::Meter(DeviceTrouble::Exception(4)),
            "meter-frozen" => Fault::Meter(DeviceTrouble::Frozen),
            "meter-garbage" => Fault::Meter(DeviceTrouble::Garbage),
            "controller-crash" => Fault::ControllerCrash,
            "broker-down" => Fault::BrokerDown,
            "clock-step" => Fault::ClockStep(self.amount_ms),
            "disk-slow" => Fault::DiskSlow,
            "disk-full" => Fault::DiskFull,
            other => return Err(format!("fault kind {other:?} is not known")),
        };
        Ok(Planned { at_ms: self.at_s * 1000, for_ms: self.for_s * 1000, fault })
    }
}

/// Faults by dice: about `per_day` a day, none before the third minute and none that reaches into the last [`QUIET_MS`].
#[must_use]
pub fn by_seed(dice: &mut Dice, duration_ms: u64, stations: usize, per_day: u64) -> Vec<Planned> {
    let last = duration_ms.saturating_sub(QUIET_MS);
    let first = 3 * 60_000;
    if last <= first {
        return Vec::new();
    }
    let count = (per_day * duration_ms).div_ceil(86_400_000);
    let mut planned: Vec<Planned> = (0..count)
        .map(|_| {
            let at_ms = dice.between(first, last);
            let (fault, longest_s) = throw(dice, stations);
            let for_ms = dice.between(1, longest_s) * 1000;
            Planned { at_ms, for_ms: for_ms.min(last.saturating_sub(at_ms)), fault }
        })
        .collect();
    planned.sort_by_key(|planned| planned.at_ms);
    planned
}

/// A fault, and the most seconds it lasts.
fn throw(dice: &mut Dice, stations: usize) -> (Fault, u64) {
    let count = u64::try_from(stations).unwrap_or(1);
    let station = usize::try_from(dice.below(count)).unwrap_or(0);
    match dice.below(12) {
        0 | 1 => (Fault::LinkDown(station), 900),
        2 => (Fault::HalfOpen(station), 120),
        3 => (Fault::LinkSlow(station, dice.between(500, 5_000)), 300),
        4 => (Fault::StationReboot(station), 1),
        5 => (Fault::Meter(DeviceTrouble::Silent), 300),
        6 => (Fault::Meter(DeviceTrouble::Exception(4)), 300),
        7 | 8 => (Fault::ControllerCrash, 20),
        9 => (Fault::BrokerDown, 1_800),
        10 => (Fault::DiskSlow, 120),
        _ => (Fault::DiskFull, 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_faults_end_before_the_quiet_at_the_end() {
        let faults = by_seed(&mut Dice::new(3), 86_400_000, 20, 50);
        assert_eq!(faults.len(), 50);
        assert!(faults.iter().all(|planned| planned.at_ms + planned.for_ms <= 86_400_000 - QUIET_MS));
        assert_eq!(by_seed(&mut Dice::new(3), 60_000, 20, 50), []);
    }
}
