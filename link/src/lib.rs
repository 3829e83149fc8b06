//! QUIC between control plane and nodes: identity, frames, protocol messages, reconnect.
//!
//! SKELETON: contract.
#![allow(unused, missing_docs, clippy::all)]
use async_trait::async_trait;
use bytes::Bytes;
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

/// The cluster's certificate authority (ECDSA P-256), kept in `<data-dir>/pki`. One CA signs the API server, the link, client certificates.
pub mod pki {
    use super::*;
    #[derive(Clone, Debug)]
    pub struct KeyPair {
        pub cert_pem: String,
        pub key_pem: String,
    }
    #[derive(Clone)]
    pub struct Authority {}
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    pub struct Error(pub String);
    impl Authority {
        /// Opens `dir/ca.crt` and `dir/ca.key`, making them (0600, fsynced) at first start.
        pub fn open(dir: &Path) -> Result<Self, Error> {
            unimplemented!()
        }
        pub fn ca_pem(&self) -> &str {
            unimplemented!()
        }
        /// Server certificate for these DNS names and IP addresses.
        pub fn server(&self, names: &[String], valid: Duration) -> Result<KeyPair, Error> {
            unimplemented!()
        }
        /// Client certificate: CN = user, O = groups.
        pub fn client(&self, user: &str, groups: &[String], valid: Duration) -> Result<KeyPair, Error> {
            unimplemented!()
        }
    }
    /// Subject of a peer's (already verified) certificate.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Subject {
        pub common_name: String,
        pub organizations: Vec<String>,
    }
    pub fn subject(der: &[u8]) -> Result<Subject, Error> {
        unimplemented!()
    }
}

/// Length-delimited, versioned, checksummed frames over any byte stream. Max payload 4 MiB.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the link is closed: {0}")]
    Closed(String),
    #[error("{0}")]
    Protocol(String),
    #[error("{0}")]
    Tls(String),
}

/// One bidirectional stream of frames. `send` applies back-pressure; `finish` half-closes.
#[async_trait]
pub trait Stream: Send {
    async fn send(&mut self, frame: Bytes) -> Result<(), Error>;
    /// None at the peer's end of stream.
    async fn recv(&mut self) -> Result<Option<Bytes>, Error>;
    async fn finish(&mut self) -> Result<(), Error>;
    fn split(self: Box<Self>) -> (Box<dyn SendHalf>, Box<dyn RecvHalf>);
}
#[async_trait]
pub trait SendHalf: Send {
    async fn send(&mut self, frame: Bytes) -> Result<(), Error>;
    async fn finish(&mut self) -> Result<(), Error>;
}
#[async_trait]
pub trait RecvHalf: Send {
    async fn recv(&mut self) -> Result<Option<Bytes>, Error>;
}

/// One connection to a peer; the seam for simulation (QUIC is one implementation, in-memory duplex another for tests).
#[async_trait]
pub trait Connection: Send + Sync + 'static {
    fn peer(&self) -> &pki::Subject;
    async fn open(&self) -> Result<Box<dyn Stream>, Error>;
    async fn accept(&self) -> Result<Box<dyn Stream>, Error>;
    async fn closed(&self) -> String;
    fn close(&self, why: &str);
}

/// Node side: dial, again and again.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error>;
}

/// Protocol messages. First frame of every stream is an `Open`; each has its own follow-ups. `encode`/`decode` are our own
/// binary format: version byte, kind byte, then length-prefixed fields.
pub mod protocol {
    use super::*;
    /// First frame of a stream.
    #[derive(Clone, Debug, PartialEq)]
    pub enum Open {
        /// node → control: subscribe to this node's slice. Follow-ups (control → node): `Feed`.
        /// `epoch`+`revision` of the last `Feed::Synced` on disk; zero for a fresh mirror.
        Subscribe { epoch: u64, revision: u64 },
        /// node → control: one API request as this node (`system:node:NAME`), through the same pipeline as HTTPS. Follow-up: one `Reply`.
        Call { method: String, path: String, content_type: String, body: Bytes },
        /// control → node: container logs. Follow-ups: `Reply` (200 or an error), then raw byte frames until the end.
        Logs { namespace: String, pod: String, uid: String, container: String, options: LogOptions },
        /// control → node: a TCP-like byte stream to a port of a pod. Follow-ups: `Reply`, then raw byte frames both ways.
        Dial { namespace: String, pod: String, uid: String, port: u16 },
        /// control → node: node's stats as JSON (`Reply`).
        Stats,
    }
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct LogOptions {
        pub follow: bool,
        pub previous: bool,
        pub timestamps: bool,
        pub since_seconds: Option<i64>,
        pub since_time: Option<String>,
        pub tail_lines: Option<i64>,
        pub limit_bytes: Option<i64>,
    }
    #[derive(Clone, Debug, PartialEq)]
    pub struct Reply {
        pub code: u16,
        pub body: Bytes,
    }
    #[derive(Clone, Debug, PartialEq)]
    pub enum Feed {
        /// What follows is everything; drop what is not named before the next `Synced`.
        Reset {
            epoch: u64,
        },
        /// Object's canonical JSON; key from resource id, namespace, name.
        Upsert {
            resource: String,
            namespace: String,
            name: String,
            json: Bytes,
        },
        Remove {
            resource: String,
            namespace: String,
            name: String,
        },
        /// Everything up to here was sent: make it durable together, then resume from here.
        Synced {
            epoch: u64,
            revision: u64,
        },
    }
    impl Open {
        pub fn encode(&self) -> Bytes {
            unimplemented!()
        }
        pub fn decode(b: &[u8]) -> Result<Self, Error> {
            unimplemented!()
        }
    }
    impl Reply {
        pub fn encode(&self) -> Bytes {
            unimplemented!()
        }
        pub fn decode(b: &[u8]) -> Result<Self, Error> {
            unimplemented!()
        }
    }
    impl Feed {
        pub fn encode(&self) -> Bytes {
            unimplemented!()
        }
        pub fn decode(b: &[u8]) -> Result<Self, Error> {
            unimplemented!()
        }
    }
}

/// QUIC (quinn, rustls with ring, mutual TLS, ALPN `coracle/1`, keep-alive 5 s, idle 20 s, windows small).
pub mod quic {
    use super::*;
    pub struct Server {}
    impl Server {
        pub fn bind(addr: SocketAddr, ca_pem: &str, identity: &pki::KeyPair) -> Result<Self, Error> {
            unimplemented!()
        }
        pub fn local_addr(&self) -> SocketAddr {
            unimplemented!()
        }
        /// Next authenticated connection; bad handshakes are logged and skipped.
        pub async fn accept(&self) -> Option<Arc<dyn Connection>> {
            unimplemented!()
        }
        pub async fn close(&self) {}
    }
    /// `server_name` is the DNS name in the server's certificate: `coracle`.
    pub fn connector(server: SocketAddr, ca_pem: &str, identity: &pki::KeyPair) -> Result<Arc<dyn Connector>, Error> {
        unimplemented!()
    }
}
