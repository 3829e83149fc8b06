//! A framed stream as a plain byte stream, for HTTP and raw TCP over the link.
//!
//! Each frame's payload is a piece of the stream; frame boundaries mean nothing. tokio_util's StreamReader and SinkWriter were not
//! taken: a sink's close cannot half-close the stream, which TCP needs.

use crate::{Error, RecvHalf, SendHalf, Stream};
use bytes::{Buf, Bytes};
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Largest payload that one write makes.
const PIECE: usize = 64 << 10;

type Receiving = Pin<Box<dyn Future<Output = (Box<dyn RecvHalf>, Result<Option<Bytes>, Error>)> + Send>>;
type Sending = Pin<Box<dyn Future<Output = (Box<dyn SendHalf>, Result<(), Error>)> + Send>>;

enum Read {
    Idle(Box<dyn RecvHalf>),
    Waiting(Receiving),
    Ended,
}

enum Write {
    Idle(Box<dyn SendHalf>),
    Sending(Sending),
    Finishing(Sending),
    Ended,
}

/// See the module.
pub struct ByteStream {
    read: Read,
    rest: Bytes,
    write: Write,
}

impl ByteStream {
    /// Over a stream whose opening messages are done.
    pub fn new(stream: Box<dyn Stream>) -> Self {
        let (send, recv) = stream.split();
        Self { read: Read::Idle(recv), rest: Bytes::new(), write: Write::Idle(send) }
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Write::Sending(sending) | Write::Finishing(sending) = &mut self.write {
            let (half, result) = ready!(sending.as_mut().poll(cx));
            let finished = matches!(self.write, Write::Finishing(_));
            self.write = if finished || result.is_err() { Write::Ended } else { Write::Idle(half) };
            result.map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

impl AsyncRead for ByteStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.rest.is_empty() {
                let n = this.rest.len().min(buf.remaining());
                buf.put_slice(&this.rest[..n]);
                this.rest.advance(n);
                return Poll::Ready(Ok(()));
            }
            match std::mem::replace(&mut this.read, Read::Ended) {
                Read::Ended => return Poll::Ready(Ok(())),
                Read::Idle(mut half) => {
                    this.read = Read::Waiting(Box::pin(async move {
                        let got = half.recv().await;
                        (half, got)
                    }));
                }
                Read::Waiting(mut waiting) => match waiting.as_mut().poll(cx) {
                    Poll::Pending => {
                        this.read = Read::Waiting(waiting);
                        return Poll::Pending;
                    }
                    Poll::Ready((half, Ok(Some(bytes)))) => {
                        this.read = Read::Idle(half);
                        this.rest = bytes;
                    }
                    Poll::Ready((_, Ok(None))) => return Poll::Ready(Ok(())),
                    Poll::Ready((_, Err(error))) => return Poll::Ready(Err(broken(error))),
                },
            }
        }
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        match std::mem::replace(&mut self.write, Write::Ended) {
            Write::Idle(mut half) => {
                let piece = buf.get(..PIECE).unwrap_or(buf);
                let frame = Bytes::copy_from_slice(piece);
                self.write = Write::Sending(Box::pin(async move {
                    let sent = half.send(frame).await;
                    (half, sent)
                }));
                // Started now, so that the bytes go out although nobody flushes; taken, so that the next write waits for it.
                if let Poll::Ready(Err(error)) = self.poll_sent(cx) {
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(piece.len()))
            }
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        if let Write::Idle(mut half) = std::mem::replace(&mut self.write, Write::Ended) {
            self.write = Write::Finishing(Box::pin(async move {
                let finished = half.finish().await;
                (half, finished)
            }));
        }
        self.poll_sent(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory, pki::Subject};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_pass_both_ways_and_ends_are_half_closes() {
        let (a, b) = memory::pair(Subject::default(), Subject::default());
        let mut near = ByteStream::new(a.open().await.unwrap());
        let mut far = ByteStream::new(b.accept().await.unwrap());
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let copy = sent.clone();
        let far = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            far.write_all(b"thanks").await.unwrap();
            far.shutdown().await.unwrap();
            got
        });
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "thanks");
        assert_eq!(far.await.unwrap(), copy);
        assert!(near.write_all(b"more").await.is_err());
    }
}
