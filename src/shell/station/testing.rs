//! A small site for the tests of the shell.

use crate::engine::model::billing::BillingSetup;
use crate::engine::model::ids::{CircuitId, MeterId, SiteId, StationId};
use crate::engine::model::setup::{ChargingSetup, OutsideSetup, Setup};
use crate::engine::model::token::AuthorizationSetup;
use crate::engine::model::topology::{
    Circuit, CircuitIndex, Meter, MeterIndex, Secret, Station, StationModel, Topology, Wiring,
};
use crate::engine::units::{Current, PerPhase, Voltage};

/// Two stations: `CP001` without a password, `LOCKED` with a hexadecimal one.
pub(crate) fn topology() -> Topology {
    let circuit = Circuit {
        id: CircuitId::new("grid"),
        parent: None,
        limit: PerPhase::splat(Current::from_a(100)),
        meter: Some(MeterIndex(0)),
        unmeasured_load: None,
        max_unbalance: None,
        max_power: None,
        short_time: None,
    };
    let meter = Meter { id: MeterId::new("main"), stale_after_ms: 5_000 };
    let password = Secret::new(b"00112233445566778899aabbccddeeff".to_vec());
    let stations = vec![station("CP001", None), station("LOCKED", Some(password))];
    let site = SiteId::new("test");
    Topology::new(site, Voltage::from_mv(230_000), vec![circuit], stations, (vec![meter], vec![])).unwrap()
}

/// The whole setup around [`topology`].
pub(crate) fn setup() -> Setup {
    Setup {
        topology: topology(),
        version: "0.0.0".to_owned(),
        heartbeat_s: 300,
        tokens: Vec::new(),
        groups: std::collections::BTreeMap::new(),
        timezone: chrono_tz::Europe::Berlin,
        authorization: AuthorizationSetup::default(),
        cloud: None,
        outside: OutsideSetup::default(),
        tariffs: Vec::new(),
        billing: BillingSetup::default(),
        unsafe_fallback: None,
        charging: ChargingSetup::default(),
        seed: 1,
    }
}

fn station(id: &str, password: Option<Secret>) -> Station {
    Station {
        id: StationId::new(id),
        circuit: CircuitIndex(0),
        model: StationModel::default(),
        wiring: Wiring::STRAIGHT,
        max: Current::from_a(32),
        min: Current::from_a(6),
        fallback: Current::from_a(6),
        evse_count: 1,
        priority: 0,
        weight: 1,
        dc: None,
        password,
    }
}
