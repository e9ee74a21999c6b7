//! As much of HTTP/2 and gRPC as a client of one stream needs, frame by frame: an Envoy has cores of its own, so what a
//! client takes of those that are measured is to be as little as can be. Header blocks are read past, and windows are
//! opened once, for more than is ever sent.
#![allow(dead_code, reason = "each measurement uses a part of it")]

use std::{
    io::{self, ErrorKind},
    path::Path,
    time::Duration,
};

use bytes::{Buf as _, BufMut as _};
use prost::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// What every server takes.
const MAX_FRAME_BYTES: usize = 16_384;
const MAX_WINDOW: u32 = (1 << 31) - 1;
const FIRST_WINDOW: u32 = 65_535;
const STREAM: u32 = 1;
const READ_BYTES: usize = 16 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const INITIAL_WINDOW_SIZE: u16 = 4;

pub(crate) const ADS: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// One gRPC stream over a connection of its own.
pub(crate) struct Call {
    unix: UnixStream,
    /// Read and not yet looked at.
    input: Vec<u8>,
    /// The stream's data, as far as it is not taken.
    data: Vec<u8>,
    /// Read so far.
    pub(crate) bytes: u64,
    has_ended: bool,
}

/// Between two tries while the kernel's queue of the socket is full.
const QUEUE_FULL: Duration = Duration::from_millis(5);

async fn connect(socket: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::time::sleep(QUEUE_FULL).await,
            connected => return connected.unwrap(),
        }
    }
}

impl Call {
    pub(crate) async fn open(socket: &Path, path: &str) -> Self {
        let mut unix = connect(socket).await;
        let mut out = PREFACE.to_vec();
        frame(&mut out, SETTINGS, 0, 0, &settings());
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(MAX_WINDOW - FIRST_WINDOW).to_be_bytes());
        frame(&mut out, HEADERS, END_HEADERS, STREAM, &headers(path));
        unix.write_all(&out).await.unwrap();
        Self { unix, input: Vec::new(), data: Vec::new(), bytes: 0, has_ended: false }
    }

    pub(crate) async fn send(&mut self, message: &impl Message) {
        let length = u32::try_from(message.encoded_len()).unwrap();
        let mut data = vec![0];
        data.put_u32(length);
        message.encode(&mut data).unwrap();
        let mut out = Vec::with_capacity(data.len() + HEADER_BYTES);
        for piece in data.chunks(MAX_FRAME_BYTES) {
            frame(&mut out, DATA, 0, STREAM, piece);
        }
        self.unix.write_all(&out).await.unwrap();
    }

    /// The bytes of the next message.
    pub(crate) async fn next(&mut self) -> Vec<u8> {
        loop {
            if let Some(message) = self.take_message() {
                return message;
            }
            self.input.reserve(READ_BYTES);
            let read = self.unix.read_buf(&mut self.input).await.unwrap();
            assert!(read > 0, "the server goes on");
            self.bytes += u64::try_from(read).unwrap();
            self.take_frames().await.unwrap();
        }
    }

    /// Waits for an answer, whatever it says: a part of a message or, for who is not known, the end of the stream.
    pub(crate) async fn hears(&mut self) {
        while self.data.is_empty() && !self.has_ended {
            self.input.reserve(READ_BYTES);
            let read = self.unix.read_buf(&mut self.input).await.unwrap();
            assert!(read > 0, "the stream ends before its connection");
            self.take_frames().await.unwrap();
        }
    }

    fn take_message(&mut self) -> Option<Vec<u8>> {
        let mut rest = &self.data[..];
        if rest.len() < 1 + size_of::<u32>() {
            return None;
        }
        assert_eq!(rest.get_u8(), 0, "nothing is compressed");
        let length = usize::try_from(rest.get_u32()).unwrap();
        let message = rest.get(..length)?.to_vec();
        self.data.drain(..1 + size_of::<u32>() + length);
        if self.data.is_empty() {
            // What a whole configuration took is not kept.
            self.data = Vec::new();
        }
        Some(message)
    }

    async fn take_frames(&mut self) -> io::Result<()> {
        let mut from = 0;
        while let Some(header) = self.input.get(from..from + HEADER_BYTES) {
            let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let (kind, flags) = (header[3], header[4]);
            let start = from + HEADER_BYTES;
            let Some(payload) = self.input.get(start..start + length) else { break };
            match kind {
                DATA => {
                    assert_eq!(flags & PADDED, 0, "nothing is padded");
                    self.data.extend_from_slice(payload);
                }
                SETTINGS | PING if flags & ACK == 0 => {
                    let mut out = Vec::new();
                    frame(&mut out, kind, ACK, 0, if kind == PING { payload } else { &[] });
                    self.unix.write_all(&out).await?;
                }
                HEADERS if flags & END_STREAM != 0 => self.has_ended = true,
                // A server that has said all it will need not read on.
                RESET if self.has_ended => {}
                RESET | GOAWAY => panic!("the server ends the stream: {payload:?}"),
                _ => {}
            }
            from = start + length;
        }
        self.input.drain(..from);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(())
    }
}

fn settings() -> Vec<u8> {
    let mut settings = Vec::new();
    settings.put_u16(INITIAL_WINDOW_SIZE);
    settings.put_u32(MAX_WINDOW);
    settings
}

/// A header block without compression; the first numbers are those of HPACK's static table.
fn headers(path: &str) -> Vec<u8> {
    const METHOD_POST: u8 = 0x83;
    const SCHEME_HTTP: u8 = 0x86;
    const AUTHORITY: &[u8] = &[1];
    const PATH: &[u8] = &[4];
    const CONTENT_TYPE: &[u8] = &[0x0f, 0x10];
    let mut block = vec![METHOD_POST, SCHEME_HTTP];
    for (name, value) in [(AUTHORITY, "xds"), (PATH, path), (CONTENT_TYPE, "application/grpc")] {
        block.extend(name);
        text(&mut block, value);
    }
    block.push(0);
    text(&mut block, "te");
    text(&mut block, "trailers");
    block
}

fn text(block: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127, "a length of one byte");
    block.push(u8::try_from(text.len()).unwrap());
    block.extend(text.as_bytes());
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.put_u32(stream);
    out.extend(payload);
}
