//! The lease: a charging profile that steps down by itself unless it is renewed.
//!
//! The form that needs least of a station is one `TxDefaultProfile` of kind `Absolute` with two periods and no end: the limit now, the
//! fallback from the end of the lease on. The other forms put the fallback into a profile of its own, below one that ends. `Relative`
//! would count from the start of the transaction, and a profile with an end and nothing below it would leave a station without any limit
//! once it is over; both were rejected for that.

use crate::engine::model::exchange::{LeasedLimit, ProfilePart, WrittenIn};
use crate::engine::model::ids::TransactionId;
use crate::engine::time::Utc;
use crate::engine::units::Current;

/// How long before now the schedule starts, in ms: a station whose clock is behind ours by less than this is limited, before the schedule it
/// would not be. Eight hours cover a step of our own clock and most mistaken time zones; more would not fit into the 15 bits that a
/// station may have for `startPeriod`.
pub const LEASE_LEAD_MS: i64 = 8 * 3_600_000;

/// The id of the profile of EVSE 0; the others follow. The same id each time replaces the profile in place. Small, since some stations keep
/// it in 16 bits, and not 1, 2, 3, which other back-ends leave behind.
pub const PROFILE_ID_BASE: i32 = 1_000;

/// Added to the id of a profile that lies above a base.
pub const PROFILE_ID_ABOVE: i32 = 1_000;

/// The step in which limits are written: one decimal (OCPP 1.6 §7.14, 2.0.1 `ChargingSchedulePeriodType.limit`).
const LIMIT_STEP: Current = Current::from_ma(100);

/// What a profile is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The station as a whole.
    StationMax,
    /// Every transaction without a profile of its own.
    TxDefault,
    /// One running transaction.
    Tx(TransactionId),
}

/// One period of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeasePeriod {
    /// When it begins, in s after the start of the schedule.
    pub start_s: i32,
    /// The limit in tenths of the unit, not negative: amperes per phase, or watts in total.
    pub tenths: i64,
}

/// A [`LeasedLimit`] as the numbers of a charging profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The profile's id, the same for each profile of a kind and an EVSE.
    pub profile_id: i32,
    /// The EVSE's number.
    pub evse: i32,
    /// The stack level.
    pub stack_level: i32,
    /// What it is for.
    pub purpose: Purpose,
    /// When the schedule starts: at a whole second, since some stations drop the fraction.
    pub start: Utc,
    /// When the profile ends; `None`: never.
    pub valid_to: Option<Utc>,
    /// How long it stays valid once the station is offline, in s (OCPP 2.1 `maxOfflineDuration`); `None`: as long as it is there.
    pub max_offline_s: Option<i32>,
    /// The limit now, then the fallback; or one of them alone.
    pub periods: Vec<LeasePeriod>,
    /// Whether limits are watts.
    pub watts: bool,
    /// How many phases the limit is for, 1 to 3.
    pub phases: i32,
}

impl Lease {
    /// Computes the profile. Limits are rounded down to 0.1 A or 0.1 W. The step to the fallback is never later than asked where it lowers
    /// the limit, and never earlier where it raises it.
    #[must_use]
    pub fn new(leased: &LeasedLimit) -> Self {
        let start_ms = leased.now.plus_ms(-LEASE_LEAD_MS).unix_ms().div_euclid(1_000).saturating_mul(1_000);
        let start = Utc::from_unix_ms(start_ms);
        let evse = i32::try_from(leased.evse).unwrap_or(i32::MAX);
        let level = i32::try_from(leased.stack_level).unwrap_or(i32::MAX);
        let id = PROFILE_ID_BASE.saturating_add(evse);
        let step_s = step_s(leased, start);
        let period = |start_s, limit| LeasePeriod { start_s, tenths: written(limit, leased.unit) };
        let decaying = || vec![period(0, leased.limit), period(step_s, leased.fallback)];
        let above = id.saturating_add(PROFILE_ID_ABOVE);
        let (profile_id, stack_level, purpose, periods) = match &leased.part {
            ProfilePart::Decaying => (id, level, Purpose::TxDefault, decaying()),
            ProfilePart::Base => (id, level, Purpose::TxDefault, vec![period(0, leased.fallback)]),
            ProfilePart::Expiring | ProfilePart::UntilOffline => {
                (above, level.saturating_add(1), Purpose::TxDefault, vec![period(0, leased.limit)])
            }
            ProfilePart::OfTransaction(transaction) => (above, level, Purpose::Tx(transaction.clone()), decaying()),
            ProfilePart::StationMax => (id, level, Purpose::StationMax, vec![period(0, leased.limit)]),
        };
        let ends = leased.part == ProfilePart::Expiring;
        Self {
            profile_id,
            evse,
            stack_level,
            purpose,
            start,
            max_offline_s: (leased.part == ProfilePart::UntilOffline).then(|| offline_s(leased)),
            valid_to: ends.then(|| start.plus_ms(i64::from(step_s) * 1_000)),
            periods,
            watts: leased.unit != WrittenIn::Amperes,
            phases: i32::try_from(leased.phases.clamp(1, 3)).unwrap_or(3),
        }
    }
}

/// When the limit steps to the fallback, in s after the start of the schedule.
fn step_s(leased: &LeasedLimit, start: Utc) -> i32 {
    let lasts_ms = i64::try_from(leased.lasts_ms).unwrap_or(i64::MAX);
    let steps_after_ms = leased.now.plus_ms(lasts_ms).since(start);
    let earlier_s = steps_after_ms.div_euclid(1_000);
    let raises = leased.fallback > leased.limit;
    let step_s = if raises && steps_after_ms.rem_euclid(1_000) > 0 { earlier_s + 1 } else { earlier_s };
    i32::try_from(step_s).unwrap_or(i32::MAX)
}

/// How long a limit outlasts the connection, in s: never longer than asked where its end lowers the limit, never shorter where it raises it.
fn offline_s(leased: &LeasedLimit) -> i32 {
    let rounded =
        if leased.fallback > leased.limit { leased.lasts_ms.div_ceil(1_000) } else { leased.lasts_ms / 1_000 };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// A limit in tenths of the unit, rounded down.
fn written(limit: Current, unit: WrittenIn) -> i64 {
    let ma = i64::from(limit.at_least_zero().ma());
    match unit {
        WrittenIn::Amperes => i64::from(limit.at_least_zero().floor_to(LIMIT_STEP).ma()) / 100,
        // mA · mW/A is 10⁻⁶ W, and a tenth of a watt 10⁵ of those.
        WrittenIn::Watts { mw_per_a } => ma.saturating_mul(mw_per_a.max(1)) / 100_000,
    }
}

/// A limit with one decimal, as JSON text.
pub(super) fn limit_text(tenths: i64) -> String {
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
            part: ProfilePart::Decaying,
            unit: WrittenIn::Amperes,
        }
    }

    #[test]
    fn limits_round_down_to_a_tenth() {
        let lease = Lease::new(&leased(16_199, -5, 1_772_366_400_000, 90_000));
        assert_eq!(limit_text(lease.periods[0].tenths), "16.1");
        assert_eq!(limit_text(lease.periods[1].tenths), "0.0");
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
            part: ProfilePart::Expiring,
            unit: WrittenIn::Watts { mw_per_a: i64::MAX },
        });
        assert_eq!((lease.phases, lease.profile_id), (1, i32::MAX));
    }

    #[test]
    fn watts_are_the_total_of_all_phases_and_round_down() {
        // OCPP 1.6 §7.14: a limit in W is for all phases together.
        let of = |ma, mw_per_a| written(Current::from_ma(ma), WrittenIn::Watts { mw_per_a });
        assert_eq!(limit_text(of(16_000, 690_000)), "11040.0");
        assert_eq!(limit_text(of(6_000, 230_000)), "1380.0");
        assert_eq!(limit_text(of(6_001, 230_940)), "1385.8");
        assert_eq!(of(-1, 690_000), 0);
    }

    #[test]
    fn two_levels_are_a_base_for_good_and_a_limit_above_it_that_ends() {
        // OCPP 1.6 §3.13.2: within a purpose the highest valid level wins; after validTo it is not valid any more.
        let asked = leased(16_000, 6_000, 1_772_366_400_000, 90_000);
        let base = Lease::new(&LeasedLimit { part: ProfilePart::Base, ..asked.clone() });
        let above = Lease::new(&LeasedLimit { part: ProfilePart::Expiring, ..asked });
        assert_eq!((base.stack_level, base.valid_to), (0, None));
        assert_eq!(base.periods, [LeasePeriod { start_s: 0, tenths: 60 }]);
        assert_eq!((above.stack_level, above.periods.len()), (1, 1));
        assert_eq!(above.valid_to, Some(Utc::from_unix_ms(1_772_366_490_000)));
        assert_ne!(base.profile_id, above.profile_id);
    }

    #[test]
    fn the_profile_of_a_transaction_carries_its_id_and_decays() {
        // OCPP 1.6 §5.16.2: a TxProfile SHALL carry the transactionId.
        let transaction = TransactionId::new("7");
        let part = ProfilePart::OfTransaction(transaction.clone());
        let lease = Lease::new(&LeasedLimit { part, ..leased(16_000, 6_000, 1_772_366_400_000, 90_000) });
        assert_eq!(lease.purpose, Purpose::Tx(transaction));
        assert_eq!(lease.periods.len(), 2);
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
