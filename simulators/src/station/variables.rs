//! The station's configuration keys (OCPP 1.6) or device model variables (OCPP 2.0.1, written `Component.Variable`).

use std::collections::BTreeMap;

use siteward::engine::model::exchange::OcppVersion;

use super::StationOptions;
use super::authorization::OwnTokens;

const MEASURANDS: &str = "Energy.Active.Import.Register,Current.Import,Power.Active.Import,SoC";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) value: String,
    pub(super) read_only: bool,
}

/// All of them. Kept over a reboot.
#[derive(Clone, Debug)]
pub(super) struct Variables {
    all: BTreeMap<&'static str, Variable>,
    interval_key: &'static str,
    attempts_key: &'static str,
    wait_key: &'static str,
    measurands_key: &'static str,
    meter_interval_s: u64,
    /// Those of them that are wanted in meter values: asked several times for each.
    measurands: Vec<String>,
}

/// What came of setting one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Accepted,
    Rejected,
    Unknown,
}

impl Variables {
    pub(super) fn new(options: &StationOptions) -> Self {
        let mut list = match options.version {
            OcppVersion::V16 => list_16(options),
            OcppVersion::V201 | OcppVersion::V21 => list_201(options),
        };
        if let Some(own) = options.own_tokens {
            list.extend(list_of_tokens(options.version, own));
        }
        let all = list.into_iter().map(|(key, value, read_only)| (key, Variable { value, read_only })).collect();
        let [interval_key, attempts_key, wait_key, measurands_key] = match options.version {
            OcppVersion::V16 => [
                "MeterValueSampleInterval",
                "TransactionMessageAttempts",
                "TransactionMessageRetryInterval",
                "MeterValuesSampledData",
            ],
            OcppVersion::V201 | OcppVersion::V21 => [
                "SampledDataCtrlr.TxUpdatedInterval",
                "OCPPCommCtrlr.MessageAttempts",
                "OCPPCommCtrlr.MessageAttemptInterval",
                "SampledDataCtrlr.TxUpdatedMeasurands",
            ],
        };
        let meter_interval_s = options.meter_interval_s;
        let measurands = Vec::new();
        let mut variables =
            Self { all, interval_key, attempts_key, wait_key, measurands_key, meter_interval_s, measurands };
        variables.list_measurands();
        variables
    }

    fn list_measurands(&mut self) {
        let list = self.get(self.measurands_key).map_or("", |list| list.value.as_str());
        self.measurands = list.split(',').map(|one| one.trim().to_owned()).collect();
    }

    pub(super) fn get(&self, key: &str) -> Option<&Variable> {
        self.all.get(key)
    }

    pub(super) const fn all(&self) -> &BTreeMap<&'static str, Variable> {
        &self.all
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Change {
        let numeric = key == self.interval_key || key == self.attempts_key || key == self.wait_key;
        let Some(variable) = self.all.get_mut(key) else { return Change::Unknown };
        if variable.read_only || (numeric && value.parse::<u32>().is_err()) {
            return Change::Rejected;
        }
        value.clone_into(&mut variable.value);
        self.meter_interval_s = self.number(self.interval_key).unwrap_or(self.meter_interval_s);
        self.list_measurands();
        Change::Accepted
    }

    /// How often meter values are sent during a transaction, in s; 0: never.
    pub(super) const fn meter_interval_s(&self) -> u64 {
        self.meter_interval_s
    }

    /// How often a transaction message is tried, and the wait in s.
    pub(super) fn message_retries(&self) -> (u32, u64) {
        let attempts = self.number(self.attempts_key).and_then(|number| u32::try_from(number).ok()).unwrap_or(3);
        (attempts, self.number(self.wait_key).unwrap_or(60))
    }

    /// Whether a measurand is wanted in meter values.
    pub(super) fn wants(&self, measurand: &str) -> bool {
        self.measurands.iter().any(|one| one == measurand)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(|variable| variable.value.parse().ok())
    }
}

type Entry = (&'static str, String, bool);

/// What a station with a local list says of it. It is off until somebody turns it on.
fn list_of_tokens(version: OcppVersion, own: OwnTokens) -> Vec<Entry> {
    let (off, room, per_message) = ("false".to_owned(), own.room.to_string(), own.per_message.to_string());
    match version {
        OcppVersion::V16 => vec![
            ("LocalAuthListEnabled", off, false),
            ("LocalAuthListMaxLength", room, true),
            ("SendLocalListMaxLength", per_message, true),
            ("SupportedFeatureProfiles", "Core,SmartCharging,RemoteTrigger,LocalAuthListManagement".to_owned(), true),
        ],
        OcppVersion::V201 | OcppVersion::V21 => vec![
            ("LocalAuthListCtrlr.Available", "true".to_owned(), true),
            ("LocalAuthListCtrlr.BytesPerMessage", (own.per_message * 400).to_string(), true),
            ("LocalAuthListCtrlr.Enabled", off, false),
            ("LocalAuthListCtrlr.Entries", "0".to_owned(), true),
            ("LocalAuthListCtrlr.ItemsPerMessage", per_message, true),
        ],
    }
}

fn list_16(options: &StationOptions) -> Vec<Entry> {
    let text = str::to_owned;
    vec![
        ("AllowOfflineTxForUnknownId", options.offline_start.to_string(), false),
        ("AuthorizeRemoteTxRequests", text("false"), true),
        ("ChargeProfileMaxStackLevel", text("8"), true),
        ("ChargingScheduleAllowedChargingRateUnit", text("Current,Power"), true),
        ("ChargingScheduleMaxPeriods", text("24"), true),
        ("ClockAlignedDataInterval", text("0"), false),
        ("ConnectionTimeOut", text("60"), false),
        ("ConnectorPhaseRotation", text("NotApplicable"), false),
        ("GetConfigurationMaxKeys", text("50"), true),
        ("HeartbeatInterval", text("300"), false),
        ("LocalAuthorizeOffline", text("true"), false),
        ("LocalPreAuthorize", text("false"), false),
        ("MaxChargingProfilesInstalled", text("10"), true),
        ("MeterValueSampleInterval", options.meter_interval_s.to_string(), false),
        ("MeterValuesAlignedData", text(""), false),
        ("MeterValuesSampledData", text(MEASURANDS), false),
        ("NumberOfConnectors", options.evses.to_string(), true),
        ("ResetRetries", text("1"), false),
        ("StopTransactionOnEVSideDisconnect", text("true"), true),
        ("StopTransactionOnInvalidId", text("true"), true),
        ("StopTxnAlignedData", text(""), false),
        ("StopTxnSampledData", text(""), false),
        ("SupportedFeatureProfiles", text("Core,SmartCharging,RemoteTrigger"), true),
        ("TransactionMessageAttempts", options.message_attempts.to_string(), false),
        ("TransactionMessageRetryInterval", options.message_interval_s.to_string(), false),
        ("UnlockConnectorOnEVSideDisconnect", text("true"), false),
        ("WebSocketPingInterval", text("60"), false),
    ]
}

fn list_201(options: &StationOptions) -> Vec<Entry> {
    let text = str::to_owned;
    vec![
        ("AuthCtrlr.LocalAuthorizeOffline", text("true"), false),
        ("AuthCtrlr.MasterPassGroupId", text(""), false),
        ("AuthCtrlr.LocalPreAuthorize", text("false"), false),
        ("AuthCtrlr.OfflineTxForUnknownIdEnabled", options.offline_start.to_string(), false),
        ("OCPPCommCtrlr.HeartbeatInterval", text("300"), false),
        ("OCPPCommCtrlr.MessageAttemptInterval", options.message_interval_s.to_string(), false),
        ("OCPPCommCtrlr.MessageAttempts", options.message_attempts.to_string(), false),
        ("OCPPCommCtrlr.WebSocketPingInterval", text("60"), false),
        ("SampledDataCtrlr.TxEndedInterval", text("0"), false),
        ("SampledDataCtrlr.TxEndedMeasurands", text("Energy.Active.Import.Register"), false),
        ("SampledDataCtrlr.TxStartedMeasurands", text("Energy.Active.Import.Register"), false),
        ("SampledDataCtrlr.TxUpdatedInterval", options.meter_interval_s.to_string(), false),
        ("SampledDataCtrlr.TxUpdatedMeasurands", text(MEASURANDS), false),
        ("SmartChargingCtrlr.Enabled", text("true"), true),
        ("SmartChargingCtrlr.Entries", text("10"), true),
        ("SmartChargingCtrlr.LimitChangeSignificance", text("1"), false),
        ("SmartChargingCtrlr.PeriodsPerSchedule", text("24"), true),
        ("SmartChargingCtrlr.ProfileStackLevel", text("8"), true),
        ("SmartChargingCtrlr.RateUnit", text("A,W"), true),
        ("TxCtrlr.EVConnectionTimeOut", text("60"), false),
        ("TxCtrlr.StopTxOnEVSideDisconnect", text("true"), true),
        ("TxCtrlr.StopTxOnInvalidId", text("true"), true),
        ("TxCtrlr.TxStartPoint", text("PowerPathClosed"), true),
        ("TxCtrlr.TxStopPoint", text("PowerPathClosed"), true),
    ]
}
