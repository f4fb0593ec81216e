//! The CSMS side of OCPP-J without I/O: text frames in, [`StationRequest`](crate::engine::model::exchange::StationRequest)s out, and the
//! way back.
//!
//! [`Session`] is one WebSocket connection. It keeps the rules of the RPC layer (one open CALL to the station, time-outs, CALLERRORs); `v16`,
//! `v201` and `v21` translate payloads; `lenient` and `meter` read what real stations send; `profile` makes the
//! decaying lease, `composite` reads what a station says of it; `lists` has local lists.
//!
//! What comes in is read field by field from JSON and not through the wire structs of `rust_ocpp`: one unknown enumeration value or one
//! number in place of a string makes those refuse the whole message, and a transaction message must not be lost to a bad optional field.
//! What goes out is built from those structs wherever they can write what the schema asks for.

mod composite;
mod cost;
mod frame;
mod lenient;
mod lists;
mod meter;
mod outgoing;
mod pending;
mod profile;
mod session;
mod tree;
mod v16;
mod v201;
mod v21;

pub use composite::Composite;
pub use frame::{ErrorCode, MAX_FRAME_BYTES};
pub use lists::{list_keys, list_limits, list_settings, list_version, longest_token};
pub use pending::{PENDING_INTERVAL_S, PendingAnswer, answer_pending};
pub use profile::{LEASE_LEAD_MS, Lease, LeasePeriod, PROFILE_ID_ABOVE, PROFILE_ID_BASE, Purpose};
pub use session::{
    CALL_TIMEOUT_MS, CUT_WAIT_MS, CallKey, CallToken, MAX_FAULTS_IN_A_ROW, MAX_OPEN_CALLS, MAX_QUEUED_CALLS, Priority,
    Session, SessionEvent, SessionOutput,
};
