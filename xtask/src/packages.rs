//! What the habits need from the system's packages: installed as root on a Debian machine, named with the command elsewhere.

use crate::step;
use anyhow::{Result, bail};
use std::{path::Path, process::Command};

/// A program that must be on PATH (or under /usr/sbin), or a file by its whole path, and the Debian package that brings it.
pub struct Need {
    pub program: &'static str,
    pub package: &'static str,
}

/// What the program is linked with.
pub const BUILD: &[Need] = &[Need { program: "/usr/include/seccomp.h", package: "libseccomp-dev" }];

/// Service proxy, test hosts and the tests' registry.
pub const SYSTEM: &[Need] = &[Need { program: "nft", package: "nftables" }, Need { program: "ip", package: "iproute2" }];

/// The command line of Kubernetes; any version that speaks to v1.36 will do.
pub const KUBECTL: &[Need] = &[Need { program: "kubectl", package: "kubernetes-client" }, Need { program: "curl", package: "curl" }];

/// What only the tests need.
pub const TESTS: &[Need] = &[
    Need { program: "docker-registry", package: "docker-registry" },
    Need { program: "skopeo", package: "skopeo" },
    Need { program: "busybox", package: "busybox-static" },
    Need { program: "redis-check-rdb", package: "redis-tools" },
    Need { program: "setpriv", package: "util-linux" },
    Need { program: "update-ca-certificates", package: "ca-certificates" },
];

/// What brings and runs the client libraries of other languages.
pub const CLIENTS: &[Need] =
    &[Need { program: "python3", package: "python3-venv" }, Need { program: "node", package: "nodejs" }, Need { program: "npm", package: "npm" }];

/// Installs what is missing, or fails with the exact command that would.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs.iter().filter(|need| !present(need.program)).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() || !present("apt-get") {
        bail!("missing on this machine: {list}\ninstall with: sudo apt-get install {list}");
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    step::run("apt-get update", &mut apt(&["update", "-q"]))?;
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    step::run(&format!("apt-get install {list}"), &mut apt(&arguments))
}

/// Whether a program is on PATH or in the administrator's folders.
pub fn present(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(program).is_file())
}

/// Whether we run as root.
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
