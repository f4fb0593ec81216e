//! The lease: a charging profile that steps down by itself unless it is renewed.
//!
//! One `TxDefaultProfile` of kind `Absolute` with two periods and no end: the limit now, the fallback from the end of the lease on. It needs
//! one stack level only. `Relative` would count from the start of the transaction, and a profile with an end would leave a station without
//! any limit once it is over; both were rejected for that.

use crate::engine::model::exchange::LeasedLimit;
use crate::engine::time::Utc;
use crate::engine::units::Current;

/// How long before now the schedule starts, in ms: a station whose clock is behind ours by less than this is limited, before the schedule it
/// would not be. Eight hours cover a step of our own clock and most mistaken time zones; more would not fit into the 15 bits that a
/// station may have for `startPeriod`.
pub const LEASE_LEAD_MS: i64 = 8 * 3_600_000;

/// The id of the profile of EVSE 0; the others follow. The same id each time replaces the profile in place. Small, since some stations keep
/// it in 16 bits, and not 1, 2, 3, which other back-ends leave behind.
pub const PROFILE_ID_BASE: i32 = 1_000;

/// The step in which limits are written: one decimal (OCPP 1.6 §7.14, 2.0.1 `ChargingSchedulePeriodType.limit`).
const LIMIT_STEP: Current = Current::from_ma(100);

/// One period of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeasePeriod {
    /// When it begins, in s after the start of the schedule.
    pub start_s: i32,
    /// The limit per phase: a multiple of 0.1 A, not negative.
    pub limit: Current,
}

/// A [`LeasedLimit`] as the numbers of a charging profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The profile's id, the same for each lease of an EVSE.
    pub profile_id: i32,
    /// The EVSE's number.
    pub evse: i32,
    /// The stack level.
    pub stack_level: i32,
    /// When the schedule starts: at a whole second, since some stations drop the fraction.
    pub start: Utc,
    /// The limit now, then the fallback.
    pub periods: [LeasePeriod; 2],
    /// How many phases the limit is for, 1 to 3.
    pub phases: i32,
}

impl Lease {
    /// Computes the profile. Limits are rounded down to 0.1 A. The step to the fallback is never later than asked where it lowers the limit,
    /// and never earlier where it raises it.
    #[must_use]
    pub fn new(leased: &LeasedLimit) -> Self {
        let start_ms = leased.now.plus_ms(-LEASE_LEAD_MS).unix_ms().div_euclid(1_000).saturating_mul(1_000);
        let start = Utc::from_unix_ms(start_ms);
        let lasts_ms = i64::try_from(leased.lasts_ms).unwrap_or(i64::MAX);
        let steps_after_ms = leased.now.plus_ms(lasts_ms).since(start);
        let earlier_s = steps_after_ms.div_euclid(1_000);
        let raises = leased.fallback > leased.limit;
        let step_s = if raises && steps_after_ms.rem_euclid(1_000) > 0 { earlier_s + 1 } else { earlier_s };
        let evse = i32::try_from(leased.evse).unwrap_or(i32::MAX);
        Self {
            profile_id: PROFILE_ID_BASE.saturating_add(evse),
            evse,
            stack_level: i32::try_from(leased.stack_level).unwrap_or(i32::MAX),
            start,
            periods: [
                LeasePeriod { start_s: 0, limit: written(leased.limit) },
                LeasePeriod { start_s: i32::try_from(step_s).unwrap_or(i32::MAX), limit: written(leased.fallback) },
            ],
            phases: i32::try_from(leased.phases.clamp(1, 3)).unwrap_or(3),
        }
    }
}

fn written(limit: Current) -> Current {
    limit.at_least_zero().floor_to(LIMIT_STEP)
}

/// A limit with one decimal, as JSON text.
pub(super) fn limit_text(limit: Current) -> String {
    let tenths = limit.ma() / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leased(limit_ma: i32, fallback_ma: i32, now_ms: i64, lasts_ms: u64) -> LeasedLimit {
        LeasedLimit {
            evse: 1,
            limit: Current::from_ma(limit_ma),
            fallback: Current::from_ma(fallback_ma),
            now: Utc::from_unix_ms(now_ms),
            lasts_ms,
            stack_level: 0,
            phases: 3,
        }
    }

    #[test]
    fn limits_round_down_to_a_tenth() {
        let lease = Lease::new(&leased(16_199, -5, 1_772_366_400_000, 90_000));
        assert_eq!(limit_text(lease.periods[0].limit), "16.1");
        assert_eq!(limit_text(lease.periods[1].limit), "0.0");
    }

    #[test]
    fn the_schedule_starts_hours_ago_at_a_whole_second() {
        let lease = Lease::new(&leased(16_000, 6_000, 1_772_366_400_700, 90_000));
        assert_eq!(lease.start.to_string(), "2026-03-01T04:00:00.000Z");
        assert_eq!(lease.periods[1].start_s, 28_890);
        let raising = Lease::new(&leased(0, 6_000, 1_772_366_400_700, 90_000));
        assert_eq!(raising.periods[1].start_s, 28_891);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let lease = Lease::new(&LeasedLimit {
            evse: u32::MAX,
            limit: Current::MAX,
            fallback: Current::ZERO,
            now: Utc::from_unix_ms(i64::MIN),
            lasts_ms: u64::MAX,
            stack_level: u32::MAX,
            phases: 0,
        });
        assert_eq!((lease.phases, lease.profile_id), (1, i32::MAX));
    }

    proptest! {
        #[test]
        fn the_step_errs_to_less_current(
            limit in 0..64_000_i32, fallback in 0..64_000_i32,
            now in 0..4_000_000_000_000_i64, lasts in 0..86_400_000_u64,
        ) {
            let asked = leased(limit, fallback, now, lasts);
            let lease = Lease::new(&asked);
            let step = lease.start.plus_ms(i64::from(lease.periods[1].start_s) * 1_000);
            let wanted = asked.now.plus_ms(i64::try_from(lasts).unwrap());
            prop_assert!(lease.start <= asked.now.plus_ms(-LEASE_LEAD_MS));
            if fallback <= limit { prop_assert!(step <= wanted) } else { prop_assert!(step >= wanted) }
            prop_assert!(step.since(wanted).abs() < 1_000);
        }
    }
}
