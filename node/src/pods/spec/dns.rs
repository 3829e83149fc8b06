//! Resolver settings of a pod.

use serde::Deserialize;

/// `PodDNSConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Addresses.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options such as `ndots`.
    pub options: Vec<DnsOption>,
}

/// `PodDNSConfigOption`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DnsOption {
    /// Name.
    pub name: String,
    /// Value, if it has one.
    pub value: Option<String>,
}
