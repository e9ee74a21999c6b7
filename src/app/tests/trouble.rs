//! What can be wrong with Consul, and where.

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody listens, and open connections end.
    Refused,
    /// Requests are taken and never answered.
    Hung,
    /// An answer with this status: a server is lost, the leader is, or the rate is limited.
    Status(u16),
    /// Lists come empty, since the token may not read what is in them, and say so.
    Filtered,
    /// The same, without a word.
    Hidden,
    /// The connection ends in the middle of an answer.
    Truncated,
    /// An answer that is no JSON.
    Garbage,
    /// JSON of another shape.
    WrongShape,
    /// Answers take this long, in ms.
    Slow(u64),
    /// A server answers that hears nothing from the others.
    Stale,
    /// A leader answers that has not applied its log: it knows nothing, but to who asks it to be sure.
    Unapplied,
}

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// What this datacenter has to answer.
    Datacenter(usize),
    /// One of so many shares of all questions.
    Share(u64, u64),
}

/// What is said instead of a list that the token may not read.
pub(super) const FILTERED: &str = "x-consul-results-filtered-by-acls: true\r\n";

impl Trouble {
    /// Its name, whatever its figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Hung => "hung",
            Self::Status(429) => "limited",
            Self::Status(_) => "failed",
            Self::Filtered => "filtered",
            Self::Hidden => "hidden",
            Self::Truncated => "truncated",
            Self::Garbage => "garbage",
            Self::WrongShape => "wrong shape",
            Self::Slow(_) => "slow",
            Self::Stale => "stale",
            Self::Unapplied => "unapplied",
        }
    }

    /// All names.
    pub(super) const NAMES: [&'static str; 12] = [
        "refused",
        "hung",
        "limited",
        "failed",
        "filtered",
        "hidden",
        "truncated",
        "garbage",
        "wrong shape",
        "slow",
        "stale",
        "unapplied",
    ];
}

impl Scope {
    /// Whether a question with this hash, of this datacenter, is concerned.
    pub(super) fn covers(self, hash: u64, datacenter: usize) -> bool {
        match self {
            Self::All => true,
            Self::Datacenter(at) => at == datacenter,
            Self::Share(one, of) => hash % of == one,
        }
    }
}

/// What a status comes with.
pub(super) fn words(status: u16) -> &'static str {
    match status {
        429 => "Your IP is issuing too many concurrent connections, please rate limit your calls",
        503 => "No cluster leader",
        _ => "rpc error making call: No path to datacenter",
    }
}
