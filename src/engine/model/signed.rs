//! Meter values that the meter itself has signed, kept byte for byte.

use serde::{Deserialize, Serialize};

use super::ids::{StationId, TransactionId};
use crate::engine::time::Utc;

/// The longest signed value that is kept, in bytes. Records of the Open Charge Metering Format have some hundred, with the readings of a whole
/// transaction some thousand.
pub const MAX_SIGNED_BYTES: usize = 16 * 1024;

/// A signed value as its station sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedValue {
    /// The signed text, byte for byte as it came: plain, or in base64 or hexadecimal digits.
    pub data: String,
    /// `Transaction.Begin`, `Sample.Periodic` … in the station's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// `encodingMethod` (2.x).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// `signingMethod` (2.x).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The public key that the station sent with it (2.x).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Where a signed value stands among those of its meter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "SignedPage"))]
pub struct Page {
    /// The serial number of the meter, or of what signs for it.
    pub meter: String,
    /// `T`: values of transactions; `F`: values for their own sake. Each is counted by itself.
    pub class: char,
    /// Counts from one to the next without a gap.
    pub number: u64,
}

/// Whether a signature is that of the meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "SignatureCheck"))]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// It is: verified with the key in the configuration.
    Verified,
    /// It fits the key that the station itself has sent. That proves that nothing was changed after the station, and not whose meter it is.
    VerifiedByStationKey,
    /// It is not.
    Failed,
    /// It cannot be told here.
    NotVerifiable,
}

/// What is wrong with the page of a signed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PageFault {
    /// These pages should have come before, the first and the last of them.
    #[cfg_attr(test, schemars(with = "[u64; 2]"))]
    Missing(u64, u64),
    /// The page has come before with another value.
    Repeated,
}

/// A signed value with what was found out about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedNote {
    /// The station.
    pub charger: StationId,
    /// The EVSE; 0 where it is not known.
    pub evse: u32,
    /// The transaction, if it belongs to one.
    pub transaction: Option<TransactionId>,
    /// When it was measured, by the station's clock.
    pub at: Option<Utc>,
    /// The value.
    pub value: SignedValue,
    /// Its page, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Page>,
    /// What is wrong with its page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_fault: Option<PageFault>,
    /// Whether its signature is that of the meter.
    pub check: Check,
    /// Why it failed or cannot be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
