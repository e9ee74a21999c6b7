//! What a token's right to a proxy is worth: when to ask for it, and what the proxy's streams are offered. Pure.

use std::{sync::Arc, time::Duration};

use crate::{
    consul::acl::rights::Right,
    model::{
        catalog::Catalog,
        name::{ProxyId, ServiceName},
    },
    xds::server::Offer,
};

/// After a check that came to nothing: soon, since a new stream waits for it, and then with more air.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_CAP: Duration = Duration::from_secs(10);
/// A refusal that comes right after Consul was away, or of what was good, is believed when it comes again: a server that
/// has just started denies tokens until it has read its log (1.8.7, measured, also when there is a leader already), and
/// nobody here need have noticed that it was away.
const CONFIRM: Duration = Duration::from_secs(1);

/// What a token must have a right to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Not known yet.
    Unknown,
    /// Nothing: Consul has no ACLs.
    Nothing,
    /// `service:write` on this service.
    Service(ServiceName),
}

impl Subject {
    /// What a proxy's tokens must have a right to, as far as the catalog tells: a sidecar speaks for the service behind
    /// it, a gateway for itself.
    pub(super) fn of(catalog: &Catalog, proxy: &ProxyId) -> Self {
        match catalog.agent().known() {
            None => Self::Unknown,
            Some(agent) if !agent.acls_enabled => Self::Nothing,
            Some(_) => match catalog.registration(proxy).known() {
                Some(Some(it)) => {
                    Self::Service(it.destination.as_ref().map_or(&it.service, |to| &to.service).clone())
                }
                Some(None) | None => Self::Unknown,
            },
        }
    }
}

/// When a token that passed is checked again: a tenth earlier at most, so that the tokens of one moment are not all
/// checked in one. `jitter` is between 0 and 1.
pub(super) fn again(recheck: Duration, jitter: f64) -> Duration {
    recheck.mul_f64(1.0 - 0.1 * jitter)
}

/// What became of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not checked yet.
    Waiting,
    /// It may have the proxy's resources.
    Passed(Ticket),
    /// It may not.
    Denied {
        /// There is no token or no such token; otherwise it lacks the right.
        unauthenticated: bool,
        /// Why, with the remedy.
        message: Arc<str>,
    },
}

/// What a token that passed is good for besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ticket {
    /// Nothing: there are no ACLs.
    Nothing,
    /// The agent may ask for this service's leaf with whatever it has itself: Consul has no ACLs, other than the agent
    /// was told.
    Agent(ServiceName),
    /// This service's leaf may be asked for with the token.
    Token(ServiceName),
}

/// What is remembered of a token beside what Consul tells now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// Nothing, or nothing that still counts.
    Unknown,
    /// It passed of late, for another service.
    Elsewhere,
    /// It passed when Consul was last asked, which was of late.
    Passed,
}

/// One token's case.
#[derive(Debug)]
pub(super) struct Case {
    is_presented: bool,
    subject: Subject,
    standing: Standing,
    failures: u32,
    /// Consul refused once, and was not believed yet.
    is_doubted: bool,
}

impl Case {
    /// Nothing is known. `is_presented` is whether there is a token at all.
    pub(super) fn new(is_presented: bool) -> Self {
        let (subject, standing) = (Subject::Unknown, Standing::Waiting);
        Self { is_presented, subject, standing, failures: 0, is_doubted: false }
    }

    /// Where the token stands.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The service to ask about, if any.
    pub(super) fn service(&self) -> Option<&ServiceName> {
        match &self.subject {
            Subject::Service(service) => Some(service),
            Subject::Unknown | Subject::Nothing => None,
        }
    }

    /// Takes what the proxy is now; gives whether a check is due at once. What is not known any more stays as it was
    /// last known.
    pub(super) fn concerns(&mut self, subject: Subject) -> bool {
        if subject == Subject::Unknown || subject == self.subject {
            return false;
        }
        let was_another = matches!(self.subject, Subject::Service(_));
        self.subject = subject;
        (self.failures, self.is_doubted) = (0, false);
        match self.subject {
            Subject::Nothing => {
                self.standing = Standing::Passed(Ticket::Nothing);
                false
            }
            // What passed for another service has passed for nothing here.
            Subject::Service(_) | Subject::Unknown => {
                if was_another {
                    self.standing = Standing::Waiting;
                }
                true
            }
        }
    }

    /// Takes the outcome of a check of `service`, with what is remembered; gives when the next one is due, `recheck` being
    /// the pace of those that pass. A check that came to nothing changes nothing: unknown is not no. What was never
    /// checked here passes by what is remembered of it, until Consul tells.
    pub(super) fn checked(
        &mut self,
        service: &ServiceName,
        right: Option<Right>,
        past: Past,
        recheck: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        let Some(right) = right else { return Some(self.unchecked(service, past, jitter)) };
        let was_away = std::mem::take(&mut self.failures) > 0;
        let was_good = matches!(self.standing, Standing::Passed(_)) || past != Past::Unknown;
        let was_doubted = std::mem::take(&mut self.is_doubted);
        let is_refused = matches!(right, Right::Lacking | Right::NoSuchToken);
        if is_refused && (was_away || (was_good && !was_doubted)) {
            self.is_doubted = true;
            return Some(CONFIRM);
        }
        self.standing = self.judge(service, right);
        matches!(self.standing, Standing::Passed(_)).then(|| again(recheck, jitter))
    }

    /// The check takes long: what is remembered counts until it comes to something. It is no failure, or a Consul that is
    /// slow could never refuse.
    pub(super) fn unanswered(&mut self, service: &ServiceName, past: Past) {
        if past == Past::Passed && self.standing == Standing::Waiting {
            self.standing = Standing::Passed(Ticket::Token(service.clone()));
        }
    }

    fn unchecked(&mut self, service: &ServiceName, past: Past, jitter: f64) -> Duration {
        self.is_doubted = false;
        self.unanswered(service, past);
        let doubled = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_CAP);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(0.5 + 0.5 * jitter)
    }

    fn judge(&self, service: &ServiceName, right: Right) -> Standing {
        let policy = format!("service \"{service}\" {{ policy = \"write\" }}");
        let (unauthenticated, message) = match right {
            Right::Write => return Standing::Passed(Ticket::Token(service.clone())),
            Right::NoAcls => return Standing::Passed(Ticket::Agent(service.clone())),
            Right::NoSuchToken => (
                true,
                "Consul knows no such ACL token: it was deleted, it expired, or it is local to another datacenter; \
                 start Envoy with another one (causeway envoy --token-file FILE, or CONSUL_HTTP_TOKEN)"
                    .to_owned(),
            ),
            Right::Lacking if self.is_presented => (
                false,
                format!("the ACL token lacks service:write on {service}; add to one of its policies: {policy}"),
            ),
            Right::Lacking => (
                true,
                format!(
                    "no ACL token was presented, and without one there is no service:write on {service}; start Envoy \
                     with causeway envoy --token-file FILE, or CONSUL_HTTP_TOKEN, and a token with the policy: {policy}"
                ),
            ),
        };
        Standing::Denied { unauthenticated, message: message.into() }
    }
}

/// What streams with a token that stands so are offered of what their proxy is.
pub(super) fn offered(standing: &Standing, offer: &Offer) -> Offer {
    match (standing, offer) {
        (Standing::Denied { unauthenticated, message }, _) => {
            Offer::Denied { unauthenticated: *unauthenticated, message: message.clone() }
        }
        // There is nothing to give away.
        (_, refused @ Offer::Refused { .. }) => refused.clone(),
        (Standing::Waiting, _) => Offer::Pending,
        (Standing::Passed(_), offer) => offer.clone(),
    }
}

/// Whether two offers say the same.
pub(super) fn is_same(a: &Offer, b: &Offer) -> bool {
    match (a, b) {
        (Offer::Pending, Offer::Pending) => true,
        (Offer::Ready(a), Offer::Ready(b)) => Arc::ptr_eq(a, b),
        (Offer::Refused { message: a, .. }, Offer::Refused { message: b, .. })
        | (Offer::Denied { message: a, .. }, Offer::Denied { message: b, .. }) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::snapshot::Snapshot;

    const RECHECK: Duration = Duration::from_secs(300);

    fn case() -> Case {
        let mut case = Case::new(true);
        assert!(case.concerns(Subject::Service("web".into())));
        case
    }

    fn web() -> ServiceName {
        "web".into()
    }

    fn ready() -> Offer {
        Offer::Ready(Arc::new(Snapshot::empty()))
    }

    fn message(standing: &Standing) -> (bool, String) {
        match standing {
            Standing::Denied { unauthenticated, message } => (*unauthenticated, message.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_offered_before_the_check() {
        let case = case();
        assert!(is_same(&offered(case.standing(), &ready()), &Offer::Pending));
        let refused = Offer::Refused { not_found: true, message: "no such proxy".into() };
        assert!(is_same(&offered(case.standing(), &refused), &refused));
    }

    #[test]
    fn a_token_that_passed_is_checked_again() {
        let mut case = case();
        assert_eq!(case.checked(&web(), Some(Right::Write), Past::Unknown, RECHECK, 0.0), Some(RECHECK));
        assert_eq!(case.standing(), &Standing::Passed(Ticket::Token(web())));
        assert!(matches!(offered(case.standing(), &ready()), Offer::Ready(_)));
        assert!(case.checked(&web(), Some(Right::Write), Past::Unknown, RECHECK, 1.0).unwrap() < RECHECK);
    }

    #[test]
    fn unknown_is_not_no() {
        let mut case = case();
        assert!(case.checked(&web(), None, Past::Unknown, RECHECK, 1.0).unwrap() <= RETRY_FIRST);
        assert_eq!(case.standing(), &Standing::Waiting);
        case.checked(&web(), Some(Right::Write), Past::Unknown, RECHECK, 0.0);
        for _ in 0..40 {
            assert!(case.checked(&web(), None, Past::Unknown, RECHECK, 1.0).unwrap() <= RETRY_CAP);
        }
        assert_eq!(case.standing(), &Standing::Passed(Ticket::Token(web())));
        assert!(!case.concerns(Subject::Unknown), "what was registered before still counts");
        assert_eq!(case.service(), Some(&web()));
    }

    #[test]
    fn what_passed_of_late_passes_while_consul_cannot_tell() {
        let mut case = case();
        assert!(
            case.checked(&web(), None, Past::Passed, RECHECK, 1.0).unwrap() <= RETRY_FIRST,
            "Consul is asked on"
        );
        assert_eq!(case.standing(), &Standing::Passed(Ticket::Token(web())));
        assert_eq!(
            case.checked(&web(), Some(Right::NoSuchToken), Past::Unknown, RECHECK, 0.0),
            Some(CONFIRM)
        );
        assert_eq!(case.standing(), &Standing::Passed(Ticket::Token(web())), "it may have just started");
        assert_eq!(case.checked(&web(), Some(Right::NoSuchToken), Past::Unknown, RECHECK, 0.0), None);
        assert!(matches!(case.standing(), Standing::Denied { .. }), "Consul has the last word");
        case.checked(&web(), None, Past::Passed, RECHECK, 0.0);
        assert!(matches!(case.standing(), Standing::Denied { .. }));
    }

    #[test]
    fn what_was_good_is_refused_when_consul_says_so_again() {
        for right in [Right::Lacking, Right::NoSuchToken] {
            let mut passed = case();
            passed.checked(&web(), Some(Right::Write), Past::Unknown, RECHECK, 0.0);
            // Nobody saw Consul start again.
            assert_eq!(passed.checked(&web(), Some(right), Past::Passed, RECHECK, 0.0), Some(CONFIRM));
            assert_eq!(passed.standing(), &Standing::Passed(Ticket::Token(web())));
            passed.checked(&web(), Some(Right::Write), Past::Passed, RECHECK, 0.0);
            assert_eq!(passed.checked(&web(), Some(right), Past::Passed, RECHECK, 0.0), Some(CONFIRM));
            assert_eq!(passed.checked(&web(), Some(right), Past::Passed, RECHECK, 0.0), None);
            assert!(matches!(passed.standing(), Standing::Denied { .. }));
        }
        for past in [Past::Elsewhere, Past::Passed] {
            let mut new = case();
            assert_eq!(new.checked(&web(), Some(Right::NoSuchToken), past, RECHECK, 0.0), Some(CONFIRM));
            assert_eq!(new.standing(), &Standing::Waiting, "nor is it let in for that");
            assert_eq!(new.checked(&web(), Some(Right::NoSuchToken), past, RECHECK, 0.0), None);
        }
    }

    #[test]
    fn what_passed_elsewhere_passes_nowhere_else() {
        let mut case = case();
        case.unanswered(&web(), Past::Elsewhere);
        assert_eq!(case.standing(), &Standing::Waiting);
        case.unanswered(&web(), Past::Passed);
        assert_eq!(case.standing(), &Standing::Passed(Ticket::Token(web())));
        assert_eq!(case.checked(&web(), Some(Right::Lacking), Past::Passed, RECHECK, 0.0), Some(CONFIRM));
        case.unanswered(&web(), Past::Passed);
        assert_eq!(case.checked(&web(), Some(Right::Lacking), Past::Passed, RECHECK, 0.0), None);
        assert!(matches!(case.standing(), Standing::Denied { .. }), "slow is not away");
    }

    #[test]
    fn a_refusal_names_the_remedy_and_ends_the_checks() {
        let mut case = case();
        assert_eq!(case.checked(&web(), Some(Right::Lacking), Past::Unknown, RECHECK, 0.0), None);
        let (unauthenticated, text) = message(case.standing());
        assert!(!unauthenticated && text.contains(r#"service "web" { policy = "write" }"#), "{text}");
        case.checked(&web(), Some(Right::NoSuchToken), Past::Unknown, RECHECK, 0.0);
        let (unauthenticated, text) = message(case.standing());
        assert!(unauthenticated && text.contains("--token-file"), "{text}");
        assert!(matches!(offered(case.standing(), &ready()), Offer::Denied { .. }));

        let mut none = Case::new(false);
        none.concerns(Subject::Service(web()));
        none.checked(&web(), Some(Right::Lacking), Past::Unknown, RECHECK, 0.0);
        let (unauthenticated, text) = message(none.standing());
        assert!(unauthenticated && text.contains("CONSUL_HTTP_TOKEN"), "{text}");
    }

    #[test]
    fn what_passed_for_one_service_passes_for_no_other() {
        let mut case = case();
        case.checked(&web(), Some(Right::Write), Past::Unknown, RECHECK, 0.0);
        assert!(case.concerns(Subject::Service("vault".into())), "registered anew, for another service");
        assert!(is_same(&offered(case.standing(), &ready()), &Offer::Pending));
    }

    #[test]
    fn without_acls_everyone_passes() {
        let mut case = Case::new(false);
        assert!(!case.concerns(Subject::Nothing));
        assert_eq!(case.standing(), &Standing::Passed(Ticket::Nothing));
        // Consul was started again, with ACLs: what was passed stays until it is checked.
        assert!(case.concerns(Subject::Service(web())));
        assert_eq!(case.standing(), &Standing::Passed(Ticket::Nothing));
        case.checked(&web(), Some(Right::NoAcls), Past::Unknown, RECHECK, 0.0);
        assert_eq!(case.standing(), &Standing::Passed(Ticket::Agent(web())));
    }
}
