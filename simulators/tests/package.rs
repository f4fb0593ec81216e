//! What the Debian package ships fits the program.

use std::path::Path;

use siteward::config::{Loaded, load};

/// The unit must come up after the installation, before anybody has written a configuration.
#[test]
fn the_packaged_configuration_is_accepted_and_fail_safe() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../debian/site.toml");
    let loaded: Loaded = load(&file).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.refuse_unsafe(), None);
    assert!(loaded.config.topology.stations().is_empty(), "a station that nobody has wired");
}
