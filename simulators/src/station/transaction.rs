//! What a station knows of its transactions: the truth that the cloud's ledger is held against.

use std::collections::VecDeque;

use siteward::engine::model::exchange::ChargingState;
use siteward::engine::time::{Mono, Now, Utc};
use siteward::engine::units::Current;

use super::Station;
use super::link::Plain;

/// How many transaction messages a station keeps. The oldest meter values go first; starts and stops never do.
const MOST_QUEUED: usize = 500;

/// Why a transaction was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The plug was pulled.
    EvDisconnected,
    /// The CSMS wanted it.
    Remote,
    /// Somebody at the station wanted it.
    Local,
    /// The token was not accepted.
    DeAuthorized,
    /// A reset without haste.
    SoftReset,
    /// A reset at once.
    HardReset,
    /// The power was gone.
    PowerLoss,
}

/// A transaction, as the station knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionTruth {
    /// The EVSE.
    pub evse: u32,
    /// Who charges.
    pub token: String,
    /// Its id: for 1.6 given by the CSMS in the answer to the start, for 2.0.1 made by the station.
    pub id: Option<String>,
    /// When it began, by the station's clock.
    pub started: Utc,
    /// When it ended, by the station's clock.
    pub ended: Option<Utc>,
    /// The energy register at the start, in Wh.
    pub meter_start_wh: i64,
    /// The energy register at the end, in Wh.
    pub meter_stop_wh: Option<i64>,
    /// Whether the CSMS has answered its start.
    pub start_answered: bool,
    /// Whether the CSMS has answered its end.
    pub stop_answered: bool,
    /// Whether the station gave up telling of its start or end after too many tries.
    pub given_up: bool,
    /// The cost that the station showed last while it ran, as it was written.
    pub shown_cost: Option<String>,
    /// The cost that it was told in the end.
    pub final_cost: Option<String>,
    /// How often it was told a cost while it ran.
    pub costs_shown: u64,
    /// What its meter has signed, as it is sent.
    pub signed: Vec<String>,
}

/// What was measured at one moment, at the station's terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) at: Utc,
    pub(crate) current: [Option<Current>; 3],
    pub(crate) power_w: i64,
    pub(crate) energy_wh: i64,
    pub(crate) soc_percent: Option<i64>,
}

/// Which part of a transaction's life a message tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TxPart {
    Started { remote_start: Option<i64> },
    Metered,
    Changed,
    Ended(StopReason),
}

/// A message about a transaction that waits to be sent and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TxMessage {
    /// The place in the station's list of transactions.
    pub(crate) transaction: usize,
    pub(crate) part: TxPart,
    pub(crate) evse: u32,
    pub(crate) sample: Sample,
    pub(crate) offline: bool,
    pub(crate) seq_no: i64,
    pub(crate) state: ChargingState,
    /// What the meter has signed with it.
    pub(crate) signed: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) not_before: Mono,
}

/// The transaction messages of a station in the order in which things happened. Survives a reboot.
#[derive(Clone, Debug, Default)]
pub(crate) struct TxQueue {
    waiting: VecDeque<TxMessage>,
    /// The last ones that were answered, for stations that send them again.
    answered: VecDeque<TxMessage>,
}

impl TxQueue {
    pub(crate) fn push(&mut self, message: TxMessage) {
        if self.waiting.len() >= MOST_QUEUED {
            let oldest = self.waiting.iter().skip(1).position(|m| matches!(m.part, TxPart::Metered | TxPart::Changed));
            if let Some(index) = oldest {
                self.waiting.remove(index + 1);
            }
        }
        self.waiting.push_back(message);
    }

    pub(crate) fn front(&self) -> Option<&TxMessage> {
        self.waiting.front()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut TxMessage> {
        self.waiting.front_mut()
    }

    /// Takes the first away, and keeps a copy for a storm of repetitions.
    pub(crate) fn done(&mut self) -> Option<TxMessage> {
        let message = self.waiting.pop_front()?;
        self.answered.push_back(message.clone());
        if self.answered.len() > 20 {
            self.answered.pop_front();
        }
        Some(message)
    }

    /// Puts the message in front again.
    pub(crate) fn again(&mut self, message: TxMessage) {
        self.waiting.push_front(message);
    }

    /// Puts what was answered before what waits.
    pub(crate) fn repeat_answered(&mut self) {
        while let Some(message) = self.answered.pop_back() {
            self.waiting.push_front(message);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Station {
    pub(super) fn begin_if_allowed(&mut self, index: usize, now: Now) {
        let bay = &self.bays[index];
        let alone = !self.link.online && self.may_start_alone(bay.token.as_deref().unwrap_or_default(), now);
        let bay = &mut self.bays[index];
        if bay.authorized || alone {
            self.start(index, now);
        } else if self.link.online && !bay.asked {
            bay.asked = true;
            let token = bay.token.clone().unwrap_or_default();
            self.link.push(Plain::Authorize { evse: bay.number, token });
        }
    }
}
