//! A real OCI registry: Debian's docker-registry on a host's loopback.

use crate::{Background, Host, Result, eventually};
use std::{fs, path::Path};
use tempfile::TempDir;

/// A registry that serves plain http on `127.0.0.1:PORT`; ended when dropped.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: String,
    process: Background,
    _dir: TempDir,
}

impl Registry {
    /// Starts one on `host`.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}, delete: {{enabled: true}}}}\nhttp: {{addr: {address}}}\n",
            dir.path().display()
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config)?;
        let process = Background::start(host.command("docker-registry").arg("serve").arg(&file))?;
        eventually("the registry answers", 20, || host.get(&format!("http://{address}/v2/")))?;
        Ok(Self { address, process, _dir: dir })
    }

    /// Copies an archive of `docker save`'s format to it with skopeo; the image's whole name there.
    pub fn push(&self, host: &Host, archive: &Path, name: &str) -> Result<String> {
        let image = format!("{}/{name}", self.address);
        let (from, to) = (format!("docker-archive:{}", archive.display()), format!("docker://{image}"));
        host.run("skopeo", &["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &from, &to])?.ok()?;
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
