//! What containers share, before there is one: address, volumes, sandbox.

use super::{Work, host_ports, linux};
use crate::{
    dns::resolv::{self, ResolvConf},
    pods::{
        admit,
        downward::Facts,
        env,
        hostname::{self, Hostname},
        machine::{Event, Verdict},
        spec::Pod,
        time::{Due, Time},
    },
    volumes,
};
use coracle_runtime::{Dns, LinuxSandbox, PodRef, SandboxSpec, Users};
use std::net::IpAddr;

impl Work {
    /// Only processes are given paths of the machine: who may make such a pod may do what it does.
    fn facts_of_volumes(&self, pod: &Pod, ip: Option<IpAddr>) -> Facts {
        let host_paths = self.runtime(pod).is_ok_and(|runtime| runtime.name() != "wasm");
        Facts { host_paths, ..self.facts(ip) }
    }

    pub(super) async fn set_up(&self, pod: &Pod, ip: Option<IpAddr>) -> Event {
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
        let users = match self.users(pod) {
            Ok(users) => users,
            Err(why) => return sandbox_failed(format!("user ids of the pod's own: {why}"), Some(ip)),
        };
        let facts = self.facts_of_volumes(pod, Some(ip));
        let (mounted, sandbox) = tokio::join!(self.mount(pod, &facts), runtime.run_sandbox(self.sandbox(pod, ip, name, users)));
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

    fn sandbox(&self, pod: &Pod, ip: IpAddr, Hostname { name, domain }: Hostname, users: Option<Users>) -> SandboxSpec {
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
            linux: LinuxSandbox { users, ..linux::sandbox(pod, self.node_of_pods()) },
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

    pub(super) async fn refresh(&self, pod: &Pod, ip: Option<IpAddr>) -> Event {
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
}
