//! A transaction cut into periods of one price: by the borders of its tariff and by the moments at which the car stopped charging.

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::calendar::{borders, wall_clock};
use crate::engine::model::tariff::{Prices, Tariff};
use crate::engine::time::Utc;
use crate::engine::units::Energy;

/// The energy register at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterAt {
    /// When, by the station's clock.
    pub at: Utc,
    /// What the register showed.
    pub register: Energy,
}

/// From when on a car was charging, or connected without charging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityAt {
    /// When it began.
    pub at: Utc,
    /// Whether the car takes energy from then on.
    pub charging: bool,
}

/// What is known of a transaction for its bill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// When it began.
    pub started: Utc,
    /// When it ended, or the moment up to which it is billed.
    pub ended: Utc,
    /// The energy register, rising in time, the first at the start and the last at the end.
    pub registers: Vec<RegisterAt>,
    /// When charging began and ended; before the first entry it counts as charging.
    pub activity: Vec<ActivityAt>,
}

/// A part of a transaction with the same prices from begin to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// When it begins.
    pub from: Utc,
    /// When it ends.
    pub to: Utc,
    /// The prices in force.
    pub prices: Prices,
    /// The energy taken.
    pub energy: Energy,
    /// The car was charging; otherwise it only parked.
    pub charging: bool,
    /// The energy at one of its ends was not measured there, but taken from the line between two measurements.
    pub interpolated: bool,
}

impl Period {
    /// How long it is, in ms.
    #[must_use]
    pub const fn ms(&self) -> i64 {
        self.to.since(self.from)
    }
}

/// Cuts a transaction into its periods. Their energies add up to the last register minus the first, to the Wh.
///
/// Between two measurements energy is taken to flow evenly: that is the rule for a border without a measurement of its own.
#[must_use]
pub fn split(usage: &Usage, tariff: &Tariff, zone: Tz) -> Vec<Period> {
    let mut cuts = borders(zone, &tariff.borders_min(), usage.started, usage.ended);
    let inside = |at: &Utc| *at > usage.started && *at < usage.ended;
    cuts.extend(usage.activity.iter().map(|change| change.at).filter(inside));
    cuts.push(usage.ended);
    cuts.sort_unstable();
    cuts.dedup();
    let mut periods: Vec<Period> = Vec::new();
    let mut from = usage.started;
    for to in cuts {
        let (before, exact_before) = register_at(&usage.registers, from);
        let (after, exact_after) = register_at(&usage.registers, to);
        let clock = wall_clock(zone, from);
        let period = Period {
            from,
            to,
            prices: tariff.prices_at(clock.weekday, clock.minute),
            energy: (after - before).at_least_zero(),
            charging: charging_at(&usage.activity, from),
            interpolated: !(exact_before && exact_after),
        };
        match periods.last_mut() {
            Some(last) if last.prices == period.prices && last.charging == period.charging => {
                last.to = period.to;
                last.energy += period.energy;
                last.interpolated = !(register_at(&usage.registers, last.from).1 && exact_after);
            }
            Some(_) | None => periods.push(period),
        }
        from = to;
    }
    periods
}

fn charging_at(activity: &[ActivityAt], at: Utc) -> bool {
    activity.iter().rev().find(|change| change.at <= at).is_none_or(|change| change.charging)
}

/// The register at a moment, and whether it was measured then.
fn register_at(registers: &[RegisterAt], at: Utc) -> (Energy, bool) {
    let after = registers.partition_point(|sample| sample.at < at);
    match (after.checked_sub(1).and_then(|before| registers.get(before)), registers.get(after)) {
        (_, Some(exact)) if exact.at == at => (exact.register, true),
        (Some(before), Some(after)) => {
            let span = i128::from(after.at.since(before.at)).max(1);
            let part = i128::from(at.since(before.at));
            let rise = i128::from(after.register.wh()) - i128::from(before.register.wh());
            let wh = i128::from(before.register.wh()) + (rise * part + span / 2) / span;
            (Energy::from_wh(i64::try_from(wh).unwrap_or(before.register.wh())), false)
        }
        (Some(last), None) => (last.register, false),
        (None, Some(first)) => (first.register, false),
        (None, None) => (Energy::ZERO, false),
    }
}
