//! exec and attach: the streams of a program, over either protocol.

use super::{
    ALIVE, CREATION, HttpParts, LINGER, NodeLink, Upgrade, hung_up,
    negotiate::{self, Messages, PROGRAM, Speech},
    websocket::{self, Broken, Said},
};
use crate::nodes::accepted;
use axum::body::Body;
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_link::{
    RecvHalf, SendHalf, Stream,
    protocol::{Channel, Open, Piece, Session},
};
use coracle_spdy::{Accept, Stream as SpdyStream};
use futures::{SinkExt, StreamExt};
use http::Response;
use std::convert::Infallible;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::ReaderStream;

/// Streams that a SPDY client may have open; five have a meaning.
const STREAMS: usize = 8;

/// What a session that breaks off without a Status is: without one, clients take it for a success.
const SILENT: &str = "the node ended the session without a word";

pub(super) async fn serve(
    link: &dyn NodeLink,
    http: &HttpParts,
    upgrade: &Upgrade,
    node: &str,
    session: Session,
    open: Open,
) -> Result<Response<Body>, Status> {
    let (speech, headers) = negotiate::agree(&PROGRAM, &upgrade.to, &http.headers)?;
    let stream = accepted(link, node, open).await?;
    Ok(upgrade.serve(headers, move |io| async move {
        let done = match speech {
            Speech::WebSocket(messages) => over_websocket(io, messages, &session, stream).await,
            Speech::Spdy(version) => over_spdy(io, version, &session, stream).await,
            Speech::Tunnel | Speech::Plain { .. } => Ok(()),
        };
        if let Err(why) = done {
            tracing::debug!(%why, pod = session.pod, "a session with a program broke off");
        }
    }))
}

/// How it ended, as the client's version of the protocol has it: before Statuses, a sentence about what went wrong and nothing else.
fn told(status: &Bytes, as_status: bool) -> Bytes {
    if as_status {
        return status.clone();
    }
    let status: serde_json::Value = serde_json::from_slice(status).unwrap_or_default();
    match status["status"].as_str() {
        Some("Success") => Bytes::new(),
        _ => status["message"].as_str().unwrap_or("the program failed").to_owned().into(),
    }
}

async fn over_websocket(
    io: impl AsyncRead + AsyncWrite + Unpin,
    messages: Messages,
    session: &Session,
    stream: Box<dyn Stream>,
) -> Result<(), Broken> {
    let (mut client, mut from_client) = websocket::socket(io).await.split();
    let (mut send, mut recv) = stream.split();
    // Clients wait for a first message to know that all went well.
    let first = match session {
        Session { stdout: true, .. } => Channel::Stdout,
        Session { stderr: true, .. } => Channel::Stderr,
        _ => Channel::Status,
    };
    client.send(messages.write(first as u8, b"")).await?;
    let inward = async {
        let mut taken = true;
        while let Some(message) = from_client.next().await {
            let piece = match messages.read(message?)? {
                Said::Data(0, data) if session.stdin && !data.is_empty() => Piece::Data(Channel::Stdin, data),
                Said::Data(4, data) if session.tty => Piece::Data(Channel::Resize, data),
                Said::End(0) if session.stdin => Piece::End(Channel::Stdin),
                _ => continue,
            };
            // A node that takes no more has a Status to tell.
            taken = taken && send.send(piece.encode()).await.is_ok();
        }
        Ok::<_, Broken>(())
    };
    let outward = async {
        loop {
            let Some(frame) = recv.recv().await? else { return Err(SILENT.into()) };
            let message = match Piece::decode(&frame)? {
                Piece::Data(Channel::Status, status) => {
                    let status = told(&status, messages.status);
                    if !status.is_empty() {
                        client.send(messages.write(Channel::Status as u8, &status)).await?;
                    }
                    break;
                }
                Piece::Data(Channel::Stdout | Channel::Stderr, data) if data.is_empty() => Message::Ping(Bytes::new()),
                // As it came.
                Piece::Data(Channel::Stdout | Channel::Stderr, _) if !messages.base64 => Message::Binary(frame),
                Piece::Data(channel, data) => messages.write(channel as u8, &data),
                Piece::End(_) => continue,
            };
            client.send(message).await?;
        }
        client.send(websocket::goodbye()).await?;
        Ok::<_, Broken>(())
    };
    tokio::select! {
        // The client is gone: what is dropped now tells the node.
        gone = inward => return gone,
        done = outward => done?,
    }
    // Its close answers ours.
    hung_up(from_client, Message::len).await;
    Ok(())
}

/// The streams of a SPDY client, by their `streamType`.
#[derive(Default)]
struct Streams {
    error: Option<SpdyStream>,
    stdin: Option<SpdyStream>,
    stdout: Option<SpdyStream>,
    stderr: Option<SpdyStream>,
    resize: Option<SpdyStream>,
}

impl Streams {
    /// As many as the request has announced.
    async fn gather(accept: &mut Accept, expected: usize) -> Result<Self, Broken> {
        let mut streams = Self::default();
        for _ in 0..expected {
            let incoming = accept.next().await.ok_or("the client hung up before it had opened its streams")?;
            let kind = incoming.headers().get("streamType").unwrap_or_default().to_owned();
            let place = match &*kind {
                "error" => &mut streams.error,
                "stdin" => &mut streams.stdin,
                "stdout" => &mut streams.stdout,
                "stderr" => &mut streams.stderr,
                "resize" => &mut streams.resize,
                other => return Err(format!("unexpected stream type: {other:?}").into()),
            };
            if place.replace(incoming.accept().await?).is_some() {
                return Err(format!("two streams of type {kind:?}").into());
            }
        }
        Ok(streams)
    }
}

/// The next bytes of a stream that may not be there; then it has no next ones.
async fn next(stream: &mut Option<SpdyStream>) -> Option<Bytes> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

async fn over_spdy(io: impl AsyncRead + AsyncWrite + Unpin + Send, version: u8, session: &Session, stream: Box<dyn Stream>) -> Result<(), Broken> {
    let (connection, mut accept) = coracle_spdy::server(io, STREAMS, ALIVE);
    let (send, recv) = stream.split();
    let resizes = session.tty && version >= 3;
    let expected = 1 + [session.stdin, session.stdout, session.stderr, resizes].into_iter().filter(|is| *is).count();
    let work = async {
        let streams = timeout(CREATION, Streams::gather(&mut accept, expected)).await;
        let Streams { error, stdin, stdout, stderr, resize } = streams.map_err(|_| "timed out waiting for client to create streams")??;
        let mut error = error.ok_or("the client opened no error stream")?;
        let (mut stdout, mut stderr) = (stdout, stderr);
        let outward = async {
            let status = written(recv, &mut stdout, &mut stderr).await?;
            error.write_all(&told(&status, version >= 4)).await?;
            for stream in [Some(&mut error), stdout.as_mut(), stderr.as_mut()].into_iter().flatten() {
                stream.shutdown().await?;
            }
            Ok::<_, Broken>(())
        };
        tokio::select! {
            done = outward => done?,
            never = read(send, stdin, resize) => match never {},
        }
        accept.close().await;
        // Kept to the end, since a stream that is dropped is reset.
        Ok::<_, Broken>((error, stdout, stderr))
    };
    let connection = connection.run();
    tokio::pin!(connection);
    tokio::select! {
        done = work => {
            let _streams = done?;
            if let Ok(Ok(io)) = timeout(LINGER, connection).await {
                hung_up(ReaderStream::new(io), Bytes::len).await;
            }
            Ok(())
        }
        ended = &mut connection => Ok(ended.map(drop)?),
    }
}

/// Passes on what the client types, for as long as the node takes it: when it does not any more, it has a Status to tell.
async fn read(mut send: Box<dyn SendHalf>, mut stdin: Option<SpdyStream>, mut resize: Option<SpdyStream>) -> Infallible {
    let mut taken = true;
    loop {
        let piece = tokio::select! {
            data = next(&mut stdin) => match data {
                Some(data) => Piece::Data(Channel::Stdin, data),
                None => {
                    stdin = None;
                    Piece::End(Channel::Stdin)
                }
            },
            data = next(&mut resize) => match data {
                Some(data) => Piece::Data(Channel::Resize, data),
                None => {
                    resize = None;
                    continue;
                }
            },
        };
        taken = taken && send.send(piece.encode()).await.is_ok();
    }
}

/// Passes on what the program says, until its Status.
async fn written(mut recv: Box<dyn RecvHalf>, stdout: &mut Option<SpdyStream>, stderr: &mut Option<SpdyStream>) -> Result<Bytes, Broken> {
    while let Some(frame) = recv.recv().await? {
        match Piece::decode(&frame)? {
            Piece::Data(Channel::Status, status) => return Ok(status),
            Piece::Data(Channel::Stdout, data) => {
                if let Some(stdout) = stdout {
                    stdout.write_all(&data).await?;
                }
            }
            Piece::Data(Channel::Stderr, data) => {
                if let Some(stderr) = stderr {
                    stderr.write_all(&data).await?;
                }
            }
            _ => {}
        }
    }
    Err(SILENT.into())
}
