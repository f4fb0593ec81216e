//! A rough time on real sockets: the controller is killed again and again, the meter is unplugged again and again, and the currents of the
//! simulated garage are judged by the wall clock.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use siteward::engine::time::Mono;
use siteward::engine::units::{Current, PerPhase, Phase};

use super::{Rig, RigOptions};
use crate::building::Appliances;
use crate::car::{Car, CarOptions};
use crate::net::cloud::lock;
use crate::rng::Dice;

/// How often the garage is looked at.
const STEP: Duration = Duration::from_millis(100);
/// systemd starts the controller again after a second.
const RESTART_MS: u64 = 1_000;
/// How often the daemon reads the meter, and from which age on it does not use a reading.
const METER_MS: u64 = 500;
/// See [`METER_MS`].
const STALE_MS: u64 = 3_000;
/// What the garage draws besides its stations, per phase: three kinds of loads with steps.
const LOADS_A: [i32; 3] = [40, 30, 20];
/// A station that comes back has booted, and been given its limit, within so long.
const WELCOME_MS: u64 = 10_000;
/// From a decision to the current that has gone: a tick, the way, the station (0.2 s), the car (5 s), its ramp (32 A at 8 A/s).
const ACT_MS: u64 = 200 + 100 + 200 + 5_000 + 4_000;
/// Above a limit by less is at it.
const TOLERANCE: Current = Current::from_ma(1_000);

/// What is to be run.
#[derive(Clone, Debug)]
pub struct RoughOptions {
    /// How long.
    pub duration: Duration,
    /// How many stations.
    pub stations: usize,
    /// How often the controller is killed.
    pub kill_every: Duration,
    /// How often the meter is unplugged, for [`RoughOptions::meter_away`].
    pub meter_every: Duration,
    /// How long the meter is away.
    pub meter_away: Duration,
    /// For everything random.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct RoughReport {
    /// How long, in s.
    pub seconds: u64,
    /// How many stations.
    pub stations: usize,
    /// How often the controller was killed.
    pub kills: u64,
    /// How often the meter was unplugged.
    pub losses: u64,
    /// How long a phase was above the limit while it could have been below, in ms.
    pub above_ms: u64,
    /// The longest time at a stretch, in ms.
    pub longest_ms: u64,
    /// How much longer than its grace, in ms.
    pub beyond_grace_ms: u64,
    /// The most above the limit.
    pub highest: Current,
    /// Sum of the shares of the limit on the fullest phase, in permille, and how many, while all was well.
    pub used: (u64, u64),
    /// How many transactions.
    pub transactions: usize,
    /// What the cars took, in Wh.
    pub energy_wh: i64,
    /// The lines of the daemon's log that say ERROR.
    pub errors: Vec<String>,
}

impl RoughReport {
    /// Whether no promise was broken, and something was charged.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.beyond_grace_ms == 0 && self.errors.is_empty() && self.transactions > 0 && self.energy_wh > 0
    }
}

impl fmt::Display for RoughReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| f64::from(u32::try_from(ms).unwrap_or(u32::MAX)) / 1000.0;
        writeln!(
            f,
            "{} stations for {} s: killed {} times, meter lost {} times",
            self.stations, self.seconds, self.kills, self.losses
        )?;
        writeln!(f, "  {} transactions, {} kWh", self.transactions, self.energy_wh / 1000)?;
        writeln!(
            f,
            "  above the limit: {:.1} s in all, {:.1} s at a stretch, {} at most, {:.1} s beyond the grace",
            seconds(self.above_ms),
            seconds(self.longest_ms),
            self.highest,
            seconds(self.beyond_grace_ms)
        )?;
        if let Some(permille) = self.used.0.checked_div(self.used.1) {
            writeln!(f, "  while all was well the fullest phase was at {:.1} % of its limit", seconds(permille * 100))?;
        }
        for error in &self.errors {
            writeln!(f, "  the controller says: {error}")?;
        }
        Ok(())
    }
}

struct Judge {
    limit: Current,
    since: PerPhase<Option<Mono>>,
    last: Mono,
    /// Until when the meter was away.
    meter_until: Option<Mono>,
    /// When each station was last not connected.
    offline: Vec<Mono>,
}

/// Runs it.
///
/// # Errors
/// If the rig does not come up, or the controller cannot be started again.
pub async fn run(options: &RoughOptions, siteward: Option<PathBuf>) -> Result<(RoughReport, Rig), String> {
    let count = i32::try_from(options.stations).unwrap_or(i32::MAX);
    let unmeasured_a = LOADS_A.into_iter().sum::<i32>();
    let rig_options = RigOptions {
        stations: options.stations,
        // Room for all fallbacks, and for a quarter more: the cars would take two to four times as much.
        limit_a: unmeasured_a + count * 6 * 5 / 4,
        unmeasured_a,
        fallback_a: 6,
        meter_ms: METER_MS,
        stale_after_ms: STALE_MS,
        meter_values_s: 5,
        seed: options.seed,
    };
    let mut rig = Rig::start(rig_options, siteward).await?;
    let [kettle, lift, oven] = LOADS_A.map(Current::from_a);
    let mut loads = Appliances::new(kettle, lift, oven, Dice::named(options.seed, "loads"));
    let mut dice = Dice::named(options.seed, "cars");
    let start = rig.clock.mono();
    let mut judge = Judge {
        limit: Current::from_a(rig_options.limit_a),
        since: PerPhase::splat(None),
        last: start,
        meter_until: None,
        offline: vec![start; options.stations],
    };
    let mut report =
        RoughReport { stations: options.stations, seconds: options.duration.as_secs(), ..RoughReport::default() };
    let mut changes = vec![start; options.stations];
    let mut timetable = Timetable::new(options, start);
    let mut step = tokio::time::interval(STEP);
    while rig.clock.mono().since(start) < millis(options.duration) {
        step.tick().await;
        timetable.act(&mut rig, options, &mut report)?;
        if timetable.meter_back.is_some() {
            judge.meter_until = Some(rig.clock.mono());
        }
        traffic(&rig, &mut dice, &mut changes);
        // Forty times as fast as in a real house, so that ten minutes see many steps.
        let load = loads.current(rig.clock.mono().since(start) * 40);
        judge.look(&rig, load, &mut report);
    }
    for station in &rig.stations {
        let station = lock(station);
        report.transactions += station.transactions().len();
        report.energy_wh += station.energy_wh(1);
    }
    report.errors = rig.errors();
    Ok((report, rig))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When the controller is killed and started again, and the meter goes and comes back.
struct Timetable {
    kill_at: Mono,
    start_at: Option<Mono>,
    meter_at: Mono,
    meter_back: Option<Mono>,
}

impl Timetable {
    fn new(options: &RoughOptions, start: Mono) -> Self {
        Self {
            kill_at: start.plus_ms(millis(options.kill_every)),
            start_at: None,
            meter_at: start.plus_ms(millis(options.meter_every)),
            meter_back: None,
        }
    }

    fn act(&mut self, rig: &mut Rig, options: &RoughOptions, report: &mut RoughReport) -> Result<(), String> {
        let now = rig.clock.mono();
        if now >= self.kill_at {
            self.kill_at = now.plus_ms(millis(options.kill_every));
            rig.kill_controller();
            report.kills += 1;
            self.start_at = Some(now.plus_ms(RESTART_MS));
        }
        if self.start_at.take_if(|at| now >= *at).is_some() {
            rig.start_controller()?;
        }
        if now >= self.meter_at {
            self.meter_at = now.plus_ms(millis(options.meter_every));
            rig.set_meter(false);
            report.losses += 1;
            self.meter_back = Some(now.plus_ms(millis(options.meter_away)));
        }
        if self.meter_back.take_if(|at| now >= *at).is_some() {
            rig.set_meter(true);
        }
        Ok(())
    }
}

/// Cars come and go.
fn traffic(rig: &Rig, dice: &mut Dice, changes: &mut [Mono]) {
    let now = rig.clock.now();
    for (index, (station, change)) in rig.stations.iter().zip(changes).enumerate() {
        if now.mono < *change {
            continue;
        }
        let mut station = lock(station);
        if station.car(1).is_some() {
            station.unplug(1, now);
            *change = now.mono.plus_ms(dice.between(2_000, 20_000));
            continue;
        }
        let options = CarOptions {
            phases: dice.pick(&[1, 2, 3, 3, 3]).copied().unwrap_or(3),
            max: Current::from_a(dice.pick(&[16, 16, 32]).copied().unwrap_or(16)),
            reaction_ms: dice.between(200, 4_500),
            ..CarOptions::default()
        };
        // It was free a moment ago, and nobody else parks cars.
        let _ = station.plug_in(1, Car::new(options), Some(&format!("TAG{index}")));
        *change = now.mono.plus_ms(dice.between(40_000, 180_000));
    }
}

impl Judge {
    fn look(&mut self, rig: &Rig, load: PerPhase<Current>, report: &mut RoughReport) {
        let now = rig.clock.mono();
        let passed = now.since(self.last);
        self.last = now;
        let mut total = load;
        let mut movable = PerPhase::splat(Current::ZERO);
        let mut everybody = true;
        for (station, offline) in rig.stations.iter().zip(&mut self.offline) {
            let station = lock(station);
            if !rig.controller_runs() || !station.is_online() {
                *offline = now;
            }
            let drawn = station.total_current();
            total += drawn;
            if now.since(*offline) > WELCOME_MS + ACT_MS {
                movable += drawn;
            } else {
                everybody = false;
            }
        }
        lock(&rig.meter).set_current(total, now);
        let meter_well = self.meter_until.is_none_or(|until| now.since(until) > STALE_MS + METER_MS);
        let sees_ms = if meter_well { METER_MS } else { STALE_MS + METER_MS };
        let grace_ms = 2 * (sees_ms + ACT_MS);
        for phase in Phase::ALL {
            let excess = total.of(phase) - self.limit;
            let above = excess > TOLERANCE && movable.of(phase) > TOLERANCE;
            let since = self.since.get_mut(phase);
            if !above {
                *since = None;
                continue;
            }
            let lasted = now.since(*since.get_or_insert(now));
            report.above_ms += passed;
            report.longest_ms = report.longest_ms.max(lasted);
            report.beyond_grace_ms = report.beyond_grace_ms.max(lasted.saturating_sub(grace_ms));
            report.highest = report.highest.max(excess);
        }
        if everybody && meter_well {
            let share = i64::from(total.max().ma()) * 1000 / i64::from(self.limit.ma().max(1));
            report.used.0 += share.unsigned_abs();
            report.used.1 += 1;
        }
    }
}
