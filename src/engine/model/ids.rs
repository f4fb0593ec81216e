//! Names of things, as types that cannot be mixed up.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Makes the name from its text.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self(Arc::from(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// The site's name, part of every MQTT topic.
    SiteId
);
id!(
    /// A circuit's name.
    CircuitId
);
id!(
    /// A charging station's OCPP identity.
    StationId
);
id!(
    /// A meter's name.
    MeterId
);
id!(
    /// An inverter's name.
    InverterId
);
id!(
    /// A transaction's name as the station knows it: the decimal number for OCPP 1.6, the station's own string for OCPP 2.x.
    TransactionId
);
id!(
    /// What a driver identifies with (idTag, idToken). Compared without regard to case (OCPP 1.6 CiString, 2.0.1 identifierString).
    IdToken
);

impl IdToken {
    /// Whether two tokens are the same to OCPP.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.as_str().eq_ignore_ascii_case(other.as_str())
    }
}

/// One WebSocket connection of a station. A station that reconnects gets a new one, so that late frames of the old one are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

/// A question from a person or the cloud that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// The number of a record in the journal: 1, 2, 3 … without a gap for the life of the store. 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
