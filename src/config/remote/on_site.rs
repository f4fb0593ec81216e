//! What a configuration that was sent must not change.

use crate::config::schema::{Config, DeviceTarget};
use crate::engine::modbus::connection::Connection;
use crate::engine::modbus::map::DeviceMap;
use crate::engine::model::ids::StationId;
use crate::engine::model::setup::ChargingSetup;
use crate::engine::model::topology::{Circuit, CircuitIndex, Inverter, InverterIndex, MeterIndex, Station, Topology};
use crate::engine::units::{Current, PerPhase, Phase, Power};

/// What a configuration that was sent changes although only somebody on site may: names on which the site is found, and anything that lets
/// more current flow through a circuit than `site.toml` says.
#[must_use]
pub fn only_on_site(site: &Config, sent: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must_stay = |what: &str, same: bool| {
        if !same {
            wrong.push(format!("{what} can only be changed on site"));
        }
    };
    must_stay("`id` in [site]", site.topology.site() == sent.topology.site());
    must_stay("`voltage_v` in [site]", site.topology.voltage() == sent.topology.voltage());
    must_stay("`path` in [store]", site.store.path == sent.store.path);
    must_stay("`listen` in [api]", site.api.listen == sent.api.listen);
    must_stay("`allow_unsafe_fallback` in [site]", site.site.allow_unsafe_fallback || !sent.site.allow_unsafe_fallback);
    must_stay("`remote_configuration` in [cloud]", is_remote(site) || !is_remote(sent));
    charging_loosens(&site.charging, &sent.charging, &mut must_stay);
    outside_loosens(site, sent, &mut must_stay);
    wrong.extend(devices_change(site, sent));
    for (index, circuit) in site.topology.circuits().iter().enumerate() {
        wrong.extend(circuit_grows((&site.topology, CircuitIndex(index), circuit), &sent.topology));
    }
    for station in site.topology.stations() {
        wrong.extend(station_moves((&site.topology, station), &sent.topology));
    }
    wrong
}

fn charging_loosens(site: &ChargingSetup, sent: &ChargingSetup, must_stay: &mut impl FnMut(&str, bool)) {
    must_stay("`count_feed_in` in [charging]", site.count_feed_in || !sent.count_feed_in);
    must_stay("`learn_car_phases` in [charging]", site.learn_car_phases || !sent.learn_car_phases);
    let later = |site: u64| sent.meter_lost_after_ms.is_none_or(|sent| sent > site);
    must_stay("`meter_lost_after_s` in [charging]", !site.meter_lost_after_ms.is_some_and(later));
}

fn outside_loosens(site: &Config, sent: &Config, must_stay: &mut impl FnMut(&str, bool)) {
    let (outside, other) = (&site.outside, &sent.outside);
    let same_dimming = outside.dimming == other.dimming && site.dimming_device == sent.dimming_device;
    must_stay("[dimming]", outside.dimming.is_none() || same_dimming);
    for schedule in &outside.schedules {
        must_stay(&format!("schedule {}", schedule.name), other.schedules.contains(schedule));
    }
    for (circuit, floor) in &other.floors {
        let higher = outside.floors.get(circuit).is_none_or(|old| floor > old);
        must_stay(&format!("circuit {circuit}: `floor_a`"), !higher);
    }
    must_stay("`random_start_max_s` in [site]", other.random_start_max_ms >= outside.random_start_max_ms);
    must_stay("`boost_ends_random_start` in [site]", outside.boost_ends_random_start || !other.boost_ends_random_start);
}

/// Where a meter or an inverter is read, and how.
fn device(config: &Config, target: DeviceTarget) -> Option<(&Connection, u8, &DeviceMap)> {
    let device = config.devices.iter().find(|device| device.target == target)?;
    Some((&device.connection, device.unit_id, &device.map))
}

/// Meters and inverters say how much a circuit has left: read elsewhere, or read otherwise, they may say more.
fn devices_change(site: &Config, sent: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, meter) in site.topology.meters().iter().enumerate() {
        let Some(at) = sent.topology.meters().iter().position(|other| other.id == meter.id) else {
            // Its circuit misses it.
            continue;
        };
        let read = |config, index| device(config, DeviceTarget::Meter(MeterIndex(index)));
        if read(site, index) != read(sent, at) {
            wrong
                .push(format!("meter {}: `connection`, `unit_id` and `profile` can only be changed on site", meter.id));
        }
        if sent.topology.meters().get(at).is_some_and(|other| other.stale_after_ms > meter.stale_after_ms) {
            wrong.push(format!("meter {}: `stale_after_ms` can only be raised on site", meter.id));
        }
    }
    let circuit = |topology: &Topology, inverter: &Inverter| topology.circuit(inverter.circuit).id.clone();
    for (index, inverter) in site.topology.inverters().iter().enumerate() {
        let Some(at) = sent.topology.inverters().iter().position(|other| other.id == inverter.id) else {
            wrong.push(format!("inverter {} can only be removed on site", inverter.id));
            continue;
        };
        let read = |config, index| device(config, DeviceTarget::Inverter(InverterIndex(index)));
        let same = sent.topology.inverters().get(at).is_some_and(|other| {
            let same_place = circuit(&site.topology, inverter) == circuit(&sent.topology, other);
            let same_kind = inverter.role == other.role && inverter.max == other.max;
            same_place && same_kind && other.stale_after_ms <= inverter.stale_after_ms
        });
        if !same || read(site, index) != read(sent, at) {
            wrong.push(format!("inverter {} can only be changed on site", inverter.id));
        }
    }
    let is_new = |inverter: &&Inverter| !site.topology.inverters().iter().any(|known| known.id == inverter.id);
    let added = sent.topology.inverters().iter().filter(is_new).filter(|_| sent.charging.count_feed_in);
    wrong.extend(added.map(|inverter| {
        format!("inverter {} can only be added on site: `count_feed_in` gives out what it feeds in", inverter.id)
    }));
    wrong
}

fn is_remote(config: &Config) -> bool {
    config.cloud.as_ref().is_some_and(|cloud| cloud.remote_configuration)
}

fn circuit_grows((site, index, circuit): (&Topology, CircuitIndex, &Circuit), sent: &Topology) -> Vec<String> {
    let at = |key: &str| format!("circuit {}: `{key}` can only be {{}} on site", circuit.id);
    let Some(other) = sent.circuits().iter().find(|other| other.id == circuit.id) else {
        return vec![format!("circuit {} can only be removed on site", circuit.id)];
    };
    let mut wrong = Vec::new();
    let mut grows = |key: &str, more: bool, verb: &str| {
        if more {
            wrong.push(at(key).replace("{}", verb));
        }
    };
    let exceeds =
        |new: PerPhase<Current>, old: PerPhase<Current>| Phase::ALL.iter().any(|phase| new.of(*phase) > old.of(*phase));
    grows("limit_a", exceeds(other.limit, circuit.limit), "raised");
    let bound = |old: Option<i64>, new: Option<i64>| old.is_some_and(|old| new.is_none_or(|new| new > old));
    let power = |circuit: &Circuit| circuit.max_power.map(Power::w);
    let unbalance = |circuit: &Circuit| circuit.max_unbalance.map(|most| i64::from(most.ma()));
    grows("limit_w", bound(power(circuit), power(other)), "raised");
    grows("max_unbalance_a", bound(unbalance(circuit), unbalance(other)), "raised");
    let short = match (circuit.short_time, other.short_time) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => new.limit > old.limit || new.lasts_ms > old.lasts_ms,
    };
    grows("short_time_a", short, "raised");
    let assumed = match (circuit.unmeasured_load, other.unmeasured_load) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(old), Some(new)) => exceeds(old, new),
    };
    grows("unmeasured_load_a", assumed, "lowered");
    let meter = |topology: &Topology, circuit: &Circuit| {
        circuit.meter.and_then(|meter| topology.meters().get(meter.0)).map(|meter| meter.id.clone())
    };
    grows("meter", meter(site, circuit) != meter(sent, other), "changed");
    // Circuits may be added, also between two: then the old one above must still be above.
    let above = |topology: &Topology, of: CircuitIndex| {
        topology.path_to_grid(of).map(|above| topology.circuit(above).id.clone()).collect::<Vec<_>>()
    };
    let sent_index = sent.circuits().iter().position(|one| one.id == circuit.id).map_or(index, CircuitIndex);
    let sent_above = above(sent, sent_index);
    grows("parent", above(site, index).iter().any(|id| !sent_above.contains(id)), "changed");
    wrong
}

fn station_moves((site, station): (&Topology, &Station), sent: &Topology) -> Vec<String> {
    let id: &StationId = &station.id;
    // A charger that is taken out gets no limits any more, but goes on standing there: only its fallback bounds it then.
    let Some(other) = sent.find_station(id).map(|index| sent.station(index)) else {
        return vec![format!("charger {id} can only be removed on site")];
    };
    let mut wrong = Vec::new();
    let circuit = |topology: &Topology, station: &Station| topology.circuit(station.circuit).id.clone();
    let mut must_stay = |key: &str, same: bool| {
        if !same {
            wrong.push(format!("charger {id}: `{key}` can only be changed on site"));
        }
    };
    must_stay("circuit", circuit(site, station) == circuit(sent, other));
    must_stay("phases", station.wiring == other.wiring);
    must_stay("connectors", station.evse_count == other.evse_count);
    must_stay("model", station.model == other.model);
    must_stay("max_a", other.max <= station.max);
    must_stay("fallback_a", other.fallback == station.fallback);
    let losses = |station: &Station| station.dc.map(|dc| (dc.efficiency_permille, dc.power_factor_permille));
    must_stay("efficiency", losses(station) == losses(other));
    wrong
}
