//! The simulated meters and inverters as devices on a Modbus bus.

use std::sync::{Arc, Mutex};

use crate::meter::{Answer as Reply, Meter};
use crate::net::cloud::lock;
use crate::net::modbus::{Answer, Bus, Table};
use crate::pv::Pv;

/// A meter at a unit id.
#[derive(Clone, Debug)]
pub struct MeterBus {
    /// The unit id that it answers to.
    pub unit: u8,
    /// The meter.
    pub meter: Arc<Mutex<Meter>>,
}

impl Bus for MeterBus {
    fn read(&self, unit: u8, table: Table, (address, count): (u16, u16)) -> Option<Answer> {
        (unit == self.unit).then(|| lock(&self.meter).read(function(table), address, count)).and_then(answer)
    }
}

/// An inverter at a unit id.
#[derive(Clone, Debug)]
pub struct PvBus {
    /// The unit id that it answers to.
    pub unit: u8,
    /// The inverter.
    pub pv: Arc<Mutex<Pv>>,
}

impl Bus for PvBus {
    fn read(&self, unit: u8, table: Table, (address, count): (u16, u16)) -> Option<Answer> {
        (unit == self.unit).then(|| lock(&self.pv).read(function(table), address, count)).and_then(answer)
    }
}

const fn function(table: Table) -> u8 {
    match table {
        Table::Holding => 3,
        Table::Input => 4,
    }
}

fn answer(reply: Reply) -> Option<Answer> {
    match reply {
        Reply::Words(words) => Some(Ok(words)),
        Reply::Exception(code) => Some(Err(code)),
        Reply::Silent => None,
    }
}
