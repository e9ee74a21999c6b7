//! As much of HTTP/1.1 as the agent's client speaks.

use std::time::Duration;

use tokio::io::{AsyncReadExt, DuplexStream};

use crate::app::tests::land::Question;

/// An answer as bytes.
pub(super) fn response(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} said\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

/// What Consul is asked to wait.
pub(super) fn milliseconds(text: &str) -> Duration {
    Duration::from_millis(text.trim_end_matches("ms").parse().unwrap())
}

/// Waits until the client is gone: it says nothing while it waits for an answer.
pub(super) async fn gone(connection: &mut DuplexStream) {
    let mut byte = [0];
    let _ = connection.read(&mut byte).await;
}

/// The next question of a connection; none at its end.
pub(super) async fn read(connection: &mut DuplexStream) -> Option<Question> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head + length {
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let target = String::from_utf8_lossy(&bytes).split(' ').nth(1).unwrap().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let body = String::from_utf8_lossy(&bytes[head..]).into_owned();
    Some(Question { path: path.to_owned(), query, body })
}
