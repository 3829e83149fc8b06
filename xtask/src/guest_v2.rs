//! `cargo xtask guest-v2`: the container runtime's tests on a machine whose control groups are version 2 alone, whatever this one has.
//!
//! The machine is qemu with Debian's cloud kernel; its only disk is memory, holding busybox, the test program and the libraries that it is linked with. Software
//! emulation is enough (some minutes), so that this runs where machines are nested no further.

use crate::{guests, packages, step};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What to run in the guest.
#[derive(Args)]
pub struct Options {
    /// Part of the names of tests; by default everything.
    filter: Option<String>,
}

const NEEDS: &[packages::Need] = &[
    packages::Need { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    packages::Need { program: "cpio", package: "cpio" },
    packages::Need { program: "busybox", package: "busybox-static" },
];
/// Debian's name for the kernel of virtual machines, whatever its version.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Kernel modules that are loaded, in this order: layers of images, devices of pods.
const MODULES: [&str; 1] = ["overlay"];
/// What the guest prints last, with the exit code after it.
const ENDED: &str = "guest: the tests ended with ";

/// The guest's first process. The memory that a kernel starts in cannot be changed for another root, as containers do, so everything moves.
const INIT: &str = "#!/bin/sh
mount -t tmpfs -o size=80% root /new
for part in bin lib lib64 usr etc tests modules; do cp -a /$part /new/; done
mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/run /new/root
chmod 1777 /new/tmp
exec switch_root /new /bin/begin
";
const BEGIN: &str = "#!/bin/sh
export PATH=/bin HOME=/root TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/hugepages
mount -t devpts -o ptmxmode=0666 devpts /dev/pts
ln -sf pts/ptmx /dev/ptmx
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t hugetlbfs huge /dev/hugepages
ip link set lo up
hostname guest
for module in /modules/*; do insmod $module; done
echo \"guest: Linux $(uname -r), control groups: $(cat /sys/fs/cgroup/cgroup.controllers)\"
/tests $(cat /etc/filter)
echo \"guest: the tests ended with $?\"
sync
poweroff -f
";

/// Builds what is needed, boots the guest, and fails as its tests do.
pub fn run(options: &Options) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the guest is an x86_64 machine; its test program is built on one");
    packages::ensure(packages::BUILD)?;
    packages::ensure(NEEDS)?;
    let dir = guests::target_dir().join("guest-v2");
    fs::create_dir_all(&dir)?;
    let kernel = kernel(&dir)?;
    let tests = tests()?;
    let memory = initial(&dir, &kernel, &tests, options.filter.as_deref())?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-m", "2048", "-smp", "2", "-nographic", "-no-reboot", "-net", "none", "-cpu", "max"]);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all hugepages=16"]);
    qemu.arg("-kernel").arg(kernel.join("vmlinuz")).arg("-initrd").arg(memory);
    println!("── guest with control groups of version 2");
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start qemu-system-x86_64")?;
    let mut code = None;
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        println!("{}", line.trim_end());
        if let Some((_, rest)) = line.split_once(ENDED) {
            code = rest.trim().parse::<i32>().ok();
        }
    }
    child.wait()?;
    match code {
        Some(0) => Ok(()),
        Some(code) => bail!("tests failed in the guest ({code})"),
        None => bail!("the guest ended before its tests did"),
    }
}

/// A folder with `vmlinuz` and `modules/`, out of Debian's package; fetched once.
fn kernel(dir: &Path) -> Result<PathBuf> {
    let kernel = dir.join("kernel");
    if kernel.join("vmlinuz").is_file() {
        return Ok(kernel);
    }
    let depends =
        Command::new("apt-cache").args(["depends", "--important", KERNEL]).output().context("apt-cache: the guest needs Debian's packages")?;
    let text = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")));
    let package = package.with_context(|| format!("{KERNEL} is not among the packages of this machine; run apt-get update"))?;
    let parts = dir.join("package");
    let _ = fs::remove_dir_all(&parts);
    fs::create_dir_all(&parts)?;
    // The user that apt fetches as may not be let into the build folder.
    step::run(
        &format!("fetch {package}"),
        Command::new("apt-get").args(["-q", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(&parts),
    )?;
    let archive = fs::read_dir(&parts)?.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    step::run("unpack it", Command::new("dpkg-deb").arg("-x").arg(archive.context("no package was fetched")?).arg(&parts))?;
    let image = fs::read_dir(parts.join("boot"))?.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("/vmlinuz-"));
    let _ = fs::remove_dir_all(&kernel);
    fs::create_dir_all(kernel.join("modules"))?;
    for (number, name) in MODULES.iter().enumerate() {
        let found = Command::new("find").arg(parts.join("lib/modules")).args(["-name", &format!("{name}.ko")]).output()?;
        let path =
            String::from_utf8_lossy(&found.stdout).lines().next().map(PathBuf::from).with_context(|| format!("the kernel has no module {name}"))?;
        fs::copy(path, kernel.join("modules").join(format!("{number}-{name}.ko")))?;
    }
    // Last: it says that all of it is there.
    fs::copy(image.context("the package has no kernel")?, kernel.join("vmlinuz"))?;
    fs::remove_dir_all(&parts)?;
    Ok(kernel)
}

/// The test program of the container runtime.
fn tests() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(guests::root()).args(["test", "--profile", "ci", "-p", "coracle-runtime-oci", "--test", "containers", "--no-run"]);
    step::run("build the container runtime's tests", &mut cargo)?;
    let output = cargo.args(["--message-format", "json"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).output()?;
    let artifacts = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let mut programs = artifacts
        .filter(|artifact| artifact["target"]["name"] == "containers")
        .filter_map(|artifact| Some(PathBuf::from(artifact["executable"].as_str()?)));
    programs.next().context("cargo names no test program")
}

/// The guest's memory as it starts, as one file.
fn initial(dir: &Path, kernel: &Path, tests: &Path, filter: Option<&str>) -> Result<PathBuf> {
    let root = dir.join("root");
    let _ = fs::remove_dir_all(&root);
    for part in ["bin", "etc", "lib", "lib64", "usr", "new", "dev", "modules"] {
        fs::create_dir_all(root.join(part))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()).context("busybox is missing")?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    let list = Command::new(busybox).arg("--list").output()?;
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name))?;
    }
    for (path, text) in [("init", INIT), ("bin/begin", BEGIN)] {
        fs::write(root.join(path), text)?;
        fs::set_permissions(root.join(path), PermissionsExt::from_mode(0o755))?;
    }
    fs::write(root.join("etc/filter"), filter.unwrap_or_default())?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n")?;
    fs::copy(tests, root.join("tests"))?;
    for module in fs::read_dir(kernel.join("modules"))?.flatten() {
        fs::copy(module.path(), root.join("modules").join(module.file_name()))?;
    }
    let linked = Command::new("ldd").arg(tests).output()?;
    for word in String::from_utf8_lossy(&linked.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(word.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a library has a folder")?)?;
        fs::copy(word, to)?;
    }
    let memory = dir.join("initial.gz");
    let mut pack = Command::new("sh");
    pack.current_dir(&root).args(["-c", "find . | cpio --quiet -o -H newc | gzip -1 > \"$0\""]).arg(&memory);
    step::run("pack the guest", &mut pack)?;
    Ok(memory)
}
