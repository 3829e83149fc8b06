//! The beginning of a body, read to see whether that is all of it.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What reading the beginning of a body came to.
pub enum Begun {
    /// That was all.
    Whole(Bytes),
    /// There is more, it broke off, or it was long in coming.
    More(Source),
}

/// A body whose first pieces were read already.
pub struct Source {
    /// Last one first.
    begun: Vec<Bytes>,
    body: Body,
    failed: Option<axum::Error>,
}

impl Source {
    /// The next piece.
    pub async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        if let Some(piece) = self.begun.pop() {
            return Some(Ok(piece));
        }
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        Some(self.body.frame().await?.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// A body again, from its beginning.
    pub fn into_body(self) -> Body {
        Body::from_stream(futures::stream::unfold(self, async |mut source| Some((source.next().await?, source))))
    }
}

/// Reads until more than `bytes` are there, or all, or `patience` is over. Takes at most one piece more than that.
pub async fn read(mut body: Body, bytes: usize, patience: Duration) -> Begun {
    let (mut begun, mut size, mut failed) = (Vec::new(), 0, None);
    let end = Instant::now() + patience;
    while size <= bytes && failed.is_none() {
        // A frame that was waited for in vain is still to come.
        let Ok(frame) = timeout_at(end, body.frame()).await else { break };
        match frame {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                size += data.len();
                begun.push(data);
                if body.is_end_stream() && size <= bytes {
                    return Begun::Whole(joined(begun, size));
                }
            }
            Some(Err(error)) => failed = Some(error),
            None => return Begun::Whole(joined(begun, size)),
        }
    }
    begun.reverse();
    Begun::More(Source { begun, body, failed })
}

fn joined(mut pieces: Vec<Bytes>, size: usize) -> Bytes {
    if pieces.len() < 2 {
        return pieces.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(size);
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn pieces(of: &'static [Result<&'static str, &'static str>]) -> Body {
        Body::from_stream(futures::stream::iter(of.iter().map(|piece| piece.map_err(std::io::Error::other))))
    }

    #[tokio::test]
    async fn a_body_is_whole_or_begins_again() {
        assert!(matches!(read(pieces(&[Ok("ab"), Ok("cd")]), 4, LONG).await, Begun::Whole(all) if all == "abcd"));
        assert!(matches!(read(Body::empty(), 0, LONG).await, Begun::Whole(all) if all.is_empty()));
        let Begun::More(source) = read(pieces(&[Ok("ab"), Ok("cd"), Ok("ef")]), 3, LONG).await else { panic!("there is more") };
        assert_eq!(source.into_body().collect().await.expect("a body").to_bytes(), "abcdef");
        let Begun::More(mut source) = read(pieces(&[Ok("ab"), Err("broken")]), 30, LONG).await else { panic!("it broke off") };
        assert!(source.next().await.is_some_and(|piece| piece.is_ok_and(|piece| piece == "ab")));
        assert!(source.next().await.is_some_and(|piece| piece.is_err()) && source.next().await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_is_long_in_coming_is_not_waited_for_and_not_lost() {
        let (send, pieces) = futures::channel::mpsc::unbounded::<Result<&str, std::io::Error>>();
        send.unbounded_send(Ok("ab")).expect("it is read");
        // What is there is taken, and nothing is waited for.
        let Begun::More(source) = read(Body::from_stream(pieces), 100, Duration::ZERO).await else { panic!("it is not all there") };
        send.unbounded_send(Ok("cd")).expect("it is read");
        drop(send);
        assert_eq!(source.into_body().collect().await.expect("a body").to_bytes(), "abcd");
    }
}
