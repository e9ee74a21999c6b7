use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    config::consul::{ConsulAddress, ConsulSettings},
    lifecycle::{self, Task},
};

const VALUE_BYTES: usize = 60_000;
const READING: Reading = Reading { is_consistent: true, wait: None, deadline: Duration::from_secs(10) };

/// A Consul that answers with a list of so many keys, made while it is sent, and how much of it has left. With
/// `is_whole` the list has its end.
async fn endless(keys: usize, is_whole: bool) -> (Client, Arc<AtomicUsize>, Task<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ConsulAddress::Http { authority: listener.local_addr().unwrap().to_string() };
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let task = lifecycle::spawn("endless.consul", async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        let _ = stream.read(&mut asked).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nX-Consul-KnownLeader: true\r\nConnection: close\r\n\r\n[";
        stream.write_all(head.as_bytes()).await.unwrap();
        let value = "AAAA".repeat(VALUE_BYTES / 3);
        for n in 0..keys {
            let comma = if n == 0 { "" } else { "," };
            let pair = format!(
                r#"{comma}{{"LockIndex":0,"Key":"many/{n:07}","Flags":0,"Value":"{value}","CreateIndex":1,"ModifyIndex":1}}"#
            );
            if stream.write_all(pair.as_bytes()).await.is_err() {
                return;
            }
            count.fetch_add(pair.len(), Ordering::SeqCst);
        }
        if is_whole {
            stream.write_all(b"]").await.unwrap();
        }
    });
    let settings = ConsulSettings { address, ..ConsulSettings::default() };
    (Client::new(settings).unwrap(), sent, task)
}

#[tokio::test]
async fn a_list_beyond_every_limit_of_bodies_is_never_in_memory_as_a_whole() {
    const KEYS: usize = 1000;
    let (client, sent, _task) = endless(KEYS, true).await;
    let (pages, mut coming) = mpsc::channel::<Vec<Pair>>(1);
    let watched = async {
        let (mut received, mut most_ahead, mut count) = (0, 0, 0);
        while let Some(page) = coming.recv().await {
            count += page.len();
            assert!(page.iter().all(|pair| pair.value.len() == VALUE_BYTES));
            received += page.iter().map(|pair| pair.value.len() / 3 * 4).sum::<usize>();
            most_ahead = most_ahead.max(sent.load(Ordering::SeqCst).saturating_sub(received));
        }
        (most_ahead, count)
    };
    let scan = async {
        let pages = pages;
        client.kv_scan("many/", READING, &pages).await
    };
    let (scanned, (most_ahead, count)) = tokio::join!(scan, watched);
    assert_eq!((scanned, count), (Ok((KEYS as u64, 7)), KEYS));
    assert!(sent.load(Ordering::SeqCst) > MAX_BODY_BYTES, "the list is longer than any body that is kept");
    // Sockets keep some MB of their own.
    assert!(most_ahead < 16 << 20, "{most_ahead} bytes were in flight at once");
}

#[tokio::test]
async fn a_list_that_ends_with_its_connection_is_no_list() {
    let (client, _, _task) = endless(3, false).await;
    let (pages, _coming) = mpsc::channel::<Vec<Pair>>(9);
    let error = client.kv_scan("many/", READING, &pages).await.unwrap_err();
    assert!(matches!(&error, KvError::Unusable(why) if why.contains("ends in its middle")), "{error}");
}
