//! I5: no token is used twice or goes back. I6: what tokens guard happens in their order. I7: what was acknowledged stays.

use std::collections::BTreeMap;

use causeway::model::sync::Token;

use super::{Act, Call, Number, Outcome, Violation, shown};

/// All locks and the counters under them.
pub(crate) fn locks(calls: &[Call]) -> Vec<Violation> {
    let mut grants: BTreeMap<&str, Vec<(Token, &Call)>> = BTreeMap::new();
    let mut counts: BTreeMap<&str, Vec<(Number, Number, Token, &Call)>> = BTreeMap::new();
    for call in calls {
        match &call.act {
            Act::Grant { lock, token } if call.outcome == Outcome::Done => {
                grants.entry(lock).or_default().push((*token, call));
            }
            Act::Count { lock, token, from, to } if call.outcome == Outcome::Done => {
                counts.entry(lock).or_default().push((*to, *from, *token, call));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    grants.values().for_each(|grants| tokens(grants, &mut found));
    counts.values_mut().for_each(|counts| effects(counts, &mut found));
    found
}

fn tokens(grants: &[(Token, &Call)], found: &mut Vec<Violation>) {
    for (at, (token, call)) in grants.iter().enumerate() {
        for (other, later) in &grants[at + 1..] {
            let both = || shown(&[(*call).clone(), (*later).clone()]);
            if token == other {
                found.push(Violation(format!("I5: token {token} was granted twice:\n{}", both())));
            }
            let goes_back =
                (call.is_before(later) && token > other) || (later.is_before(call) && other > token);
            if goes_back {
                found.push(Violation(format!("I5: tokens go back:\n{}", both())));
            }
        }
    }
}

fn effects(counts: &mut [(Number, Number, Token, &Call)], found: &mut Vec<Violation>) {
    counts.sort_by_key(|(to, ..)| *to);
    for pair in counts.windows(2) {
        let ((to, _, token, call), (next_to, from, next_token, later)) = (pair[0], pair[1]);
        let both = || shown(&[call.clone(), later.clone()]);
        if to == next_to || from < to {
            found.push(Violation(format!("I7: an update is lost:\n{}", both())));
        }
        if token > next_token {
            found.push(Violation(format!("I6: an older token took effect after a newer one:\n{}", both())));
        }
    }
}
