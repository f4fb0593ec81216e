//! Who may charge.

use serde::{Deserialize, Serialize};

use super::exchange::AuthorizationStatus;
use super::ids::IdToken;
use super::wish::Wish;
use crate::engine::time::Utc;
use crate::engine::units::{Current, Energy};

/// More people than any site has; a list beyond it would fill the memory of a small gateway.
pub const MAX_TOKENS: usize = 100_000;

/// The longest token and the longest name of a group: OCPP 2.0.1's identifierString of 36 characters; OCPP 1.6 carries 20 (CiString20).
pub const MAX_TOKEN_CHARACTERS: usize = 36;

/// A token that the site knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// The token.
    pub token: IdToken,
    /// Whether it may charge.
    #[serde(default = "accepted", skip_serializing_if = "is_accepted")]
    pub status: AuthorizationStatus,
    /// Tokens of one group may stop each other's transactions (`parentIdTag`, `groupIdToken`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// From then on it is [`AuthorizationStatus::Expired`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Utc>,
    /// What goes with it; it stands over what goes with its group.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub wish: Wish,
}

const fn accepted() -> AuthorizationStatus {
    AuthorizationStatus::Accepted
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_accepted(status: &AuthorizationStatus) -> bool {
    *status == AuthorizationStatus::Accepted
}

fn is_nothing(wish: &Wish) -> bool {
    *wish == Wish::default()
}

/// Tokens are compared without regard to case (OCPP 1.6 CiString, 2.x identifierString): the form in which they are looked up.
#[must_use]
pub fn key_of(token: &IdToken) -> String {
    token.as_str().to_ascii_lowercase()
}

/// Which part of a list of tokens that comes in several commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPart {
    /// The sender's name for the list.
    pub list: String,
    /// Which part, from 1. The first one begins the list.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
}

/// A change of the tokens by command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokensOrder {
    /// Entries are set, each in place of the whole entry of the same token.
    Update {
        /// The entries.
        entries: Vec<TokenEntry>,
    },
    /// Entries are taken out.
    Delete {
        /// Their tokens.
        tokens: Vec<IdToken>,
    },
    /// These take the place of all that came by command.
    Replace {
        /// The entries.
        entries: Vec<TokenEntry>,
    },
    /// A part of a list; with the last of its parts the list takes the place of all that came by command.
    ReplacePart {
        /// Which part.
        part: ListPart,
        /// The entries in it.
        entries: Vec<TokenEntry>,
    },
}

impl TokensOrder {
    /// What it does, in a word for events.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
            Self::Replace { .. } => "replace",
            Self::ReplacePart { .. } => "replace_part",
        }
    }

    /// How many tokens it names.
    #[must_use]
    pub const fn count(&self) -> usize {
        match self {
            Self::Update { entries } | Self::Replace { entries } | Self::ReplacePart { entries, .. } => entries.len(),
            Self::Delete { tokens } => tokens.len(),
        }
    }

    /// Which part of a list it is.
    #[must_use]
    pub const fn part(&self) -> Option<&ListPart> {
        match self {
            Self::ReplacePart { part, .. } => Some(part),
            Self::Update { .. } | Self::Delete { .. } | Self::Replace { .. } => None,
        }
    }
}

/// A number for the content of a list of tokens: another list has another one. 0 for an empty one.
#[must_use]
pub fn digest_of(entries: &[TokenEntry]) -> u64 {
    // FNV-1a: it only has to tell a list that was edited, and to be the same in every version.
    let mut digest = 0_u64;
    for entry in entries {
        let text = serde_json::to_vec(entry).unwrap_or_default();
        let one = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        // A sum, since the order of a file says nothing.
        digest = digest.wrapping_add(one | 1);
    }
    digest
}

/// What happens to a token that the site does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownToken {
    /// It may not charge.
    #[default]
    Reject,
    /// It may charge.
    Accept,
    /// It may charge a little: [`LimitedUse`].
    AcceptLimited,
}

/// How much an unknown token may charge with [`UnknownToken::AcceptLimited`], in each transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedUse {
    /// The energy at which its transaction is ended.
    pub energy: Energy,
    /// The time after which its transaction is ended, in minutes.
    pub minutes: u32,
    /// The most that it is given, per phase; `None`: as everybody.
    pub max: Option<Current>,
}

impl Default for LimitedUse {
    fn default() -> Self {
        Self { energy: Energy::from_wh(10_000), minutes: 240, max: None }
    }
}

/// How the site decides who may charge: `[authorization]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationSetup {
    /// What happens to a token that is not known.
    pub unknown: UnknownToken,
    /// How much one may charge that is accepted all the same.
    pub limited: LimitedUse,
    /// Whether a running transaction is stopped when its token may not charge any more.
    pub stop_refused: bool,
    /// The group whose tokens may stop every transaction, and start none.
    pub master_pass_group: Option<String>,
    /// For how many days a station may remember that a token was accepted; `None`: as long as it likes.
    pub cache_days: Option<u32>,
    /// Whether stations are given local lists.
    pub local_lists: bool,
}

impl Default for AuthorizationSetup {
    fn default() -> Self {
        Self {
            unknown: UnknownToken::default(),
            limited: LimitedUse::default(),
            stop_refused: true,
            master_pass_group: None,
            cache_days: None,
            local_lists: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(token: &str) -> TokenEntry {
        let token = IdToken::new(token);
        TokenEntry { token, status: AuthorizationStatus::Accepted, group: None, expires: None, wish: Wish::default() }
    }

    #[test]
    fn an_entry_is_stored_short_and_read_in_its_long_form() {
        let short = serde_json::to_string(&entry("04A2")).unwrap();
        assert_eq!(short, r#"{"token":"04A2"}"#);
        let long = r#"{"token":"04A2","status":"Accepted","group":null,"expires":null,"wish":{"priority":null}}"#;
        for text in [short.as_str(), long] {
            assert_eq!(serde_json::from_str::<TokenEntry>(text).unwrap(), entry("04A2"), "{text}");
        }
    }

    #[test]
    fn another_list_has_another_digest_and_its_order_says_nothing() {
        let list = [entry("A"), entry("B")];
        assert_eq!(digest_of(&[]), 0);
        assert_eq!(digest_of(&list), digest_of(&[entry("B"), entry("A")]));
        let blocked = TokenEntry { status: AuthorizationStatus::Blocked, ..entry("B") };
        for other in [vec![], vec![entry("A")], vec![entry("A"), blocked], vec![entry("A"), entry("B"), entry("C")]] {
            assert_ne!(digest_of(&other), digest_of(&list), "{other:?}");
        }
    }
}
