//! What clients, other agents and Consul's KV say to replication.

use std::fmt::Debug;

use bytes::Bytes;
use causeway::{
    consul::wire,
    model::sync::{Position, Token},
    sync::{
        endpoint::{
            ask::{Ask, ask, wishes},
            audit, merge,
            message::{Request, Response},
            translate::{self, Shown},
        },
        lock,
        peer::{convert, wire as pb},
        record::{self, Doer, Entry, Epochs, Head, State},
    },
};
use http::Method;
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};

use super::kind_and_rest;

/// `METHOD target`, headers a line each, an empty line, the body.
pub(super) fn http_request(bytes: &[u8]) {
    let at = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let body = Bytes::copy_from_slice(bytes.get(at + 2..).unwrap_or_default());
    let mut lines = head.lines();
    let (method, target) = lines.next().and_then(|line| line.split_once(' ')).unwrap_or(("GET", "/"));
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::PUT);
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let request = Request::new(method.clone(), target, headers, body.clone());
    let asked = ask(&request);
    if let Ok(asked) = &asked {
        let _ = wishes(&request, asked);
        let _ = audit::lines(asked, &Response::json(200, "true"));
    }
    // What goes on to Consul must be read there as it was read here.
    let again = Request::new(method, &request.target, request.headers.clone(), body.clone());
    assert_eq!((&again.path, &again.query), (&request.path, &request.query), "the target goes on otherwise");
    assert!(again.token.is_none(), "a token is left in what goes on");
    assert_eq!(ask(&again), asked);
    let _ = request.clone().without_param("wait");
    if let Ok(Ask::Txn(txn)) = asked
        && !txn.has_others
    {
        let written = wire::kv::txn(&txn.ops);
        let request = Request::new(Method::PUT, "/v1/txn", Vec::new(), written);
        assert_eq!(ask(&request), Ok(Ask::Txn(txn)), "the transaction goes on otherwise");
    }
    let _ = lock::wire::acquire(&body, lock::wire::LockDefaults::default());
    let _ = lock::wire::token(None, &body);
    dotted(&String::from_utf8_lossy(&body));
}

fn dotted(text: &str) {
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.to_string().parse(), Ok(token));
    }
}

/// Answers of Consul's that are shown with other indexes, or put together.
pub(super) fn http_answer(bytes: &[u8]) {
    let shown = |key: &str, modify: u64| match key.len() % 2 {
        0 => Shown::As { create: modify / 2, modify, lock: 0 },
        _ => Shown::Unknown,
    };
    if let Ok(translated) = translate::pairs(bytes, shown) {
        assert!(translate::pairs(&translated.body, shown).is_ok(), "what was translated is no list any more");
    }
    if let Ok(translated) = translate::txn(bytes, shown) {
        assert!(translate::txn(&translated.body, shown).is_ok(), "what was translated is no answer any more");
    }
    if let Ok(merged) = merge::pairs(bytes, &["config/"], &[bytes]) {
        let again = merge::pairs(merged.as_bytes(), &[], &[]);
        assert_eq!(again.as_ref(), Ok(&merged));
    }
    let _ = merge::keys(bytes, &["config/"], &[bytes], "conf", "/");
}

/// By the first byte, one message of another agent's: read, written, and read again the same.
pub(super) fn peer_message(bytes: &[u8]) {
    let Some((kind, rest)) = kind_and_rest(bytes) else { return };
    match kind % 7 {
        0 => trip(rest, convert::hello_in, convert::hello_out),
        1 => trip(rest, convert::hello_reply_in, convert::hello_reply_out),
        2 => trip(rest, convert::forward_in, convert::forward_out),
        3 => {
            let Ok(message) = pb::ForwardReply::decode(rest) else { return };
            let Ok(read) = convert::forwarded_in(message) else { return };
            let parts = convert::forwarded_out(read.clone());
            assert!(convert::forwarded_in(parts[0].clone()).is_ok_and(|again| again == read));
        }
        4 => {
            let Ok(message) = pb::FollowUp::decode(rest) else { return };
            if let Ok(start) = convert::start_in(message.clone()) {
                assert_eq!(convert::start_in(convert::start_out(start.clone())), Ok(start));
            }
            if let Ok(position) = convert::ack_in(message) {
                assert_eq!(convert::ack_in(convert::ack_out(position)), Ok(position));
            }
        }
        5 => {
            let Ok(message) = pb::FollowDown::decode(rest) else { return };
            for compare in [false, true] {
                let Ok(item) = convert::item_in(message.clone(), compare) else { continue };
                // An entry with more than this release knows is not handed on.
                let Ok(parts) = convert::item_out(item.clone()) else { continue };
                let [part] = &parts[..] else { continue };
                assert_eq!(convert::item_in(part.clone(), compare), Ok(item));
            }
        }
        _ => trip(rest, convert::absent_in, convert::absent_out),
    }
}

fn trip<M: Message + Default, T: Clone + PartialEq, E>(
    bytes: &[u8],
    read: fn(M) -> Result<T, E>,
    written: fn(T) -> M,
) {
    let Ok(message) = M::decode(bytes) else { return };
    let Ok(value) = read(message) else { return };
    let again = M::decode(&*written(value.clone()).encode_to_vec()).ok().and_then(|again| read(again).ok());
    assert!(again == Some(value), "it reads otherwise when written again");
}

/// A record in Consul's KV, whatever it may be.
pub(super) fn record(bytes: &[u8]) {
    fn trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
        let Ok(record) = record::decode::<T>("k", bytes) else { return };
        assert_eq!(record::decode::<T>("k", &record::encode(&record)).unwrap(), record);
    }
    trip::<Head>(bytes);
    trip::<Epochs>(bytes);
    trip::<Entry>(bytes);
    trip::<State>(bytes);
    trip::<Doer>(bytes);
}
