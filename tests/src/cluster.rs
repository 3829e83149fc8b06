//! A one-machine cluster under test: `coracle up` in a host of its own.

use crate::{Background, Host, Output, Registry, Result, binary, eventually, guest, host};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tempfile::TempDir;

/// As whom the cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As the user who runs the tests; in CI that is root.
    Whole,
    /// As an ordinary user, whatever the tests run as.
    Unprivileged,
}

/// The user and group of an unprivileged cluster under a test that runs as root.
const NOBODY: &str = "65534";

/// A running cluster. All methods can be used from several threads.
pub struct Cluster {
    /// Where it runs.
    pub host: Host,
    mode: Mode,
    dir: TempDir,
    process: Mutex<Option<Background>>,
    flags: Vec<String>,
    /// Whether `busybox:v1` was imported: cases that run beside each other make it once.
    busybox: Mutex<bool>,
}

impl Cluster {
    /// Starts one with the test guests imported as `hello:v1`, `web:v1` and `probe:v1`, and waits until it is ready.
    pub fn start(mode: Mode) -> Result<Self> {
        let cluster = Self::stopped(mode, &[])?;
        cluster.up()?;
        for name in ["hello", "web", "probe"] {
            cluster.import(name, &format!("{name}:v1"))?;
        }
        Ok(cluster)
    }

    /// A cluster that was not started yet, with further flags for `coracle up`.
    pub fn stopped(mode: Mode, flags: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("coracle-test-").tempdir()?;
        if mode == Mode::Unprivileged && host::is_root() {
            // The build folder may be closed to other users.
            fs::copy(binary()?, dir.path().join("coracle"))?;
            Output::of(Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(dir.path()), "")?.ok()?;
        }
        let flags = flags.iter().map(ToString::to_string).collect();
        Ok(Self { host: Host::new()?, mode, dir, process: Mutex::new(None), flags, busybox: Mutex::default() })
    }

    /// The folder that holds its data directory and kubeconfig.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A command that runs as the cluster's user on its host.
    pub fn as_user(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        if self.mode == Mode::Unprivileged && host::is_root() {
            let mut command = self.host.command("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all", "--no-new-privs"]).arg(program);
            command.env("HOME", self.dir.path());
            return command;
        }
        self.host.command(program)
    }

    /// The binary, where the cluster's user can run it.
    fn program(&self) -> Result<PathBuf> {
        let copy = self.dir.path().join("coracle");
        if copy.is_file() { Ok(copy) } else { binary() }
    }

    /// The command line of `coracle up`.
    pub fn up_command(&self) -> Result<Command> {
        let mut command = self.as_user(self.program()?);
        command.arg("up").arg("--data-dir").arg(self.data_dir()).arg("--kubeconfig").arg(self.kubeconfig());
        command.args(["--api-addr", "127.0.0.1:6443", "--node-name", "test-node"]);
        // How full the machine's disk is is no matter of the test's.
        command.args(["--eviction-hard", "memory.available<50Mi", "--image-gc-high-threshold", "100"]).args(&self.flags);
        Ok(command)
    }

    /// Starts it and waits for the ready line.
    pub fn up(&self) -> Result {
        let process = Background::start(&mut self.up_command()?)?;
        *self.slot() = Some(process);
        eventually("the ready line", 60, || {
            let mut slot = self.slot();
            let process = slot.as_mut().context("it was stopped")?;
            let lines = process.lines();
            ensure!(lines.iter().any(|line| line.contains("ready")) || process.running(), "coracle up ended:\n{}", lines.join("\n"));
            ensure!(lines.iter().any(|line| line.starts_with("ready")), "no ready line:\n{}", lines.join("\n"));
            Ok(())
        })
    }

    /// What it printed since it was last started.
    pub fn log(&self) -> String {
        self.slot().as_ref().map(|process| process.lines().join("\n")).unwrap_or_default()
    }

    /// kill -9 of the control plane and agent, nothing else.
    pub fn kill(&self) -> Result {
        let mut slot = self.slot();
        let process = slot.as_mut().context("not running")?;
        process.signal("KILL")?;
        process.wait(10)?;
        *slot = None;
        Ok(())
    }

    /// SIGTERM, and the exit code; what it printed stays readable in the answer.
    pub fn terminate(&self) -> Result<(i32, Vec<String>)> {
        let mut process = self.slot().take().context("not running")?;
        process.signal("TERM")?;
        let code = process.wait(60)?;
        Ok((code, process.lines()))
    }

    /// Stops it in good order.
    pub fn stop(self) -> Result {
        if self.slot().is_some() {
            let (code, lines) = self.terminate()?;
            ensure!(code == 0, "coracle up ended with {code}:\n{}", lines.join("\n"));
        }
        Ok(())
    }

    /// The process id of `coracle up`.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.slot().as_ref().context("not running")?.pid())
    }

    /// Puts a copy of a file into its folder, for its user to read and run.
    pub fn place(&self, file: PathBuf, at: &str) -> Result {
        let to = self.dir.path().join(at);
        fs::create_dir_all(to.parent().context("no folder")?)?;
        fs::copy(file, &to)?;
        if self.mode == Mode::Unprivileged && host::is_root() {
            Output::of(Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(self.dir.path()), "")?.ok()?;
        }
        Ok(())
    }

    /// Imports a guest as an image, with no registry.
    pub fn import(&self, guest_name: &str, image: &str) -> Result {
        let copy = self.dir.path().join(format!("{guest_name}.wasm"));
        fs::copy(guest(guest_name)?, &copy)?;
        self.coracle(&["image", "import", &copy.to_string_lossy(), "--name", image])?.ok().map(drop)
    }

    /// Puts a guest into a registry and leaves it nowhere else; the image's whole name.
    pub fn offer(&self, registry: &Registry, guest_name: &str, name: &str) -> Result<String> {
        let image = format!("{}/{name}", registry.address);
        self.import(guest_name, &image)?;
        self.coracle(&["image", "push", &image])?.ok()?;
        self.coracle(&["image", "rm", &image])?.ok()?;
        Ok(image)
    }

    /// Imports the container image `busybox:v1` ([`busybox`](crate::busybox)), whose command is a shell, with no registry; once.
    pub fn import_busybox(&self) -> Result {
        let mut imported = self.busybox.lock().unwrap_or_else(PoisonError::into_inner);
        if !*imported {
            let archive = crate::busybox::archive(&self.dir(), "busybox:v1", &serde_json::json!({ "Cmd": ["sh"] }))?;
            self.coracle(&["image", "import", &archive.to_string_lossy()])?.ok()?;
            *imported = true;
        }
        Ok(())
    }

    /// Runs a shell script in a container of `busybox:v1` to its end, in a pod that has `spec` besides; what it printed.
    pub fn shell(&self, namespace: &str, name: &str, script: &str, spec: Value) -> Result<String> {
        let mut pod = serde_json::json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace }, "spec": spec });
        pod["spec"]["restartPolicy"] = "Never".into();
        pod["spec"]["terminationGracePeriodSeconds"] = 1.into();
        pod["spec"]["containers"] =
            serde_json::json!([{ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", script] }]);
        self.apply(&pod.to_string())?;
        self.finished(namespace, name)?;
        self.logs(namespace, name)
    }

    /// Runs the binary with its data directory.
    pub fn coracle(&self, arguments: &[&str]) -> Result<Output> {
        Output::of(self.as_user(self.program()?).args(arguments).arg("--data-dir").arg(self.data_dir()), "")
    }

    /// A kubectl command line for this cluster.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(std::env::var("CORACLE_KUBECTL").unwrap_or_else(|_| "kubectl".into()));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments).env("KUBECTL_KUBERC", "false").env("HOME", self.dir.path());
        command
    }

    /// Runs kubectl to its end.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.kubectl_with(arguments, "")
    }

    /// Runs kubectl with something on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<Output> {
        Output::of(&mut self.kubectl_command(arguments), input)
    }

    /// Applies manifests.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], manifests)?.ok()
    }

    /// One object, or a list, as JSON.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut words = vec!["get", "-o", "json"];
        words.extend(arguments);
        Ok(serde_json::from_str(&self.kubectl(&words)?.ok()?)?)
    }

    /// A namespace for one case, so that cases do not meet.
    pub fn namespace(&self, name: &str) -> Result<String> {
        self.kubectl(&["create", "namespace", name])?.ok()?;
        Ok(name.to_string())
    }

    fn slot(&self) -> MutexGuard<'_, Option<Background>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    /// Whatever happened, no host process of the cluster stays: they all carry its data directory on their command line or as their root.
    fn drop(&mut self) {
        *self.slot() = None;
        let data = self.data_dir();
        let data = data.to_string_lossy();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&words).contains(data.as_ref()) {
                let _ = Output::of(Command::new("kill").arg("-KILL").arg(entry.file_name()), "");
            }
        }
        // Nor does the hosts' control group, once they are gone.
        let Ok(place) = fs::metadata(self.data_dir().join("run/wasm")) else { return };
        let group = format!("coracle/wasm-{:x}-{:x}", place.dev(), place.ino());
        let root = PathBuf::from("/sys/fs/cgroup");
        let trees = fs::read_dir(&root).into_iter().flatten().flatten().map(|tree| tree.path());
        for path in trees.chain([root.clone()]).map(|tree| tree.join(&group)).filter(|path| path.is_dir()) {
            let _ = eventually("the control group is empty", 10, || Ok(fs::remove_dir(&path)?));
        }
    }
}
