//! A session with a program: its streams as pieces on one stream of the link, both ways, until its end or the other side's.

use super::{ALIVE, CHUNK, idle::Idle};
use bytes::Bytes;
use coracle_link::{
    RecvHalf, SendHalf, Stream,
    protocol::{Channel, Piece},
};
use coracle_runtime::{Resize, Session};
use futures::FutureExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until},
};

/// How long a program that has ended may leave its output open to others without a word.
const SILENCE: Duration = Duration::from_secs(1);
/// Bytes of a size that is not complete yet.
const MAX_SIZE: usize = 1024;

type Output = Option<Box<dyn AsyncRead + Send + Unpin>>;

/// What a program's end is to a client: a `metav1.Status` with upstream's reason and cause for an exit code.
fn ended(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The same for what never was one.
fn failed(why: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": format!("Internal error occurred: {why}"),
        "details": {"causes": [{"message": why}]},
    })
}

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Run for this session: its exit code counts.
    Ours,
    /// The container's: that it ended is no failure.
    Containers,
}

/// Carries a session to its end. When the other side is gone before that, the session is dropped, which ends a program that was run for it.
/// So it is when nothing was said for as long as `idle`.
pub async fn carry(session: Result<Session, coracle_runtime::Error>, whose: Whose, stream: Box<dyn Stream>, idle: Duration) {
    let idle = Idle::new(idle);
    let (mut send, recv) = stream.split();
    let what = if whose == Whose::Ours { "error executing command in container" } else { "error attaching to container" };
    let status = match session {
        Err(why) => failed(&format!("{what}: {why}")),
        Ok(Session { stdin, stdout, stderr, resize, exit }) => tokio::select! {
            ended_with = written(&mut *send, stdout, stderr, exit, &idle) => match ended_with {
                None => return,
                Some(Ok(code)) => ended(if whose == Whose::Ours { code } else { 0 }),
                Some(Err(why)) => failed(&format!("{what}: {why}")),
            },
            // Whoever wanted it is gone.
            () = read(recv, stdin, resize, &idle) => return,
            () = idle.enough() => return,
        },
    };
    let status = Piece::Data(Channel::Status, status.to_string().into());
    if send.send(status.encode()).await.is_ok() {
        _ = send.finish().await;
    }
}

/// Some bytes of an output; none at its end. One that is not there never has any.
async fn some(output: &mut Output, buffer: &mut [u8]) -> Option<usize> {
    match output {
        // A terminal whose last process has ended gives an error.
        Some(output) => output.read(buffer).await.ok().filter(|length| *length > 0),
        None => std::future::pending().await,
    }
}

/// Sends what the program says until it has ended and said everything. `None` when the other side is gone.
async fn written(
    send: &mut dyn SendHalf,
    mut stdout: Output,
    mut stderr: Output,
    mut exit: coracle_runtime::exec::Exit,
    idle: &Idle,
) -> Option<Result<i32, coracle_runtime::Error>> {
    let (mut out, mut err) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut code = None;
    let mut next = Instant::now() + ALIVE;
    loop {
        if code.is_some() && stdout.is_none() && stderr.is_none() {
            return code;
        }
        let (channel, data) = tokio::select! {
            length = some(&mut stdout, &mut out) => match length {
                Some(length) => {
                    // What is wrong was said before: a client may be gone after the output that it waits for (kubectl cp, of a file that is not there).
                    if let Some(Some(length)) = some(&mut stderr, &mut err).now_or_never() {
                        send.send(Piece::Data(Channel::Stderr, Bytes::copy_from_slice(err.get(..length).unwrap_or_default())).encode()).await.ok()?;
                    }
                    (Channel::Stdout, out.get(..length).unwrap_or_default())
                }
                None => {
                    stdout = None;
                    continue;
                }
            },
            length = some(&mut stderr, &mut err) => match length {
                Some(length) => (Channel::Stderr, err.get(..length).unwrap_or_default()),
                None => {
                    stderr = None;
                    continue;
                }
            },
            ended = &mut exit, if code.is_none() => {
                code = Some(ended);
                next = Instant::now() + SILENCE;
                continue;
            }
            // What the program itself has written is there by now; what it has left behind may hold its output open for ever.
            () = sleep_until(next), if code.is_some() => return code,
            () = sleep_until(next) => (Channel::Stdout, &[][..]),
        };
        if !data.is_empty() {
            idle.said();
        }
        send.send(Piece::Data(channel, Bytes::copy_from_slice(data)).encode()).await.ok()?;
        next = Instant::now() + if code.is_some() { SILENCE } else { ALIVE };
    }
}

/// A terminal's size, as kubectl says it.
#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// The sizes that have come, one JSON object after the other; what is not complete stays. False: that is none.
fn sizes(buffer: &mut Vec<u8>, resize: &dyn Resize) -> bool {
    let mut read = serde_json::Deserializer::from_slice(buffer).into_iter::<Size>();
    let mut taken = 0;
    loop {
        match read.next() {
            Some(Ok(size)) => {
                resize.resize(size.width, size.height);
                taken = read.byte_offset();
            }
            Some(Err(error)) if !error.is_eof() => return false,
            _ => break,
        }
    }
    buffer.drain(..taken);
    buffer.len() <= MAX_SIZE
}

/// Takes what the client says, until it is gone.
async fn read(mut recv: Box<dyn RecvHalf>, mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>, mut resize: Option<Arc<dyn Resize>>, idle: &Idle) {
    let mut size = Vec::new();
    while let Ok(Some(frame)) = recv.recv().await {
        idle.said();
        match Piece::decode(&frame) {
            Ok(Piece::Data(Channel::Stdin, data)) => {
                // A program that does not read any more is no reason to end: it may have something to say.
                if let Some(to) = &mut stdin
                    && (to.write_all(&data).await.is_err() || to.flush().await.is_err())
                {
                    stdin = None;
                }
            }
            Ok(Piece::End(Channel::Stdin)) => {
                if let Some(mut to) = stdin.take() {
                    _ = to.shutdown().await;
                }
            }
            Ok(Piece::Data(Channel::Resize, data)) => {
                size.extend_from_slice(&data);
                if resize.as_ref().is_some_and(|resize| !sizes(&mut size, &**resize)) {
                    resize = None;
                }
                if resize.is_none() {
                    size = Vec::new();
                }
            }
            Ok(_) => {}
            Err(why) => return tracing::warn!(%why, "a session with a program is not understood"),
        }
    }
}

#[cfg(test)]
mod tests;
