//! The way to the API server from every pod: the node listens at the `kubernetes` Service's own address and passes bytes on, TLS and all.
//!
//! An API server on this machine's loopback cannot be reached from a pod's network by rules of the kernel; one that a node reaches and its pods do not
//! (another network, a link) can be by the node alone. Where its endpoints are addresses that pods reach, the kernel's rules go before and nothing comes here.

use super::services;
use crate::mirror::Objects;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Connections at once.
const MOST: usize = 4096;
/// An API server that takes longer is tried no further.
const PATIENCE: Duration = Duration::from_secs(5);
/// First and longest wait before it is tried again to listen.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Listens there until cancelled.
pub async fn run(at: SocketAddr, objects: Arc<dyn Objects>, cancel: CancellationToken) {
    let mut wait = AGAIN.0;
    loop {
        let why = tokio::select! {
            () = cancel.cancelled() => return,
            Err(why) = serve(at, &objects) => why,
        };
        tracing::error!(%why, %at, "pods cannot reach the API by its Service's address; it is tried again");
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(AGAIN.1);
    }
}

async fn serve(at: SocketAddr, objects: &Arc<dyn Objects>) -> io::Result<()> {
    let listener = TcpListener::bind(at).await?;
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        if open.len() >= MOST {
            open.join_next().await;
        }
        let Ok((pod, _)) = listener.accept().await else {
            // Gone before it was taken, or no descriptors left for a moment.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let objects = objects.clone();
        open.spawn(async move {
            if let Err(why) = pass(pod, &*objects).await {
                tracing::debug!(%why, "a connection of a pod to the API ended");
            }
        });
    }
}

async fn pass(mut pod: TcpStream, objects: &dyn Objects) -> io::Result<()> {
    let slice = objects.get("endpointslices.discovery.k8s.io", "default", "kubernetes");
    let mut failed = io::Error::other("no endpoint of the API server is known");
    for server in slice.map(|slice| services::api_servers(&slice)).unwrap_or_default() {
        match timeout(PATIENCE, TcpStream::connect(server)).await {
            Ok(Ok(mut server)) => {
                pod.set_nodelay(true)?;
                server.set_nodelay(true)?;
                return tokio::io::copy_bidirectional(&mut pod, &mut server).await.map(drop);
            }
            Ok(Err(why)) => failed = why,
            Err(why) => failed = why.into(),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::Key;
    use bytes::Bytes;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct One(Bytes);

    impl Objects for One {
        fn get(&self, _: &str, _: &str, name: &str) -> Option<Bytes> {
            (name == "kubernetes").then(|| self.0.clone())
        }
        fn list(&self, _: &str, _: Option<&str>) -> Vec<(Key, Bytes)> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_to_the_first_that_answers() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        // Nobody listens at the other address.
        let slice = json!({ "metadata": { "labels": { "kubernetes.io/service-name": "kubernetes" } }, "ports": [{ "name": "https", "port": port }],
            "endpoints": [{ "addresses": ["127.9.9.9"] }, { "addresses": ["127.0.0.1"] }] });
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let cancel = CancellationToken::new();
        let running = tokio::spawn(run(free, Arc::new(One(slice.to_string().into())), cancel.clone()));
        let mut pod = loop {
            match TcpStream::connect(free).await {
                Ok(pod) => break pod,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let (mut taken, _) = server.accept().await.unwrap();
        pod.write_all(b"hello").await.unwrap();
        pod.shutdown().await.unwrap();
        let mut said = String::new();
        taken.read_to_string(&mut said).await.unwrap();
        taken.write_all(b"answer").await.unwrap();
        drop(taken);
        let mut heard = String::new();
        pod.read_to_string(&mut heard).await.unwrap();
        assert_eq!((&*said, &*heard), ("hello", "answer"));
        cancel.cancel();
        running.await.unwrap();
    }
}
