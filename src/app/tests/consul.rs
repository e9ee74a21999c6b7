//! A simulated Consul: answers from the land over connections within the process, lets questions wait as Consul does, and
//! fails as it is told. It remembers what it said truthfully, which is what the agent may act on.

mod wire;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::Notify,
    time::sleep,
};

use crate::{
    app::tests::{
        consul::wire::{gone, milliseconds, read, response},
        fault::Planted,
        land::{DATACENTERS, Land, Question, Said, Waits},
        record::Record,
        trouble::{FILTERED, Scope, Trouble, words},
    },
    lifecycle,
};

/// What a connection holds before it is read.
const PIPE_BYTES: usize = 1 << 16;
/// How long Consul holds a question that does not say for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);

/// What a server knows: the land, and when each answer last changed.
#[derive(Clone)]
struct Server {
    land: Land,
    index: [u64; DATACENTERS],
    /// By question: the hash of the answer, and the index at which it changed.
    changed_at: BTreeMap<String, (u64, u64)>,
}

struct State {
    seed: u64,
    server: Server,
    /// One that hears nothing any more.
    left_behind: Option<Server>,
    saved: Option<Server>,
    /// Rises when a snapshot is restored.
    restored: u64,
    troubles: BTreeMap<usize, (Trouble, Scope)>,
    last_trouble: usize,
    /// How often each question was asked: what happens to it does not depend on others.
    asked: BTreeMap<String, u64>,
    /// The highest index that was told, by question.
    highest: BTreeMap<String, u64>,
    record: Record,
    planted: Option<Planted>,
    /// Questions that the land has no answer to.
    unknown: Vec<String>,
    /// How many questions met which trouble.
    met: BTreeMap<&'static str, u64>,
    trace: Vec<String>,
}

/// All of it. Clones are the same one.
#[derive(Clone)]
pub(super) struct Consul(Arc<(Mutex<State>, Notify)>);

/// What goes over the connection.
enum Reply {
    Full(Vec<u8>),
    /// This, and then the end.
    Cut(Vec<u8>),
    Nothing,
}

/// A number that is the same in every run.
fn hash(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    hash.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Server {
    /// When an answer last changed.
    fn index_of(&mut self, key: &str, datacenter: usize, said: &Said) -> u64 {
        let now = (hash(&said.body), self.index[datacenter]);
        let known = self.changed_at.entry(key.to_owned()).or_insert(now);
        if known.0 != now.0 {
            *known = now;
        }
        known.1
    }
}

impl Consul {
    pub(super) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let server = Server { land: Land::new(), index: [100; DATACENTERS], changed_at: BTreeMap::new() };
        let state = State {
            seed,
            server,
            left_behind: None,
            saved: None,
            restored: 0,
            troubles: BTreeMap::new(),
            last_trouble: 0,
            asked: BTreeMap::new(),
            highest: BTreeMap::new(),
            record: Record::default(),
            planted,
            unknown: Vec::new(),
            met: BTreeMap::new(),
            trace: Vec::new(),
        };
        Self(Arc::new((Mutex::new(state), Notify::new())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    fn wake(&self) {
        self.0.1.notify_waiters();
    }

    /// The truth as it is now.
    pub(super) fn land(&self) -> Land {
        self.state().server.land.clone()
    }

    /// Reads what was said.
    pub(super) fn record<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&self.state().record)
    }

    /// What nobody here can answer.
    pub(super) fn unknown(&self) -> Vec<String> {
        self.state().unknown.clone()
    }

    /// How many questions met which trouble.
    pub(super) fn met(&self) -> BTreeMap<&'static str, u64> {
        self.state().met.clone()
    }

    /// What was asked and answered, in order.
    pub(super) fn trace(&self) -> Vec<String> {
        self.state().trace.clone()
    }

    /// Changes the truth. Some questions about other things wake up as well, as tables are shared.
    pub(super) fn change(&self, change: impl FnOnce(&mut Land)) {
        let mut state = self.state();
        let mut rng = state.rng("change");
        let server = &mut state.server;
        server.land.touched += 1;
        change(&mut server.land);
        server.index.iter_mut().for_each(|index| *index += 1 + rng.u64(0..5));
        let index = server.index;
        for (key, known) in &mut server.changed_at {
            if rng.u32(0..8) == 0 {
                known.1 =
                    index[usize::from(key.contains("dc=dc2")) + 2 * usize::from(key.contains("dc=dc3"))];
            }
        }
        drop(state);
        self.wake();
    }

    /// Keeps a snapshot.
    pub(super) fn save(&self) {
        let mut state = self.state();
        state.saved = Some(state.server.clone());
    }

    /// Restores it: indexes go back. What is registered with the local agent stays.
    pub(super) fn restore(&self) {
        let mut state = self.state();
        if let Some(mut saved) = state.saved.clone() {
            saved.land.upstreams.clone_from(&state.server.land.upstreams);
            // As where a cluster is made anew from it: indexes begin far behind.
            saved.index.iter_mut().for_each(|index| *index /= 2);
            saved.changed_at.values_mut().for_each(|known| known.1 /= 2);
            state.restored += 1;
            saved.land.restored = state.restored;
            state.server = saved;
        }
        drop(state);
        self.wake();
    }

    /// Something goes wrong, until it is mended.
    pub(super) fn trouble(&self, trouble: Trouble, scope: Scope) -> usize {
        let mut state = self.state();
        state.last_trouble += 1;
        let number = state.last_trouble;
        state.troubles.insert(number, (trouble, scope));
        if trouble == Trouble::Stale {
            state.left_behind = Some(state.server.clone());
        }
        drop(state);
        self.wake();
        number
    }

    pub(super) fn mend(&self, number: usize) {
        self.state().troubles.remove(&number);
        self.wake();
    }

    /// Nothing is wrong any more.
    pub(super) fn mend_all(&self) {
        self.state().troubles.clear();
        self.wake();
    }

    /// Opens a connection.
    pub(super) fn dial(&self) -> io::Result<DuplexStream> {
        let is_refused =
            |(trouble, scope): &(Trouble, Scope)| (*trouble, *scope) == (Trouble::Refused, Scope::All);
        let mut state = self.state();
        if state.troubles.values().any(is_refused) {
            *state.met.entry(Trouble::Refused.name()).or_default() += 1;
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        drop(state);
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        self.serve(ours);
        Ok(theirs)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a connection has no owner: it ends with its client or the runtime"
    )]
    fn serve(&self, mut connection: DuplexStream) {
        let consul = self.clone();
        tokio::spawn(async move {
            while let Some(question) = read(&mut connection).await {
                let reply = tokio::select! {
                    biased;
                    reply = consul.answer(&question) => reply,
                    () = gone(&mut connection) => return,
                };
                let done = match &reply {
                    Reply::Full(bytes) | Reply::Cut(bytes) => connection.write_all(bytes).await,
                    Reply::Nothing => return,
                };
                if done.is_err() || matches!(reply, Reply::Cut(_)) {
                    return;
                }
            }
        });
    }

    async fn answer(&self, question: &Question) -> Reply {
        let key = question.key();
        let mut rng = self.state().rng(&key);
        sleep(Duration::from_micros(rng.u64(200..5_000))).await;
        let waits_to_the_end = rng.bool();
        let began = lifecycle::now();
        let wait = question.query.get("wait").map_or(DEFAULT_WAIT, |text| milliseconds(text));
        let mut restored = self.state().restored;
        loop {
            let mut change = std::pin::pin!(self.0.1.notified());
            change.as_mut().enable();
            let now = self.state().restored;
            let is_abandoned = now != restored && !waits_to_the_end;
            restored = now;
            let is_over = lifecycle::now() >= began + wait || is_abandoned;
            let looked = self.state().look(question, &key, is_over);
            match looked {
                Looked::Say(reply, pause) => {
                    sleep(pause).await;
                    return reply;
                }
                Looked::Hang => std::future::pending().await,
                Looked::Wait => {}
            }
            tokio::select! {
                () = change => {}
                () = tokio::time::sleep_until(began + wait) => {}
            }
        }
    }
}

/// What is to be done about a question now.
enum Looked {
    /// After a pause.
    Say(Reply, Duration),
    Wait,
    Hang,
}

impl State {
    /// What is drawn next on a lane.
    fn rng(&mut self, lane: &str) -> fastrand::Rng {
        let count = self.asked.entry(lane.to_owned()).or_default();
        *count += 1;
        fastrand::Rng::with_seed(hash(&format!("{lane} {count} {}", self.seed)))
    }

    fn look(&mut self, question: &Question, key: &str, is_over: bool) -> Looked {
        let (number, datacenter) = (hash(key), question.datacenter());
        let covers = |(_, scope): &&(Trouble, Scope)| scope.covers(number, datacenter);
        let hides = |(trouble, _): &&(Trouble, Scope)| *trouble == Trouble::Hidden;
        let is_sight = question.is_sight();
        let mut troubles = self.troubles.values();
        let trouble = match self.planted {
            Some(planted) if is_sight && planted.is_blind() => None,
            // Who is not shown something of a list is not shown all there is.
            _ if is_sight && troubles.any(|trouble| hides(&trouble)) => Some(Trouble::Hidden),
            _ => self.troubles.values().find(covers).map(|(trouble, _)| *trouble),
        };
        let pause = match trouble {
            Some(Trouble::Slow(ms)) => Duration::from_millis(ms),
            _ => Duration::ZERO,
        };
        // Nothing is hidden of what is no list.
        let trouble = trouble.filter(|trouble| *trouble != Trouble::Hidden || self.lists(question));
        let looked = match trouble {
            Some(Trouble::Unapplied) if !self.knows(question) => {
                if question.query.contains_key("index") && !is_over {
                    return Looked::Wait;
                }
                self.trace(&format!("{:?} {key}", Trouble::Unapplied));
                Looked::Say(Reply::Full(response(200, "x-consul-index: 1\r\n", "[]")), pause)
            }
            None | Some(Trouble::Stale | Trouble::Slow(_) | Trouble::Unapplied) => {
                match self.truth(question, key, is_over) {
                    Some(reply) => Looked::Say(reply, pause),
                    None => return Looked::Wait,
                }
            }
            Some(Trouble::Hung) => Looked::Hang,
            Some(trouble) => {
                self.trace(&format!("{trouble:?} {key}"));
                Looked::Say(self.failure(trouble, question, key), pause)
            }
        };
        if let Some(trouble) = trouble {
            *self.met.entry(trouble.name()).or_default() += 1;
        }
        looked
    }

    /// Whether a leader that has not applied its log has an answer to this: if it is made to apply it first, or has
    /// nothing to list.
    fn knows(&self, question: &Question) -> bool {
        let is_sure = question.is_consistent() && self.planted != Some(Planted::UnappliedIsTrue);
        is_sure || !self.lists(question)
    }

    /// Whether the answer is a list.
    fn lists(&self, question: &Question) -> bool {
        self.server.land.answer(question).is_some_and(|said| said.body.starts_with('['))
    }

    /// The truthful answer, unless it is what is waited on.
    fn truth(&mut self, question: &Question, key: &str, is_over: bool) -> Option<Reply> {
        let is_left = |(trouble, scope): &(Trouble, Scope)| {
            *trouble == Trouble::Stale && scope.covers(hash(key), question.datacenter())
        };
        let is_stale = !question.is_consistent() && self.troubles.values().any(is_left);
        let server = match &mut self.left_behind {
            Some(server) if is_stale => server,
            _ => &mut self.server,
        };
        let Some(said) = server.land.answer(question) else {
            self.unknown.push(key.to_owned());
            return Some(Reply::Nothing);
        };
        let index = server.index_of(key, question.datacenter(), &said);
        let waits_on = |name: &str| question.query.get(name);
        let hash = format!("{:016x}", hash(&said.body));
        let is_known = match said.waits {
            Waits::Never => false,
            Waits::Index => {
                waits_on("index").and_then(|text| text.parse().ok()).is_some_and(|at| index <= at)
            }
            Waits::Hash => said.status == 200 && waits_on("hash") == Some(&hash),
        };
        if is_known && !is_over {
            return None;
        }
        let index = self.told(key, index);
        self.record.said(key, lifecycle::now(), &said);
        self.trace(&format!("{} {index} {hash} {key}", said.status));
        let header = match said.waits {
            Waits::Never => String::new(),
            Waits::Index => format!("x-consul-index: {index}\r\nx-consul-knownleader: true\r\n"),
            Waits::Hash if said.status == 200 => format!("x-consul-contenthash: {hash}\r\n"),
            Waits::Hash => String::new(),
        };
        Some(Reply::Full(response(said.status, &header, &said.body)))
    }

    /// The index that is told.
    fn told(&mut self, key: &str, index: u64) -> u64 {
        let highest = self.highest.entry(key.to_owned()).or_default();
        *highest = index.max(*highest);
        if self.planted == Some(Planted::IndexNeverBack) { *highest } else { index }
    }

    fn failure(&mut self, trouble: Trouble, question: &Question, key: &str) -> Reply {
        let said = self.server.land.answer(question);
        let is_list = said.as_ref().is_some_and(|said| said.body.starts_with('['));
        let body = said.map(|said| said.body).unwrap_or_default();
        let index = format!("x-consul-index: {}\r\n", self.server.index[question.datacenter()]);
        let is_emptied = match self.planted {
            Some(Planted::FailureIsEmpty) => key.contains("/health/"),
            Some(Planted::FailureIsNoService) => key.contains("/ui/services"),
            _ => false,
        };
        match trouble {
            Trouble::Status(_) if is_emptied => Reply::Full(response(200, &index, "[]")),
            Trouble::Status(status) => Reply::Full(response(status, "", words(status))),
            Trouble::Filtered if is_list && !key.contains("intentions") => {
                let told = if self.planted == Some(Planted::FilteredIsEmpty) { "" } else { FILTERED };
                Reply::Full(response(200, &format!("{index}{told}"), "[]"))
            }
            Trouble::Filtered => Reply::Full(response(403, "", "Permission denied")),
            Trouble::Hidden => Reply::Full(response(200, &index, "[]")),
            Trouble::Truncated => {
                let whole = response(200, &index, &body);
                Reply::Cut(whole[..whole.len() - body.len() / 2 - 1].to_vec())
            }
            Trouble::Garbage => Reply::Full(response(200, &index, "<html>upstream request timeout</html>")),
            Trouble::WrongShape if is_list => Reply::Full(response(200, &index, r#"{"Error":"no"}"#)),
            Trouble::WrongShape => Reply::Full(response(200, &index, r#"["no"]"#)),
            Trouble::Refused | Trouble::Hung | Trouble::Slow(_) | Trouble::Stale | Trouble::Unapplied => {
                Reply::Nothing
            }
        }
    }

    fn trace(&mut self, line: &str) {
        self.trace.push(format!("{:?} {line}", self.record.moment(lifecycle::now())));
    }
}
