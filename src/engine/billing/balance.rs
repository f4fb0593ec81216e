//! Whether the energy of a day is accounted for: registers against transactions, meters against registers.

use crate::engine::model::balance::{BalanceVerdict, Comparison};
use crate::engine::model::billing::Tolerance;
use crate::engine::units::Energy;

/// Judges what a register counted and what transactions account for.
#[must_use]
pub fn judge_register(counted: Energy, transactions: Energy, tolerance: Tolerance) -> BalanceVerdict {
    let apart = (counted - transactions).abs();
    verdict(apart <= tolerance.of(counted))
}

/// Judges what a meter counted and what the chargers below took. `untold` is what they may have taken that they had not told of, at both
/// ends. With it how far the two may be apart.
#[must_use]
pub fn judge_circuit(
    comparison: Comparison,
    (metered, chargers): (Energy, Energy),
    untold: Energy,
    tolerance: Tolerance,
) -> (BalanceVerdict, Energy) {
    let allowed = tolerance.of(metered) + untold;
    let judged = match comparison {
        Comparison::Same => verdict((metered - chargers).abs() <= allowed),
        Comparison::AtMost => verdict(chargers - metered <= allowed),
        Comparison::None => BalanceVerdict::NotJudged,
    };
    (judged, allowed)
}

const fn verdict(good: bool) -> BalanceVerdict {
    if good { BalanceVerdict::Good } else { BalanceVerdict::Off }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance { energy: Energy::from_wh(1_000), permille: 20 };

    fn wh(wh: i64) -> Energy {
        Energy::from_wh(wh)
    }

    #[test]
    fn the_larger_tolerance_holds() {
        for (counted, transactions, expected) in [
            (10_000, 9_000, BalanceVerdict::Good),
            (10_000, 8_999, BalanceVerdict::Off),
            (8_999, 10_000, BalanceVerdict::Off),
            (200_000, 196_000, BalanceVerdict::Good),
            (200_000, 195_999, BalanceVerdict::Off),
            (0, 0, BalanceVerdict::Good),
            (-50_000, 0, BalanceVerdict::Off),
        ] {
            assert_eq!(judge_register(wh(counted), wh(transactions), TOLERANCE), expected, "{counted} {transactions}");
        }
    }

    #[test]
    fn other_load_makes_of_the_same_a_most() {
        let judge = |comparison, metered, chargers, untold| {
            judge_circuit(comparison, (wh(metered), wh(chargers)), wh(untold), TOLERANCE).0
        };
        assert_eq!(judge(Comparison::Same, 100_000, 95_000, 0), BalanceVerdict::Off);
        assert_eq!(judge(Comparison::Same, 100_000, 95_000, 3_000), BalanceVerdict::Good);
        assert_eq!(judge(Comparison::AtMost, 100_000, 5_000, 0), BalanceVerdict::Good);
        assert_eq!(judge(Comparison::AtMost, 100_000, 102_001, 0), BalanceVerdict::Off);
        assert_eq!(judge(Comparison::None, 100_000, 202_000, 0), BalanceVerdict::NotJudged);
    }
}
