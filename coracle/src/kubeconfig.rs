//! The administrator's kubeconfig.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use coracle_link::pki::{Authority, KeyPair};
use std::{fs, io::Write, net::SocketAddr, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

const VALID: Duration = Duration::from_secs(365 * 24 * 3600);

/// Writes a kubeconfig whose user is in `system:masters`, readable by this user alone; replaces what was there in one step.
pub fn write(path: &Path, authority: &Authority, server: SocketAddr) -> Result<()> {
    let admin =
        authority.client("kubernetes-admin", &["system:masters".to_string()], VALID).context("cannot sign the administrator's certificate")?;
    let text = document(authority.ca_pem(), &admin, server);
    let fresh = path.with_extension("new");
    let put = || -> std::io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&fresh, path)
    };
    put().with_context(|| format!("cannot write the kubeconfig {}; give another place with --kubeconfig", path.display()))
}

fn document(ca: &str, admin: &KeyPair, server: SocketAddr) -> String {
    let data = |bytes: &[u8]| BASE64.encode(bytes);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: coracle
  cluster:
    server: https://{server}
    certificate-authority-data: {}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: {}
    client-key-data: {}
contexts:
- name: coracle
  context: {{cluster: coracle, user: kubernetes-admin}}
current-context: coracle
preferences: {{}}
",
        data(ca.as_bytes()),
        data(admin.cert_pem.as_bytes()),
        data(admin.key_pem.as_bytes())
    )
}
