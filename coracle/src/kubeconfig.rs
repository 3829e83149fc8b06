//! The administrator's kubeconfig.

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use coracle_link::pki::{Authority, KeyPair};
use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

const VALID: Duration = Duration::from_secs(365 * 24 * 3600);

/// Writes a kubeconfig whose user is in `system:masters`, readable by this user alone; replaces an older one of ours in one step.
///
/// # Errors
/// What is there leads to other clusters. (In the data directory it is ours, whatever it says.)
pub fn write(path: &Path, in_data_dir: bool, authority: &Authority, server: SocketAddr) -> Result<()> {
    let admin =
        authority.client("kubernetes-admin", &["system:masters".to_string()], VALID).context("cannot sign the administrator's certificate")?;
    let text = document(authority.ca_pem(), &admin, server);
    let foreign = match fs::read(path) {
        Ok(there) => !is_ours(&there),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if foreign && !in_data_dir {
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

/// Whether a kubeconfig leads to our cluster alone; kubectl may have written it anew since (`config set-context`).
fn is_ours(text: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Config {
        clusters: Vec<Named>,
    }
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
    }
    text.trim_ascii().is_empty() || serde_norway::from_slice::<Config>(text).is_ok_and(|config| config.clusters.iter().all(|it| it.name == "coracle"))
}

/// Where clients on this machine reach what listens there.
fn here(mut server: SocketAddr) -> SocketAddr {
    if server.ip().is_unspecified() {
        server.set_ip(if server.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    server
}

fn document(ca: &str, admin: &KeyPair, server: SocketAddr) -> String {
    let server = here(server);
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
        write(&path, false, &authority, server).expect("a new one");
        write(&path, false, &authority, server).expect("again");
        assert!(fs::read_to_string(&path).expect("it").contains("server: https://127.0.0.1:6443\n"));
        assert_eq!(fs::read_to_string(&other).expect("untouched"), "keep");
        write(&path, false, &authority, "0.0.0.0:6443".parse().expect("an address")).expect("everywhere");
        assert!(fs::read_to_string(&path).expect("it").contains("server: https://127.0.0.1:6443\n"), "which is here, too");
        fs::write(&path, "apiVersion: v1\nkind: Config\nclusters:\n- name: production\n").expect("somebody else's");
        let why = write(&path, false, &authority, server).expect_err("not ours").to_string();
        assert!(why.contains("prod.yaml") && why.contains("--kubeconfig"), "{why}");
        assert!(fs::read_to_string(&path).expect("it").contains("production"));
        // As kubectl writes it anew.
        fs::write(&path, "apiVersion: v1\nclusters:\n- cluster:\n    server: https://127.0.0.1:1\n  name: coracle\ncontexts: []\n").expect("ours");
        write(&path, false, &authority, server).expect("ours");
        fs::write(&path, "no kubeconfig: [").expect("damaged");
        write(&path, false, &authority, server).expect_err("unknown");
        write(&path, true, &authority, server).expect("in the data directory it is ours");
    }
}
