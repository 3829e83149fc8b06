//! Carrying out a pod's actions: the thin shell around the pure part. Each call ends in one event.

mod image;
mod linux;

use super::{
    admit,
    downward::Facts,
    env,
    fit::Room,
    hook,
    hostname::{self, Hostname},
    machine::{Action, Event, Exit, Verdict},
    probe,
    spec::{Container, Handler, Pod, TokenSource},
    time::{Due, Time},
    views::Views,
};
use crate::{
    agent::Options,
    dns::resolv::{self, ResolvConf},
    events::{self, Recorder},
    images::Images,
    machine::Machine,
    mirror::Objects,
    network::{Backend, Frontend, HostPort, Listeners, Network, Protocol},
    registration::Pressure,
    session::Link,
    stats::counters::Counters,
    volumes::{self, limits::Limits},
};
use async_trait::async_trait;
use coracle_api::amounts::Amounts;
use coracle_runtime::remove::remove_tree;
use coracle_runtime::{ContainerSpec, Dns, ImageContent, LocalImage, Mount, PodRef, Port, Runtime, SandboxSpec, Termination};
use serde_json::json;
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, watch};

/// How long a start waits for a config map or secret that the feed may bring a moment after the pod.
const LATECOMERS: Duration = Duration::from_millis(1000);
/// Starts (set-up, creation) under way at once: more would only make all of them late.
const STARTS: usize = 64;
/// What a container has at least when its preStop hook took all of the grace: kubelet's minimum.
const AFTER_HOOK: Duration = Duration::from_secs(2);
/// Reasons of a runtime that has not made the container.
const NEVER_MADE: [&str; 3] = ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"];
/// A log file is rotated at this size, and so many are kept: kubelet's defaults.
const LOG: (u64, u32) = (10 << 20, 5);

/// What actions need. One for all pods.
pub struct Work {
    /// The agent's options.
    pub options: Arc<Options>,
    /// The mirror.
    pub objects: Arc<dyn Objects>,
    /// Addresses and services.
    pub network: Arc<dyn Network>,
    /// wasm, oci.
    pub runtimes: Vec<Arc<dyn Runtime>>,
    /// Images.
    pub images: Images,
    /// The API.
    pub link: Link,
    /// Event lists.
    pub recorder: Recorder,
    /// What others look at.
    pub views: Views,
    /// The machine's size.
    pub machine: Machine,
    /// What the node runs short of.
    pressed: watch::Receiver<Pressure>,
    /// What is counted.
    pub counters: Counters,
    /// Volumes that may grow only so large.
    pub limits: Limits,
    gate: Semaphore,
    version: watch::Sender<u64>,
    services: watch::Sender<u64>,
}

#[async_trait]
impl volumes::tokens::Tokens for Work {
    async fn request(&self, pod: &Pod, source: &TokenSource) -> Result<String, String> {
        let meta = &pod.metadata;
        let account = if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name };
        let mut spec = json!({
            "expirationSeconds": source.expiration_seconds.unwrap_or(3600),
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid },
        });
        spec["audiences"] = if source.audience.is_empty() { json!([]) } else { json!([source.audience]) };
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec }).to_string().into_bytes();
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", meta.namespace);
        let answer = self.link.call("POST", &path, "application/json", body).await.map_err(|e| e.to_string())?;
        let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|e| format!("POST {path}: the answer is no JSON: {e}"))?;
        let token = answer["status"]["token"].as_str().filter(|t| !t.is_empty());
        token.map(str::to_string).ok_or_else(|| format!("POST {path}: the answer has no status.token"))
    }
}

struct Failure {
    reason: String,
    message: String,
    fatal: bool,
}

impl Work {
    /// Everything an action needs. Within a tokio runtime.
    #[allow(clippy::too_many_arguments, reason = "one for each part of the agent; a struct would repeat the fields")]
    pub fn new(
        options: Arc<Options>,
        objects: Arc<dyn Objects>,
        network: Arc<dyn Network>,
        runtimes: Vec<Arc<dyn Runtime>>,
        images: Images,
        link: Link,
        recorder: Recorder,
        views: Views,
        machine: Machine,
        pressed: watch::Receiver<Pressure>,
        counters: Counters,
    ) -> Self {
        let (gate, version, limits) = (Semaphore::new(STARTS), watch::Sender::new(0), Limits::new());
        let services = watch::Sender::new(0);
        Self { options, objects, network, runtimes, images, link, recorder, views, machine, pressed, counters, limits, gate, version, services }
    }

    /// The mirror changed: whoever waits for a latecomer looks again.
    pub fn changed(&self) {
        self.version.send_modify(|v| *v += 1);
    }

    /// What the node runs short of.
    pub fn pressure(&self) -> Pressure {
        *self.pressed.borrow()
    }

    fn allocatable(&self) -> Amounts {
        self.options.allocatable(&self.machine)
    }

    /// Services, or ports of the node that lead to pods, are others now.
    pub fn services_changed(&self) {
        self.services.send_modify(|v| *v += 1);
    }

    /// Tells when they are.
    pub fn services(&self) -> watch::Receiver<u64> {
        self.services.subscribe()
    }

    /// A pod's directory.
    pub fn directory(&self, uid: &str) -> PathBuf {
        self.options.data_dir.join("pods").join(uid)
    }

    /// The highest restart number that has a log.
    pub fn highest_log(&self, uid: &str, container: &str) -> Option<u32> {
        let entries = std::fs::read_dir(self.directory(uid).join("logs").join(container)).ok()?;
        entries.filter_map(|e| e.ok()?.file_name().to_str()?.split('.').next()?.parse().ok()).max()
    }

    fn facts(&self, ip: Option<IpAddr>) -> Facts {
        let allocatable = self.allocatable();
        Facts {
            node_name: self.options.node_name.clone(),
            host_ip: self.options.node_ip,
            pod_ip: ip,
            cpu_millis: allocatable.cpu,
            memory: allocatable.memory,
            host_paths: false,
        }
    }

    /// Only processes are given paths of the machine: who may make such a pod may do what it does.
    fn facts_of_volumes(&self, pod: &Pod, ip: Option<IpAddr>) -> Facts {
        let host_paths = self.runtime(pod).is_ok_and(|runtime| runtime.name() != "wasm");
        Facts { host_paths, ..self.facts(ip) }
    }

    /// The runtime handler that the pod's RuntimeClass names.
    fn handler(&self, pod: &Pod) -> Option<String> {
        let class = pod.spec.runtime_class_name.as_deref().filter(|c| !c.is_empty())?;
        let object = self.objects.get("runtimeclasses.node.k8s.io", "", class);
        let object = object.and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok());
        Some(object.as_ref().and_then(|o| o["handler"].as_str()).unwrap_or(class).to_string())
    }

    /// Whether the runtime is known before the images are there.
    pub fn runtime_named(&self, pod: &Pod) -> bool {
        self.runtimes.len() == 1 || self.handler(pod).is_some()
    }

    /// The runtime: by class, or the only one, or by what the images hold (one OCI image makes an OCI sandbox).
    fn runtime(&self, pod: &Pod) -> Result<&Arc<dyn Runtime>, String> {
        let by_name = |name: &str| self.runtimes.iter().find(|r| r.name() == name);
        let have = || self.runtimes.iter().map(|r| r.name()).collect::<Vec<_>>().join(", ");
        if let Some(handler) = self.handler(pod) {
            return by_name(&handler).ok_or_else(|| {
                format!("no runtime for \"{handler}\" is configured on this node, which has {}; change or remove runtimeClassName", have())
            });
        }
        if let [only] = self.runtimes.as_slice() {
            return Ok(only);
        }
        let oci =
            pod.all_containers().filter_map(|c| self.images.lookup(&c.image).ok().flatten()).any(|i| matches!(i.content, ImageContent::Oci { .. }));
        let name = if oci { "oci" } else { "wasm" };
        by_name(name).ok_or_else(|| format!("this pod needs the {name} runtime, which this node has not; it has {}", have()))
    }

    /// What can be refused before anything is done.
    pub fn admit(&self, pod: &Pod) -> Result<(), Verdict> {
        match (self.handler(pod), self.runtimes.as_slice()) {
            (Some(name), _) => admit::admit(pod, &name),
            (None, [only]) => admit::admit(pod, only.name()),
            // Its images will say; see `set_up`.
            _ => Ok(()),
        }
    }

    /// What this node has for pods.
    pub fn room(&self) -> Room {
        Room { amounts: self.allocatable(), pods: self.options.max_pods }
    }

    /// The Node object, if the feed has brought it.
    pub fn node(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.objects.get("nodes", "", &self.options.node_name)?).ok()
    }

    /// Does what an action says.
    pub async fn carry_out(&self, pod: &Pod, action: Action, ip: Option<IpAddr>) -> Event {
        match action {
            Action::Setup => {
                self.counters.count(|counts| counts.pods += 1);
                self.set_up(pod, ip).await
            }
            Action::Pull { container } => self.pull(pod, container).await,
            Action::Start { container, attempt } => {
                let event = self.start(pod, container, attempt, ip).await;
                self.counters.count(|counts| {
                    counts.started += 1;
                    counts.start_errors += u64::from(!matches!(event, Event::Started { .. }));
                });
                event
            }
            Action::Stop { container, attempt, grace, hook, .. } => self.stop(pod, container, attempt, grace, ip.filter(|_| hook)).await,
            Action::PostStart { container, attempt } => {
                let hook = pod.container(container).and_then(|c| Some((c, c.lifecycle.as_ref()?.post_start.as_ref()?))).zip(ip);
                let well = match hook {
                    Some(((spec, handler), ip)) => self.hook(pod, (container, attempt), spec, handler, ip).await,
                    None => true,
                };
                Event::Hooked { container, attempt, well }
            }
            Action::Probe { container, attempt, kind } => {
                let outcome = match (pod.container(container), ip) {
                    (Some(spec), Some(ip)) => match kind.of(spec) {
                        Some(check) => probe::probe(spec, check, ip, self.inside(pod, spec, attempt)).await.map(|warning| {
                            if let Some(warning) = warning {
                                let message = format!("{} probe warning: {warning}", kind.title());
                                self.note(pod, Some(container), true, "ProbeWarning", &message);
                            }
                        }),
                        None => Ok(()),
                    },
                    _ => Err("the pod has no address".into()),
                };
                if let Some(spec) = pod.container(container) {
                    self.counters.probed(pod, &spec.name, kind, outcome.is_ok());
                }
                Event::Probed { container, attempt, kind, outcome }
            }
            Action::Refresh => self.refresh(pod, ip).await,
            Action::Teardown => self.tear_down(pod, volumes::unmount).await,
            Action::Leave => self.tear_down(pod, volumes::leave).await,
            // Handled by the set itself.
            Action::Fail(_) | Action::Delete | Action::Forget => Event::SpecChanged { volume: false },
        }
    }

    async fn set_up(&self, pod: &Pod, ip: Option<IpAddr>) -> Event {
        let _permit = self.gate.acquire().await;
        let uid = &pod.metadata.uid;
        let sandbox_failed = |message: String, ip| Event::SetupFailed {
            reason: "FailedCreatePodSandBox".into(),
            message: format!("Failed to create pod sandbox: {message}"),
            ip,
            fatal: false,
        };
        let runtime = match self.runtime(pod) {
            Ok(runtime) => runtime,
            Err(message) => return sandbox_failed(message, None),
        };
        // Only now is it certain which runtime that is.
        if let Err(Verdict { reason, message }) = admit::admit(pod, runtime.name()) {
            return Event::SetupFailed { reason, message, ip: None, fatal: true };
        }
        let name = match hostname::of(pod, &self.options.cluster_domain) {
            Ok(name) => name,
            Err(message) => return sandbox_failed(message, None),
        };
        let sandboxed = runtime.name() != "wasm";
        let assigned = match pod.spec.host_network {
            true => Ok(self.options.node_ip),
            false if sandboxed => self.network.assign_sandbox(uid, ip).await,
            false => self.network.assign(uid, ip).await,
        };
        let ip = match assigned {
            Ok(ip) => ip,
            Err(why) => return sandbox_failed(why.to_string(), None),
        };
        let ports = host_ports(pod, ip);
        if !ports.is_empty() {
            self.network.host_ports(uid, ports).await;
            self.services_changed();
        }
        let dir = self.directory(uid);
        if let Err(why) = volumes::paths::make(&dir, 0o755) {
            return sandbox_failed(format!("make {}: {why}", dir.display()), Some(ip));
        }
        let facts = self.facts_of_volumes(pod, Some(ip));
        let (mounted, sandbox) = tokio::join!(self.mount(pod, &facts), runtime.run_sandbox(self.sandbox(pod, ip, name)));
        let sandbox = match sandbox {
            Ok(Some(namespace)) => self.network.attach(uid, ip, &namespace).await.map_err(|why| why.to_string()),
            Ok(None) => Ok(()),
            Err(why) => Err(why.message),
        };
        match (mounted, sandbox) {
            (Ok(mounted), Ok(())) => {
                for volume in &mounted.on_disk {
                    let message = format!("emptyDir volume \"{volume}\" is kept on disk: medium Memory needs a mount, which only root can make");
                    self.note(pod, None, true, "EmptyDirOnDisk", &message);
                }
                self.limits.watch(uid, mounted.limits);
                Event::SetUp { ip, refresh: mounted.renewal }
            }
            (Err(why), _) => {
                let fatal = matches!(why, volumes::Error::Unsupported(_));
                Event::SetupFailed { reason: "FailedMount".into(), message: why.to_string(), ip: Some(ip), fatal }
            }
            (_, Err(why)) => sandbox_failed(why, Some(ip)),
        }
    }

    fn sandbox(&self, pod: &Pod, ip: IpAddr, Hostname { name, domain }: Hostname) -> SandboxSpec {
        let meta = &pod.metadata;
        SandboxSpec {
            pod: PodRef { namespace: meta.namespace.clone(), name: meta.name.clone(), uid: meta.uid.clone() },
            hostname: name,
            domain,
            ip,
            dns: self.dns(pod),
            labels: meta.labels.clone(),
            annotations: meta.annotations.clone(),
            dir: self.directory(&meta.uid),
            linux: linux::sandbox(pod),
        }
    }

    fn dns(&self, pod: &Pod) -> Dns {
        let spec = &pod.spec;
        let asked =
            resolv::Asked { policy: &spec.dns_policy, host_network: spec.host_network, namespace: &pod.metadata.namespace, config: &spec.dns_config };
        let cluster = self.options.cluster_dns.map(|server| (server, &*self.options.cluster_domain));
        let (dns, told) = resolv::of_pod(&asked, cluster, &ResolvConf::read(&self.options.resolv_conf));
        for message in told {
            self.note(pod, None, true, "DNSConfigForming", &message);
        }
        dns
    }

    async fn mount(&self, pod: &Pod, facts: &Facts) -> Result<volumes::Mounted, volumes::Error> {
        let dir = self.directory(&pod.metadata.uid);
        self.patiently(
            || volumes::mount(pod, &dir, facts, &*self.objects, self),
            |error| matches!(error, volumes::Error::Missing { source: env::Error::Missing { .. }, .. }),
        )
        .await
    }

    /// Tries again, for a moment, when what is missing may come with the next batch of the feed.
    async fn patiently<T, E, F: Future<Output = Result<T, E>>>(&self, mut attempt: impl FnMut() -> F, missing: impl Fn(&E) -> bool) -> Result<T, E> {
        let mut version = self.version.subscribe();
        let deadline = Instant::now() + LATECOMERS;
        loop {
            match attempt().await {
                Err(why) if missing(&why) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || !matches!(tokio::time::timeout(left, version.changed()).await, Ok(Ok(()))) {
                        return Err(why);
                    }
                }
                other => return other,
            }
        }
    }

    async fn refresh(&self, pod: &Pod, ip: Option<IpAddr>) -> Event {
        let dir = self.directory(&pod.metadata.uid);
        match volumes::mount(pod, &dir, &self.facts_of_volumes(pod, ip), &*self.objects, self).await {
            Ok(mounted) => {
                self.limits.watch(&pod.metadata.uid, mounted.limits);
                Event::Refreshed(mounted.renewal)
            }
            Err(why) => {
                self.note(pod, None, true, "FailedMount", &why.to_string());
                Event::Refreshed(Some(Due::in_millis(Time::now(), 30_000)))
            }
        }
    }

    async fn start(&self, pod: &Pod, index: usize, attempt: u32, ip: Option<IpAddr>) -> Event {
        let _permit = self.gate.acquire().await;
        let refused = |f: Failure| Event::Refused { container: index, attempt, reason: f.reason, message: f.message, fatal: f.fatal };
        let Some(container) = pod.container(index) else {
            return refused(Failure { reason: "CreateContainerError".into(), message: "no such container".into(), fatal: true });
        };
        let again = |reason: &str, message: String| refused(Failure { reason: reason.into(), message, fatal: false });
        let runtime = match self.runtime(pod) {
            Ok(runtime) => runtime,
            Err(message) => return again("CreateContainerError", message),
        };
        let image = match self.images.lookup(&container.image) {
            // Under its name there may be another by now, which has to stay as well.
            Ok(Some(image)) if self.images.hold(&self.directory(&pod.metadata.uid), &image).is_ok_and(|there| there) => image,
            Ok(_) => return again("CreateContainerError", format!("image {} was removed from this machine meanwhile", container.image)),
            Err(why) => return again("CreateContainerError", why.message),
        };
        let facts = self.facts(ip);
        let services = env::services(pod, &*self.objects, self.options.api_server);
        let variables = self
            .patiently(
                || async { env::resolve(pod, container, &facts, &services, &*self.objects) },
                |error| matches!(error, env::Error::Missing { .. }),
            )
            .await;
        let mut variables = match variables {
            Ok(variables) => variables,
            Err(why) => return again("CreateContainerConfigError", why.to_string()),
        };
        // Runtimes set it before a container's own variables, so that those win.
        if !variables.iter().any(|(name, _)| name == "HOSTNAME") {
            let name = hostname::of(pod, &self.options.cluster_domain).unwrap_or_default().name;
            variables.insert(0, ("HOSTNAME".into(), name));
        }
        let spec = match self.container(pod, container, attempt, image, variables) {
            Ok(spec) => spec,
            Err(message) => return again("CreateContainerConfigError", message),
        };
        if let Some(parent) = spec.log_path.parent()
            && let Err(why) = volumes::paths::make(parent, 0o755)
        {
            return again("CreateContainerError", format!("make {}: {why}", parent.display()));
        }
        let id = match runtime.create_container(spec).await {
            Ok(id) => id,
            Err(why) => return refused(Failure { reason: why.reason, message: why.message, fatal: why.fatal }),
        };
        let event = match runtime.start_container(&id).await {
            Ok(()) => Event::Started { container: index, attempt },
            // It was never made, so that nothing has ended: it waits, and is tried again.
            Err(why) if NEVER_MADE.contains(&why.reason.as_str()) => {
                return refused(Failure { reason: why.reason, message: why.message, fatal: why.fatal });
            }
            Err(why) => {
                let reason = if why.reason.is_empty() { "StartError".into() } else { why.reason };
                Event::StartFailed { container: index, attempt, reason, message: why.message }
            }
        };
        self.remove_old(runtime, pod, container, attempt).await;
        event
    }

    /// The container before goes from the runtime; of the logs, this one's and the last one's stay.
    async fn remove_old(&self, runtime: &Arc<dyn Runtime>, pod: &Pod, container: &Container, attempt: u32) {
        let Some(before) = attempt.checked_sub(1) else { return };
        let uid = &pod.metadata.uid;
        if let Err(why) = runtime.remove_container(&format!("{uid}/{}/{before}", container.name)).await {
            tracing::debug!(%why, "remove the container before");
        }
        let logs = self.directory(uid).join("logs").join(&container.name);
        let Ok(entries) = std::fs::read_dir(&logs) else { return };
        for entry in entries.flatten() {
            let number = entry.file_name().to_str().and_then(|n| n.split('.').next()?.parse::<u32>().ok());
            if number.is_some_and(|n| n < before) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn container(&self, pod: &Pod, container: &Container, attempt: u32, image: LocalImage, variables: env::Env) -> Result<ContainerSpec, String> {
        let uid = &pod.metadata.uid;
        let dir = self.directory(uid);
        let lookup = |name: &str| variables.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
        let expand = |list: &[String]| list.iter().map(|text| env::expand(text, lookup)).collect::<Vec<_>>();
        let mut mounts = Vec::with_capacity(container.volume_mounts.len());
        for mount in &container.volume_mounts {
            let of_host = pod.spec.volumes.iter().find(|v| v.name == mount.name).and_then(|v| v.host_path.as_ref());
            let volume = match of_host {
                Some(source) => PathBuf::from(&source.path),
                None => volumes::directory(&dir).join(volumes::paths::name(&mount.name)?),
            };
            let sub = if mount.sub_path_expr.is_empty() { mount.sub_path.clone() } else { env::expand(&mount.sub_path_expr, lookup) };
            // Without links either way: runtimes refuse to follow one, since it would be the pod's own.
            let host_path = match sub.as_str() {
                "" => std::fs::canonicalize(&volume).map_err(|why| format!("{}: {why}", volume.display()))?,
                sub => volumes::paths::sub_path(&volume, sub)?,
            };
            // What is written for the pod is not for the pod to write.
            let ours = pod.spec.volumes.iter().any(|v| v.name == mount.name && v.empty_dir.is_none() && v.host_path.is_none());
            mounts.push(Mount { host_path, container_path: mount.mount_path.clone(), read_only: mount.read_only || ours });
        }
        let termination = self.termination(pod, container, attempt, &mut mounts)?;
        let resources = linux::resources(pod, container, self.machine.memory)?;
        let port = |p: &super::spec::ContainerPort| Port {
            name: p.name.clone(),
            port: p.container_port,
            protocol: if p.protocol.is_empty() { "TCP".into() } else { p.protocol.clone() },
        };
        Ok(ContainerSpec {
            sandbox: uid.clone(),
            name: container.name.clone(),
            attempt,
            image,
            command: expand(&container.command),
            args: expand(&container.args),
            working_dir: container.working_dir.clone(),
            mounts,
            ports: container.ports.iter().map(port).collect(),
            resources,
            log_path: dir.join("logs").join(volumes::paths::name(&container.name)?).join(format!("{attempt}.log")),
            log_max_bytes: LOG.0,
            log_max_files: LOG.1,
            request_timeout: self.options.request_timeout,
            env: variables,
            security: linux::security(pod, container, &self.options.data_dir.join("seccomp"))?,
            stdin: container.stdin,
            stdin_once: container.stdin_once,
            tty: container.tty,
            termination,
        })
    }

    /// The file for a container's last words, where it is asked for; processes have it mounted.
    fn termination(&self, pod: &Pod, container: &Container, attempt: u32, mounts: &mut Vec<Mount>) -> Result<Termination, String> {
        let fallback_to_logs = container.termination_message_policy == "FallbackToLogsOnError";
        let path = &container.termination_message_path;
        if path.is_empty() || self.runtime(pod)?.name() == "wasm" {
            return Ok(Termination { message: None, fallback_to_logs });
        }
        let dir = self.directory(&pod.metadata.uid).join("containers").join(volumes::paths::name(&container.name)?);
        let file = dir.join(attempt.to_string());
        let made = volumes::paths::make(&dir, 0o755).and_then(|()| std::fs::write(&file, ""));
        // Whoever the container's user is.
        let made = made.and_then(|()| std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)));
        made.map_err(|why| format!("make {}: {why}", file.display()))?;
        if let Some(before) = attempt.checked_sub(2) {
            _ = std::fs::remove_file(dir.join(before.to_string()));
        }
        let host_path = std::fs::canonicalize(&file).map_err(|why| format!("{}: {why}", file.display()))?;
        mounts.push(Mount { host_path: host_path.clone(), container_path: Path::new("/").join(path).display().to_string(), read_only: false });
        Ok(Termination { message: Some(host_path), fallback_to_logs })
    }

    /// A running container, for commands.
    fn inside(&self, pod: &Pod, container: &Container, attempt: u32) -> Option<probe::Inside<'_>> {
        let runtime = self.runtime(pod).ok()?.as_ref();
        Some(probe::Inside { runtime, id: format!("{}/{}/{attempt}", pod.metadata.uid, container.name) })
    }

    /// Runs a lifecycle hook; whether it went well. What went wrong is not for those who read events: it may hold secrets of the pod.
    async fn hook(&self, pod: &Pod, (index, attempt): (usize, u32), container: &Container, handler: &Handler, ip: IpAddr) -> bool {
        match hook::run(container, handler, ip, self.inside(pod, container, attempt)).await {
            Ok(plain) => {
                if plain {
                    let host = ip.to_string();
                    let message = format!("request to HTTPS lifecycle hook {host} got HTTP response, retry with HTTP succeeded");
                    self.note(pod, Some(index), true, "LifecycleHTTPFallback", &message);
                }
                true
            }
            Err(why) => {
                tracing::debug!(pod = %pod.long_name(), container = container.name, why, "a lifecycle hook failed");
                false
            }
        }
    }

    /// With `hook` the pod's address: its preStop hook is run first, on the grace's account.
    async fn stop(&self, pod: &Pod, container: usize, attempt: u32, grace: i64, hook: Option<IpAddr>) -> Event {
        let name = pod.container(container).map_or("", |c| c.name.as_str());
        let id = format!("{}/{name}/{attempt}", pod.metadata.uid);
        let mut grace = Duration::from_millis(u64::try_from(grace).unwrap_or(0));
        let handler = pod.container(container).and_then(|c| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
        if let Some(((spec, handler), ip)) = handler.zip(hook).filter(|_| !grace.is_zero()) {
            let began = Instant::now();
            if let Ok(false) = tokio::time::timeout(grace, self.hook(pod, (container, attempt), spec, handler, ip)).await {
                self.note(pod, Some(container), true, "FailedPreStopHook", "PreStopHook failed");
            }
            grace = grace.saturating_sub(began.elapsed()).max(AFTER_HOOK);
        }
        let gone = |message: String| {
            let exit = Exit { code: 137, reason: "ContainerStatusUnknown".into(), message, started: None, finished: Time::now() };
            Event::Exited { container, attempt, exit }
        };
        let runtime = match self.runtime(pod) {
            Ok(runtime) => runtime,
            Err(message) => return gone(message),
        };
        let mut wait = Duration::from_millis(200);
        for _ in 0..6 {
            match runtime.stop_container(&id, grace).await {
                Ok(()) => {
                    // The runtime's own event tells how it ended and is normally here first; this one only counts if that never comes.
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    return gone("The container stopped and its runtime did not say how.".into());
                }
                Err(why) => {
                    self.note(pod, Some(container), true, "FailedKillPod", &format!("error killing pod: {}", why.message));
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                    grace = Duration::ZERO;
                }
            }
        }
        gone("The container could not be stopped; it goes with its sandbox.".into())
    }

    /// `give_back` does what is to be done with its volumes.
    async fn tear_down(&self, pod: &Pod, give_back: fn(&Path) -> std::io::Result<()>) -> Event {
        let uid = &pod.metadata.uid;
        for runtime in &self.runtimes {
            if let Err(why) = runtime.remove_sandbox(uid).await {
                return Event::TeardownFailed(why.message);
            }
        }
        self.limits.forget(uid);
        let dir = self.directory(uid);
        let unmounted = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || give_back(&dir)
        });
        if let Err(why) = unmounted.await.unwrap_or_else(|why| Err(std::io::Error::other(why))) {
            return Event::TeardownFailed(format!("remove {}: {why}", volumes::directory(&dir).display()));
        }
        self.network.release(uid).await;
        if pod.host_ports().next().is_some() {
            self.services_changed();
        }
        Event::TornDown
    }

    /// A sandbox that no pod owns.
    pub async fn remove_orphan(&self, uid: &str) {
        for runtime in &self.runtimes {
            if let Err(why) = runtime.remove_sandbox(&uid.to_string()).await {
                tracing::warn!(%why, uid, "remove a sandbox that no pod owns");
            }
        }
        self.network.release(uid).await;
        self.remove_directory(uid);
    }

    /// Directories of pods that are no more.
    pub async fn remove_strangers(&self, known: &HashSet<String>) {
        let Ok(entries) = std::fs::read_dir(self.options.data_dir.join("pods")) else { return };
        for entry in entries.flatten() {
            if let Some(uid) = entry.file_name().to_str().filter(|uid| !known.contains(*uid)) {
                self.remove_directory(uid);
            }
        }
    }

    /// Everything that is left of a pod on disk.
    pub fn remove_directory(&self, uid: &str) {
        let Ok(name) = volumes::paths::name(uid) else { return };
        let dir = self.directory(name);
        // Small, and after the pod's end: nobody waits for it.
        tokio::task::spawn_blocking(move || match volumes::unmount(&dir).and_then(|()| remove_tree(&dir)) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => tracing::warn!(%why, dir = %dir.display(), "remove what is left of a pod"),
            _ => {}
        });
    }

    /// Tells a pod's host which Service addresses it listens on. Whether it has them all; if not, an event says why, and it may be tried again.
    pub async fn listen(&self, pod: &Pod, listeners: Listeners) -> bool {
        let Ok(runtime) = self.runtime(pod) else { return true };
        match runtime.set_service_listeners(&pod.metadata.uid, listeners).await {
            Ok(()) => true,
            Err(why) => {
                self.note(pod, None, true, "ServiceListenError", &why.to_string());
                false
            }
        }
    }

    fn note(&self, pod: &Pod, container: Option<usize>, warning: bool, reason: &str, message: &str) {
        let about = events::About {
            kind: "Pod",
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            field_path: container.map(|index| pod.field_path(index)).unwrap_or_default(),
        };
        self.recorder.record(about, warning, reason, message);
    }
}

/// Ports of the node that lead to the pod; a pod on the machine's own network has them already.
pub fn host_ports(pod: &Pod, ip: IpAddr) -> Vec<HostPort> {
    let IpAddr::V4(ip) = ip else { return Vec::new() };
    if pod.spec.host_network {
        return Vec::new();
    }
    let asked = pod.host_ports().filter_map(|port| {
        let protocol = Protocol::parse(Some(&port.protocol))?;
        let at = port.host_ip.parse().ok().filter(|at: &Ipv4Addr| !at.is_unspecified());
        Some(HostPort { front: Frontend { ip: at, protocol, port: port.host_port }, to: Backend { ip, port: port.container_port } })
    });
    asked.collect()
}
