//! port-forward: connections to a pod's ports, over SPDY, SPDY in a WebSocket, or a WebSocket with two channels for each port.

use super::{
    ALIVE, CREATION, Core, HttpParts, Place, Upgrade, connect, hung_up,
    negotiate::{self, FORWARD, Messages, Speech},
    tunnel::Tunnel,
    websocket::{self, Broken, Said},
};
use crate::nodes::accepted;
use axum::body::Body;
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_link::{Stream, protocol::Open};
use coracle_spdy::{Headers, Stream as SpdyStream};
use futures::{SinkExt, StreamExt, stream::FuturesUnordered};
use http::Response;
use std::{collections::HashMap, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::Message;

/// Streams of one client at once: two for each forwarded connection.
const STREAMS: usize = 512;
/// Ports of a WebSocket with channels, whose numbers are bytes.
const PORTS: usize = 64;
/// Messages that wait for one port.
const WAITING: usize = 8;

/// The pod whose ports are wanted.
struct Pod {
    core: Arc<Core>,
    place: Place,
}

pub(super) fn serve(core: &Arc<Core>, http: &HttpParts, upgrade: &Upgrade, place: Place, ports: Vec<u16>) -> Result<Response<Body>, Status> {
    let (speech, headers) = negotiate::agree(&FORWARD, &upgrade.to, &http.headers)?;
    if let Speech::WebSocket(_) = speech {
        match ports.len() {
            0 => return Err(Status::bad_request("query parameter \"port\" is required")),
            1..=PORTS if !ports.contains(&0) => {}
            _ => return Err(Status::bad_request(format!("ports must be > 0, and at most {PORTS}"))),
        }
    }
    let pod = Pod { core: core.clone(), place };
    Ok(upgrade.serve(headers, move |io| async move {
        let done = match speech {
            Speech::WebSocket(messages) => pod.over_channels(io, messages, &ports).await,
            Speech::Tunnel => pod.over_spdy(Tunnel::new(websocket::socket(io).await)).await,
            Speech::Spdy(_) => pod.over_spdy(io).await,
            Speech::Plain { .. } => Ok(()),
        };
        if let Err(why) = done {
            tracing::debug!(%why, pod = pod.place.pod, "a port-forward broke off");
        }
    }))
}

/// One half of a connection, waiting for the other.
struct Half {
    data: Option<SpdyStream>,
    error: Option<SpdyStream>,
    due: Instant,
}

/// A stream's `requestID`, whether it carries data, and its port.
fn meaning(headers: &Headers, stream: u32) -> Result<(String, bool, u16), String> {
    let port = headers.get("port").ok_or("\"port\" header is required")?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| format!("unable to parse {port:?} as a port"))?;
    let data = match headers.get("streamType") {
        Some("data") => true,
        Some("error") => false,
        other => return Err(format!("invalid stream type {other:?}")),
    };
    // Clients without request ids open the error stream first, and the data stream with the next number.
    let id = headers.get("requestID").map_or_else(|| format!("#{}", if data { stream.saturating_sub(2) } else { stream }), str::to_owned);
    Ok((id, data, port))
}

impl Pod {
    async fn open(&self, port: u16) -> Result<Box<dyn Stream>, Status> {
        let Place { node, namespace, pod, uid } = &self.place;
        let open = Open::Forward { namespace: namespace.clone(), pod: pod.clone(), uid: uid.clone(), port };
        accepted(connect::link(&self.core), node, open).await
    }

    fn wrong(&self, port: u16, why: &str) -> String {
        format!("error forwarding port {port} to pod {}, uid {}: {why}", self.place.pod, self.place.uid)
    }

    async fn over_spdy(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send) -> Result<(), Broken> {
        let (connection, mut accept) = coracle_spdy::server(io, STREAMS, ALIVE);
        let work = async {
            let mut halves: HashMap<String, Half> = HashMap::new();
            let mut running = FuturesUnordered::new();
            loop {
                let due = halves.values().map(|half| half.due).min();
                let late = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    incoming = accept.next() => {
                        let Some(incoming) = incoming else { return };
                        let (id, data, port) = match meaning(incoming.headers(), incoming.id()) {
                            Ok(meaning) => meaning,
                            Err(why) => {
                                tracing::debug!(why, "a stream of a port-forward was refused");
                                continue;
                            }
                        };
                        let Ok(stream) = incoming.accept().await else { return };
                        let half = halves.entry(id.clone()).or_insert_with(|| Half { data: None, error: None, due: Instant::now() + CREATION });
                        *(if data { &mut half.data } else { &mut half.error }) = Some(stream);
                        if let Half { data: Some(_), error: Some(_), .. } = half
                            && let Some(Half { data: Some(data), error: Some(error), .. }) = halves.remove(&id)
                        {
                            running.push(self.forward(port, data, error));
                        }
                    }
                    Some(()) = running.next(), if !running.is_empty() => {}
                    () = late => halves.retain(|_, half| half.due > Instant::now()),
                }
            }
        };
        tokio::select! {
            () = work => Ok(()),
            ended = connection.run() => Ok(ended.map(drop)?),
        }
    }

    async fn forward(&self, port: u16, data: SpdyStream, mut error: SpdyStream) {
        match self.open(port).await {
            Ok(stream) => {
                if joined(data, stream).await.is_ok() {
                    _ = error.shutdown().await;
                }
            }
            Err(status) => {
                // The data stream is dropped after that, which resets it.
                _ = error.write_all(self.wrong(port, &status.message).as_bytes()).await;
                _ = error.shutdown().await;
            }
        }
    }

    /// One connection for each port, at once: channel 2n carries its bytes, 2n + 1 what went wrong. Both begin with the port, little endian.
    async fn over_channels(&self, io: impl AsyncRead + AsyncWrite + Unpin, messages: Messages, ports: &[u16]) -> Result<(), Broken> {
        let (mut client, mut from_client) = websocket::socket(io).await.split();
        let (outgoing, mut out) = mpsc::channel::<Message>(WAITING);
        let mut queues = Vec::new();
        let mut running = FuturesUnordered::new();
        for (number, port) in (0..).step_by(2).zip(ports) {
            for channel in [number, number + 1] {
                client.send(messages.write(channel, &port.to_le_bytes())).await?;
            }
            let (queue, inward) = mpsc::channel::<Bytes>(WAITING);
            queues.push(queue);
            running.push(self.channel(*port, number, messages, inward, outgoing.clone()));
        }
        drop(outgoing);
        let inward = async {
            while let Some(message) = from_client.next().await {
                if let Said::Data(channel, data) = messages.read(message?)?
                    && channel % 2 == 0
                    && let Some(queue) = queues.get(usize::from(channel / 2))
                {
                    // Its connection is over; the others go on.
                    _ = queue.send(data).await;
                }
            }
            Ok::<_, Broken>(())
        };
        let outward = async {
            loop {
                match timeout(ALIVE, out.recv()).await {
                    Ok(Some(message)) => client.send(message).await?,
                    Ok(None) => return Ok::<_, Broken>(client.send(websocket::goodbye()).await?),
                    Err(_) => client.send(Message::Ping(Bytes::new())).await?,
                }
            }
        };
        let serving = async { while running.next().await.is_some() {} };
        tokio::select! {
            gone = inward => return gone,
            done = async { tokio::join!(serving, outward).1 } => done?,
        }
        hung_up(from_client, Message::len).await;
        Ok(())
    }

    async fn channel(&self, port: u16, number: u8, messages: Messages, mut inward: mpsc::Receiver<Bytes>, out: mpsc::Sender<Message>) {
        let stream = match self.open(port).await {
            Ok(stream) => stream,
            Err(status) => {
                _ = out.send(messages.write(number + 1, self.wrong(port, &status.message).as_bytes())).await;
                return;
            }
        };
        let (mut send, mut recv) = stream.split();
        let to_pod = async {
            while let Some(data) = inward.recv().await {
                send.send(data).await?;
            }
            Ok::<_, Broken>(())
        };
        let to_client = async {
            while let Some(data) = recv.recv().await? {
                if !data.is_empty() {
                    out.send(messages.write(number, &data)).await?;
                }
            }
            Ok::<_, Broken>(())
        };
        // This form of the protocol knows no half-close: the pod's end is the end.
        tokio::select! {
            _ = to_pod => {}
            _ = to_client => {}
        }
    }
}

/// Both ways until both ends are done; either may say its last first.
async fn joined(data: SpdyStream, stream: Box<dyn Stream>) -> Result<(), Broken> {
    let (mut send, mut recv) = stream.split();
    let (mut read, mut write) = tokio::io::split(data);
    let to_pod = async {
        let mut buffer = bytes::BytesMut::new();
        loop {
            buffer.reserve(coracle_spdy::frame::PIECE);
            if tokio::io::AsyncReadExt::read_buf(&mut read, &mut buffer).await? == 0 {
                break;
            }
            send.send(buffer.split().freeze()).await?;
        }
        Ok::<_, Broken>(send.finish().await?)
    };
    let to_client = async {
        while let Some(frame) = recv.recv().await? {
            // An empty one asks whether anybody is there.
            write.write_all(&frame).await?;
        }
        Ok::<_, Broken>(write.shutdown().await?)
    };
    tokio::try_join!(to_pod, to_client)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_streams_are_for() {
        let of = |pairs: &[(&str, &str)], id| meaning(&pairs.iter().copied().collect(), id);
        let (port, error) = (("port", "80"), ("streamtype", "error"));
        assert_eq!(of(&[port, error, ("requestid", "7")], 1), Ok(("7".into(), false, 80)));
        assert_eq!(of(&[port, error], 5), Ok(("#5".into(), false, 80)));
        assert_eq!(of(&[port, ("streamtype", "data")], 7), Ok(("#5".into(), true, 80)));
        assert!(of(&[error], 1).is_err() && of(&[port], 1).is_err() && of(&[("port", "0"), error], 1).is_err());
        assert!(of(&[("port", "70000"), error], 1).is_err() && of(&[port, ("streamtype", "stdin")], 1).is_err());
    }
}
