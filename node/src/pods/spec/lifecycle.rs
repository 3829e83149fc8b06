//! Probes and hooks: how a container is looked after while it runs.

use serde::Deserialize;
use serde_json::Value;

/// `Lifecycle`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Lifecycle {
    /// After start.
    pub post_start: Option<Handler>,
    /// Before stop.
    pub pre_stop: Option<Handler>,
}

/// `LifecycleHandler`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Handler {
    /// Command inside.
    pub exec: Option<ExecAction>,
    /// HTTP GET.
    pub http_get: Option<HttpGet>,
    /// TCP connect, refused.
    pub tcp_socket: Option<Value>,
    /// Sleep.
    pub sleep: Option<SleepAction>,
}

/// `SleepAction`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SleepAction {
    /// Seconds.
    pub seconds: i64,
}

/// `Probe`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Probe {
    /// HTTP GET.
    pub http_get: Option<HttpGet>,
    /// TCP connect.
    pub tcp_socket: Option<TcpSocket>,
    /// Command inside.
    pub exec: Option<ExecAction>,
    /// gRPC health check.
    pub grpc: Option<GrpcAction>,
    /// Seconds after start.
    pub initial_delay_seconds: i64,
    /// Seconds; 1 when zero.
    pub timeout_seconds: i64,
    /// Seconds; 10 when zero.
    pub period_seconds: i64,
    /// 1 when zero.
    pub success_threshold: i64,
    /// 3 when zero.
    pub failure_threshold: i64,
    /// Grace when this probe stops the container.
    pub termination_grace_period_seconds: Option<i64>,
}

/// `ExecAction`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct ExecAction {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// `GRPCAction`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct GrpcAction {
    /// Number.
    pub port: u16,
    /// Whose health; the server's own when empty.
    pub service: String,
}

/// `HTTPGetAction`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpGet {
    /// `/` when empty.
    pub path: String,
    /// Number or name.
    pub port: Value,
    /// The pod's address when empty.
    pub host: String,
    /// `HTTP` when empty.
    pub scheme: String,
    /// Headers.
    pub http_headers: Vec<HttpHeader>,
}

/// `HTTPHeader`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct HttpHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// `TCPSocketAction`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct TcpSocket {
    /// Number or name.
    pub port: Value,
    /// The pod's address when empty.
    pub host: String,
}
