//! Flags that few need: those of Kubernetes' own servers, under their names.

use crate::machine;
use anyhow::{Context, Result, anyhow};
use clap::Args;
use coracle_apiserver::audit;
use coracle_control::{Settings, scheduler::profile};
use std::{net::IpAddr, path::PathBuf};

/// Flags of the control plane.
#[derive(Args)]
pub struct Flags {
    /// A KubeSchedulerConfiguration with profiles: which plugins place the pods of which schedulerName.
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<PathBuf>,
    /// Writes who asked for what to this file, one audit.k8s.io/v1 Event a line; - is standard output.
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// An audit.k8s.io/v1 Policy: how much is written of which request. Without one: all at Metadata, once they are answered.
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    audit_policy_file: Option<PathBuf>,
    /// Megabytes after which a new file is begun; 0 for never.
    #[arg(long, value_name = "MB", default_value_t = 100)]
    audit_log_maxsize: u64,
    /// Old files that are kept; 0 for all.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    audit_log_maxbackup: usize,
    /// Requests that only read and are worked on at once, with those that write shared out among the priority levels.
    #[arg(long, value_name = "COUNT", default_value_t = 400)]
    max_requests_inflight: usize,
    /// Requests that write and are worked on at once.
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    max_mutating_requests_inflight: usize,
    /// Names and addresses by which clients reach the API, for its certificate, with commas between; this machine's own are in it where --api-addr is 0.0.0.0.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = host)]
    tls_san: Vec<String>,
}

/// An address, or a name as DNS has them.
fn host(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => crate::up::node_name(text),
    }
}

/// What the API's certificate is to name besides the address it is served at: of all addresses of the machine each, and its name.
fn names(at: IpAddr, machine: &[IpAddr], hostname: &str, more: &[String]) -> Vec<String> {
    let mut names = more.to_vec();
    if at.is_unspecified() {
        names.extend(machine.iter().map(ToString::to_string));
        names.extend(host(hostname).ok());
    }
    names
}

impl Flags {
    /// What the flags say for an API that is served at this address; files are read.
    pub fn settings(&self, at: IpAddr) -> Result<Settings> {
        let seats = self.max_requests_inflight.saturating_add(self.max_mutating_requests_inflight).max(1);
        let mut settings = Settings { seats, ..Settings::default() };
        settings.audit = self.audit()?;
        settings.names = names(at, &machine::addresses(), &machine::hostname(), &self.tls_san);
        if let Some(path) = &self.scheduler_config {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read --scheduler-config {}", path.display()))?;
            settings.profiles = profile::read(&text).map_err(|error| anyhow!("--scheduler-config {}: {error}", path.display()))?;
        }
        Ok(settings)
    }

    fn audit(&self) -> Result<Option<audit::Options>> {
        let Some(path) = &self.audit_log_path else { return Ok(None) };
        let policy = match &self.audit_policy_file {
            None => audit::Policy::default(),
            Some(policy) => {
                let text = std::fs::read_to_string(policy).with_context(|| format!("cannot read --audit-policy-file {}", policy.display()))?;
                audit::Policy::read(&text).map_err(|error| anyhow!("--audit-policy-file {}: {error}", policy.display()))?
            }
        };
        let max_bytes = self.audit_log_maxsize.saturating_mul(1024 * 1024);
        let file = audit::sink::Options { path: path.clone(), max_bytes, max_backups: self.audit_log_maxbackup };
        Ok(Some(audit::Options { policy, file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_known_by_all_addresses() {
        let machine: [IpAddr; 2] = [[10, 1, 1, 1].into(), [192, 168, 0, 7].into()];
        let more = [host("api.example.com").unwrap(), host("203.0.113.9").unwrap()];
        assert_eq!(names([0, 0, 0, 0].into(), &machine, "box", &more), ["api.example.com", "203.0.113.9", "10.1.1.1", "192.168.0.7", "box"]);
        assert_eq!(names([0, 0, 0, 0].into(), &machine, "no_name", &[]), ["10.1.1.1", "192.168.0.7"], "no name in DNS");
        assert_eq!(names([127, 0, 0, 1].into(), &machine, "box", &more), more);
        assert!(host("https://api").is_err());
    }
}
