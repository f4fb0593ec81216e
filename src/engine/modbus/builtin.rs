//! The device maps that come with the daemon. They are the files of `configs/devices/`, so what is shipped is what can be read.

const MAPS: [(&str, &str); 6] = [
    ("abb-b23", include_str!("../../../configs/devices/abb-b23.toml")),
    ("abb-b24", include_str!("../../../configs/devices/abb-b23.toml")),
    ("eastron-sdm630", include_str!("../../../configs/devices/eastron-sdm630.toml")),
    ("eastron-sdm72", include_str!("../../../configs/devices/eastron-sdm72.toml")),
    ("generic-meter", include_str!("../../../configs/devices/generic-meter.toml")),
    ("sunspec", include_str!("../../../configs/devices/sunspec.toml")),
];

/// The text of a built-in map, for [`super::map::DeviceMap::parse`].
#[must_use]
pub fn builtin(name: &str) -> Option<&'static str> {
    MAPS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The names of all built-in maps, in order.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    MAPS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::modbus::map::DeviceMap;

    #[test]
    fn every_map_reads_its_own_register_dumps_right() {
        for name in builtin_names() {
            let map = DeviceMap::parse(builtin(name).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!map.examples.is_empty(), "{name} has no example");
            map.check_examples().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
