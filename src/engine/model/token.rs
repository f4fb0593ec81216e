//! Who may charge.

use serde::{Deserialize, Serialize};

use super::exchange::AuthorizationStatus;
use super::ids::IdToken;
use super::wish::Wish;
use crate::engine::time::Utc;

/// A token that the site knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// The token.
    pub token: IdToken,
    /// Whether it may charge.
    pub status: AuthorizationStatus,
    /// Tokens of one group may stop each other's transactions (`parentIdTag`, `groupIdToken`).
    pub group: Option<String>,
    /// From then on it is [`AuthorizationStatus::Expired`].
    pub expires: Option<Utc>,
    /// What goes with it; it stands over what goes with its group.
    #[serde(default)]
    pub wish: Wish,
}

/// What happens to a token that the site does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownToken {
    /// It may not charge.
    #[default]
    Reject,
    /// It may charge.
    Accept,
}
