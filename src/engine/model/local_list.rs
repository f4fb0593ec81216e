//! Local lists: which tokens a station knows by itself, for when it is cut off.

use super::exchange::Admission;
use super::ids::IdToken;

/// An entry of a local list, or one that goes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The token.
    pub token: IdToken,
    /// What the station shall know of it; `None`: the entry goes.
    pub admission: Option<Admission>,
}

/// One message that changes a local list (`SendLocalList`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListUpdate {
    /// The version of the list with it, above 0.
    pub version: i32,
    /// It takes the place of the whole list; otherwise only its entries change.
    pub full: bool,
    /// The entries.
    pub entries: Vec<ListEntry>,
}

/// What a station takes of a local list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLimits {
    /// Whether it uses its list; `None`: it does not say.
    pub enabled: Option<bool>,
    /// How many entries fit; `None`: it does not say.
    pub most: Option<usize>,
    /// How many entries one message may have, at least 1; `None`: it does not say.
    pub items: Option<usize>,
    /// How many bytes one message may have; `None`: it does not say.
    pub bytes: Option<usize>,
}
