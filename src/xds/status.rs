//! What each stream was sent, took and refused: the plain values behind `causeway proxy status`.

use serde::{Deserialize, Serialize};

/// One ADS stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Unique in this agent process.
    pub stream: u64,
    /// `node.id`: the proxy's service id.
    pub proxy: String,
    /// Envoy's version, if it told one.
    pub envoy_version: Option<String>,
    /// When it connected, milliseconds since the Unix epoch.
    pub connected_at_ms: u64,
    /// By type of resource, in sending order; types never asked for are absent.
    pub types: Vec<TypeStatus>,
}

/// One type of resource on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeStatus {
    /// `CDS`, `EDS`, `LDS`, `RDS` or `SDS`.
    pub kind: String,
    /// Every resource asked for that exists, and every name asked for that does not.
    pub resources: Vec<ResourceStatus>,
    /// When a response was last sent, milliseconds since the Unix epoch.
    pub sent_at_ms: Option<u64>,
    /// When Envoy last acknowledged one.
    pub acked_at_ms: Option<u64>,
    /// Responses acknowledged so far.
    pub acks: u64,
    /// Responses refused so far.
    pub nacks: u64,
    /// The last refusal, kept until a later response of this type is acknowledged.
    pub last_nack: Option<Nack>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// Envoy's message.
    pub message: String,
    /// The resources of the refused response.
    pub resources: Vec<String>,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// The words of a refusal without the message that was refused, which Envoy may print in whole: a user may have written
/// keys and passwords into it, and it is of no help.
pub fn refusal_words(message: &str) -> String {
    /// Where Envoy's print of a message begins; what follows the slash changes from build to build.
    const PRINT: &str = "goo.gle/";
    if !message.contains(PRINT) && !message.contains("Proto constraint validation failed") {
        return message.to_owned();
    }
    let mut lines = message.lines();
    // The words go on behind the last line of a print; all its own lines are fields or brackets.
    let first = lines.next().unwrap_or_default();
    let words = std::iter::once(first).chain(lines.filter(|line| line.starts_with(": ")));
    let words = words.map(|line| line.split(PRINT).next().unwrap_or(line).trim_matches([' ', ':']));
    words.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ")
}

/// One resource on a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// The version that is intended; none when the resource does not exist (any more).
    pub intended: Option<String>,
    /// The version last sent on this stream, or that Envoy said it had when it connected.
    pub sent: Option<String>,
    /// How the two compare.
    pub state: ResourceState,
}

/// Where a resource stands on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceState {
    /// Envoy has the intended version.
    Synced,
    /// The intended version was sent and not yet answered.
    Sent,
    /// The intended version waits to be sent (behind a gate, or behind an unanswered response).
    Waiting,
    /// Envoy refused the intended version.
    Rejected,
    /// Asked for by name and not in the catalog.
    Absent,
}

#[cfg(test)]
mod tests {
    use super::refusal_words;

    #[test]
    fn a_message_that_envoy_prints_is_left_out() {
        let printed = "Error adding/updating cluster(s) api: goo.gle/debugproto   \nname: \"api\"\nkey {\n  inline_string: \
                       \"KEY\"\n}\n: Proto constraint validation failed (A: embedded | caused by B: too small), db: no";
        let expected = "Error adding/updating cluster(s) api: Proto constraint validation failed (A: embedded | caused by B: \
                        too small), db: no";
        assert_eq!(refusal_words(printed), expected);
        let alone = printed.replace("Error adding/updating cluster(s) api: ", "").replace(", db: no", "");
        assert!(
            refusal_words(&alone).starts_with("Proto constraint validation failed (A"),
            "{}",
            refusal_words(&alone)
        );
        let behind =
            "Proto constraint validation failed (A: too small): name: \"api\"\ninline_string: \"KEY\"\n";
        assert_eq!(refusal_words(behind), "Proto constraint validation failed (A: too small): name: \"api\"");
    }

    #[test]
    fn plain_words_stay_as_they_are() {
        for words in ["", "no", "a:\n: b", "error adding listener '127.0.0.1:1': no filter chains specified"]
        {
            assert_eq!(refusal_words(words), words);
        }
    }
}
