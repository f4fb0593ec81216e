//! The power that the German §14a EnWG (BNetzA BK6-22-300) leaves to controllable devices while the grid operator dims them, and what a
//! contact that cannot be read stands for.

use crate::engine::model::limit::{DimmingInput, DimmingLoss};
use crate::engine::time::{Mono, Sampled};
use crate::engine::units::Power;

/// What one controllable device always keeps.
pub const DEVICE_MINIMUM: Power = Power::from_w(4_200);

/// The simultaneity factors for 2, 3, … 8 and for 9 and more devices behind one energy management system, in thousandths. The last one is
/// confirmed by the decision's text; the others come from secondary sources, so the configuration can replace them.
pub const FACTORS: [u16; 8] = [800, 750, 700, 650, 600, 550, 500, 450];

/// `4.2 kW + (n − 1) · factor · 4.2 kW` for `n` devices, rounded down to 1 W. At least one device is counted.
#[must_use]
pub fn minimum_power(devices: u32, factors: &[u16; 8]) -> Power {
    let others = devices.max(1) - 1;
    let last = factors.len() - 1;
    let place = usize::try_from(devices.saturating_sub(2)).unwrap_or(last).min(last);
    let each = DEVICE_MINIMUM.w() * i64::from(factors[place]);
    DEVICE_MINIMUM + Power::from_w(i64::from(others) * each / 1_000)
}

/// Whether the site is dimmed by its contact. `before`: whether it was; `started`: since when the contact is asked.
#[must_use]
pub fn is_dimmed(
    input: DimmingInput,
    last: Option<&Sampled<bool>>,
    before: bool,
    (started, now): (Mono, Mono),
) -> bool {
    let silent_since = last.map_or(started, Sampled::at);
    if now.since(silent_since) < input.loss_ms {
        // Nothing read yet: as the last run left it.
        return last.map_or(before, |last| *last.for_display());
    }
    match input.on_loss {
        DimmingLoss::Dim => true,
        DimmingLoss::Release => false,
        DimmingLoss::Hold => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_power_of_the_rule() {
        // BK6-22-300, annex 1, 4.5.2: Pmin,14a = 4.2 kW + (n − 1) · GZF · 4.2 kW.
        for (devices, watts) in [
            (0, 4_200),
            (1, 4_200),
            (2, 7_560),
            (3, 10_500),
            (4, 13_020),
            (5, 15_120),
            (6, 16_800),
            (7, 18_060),
            (8, 18_900),
            (9, 19_320),
            (10, 21_210),
            (100, 191_310),
        ] {
            assert_eq!(minimum_power(devices, &FACTORS), Power::from_w(watts), "{devices} devices");
        }
    }

    #[test]
    fn a_contact_that_cannot_be_read_is_what_was_chosen_after_its_time() {
        let input = |on_loss| DimmingInput { on_loss, loss_ms: 60_000 };
        let at = |seconds: u64| Mono::from_ms(seconds * 1_000);
        let read = Sampled::new(false, at(100));
        let dimmed = |on_loss, before, now| is_dimmed(input(on_loss), Some(&read), before, (at(0), at(now)));
        for before in [false, true] {
            assert!(!dimmed(DimmingLoss::Dim, before, 159), "still as it was read");
            assert!(dimmed(DimmingLoss::Dim, before, 160));
            assert!(!dimmed(DimmingLoss::Release, before, 160));
            assert_eq!(dimmed(DimmingLoss::Hold, before, 160), before);
            // Not read since the start.
            assert_eq!(is_dimmed(input(DimmingLoss::Dim), None, before, (at(0), at(59))), before);
            assert!(is_dimmed(input(DimmingLoss::Dim), None, before, (at(0), at(60))));
        }
    }
}
