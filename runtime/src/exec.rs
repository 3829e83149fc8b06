//! Programs run in a container that runs already, and ways to its streams and its pod's ports.
//!
//! A runtime hands over the ends of pipes, a terminal or a socket; what they carry is the agent's business and never passes the process that holds the pod.

use crate::{ContainerId, Error};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};

/// Both directions of a byte stream. Shutting down the writing side is a half-close: the other side reads an end, and may go on writing.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Which of the standard streams somebody holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; with a terminal it is part of standard output.
    pub stderr: bool,
}

/// A program to run in a container (CRI's `ExecRequest`), with the container's own environment, working directory, user, capabilities and seccomp filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// The container, which runs.
    pub container: ContainerId,
    /// The program, found by the container's `PATH`, and its arguments. Never a shell's words.
    pub command: Vec<String>,
    /// Those that are not held are /dev/null.
    pub streams: Standard,
    /// All streams are one terminal.
    pub tty: bool,
    /// The program is killed after so long; none: never.
    pub timeout: Option<Duration>,
}

/// The size of a terminal.
pub trait Resize: Send + Sync {
    /// In characters. A terminal that is gone has no size: nothing happens.
    fn resize(&self, width: u16, height: u16);
}

/// How a program ended: its own exit code, or 128 + signal.
pub type Exit = Pin<Box<dyn Future<Output = Result<i32, Error>> + Send>>;

/// A program's streams. The ones that were not asked for are none.
///
/// Dropping a session of [`exec`](crate::Runtime::exec) kills its program if it still runs; one of [`attach`](crate::Runtime::attach) only lets go.
pub struct Session {
    /// Standard input. Shutting it down is the end that the program reads (for a terminal: nothing more is typed).
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output, or all of a terminal. It ends when no process holds it any more.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Standard error.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// None without a terminal.
    pub resize: Option<Arc<dyn Resize>>,
    /// Ready when the program (for an attachment: the container) has ended. Output may still be on its way then.
    pub exit: Exit,
}

/// The name in a container's id, which is what its user knows it by.
fn name(id: &str) -> &str {
    id.split('/').nth(1).unwrap_or(id)
}

/// What is said of a container that is a component in a pod of its own, and has nothing that one could be attached to.
pub fn not_attachable(container: &str) -> Error {
    let container = name(container);
    Error::fatal("AttachError", format!("container {container}: wasm containers cannot be attached to; follow their output with kubectl logs -f"))
}

/// What is said of a container that is a component, in which nothing can be run.
pub fn no_programs(container: &str) -> Error {
    let why = "nothing can be run in a wasm container: it is one component, without a shell or other programs; its output is in kubectl logs, and files of its volumes are reached with kubectl cp, and with tar, ls, cat and test";
    Error::fatal("ExecError", format!("container {}: {why}", name(container)))
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_by_their_names() {
        assert!(no_programs("9c1f-uid/web/3").message.starts_with("container web: nothing can be run"));
        assert!(not_attachable("9c1f-uid/web/3").message.starts_with("container web: wasm containers cannot"));
    }
}
