//! The model of Consul against the real one: random programs run on both, request by request. Equal must be the status,
//! what is told, and how indexes stand to each other; the indexes themselves belong to two rafts.
//!
//! `SYNC_SEED=n` runs other programs, `SYNC_PROGRAMS=n` more of them. A program that differs is made as short as possible.

mod program;
mod relation;

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::{Value, json};

use self::{
    program::{Step, VERBS},
    relation::Relation,
};
use crate::{
    rig::parts::{Consul, PATIENCE},
    sync::consul_model::{Ask, Model, Shared, Told},
};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

/// Programs of each run.
const PROGRAMS: u32 = 150;

/// A model and a real Consul that were told the same.
struct Both {
    model: Model,
    real: SocketAddr,
    relation: Relation,
    /// The verbs of transactions, by whether they were committed.
    covered: BTreeSet<(&'static str, bool)>,
}

impl Both {
    /// Both hold the same one key, whose index no older one passes.
    fn new(real: SocketAddr) -> Self {
        let mut both =
            Self { model: Model::new(), real, relation: Relation::default(), covered: BTreeSet::new() };
        let emptied = both.real(&Ask::new("DELETE", "/v1/kv/", &[("recurse", String::new())]));
        assert_eq!(emptied.status, 200);
        let first = Ask::new("PUT", "/v1/kv/first", &[]);
        both.ask(&first, &first).unwrap();
        both
    }

    /// Asks both the same and compares.
    fn ask(&mut self, model: &Ask, real: &Ask) -> Result<(Told, Told), String> {
        let (model_told, real_told) = (self.model.answer(model), self.real(real));
        let compared = self.relation.compare(&model_told, &real_told);
        compared.map_err(|difference| {
            let text = |told: &Told| String::from_utf8_lossy(&told.body).into_owned();
            format!(
                "{difference}\nmodel was asked {model:?}\n and said {} {:?} {}\nreal was asked {real:?}\n and said {} {:?} {}",
                model_told.status, model_told.index, text(&model_told),
                real_told.status, real_told.index, text(&real_told),
            )
        })?;
        Ok((model_told, real_told))
    }

    fn run(&mut self, steps: &[Step], root: &str) -> Result<(), String> {
        for (at, step) in steps.iter().enumerate() {
            let looks = step.looks(root);
            for look in looks {
                self.ask(&look, &look)?;
            }
            let current = |key: &str| self.model.get(key).1.map_or(0, |pair| pair.modify_index);
            let (model, real) = step.asks(root, &self.relation, &current);
            let (model_told, real_told) =
                self.ask(&model, &real).map_err(|difference| format!("step {at}: {difference}"))?;
            self.relation.learn_session(&model_told, &real_told);
            self.covered.extend(step.verbs().map(|verb| (verb, real_told.status == 200)));
        }
        // What all of it left.
        let all = Ask::new("GET", format!("/v1/kv/{root}"), &[("recurse", String::new())]);
        self.ask(&all, &all).map(drop)
    }

    fn real(&self, ask: &Ask) -> Told {
        exchange(self.real, ask).unwrap_or_else(|error| panic!("{ask:?}: {error}"))
    }
}

/// One request to a real Consul.
fn exchange(to: SocketAddr, ask: &Ask) -> io::Result<Told> {
    let query: Vec<String> =
        ask.query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let (path, query, length) = (encoded(&ask.path), query.join("&"), ask.body.len());
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{} {path}?{query} HTTP/1.0\r\nHost: {to}\r\nContent-Length: {length}\r\n\r\n",
        ask.method
    )?;
    stream.write_all(&ask.body)?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let index = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("x-consul-index: ").map(str::to_owned))
        .and_then(|index| index.trim().parse().ok());
    Ok(Told { status, index, body: all[end + 4..].to_vec().into() })
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A number from the environment.
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

#[test]
fn the_model_answers_random_programs_as_a_real_consul_does() {
    let consul = Consul::registered(HOST);
    let seed = number("SYNC_SEED").unwrap_or(1);
    let cases = number("SYNC_PROGRAMS").map_or(PROGRAMS, |n| u32::try_from(n).unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let programs = std::cell::Cell::new(0);
    let covered = std::cell::RefCell::new(BTreeSet::new());
    let result = runner.run(&program::any(), |steps| {
        // Each program has keys of its own: what is buried below them is part of what is compared.
        programs.set(programs.get() + 1);
        let root = format!("p{}/", programs.get());
        let mut both = Both::new(consul.http);
        both.run(&steps, &root).map_err(TestCaseError::fail)?;
        covered.borrow_mut().extend(both.covered);
        Ok(())
    });
    if let Err(TestError::Fail(reason, steps)) = result {
        panic!("SYNC_SEED={seed}: {reason}\nthe shortest program:\n{steps:#?}");
    }
    let all = VERBS.iter().flat_map(|verb| [(*verb, true), (*verb, false)]).collect();
    assert_eq!(covered.into_inner(), all, "each verb was committed and rolled back");
}

/// Waiting and the end of sessions take real time, so that there is one case of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_and_waits_wake_as_in_a_real_consul() {
    let consul = tokio::task::spawn_blocking(|| Consul::registered(HOST)).await.unwrap();
    let mut both = Both::new(consul.http);
    let ids: Vec<(String, String)> = ["release", "delete"].map(|behavior| locked(&mut both, behavior)).into();
    let keys = ["release", "delete"].map(|key| format!("/v1/kv/{key}"));
    // Both before the first wait: the sessions end together.
    let indexes = keys.each_ref().map(|key| both.real(&Ask::new("GET", key, &[])).index.unwrap());
    let waits: Vec<Told> = keys
        .iter()
        .zip(indexes)
        .map(|(key, index)| {
            let began = causeway::lifecycle::now();
            let wait = [("index", index.to_string()), ("wait", "40s".to_owned())];
            let told = both.real(&Ask::new("GET", key, &wait));
            assert!(began.elapsed() < Duration::from_secs(25), "it ends after twice its TTL");
            told
        })
        .collect();
    assert_eq!((waits[0].status, waits[1].status), (200, 404));
    both.model.advance(Duration::from_secs(21));
    for key in keys {
        let look = Ask::new("GET", key, &[]);
        both.ask(&look, &look).unwrap();
    }
    for (model, real) in ids {
        let renew = |id: &str| Ask::new("PUT", format!("/v1/session/renew/{id}"), &[]);
        both.ask(&renew(&model), &renew(&real)).unwrap();
    }
    unrelated_writes(&both).await;
}

/// A lock held by a session with the shortest TTL.
fn locked(both: &mut Both, behavior: &str) -> (String, String) {
    let body = json!({"TTL": "10s", "LockDelay": "0s", "Behavior": behavior, "Checks": []}).to_string();
    let create = Ask::new("PUT", "/v1/session/create", &[]).with_body(body);
    let (model, real) = both.ask(&create, &create).unwrap();
    both.relation.learn_session(&model, &real);
    let id =
        |told: &Told| serde_json::from_slice::<Value>(&told.body).unwrap()["ID"].as_str().unwrap().to_owned();
    let ids = (id(&model), id(&real));
    let lock = |id: &str| {
        Ask::new("PUT", format!("/v1/kv/{behavior}"), &[("acquire", id.to_owned())]).with_body("held")
    };
    both.ask(&lock(&ids.0), &lock(&ids.1)).unwrap();
    ids
}

/// A wait on keys that are there sleeps through writes elsewhere; one on a prefix without keys does not.
async fn unrelated_writes(both: &Both) {
    let shared = Shared::new(Model::new());
    for is_empty in [false, true] {
        let prefix = if is_empty { "none/" } else { "some/" };
        let put =
            |key: &str, body: &str| Ask::new("PUT", format!("/v1/kv/{key}"), &[]).with_body(body.to_owned());
        let before = put("some/key", "x");
        both.real(&before);
        shared.ask(&before).await;
        let list = Ask::new("GET", format!("/v1/kv/{prefix}"), &[("recurse", String::new())]);
        let waiting = |index: u64| {
            let wait =
                [("recurse", String::new()), ("index", index.to_string()), ("wait", "400ms".to_owned())];
            Ask::new("GET", format!("/v1/kv/{prefix}"), &wait)
        };
        let (real, model) = (both.real(&list).index.unwrap(), shared.ask(&list).await.index.unwrap());
        let elsewhere = put("elsewhere", prefix);
        let (to, wait) = (both.real, waiting(real));
        let real_wait = tokio::task::spawn_blocking(move || exchange(to, &wait).unwrap());
        let model_wait = waiting(model);
        let model_wait = shared.ask(&model_wait);
        let writes = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            shared.ask(&elsewhere).await;
            both.real(&elsewhere);
        };
        let (model_told, (), real_told) = tokio::join!(model_wait, writes, real_wait);
        let has_woken = (model_told.index.unwrap() > model, real_told.unwrap().index.unwrap() > real);
        assert_eq!(has_woken, (is_empty, is_empty), "a wait on {prefix}");
    }
}
