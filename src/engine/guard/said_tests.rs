use super::*;
use crate::engine::model::ids::StationId;
use crate::engine::model::topology::{CircuitIndex, DcSupply, StationModel, Wiring};

const VOLTAGE: Voltage = Voltage::from_mv(230_000);

fn station(wiring: Wiring) -> Station {
    Station {
        id: StationId::new("A"),
        circuit: CircuitIndex(0),
        model: StationModel { meter_interval_ms: 10_000, ..StationModel::default() },
        wiring,
        max: Current::from_a(32),
        min: Current::from_a(6),
        fallback: Current::ZERO,
        evse_count: 1,
        priority: 0,
        weight: 1,
        dc: None,
        password: None,
    }
}

fn values(samples: &str) -> String {
    format!(
        r#"[2,"1","MeterValues",{{"connectorId":1,"meterValue":[{{"timestamp":"2026-03-01T12:00:00Z","sampledValue":{samples}}}]}}]"#
    )
}

/// What a station at L2, L3, L1 is read to draw on the grid's phases, in mA; one more than it says.
fn read(samples: &str) -> [i32; 3] {
    let wiring = Wiring::new(&[Phase::L2, Phase::L3, Phase::L1]).unwrap();
    let draws = draws(&values(samples), &station(wiring), VOLTAGE).unwrap();
    Phase::ALL.map(|phase| draws.of(phase).ma())
}

#[test]
fn currents_count_at_their_terminals_and_without_a_name_on_all() {
    let by_phase = r#"[{"value":"16.0","measurand":"Current.Import","phase":"L1","unit":"A"},
        {"value":0,"measurand":"Current.Import","phase":"L2-N"},{"value":"40","measurand":"Current.Import","phase":"N"},
        {"value":"3680","measurand":"Power.Active.Import","unit":"W"},{"value":"123456","unit":"Wh"}]"#;
    assert_eq!(read(by_phase), [0, 16_001, 1]);
    assert_eq!(read(r#"{"value":"9500","measurand":"Current.Import","unit":"mA"}"#), [9_501; 3]);
    let version_2 = r#"[{"value":10,"measurand":"Current.Import","unitOfMeasure":{"unit":"A","multiplier":0}}]"#;
    assert_eq!(read(version_2), [10_001; 3]);
    assert_eq!(read(r#"[{"value":"-3","measurand":"Current.Import"}]"#), [1; 3]);
}

#[test]
fn a_power_counts_where_there_is_no_current() {
    assert_eq!(read(r#"[{"value":"6.9","measurand":"Power.Active.Import","unit":"kW"}]"#), [10_000; 3]);
    let by_phase = r#"[{"value":"2300","measurand":"Power.Active.Import","phase":"L1"},
        {"value":"4600","measurand":"Power.Active.Import","phase":"L3"}]"#;
    assert_eq!(read(by_phase), [10_000; 3], "whichever of them it is");
    let direct = Station {
        dc: Some(DcSupply {
            max: Power::from_w(50_000),
            min: Power::from_w(5_000),
            efficiency_permille: 900,
            power_factor_permille: 1_000,
        }),
        ..station(Wiring::STRAIGHT)
    };
    let text = values(
        r#"[{"value":"100","measurand":"Current.Import"},{"value":"6210","measurand":"Power.Active.Import","unit":"W"}]"#,
    );
    let drawn = draws(&text, &direct, VOLTAGE).unwrap().max();
    assert!(drawn >= Current::from_a(10) && drawn < Current::from_ma(10_020), "{drawn} with its losses");
}

#[test]
fn where_the_order_is_not_known_each_phase_may_be_the_one() {
    let unknown = station(Wiring::unknown(3).unwrap());
    let text = values(r#"[{"value":"16","measurand":"Current.Import","phase":"L1"}]"#);
    assert_eq!(draws(&text, &unknown, VOLTAGE), Some(PerPhase::splat(Current::from_ma(16_001))));
}

#[test]
fn what_cannot_be_read_may_be_any_current() {
    for sample in [
        r#"{"value":"16,5","measurand":"Current.Import"}"#,
        r#"{"value":"1.6","measurand":"Current.Import","unitOfMeasure":{"unit":"A","multiplier":1}}"#,
        r#"{"value":"16","measurand":"Current.Import","unit":"furlong"}"#,
        r#"{"value":"16","measurand":"Current.Import","format":"SignedData"}"#,
        r#"{"measurand":"Current.Import"}"#,
        r#"{"value":"1e99","measurand":"current.import"}"#,
    ] {
        assert_eq!(read(&format!("[{sample}]")), [i32::MAX; 3], "{sample}");
    }
    let broken = draws(r#"[2,"1","MeterValues",{"sampledValue":["#, &station(Wiring::STRAIGHT), VOLTAGE);
    assert_eq!(broken, Some(PerPhase::splat(Current::MAX)));
    let silent = r#"[2,"1","Heartbeat",{}]"#;
    assert_eq!(draws(silent, &station(Wiring::STRAIGHT), VOLTAGE), None);
}

#[test]
fn what_was_said_counts_for_four_intervals_and_a_minute_at_least_and_not_for_ever() {
    let (station, mut said) = (station(Wiring::STRAIGHT), Said::default());
    let hear = |said: &mut Said, a: u32, at_ms: u64| {
        let text = values(&format!(r#"[{{"value":"{a}","measurand":"Current.Import"}}]"#));
        said.hear(&text, &station, VOLTAGE, Mono::from_ms(at_ms));
    };
    hear(&mut said, 32, 500_000);
    for at_ms in (510_000..600_000).step_by(10_000) {
        hear(&mut said, 6, at_ms);
        assert!(said.most(Mono::from_ms(at_ms)).min() > Current::from_a(32), "{at_ms}");
    }
    (600_000..=720_000).step_by(10_000).for_each(|at_ms| hear(&mut said, 6, at_ms));
    assert_eq!(said.most(Mono::from_ms(720_000)).max(), Current::from_ma(6_001));
    assert_eq!(said.most(Mono::from_ms(1_000_000)), PerPhase::default(), "it has fallen silent");
}
