//! Charge detail records and tariffs as OCPI 2.2.1 writes them (modules CDRs and Tariffs): field by field what leaves.

use std::str::FromStr;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ids::{Sequence, StationId, TransactionId};
use crate::engine::time::Utc;

/// Digits after the point of an OCPI `number`.
pub const NUMBER_DIGITS: u32 = 4;
/// The longest `remark` of a CDR.
pub const MAX_REMARK: usize = 255;

/// An OCPI `number`: a decimal JSON number with at most four digits after the point, never a binary fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OcpiNumber(Decimal);

impl OcpiNumber {
    /// Rounds to four digits, half away from zero.
    #[must_use]
    pub fn rounded(exact: Decimal) -> Self {
        let rounded = exact.round_dp_with_strategy(NUMBER_DIGITS, RoundingStrategy::MidpointAwayFromZero).normalize();
        Self(if rounded.is_zero() { Decimal::ZERO } else { rounded })
    }

    /// Its value.
    #[must_use]
    pub const fn value(self) -> Decimal {
        self.0
    }
}

impl Serialize for OcpiNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = serde_json::Number::from_str(&self.0.to_string()).map_err(serde::ser::Error::custom)?;
        number.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OcpiNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        Decimal::from_str(&number.to_string()).map(Self::rounded).map_err(serde::de::Error::custom)
    }
}

/// `Price`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Without value added tax; where no tax is known, the price.
    pub excl_vat: OcpiNumber,
    /// With value added tax; left out where no tax is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incl_vat: Option<OcpiNumber>,
}

impl Price {
    /// The same amount to be paid back.
    #[must_use]
    pub fn negated(self) -> Self {
        Self {
            excl_vat: OcpiNumber::rounded(-self.excl_vat.value()),
            incl_vat: self.incl_vat.map(|price| OcpiNumber::rounded(-price.value())),
        }
    }
}

/// `CdrToken`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdrToken {
    /// ISO 3166-1 alpha-2.
    pub country_code: String,
    /// Who owns the token.
    pub party_id: String,
    /// The token as it was read.
    pub uid: String,
    /// `RFID`, or `AD_HOC_USER` where the station asked for none.
    #[serde(rename = "type")]
    pub kind: String,
    /// The contract behind it.
    pub contract_id: String,
}

/// `GeoLocation`: decimal degrees with 5 to 7 digits after the point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeoLocation {
    /// −90 to 90.
    pub latitude: String,
    /// −180 to 180.
    pub longitude: String,
}

/// `CdrLocation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdrLocation {
    /// The location's id.
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Street and number.
    pub address: String,
    /// The town.
    pub city: String,
    /// Its postal code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// State or province, where that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// ISO 3166-1 alpha-3.
    pub country: String,
    /// Where it is.
    pub coordinates: GeoLocation,
    /// `<charger>-<evse>`.
    pub evse_uid: String,
    /// The eMI3 id of the EVSE.
    pub evse_id: String,
    /// The connector's number.
    pub connector_id: String,
    /// `ConnectorType`, such as `IEC_62196_T2`.
    pub connector_standard: String,
    /// `SOCKET` or `CABLE`.
    pub connector_format: String,
    /// `AC_1_PHASE`, `AC_2_PHASE`, `AC_3_PHASE` or `DC`.
    pub connector_power_type: String,
}

/// `CdrDimension`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdrDimension {
    /// `ENERGY`, `TIME` or `PARKING_TIME`.
    #[serde(rename = "type")]
    pub kind: String,
    /// kWh or hours.
    pub volume: OcpiNumber,
}

/// `ChargingPeriod`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargingPeriod {
    /// When it begins; it ends where the next one begins.
    pub start_date_time: Utc,
    /// What was taken in it.
    pub dimensions: Vec<CdrDimension>,
    /// The tariff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tariff_id: Option<String>,
}

/// `PriceComponent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceComponent {
    /// `ENERGY`, `TIME`, `PARKING_TIME` or `FLAT`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For a unit, without tax.
    pub price: OcpiNumber,
    /// Value added tax in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vat: Option<OcpiNumber>,
    /// What is billed at least: 1 Wh or 1 s, which is never more than what was measured.
    pub step_size: u32,
}

/// `TariffRestrictions`, as far as Siteward has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TariffRestrictions {
    /// Local time of day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Local time of day; `00:00` is the end of the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// `MONDAY` to `SUNDAY`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub day_of_week: Vec<String>,
}

/// `TariffElement`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TariffElement {
    /// What it prices.
    pub price_components: Vec<PriceComponent>,
    /// When it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restrictions: Option<TariffRestrictions>,
}

/// `DisplayText`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisplayText {
    /// ISO 639-1.
    pub language: String,
    /// The text.
    pub text: String,
}

/// `Tariff`. Of several elements that price a dimension at a moment OCPI takes the **first**.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OcpiTariff {
    /// ISO 3166-1 alpha-2.
    pub country_code: String,
    /// Whose tariff it is.
    pub party_id: String,
    /// Its name.
    pub id: String,
    /// ISO 4217.
    pub currency: String,
    /// What the fields below cannot say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tariff_alt_text: Vec<DisplayText>,
    /// A session costs at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_price: Option<Price>,
    /// A session costs at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Price>,
    /// The prices.
    pub elements: Vec<TariffElement>,
    /// When it was sealed for the session.
    pub last_updated: Utc,
}

/// `SignedValue`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OcpiSignedValue {
    /// `Start`, `End` or `Intermediate`.
    pub nature: String,
    /// What was signed, readable.
    pub plain_data: String,
    /// The signed text as the meter made it, in base64.
    pub signed_data: String,
}

/// `SignedData`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedData {
    /// `OCMF`.
    pub encoding_method: String,
    /// The meter's public key in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The values.
    pub signed_values: Vec<OcpiSignedValue>,
}

/// `CDR`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cdr {
    /// ISO 3166-1 alpha-2, of the operator.
    pub country_code: String,
    /// The operator.
    pub party_id: String,
    /// Names it for ever: `<store id>-<sequence>`; a credit CDR has `-C` behind the id of the one that it takes back.
    pub id: String,
    /// When the transaction began.
    pub start_date_time: Utc,
    /// When it ended.
    pub end_date_time: Utc,
    /// The transaction's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Who charged.
    pub cdr_token: CdrToken,
    /// `WHITELIST`: the site itself knew the token.
    pub auth_method: String,
    /// Where.
    pub cdr_location: CdrLocation,
    /// ISO 4217.
    pub currency: String,
    /// The tariff in force.
    pub tariffs: Vec<OcpiTariff>,
    /// The transaction cut where a price changes.
    pub charging_periods: Vec<ChargingPeriod>,
    /// What the meter signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_data: Option<SignedData>,
    /// What is to be paid; negative in a credit CDR.
    pub total_cost: Price,
    /// The start fee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_fixed_cost: Option<Price>,
    /// kWh.
    pub total_energy: OcpiNumber,
    /// For the energy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_energy_cost: Option<Price>,
    /// Hours, charging or not.
    pub total_time: OcpiNumber,
    /// For the time charging.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_time_cost: Option<Price>,
    /// Hours in which the car took nothing of its own accord.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_parking_time: Option<OcpiNumber>,
    /// For those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_parking_cost: Option<Price>,
    /// What a person should know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// It takes another one back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<bool>,
    /// Which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_reference_id: Option<String>,
    /// When it was made.
    pub last_updated: Utc,
}

/// Who sends CDRs and from where: what is in each of them whoever charges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// ISO 3166-1 alpha-2.
    pub country_code: String,
    /// ISO 15118, three characters.
    pub party_id: String,
    /// The location without its EVSE: those fields are filled in.
    pub location: Place,
}

/// Where the site is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The location's id.
    pub id: String,
    /// For people.
    pub name: Option<String>,
    /// Street and number.
    pub address: String,
    /// The town.
    pub city: String,
    /// Its postal code.
    pub postal_code: Option<String>,
    /// State or province.
    pub state: Option<String>,
    /// ISO 3166-1 alpha-3.
    pub country: String,
    /// Where it is.
    pub coordinates: GeoLocation,
}

/// What a transaction's CDR says of its token and its place: as they were when its prices were set (OCPI 2.2.1, CDR object).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The operator's country.
    pub country_code: String,
    /// The operator.
    pub party_id: String,
    /// Who charges.
    pub token: CdrToken,
    /// Where.
    pub location: CdrLocation,
}

/// A CDR with what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CdrNote {
    /// The station.
    pub charger: StationId,
    /// The transaction.
    pub transaction: TransactionId,
    /// The record of its end.
    pub ended_by: Sequence,
    /// Of a credit CDR: another one follows with what is right.
    #[serde(default)]
    pub reissue: bool,
    /// The CDR.
    pub cdr: Cdr,
}
