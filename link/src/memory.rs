//! The link in memory: two connected ends in one process, for tests and simulation. Same frames, no sockets, no TLS.

use crate::{Connection, Error, Stream, frame::Framed, pki::Subject};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::{
    io::{DuplexStream, ReadHalf, WriteHalf},
    sync::{Mutex, mpsc, watch},
};

/// Bytes under way in one direction of a stream before `send` waits.
const WINDOW: usize = 64 << 10;
/// Streams opened and not yet accepted.
const BACKLOG: usize = 64;

type End = Framed<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

struct Memory {
    peer: Subject,
    open: mpsc::Sender<End>,
    accept: Mutex<mpsc::Receiver<End>>,
    close: Arc<watch::Sender<Option<String>>>,
}

/// Two ends: the first sees its peer as `a_sees`, the second as `b_sees`.
pub fn pair(a_sees: Subject, b_sees: Subject) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let (to_b, from_a) = mpsc::channel(BACKLOG);
    let (to_a, from_b) = mpsc::channel(BACKLOG);
    let close = Arc::new(watch::Sender::new(None));
    let a = Memory { peer: a_sees, open: to_b, accept: Mutex::new(from_b), close: close.clone() };
    let b = Memory { peer: b_sees, open: to_a, accept: Mutex::new(from_a), close };
    (Arc::new(a), Arc::new(b))
}

fn framed(end: DuplexStream) -> End {
    let (read, write) = tokio::io::split(end);
    Framed::new(read, write)
}

#[async_trait]
impl Connection for Memory {
    fn peer(&self) -> &Subject {
        &self.peer
    }

    async fn open(&self) -> Result<Box<dyn Stream>, Error> {
        if let Some(why) = self.close.borrow().clone() {
            return Err(Error::Closed(why));
        }
        let (ours, theirs) = tokio::io::duplex(WINDOW);
        self.open.send(framed(theirs)).await.map_err(|_| Error::Closed("the peer is gone".into()))?;
        Ok(Box::new(framed(ours)))
    }

    async fn accept(&self) -> Result<Box<dyn Stream>, Error> {
        let mut accept = self.accept.lock().await;
        tokio::select! {
            stream = accept.recv() => match stream {
                Some(stream) => Ok(Box::new(stream)),
                None => Err(Error::Closed("the peer is gone".into())),
            },
            why = self.closed() => Err(Error::Closed(why)),
        }
    }

    async fn closed(&self) -> String {
        let mut watch = self.close.subscribe();
        loop {
            if let Some(why) = watch.borrow_and_update().clone() {
                return why;
            }
            if watch.changed().await.is_err() {
                return "the peer is gone".into();
            }
        }
    }

    fn close(&self, why: &str) {
        self.close.send_if_modified(|now| now.is_none() && now.replace(why.to_string()).is_none());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.close("the connection was dropped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn named(name: &str) -> Subject {
        Subject { common_name: name.into(), organizations: vec![] }
    }

    #[tokio::test]
    async fn streams_both_ways_and_one_end_for_both() {
        let (a, b) = pair(named("b"), named("a"));
        assert_eq!(a.peer().common_name, "b");
        for (from, to) in [(&a, &b), (&b, &a)] {
            let mut out = from.open().await.unwrap();
            let mut stream = to.accept().await.unwrap();
            out.send(Bytes::from_static(b"one")).await.unwrap();
            out.finish().await.unwrap();
            assert_eq!(stream.recv().await.unwrap().unwrap(), "one");
            assert!(stream.recv().await.unwrap().is_none());
            stream.send(Bytes::from_static(b"two")).await.unwrap();
            assert_eq!(out.recv().await.unwrap().unwrap(), "two");
        }
        let waiting = tokio::spawn(async move { b.accept().await.err().map(|e| e.to_string()) });
        a.close("enough");
        assert!(waiting.await.unwrap().unwrap().contains("enough"));
        assert!(a.open().await.is_err());
    }
}
