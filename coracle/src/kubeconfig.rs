//! The administrator's kubeconfig.

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use coracle_link::pki::{Authority, KeyPair};
use std::{fs, io::Write, net::SocketAddr, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

const VALID: Duration = Duration::from_secs(365 * 24 * 3600);

/// Writes a kubeconfig whose user is in `system:masters`, readable by this user alone; replaces an older one of ours in one step.
///
/// # Errors
/// What is there was not written by this function: it may hold the way to other clusters.
pub fn write(path: &Path, authority: &Authority, server: SocketAddr) -> Result<()> {
    let admin =
        authority.client("kubernetes-admin", &["system:masters".to_string()], VALID).context("cannot sign the administrator's certificate")?;
    let text = document(authority.ca_pem(), &admin, server);
    if fs::read(path).is_ok_and(|there| !there.is_empty() && !there.starts_with(HEAD.as_bytes())) {
        bail!("{} is there already and is not of coracle's making; give another place with --kubeconfig, or move it away", path.display());
    }
    let name = path.file_name().context("--kubeconfig names no file")?.to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let put = || -> std::io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&fresh, path)
    };
    put().with_context(|| format!("cannot write the kubeconfig {}; give another place with --kubeconfig", path.display()))
}

/// How each of them begins.
const HEAD: &str = "apiVersion: v1
kind: Config
clusters:
- name: coracle
  cluster:";

fn document(ca: &str, admin: &KeyPair, server: SocketAddr) -> String {
    let data = |bytes: &[u8]| BASE64.encode(bytes);
    format!(
        "{HEAD}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(&dir.path().join("pki")).expect("an authority");
        let (path, other) = (dir.path().join("prod.yaml"), dir.path().join("prod.new"));
        let server: SocketAddr = "127.0.0.1:6443".parse().expect("an address");
        fs::write(&other, "keep").expect("a file");
        write(&path, &authority, server).expect("a new one");
        write(&path, &authority, server).expect("again");
        assert!(fs::read_to_string(&path).expect("it").contains("server: https://127.0.0.1:6443\n"));
        assert_eq!(fs::read_to_string(&other).expect("untouched"), "keep");
        fs::write(&path, "apiVersion: v1\nkind: Config\nclusters:\n- name: production\n").expect("somebody else's");
        let why = write(&path, &authority, server).expect_err("not ours").to_string();
        assert!(why.contains("prod.yaml") && why.contains("--kubeconfig"), "{why}");
        assert!(fs::read_to_string(&path).expect("it").contains("production"));
    }
}
