//! Faults planted into the agent from outside: what it asks, hears and offers is changed on the way. Each is what the
//! agent would do if it broke one invariant, and each must be caught.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    app::tests::{
        plan::{Plan, What},
        trouble::Trouble,
    },
    xds::{resource::Kind, snapshot::Snapshot},
};

/// Which fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// A read that failed counts as an empty list.
    FailureIsEmpty,
    /// A failed read of which services there are counts as none.
    FailureIsNoService,
    /// A list that says that it is filtered counts as whole.
    FilteredIsEmpty,
    /// A list that is not shown counts as empty.
    HiddenIsEmpty,
    /// The answer of a leader that has not applied its log counts, whatever its index.
    UnappliedIsTrue,
    /// An index that went back is not noticed: the question goes on to wait for what was told before.
    IndexNeverBack,
    /// A change is not pushed to a stream.
    LostPush,
    /// The same, as long as things happen; everything later is pushed.
    LostPushMeanwhile,
    /// What a client says that it has is not heard.
    ForgottenVersions,
    /// A resource is left out of what is published.
    LeftOut(Kind),
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Invariant {
    /// No endpoint list shrinks because a read failed.
    NothingShrinks,
    /// Every client has what it should, soon after the end of all faults, and a change at once from then on.
    EveryoneConverges,
    /// Nothing unchanged is sent again, and nothing unasked.
    NothingTwice,
    /// Nothing is published that refers to what does not exist.
    NothingDangles,
    /// The agent asks only what Consul knows, and none of its tasks ends.
    NothingBreaks,
}

/// What did not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) invariant: Invariant,
    pub(super) told: String,
}

impl Planted {
    pub(super) const ALL: [Self; 13] = [
        Self::FailureIsEmpty,
        Self::FailureIsNoService,
        Self::FilteredIsEmpty,
        Self::HiddenIsEmpty,
        Self::UnappliedIsTrue,
        Self::IndexNeverBack,
        Self::LostPush,
        Self::LostPushMeanwhile,
        Self::ForgottenVersions,
        Self::LeftOut(Kind::Secret),
        Self::LeftOut(Kind::Cluster),
        Self::LeftOut(Kind::Endpoints),
        Self::LeftOut(Kind::Listener),
    ];

    /// Which invariant it breaks.
    pub(super) fn breaks(self) -> Invariant {
        match self {
            Self::FailureIsEmpty
            | Self::FailureIsNoService
            | Self::FilteredIsEmpty
            | Self::HiddenIsEmpty
            | Self::UnappliedIsTrue => Invariant::NothingShrinks,
            Self::IndexNeverBack
            | Self::LostPush
            | Self::LostPushMeanwhile
            | Self::LeftOut(Kind::Listener) => Invariant::EveryoneConverges,
            Self::ForgottenVersions => Invariant::NothingTwice,
            Self::LeftOut(_) => Invariant::NothingDangles,
        }
    }

    /// Whether what became empty is believed without a look at what else is shown.
    pub(super) fn is_blind(self) -> bool {
        matches!(
            self,
            Self::FailureIsEmpty | Self::FailureIsNoService | Self::FilteredIsEmpty | Self::HiddenIsEmpty
        )
    }

    /// Whether anything happens in a run that it can show in.
    pub(super) fn can_show(self, plan: &Plan) -> bool {
        let mut steps = plan.steps.iter().map(|step| step.what);
        match self {
            Self::FailureIsEmpty | Self::FailureIsNoService => {
                steps.any(|what| matches!(what, What::Trouble(Trouble::Status(_), ..)))
            }
            Self::FilteredIsEmpty => steps.any(|what| matches!(what, What::Trouble(Trouble::Filtered, ..))),
            Self::HiddenIsEmpty => steps.any(|what| matches!(what, What::Trouble(Trouble::Hidden, ..))),
            Self::UnappliedIsTrue => steps.any(|what| matches!(what, What::Trouble(Trouble::Unapplied, ..))),
            Self::IndexNeverBack => {
                steps.any(|what| matches!(what, What::Save))
                    && steps.any(|what| matches!(what, What::Restore))
            }
            Self::ForgottenVersions => steps.any(|what| matches!(what, What::Leave(..) | What::Restart(..))),
            Self::LostPush | Self::LostPushMeanwhile | Self::LeftOut(_) => true,
        }
    }

    /// What is published in place of a snapshot.
    pub(super) fn publish(self, snapshot: &Arc<Snapshot>) -> Arc<Snapshot> {
        let Self::LeftOut(kind) = self else { return snapshot.clone() };
        let mut seen: BTreeMap<Kind, usize> = BTreeMap::new();
        let kept = snapshot.iter().filter(|entry| {
            let count = seen.entry(entry.key.kind).or_default();
            *count += 1;
            // The last of them may be what a new upstream brought.
            entry.key.kind != kind || *count != snapshot.of_kind(kind).count()
        });
        Snapshot::of(kept.cloned().collect::<Vec<_>>(), snapshot.is_complete())
    }
}
