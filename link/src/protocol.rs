//! Protocol messages. The first frame of every stream is an [`Open`]; each has its own follow-ups.
//!
//! The encoding is our own: `version: u8 | kind: u8 | fields`. Integers are 8 bytes big endian, texts and bytes a 4-byte length
//! and themselves, an option one byte (0 or 1) before its value. A decoder takes exactly what it knows: another version, an
//! unknown kind, a text that is no UTF-8 or longer than its bound, and bytes left over are all errors, never panics. (serde
//! formats were not taken: their bytes change with the library or the struct, and what must be read by older and newer nodes
//! should be written down once, here.)

mod channel;
mod wire;

use crate::Error;
use bytes::Bytes;
pub use channel::{Channel, Piece};
use wire::{Cursor, Writer};

/// First frame of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Open {
    /// node → control: subscribe to this node's slice. Follow-ups (control → node): [`Feed`].
    Subscribe {
        /// Epoch of the last `Feed::Synced` on disk; zero for a fresh mirror.
        epoch: u64,
        /// Revision of the last `Feed::Synced` on disk.
        revision: u64,
    },
    /// node → control: one API request as this node (`system:node:NAME`), through the same pipeline as HTTPS. Follow-up: one [`Reply`].
    Call {
        /// HTTP method, upper case.
        method: String,
        /// Path and query: `/api/v1/nodes/n1/status?fieldManager=x`.
        path: String,
        /// `application/json`, `application/merge-patch+json`, …; may be empty without a body.
        content_type: String,
        /// The request's body.
        body: Bytes,
    },
    /// control → node: container logs. Follow-ups: [`Reply`] (200 or an error), then raw byte frames until the end.
    Logs {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The pod's uid; another uid under that name is an error.
        uid: String,
        /// The container's name.
        container: String,
        /// What of the log is wanted.
        options: LogOptions,
    },
    /// control → node: a TCP-like byte stream to a port of a pod. Follow-ups: [`Reply`], then raw byte frames both ways.
    Dial {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The pod's uid.
        uid: String,
        /// TCP port on the pod's address.
        port: u16,
    },
    /// control → node: the node's stats as JSON (one [`Reply`]).
    Stats,
    /// control → node: a GET of kubelet's HTTP API. Follow-ups: [`Reply`] (its body is the media type, or an error), then raw byte frames until the end.
    Get {
        /// Without its first slash: `stats/summary`.
        path: String,
        /// As it came.
        query: String,
    },
    /// control → node: a program run in a container. Follow-ups: [`Reply`], then [`Piece`]s both ways.
    Exec {
        /// Where, and with which streams.
        session: Session,
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// control → node: a container's own streams. Follow-ups as of `Exec`.
    Attach {
        /// Where, and with which streams.
        session: Session,
    },
    /// control → node: a byte stream to a port on localhost in a pod's network. Follow-ups: [`Reply`], then raw byte frames both ways.
    Forward {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// The pod's uid.
        uid: String,
        /// TCP port.
        port: u16,
    },
}

/// The container that is reached into (`core/v1 PodExecOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid; another uid under that name is an error.
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// Standard input is wanted.
    pub stdin: bool,
    /// Standard output is wanted.
    pub stdout: bool,
    /// Standard error is wanted.
    pub stderr: bool,
    /// All of them are a terminal.
    pub tty: bool,
}

impl Session {
    fn write(&self, to: Writer) -> Writer {
        let to = to.text(&self.namespace).text(&self.pod).text(&self.uid).text(&self.container);
        to.flag(self.stdin).flag(self.stdout).flag(self.stderr).flag(self.tty)
    }

    fn read(c: &mut Cursor<'_>) -> Result<Self, Error> {
        let (namespace, pod, uid, container) = (c.name()?, c.name()?, c.name()?, c.name()?);
        Ok(Self { namespace, pod, uid, container, stdin: c.flag()?, stdout: c.flag()?, stderr: c.flag()?, tty: c.flag()? })
    }
}

/// What of a log is wanted (`core/v1 PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    /// Go on with what comes.
    pub follow: bool,
    /// The instance before the present one.
    pub previous: bool,
    /// An RFC 3339 time before each line.
    pub timestamps: bool,
    /// Not older than this many seconds.
    pub since_seconds: Option<i64>,
    /// Not older than this RFC 3339 time.
    pub since_time: Option<String>,
    /// Only the last lines.
    pub tail_lines: Option<i64>,
    /// At most this many bytes.
    pub limit_bytes: Option<i64>,
    /// Only what was written there, as CRI's logs name it: `stdout` or `stderr`; both if empty.
    pub stream: String,
}

/// The answer to an [`Open`].
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// HTTP status code.
    pub code: u16,
    /// The body; for errors a `metav1.Status` as JSON.
    pub body: Bytes,
}

/// What flows on a subscription, control → node.
#[derive(Clone, Debug, PartialEq)]
pub enum Feed {
    /// What follows is everything; drop what is not named before the next `Synced`.
    Reset {
        /// The store's epoch; resuming works only within one.
        epoch: u64,
    },
    /// An object came or changed.
    Upsert {
        /// Resource id: `pods`, `endpointslices.discovery.k8s.io`.
        resource: String,
        /// Empty for cluster-scoped.
        namespace: String,
        /// The object's name.
        name: String,
        /// Canonical JSON.
        json: Bytes,
    },
    /// An object is gone, or no longer this node's business.
    Remove {
        /// Resource id.
        resource: String,
        /// Empty for cluster-scoped.
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// Everything up to here was sent: make it durable together, then resume from here.
    Synced {
        /// To be given back in `Open::Subscribe`.
        epoch: u64,
        /// To be given back in `Open::Subscribe`.
        revision: u64,
    },
}

impl Open {
    /// The frame's payload.
    pub fn encode(&self) -> Bytes {
        match self {
            Open::Subscribe { epoch, revision } => Writer::new(1).u64(*epoch).u64(*revision).done(),
            Open::Call { method, path, content_type, body } => Writer::new(2).text(method).text(path).text(content_type).bytes(body).done(),
            Open::Logs { namespace, pod, uid, container, options: o } => Writer::new(3)
                .text(namespace)
                .text(pod)
                .text(uid)
                .text(container)
                .flag(o.follow)
                .flag(o.previous)
                .flag(o.timestamps)
                .optional(o.since_seconds, |w, n| w.u64(n as u64))
                .optional(o.since_time.as_deref(), |w, t| w.text(t))
                .optional(o.tail_lines, |w, n| w.u64(n as u64))
                .optional(o.limit_bytes, |w, n| w.u64(n as u64))
                .text(&o.stream)
                .done(),
            Open::Dial { namespace, pod, uid, port } => Writer::new(4).text(namespace).text(pod).text(uid).u64(u64::from(*port)).done(),
            Open::Stats => Writer::new(5).done(),
            Open::Get { path, query } => Writer::new(15).text(path).text(query).done(),
            Open::Exec { session, command } => session.write(Writer::new(6)).list(command).done(),
            Open::Attach { session } => session.write(Writer::new(7)).done(),
            Open::Forward { namespace, pod, uid, port } => Writer::new(8).text(namespace).text(pod).text(uid).u64(u64::from(*port)).done(),
        }
    }

    /// # Errors
    /// Anything that `encode` would not have written.
    pub fn decode(b: &[u8]) -> Result<Self, Error> {
        let (kind, mut c) = Cursor::new(b)?;
        let open = match kind {
            1 => Open::Subscribe { epoch: c.u64()?, revision: c.u64()? },
            2 => Open::Call { method: c.name()?, path: c.text(64 << 10)?, content_type: c.name()?, body: c.bytes()? },
            3 => Open::Logs {
                namespace: c.name()?,
                pod: c.name()?,
                uid: c.name()?,
                container: c.name()?,
                options: LogOptions {
                    follow: c.flag()?,
                    previous: c.flag()?,
                    timestamps: c.flag()?,
                    since_seconds: c.optional(|c| c.u64())?.map(|n| n as i64),
                    since_time: c.optional(|c| c.name())?,
                    tail_lines: c.optional(|c| c.u64())?.map(|n| n as i64),
                    limit_bytes: c.optional(|c| c.u64())?.map(|n| n as i64),
                    stream: c.name()?,
                },
            },
            4 => Open::Dial { namespace: c.name()?, pod: c.name()?, uid: c.name()?, port: c.port()? },
            5 => Open::Stats,
            15 => Open::Get { path: c.text(64 << 10)?, query: c.text(64 << 10)? },
            6 => Open::Exec { session: Session::read(&mut c)?, command: c.list()? },
            7 => Open::Attach { session: Session::read(&mut c)? },
            8 => Open::Forward { namespace: c.name()?, pod: c.name()?, uid: c.name()?, port: c.port()? },
            other => return Err(Error::Protocol(format!("unknown kind of stream: {other}"))),
        };
        c.end()?;
        Ok(open)
    }
}

impl Reply {
    /// The frame's payload.
    pub fn encode(&self) -> Bytes {
        Writer::new(16).u64(u64::from(self.code)).bytes(&self.body).done()
    }

    /// # Errors
    /// Anything that `encode` would not have written.
    pub fn decode(b: &[u8]) -> Result<Self, Error> {
        let (kind, mut c) = Cursor::new(b)?;
        if kind != 16 {
            return Err(Error::Protocol(format!("expected a reply, got a message of kind {kind}")));
        }
        let reply = Reply { code: c.port()?, body: c.bytes()? };
        c.end()?;
        Ok(reply)
    }
}

impl Feed {
    /// The frame's payload.
    pub fn encode(&self) -> Bytes {
        match self {
            Feed::Reset { epoch } => Writer::new(32).u64(*epoch).done(),
            Feed::Upsert { resource, namespace, name, json } => Writer::new(33).text(resource).text(namespace).text(name).bytes(json).done(),
            Feed::Remove { resource, namespace, name } => Writer::new(34).text(resource).text(namespace).text(name).done(),
            Feed::Synced { epoch, revision } => Writer::new(35).u64(*epoch).u64(*revision).done(),
        }
    }

    /// # Errors
    /// Anything that `encode` would not have written.
    pub fn decode(b: &[u8]) -> Result<Self, Error> {
        let (kind, mut c) = Cursor::new(b)?;
        let feed = match kind {
            32 => Feed::Reset { epoch: c.u64()? },
            33 => Feed::Upsert { resource: c.name()?, namespace: c.name()?, name: c.name()?, json: c.bytes()? },
            34 => Feed::Remove { resource: c.name()?, namespace: c.name()?, name: c.name()? },
            35 => Feed::Synced { epoch: c.u64()?, revision: c.u64()? },
            other => return Err(Error::Protocol(format!("unknown kind of feed message: {other}"))),
        };
        c.end()?;
        Ok(feed)
    }
}

#[cfg(test)]
mod tests;
