//! Bytes between a stream of the link and a connection.

use super::{ALIVE, CHUNK, idle::Idle};
use bytes::Bytes;
use coracle_link::{Error, Stream};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// Both ways until both ends are done; either may close its half first. A peer that is gone while nothing goes either way is found by asking.
///
/// Where `limit` is given, it ends when nothing went either way for so long.
///
/// # Errors
/// The link's side ended before that.
pub async fn relay(socket: impl AsyncRead + AsyncWrite, stream: Box<dyn Stream>, limit: Option<Duration>) -> Result<(), Error> {
    let idle = Idle::new(limit.unwrap_or_default());
    let (mut read, mut write) = tokio::io::split(socket);
    let (mut send, mut recv) = stream.split();
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let frame = match timeout(ALIVE, read.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(length)) => {
                    idle.said();
                    Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default())
                }
                // Frames' bounds mean nothing, so an empty one is nothing but a question.
                Err(_) => Bytes::new(),
            };
            send.send(frame).await?;
        }
        send.finish().await
    };
    let inward = async {
        let mut open = true;
        while let Some(frame) = recv.recv().await? {
            idle.said();
            // What nobody reads any more is taken all the same: others may wait behind it.
            open = open && write.write_all(&frame).await.is_ok();
        }
        _ = write.shutdown().await;
        Ok(())
    };
    tokio::select! {
        done = async { tokio::try_join!(outward, inward) } => done.map(drop),
        () = idle.enough(), if limit.is_some() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_link::{memory, pki::Subject};

    #[tokio::test]
    async fn either_side_may_end_first_and_a_lost_peer_ends_it() {
        let (a, b) = memory::pair(Subject::default(), Subject::default());
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut ours = a.open().await.unwrap();
        ours.send(Bytes::from_static(b"question")).await.unwrap();
        ours.finish().await.unwrap();
        let relaying = tokio::spawn(relay(near, b.accept().await.unwrap(), None));
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"question", "the end has come through");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(ours.recv().await.unwrap().unwrap(), "answer");
        assert!(ours.recv().await.unwrap().is_none());
        relaying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn silence_is_asked_about() {
        let (a, b) = memory::pair(Subject::default(), Subject::default());
        let (near, _far) = tokio::io::duplex(1024);
        let mut ours = a.open().await.unwrap();
        ours.send(Bytes::from_static(b"x")).await.unwrap();
        let relaying = tokio::spawn(relay(near, b.accept().await.unwrap(), None));
        assert!(ours.recv().await.unwrap().unwrap().is_empty());
        drop(ours);
        assert!(relaying.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn silence_for_too_long_ends_it() {
        let (a, b) = memory::pair(Subject::default(), Subject::default());
        let (near, _far) = tokio::io::duplex(1024);
        let mut ours = a.open().await.unwrap();
        ours.send(Bytes::from_static(b"x")).await.unwrap();
        relay(near, b.accept().await.unwrap(), Some(Duration::from_millis(1))).await.unwrap();
    }
}
