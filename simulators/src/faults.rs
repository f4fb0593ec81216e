//! What can go wrong in the world, planned by a seed or written down in a scenario.

use serde::{Deserialize, Serialize};

use crate::meter::DeviceTrouble;
use crate::rng::Dice;

/// No fault thrown by dice begins before: the stations have to come up once.
const FIRST_MS: u64 = 3 * 60_000;

/// What is odd about a station for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// Accepts every profile and draws what the car wants.
    IgnoresLimit,
    /// Refuses a profile with a limit of 0 A.
    RefusesZero,
    /// Refuses every profile.
    RefusesProfiles,
    /// Follows a changed limit so many ms later.
    Slow(u64),
    /// Its clock is wrong by so many ms and does not follow the controller's.
    WrongClock(i64),
    /// Sends each answer twice.
    AnswersTwice,
    /// Its answers take so many ms: longer than anybody waits.
    AnswersLate(u64),
    /// Never answers.
    NeverAnswers,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A station's network is gone; both ends notice at once.
    LinkDown(usize),
    /// A station's frames vanish in both directions; the ends notice when their pings time out.
    HalfOpen(usize),
    /// A station's frames take so many ms.
    LinkSlow(usize, u64),
    /// A station's frames are held up in both directions, and arrive all at once when the fault ends.
    LinkStall(usize),
    /// The network of so many stations, from this one on, is gone at once.
    Partition(usize, usize),
    /// A station loses power for a moment.
    StationReboot(usize),
    /// A station forgets its profiles at one blow, and says nothing.
    ProfilesLost(usize),
    /// A station behaves oddly.
    Odd(usize, Oddity),
    /// A meter is in trouble.
    Meter(usize, DeviceTrouble),
    /// The inverter is in trouble.
    Inverter(DeviceTrouble),
    /// The controller is killed, and comes back when the fault ends.
    ControllerCrash,
    /// The controller is killed, and comes back with its clock at 1970; an hour later somebody tells it the time.
    BootWithoutClock,
    /// The controller stands still (SIGSTOP): no ticks, no polls; what arrives meanwhile is taken in when it goes on.
    ControllerPause,
    /// The controller's calendar clock is wrong by so many ms.
    ClockStep(i64),
    /// The broker cannot be reached.
    BrokerDown,
    /// The cloud's commands come twice.
    CommandsTwice,
    /// The cloud lowers and lifts the limit of a circuit again and again, every few seconds.
    LimitStorm(usize),
    /// The same with the power of the circuit.
    PowerStorm(usize),
    /// The grid operator dims the site.
    Dimmed,
    /// The disk needs 3 s for a flush.
    DiskSlow,
    /// The disk takes nothing.
    DiskFull,
    /// The disk can only be read.
    DiskReadOnly,
}

impl Fault {
    /// Its name in scenario files and counts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinkDown(_) => "link-down",
            Self::HalfOpen(_) => "half-open",
            Self::LinkSlow(..) => "link-slow",
            Self::LinkStall(_) => "link-stall",
            Self::Partition(..) => "partition",
            Self::StationReboot(_) => "station-reboot",
            Self::ProfilesLost(_) => "profiles-lost",
            Self::Odd(_, Oddity::IgnoresLimit) => "ignores-limit",
            Self::Odd(_, Oddity::RefusesZero) => "refuses-zero",
            Self::Odd(_, Oddity::RefusesProfiles) => "refuses-profiles",
            Self::Odd(_, Oddity::Slow(_)) => "reacts-late",
            Self::Odd(_, Oddity::WrongClock(_)) => "wrong-clock",
            Self::Odd(_, Oddity::AnswersTwice) => "answers-twice",
            Self::Odd(_, Oddity::AnswersLate(_)) => "answers-late",
            Self::Odd(_, Oddity::NeverAnswers) => "never-answers",
            Self::Meter(_, trouble) => match trouble {
                DeviceTrouble::Silent => "meter-silent",
                DeviceTrouble::Exception(_) => "meter-exception",
                DeviceTrouble::Frozen => "meter-frozen",
                DeviceTrouble::Garbage => "meter-garbage",
                DeviceTrouble::Swapped => "meter-swapped",
                DeviceTrouble::Flipped => "meter-flipped",
                DeviceTrouble::Slow(_) => "meter-slow",
            },
            Self::Inverter(_) => "inverter-silent",
            Self::ControllerCrash => "controller-crash",
            Self::BootWithoutClock => "boot-without-clock",
            Self::ControllerPause => "controller-pause",
            Self::ClockStep(_) => "clock-step",
            Self::BrokerDown => "broker-down",
            Self::CommandsTwice => "commands-twice",
            Self::LimitStorm(_) => "limit-storm",
            Self::PowerStorm(_) => "power-storm",
            Self::Dimmed => "dimmed",
            Self::DiskSlow => "disk-slow",
            Self::DiskFull => "disk-full",
            Self::DiskReadOnly => "disk-read-only",
        }
    }

    /// The stations that it is about: the first and how many; `None`: it is not about stations.
    #[must_use]
    pub const fn stations(self) -> Option<(usize, usize)> {
        match self {
            Self::LinkDown(station)
            | Self::HalfOpen(station)
            | Self::LinkSlow(station, _)
            | Self::LinkStall(station)
            | Self::StationReboot(station)
            | Self::ProfilesLost(station)
            | Self::Odd(station, _) => Some((station, 1)),
            Self::Partition(first, count) => Some((first, count)),
            Self::Meter(..)
            | Self::Inverter(_)
            | Self::ControllerCrash
            | Self::BootWithoutClock
            | Self::ControllerPause
            | Self::ClockStep(_)
            | Self::BrokerDown
            | Self::CommandsTwice
            | Self::LimitStorm(_)
            | Self::PowerStorm(_)
            | Self::Dimmed
            | Self::DiskSlow
            | Self::DiskFull
            | Self::DiskReadOnly => None,
        }
    }
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultFile {
    /// A name of [`Fault::name`].
    pub kind: String,
    /// When it begins, in s.
    pub at_s: u64,
    /// How long it lasts, in s.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub for_s: u64,
    /// Which station, from 0.
    #[serde(default, skip_serializing_if = "is_none")]
    pub station: usize,
    /// How many stations, from that one on.
    #[serde(default, skip_serializing_if = "is_none")]
    pub count: usize,
    /// Which meter, from 0.
    #[serde(default, skip_serializing_if = "is_none")]
    pub meter: usize,
    /// Which circuit, from 0.
    #[serde(default, skip_serializing_if = "is_none")]
    pub circuit: usize,
    /// The latency, the delay, the clock's error, or the meter's refresh, in ms.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub amount_ms: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_none(value: &usize) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_nothing(value: &i64) -> bool {
    *value == 0
}

impl FaultFile {
    /// The fault with its time.
    ///
    /// # Errors
    /// If the kind is none of those of [`Fault::name`].
    pub fn planned(&self) -> Result<Planned, String> {
        let (station, meter) = (self.station, self.meter);
        let amount = self.amount_ms.unsigned_abs();
        let odd = |oddity| Fault::Odd(station, oddity);
        let fault = match self.kind.as_str() {
            "link-down" => Fault::LinkDown(station),
            "half-open" => Fault::HalfOpen(station),
            "link-slow" => Fault::LinkSlow(station, amount),
            "link-stall" => Fault::LinkStall(station),
            "partition" => Fault::Partition(station, self.count.max(1)),
            "station-reboot" => Fault::StationReboot(station),
            "profiles-lost" => Fault::ProfilesLost(station),
            "ignores-limit" => odd(Oddity::IgnoresLimit),
            "refuses-zero" => odd(Oddity::RefusesZero),
            "refuses-profiles" => odd(Oddity::RefusesProfiles),
            "reacts-late" => odd(Oddity::Slow(amount)),
            "wrong-clock" => odd(Oddity::WrongClock(self.amount_ms)),
            "answers-twice" => odd(Oddity::AnswersTwice),
            "answers-late" => odd(Oddity::AnswersLate(amount)),
            "never-answers" => odd(Oddity::NeverAnswers),
            "meter-silent" => Fault::Meter(meter, DeviceTrouble::Silent),
            "meter-exception" => Fault::Meter(meter, DeviceTrouble::Exception(4)),
            "meter-frozen" => Fault::Meter(meter, DeviceTrouble::Frozen),
            "meter-garbage" => Fault::Meter(meter, DeviceTrouble::Garbage),
            "meter-swapped" => Fault::Meter(meter, DeviceTrouble::Swapped),
            "meter-flipped" => Fault::Meter(meter, DeviceTrouble::Flipped),
            "meter-slow" => Fault::Meter(meter, DeviceTrouble::Slow(amount)),
            "inverter-silent" => Fault::Inverter(DeviceTrouble::Silent),
            "controller-crash" => Fault::ControllerCrash,
            "boot-without-clock" => Fault::BootWithoutClock,
            "controller-pause" => Fault::ControllerPause,
            "clock-step" => Fault::ClockStep(self.amount_ms),
            "broker-down" => Fault::BrokerDown,
            "commands-twice" => Fault::CommandsTwice,
            "limit-storm" => Fault::LimitStorm(self.circuit),
            "power-storm" => Fault::PowerStorm(self.circuit),
            "dimmed" => Fault::Dimmed,
            "disk-slow" => Fault::DiskSlow,
            "disk-full" => Fault::DiskFull,
            "disk-read-only" => Fault::DiskReadOnly,
            other => return Err(format!("fault kind {other:?} is not known")),
        };
        Ok(Planned { at_ms: self.at_s * 1000, for_ms: self.for_s * 1000, fault })
    }

    /// The same as a file writes it. Faults begin and last whole seconds.
    #[must_use]
    pub fn of(planned: Planned) -> Self {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let (station, count) = planned.fault.stations().unwrap_or((0, 0));
        let amount_ms = match planned.fault {
            Fault::LinkSlow(_, ms)
            | Fault::Odd(_, Oddity::Slow(ms) | Oddity::AnswersLate(ms))
            | Fault::Meter(_, DeviceTrouble::Slow(ms)) => signed(ms),
            Fault::Odd(_, Oddity::WrongClock(ms)) | Fault::ClockStep(ms) => ms,
            _ => 0,
        };
        Self {
            kind: planned.fault.name().to_owned(),
            at_s: planned.at_ms / 1000,
            for_s: planned.for_ms / 1000,
            station,
            // One station is the usual, and need not be written.
            count: if matches!(planned.fault, Fault::Partition(..)) { count } else { 0 },
            meter: if let Fault::Meter(meter, _) = planned.fault { meter } else { 0 },
            circuit: if let Fault::LimitStorm(at) | Fault::PowerStorm(at) = planned.fault { at } else { 0 },
            amount_ms,
        }
    }
}

/// What there is that can fail.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// How many stations.
    pub stations: usize,
    /// How many meters.
    pub meters: usize,
    /// How many circuits.
    pub circuits: usize,
}

/// Faults by dice: about `per_day` a day, none in the first three minutes and none after `end_ms`. They begin and last whole seconds.
#[must_use]
pub fn by_seed(dice: &mut Dice, end_ms: u64, targets: Targets, per_day: u64) -> Vec<Planned> {
    if end_ms <= FIRST_MS {
        return Vec::new();
    }
    let count = (per_day * end_ms).div_ceil(86_400_000);
    let mut planned: Vec<Planned> = (0..count)
        .map(|_| {
            let at_ms = dice.between(FIRST_MS, end_ms) / 1000 * 1000;
            let (fault, longest_s) = throw(dice, targets);
            let for_ms = dice.between(1, longest_s) * 1000;
            Planned { at_ms, for_ms: for_ms.min((end_ms - at_ms) / 1000 * 1000), fault }
        })
        .collect();
    planned.sort_by_key(|planned| planned.at_ms);
    planned
}

/// Who limits the power of a site from outside.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    /// Its circuits, each of which the cloud may limit.
    pub circuits: usize,
    /// Whether the grid operator may dim it.
    pub can_be_dimmed: bool,
}

/// Limits from outside by dice: a storm of powers for every 20 faults a day, and the site is dimmed as often. They begin and last whole seconds.
#[must_use]
pub fn outside_by_seed(dice: &mut Dice, end_ms: u64, outside: Outside, per_day: u64) -> Vec<Planned> {
    if end_ms <= FIRST_MS {
        return Vec::new();
    }
    let count = (per_day * end_ms).div_ceil(20 * 86_400_000);
    let circuits = u64::try_from(outside.circuits).unwrap_or(1);
    let mut planned = Vec::new();
    for _ in 0..count {
        let circuit = usize::try_from(dice.below(circuits)).unwrap_or(0);
        let kinds = [(Fault::PowerStorm(circuit), 300), (Fault::Dimmed, 3_600)];
        for (fault, longest_s) in
            kinds.into_iter().filter(|(fault, _)| *fault != Fault::Dimmed || outside.can_be_dimmed)
        {
            let at_ms = dice.between(FIRST_MS, end_ms) / 1000 * 1000;
            let for_ms = dice.between(1, longest_s) * 1000;
            planned.push(Planned { at_ms, for_ms: for_ms.min((end_ms - at_ms) / 1000 * 1000), fault });
        }
    }
    planned
}

/// A fault, and the most seconds it lasts.
fn throw(dice: &mut Dice, targets: Targets) -> (Fault, u64) {
    let one = |dice: &mut Dice, of: usize| usize::try_from(dice.below(u64::try_from(of).unwrap_or(1))).unwrap_or(0);
    let station = one(dice, targets.stations);
    match dice.below(20) {
        0 => (Fault::LinkDown(station), 900),
        1 => (Fault::HalfOpen(station), 120),
        2 => (Fault::LinkSlow(station, dice.between(5, 50) * 100), 300),
        3 => (Fault::LinkStall(station), 90),
        4 => (Fault::Partition(station, 1 + one(dice, targets.stations - station)), 600),
        5 => (Fault::StationReboot(station), 1),
        6 => (Fault::ProfilesLost(station), 1),
        7..=9 => odd(dice, station),
        10..=13 if targets.meters > 0 => {
            let meter = one(dice, targets.meters);
            meter_trouble(dice, meter)
        }
        10..=13 => (Fault::LinkDown(station), 900),
        14 => (Fault::ControllerCrash, 20),
        15 => {
            let kinds = [
                Fault::BootWithoutClock,
                Fault::ControllerPause,
                Fault::ClockStep(3_600_000),
                Fault::ClockStep(-300_000),
            ];
            match dice.pick(&kinds).copied().unwrap_or(Fault::ControllerPause) {
                Fault::ClockStep(error) => (Fault::ClockStep(error), 600),
                Fault::BootWithoutClock => (Fault::BootWithoutClock, 10),
                other => (other, 60),
            }
        }
        16 => (Fault::BrokerDown, 1_800),
        17 => (Fault::CommandsTwice, 1_800),
        18 => (Fault::LimitStorm(one(dice, targets.circuits)), 300),
        _ => match dice.below(3) {
            0 => (Fault::DiskSlow, 120),
            1 => (Fault::DiskFull, 20),
            _ => (Fault::DiskReadOnly, 20),
        },
    }
}

fn odd(dice: &mut Dice, station: usize) -> (Fault, u64) {
    let (oddity, longest_s) = match dice.below(9) {
        0 => (Oddity::IgnoresLimit, 600),
        1 => (Oddity::RefusesZero, 900),
        2 => (Oddity::RefusesProfiles, 900),
        3 => (Oddity::Slow(5_000), 900),
        4 => (Oddity::WrongClock(3_600_000), 1_800),
        5 => (Oddity::WrongClock(-3_600_000), 1_800),
        6 => (Oddity::AnswersTwice, 900),
        7 => (Oddity::AnswersLate(40_000), 300),
        _ => (Oddity::NeverAnswers, 600),
    };
    (Fault::Odd(station, oddity), longest_s)
}

fn meter_trouble(dice: &mut Dice, meter: usize) -> (Fault, u64) {
    let (trouble, longest_s) = match dice.below(8) {
        0 | 1 => (DeviceTrouble::Silent, 300),
        2 => (DeviceTrouble::Exception(4), 300),
        3 => (DeviceTrouble::Frozen, 120),
        4 => (DeviceTrouble::Garbage, 120),
        5 => (DeviceTrouble::Swapped, 300),
        6 => (DeviceTrouble::Flipped, 300),
        _ => (DeviceTrouble::Slow(if dice.below(2) == 0 { 10_000 } else { 60_000 }), 600),
    };
    (Fault::Meter(meter, trouble), longest_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = Targets { stations: 20, meters: 3, circuits: 5 };

    #[test]
    fn planned_faults_end_in_time() {
        let end = 86_400_000;
        let faults = by_seed(&mut Dice::new(3), end, TARGETS, 50);
        assert_eq!(faults.len(), 50);
        assert!(faults.iter().all(|planned| planned.at_ms + planned.for_ms <= end));
        assert_eq!(by_seed(&mut Dice::new(3), 60_000, TARGETS, 50), []);
    }

    #[test]
    fn a_file_says_the_same_as_the_dice() {
        for planned in by_seed(&mut Dice::new(4), 86_400_000, TARGETS, 2_000) {
            assert_eq!(FaultFile::of(planned).planned(), Ok(planned));
        }
    }
}
