//! The MQTT topics of a site.

use crate::engine::model::ids::SiteId;

/// The topics below `<topic_prefix>/<site id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

impl Topics {
    /// The topics of `site` below `prefix` (such as `siteward/v1`; slashes at its ends do not count).
    #[must_use]
    pub fn new(prefix: &str, site: &SiteId) -> Self {
        let prefix = prefix.trim_matches('/');
        let base = if prefix.is_empty() { site.to_string() } else { format!("{prefix}/{site}") };
        Self { base }
    }

    /// Whether the site is online: retained, and the last will.
    #[must_use]
    pub fn connection(&self) -> String {
        format!("{}/connection", self.base)
    }

    /// The site at a glance: retained.
    #[must_use]
    pub fn state(&self) -> String {
        format!("{}/state", self.base)
    }

    /// The events of the journal, in order.
    #[must_use]
    pub fn events(&self) -> String {
        format!("{}/events", self.base)
    }

    /// Quarters of an hour of meters and cars.
    #[must_use]
    pub fn telemetry(&self) -> String {
        format!("{}/telemetry", self.base)
    }

    /// Where commands come in.
    #[must_use]
    pub fn commands(&self) -> String {
        format!("{}/commands", self.base)
    }

    /// Where answers to commands go, unless the command names a response topic.
    #[must_use]
    pub fn responses(&self) -> String {
        format!("{}/responses", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_stand_below_prefix_and_site() {
        let topics = Topics::new("/siteward/v1/", &SiteId::new("depot-nord"));
        assert_eq!(topics.connection(), "siteward/v1/depot-nord/connection");
        assert_eq!(topics.state(), "siteward/v1/depot-nord/state");
        assert_eq!(topics.events(), "siteward/v1/depot-nord/events");
        assert_eq!(topics.telemetry(), "siteward/v1/depot-nord/telemetry");
        assert_eq!(topics.commands(), "siteward/v1/depot-nord/commands");
        assert_eq!(topics.responses(), "siteward/v1/depot-nord/responses");
        assert_eq!(Topics::new("", &SiteId::new("a")).events(), "a/events");
    }
}
