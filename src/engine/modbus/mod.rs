//! Modbus devices without Modbus I/O: device maps, what to read, and what the words mean.
//!
//! A [`map::DeviceMap`] is data (TOML). A [`poll::Poll`] turns it into requests and the answers into one reading or one fault. The shell
//! carries requests and answers, and knows nothing of registers.

pub mod builtin;
pub mod connection;
pub mod example;
pub mod map;
mod plan;
pub mod poll;
mod sunspec;
pub mod switch;
pub mod value;

use serde::Deserialize;

use crate::engine::model::reading::{DeviceFault, InverterReading, MeterReading};

/// The most registers that one request may ask for (MODBUS Application Protocol V1.1b3 §6.3, §6.4).
pub const MAX_REGISTERS: u16 = 125;

/// What a device is to the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// It measures a circuit.
    Meter,
    /// It feeds a circuit.
    Inverter,
}

impl std::fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Meter => "meter",
            Self::Inverter => "inverter",
        })
    }
}

/// Which table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// Function code 4, Read Input Registers.
    Input,
    /// Function code 3, Read Holding Registers.
    Holding,
    /// Function code 1, Read Coils: each bit is a word, 0 or 1. Not for device maps.
    #[serde(skip)]
    Coil,
    /// Function code 2, Read Discrete Inputs, likewise.
    #[serde(skip)]
    Discrete,
}

/// One read request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// From which table.
    pub function: Function,
    /// The first register, counted from 0 as on the wire.
    pub address: u16,
    /// How many registers, 1 to [`MAX_REGISTERS`].
    pub count: u16,
}

/// How a request ended: the words asked for, exactly as many, or why there are none.
pub type Answer = Result<Vec<u16>, DeviceFault>;

/// What a complete poll yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Of a meter.
    Meter(MeterReading),
    /// Of an inverter.
    Inverter(InverterReading),
}

/// What an exception code stands for (MODBUS Application Protocol V1.1b3 §7).
#[must_use]
pub const fn exception_meaning(code: u8) -> &'static str {
    match code {
        1 => "illegal function",
        2 => "illegal data address",
        3 => "illegal data value",
        4 => "device failure",
        5 => "acknowledge",
        6 => "device busy",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target device failed to respond",
        _ => "unknown",
    }
}

/// The fault that an exception answer is.
#[must_use]
pub fn exception(code: u8) -> DeviceFault {
    DeviceFault::Exception { code, meaning: exception_meaning(code).to_owned() }
}
