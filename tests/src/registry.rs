//! A real OCI registry: Debian's docker-registry on a host's loopback.

use crate::{Background, Host, Output, Result, eventually};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Who may use a guarded registry: a name and a password.
const ALICE: &str = "alice:secret";

/// A registry on `127.0.0.1:PORT`; ended when dropped.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    guarded: bool,
    process: Background,
    dir: TempDir,
}

impl Registry {
    /// Starts one on `host` that speaks plain http to everybody.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        Self::serve(host, port, tempfile::tempdir()?, false)
    }

    /// Starts one on `host` that speaks https with a CA of its own ([`ca`](Self::ca)) and lets in `alice`, whose password is `secret`.
    pub fn guarded(host: &Host, port: u16) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let made = |name: &str, more: &[&str]| {
            let mut command = Command::new("openssl");
            command.current_dir(dir.path()).args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
            command.args(["-subj", &format!("/CN={name}"), "-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]).args(more);
            Output::of(&mut command, "")?.ok()
        };
        made("ca", &[])?;
        made(
            "registry",
            &["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"],
        )?;
        // bcrypt of the password, as `htpasswd -B` makes it.
        fs::write(dir.path().join("users"), "alice:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")?;
        Self::serve(host, port, dir, true)
    }

    fn serve(host: &Host, port: u16, dir: TempDir, guarded: bool) -> Result<Self> {
        let (address, at) = (format!("127.0.0.1:{port}"), dir.path().display());
        let (auth, tls, scheme) = match guarded {
            false => (String::new(), String::new(), "http"),
            true => (
                format!("auth: {{htpasswd: {{realm: tests, path: {at}/users}}}}\n"),
                format!(", tls: {{certificate: {at}/registry.crt, key: {at}/registry.key}}"),
                "https",
            ),
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}, delete: {{enabled: true}}}}\n{auth}http: {{addr: {address}{tls}}}\n"
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config)?;
        let process = Background::start(host.command("docker-registry").arg("serve").arg(&file))?;
        eventually("the registry answers", 60, || host.run("curl", &["-sSkf", "-m", "5", "-u", ALICE, &format!("{scheme}://{address}/v2/")])?.ok())?;
        Ok(Self { address, guarded, process, dir })
    }

    /// The certificate of a guarded one's CA.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Copies an archive of `docker save`'s format to it with skopeo; the image's whole name there.
    pub fn push(&self, host: &Host, archive: &Path, name: &str) -> Result<String> {
        let image = format!("{}/{name}", self.address);
        let (from, to) = (format!("docker-archive:{}", archive.display()), format!("docker://{image}"));
        let mut words = vec!["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &from, &to];
        if self.guarded {
            words.extend(["--dest-creds", ALICE]);
        }
        host.run("skopeo", &words)?.ok()?;
        Ok(image)
    }

    /// From now on it takes connections and says nothing.
    pub fn freeze(&self) -> Result {
        self.process.signal("STOP")
    }

    /// Ends a freeze.
    pub fn thaw(&self) -> Result {
        self.process.signal("CONT")
    }
}
