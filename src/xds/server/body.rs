//! Bodies of discovery streams that keep no room. tonic's own hold on to a buffer as large as the largest message that
//! went through, for as long as the stream lives: with one full configuration at the start and months of small
//! changes after it, that was half of a stream's memory.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes};
use futures_util::Stream;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame};
use prost::Message;
use tonic::{Status, body::Body};

/// gRPC's frame: whether the message is compressed, and its length.
const HEADER_BYTES: usize = 1 + size_of::<u32>();

/// tonic takes whole messages out of its buffer before it reads on. So much at once leaves the buffer at the size of
/// one request instead of the many that a client may send in one go.
const PIECE_BYTES: usize = 1024;

/// The body that belongs to a response, handed past tonic among the response's extensions.
#[derive(Clone)]
pub(super) struct Aside(Arc<Mutex<Option<Body>>>);

impl Aside {
    /// A body of these messages, none larger than `max_bytes`.
    pub(super) fn of<S, M>(messages: S, max_bytes: usize) -> Self
    where
        S: Stream<Item = Result<M, Status>> + Unpin + Send + 'static,
        M: Message + 'static,
    {
        let body = Body::new(Messages { messages: Some(messages), max_bytes });
        Self(Arc::new(Mutex::new(Some(body))))
    }

    /// Puts the body that was handed past tonic, if any, in the place of tonic's.
    pub(super) fn put_in_place(mut response: http::Response<Body>) -> http::Response<Body> {
        let aside = response.extensions_mut().remove::<Self>();
        let body = aside.and_then(|aside| aside.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        match body {
            Some(body) => response.map(|_| body),
            None => response,
        }
    }
}

/// Messages in gRPC's framing, each encoded into a buffer of its own, which goes when it is sent.
struct Messages<S> {
    /// None after the end.
    messages: Option<S>,
    max_bytes: usize,
}

impl<S, M> HttpBody for Messages<S>
where
    S: Stream<Item = Result<M, Status>> + Unpin,
    M: Message,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        let next = ready!(Pin::new(messages).poll_next(context)).unwrap_or_else(|| Err(Status::ok("")));
        let frame = match next.and_then(|message| framed(&message, self.max_bytes)) {
            Ok(bytes) => Frame::data(bytes),
            Err(status) => {
                self.messages = None;
                Frame::trailers(trailers(&status))
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none()
    }
}

fn framed(message: &impl Message, max_bytes: usize) -> Result<Bytes, Status> {
    let size = message.encoded_len();
    let too_large = || Status::out_of_range(format!("a response of {size} bytes; the limit is {max_bytes}"));
    let length = u32::try_from(size).ok().filter(|_| size <= max_bytes).ok_or_else(too_large)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + size);
    bytes.put_u8(0);
    bytes.put_u32(length);
    message.encode(&mut bytes).map_err(|error| Status::internal(error.to_string()))?;
    Ok(bytes.into())
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(unwritable) = status.add_header(&mut trailers) {
        // It speaks of a header only, in plain words: the stream ends with those instead.
        let _ = unwritable.add_header(&mut trailers);
    }
    trailers
}

/// A request's body, handed on in pieces.
pub(super) struct Pieces<B> {
    body: B,
    rest: Bytes,
}

impl<B> Pieces<B> {
    pub(super) fn of(body: B) -> Self {
        Self { body, rest: Bytes::new() }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Pieces<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.rest.is_empty() {
            let next = ready!(Pin::new(&mut self.body).poll_frame(context));
            match next.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let size = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio_stream::iter;
    use tonic::Code;

    use super::*;

    /// What a body of these messages is: its data, frame by frame, and the status at its end.
    async fn said(messages: Vec<Result<String, Status>>, max_bytes: usize) -> (Vec<Bytes>, Option<Status>) {
        let mut response = http::Response::new(Body::empty());
        response.extensions_mut().insert(Aside::of(iter(messages), max_bytes));
        let mut body = Aside::put_in_place(response).into_body();
        let (mut data, mut status) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            assert!(status.is_none(), "nothing follows the status");
            match frame.unwrap().into_data() {
                Ok(bytes) => data.push(bytes),
                Err(end) => status = end.trailers_ref().and_then(Status::from_header_map),
            }
        }
        (data, status)
    }

    #[tokio::test]
    async fn each_message_is_framed_and_the_end_has_a_status() {
        let (data, status) = said(vec![Ok("abc".to_owned()), Ok(String::new())], 100).await;
        // A string's own tag and length, and nothing for an empty one.
        assert_eq!(data, [&b"\0\0\0\0\x05\x0a\x03abc"[..], &b"\0\0\0\0\0"[..]]);
        assert_eq!(status.unwrap().code(), Code::Ok);
    }

    #[tokio::test]
    async fn a_refusal_is_told_after_what_was_sent() {
        let refused = Status::permission_denied("not yours: é");
        let (data, status) = said(vec![Ok("abc".to_owned()), Err(refused), Ok("late".to_owned())], 100).await;
        assert_eq!(data.len(), 1);
        let status = status.unwrap();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not yours: é"));
    }

    #[tokio::test]
    async fn a_message_beyond_the_limit_ends_the_stream() {
        let (data, status) = said(vec![Ok("x".repeat(99))], 100).await;
        assert!(data.is_empty());
        assert_eq!(status.unwrap().code(), Code::OutOfRange);
    }

    #[tokio::test]
    async fn a_request_is_the_same_in_pieces() {
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(3 * PIECE_BYTES + 1).collect();
        let trailers =
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
        let frames = [Frame::data(Bytes::from(sent.clone())), Frame::trailers(trailers.clone())];
        let mut body = Pieces::of(StreamBody::new(iter(frames.map(Ok::<_, Infallible>))));
        let (mut read, mut end) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            match frame.unwrap().into_data() {
                Ok(piece) if piece.len() <= PIECE_BYTES => read.extend(piece),
                Ok(piece) => panic!("{} bytes at once", piece.len()),
                Err(other) => end = other.into_trailers().ok(),
            }
        }
        assert_eq!(read, sent);
        assert_eq!(end, Some(trailers));
    }
}
