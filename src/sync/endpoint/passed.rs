//! Answers that are passed on while they still come, so that their length bounds no memory.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt as _};

use crate::sync::{endpoint::message::Response, store::StoreError};

/// A body as it comes. Dropping it ends the exchange that it comes from. After an error there is nothing more: the body
/// has broken off.
pub type Pieces = BoxStream<'static, Result<Bytes, StoreError>>;

/// An answer.
pub enum Passed {
    /// All of it.
    Whole(Response),
    /// Its head, whose body is empty, and the body piece by piece.
    Coming(Response, Pieces),
}

impl Passed {
    /// The first value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (Self::Whole(head) | Self::Coming(head, _)) = self;
        head.header(name)
    }

    /// The same, which keeps something until the body has come or is dropped.
    #[must_use]
    pub fn keeping<T: Send + 'static>(self, kept: T) -> Self {
        match self {
            whole @ Self::Whole(_) => whole,
            Self::Coming(head, pieces) => {
                let pieces = pieces.inspect(move |_| {
                    let _ = &kept;
                });
                Self::Coming(head, pieces.boxed())
            }
        }
    }

    /// The whole answer. `is_read`: it changed nothing, whatever becomes of the answer.
    /// What is whole already is given as it is.
    ///
    /// # Errors
    /// It breaks off, or is longer than `limit` bytes: for a read [`StoreError::Refused`] with status 502, which is a
    /// gateway's word for an answer that it cannot pass on.
    pub async fn whole(self, limit: usize, is_read: bool) -> Result<Response, StoreError> {
        let (head, mut pieces) = match self {
            Self::Whole(whole) => return Ok(whole),
            Self::Coming(head, pieces) => (head, pieces),
        };
        let mut body = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            if body.len() + piece.len() > limit {
                return Err(too_long(limit, is_read));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Response { body: body.freeze(), ..head })
    }
}

impl std::fmt::Debug for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(whole) => whole.fmt(f),
            Self::Coming(head, _) => f.debug_tuple("Coming").field(head).finish(),
        }
    }
}

fn too_long(limit: usize, is_read: bool) -> StoreError {
    let what =
        format!("the answer is longer than {limit} bytes, the most that an agent passes on as a whole");
    if is_read {
        let reason = format!(
            "{what}; ask for less at once, such as ?keys or a longer prefix, or ask an agent of the home"
        );
        StoreError::Refused { status: 502, reason }
    } else {
        StoreError::Unknown(what)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream;

    use super::*;

    fn coming(pieces: Vec<Result<Bytes, StoreError>>) -> Passed {
        Passed::Coming(Response::text(200, ""), stream::iter(pieces).boxed())
    }

    #[tokio::test]
    async fn what_comes_is_whole_or_an_error_that_names_the_limit() {
        let pieces = || vec![Ok(Bytes::from_static(b"ab")), Ok(Bytes::from_static(b"c"))];
        assert_eq!(coming(pieces()).whole(3, true).await.unwrap().body, "abc");
        let Err(StoreError::Refused { status: 502, reason }) = coming(pieces()).whole(2, true).await else {
            panic!("3 bytes are more than 2");
        };
        assert!(reason.contains("2 bytes") && reason.contains("?keys"), "{reason}");
        assert!(matches!(coming(pieces()).whole(2, false).await, Err(StoreError::Unknown(_))));
        let broken = vec![Ok(Bytes::from_static(b"ab")), Err(StoreError::Unknown("cut".into()))];
        assert_eq!(coming(broken).whole(9, true).await, Err(StoreError::Unknown("cut".into())));
    }

    #[tokio::test]
    async fn what_is_kept_is_kept_until_the_body_is_gone() {
        let kept = Arc::new(());
        let passed = coming(vec![Ok(Bytes::new())]).keeping(kept.clone());
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(passed);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
