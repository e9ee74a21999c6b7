//! What an HTTP request asks for. Pure.
//!
//! What Consul itself would refuse is refused here with its status and text (1.8.7), since a request that replication
//! reads otherwise than Consul must never reach Consul as a write.

mod namespace;
mod txn;

use http::Method;

use crate::{
    model::{
        kv::Op,
        session::SessionId,
        sync::{Position, Token},
    },
    sync::endpoint::{
        answer::escaped,
        message::{Request, Response},
    },
};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing that replication knows: Consul answers.
    Other,
    /// `GET /v1/kv/`
    Read(Read),
    /// `PUT` or `DELETE /v1/kv/`
    Write(Op),
    /// `PUT /v1/txn`
    Txn(Txn),
    /// `/v1/session/`
    Session(SessionAsk),
    /// `/v1/lock/`
    Lock(LockAsk),
    /// `/v1/sync/`
    Sync(SyncAsk),
}

/// Keys that are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The key, or what the keys begin with.
    pub key: String,
    /// What is wanted of it.
    pub what: What,
}

/// What is wanted of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The key with its indexes.
    Pair,
    /// `?raw`: the value.
    Value,
    /// `?recurse`: all keys that begin so.
    Tree,
    /// `?keys`: their names, up to and with the separator behind the beginning, if there is one.
    Keys(String),
}

impl Read {
    /// Whether it is about all keys that begin with [`Read::key`].
    pub fn is_tree(&self) -> bool {
        matches!(self.what, What::Tree | What::Keys(_))
    }
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// Its verbs on keys.
    pub ops: Vec<Op>,
    /// Whether it holds verbs on nodes, services, checks or sessions too.
    pub has_others: bool,
}

impl Txn {
    /// Whether it can change a key.
    pub fn is_write(&self) -> bool {
        self.ops.iter().any(Op::is_write)
    }
}

/// What is asked about sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAsk {
    /// `PUT create`
    Create,
    /// `PUT destroy/<id>`
    Destroy(SessionId),
    /// `PUT renew/<id>`
    Renew(SessionId),
    /// `GET info/<id>`
    Info(SessionId),
    /// `GET list`
    List,
}

/// What is asked about a lock by the HTTP lock API; the name of a lock is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockAsk {
    /// The key.
    pub key: String,
    /// What is to be done.
    pub act: LockAct,
}

/// What is to be done with a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockAct {
    /// `POST /v1/lock/<key>`
    Acquire,
    /// `PUT /v1/lock/<key>/renew`
    Renew,
    /// `PUT /v1/lock/<key>/release`
    Release,
    /// `GET /v1/lock/<key>`
    Look,
    /// `GET /v1/lock/<key>/leader`, also `?leader`: 200 to the holder, 429 to others, as load balancers want it.
    Leader,
}

/// What is asked about replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncAsk {
    /// `GET /v1/sync/status`
    Status,
    /// `POST /v1/sync/approve?prefix=`: take the home's data as it is.
    Approve(String),
    /// `POST /v1/sync/resync?prefix=`: compare all data with the home's.
    Resync(String),
}

/// What the endpoint's own headers ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `X-Sync-Min-Seq`: no older state than this one.
    pub min_seq: Option<Position>,
    /// `X-Lock` and `X-Lock-Token`: only while this token of this lock is the present one.
    pub guard: Option<(String, Token)>,
    /// `X-Sync-Request-Id`
    pub request_id: Option<String>,
}

impl Wishes {
    /// The request as Consul may see it: a server that answers `?stale` may be behind the leader, and so behind
    /// [`Wishes::min_seq`].
    pub fn recent(&self, request: Request) -> Request {
        if self.min_seq.is_some() { request.without_param("stale") } else { request }
    }
}

/// The longest request id that is taken: it stands in the journal.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// What a request asks for.
///
/// # Errors
/// The answer to a request that is wrong in itself.
pub fn ask(request: &Request) -> Result<Ask, Response> {
    if let Some(response) = ambiguous(request) {
        return Err(response);
    }
    let Some(path) = request.path.strip_prefix("/v1/") else { return Ok(Ask::Other) };
    if let Some(location) = moved(request) {
        return Err(Response::text(301, "").with("location", location));
    }
    if let Some(key) = path.strip_prefix("kv/") {
        return kv(request, key);
    }
    if path == "txn" && request.method == Method::PUT {
        return txn::txn(&request.body).map(Ask::Txn);
    }
    if let Some(rest) = path.strip_prefix("session/") {
        return session(request, rest);
    }
    if let Some(name) = path.strip_prefix("lock/") {
        namespace::none(request)?;
        return lock(request, name).map(Ask::Lock);
    }
    if let Some(rest) = path.strip_prefix("sync/") {
        return sync(request, rest).map(Ask::Sync);
    }
    Ok(Ask::Other)
}

/// The answer to a query that Consul may read otherwise than we do: before Go 1.17, as in Consul 1.8.7, a `;` separates
/// parameters as `&` does, and since then it does not.
pub fn ambiguous(request: &Request) -> Option<Response> {
    request.has_semicolon.then(|| Response::text(400, "write ; in a query as %3B, and & between parameters"))
}

/// What the endpoint's own headers ask for.
///
/// # Errors
/// The answer to a header that is not understood.
pub fn wishes(request: &Request, ask: &Ask) -> Result<Wishes, Response> {
    let bad = |name: &str, reason: &str| Err(Response::text(400, format!("{name}: {reason}")));
    let mut wishes = Wishes::default();
    if let Some(text) = request.header("x-sync-min-seq") {
        match text.parse() {
            Ok(position) => wishes.min_seq = Some(position),
            Err(error) => return bad("X-Sync-Min-Seq", &format!("{error}; send an X-Sync-Seq as it came")),
        }
    }
    let token = request.header("x-lock-token").map(str::parse);
    wishes.guard = match (request.header("x-lock"), token) {
        // Elsewhere it is the token of the lock that is asked about.
        _ if !matches!(ask, Ask::Write(_) | Ask::Txn(_)) => None,
        (None, None) => None,
        (Some(lock), Some(Ok(token))) => Some((lock.to_owned(), token)),
        (_, Some(Err(error))) => {
            return bad("X-Lock-Token", &format!("{error}; send the token as the lock gave it"));
        }
        _ => return bad("X-Lock", "it and X-Lock-Token come together; send both or none"),
    };
    if let Some(id) = request.header("x-sync-request-id") {
        if id.is_empty() || id.len() > MAX_REQUEST_ID_BYTES || !id.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return bad("X-Sync-Request-Id", "send 1 to 128 printable ASCII characters without spaces");
        }
        wishes.request_id = Some(id.to_owned());
    }
    Ok(wishes)
}

/// Where Consul's server of paths sends a client whose path is not the shortest one: `//`, `.` and `..` in it, escaped
/// or not.
fn moved(request: &Request) -> Option<String> {
    let clean = cleaned(&request.path);
    let moved = if clean != request.path {
        clean
    } else if request.path == "/v1/kv" {
        "/v1/kv/".to_owned()
    } else {
        return None;
    };
    let query = request.target.split_once('?').map_or_else(String::new, |(_, query)| format!("?{query}"));
    Some(format!("{}{query}", escaped(&moved)))
}

/// As Go's `path.Clean`, with a slash at the end kept.
fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    clean
}

fn kv(request: &Request, key: &str) -> Result<Ask, Response> {
    let ask = match request.method {
        Method::GET => read,
        Method::PUT => put,
        Method::DELETE => delete,
        // Consul takes no other, and does nothing.
        _ => return Ok(Ask::Other),
    };
    namespace::none(request)?;
    ask(request, key)
}

fn read(request: &Request, key: &str) -> Result<Ask, Response> {
    let what = if request.has("keys") {
        // Consul takes a historic misspelling too, and prefers the right one.
        let separator = request.param("separator").or(request.param("seperator"));
        What::Keys(separator.unwrap_or_default().to_owned())
    } else if request.has("recurse") {
        What::Tree
    } else if key.is_empty() {
        return Err(missing_key());
    } else if request.has("raw") {
        What::Value
    } else {
        What::Pair
    };
    Ok(Ask::Read(Read { key: key.to_owned(), what }))
}

fn put(request: &Request, key: &str) -> Result<Ask, Response> {
    if key.is_empty() {
        return Err(missing_key());
    }
    conflicting(request, &["cas", "acquire", "release"])?;
    let flags = number(request, "flags")?.unwrap_or(0);
    let cas = number(request, "cas")?;
    let (key, value) = (key.to_owned(), request.body.clone());
    let session = |name| request.param(name).map(SessionId::from);
    Ok(Ask::Write(if let Some(index) = cas {
        Op::Cas { key, value, flags, index }
    } else if let Some(session) = session("acquire") {
        Op::Lock { key, value, flags, session }
    } else if let Some(session) = session("release") {
        Op::Unlock { key, value, flags, session }
    } else {
        Op::Set { key, value, flags }
    }))
}

fn delete(request: &Request, key: &str) -> Result<Ask, Response> {
    conflicting(request, &["recurse", "cas"])?;
    if request.has("recurse") {
        return Ok(Ask::Write(Op::DeleteTree { prefix: key.to_owned() }));
    }
    if key.is_empty() {
        return Err(missing_key());
    }
    let key = key.to_owned();
    Ok(Ask::Write(match number(request, "cas")? {
        Some(index) => Op::DeleteCas { key, index },
        None => Op::Delete { key },
    }))
}

fn missing_key() -> Response {
    Response::text(400, "Missing key name")
}

fn conflicting(request: &Request, flags: &[&str]) -> Result<(), Response> {
    if flags.iter().filter(|flag| request.has(flag)).count() < 2 {
        return Ok(());
    }
    let mut given: Vec<String> =
        request.query.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    given.sort();
    Err(Response::text(400, format!("Conflicting flags: {}", given.join("&"))))
}

/// A number as Go's `strconv` reads it, with its errors.
fn number(request: &Request, name: &str) -> Result<Option<u64>, Response> {
    let Some(text) = request.param(name) else { return Ok(None) };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let problem = if is_number { "value out of range" } else { "invalid syntax" };
    match text.parse() {
        Ok(number) if is_number => Ok(Some(number)),
        _ => Err(Response::text(500, format!("strconv.ParseUint: parsing {text:?}: {problem}"))),
    }
}

fn session(request: &Request, rest: &str) -> Result<Ask, Response> {
    let (verb, id) = rest.split_once('/').unwrap_or((rest, ""));
    let id = |make: fn(SessionId) -> SessionAsk| {
        if id.is_empty() { Ask::Other } else { Ask::Session(make(SessionId::from(id))) }
    };
    let ask = match (&request.method, verb) {
        (&Method::PUT, "create") => Ask::Session(SessionAsk::Create),
        (&Method::PUT, "destroy") => id(SessionAsk::Destroy),
        (&Method::PUT, "renew") => id(SessionAsk::Renew),
        (&Method::GET, "info") => id(SessionAsk::Info),
        (&Method::GET, "list") => Ask::Session(SessionAsk::List),
        _ => return Ok(Ask::Other),
    };
    namespace::none(request)?;
    Ok(ask)
}

fn lock(request: &Request, name: &str) -> Result<LockAsk, Response> {
    let of = |key: &str, act| {
        if key.is_empty() || key.ends_with('/') {
            return Err(Response::text(400, "a lock is named by its key, such as /v1/lock/locks/deploy"));
        }
        Ok(LockAsk { key: key.to_owned(), act })
    };
    match request.method {
        Method::POST => of(name, LockAct::Acquire),
        Method::GET => match name.rsplit_once('/') {
            _ if request.has("leader") => of(name, LockAct::Leader),
            Some((key, "leader")) => of(key, LockAct::Leader),
            _ => of(name, LockAct::Look),
        },
        Method::PUT => match name.rsplit_once('/') {
            Some((key, "renew")) => of(key, LockAct::Renew),
            Some((key, "release")) => of(key, LockAct::Release),
            _ => Err(Response::text(400, "PUT ends in /renew or /release; POST acquires")),
        },
        _ => Err(wrong_method(&request.method, "GET,PUT,POST")),
    }
}

fn sync(request: &Request, rest: &str) -> Result<SyncAsk, Response> {
    let is_write = [Method::POST, Method::PUT].contains(&request.method);
    let prefix = || match request.param("prefix") {
        Some(prefix) if !prefix.is_empty() => Ok(prefix.to_owned()),
        _ => Err(Response::text(400, "name the prefix as it is configured, such as ?prefix=config/")),
    };
    match rest {
        "status" if request.method == Method::GET => Ok(SyncAsk::Status),
        "status" => Err(wrong_method(&request.method, "GET")),
        "approve" | "resync" if !is_write => Err(wrong_method(&request.method, "POST,PUT")),
        "approve" => prefix().map(SyncAsk::Approve),
        "resync" => prefix().map(SyncAsk::Resync),
        _ => Err(Response::text(
            404,
            format!("there is nothing at /v1/sync/{rest}; there are status, approve, resync"),
        )),
    }
}

fn wrong_method(method: &Method, allowed: &str) -> Response {
    Response::text(405, format!("method {method} not allowed")).with("allow", allowed)
}

#[cfg(test)]
mod tests;
