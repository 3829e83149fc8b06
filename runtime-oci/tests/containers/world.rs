//! A node's worth of containers in a temporary folder, and what tests do with it. When the folder goes, shims and containers go with it.

use coracle_runtime::{
    ContainerId, ContainerSpec, Dns, Error, Event, ImageConfig, ImageContent, LinuxSandbox, LocalImage, PodRef, Resources, Runtime, SandboxSpec,
    State,
};
use coracle_runtime_oci::{OciRuntime, Options, cgroup};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tempfile::TempDir;

/// Nothing a test waits for takes this long.
pub const PATIENCE: Duration = Duration::from_secs(30);
static NEXT: AtomicU32 = AtomicU32::new(1);

/// What these tests need and this machine has not.
pub fn lacking() -> Option<&'static str> {
    (!nix::unistd::geteuid().is_root()).then_some("containers need root, and this user is not; nothing about containers was tested")
}

/// The runtime and its folder.
pub struct World {
    pub runtime: OciRuntime,
    pub dir: Arc<TempDir>,
    seen: parking_lot::Mutex<Vec<Event>>,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        coracle_tests::busybox::root(&dir.path().join("layer")).expect("a root file system");
        Self { runtime: runtime(dir.path()).await, dir: Arc::new(dir), seen: Default::default() }
    }

    /// With what runs images of other kinds. In a folder of the caller's.
    #[allow(dead_code, reason = "for pods of both kinds")]
    pub async fn with(dir: Arc<TempDir>, programs: Arc<dyn coracle_runtime::Programs>) -> Self {
        if !dir.path().join("layer").exists() {
            coracle_tests::busybox::root(&dir.path().join("layer")).expect("a root file system");
        }
        let options = Options { programs: Some(programs), ..Options::new(dir.path().to_owned()).expect("options") };
        Self { runtime: OciRuntime::new(options).await.expect("a runtime"), dir, seen: Default::default() }
    }

    /// Another agent comes up where one was.
    pub async fn again(dir: Arc<TempDir>) -> Self {
        Self { runtime: runtime(dir.path()).await, dir, seen: Default::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn image(&self) -> LocalImage {
        LocalImage {
            reference: "busybox:1".into(),
            digest: "sha256:0".into(),
            content: ImageContent::Oci { layers: vec![self.path("layer")] },
            config: ImageConfig { env: vec![("FROM".into(), "image".into())], ..ImageConfig::default() },
        }
    }

    pub fn sandbox(&self) -> SandboxSpec {
        let uid = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let pod = PodRef { namespace: "default".into(), name: "pod".into(), uid: uid.clone() };
        SandboxSpec {
            hostname: "the-pod".into(),
            dns: Dns { servers: vec!["10.96.0.10:53".parse().unwrap()], searches: vec!["svc.cluster.local".into()], options: vec!["ndots:5".into()] },
            linux: LinuxSandbox { pids_limit: Some(64), ..LinuxSandbox::default() },
            ..SandboxSpec::new(pod, "10.99.0.2".parse().unwrap(), self.path("pods").join(uid))
        }
    }

    pub fn container(&self, sandbox: &SandboxSpec, command: &[&str]) -> ContainerSpec {
        let name = format!("c{}", NEXT.fetch_add(1, Relaxed));
        ContainerSpec {
            command: command.iter().map(ToString::to_string).collect(),
            resources: Resources { oom_score_adj: 1000, ..Resources::default() },
            log_path: sandbox.dir.join(format!("logs/{}.log", NEXT.fetch_add(1, Relaxed))),
            log_max_bytes: 1 << 20,
            log_max_files: 3,
            request_timeout: PATIENCE,
            ..ContainerSpec::new(sandbox.pod.uid.clone(), name, self.image())
        }
    }

    /// A sandbox that runs.
    pub async fn pod(&self, change: impl FnOnce(&mut SandboxSpec)) -> SandboxSpec {
        let mut sandbox = self.sandbox();
        change(&mut sandbox);
        self.runtime.run_sandbox(sandbox.clone()).await.expect("a sandbox");
        sandbox
    }

    pub async fn start(&self, spec: &ContainerSpec) -> Result<ContainerId, Error> {
        let id = self.runtime.create_container(spec.clone()).await?;
        self.runtime.start_container(&id).await.map(|()| id)
    }

    /// Runs it to its end: exit code, reason, lines of its log without times.
    pub async fn finish(&self, spec: &ContainerSpec) -> (i32, String, Vec<String>) {
        self.start(spec).await.unwrap_or_else(|why| panic!("{} {}", why.reason, why.message));
        let (code, reason) = self.exit(&spec.id()).await;
        (code, reason, lines(&spec.log_path))
    }

    /// A shell script in a sandbox of its own, to its end: what it printed.
    pub async fn shell(&self, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> String {
        let sandbox = self.pod(|_| ()).await;
        let mut spec = self.container(&sandbox, &["sh", "-c", script]);
        change(&mut spec);
        let (_, _, lines) = self.finish(&spec).await;
        let text: Vec<&str> = lines.iter().map(|line| line.splitn(3, ' ').nth(2).unwrap_or_default()).collect();
        text.join("\n")
    }

    /// Waits for its end.
    pub async fn exit(&self, id: &str) -> (i32, String) {
        self.event(|event| match event {
            Event::Container { status, .. } if status.id == id => match &status.state {
                State::Exited { code, reason, .. } => Some((*code, reason.clone())),
                _ => None,
            },
            _ => None,
        })
        .await
    }

    /// Waits for an event, also among those that were seen while another was waited for.
    pub async fn event<T>(&self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        if let Some(found) = self.seen.lock().iter().find_map(&mut wanted) {
            return found;
        }
        let search = async {
            loop {
                let event = self.runtime.next_event().await;
                let found = wanted(&event);
                self.seen.lock().push(event);
                if let Some(found) = found {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("an event in time")
    }
}

async fn runtime(dir: &Path) -> OciRuntime {
    OciRuntime::new(Options::new(dir.to_owned()).expect("options")).await.expect("a runtime")
}

/// Lines of a log without their times.
pub fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.split_once(' ').unwrap_or_default().1.to_owned()).collect()
}

/// Waits until it is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what} in time");
}

/// Whether the kernel has anything left of a pod.
pub fn left(sandbox: &SandboxSpec) -> Vec<String> {
    let group = cgroup::of_pod(&sandbox.pod.uid, sandbox.linux.qos);
    let below = group.strip_prefix("/").unwrap();
    let mut found = Vec::new();
    for tree in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
        if tree.join(below).exists() {
            found.push(tree.join(below).display().to_string());
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains(&sandbox.pod.uid)).map(str::to_owned));
    found.extend(shims(sandbox).iter().map(|pid| format!("process {pid}")));
    found
}

/// Shims of a pod: processes of that name that hold its directory's log.
pub fn shims(sandbox: &SandboxSpec) -> Vec<i32> {
    let log = sandbox.dir.join("runtime/oci/shim.log");
    let of_pod = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "coracle-shim")
            && fs::read_link(format!("/proc/{pid}/fd/2"))
                .is_ok_and(|path| path.starts_with(&log) || path.to_string_lossy().contains(&sandbox.pod.uid))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(of_pod).collect()
}
