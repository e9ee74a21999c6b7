//! Random programs: requests whose indexes and sessions are named by what was seen before, so that both sides can be
//! asked the same.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use proptest::{
    collection::vec,
    prelude::{Strategy, any as arbitrary, prop_oneof},
    sample::select,
};
use serde_json::{Value, json};

use super::relation::Relation;
use crate::sync::consul_model::Ask;

/// The first twice as often: locks are met only where programs return to a key.
const KEYS: [&str; 10] = ["a", "a", "a/b", "a/b", "a/", "a/b/c", "ab", "b", "b/a", "ü x%"];
const PREFIXES: [&str; 8] = ["", "a", "a/", "a/b", "ab", "b", "b/", "none/"];
const VALUES: [&str; 4] = ["", "x", "y", "{\"z\":1}"];
pub(super) const VERBS: [&str; 12] = [
    "set",
    "cas",
    "lock",
    "unlock",
    "get",
    "get-tree",
    "check-index",
    "check-session",
    "check-not-exists",
    "delete",
    "delete-tree",
    "delete-cas",
];

/// Which index.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Zero,
    /// That of the key as it is.
    Current,
    /// One that was seen at some time.
    Seen(usize),
}

/// A verb of a transaction, or of a request of its own.
#[derive(Clone, Debug)]
pub(super) struct Verb {
    verb: &'static str,
    key: &'static str,
    prefix: &'static str,
    value: &'static str,
    flags: u64,
    at: At,
    /// Which session; one more than there are stands for one that there is not.
    session: usize,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Txn(Vec<Verb>),
    Single(Verb),
    Keys(&'static str, &'static str),
    Recurse(&'static str),
    NewSession(&'static str, &'static str),
    EndSession(usize),
    RenewSession(usize),
    SessionInfo(usize),
}

/// Any program.
pub(super) fn any() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..40)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => vec(verb(), 1..6).prop_map(Step::Txn),
        8 => verb().prop_map(Step::Single),
        1 => (select(&PREFIXES[..]), select(&["", "/", "b"][..])).prop_map(|(prefix, cut)| Step::Keys(prefix, cut)),
        2 => select(&PREFIXES[..]).prop_map(Step::Recurse),
        2 => (select(&["release", "delete"][..]), select(&["0s", "0s", "60s"][..]))
            .prop_map(|(behavior, delay)| Step::NewSession(behavior, delay)),
        1 => (0_usize..4).prop_map(Step::EndSession),
        1 => (0_usize..4).prop_map(Step::RenewSession),
        1 => (0_usize..4).prop_map(Step::SessionInfo),
    ]
}

fn verb() -> impl Strategy<Value = Verb> {
    let at = prop_oneof![
        1 => proptest::prelude::Just(At::Zero),
        4 => proptest::prelude::Just(At::Current),
        1 => arbitrary::<usize>().prop_map(At::Seen),
    ];
    let parts = (select(&VERBS[..]), select(&KEYS[..]), select(&PREFIXES[..]), select(&VALUES[..]));
    (parts, select(&[0, 0, 1, u64::MAX][..]), at, select(&[0, 0, 0, 0, 1, 2][..])).prop_map(
        |((verb, key, prefix, value), flags, at, session)| Verb {
            verb,
            key,
            prefix,
            value,
            flags,
            at,
            session,
        },
    )
}

/// One of the two sides.
#[derive(Clone, Copy)]
enum Side {
    Model,
    Real,
}

impl Side {
    fn pick<T>(self, (model, real): (T, T)) -> T {
        match self {
            Self::Model => model,
            Self::Real => real,
        }
    }

    fn session(self, relation: &Relation, number: usize) -> String {
        let none = "11111111-2222-4333-8444-555555555555".to_owned();
        relation.sessions.get(number).cloned().map_or(none, |pair| self.pick(pair))
    }
}

impl Step {
    /// What must be read before, so that the indexes of keys are known on both sides.
    pub(super) fn looks(&self, root: &str) -> Vec<Ask> {
        let verbs = match self {
            Self::Txn(verbs) => verbs.as_slice(),
            Self::Single(verb) => std::slice::from_ref(verb),
            _ => &[],
        };
        let needed = verbs.iter().filter(|verb| matches!(verb.at, At::Current));
        needed.map(|verb| Ask::new("GET", format!("/v1/kv/{root}{}", verb.key), &[])).collect()
    }

    /// The verbs of a transaction.
    pub(super) fn verbs(&self) -> impl Iterator<Item = &'static str> {
        let verbs = if let Self::Txn(verbs) = self { verbs.as_slice() } else { &[] };
        verbs.iter().map(|verb| verb.verb)
    }

    /// What the model and the real one are asked.
    pub(super) fn asks(&self, root: &str, relation: &Relation, current: &dyn Fn(&str) -> u64) -> (Ask, Ask) {
        let ask = |side| self.ask(root, relation, current, side);
        (ask(Side::Model), ask(Side::Real))
    }

    fn ask(&self, root: &str, relation: &Relation, current: &dyn Fn(&str) -> u64, side: Side) -> Ask {
        let session = |verb: &str, number: usize| {
            Ask::new("PUT", format!("/v1/session/{verb}/{}", side.session(relation, number)), &[])
        };
        let flag = |name: &'static str| (name, String::new());
        match self {
            Self::Txn(verbs) => {
                let ops: Vec<Value> = verbs
                    .iter()
                    .map(|verb| json!({"KV": verb.in_txn(root, relation, current, side)}))
                    .collect();
                Ask::new("PUT", "/v1/txn", &[]).with_body(Value::from(ops).to_string())
            }
            Self::Single(verb) => verb.alone(root, relation, current, side),
            Self::Keys(prefix, cut) => Ask::new(
                "GET",
                format!("/v1/kv/{root}{prefix}"),
                &[flag("keys"), ("separator", (*cut).to_owned())],
            ),
            Self::Recurse(prefix) => Ask::new("GET", format!("/v1/kv/{root}{prefix}"), &[flag("recurse")]),
            Self::NewSession(behavior, delay) => {
                let body = json!({"Behavior": behavior, "LockDelay": delay, "Checks": [], "TTL": "3600s", "Name": "n"});
                Ask::new("PUT", "/v1/session/create", &[]).with_body(body.to_string())
            }
            Self::EndSession(number) => session("destroy", *number),
            Self::RenewSession(number) => session("renew", *number),
            Self::SessionInfo(number) => Ask { method: "GET".into(), ..session("info", *number) },
        }
    }
}

impl Verb {
    fn index(&self, root: &str, relation: &Relation, current: &dyn Fn(&str) -> u64, side: Side) -> u64 {
        match self.at {
            At::Zero => 0,
            At::Seen(number) => side.pick(relation.seen(number)),
            At::Current => {
                let model = current(&format!("{root}{}", self.key));
                side.pick((model, relation.real_index(model).unwrap_or(0)))
            }
        }
    }

    fn in_txn(&self, root: &str, relation: &Relation, current: &dyn Fn(&str) -> u64, side: Side) -> Value {
        let name = if self.verb.ends_with("-tree") { self.prefix } else { self.key };
        let mut op = json!({"Verb": self.verb, "Key": format!("{root}{name}")});
        if ["set", "cas", "lock", "unlock"].contains(&self.verb) {
            op["Value"] = json!(BASE64_STANDARD.encode(self.value));
            op["Flags"] = json!(self.flags);
        }
        if ["cas", "check-index", "delete-cas"].contains(&self.verb) {
            op["Index"] = json!(self.index(root, relation, current, side));
        }
        if ["lock", "unlock", "check-session"].contains(&self.verb) {
            op["Session"] = json!(side.session(relation, self.session));
        }
        op
    }

    fn alone(&self, root: &str, relation: &Relation, current: &dyn Fn(&str) -> u64, side: Side) -> Ask {
        let key = format!("/v1/kv/{root}{}", self.key);
        let index = || ("cas", self.index(root, relation, current, side).to_string());
        let flags = ("flags", self.flags.to_string());
        let put = |parameter: (&str, String)| {
            Ask::new("PUT", key.clone(), &[flags.clone(), parameter]).with_body(self.value)
        };
        match self.verb {
            "set" => put(flags.clone()),
            "cas" => put(index()),
            "lock" => put(("acquire", side.session(relation, self.session))),
            "unlock" => put(("release", side.session(relation, self.session))),
            "delete" => Ask::new("DELETE", key, &[]),
            "delete-cas" => Ask::new("DELETE", key, &[index()]),
            "delete-tree" => {
                let recurse = [("recurse", String::new())];
                Ask::new("DELETE", format!("/v1/kv/{root}{}", self.prefix), &recurse)
            }
            "get-tree" => Ask::new("GET", key, &[("raw", String::new())]),
            _ => Ask::new("GET", key, &[]),
        }
    }
}
