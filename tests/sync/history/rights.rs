//! What a token did, it had the right to at some moment of the call.

use super::{Moment, Violation};

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    All,
    Read,
    /// Read and write what begins so.
    Below(&'static str),
    Nothing,
}

impl May {
    pub(crate) fn reads(self, key: &str) -> bool {
        match self {
            Self::All | Self::Read => true,
            Self::Below(tree) => key.starts_with(tree),
            Self::Nothing => false,
        }
    }

    pub(crate) fn writes(self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Below(tree) => key.starts_with(tree),
            Self::Read | Self::Nothing => false,
        }
    }
}

/// From this moment on a token may do that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) at: Moment,
    pub(crate) token: &'static str,
    pub(crate) may: May,
}

/// Something that was done with a token.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) token: &'static str,
    pub(crate) key: String,
    pub(crate) is_write: bool,
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
}

/// All uses of tokens. The turns are in their order.
pub(crate) fn rights(uses: &[Use], turns: &[Turn]) -> Vec<Violation> {
    let lacks = |used: &&Use| {
        let own: Vec<&Turn> = turns.iter().filter(|turn| turn.token == used.token).collect();
        !own.iter().enumerate().any(|(at, turn)| {
            let until = own.get(at + 1).map_or(Moment::MAX, |next| next.at);
            let has = if used.is_write { turn.may.writes(&used.key) } else { turn.may.reads(&used.key) };
            has && turn.at <= used.ended && until >= used.began
        })
    };
    let told = |used: &Use| {
        let what = if used.is_write { "wrote" } else { "read" };
        let Use { token, key, began, ended, .. } = used;
        Violation(format!(
            "rights: token {token} {what} {key} between {began} and {ended} without the right to"
        ))
    };
    uses.iter().filter(lacks).map(told).collect()
}
