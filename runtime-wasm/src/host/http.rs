//! A component that exports `wasi:http/incoming-handler`: served on the pod's IP, a fresh instance per request.
//!
//! Idle, a pod is its listeners and nothing else. A request makes an instance out of the pool, runs it in place, and drops it. Most guests are done at
//! the first poll; the rest of one that is not (it waits, streams, or works on after its answer) becomes a task of its own, ended by
//! the request's time-out.

use super::{
    Mouth, Ordered,
    command::{Ended, yield_at_ticks},
    guest::{Guest, Pod},
    metered::{Metered, throttle},
    shelf::{Code, Shelf},
    trouble,
};
use crate::wire::{Refusal, Said};
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::Mutex;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wasmtime::{PoolConcurrencyLimitError, Store};
use wasmtime_wasi_http::{
    WasiHttpView,
    p2::{
        bindings::{
            ProxyPre,
            http::types::{ErrorCode, Scheme},
        },
        body::HyperOutgoingBody,
    },
};

/// Requests of one pod at once in one host; more get 503.
const REQUESTS: usize = 256;
/// Connections of one pod at once in one host; more wait in the kernel.
const CONNECTIONS: usize = 1024;
/// A client has this long for its headers.
const HEADERS: Duration = Duration::from_secs(30);
/// Of notices of one kind, at most one in this time.
const QUIET: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, wasmtime_wasi_http::Error>;
type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;
type Guestly = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send>>;

/// A container that answers requests.
pub struct Served {
    id: String,
    /// The ports it was given listeners for.
    pub ports: Vec<u16>,
    pre: ProxyPre<Guest>,
    _code: Arc<Code>,
    pod: Arc<Pod>,
    mouth: Mouth,
    timeout: Duration,
    requests: AtomicUsize,
    connections: Arc<tokio::sync::Semaphore>,
    quiet: Mutex<Vec<(&'static str, Instant)>>,
    stop: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

/// Serves it until stopped.
pub fn start(shelf: &Arc<Shelf>, mouth: Mouth, ordered: Ordered, stop: CancellationToken, kill: CancellationToken) -> Result<Arc<Served>, Refusal> {
    let Ordered { start, pod, artifact, listeners } = ordered;
    let id = start.spec.id();
    let failed = |error: String| trouble("RunContainerError", format!("{id} cannot serve: {error}"));
    let code = shelf.load(&start.artifact, &artifact, false)?;
    let Code::Component(pre) = &*code else { return Err(failed("its artifact is not a component".to_owned())) };
    let pre = ProxyPre::new(pre.clone()).map_err(|error| failed(format!("{error:#}")))?;
    let served = Arc::new(Served {
        id: id.clone(),
        ports: start.ports.clone(),
        pre,
        _code: code,
        pod,
        mouth: mouth.clone(),
        timeout: start.spec.request_timeout,
        requests: AtomicUsize::new(0),
        connections: Arc::new(tokio::sync::Semaphore::new(CONNECTIONS)),
        quiet: Mutex::default(),
        stop: stop.clone(),
        kill: kill.clone(),
        tasks: TaskTracker::new(),
    });
    let mut sockets = Vec::with_capacity(listeners.len());
    for fd in listeners {
        sockets.push(tokio_listener(fd).map_err(|error| failed(error.to_string()))?);
    }
    let probe = served.clone();
    tokio::spawn(async move {
        // A component that traps or loops before its first request is not Ready: it could never answer.
        let trial = async {
            let mut store = probe.store();
            probe.pre.instantiate_async(&mut store).await.map(|_| ())
        };
        let trial = stop.run_until_cancelled(tokio::time::timeout(probe.timeout, Metered::new(Box::pin(trial), probe.pod.account))).await;
        let refusal = match trial {
            Some(Ok(Ok(()))) => None,
            Some(Ok(Err(error))) if error.is::<PoolConcurrencyLimitError>() => None,
            Some(Ok(Err(error))) => Some(format!("the component does not start: {error:#}")),
            Some(Err(_)) => Some(format!(
                "the component does not start: it ran for {:?} without being ready for a request; do less when it starts, raise limits.cpu if it has one, or the node's request time-out",
                probe.timeout
            )),
            None => Some("stopped while it started".to_owned()),
        };
        if let Some(message) = refusal {
            mouth.say(Said::Failed(id, Refusal { reason: "StartError".to_owned(), message, fatal: false }));
            return;
        }
        for socket in sockets {
            probe.clone().accept(socket, stop.clone());
        }
        mouth.say(Said::Started(id.clone()));
        stop.cancelled().await;
        probe.tasks.close();
        tokio::select! {
            () = probe.tasks.wait() => {}
            () = kill.cancelled() => {}
        }
        mouth.say(Ended::exit(0).said(id));
    });
    Ok(served)
}

fn tokio_listener(fd: OwnedFd) -> io::Result<tokio::net::TcpListener> {
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// HTTP/1.0 needs no Host, wasi:http does: then it is the address the client came to (RFC 9112, section 3.3).
fn name_host<B>(request: &mut Request<B>, address: Option<SocketAddr>) {
    if request.version() == Version::HTTP_10
        && request.uri().authority().is_none()
        && !request.headers().contains_key(HOST)
        && let Some(host) = address.and_then(|address| HeaderValue::from_str(&address.to_string()).ok())
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// An instance could not even be made within the container's memory, because of others.
#[derive(Debug, thiserror::Error)]
#[error("no memory left for another instance of this container")]
struct Crowded;

/// Counts a request as long as it lives.
struct InFlight(Arc<Served>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

impl Served {
    /// Serves one more listener, until `stop` or the container ends.
    pub fn listen(self: &Arc<Self>, fd: OwnedFd, stop: CancellationToken) -> io::Result<()> {
        self.clone().accept(tokio_listener(fd)?, stop);
        Ok(())
    }

    fn accept(self: Arc<Self>, listener: tokio::net::TcpListener, stop: CancellationToken) {
        let ended = self.stop.clone();
        let accept = async move {
            loop {
                let Ok(room) = self.connections.clone().acquire_owned().await else { return };
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors, most likely: what is open has to end first.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                _ = stream.set_nodelay(true);
                let served = self.clone();
                self.tasks.spawn(async move {
                    let _room = room;
                    served.connection(stream).await;
                });
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = accept => {}
                () = stop.cancelled() => {}
                () = ended.cancelled() => {}
            }
        });
    }

    async fn connection(self: Arc<Self>, stream: tokio::net::TcpStream) {
        let (stop, kill) = (self.stop.clone(), self.kill.clone());
        let address = stream.local_addr().ok();
        let service = hyper::service::service_fn(move |mut request| {
            name_host(&mut request, address);
            let served = self.clone();
            async move { Ok::<_, Infallible>(served.answer(request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // One plain write an answer: gathering head and body costs the kernel more than copying a small body.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(64 << 10).writev(false);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250).max_header_list_size(64 << 10);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    _ = connection => {}
                    () = kill.cancelled() => {}
                }
            }
        }
    }

    fn store(&self) -> Store<Guest> {
        let mut store = Store::new(self.pre.engine(), Guest::new(self.pod.clone(), false));
        store.limiter(|guest| &mut guest.limits);
        yield_at_ticks(&mut store, self.pod.account);
        store
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if self.requests.fetch_add(1, Relaxed) >= REQUESTS {
            self.requests.fetch_sub(1, Relaxed);
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once for this pod; try again");
        }
        let in_flight = InFlight(self.clone());
        self.pod.account.request();
        // Most are done before the first tick, so that they wait here or nowhere.
        if self.pod.account.in_debt().is_some() && tokio::time::timeout(self.timeout, throttle(self.pod.account)).await.is_err() {
            return plain(
                StatusCode::GATEWAY_TIMEOUT,
                "the pod has used what limits.cpu lets it, and others were first; raise the limit, or ask less often",
            );
        }
        if self.pod.account.is_full() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the pod's memory is in use by other requests; try again");
        }
        let mut store = self.store();
        let denied = store.data().limits.denied();
        let (sender, mut answer) = oneshot::channel();
        let resources = (|| {
            let mut http = store.data_mut().http();
            Ok::<_, wasmtime::Error>((http.new_incoming_request(Scheme::Http, request)?, http.new_response_outparam(sender)?))
        })();
        let (request, outparam) = match resources {
            Ok(resources) => resources,
            Err(error) => return plain(StatusCode::BAD_REQUEST, &format!("{error:#}")),
        };
        let pre = self.pre.clone();
        let crowd = denied.clone();
        let guest: Guestly = Box::pin(async move {
            let proxy = match pre.instantiate_async(&mut store).await {
                Err(_) if crowd.load(Relaxed) => return Err(Crowded.into()),
                proxy => proxy?,
            };
            proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await
        });
        let mut guest = Metered::new(guest, self.pod.account);
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut guest).poll(cx))).await;
        if let Poll::Ready(result) = first {
            drop(guest);
            return self.conclude(answer.try_recv().ok(), Some(result), &denied);
        }
        // It is not done: the rest of it is a task, which lives on after the answer, and dies with the connection before it.
        let deadline = tokio::time::Instant::now() + self.timeout;
        let (served, flag, kill) = (self.clone(), denied.clone(), self.kill.clone());
        let task = self.tasks.spawn(async move {
            let _in_flight = in_flight;
            let result = tokio::select! {
                result = tokio::time::timeout_at(deadline, guest) => result.ok(),
                () = kill.cancelled() => None,
            };
            if let Some(Err(error)) = &result {
                served.complain(error, &flag);
            }
            result
        });
        let mut task = AbortOnDrop(Some(task));
        match (&mut answer).await {
            Ok(set) => {
                task.0 = None;
                self.conclude(Some(set), None, &denied)
            }
            Err(_) => match task.0.take() {
                Some(task) => match task.await {
                    Ok(Some(result)) => self.conclude(None, Some(result), &denied),
                    _ => plain(StatusCode::GATEWAY_TIMEOUT, &format!("the pod did not answer within {:?}", self.timeout)),
                },
                None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the pod did not answer"),
            },
        }
    }

    /// What the client gets. `result` is there when the guest has ended.
    fn conclude(&self, answer: Option<Answer>, result: Option<wasmtime::Result<()>>, denied: &AtomicBool) -> Response<Body> {
        let exhausted = matches!(&result, Some(Err(error)) if error.is::<PoolConcurrencyLimitError>());
        let crowded = matches!(&result, Some(Err(error)) if error.is::<Crowded>());
        match answer {
            Some(Ok(response)) => return response.map(|body| body.map_err(Into::into).boxed_unsync()),
            Some(Err(code)) => return plain(StatusCode::BAD_GATEWAY, &format!("the pod answered with an error: {code:?}")),
            None if crowded => return plain(StatusCode::SERVICE_UNAVAILABLE, "the pod's memory is in use by other requests; try again"),
            None if exhausted => return plain(StatusCode::SERVICE_UNAVAILABLE, "too many instances at once on this node; try again"),
            None => {}
        }
        match result {
            Some(Err(error)) => {
                self.complain(&error, denied);
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the pod failed while it answered; its log or its events say why")
            }
            _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "the pod ended without an answer"),
        }
    }

    /// A guest that trapped: said on the pod, but not for every request.
    fn complain(&self, error: &wasmtime::Error, denied: &AtomicBool) {
        let (reason, message) = if denied.load(Relaxed) {
            let count = self.pod.account.deny();
            let limit = self.pod.account.memory_limit();
            let limit = limit.map_or_else(|| "the utmost size of a memory".to_owned(), |limit| format!("limits.memory ({limit} bytes)"));
            ("MemoryLimitExceeded", format!("a request ran out of memory: instances of this container may together hold {limit}; {count} so far"))
        } else if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
            ("RequestFailed", format!("a request ended in a trap: {trap}"))
        } else {
            ("RequestFailed", format!("a request failed: {error:#}"))
        };
        let now = Instant::now();
        let mut quiet = self.quiet.lock();
        quiet.retain(|(_, said)| now.duration_since(*said) < QUIET);
        if quiet.iter().any(|(said, _)| *said == reason) {
            return;
        }
        quiet.push((reason, now));
        drop(quiet);
        self.mouth.warn(&self.id, reason, message);
    }
}

/// The guest of a client that is gone is not worth running.
struct AbortOnDrop<T>(Option<tokio::task::JoinHandle<T>>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("{text}\n"))).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
