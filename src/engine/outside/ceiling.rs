//! What limits from outside leave of a circuit or a station: the lowest of each kind holds.

use crate::engine::model::limit::{LimitAmount, LimitOrigin};
use crate::engine::model::topology::{Circuit, Station};
use crate::engine::units::{Current, PerPhase, Power, Voltage};

/// What is left of a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitCeiling<'a> {
    /// The current on each phase, never above the configured one.
    pub limit: PerPhase<Current>,
    /// Who has lowered it, if anybody has.
    pub limit_by: Option<&'a LimitOrigin>,
    /// The power of all that flows, never above the configured one; `None`: none.
    pub total: Option<Power>,
    /// Who has lowered it.
    pub total_by: Option<&'a LimitOrigin>,
    /// The power of all stations below; `None`: none.
    pub charging: Option<Power>,
    /// Who has set it.
    pub charging_by: Option<&'a LimitOrigin>,
}

/// The power of a current on all three phases.
#[must_use]
pub fn three_phase(current: Current, voltage: Voltage) -> Power {
    let one = current.power_at(voltage);
    one + one + one
}

/// The current on each of `phases` phases for a power, rounded down. 0 for no phases.
#[must_use]
pub fn current_of(power: Power, phases: usize, voltage: Voltage) -> Current {
    let millivolts = i64::from(voltage.mv()).saturating_mul(i64::try_from(phases).unwrap_or(i64::MAX));
    if millivolts <= 0 {
        return Current::ZERO;
    }
    let ma = power.at_least_zero().w().saturating_mul(1_000_000) / millivolts;
    Current::from_ma(i32::try_from(ma).unwrap_or(i32::MAX))
}

/// What the limits leave of a circuit. None of them goes below `floor`, on each phase.
#[must_use]
pub fn of_circuit<'a>(
    circuit: &Circuit,
    floor: Option<Current>,
    voltage: Voltage,
    limits: impl Iterator<Item = (LimitAmount, &'a LimitOrigin)>,
) -> CircuitCeiling<'a> {
    let mut ceiling = CircuitCeiling {
        limit: circuit.limit,
        limit_by: None,
        total: circuit.max_power,
        total_by: None,
        charging: None,
        charging_by: None,
    };
    for (amount, origin) in limits {
        match at_least(amount, circuit, floor, voltage) {
            Lowered::Phases(limit) => {
                let lower = ceiling.limit.zip_with(limit, Current::min);
                if lower != ceiling.limit {
                    (ceiling.limit, ceiling.limit_by) = (lower, Some(origin));
                }
            }
            Lowered::Total(power) => {
                if ceiling.total.is_none_or(|known| power < known) {
                    (ceiling.total, ceiling.total_by) = (Some(power), Some(origin));
                }
            }
            Lowered::Charging(power) => {
                if ceiling.charging.is_none_or(|known| power < known) {
                    (ceiling.charging, ceiling.charging_by) = (Some(power), Some(origin));
                }
            }
        }
    }
    ceiling
}

/// A limit in the terms of one circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lowered {
    /// On each phase.
    Phases(PerPhase<Current>),
    /// On all phases together.
    Total(Power),
    /// For all stations below together.
    Charging(Power),
}

/// A limit in the terms of a circuit, raised to its floor.
#[must_use]
pub fn at_least(amount: LimitAmount, circuit: &Circuit, floor: Option<Current>, voltage: Voltage) -> Lowered {
    let floor = floor.unwrap_or(Current::ZERO);
    let phases = |limit: PerPhase<Current>| Lowered::Phases(limit.map(|limit| limit.max(floor)));
    match amount {
        LimitAmount::PerPhase(current) => phases(PerPhase::splat(current)),
        LimitAmount::Permille(permille) => phases(circuit.limit.map(|limit| share(limit, permille))),
        LimitAmount::Total(power) => Lowered::Total(power.max(three_phase(floor, voltage))),
        // The dimming has a floor of its own: the minimum power that it leaves.
        LimitAmount::Charging(power) => Lowered::Charging(power),
    }
}

fn share(current: Current, permille: u16) -> Current {
    let ma = i64::from(current.ma()) * i64::from(permille.min(1_000)) / 1_000;
    Current::from_ma(i32::try_from(ma).unwrap_or(0))
}

/// The most that each EVSE of a station may be offered on each phase, and who says so; `None`: nobody lowers it.
#[must_use]
pub fn of_station<'a>(
    station: &Station,
    voltage: Voltage,
    limits: impl Iterator<Item = (LimitAmount, &'a LimitOrigin)>,
) -> Option<(Current, &'a LimitOrigin)> {
    limits
        .map(|(amount, origin)| (each_evse(amount, station, voltage), origin))
        .filter(|(current, _)| *current < station.max)
        .min_by_key(|(current, _)| *current)
}

/// A limit on a station in the terms of one of its EVSEs.
#[must_use]
pub fn each_evse(amount: LimitAmount, station: &Station, voltage: Voltage) -> Current {
    match amount {
        LimitAmount::PerPhase(current) => current,
        LimitAmount::Permille(permille) => share(station.max, permille),
        // Split evenly, whoever is there: a car that comes must not wait for a cut at its neighbour.
        LimitAmount::Total(power) | LimitAmount::Charging(power) => {
            current_of(power, station.wiring.terminals() * station.evse_count, voltage)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model::ids::{CircuitId, StationId};
    use crate::engine::model::topology::{CircuitIndex, StationModel, Wiring};
    use crate::engine::units::Phase;

    const VOLTAGE: Voltage = Voltage::from_mv(230_000);

    fn circuit() -> Circuit {
        Circuit {
            id: CircuitId::new("grid"),
            parent: None,
            limit: PerPhase::new(Current::from_a(60), Current::from_a(63), Current::from_a(63)),
            meter: None,
            unmeasured_load: None,
            max_unbalance: None,
            max_power: Some(Power::from_w(40_000)),
            short_time: None,
        }
    }

    #[test]
    fn the_lowest_of_each_kind_holds_and_names_its_origin() {
        let (cloud, ems) = (LimitOrigin::Cloud, LimitOrigin::Named("ems".to_owned()));
        let limits = [
            (LimitAmount::PerPhase(Current::from_a(50)), &cloud),
            (LimitAmount::PerPhase(Current::from_a(40)), &ems),
            (LimitAmount::Total(Power::from_w(50_000)), &cloud),
            (LimitAmount::Charging(Power::from_w(4_200)), &ems),
        ];
        let ceiling = of_circuit(&circuit(), None, VOLTAGE, limits.into_iter());
        assert_eq!((ceiling.limit, ceiling.limit_by), (PerPhase::splat(Current::from_a(40)), Some(&ems)));
        assert_eq!((ceiling.total, ceiling.total_by), (Some(Power::from_w(40_000)), None), "as configured");
        assert_eq!((ceiling.charging, ceiling.charging_by), (Some(Power::from_w(4_200)), Some(&ems)));
    }

    #[test]
    fn no_limit_goes_below_the_floor_or_above_what_is_configured() {
        let cloud = LimitOrigin::Cloud;
        let limit = |amount| of_circuit(&circuit(), Some(Current::from_a(10)), VOLTAGE, [(amount, &cloud)].into_iter());
        assert_eq!(limit(LimitAmount::PerPhase(Current::ZERO)).limit, PerPhase::splat(Current::from_a(10)));
        assert_eq!(limit(LimitAmount::Total(Power::ZERO)).total, Some(Power::from_w(6_900)));
        assert_eq!(limit(LimitAmount::Permille(500)).limit.of(Phase::L1), Current::from_a(30));
        let above = limit(LimitAmount::PerPhase(Current::from_a(62)));
        assert_eq!(above.limit, PerPhase::new(Current::from_a(60), Current::from_a(62), Current::from_a(62)));
    }

    #[test]
    fn a_power_on_a_station_is_split_between_its_evses() {
        let station = Station {
            id: StationId::new("CP"),
            circuit: CircuitIndex(0),
            model: StationModel::default(),
            wiring: Wiring::STRAIGHT,
            max: Current::from_a(32),
            min: Current::from_a(6),
            fallback: Current::from_a(6),
            evse_count: 2,
            priority: 0,
            weight: 1,
            dc: None,
            password: None,
        };
        let cloud = LimitOrigin::Cloud;
        let of = |amount| of_station(&station, VOLTAGE, [(amount, &cloud)].into_iter()).map(|(current, _)| current);
        assert_eq!(of(LimitAmount::Total(Power::from_w(11_040))), Some(Current::from_a(8)));
        assert_eq!(of(LimitAmount::PerPhase(Current::from_a(16))), Some(Current::from_a(16)));
        assert_eq!(of(LimitAmount::Permille(250)), Some(Current::from_a(8)));
        assert_eq!(of(LimitAmount::PerPhase(Current::from_a(32))), None);
        assert_eq!(current_of(Power::from_w(4_200), 3, VOLTAGE), Current::from_ma(6_086));
    }
}
