//! Stations that are connected but not configured.

use super::*;
use crate::engine::model::alarm::AlarmKind;
use crate::engine::model::status::PendingCharger;

fn waits(id: &str) -> Input {
    let charger = PendingCharger { id: id.to_owned(), ..PendingCharger::default() };
    Input::Pending { chargers: vec![charger] }
}

fn alarms(world: &World) -> (usize, usize) {
    let raised = |body: &RecordBody| matches!(body, RecordBody::AlarmRaised(alarm) if alarm.key.kind == AlarmKind::ChargerPending);
    let cleared = |body: &RecordBody| matches!(body, RecordBody::AlarmCleared(alarm) if alarm.key.kind == AlarmKind::ChargerPending);
    (world.count(raised), world.count(cleared))
}

#[test]
fn one_that_waits_is_listed_at_once_and_an_alarm_when_it_stays() {
    let mut world = World::new(63);
    world.put(waits("NEW1"));
    assert_eq!(world.site.status(world.now).pending[0].id, "NEW1");
    world.pass(14_000);
    assert_eq!(alarms(&world), (0, 0));
    world.pass(2_000);
    assert_eq!(alarms(&world), (1, 0));
    assert!(world.logs.iter().any(|line| line.contains("\"NEW1\"")), "{:?}", world.logs);
    // Others come and go without end: it is one alarm, and not over for a moment without any.
    for number in 0..20 {
        world.put(waits(&format!("X{number}")));
        world.pass(16_000);
        world.put(Input::Pending { chargers: Vec::new() });
        world.pass(16_000);
    }
    assert_eq!(alarms(&world), (1, 0));
    world.pass(601_000);
    assert_eq!(alarms(&world), (1, 1));
    assert!(world.site.status(world.now).pending.is_empty());
}
