//! What goes into the site's state machine and what comes out of it.

use crate::engine::model::command::{Command, CommandOutcome};
use crate::engine::model::commission::CommissionReport;
use crate::engine::model::errand::{Errand, ErrandId};
use crate::engine::model::exchange::OcppVersion;
use crate::engine::model::ids::{ConnectionId, RequestId, Sequence};
use crate::engine::model::reading::{DeviceFault, InverterReading, MeterReading};
use crate::engine::model::record::Record;
use crate::engine::model::status::PendingCharger;
use crate::engine::model::topology::{CircuitIndex, InverterIndex, MeterIndex, StationIndex};
use crate::engine::time::Mono;

/// How the answer begins that a call gets which the guard has kept back: it never left.
pub const WITHHELD: &str = "withheld by the guard";

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// 200 ms have passed. Only a tick changes limits.
    Tick,
    /// A station's WebSocket was opened. It takes the place of an older one of the same station.
    StationConnected {
        /// Which station.
        station: StationIndex,
        /// The new connection.
        connection: ConnectionId,
        /// The OCPP version negotiated.
        version: OcppVersion,
    },
    /// A station sent a text frame.
    StationFrame {
        /// Which station.
        station: StationIndex,
        /// On which connection.
        connection: ConnectionId,
        /// The frame's text.
        text: String,
    },
    /// A station's WebSocket is gone.
    StationDisconnected {
        /// Which station.
        station: StationIndex,
        /// Which connection.
        connection: ConnectionId,
        /// Why, as far as known.
        reason: String,
    },
    /// A poll of a meter ended.
    Meter {
        /// Which meter.
        meter: MeterIndex,
        /// When the request went out: the reading is at least this new.
        asked_at: Mono,
        /// What it said.
        result: Result<MeterReading, DeviceFault>,
    },
    /// A poll of an inverter ended.
    Inverter {
        /// Which inverter.
        inverter: InverterIndex,
        /// When the request went out.
        asked_at: Mono,
        /// What it said.
        result: Result<InverterReading, DeviceFault>,
    },
    /// A poll of the dimming's input ended.
    Dimming {
        /// When the request went out.
        asked_at: Mono,
        /// Whether it says that the site is dimmed.
        result: Result<bool, DeviceFault>,
    },
    /// The journal has something to say.
    Journal(JournalInput),
    /// The cloud's broker has something to say.
    Cloud(CloudInput),
    /// The telemetry ring has something to say.
    Telemetry(TelemetryInput),
    /// The guard does not agree with what the site does on a circuit, or does again.
    GuardDisagrees {
        /// Which circuit.
        circuit: CircuitIndex,
        /// What is the case; `None`: it is over.
        message: Option<String>,
    },
    /// A person or a script on site asks for something. It is answered by [`Output::Reply`].
    Request {
        /// The question's number.
        request: RequestId,
        /// What is asked.
        command: Command,
    },
    /// The answer to [`Output::Errand`].
    ErrandAnswered {
        /// Which errand.
        id: ErrandId,
        /// How it ended.
        outcome: CommandOutcome,
    },
    /// Other stations than before are connected without being configured.
    Pending {
        /// All of them.
        chargers: Vec<PendingCharger>,
    },
    /// Something was decided about the configuration while this one is in force.
    ConfigurationChanged {
        /// What, for the event.
        cause: String,
    },
}

/// What the journal says.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalInput {
    /// All records up to this one would survive a power cut.
    Durable {
        /// The last of them.
        through: Sequence,
    },
    /// Records could not be written; they are kept and tried again.
    Failed {
        /// Why.
        error: String,
    },
    /// Writing works again.
    Recovered,
    /// The answer to [`Output::ReadRecords`].
    Records {
        /// The records in order. Empty: there are none from the one asked for.
        records: Vec<Record>,
    },
}

/// What the cloud's broker says.
#[derive(Clone, Debug, PartialEq)]
pub enum CloudInput {
    /// A connection was made, and the command topic is subscribed.
    Connected,
    /// The connection is gone.
    Disconnected {
        /// Why.
        error: String,
    },
    /// The broker has taken over events (PUBACK with success).
    Acknowledged {
        /// Which records, in the order of its answers. Those that came together are told together: a backlog leaves in thousands a second.
        sequences: Vec<Sequence>,
    },
    /// The broker refused an event, or said that nobody is subscribed.
    NotTaken {
        /// Which record.
        sequence: Sequence,
        /// Why.
        reason: String,
    },
    /// The broker has taken over an interval of the telemetry.
    IntervalTaken {
        /// Its number.
        interval: u64,
    },
    /// The broker refused an interval.
    IntervalNotTaken {
        /// Its number.
        interval: u64,
        /// Why.
        reason: String,
    },
    /// A message on the command topic.
    Message {
        /// Its payload.
        payload: Vec<u8>,
        /// The MQTT 5 response topic, if the sender named one.
        response_topic: Option<String>,
        /// The MQTT 5 correlation data, if the sender named any.
        correlation: Option<Vec<u8>>,
    },
}

/// What the telemetry ring says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TelemetryInput {
    /// What it keeps: at the start, and whenever that has changed.
    Kept {
        /// Its random name: with the number it names an interval for ever.
        ring: String,
        /// Everything up to here is not there any more, or was delivered.
        dropped: u64,
        /// The last one that it has.
        newest: u64,
    },
    /// The answer to [`Output::ReadTelemetry`].
    Intervals {
        /// The intervals with their numbers, in order. Empty: there are none from the one asked for on.
        intervals: Vec<(u64, String)>,
    },
}

/// Something to be done by the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a text frame to a station.
    Frame {
        /// Which station.
        station: StationIndex,
        /// On which connection; if it is gone, so is the frame.
        connection: ConnectionId,
        /// The frame's text.
        text: String,
    },
    /// Close a station's WebSocket.
    Close {
        /// Which station.
        station: StationIndex,
        /// Which connection.
        connection: ConnectionId,
        /// Why, for the close frame and the log.
        reason: String,
    },
    /// Turn a station away when it connects, for so long from now: its lease is being tested. Ends by itself, also with the process.
    TurnAway {
        /// Which station.
        station: StationIndex,
        /// For how long, in ms; 0: not any more.
        for_ms: u64,
    },
    /// Append a record to the journal and say when it is durable.
    Append(Record),
    /// Store the folded state, so that a start need not fold from the first record.
    Snapshot {
        /// The last record that is folded in.
        through: Sequence,
        /// The state.
        state: Vec<u8>,
    },
    /// Read durable records for sending.
    ReadRecords {
        /// The first one wanted.
        from: Sequence,
        /// How many at most.
        limit: usize,
    },
    /// The cloud has everything up to this record: remember it, and delete what is no longer needed.
    Acknowledged {
        /// The last record the cloud has.
        through: Sequence,
    },
    /// Put intervals into the telemetry ring, which numbers them; it says so by [`TelemetryInput::Kept`].
    Telemetry {
        /// Each as JSON.
        intervals: Vec<String>,
    },
    /// Read intervals from the telemetry ring for sending.
    ReadTelemetry {
        /// The first one wanted, or the first one there is behind it.
        from: u64,
        /// How many at most.
        limit: usize,
    },
    /// The cloud has every interval up to this one: it need not be kept.
    TelemetryAcknowledged {
        /// The last one.
        through: u64,
    },
    /// Publish to the cloud's broker.
    Publish(Publication),
    /// The answer to [`Input::Request`].
    Reply {
        /// Which question.
        request: RequestId,
        /// How it ended.
        outcome: CommandOutcome,
    },
    /// Do what only the shell can do for a command. It is answered by [`Input::ErrandAnswered`].
    Errand {
        /// Names it.
        id: ErrandId,
        /// What is wanted.
        errand: Errand,
    },
    /// A commissioning test is over: sign its report and keep it.
    Commissioned(Box<CommissionReport>),
    /// Something a person reading the log should know. Edges, not levels.
    Log {
        /// How important it is.
        level: LogLevel,
        /// The sentence.
        message: String,
    },
}

/// How important a line of the log is. Error means that a promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For those who look for a fault in the protocol.
    Debug,
    /// Normal events.
    Info,
    /// Somebody should look at it.
    Warn,
    /// A promise was broken.
    Error,
}

/// What a message carries of which the site has to know whether the broker has taken it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// A record of the journal.
    Event(Sequence),
    /// An interval of the telemetry, by its number.
    Interval(u64),
    /// Nothing: what is lost of it is made good otherwise.
    Nothing,
}

impl Carries {
    /// What the site is told when the broker has not taken it.
    #[must_use]
    pub fn not_taken(self, reason: String) -> Option<CloudInput> {
        match self {
            Self::Event(sequence) => Some(CloudInput::NotTaken { sequence, reason }),
            Self::Interval(interval) => Some(CloudInput::IntervalNotTaken { interval, reason }),
            Self::Nothing => None,
        }
    }
}

/// A message to the cloud's broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: String,
    /// The content type (MQTT 5).
    pub content_type: &'static str,
    /// At least once (QoS 1) instead of at most once (QoS 0).
    pub at_least_once: bool,
    /// Kept by the broker for those who subscribe later.
    pub retain: bool,
    /// What the site wants to hear of when the broker has answered.
    pub carries: Carries,
    /// The MQTT 5 correlation data of the request that it answers.
    pub correlation: Option<Vec<u8>>,
}
