//! A relay between an agent and its Consul that remembers what was asked over each connection, and which are open.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

#[derive(Default)]
struct Seen {
    /// The lines that begin requests, over all connections.
    requests: Vec<String>,
    /// The last request of each connection that is open, by its number.
    open: std::collections::BTreeMap<usize, String>,
}

/// Its threads end with their connections; the one that accepts ends with the process.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Relay {
    pub(super) fn start(host: Ipv4Addr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Seen>>::default());
        let shared = seen.clone();
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let Ok(server) = TcpStream::connect(to) else { continue };
                let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let seen = shared.clone();
                std::thread::spawn(move || {
                    pass(client, server, |piece| seen.lock().unwrap().ask(number, piece))
                });
                let seen = shared.clone();
                std::thread::spawn(move || {
                    pass(back, forth, |_| {});
                    seen.lock().unwrap().open.remove(&number);
                });
            }
        });
        Self { address, seen }
    }

    /// How many connections are open whose last request has this in its first line.
    pub(super) fn at(&self, request: &str) -> usize {
        self.seen.lock().unwrap().open.values().filter(|line| line.contains(request)).count()
    }

    /// Whether something was ever asked.
    pub(super) fn has_seen(&self, request: &str) -> bool {
        self.seen.lock().unwrap().requests.iter().any(|line| line.contains(request))
    }
}

impl Seen {
    /// Requests come in one piece here: they are small and have no body, or one that is not looked at.
    fn ask(&mut self, number: usize, piece: &[u8]) {
        let text = String::from_utf8_lossy(piece);
        if let Some(line) = text.lines().next().filter(|line| line.ends_with(" HTTP/1.1")) {
            self.requests.push(line.to_owned());
            self.open.insert(number, line.to_owned());
        }
    }
}

/// Passes on what comes until one of the two is at its end; then both are.
fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        look(&piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
