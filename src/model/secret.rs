//! Text that must never be shown: private keys and tokens.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands in place of a secret wherever one would be printed, as in Envoy's own dumps.
pub const REDACTED: &str = "[redacted]";

/// What of Envoy's messages holds secrets, by a part of the field's name. A user's own cluster or listener may have any.
const SECRET: [&str; 8] = [
    "private_key",
    "password",
    "token",
    "secret",
    "session_ticket_keys",
    "initial_metadata",
    "credential",
    "api_key",
];

/// Whether a field of that name, alone or as part of what is secret already, may hold a secret. The names of secrets to
/// fetch are none themselves.
pub fn names_a_secret(field: &str, is_part_of_one: bool) -> bool {
    let names_one = field.ends_with("sds_secret_config") || field.ends_with("sds_secret_configs");
    !names_one && (is_part_of_one || SECRET.iter().any(|part| field.contains(part)))
}

/// A secret text. It prints and serializes as [`REDACTED`]; only [`SecretText::expose`] gives it away, so that
/// every place that hands a secret on can be found by that name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretText(Arc<str>);

impl SecretText {
    /// The secret itself. Only for the wire it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: AsRef<str>> From<T> for SecretText {
    fn from(text: T) -> Self {
        Self(Arc::from(text.as_ref()))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// What was written is [`REDACTED`], and that is never read as a secret: text that must come back is written by whoever
/// exposes it.
impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == REDACTED {
            return Err(serde::de::Error::custom("a secret was left out here"));
        }
        Ok(Self::from(text))
    }
}
