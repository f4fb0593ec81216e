//! Device maps: which registers a kind of device has, as data in TOML. `docs/devices.md` describes every key.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::example::Example;
use super::value::{Value, ValueName, ValueType, WordOrder};
use super::{DeviceKind, Function, MAX_REGISTERS};

/// More values than this no reading has a use for.
const MAX_VALUES: usize = 64;

/// What speaks for a device: fixed registers, or the models it lists itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The map lists the registers.
    #[default]
    Registers,
    /// The device lists its SunSpec models; the map has no values.
    Sunspec,
}

/// A device map.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceMap {
    /// Who makes the device.
    pub manufacturer: String,
    /// The model or models that the map is for.
    pub model: String,
    /// What the device can be to the site: one or both.
    pub kinds: Vec<DeviceKind>,
    /// Whether the map lists registers or the device does.
    pub protocol: Protocol,
    /// The table that is read.
    pub function: Function,
    /// The order of the registers of one number.
    pub word_order: WordOrder,
    /// The most registers in one request, 4 to 125.
    pub max_block: u16,
    /// How many registers that nobody needs a request may read over.
    pub max_gap: u16,
    /// The silence before each request, in ms.
    pub pause_ms: u64,
    /// How long an answer may take, in ms.
    pub timeout_ms: u64,
    /// The wait after a connection was made, in ms.
    pub connect_delay_ms: u64,
    /// SunSpec: which of several meters or inverters behind one unit id, from 1.
    pub instance: u16,
    /// The meter counts what the site draws as negative.
    pub import_is_negative: bool,
    /// The values; none for SunSpec.
    pub values: Vec<Value>,
    /// Register dumps with the reading expected.
    pub examples: Vec<Example>,
}

/// Why a map was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct MapError {
    /// Where in the text, in bytes.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl MapError {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { span, message: message.into(), remedy: remedy.into() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindEntry {
    Meter,
    Inverter,
    Both,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ImportIs {
    #[default]
    Positive,
    Negative,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    manufacturer: String,
    model: String,
    kind: Spanned<KindEntry>,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default = "default_function")]
    function: Function,
    #[serde(default)]
    word_order: WordOrder,
    max_block: Option<Spanned<u64>>,
    max_gap: Option<Spanned<u64>>,
    pause_ms: Option<Spanned<u64>>,
    timeout_ms: Option<Spanned<u64>>,
    connect_delay_ms: Option<Spanned<u64>>,
    instance: Option<Spanned<u64>>,
    #[serde(default)]
    import_is: ImportIs,
    #[serde(default)]
    values: Vec<Spanned<ValueEntry>>,
    #[serde(default)]
    examples: Vec<Spanned<super::example::Entry>>,
}

const fn default_function() -> Function {
    Function::Holding
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueEntry {
    name: Spanned<ValueName>,
    address: Spanned<u64>,
    #[serde(rename = "type")]
    ty: ValueType,
    scale: Option<Spanned<f64>>,
    scale_address: Option<Spanned<u64>>,
    #[serde(default)]
    nan: Vec<Spanned<String>>,
    sign_from: Option<Spanned<ValueName>>,
    minimum: Option<Spanned<f64>>,
    maximum: Option<Spanned<f64>>,
}

impl DeviceMap {
    /// Reads and checks a map.
    ///
    /// # Errors
    /// The first fault, with its place in `text` and what would be right.
    pub fn parse(text: &str) -> Result<Self, MapError> {
        let file: File = toml::from_str(text).map_err(|error| from_toml(&error))?;
        let kinds = match file.kind.get_ref() {
            KindEntry::Meter => vec![DeviceKind::Meter],
            KindEntry::Inverter => vec![DeviceKind::Inverter],
            KindEntry::Both => vec![DeviceKind::Meter, DeviceKind::Inverter],
        };
        let import_is_negative = matches!(file.import_is, ImportIs::Negative);
        let max_block = within(file.max_block.as_ref(), "max_block", 4..=u64::from(MAX_REGISTERS), 80)?;
        let mut map = Self {
            manufacturer: file.manufacturer,
            model: file.model,
            kinds,
            protocol: file.protocol,
            function: file.function,
            word_order: file.word_order,
            max_block: register(max_block),
            max_gap: register(within(file.max_gap.as_ref(), "max_gap", 0..=124, 0)?),
            // A second of silence before each request is more than any device was seen to need; more would only be a typing error.
            pause_ms: within(file.pause_ms.as_ref(), "pause_ms", 0..=1_000, 0)?,
            // 15 s is the slowest device known; below 50 ms a serial line cannot carry an answer.
            timeout_ms: within(file.timeout_ms.as_ref(), "timeout_ms", 50..=15_000, 1_000)?,
            connect_delay_ms: within(file.connect_delay_ms.as_ref(), "connect_delay_ms", 0..=10_000, 0)?,
            instance: register(within(file.instance.as_ref(), "instance", 1..=100, 1)?),
            import_is_negative,
            values: Vec::new(),
            examples: Vec::new(),
        };
        // An inverter that counts the other way round needs a negative scale; the key speaks of meters.
        let negate = import_is_negative && map.serves(DeviceKind::Meter);
        for entry in &file.values {
            let value = lower_value(entry, &map.values, negate)?;
            map.values.push(value);
        }
        check_values(&map, &file.values, file.kind.span())?;
        for entry in file.examples {
            map.examples.push(super::example::lower(entry, &map)?);
        }
        Ok(map)
    }

    /// Whether the map can describe a device of that kind.
    #[must_use]
    pub fn serves(&self, kind: DeviceKind) -> bool {
        self.kinds.contains(&kind)
    }
}

fn within(
    entry: Option<&Spanned<u64>>,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
    default: u64,
) -> Result<u64, MapError> {
    let Some(entry) = entry else { return Ok(default) };
    if range.contains(entry.get_ref()) {
        return Ok(*entry.get_ref());
    }
    let remedy = format!("write a number from {} to {}", range.start(), range.end());
    Err(MapError::new(entry.span(), format!("{key} = {} is out of range", entry.get_ref()), remedy))
}

/// A number that was checked to fit.
fn register(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn lower_value(entry: &Spanned<ValueEntry>, before: &[Value], negate: bool) -> Result<Value, MapError> {
    let entry = entry.get_ref();
    let name = *entry.name.get_ref();
    if before.iter().any(|other| other.name == name) {
        return Err(MapError::new(entry.name.span(), format!("{name} is described twice"), "keep one of the two"));
    }
    if before.len() >= MAX_VALUES {
        let message = format!("more than {MAX_VALUES} values");
        return Err(MapError::new(entry.name.span(), message, "keep those that a reading has"));
    }
    let last = u64::from(u16::MAX) + 1 - u64::from(entry.ty.words());
    let address = register(within(Some(&entry.address), "address", 0..=last, 0)?);
    let scale_address = match &entry.scale_address {
        None => None,
        Some(entry) => Some(register(within(Some(entry), "scale_address", 0..=u64::from(u16::MAX), 0)?)),
    };
    let scale = entry.scale.as_ref().map_or(1.0, |scale| *scale.get_ref());
    if let Some(entry) = entry.scale.as_ref().filter(|_| !scale.is_finite() || scale == 0.0) {
        let remedy = "write the number of units in one step, such as 0.1";
        return Err(MapError::new(entry.span(), format!("scale = {scale} makes every value useless"), remedy));
    }
    let (default_minimum, default_maximum) = name.default_range();
    let minimum = entry.minimum.as_ref().map_or(default_minimum, |minimum| *minimum.get_ref());
    let maximum = entry.maximum.as_ref().map_or(default_maximum, |maximum| *maximum.get_ref());
    // Written so that NaN is refused too.
    if !(minimum < maximum && minimum >= default_minimum && maximum <= default_maximum) {
        let place = entry.maximum.as_ref().or(entry.minimum.as_ref()).map_or(entry.name.span(), Spanned::span);
        let message = format!("{name}: {minimum} to {maximum} is no plausible range");
        let remedy = format!("write minimum < maximum, within {default_minimum} to {default_maximum}");
        return Err(MapError::new(place, message, remedy));
    }
    let sign_from: Vec<ValueName> = entry.sign_from.iter().map(|other| *other.get_ref()).collect();
    // A value that borrows its sign has none to turn round.
    let turned = negate && (name.is_power() || name.is_current()) && sign_from.is_empty();
    let scale = if turned { -scale } else { scale };
    let nan = entry.nan.iter().map(|pattern| bit_pattern(pattern, entry.ty)).collect::<Result<_, _>>()?;
    Ok(Value { name, address, ty: entry.ty, scale, scale_address, nan, sign_from, minimum, maximum })
}

fn bit_pattern(entry: &Spanned<String>, ty: ValueType) -> Result<u64, MapError> {
    let digits = usize::from(ty.words()) * 4;
    let hex = entry.get_ref().strip_prefix("0x").filter(|hex| hex.len() == digits);
    hex.and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or_else(|| {
        let message = format!("{:?} is no bit pattern of this type", entry.get_ref());
        MapError::new(entry.span(), message, format!("write 0x and {digits} hexadecimal digits"))
    })
}

/// What only the whole map can show.
fn check_values(map: &DeviceMap, entries: &[Spanned<ValueEntry>], kind_at: Range<usize>) -> Result<(), MapError> {
    if map.protocol == Protocol::Sunspec {
        let Some(entry) = entries.first() else { return Ok(()) };
        let remedy = "remove the values, or remove protocol = \"sunspec\"";
        return Err(MapError::new(entry.span(), "a SunSpec device lists its registers itself", remedy));
    }
    let [kind] = map.kinds[..] else {
        let message = "only a SunSpec map can be for both kinds";
        return Err(MapError::new(kind_at, message, "write kind = \"meter\" or kind = \"inverter\""));
    };
    for (value, entry) in map.values.iter().zip(entries) {
        let foreign = match kind {
            DeviceKind::Meter => value.name == ValueName::EnergyWh,
            DeviceKind::Inverter => matches!(value.name, ValueName::EnergyImportWh | ValueName::EnergyExportWh),
        };
        if foreign {
            let remedy = "a meter has energy_import_wh and energy_export_wh, an inverter energy_wh";
            return Err(MapError::new(entry.get_ref().name.span(), format!("no {kind} has {}", value.name), remedy));
        }
        let Some(sign) = &entry.get_ref().sign_from else { continue };
        let described = map.values.iter().any(|other| other.name == *sign.get_ref());
        if !sign.get_ref().is_power() || !described || !value.name.is_current() {
            let message = format!("{} cannot take its sign from {}", value.name, sign.get_ref());
            let remedy = "only a current can, and only from a power that this map describes";
            return Err(MapError::new(sign.span(), message, remedy));
        }
        let several = map.values.iter().filter(|other| other.name.is_current()).count() > 1;
        if kind == DeviceKind::Meter && *sign.get_ref() == ValueName::PowerW && several {
            // One phase may draw while the site as a whole feeds in.
            let message = format!("the sum of the phases does not say which way {} flows", value.name);
            return Err(MapError::new(
                sign.span(),
                message,
                "take the sign from the power of the same phase, or leave it out",
            ));
        }
    }
    let needed = match kind {
        DeviceKind::Meter => map.values.iter().any(|value| value.name.is_current()),
        DeviceKind::Inverter => map.values.iter().any(|value| value.name == ValueName::PowerW),
    };
    if needed {
        return Ok(());
    }
    let (message, remedy) = match kind {
        DeviceKind::Meter => ("this meter measures no current", "add a [[values]] with name = \"current_l1_a\""),
        DeviceKind::Inverter => ("this inverter measures no power", "add a [[values]] with name = \"power_w\""),
    };
    Err(MapError::new(kind_at, message, remedy))
}

/// The TOML reader's message is kept; what would be right is read out of it, since it lists what it would have taken.
fn from_toml(error: &toml::de::Error) -> MapError {
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let remedy = match names.as_slice() {
        [written, known @ ..] if message.starts_with("unknown") && !known.is_empty() => {
            let nearest = known.iter().min_by_key(|name| strsim::damerau_levenshtein(written, name));
            nearest.map_or_else(String::new, |name| format!("did you mean `{name}`?"))
        }
        [missing] if message.starts_with("missing field") => format!("add `{missing} = …`"),
        _ => "see docs/devices.md for what belongs here".to_owned(),
    };
    MapError::new(error.span().unwrap_or_default(), message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
manufacturer = "M"
model = "X"
kind = "meter"
[[values]]
name = "current_l1_a"
address = 0
type = "f32"
"#;

    fn refused(from: &str, to: &str) -> (String, MapError) {
        assert!(GOOD.contains(from));
        let text = GOOD.replace(from, to);
        let error = DeviceMap::parse(&text).expect_err("this map must be refused");
        (text[error.span.clone()].to_owned(), error)
    }

    #[test]
    fn a_minimal_map_has_safe_defaults() {
        let map = DeviceMap::parse(GOOD).unwrap();
        assert_eq!(
            (map.function, map.word_order, map.max_block, map.max_gap),
            (Function::Holding, WordOrder::Big, 80, 0)
        );
        assert_eq!((map.pause_ms, map.timeout_ms, map.connect_delay_ms), (0, 1_000, 0));
        assert!(map.serves(DeviceKind::Meter) && !map.serves(DeviceKind::Inverter));
    }

    #[test]
    fn every_refusal_says_where_what_and_what_would_be_right() {
        let cases = [
            ("address =", "adress =", "adress", "unknown field `adress`", "`address`"),
            ("\"f32\"", "\"f23\"", "\"f23\"", "unknown variant `f23`", "`f32`"),
            ("address = 0", "address = 65535", "65535", "address = 65535 is out of range", "0 to 65534"),
            ("model = \"X\"\n", "", "", "missing field `model`", "add `model"),
            ("\"current_l1_a\"", "\"voltage_l1_v\"", "\"meter\"", "measures no current", "current_l1_a"),
            ("type = \"f32\"", "type = \"f32\"\nnan = [\"0x8000\"]", "\"0x8000\"", "no bit pattern", "8 hexadecimal"),
            ("type = \"f32\"", "type = \"f32\"\nscale = 0", "0", "useless", "0.1"),
            ("type = \"f32\"", "type = \"f32\"\nscale = nan", "nan", "useless", "0.1"),
            ("type = \"f32\"", "type = \"f32\"\nmaximum = -2e4", "-2e4", "no plausible range", "minimum < maximum"),
            (
                "type = \"f32\"",
                "type = \"f32\"\nsign_from = \"power_w\"",
                "\"power_w\"",
                "cannot take its sign",
                "describes",
            ),
            ("kind = \"meter\"", "kind = \"both\"", "\"both\"", "SunSpec", "meter"),
            (
                "kind = \"meter\"",
                "kind = \"meter\"\ntimeout_ms = 9",
                "9",
                "timeout_ms = 9 is out of range",
                "50 to 15000",
            ),
        ];
        for (from, to, place, message, remedy) in cases {
            let (found, error) = refused(from, to);
            assert!(place.is_empty() || found == place, "{to}: at {found:?}: {error}");
            assert!(error.message.contains(message) && error.remedy.contains(remedy), "{to}: {error}");
        }
        let sum = "[[values]]\nname = \"current_l2_a\"\naddress = 2\ntype = \"f32\"\nsign_from = \"power_w\"\n\
                   [[values]]\nname = \"power_w\"\naddress = 4\ntype = \"f32\"\n";
        assert!(DeviceMap::parse(&format!("{GOOD}{sum}")).unwrap_err().message.contains("sum of the phases"));
        let twice = format!("{GOOD}[[values]]\nname = \"current_l1_a\"\naddress = 2\ntype = \"f32\"\n");
        assert!(DeviceMap::parse(&twice).unwrap_err().message.contains("described twice"));
        assert!(DeviceMap::parse("kind = ").is_err());
    }
}
