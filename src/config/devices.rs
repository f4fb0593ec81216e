//! Where the configuration meets the Modbus side: connections and device maps.

use super::files::{Places, is_plain_name};
use super::problem::Document;
use super::reader::{At, nearest};
use crate::engine::modbus::DeviceKind;
use crate::engine::modbus::builtin::{builtin, builtin_names};
use crate::engine::modbus::map::{DeviceMap, MapError};

/// The device map of that name: a file beside `site.toml` wins over one in the system's directory, and that over the built-in one.
pub(super) fn device_map(
    document: &Document<'_>,
    places: &Places,
    name: &At<String>,
    kind: DeviceKind,
) -> Option<DeviceMap> {
    if !is_plain_name(&name.value) {
        document.error(name.at, format!("`profile` is {:?}, and must be made of a-z, 0-9 and -", name.value));
        return None;
    }
    let (origin, text) = match places.override_of("devices", &name.value) {
        Some((path, Ok(text))) => (path.display().to_string(), text),
        Some((path, Err(reason))) => {
            document.error(name.at, format!("`profile`: {} cannot be read: {reason}", path.display()));
            return None;
        }
        None => match builtin(&name.value) {
            Some(text) => (format!("the built-in device map {}", name.value), text.to_owned()),
            None => return unknown(document, name),
        },
    };
    match DeviceMap::parse(&text) {
        Ok(map) if map.serves(kind) => Some(map),
        Ok(_) => {
            let (is, wanted) = match kind {
                DeviceKind::Meter => ("an inverter", "[[meters]] needs the map of a meter"),
                DeviceKind::Inverter => ("a meter", "[[inverters]] needs the map of an inverter"),
            };
            document.error(name.at, format!("`profile`: {} is the map of {is}; {wanted}", name.value));
            None
        }
        Err(error) => {
            document.error(name.at, format!("`profile`: {origin}{}: {error}", place(&text, &error)));
            None
        }
    }
}

fn unknown(document: &Document<'_>, name: &At<String>) -> Option<DeviceMap> {
    let known: Vec<&str> = builtin_names().collect();
    let remedy = nearest(&name.value, known.iter().copied())
        .map_or_else(|| format!("built in are: {}.", known.join(", ")), |near| format!("did you mean {near:?}?"));
    let message = format!(
        "device map {:?} is not known; {remedy} Your own goes into devices/{}.toml beside site.toml",
        name.value, name.value
    );
    document.error(name.at, message);
    None
}

/// `:LINE:COLUMN` of an error in a device map.
fn place(text: &str, error: &MapError) -> String {
    let before = text.get(..error.span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    format!(":{line}:{column}")
}
