//! Models of everything around a site controller: charging stations with cars, meters, a building, PV, and a cloud.
//!
//! The models are pure: time is an argument, randomness comes from seeded dice, and what they exchange is the real wire text
//! (OCPP-J frames, Modbus register words, event payloads). They are written without looking at the engine's translators,
//! so that they are a second opinion on the protocols. [`net`] puts them on real sockets, [`demo`] makes a whole site of them.

pub mod building;
pub mod car;
pub mod cloud;
pub mod demo;
pub mod faults;
pub mod fuzz;
pub mod meter;
pub mod net;
pub mod oracle;
pub mod pv;
pub mod rig;
pub mod rng;
pub mod station;
pub mod world;
