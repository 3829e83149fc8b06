//! The files that every container of a pod has of its pod: /etc/hosts, /etc/hostname, /etc/resolv.conf.

use coracle_runtime::SandboxSpec;
use std::{fmt::Write, fs, io, os::unix::fs::PermissionsExt, path::Path};

/// Makes the shim's directory with these files in it.
///
/// # Errors
/// Those of the file system.
pub fn write(spec: &SandboxSpec, dir: &Path) -> io::Result<()> {
    let etc = dir.join("etc");
    fs::create_dir_all(&etc)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    let of_node = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let host = spec.linux.host_network;
    fs::write(etc.join("hosts"), hosts(spec, host.then(|| of_node("/etc/hosts")).as_deref()))?;
    let name = if host { of_node("/proc/sys/kernel/hostname").trim().to_owned() } else { spec.hostname.clone() };
    fs::write(etc.join("hostname"), format!("{name}\n"))?;
    let resolv = if spec.dns.servers.is_empty() { of_node("/etc/resolv.conf") } else { resolv_conf(spec) };
    fs::write(etc.join("resolv.conf"), resolv)
}

/// As kubelet writes it, or the node's own with the pod's aliases.
fn hosts(spec: &SandboxSpec, of_node: Option<&str>) -> String {
    let mut text = match of_node {
        Some(text) => format!("# Kubernetes-managed hosts file (host network).\n{text}"),
        None => format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n{}\t{}\n",
            spec.ip,
            names(spec)
        ),
    };
    if !spec.linux.host_aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for (address, names) in &spec.linux.host_aliases {
            // Writing to memory does not fail.
            _ = writeln!(text, "{address}\t{}", names.join("\t"));
        }
    }
    text
}

/// As kubelet orders them: with the domain first, then without.
fn names(spec: &SandboxSpec) -> String {
    if spec.domain.is_empty() {
        return spec.hostname.clone();
    }
    let short = spec.hostname.strip_suffix(&spec.domain).and_then(|name| name.strip_suffix('.')).unwrap_or(&spec.hostname);
    format!("{short}.{}\t{short}", spec.domain)
}

fn resolv_conf(spec: &SandboxSpec) -> String {
    let dns = &spec.dns;
    let mut text = String::new();
    if !dns.searches.is_empty() {
        _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.servers {
        _ = writeln!(text, "nameserver {}", server.ip());
    }
    if !dns.options.is_empty() {
        _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    text
}
