//! Health check node ports: a balancer asks each node whether it has endpoints of a Service with `externalTrafficPolicy: Local`.
//!
//! Answers as kube-proxy's do: 200 where there are some, 503 where there are none, and how many.

use super::services::Check;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

/// Connections at once to one port (one more, and the oldest has to go), and how long one may take for its only request.
const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);
/// First and longest wait before it is tried again to listen.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The servers, by port.
#[derive(Default)]
pub struct Checks(Mutex<BTreeMap<u16, Server>>);

struct Server {
    check: watch::Sender<Check>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checks {
    /// From now on these are answered, and no others. Within a tokio runtime.
    pub fn set(&self, wanted: &BTreeMap<u16, Check>) {
        let mut servers = self.0.lock();
        servers.retain(|port, _| wanted.contains_key(port));
        for (port, check) in wanted {
            match servers.get(port) {
                Some(server) => _ = server.check.send_if_modified(|known| std::mem::replace(known, check.clone()) != *check),
                None => {
                    let (sender, receiver) = watch::channel(check.clone());
                    let task = tokio::spawn(listen(*port, receiver)).abort_handle();
                    servers.insert(*port, Server { check: sender, task });
                }
            }
        }
    }
}

async fn listen(port: u16, check: watch::Receiver<Check>) {
    let mut wait = AGAIN.0;
    loop {
        let why = match TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await {
            Ok(listener) => serve(listener, &check).await,
            Err(why) => why,
        };
        let Check { namespace, name, .. } = check.borrow().clone();
        tracing::error!(%why, port, namespace, name, "balancers cannot ask for the health of a Service; it is tried again");
        sleep(wait).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

async fn serve(listener: TcpListener, check: &watch::Receiver<Check>) -> io::Error {
    let mut tasks = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while tasks.try_join_next().is_some() {}
                open.retain(|task| !task.is_finished());
                // Balancers ask at once: whoever has said nothing for longest is none.
                if open.len() >= CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(tasks.spawn(timeout(PATIENCE, converse(stream, check.clone()))));
            }
            // Gone before it was taken, or no descriptors left for a moment.
            Err(why) => {
                tracing::debug!(%why, "take a connection of a balancer");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, check: watch::Receiver<Check>) {
    let service = service_fn(|_| {
        let answer = answer(&check.borrow());
        async { Ok::<_, Infallible>(answer) }
    });
    // Whoever asked and went does not want the answer.
    _ = http1::Builder::new().timer(TokioTimer::new()).keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
}

fn answer(Check { namespace, name, local }: &Check) -> Response<Full<Bytes>> {
    let body = json!({ "service": { "namespace": namespace, "name": name }, "localEndpoints": local, "serviceProxyHealthy": true });
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = if *local > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = answer.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", hyper::header::HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", hyper::header::HeaderValue::from(*local));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(port: u16) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    async fn until(port: u16, wanted: impl Fn(Option<&str>) -> bool) {
        let search = async {
            while !wanted(ask(port).await.as_deref()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), search).await.expect("the answer in time");
    }

    #[tokio::test]
    async fn the_silent_make_room_for_who_asks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_check, receiver) = watch::channel(Check { namespace: "n".into(), name: "s".into(), local: 1 });
        let serving = tokio::spawn(async move { serve(listener, &receiver).await });
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap());
        }
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 200"));
        let mut silent = silent.into_iter();
        // The oldest is gone, and the others are still waited for.
        assert!(matches!(silent.next().unwrap().read(&mut [0; 1]).await, Ok(0) | Err(_)));
        for waiting in silent {
            assert_eq!(waiting.try_read(&mut [0; 1]).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        }
        serving.abort();
    }

    #[tokio::test]
    async fn a_port_answers_while_it_is_asked_for_and_says_how_many() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let checks = Checks::default();
        let check = |local| BTreeMap::from([(port, Check { namespace: "n".into(), name: "s".into(), local })]);
        checks.set(&check(2));
        until(port, |text| text.is_some_and(|text| text.starts_with("HTTP/1.1 200") && text.contains("\"localEndpoints\":2"))).await;
        checks.set(&check(0));
        until(port, |text| text.is_some_and(|text| text.starts_with("HTTP/1.1 503") && text.contains("x-load-balancing-endpoint-weight: 0"))).await;
        checks.set(&BTreeMap::new());
        until(port, |text| text.is_none()).await;
    }
}
