//! `cargo xtask demo`: from a clone to a function that answers.

use crate::{guests, packages, step};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

/// Where the demo lives.
#[derive(Args)]
pub struct Options {
    /// End as soon as the function has answered, instead of staying until Ctrl-C.
    #[arg(long)]
    check: bool,
}

/// A cluster that is told to stop when the demo ends, however it ends.
struct Running {
    child: Child,
    dir: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Builds, starts, deploys, prints.
pub fn run(options: &Options) -> Result<()> {
    let root = packages::is_root();
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::KUBECTL)?;
    if root {
        packages::ensure(packages::SYSTEM)?;
    }
    let components = guests::build(false)?;
    let mut build = Command::new("cargo");
    // Of the whole workspace: what the tests were built with has the same features, and is not built again.
    build.current_dir(guests::root()).args(["build", "--profile", "ci", "--workspace", "--bin", "coracle"]);
    step::run("build coracle (the first time takes some minutes)", &mut build)?;

    let binary = guests::target_dir().join("ci/coracle");
    let dir = std::env::temp_dir().join(format!("coracle-demo-{}", std::process::id()));
    let data = dir.join("data");
    let kubeconfig = dir.join("kubeconfig");
    fs::create_dir_all(&dir)?;
    let mut wait = Wait::new()?;
    let mut cluster = start(&binary, &data, &kubeconfig)?;
    let coracle = |words: &[&str]| run_quietly(Command::new(&binary).args(words).arg("--data-dir").arg(&data));
    let kubectl = |words: &[&str]| run_quietly(Command::new("kubectl").arg("--kubeconfig").arg(&kubeconfig).args(words));
    coracle(&["image", "import", &components.join("hello.wasm").to_string_lossy(), "--name", "hello:v1"])?;
    kubectl(&["create", "deployment", "hello", "--image=hello:v1", "--replicas=2", "--port=8080"])?;
    kubectl(&["expose", "deployment", "hello", "--port=8000", "--target-port=8080"])?;
    kubectl(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
    let service = kubectl(&["get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"])?;
    let url = format!("http://{service}:8000/");
    let answer = step::eventually(Duration::from_secs(20), || run_quietly(Command::new("curl").args(["-sSf", "-m", "2", &url])))?;

    println!("\nThe function answered: {}", answer.trim());
    println!("\nThese work right now, in another terminal:\n");
    println!("  curl {url}");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    for line in [
        "get pods -o wide",
        "scale deployment hello --replicas=5",
        "logs -l app=hello --prefix",
        "describe deployment hello",
        "explain pod.spec.containers",
    ] {
        println!("  kubectl {line}");
    }
    if !options.check {
        println!("\nCtrl-C stops the cluster and removes {}.", dir.display());
        wait.until_told(&mut cluster.child)?;
    }
    Ok(())
}

/// Takes Ctrl-C and SIGTERM from when it is made: what has been started is ended by [`Running`], not left behind.
struct Wait {
    runtime: Runtime,
    signals: [Signal; 3],
}

impl Wait {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _inside = runtime.enter();
        let signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::child())?];
        Ok(Self { runtime, signals })
    }

    /// Until somebody wants it to end, or it ended by itself.
    fn until_told(&mut self, child: &mut Child) -> Result<()> {
        let [interrupt, terminate, ended] = &mut self.signals;
        self.runtime.block_on(async {
            while child.try_wait()?.is_none() {
                tokio::select! {
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                    _ = ended.recv() => {}
                }
            }
            Ok(())
        })
    }
}

fn start(binary: &Path, data: &Path, kubeconfig: &Path) -> Result<Running> {
    let mut command = Command::new(binary);
    command.arg("up").arg("--data-dir").arg(data).arg("--kubeconfig").arg(kubeconfig).arg("--api-addr").arg(free_address()?);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {}", binary.display()))?;
    let stdout = child.stdout.take();
    let running = Running { child, dir: data.parent().unwrap_or(data).to_path_buf() };
    let mut lines = BufReader::new(stdout.context("no output")?).lines();
    while let Some(line) = lines.next() {
        let line = line?;
        println!("  {line}");
        if line.starts_with("ready") {
            // What it says later, such as why it stops, is shown too.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| println!("  {line}")));
            return Ok(running);
        }
    }
    bail!("the cluster ended before it was ready; its message stands above")
}

/// The usual address, or another port when something else has it.
fn free_address() -> Result<String> {
    for address in ["127.0.0.1:6443", "127.0.0.1:0"] {
        if let Ok(listener) = TcpListener::bind(address) {
            return Ok(listener.local_addr()?.to_string());
        }
    }
    bail!("no free port on 127.0.0.1")
}

fn run_quietly(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(output.status.success(), "{command:?} failed:\n{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
