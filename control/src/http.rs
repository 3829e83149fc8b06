//! axum: TLS, discovery, OpenAPI, the one generic handler, watch, patch, tables.
pub mod list;
pub mod watch;
