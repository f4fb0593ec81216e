//! Chargers with DC outputs: their limits are stated in W at the output, and counted as what they draw from the AC side for that.

use super::reader::Section;
use super::wiring::Currents;
use crate::engine::model::topology::{DcSupply, Wiring};
use crate::engine::units::{Power, Voltage};

/// The largest output of a charger for ships and lorries, with room.
const MAX_OUTPUT_W: i64 = 4_000_000;

/// What an output gives at least, if it is not stated: below it most converters stop.
const DEFAULT_MIN_W: i64 = 5_000;

/// Losses of a rectifier of the usual kind, on the safe side.
const DEFAULT_EFFICIENCY_PERMILLE: i32 = 930;

/// The power factor of one, on the safe side.
const DEFAULT_POWER_FACTOR_PERMILLE: i32 = 950;

/// `dc_max_w` and what belongs to it; `None` if the charger has none.
pub(super) fn read(section: &Section<'_>, voltage: Voltage, wiring: Wiring) -> Option<(Currents, DcSupply)> {
    let document = section.document;
    let keys = ["dc_min_w", "dc_fallback_w", "dc_efficiency", "power_factor"];
    let max = section.integer("dc_max_w", 1_000..=MAX_OUTPUT_W);
    let min = section.integer("dc_min_w", 100..=MAX_OUTPUT_W);
    let fallback = section.integer("dc_fallback_w", 0..=MAX_OUTPUT_W);
    let efficiency = section.thousandths("dc_efficiency", 500..=1_000);
    let power_factor = section.thousandths("power_factor", 500..=1_000);
    if !section.has("dc_max_w") {
        for key in keys.into_iter().filter(|key| section.has(key)) {
            let message = format!(
                "`{key}` is for chargers with DC outputs: add for example `dc_max_w = 150000`, or leave it out"
            );
            document.error(section.raw(key).map_or(section.at, |(at, _)| at), message);
        }
        return None;
    }
    for key in ["max_a", "min_a", "fallback_a"] {
        if let Some((at, _)) = section.raw(key) {
            let message = format!(
                "`{key}` is for AC chargers: with `dc_max_w` all limits are in W at the output, and what is drawn for them is computed"
            );
            document.error(at, message);
        }
    }
    let max_w = max.as_ref().map_or(MAX_OUTPUT_W, |max| max.value);
    let min_w = min.as_ref().map_or(DEFAULT_MIN_W.min(max_w), |min| min.value);
    let fallback_w = fallback.as_ref().map_or(min_w, |fallback| fallback.value);
    for (key, found) in [("dc_min_w", &min), ("dc_fallback_w", &fallback)] {
        if let Some(found) = found.as_ref().filter(|found| found.value > max_w) {
            let message = format!("`{key}` is {}, and must be at most `dc_max_w`, {max_w}", found.value);
            document.error(found.at, message);
        }
    }
    let permille = |value: i32| u16::try_from(value).unwrap_or(1_000);
    let dc = DcSupply {
        max: Power::from_w(max_w),
        min: Power::from_w(min_w),
        efficiency_permille: permille(efficiency.map_or(DEFAULT_EFFICIENCY_PERMILLE, |found| found.value)),
        power_factor_permille: permille(power_factor.map_or(DEFAULT_POWER_FACTOR_PERMILLE, |found| found.value)),
    };
    let drawn = |watts: i64| dc.current_for(Power::from_w(watts), voltage, wiring).unwrap_or_default();
    let max_drawn = drawn(max_w);
    let currents = Currents {
        max: max_drawn,
        min: drawn(min_w).min(max_drawn),
        fallback: drawn(fallback_w).min(max_drawn),
        max_at: None,
    };
    Some((currents, dc))
}
