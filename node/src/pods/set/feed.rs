//! What the mirror brings: pods that come, change and go, and what their volumes are made of.

use super::{Entry, Set, Uid};
use crate::{
    mirror::{Change, Key},
    pods::{
        admit, adopt, fit,
        machine::{Event, Machine, Note, Sandbox, Verdict},
        orphans, resize,
        spec::Pod,
        statics::{Static, mirrored},
        step,
        time::Time,
        work::host_ports,
    },
};
use bytes::Bytes;
use coracle_api::amounts::Amounts;
use coracle_runtime::SandboxStatus;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

impl Set {
    /// Takes over what the mirror names and the runtimes have; removes what nobody names. Once, before [`Self::run`].
    pub async fn adopt(&mut self, sandboxes: Vec<SandboxStatus>, statics: Vec<Static>) {
        let now = Time::now();
        self.ask(statics);
        let mut running: HashMap<String, SandboxStatus> = sandboxes.into_iter().map(|s| (s.spec.pod.uid.clone(), s)).collect();
        let of_api = self.work.objects.list("pods", None).into_iter().filter_map(|(_, json)| self.ours(&json));
        let mut pods: Vec<Pod> = self.asked().into_iter().chain(of_api).collect();
        // Of two with one name the one that is there stays; a file's begins when the other has gone.
        pods.sort_by_key(|pod| !running.contains_key(&pod.metadata.uid));
        for mut pod in pods {
            if self.names.contains_key(&(pod.metadata.namespace.clone(), pod.metadata.name.clone())) {
                if !pod.from_file {
                    self.turn_away(&pod);
                }
                continue;
            }
            if let Some(status) = self.work.ended(&pod.metadata.uid) {
                pod.status = status;
            }
            let sandbox = running.remove(&pod.metadata.uid);
            if let Some(sandbox) = sandbox.as_ref().filter(|sandbox| !sandbox.spec.linux.host_network) {
                // The address is taken before any new pod can have it.
                if let Err(why) = self.work.network.assign(&pod.metadata.uid, Some(sandbox.spec.ip)).await {
                    tracing::warn!(pod = %pod.long_name(), %why, "keep the address of an adopted pod");
                }
                self.work.network.host_ports(&pod.metadata.uid, host_ports(&pod, sandbox.spec.ip)).await;
            }
            let logs = |container: &str| self.work.highest_log(&pod.metadata.uid, container);
            let machine = adopt::adopt(&pod, sandbox.as_ref(), logs, now);
            if let Some(sandbox) = &sandbox {
                self.work.remove_superseded(&pod.metadata.uid, &sandbox.containers).await;
            }
            self.insert(pod, machine);
        }
        let known: HashSet<String> = self.pods.keys().map(|uid| uid.to_string()).collect();
        for uid in orphans::strangers(&known, self.work.directories(), running.keys()) {
            tracing::info!(uid, "remove what is left of a pod that is gone");
            self.work.remove_orphan(&uid).await;
        }
        self.work.network.sweep(&known).await;
        self.publish();
        let uids: Vec<Uid> = self.pods.keys().cloned().collect();
        for uid in uids {
            self.pump(&uid);
            self.resize(&uid);
        }
        self.work.services_changed();
    }

    /// The pod, if it is for this node.
    fn ours(&self, json: &[u8]) -> Option<Pod> {
        match Pod::parse(json) {
            // What mirrors a file's pod is not for running.
            Ok(pod) if mirrored(&pod.metadata).is_some() => None,
            Ok(pod) if pod.spec.node_name == self.work.options.node_name && !pod.metadata.uid.is_empty() => Some(pod),
            Ok(_) => None,
            Err(why) => {
                tracing::error!(%why, "read a pod that the feed brought");
                None
            }
        }
    }

    pub(super) fn insert(&mut self, mut pod: Pod, mut machine: Machine) {
        let uid: Uid = pod.metadata.uid.as_str().into();
        let wanted = resize::restore(&mut pod, &machine);
        machine.resize.want(wanted);
        machine.runtime_known = self.work.runtime_named(&pod);
        let asks = fit::asks(&pod);
        if machine.verdict.is_none() {
            if let Err(verdict) = self.work.admit(&pod) {
                machine.verdict = Some(verdict.clone());
                self.record(&pod, &Note { container: None, warning: true, reason: verdict.reason, message: verdict.message });
            } else if let Err(Verdict { reason, message }) = self.fits(&pod, &machine, &asks) {
                machine.verdict = Some(Verdict { reason: reason.clone(), message: format!("Pod was rejected: {message}") });
                self.record(&pod, &Note { container: None, warning: true, reason, message });
            }
        }
        if self.stopping.is_some() {
            machine.leaving = Some(0);
        }
        self.names.insert((pod.metadata.namespace.clone(), pod.metadata.name.clone()), uid.clone());
        self.pods.insert(
            uid,
            Entry {
                pod: Arc::new(pod),
                asks,
                machine,
                wake: None,
                reported: None,
                patience: None,
                wanted: Vec::new(),
                held: Some(Vec::new()),
                listening: false,
                again: false,
                mirror: None,
            },
        );
    }

    /// Whether there is room for a pod that begins here, beside those that have not ended.
    fn fits(&self, pod: &Pod, machine: &Machine, asks: &Amounts) -> Result<(), Verdict> {
        let begun = machine.sandbox != Sandbox::Absent || machine.containers.iter().any(|container| container.created);
        if begun || pod.deletion_grace().is_some() || step::end(pod, machine).is_some() {
            return Ok(());
        }
        fit::bears(pod, self.work.pressure())?;
        admit::sysctls(pod)?;
        admit::apparmor(pod)?;
        let here = || self.pods.values().filter(|entry| step::end(&entry.pod, &entry.machine).is_none());
        fit::ports(pod, here().map(|entry| &*entry.pod))?;
        let (mut used, mut others) = (Amounts::default(), 0);
        for entry in here() {
            used.add(&entry.asks);
            others += 1;
        }
        fit::fits(pod, asks, &used, others, &self.work.room(), self.work.node().as_ref())
    }

    pub(super) fn changes(&mut self, changes: Vec<Change>) {
        let mut services = false;
        let mut named: HashSet<Key> = HashSet::new();
        for (key, json) in changes {
            match key.resource.as_str() {
                "pods" => self.pod_changed(key, json),
                "services" | "endpointslices.discovery.k8s.io" => services = true,
                "configmaps" | "secrets" => {
                    named.insert(key);
                }
                _ => {}
            }
        }
        if !named.is_empty() {
            let hit: Vec<(Uid, bool)> = self
                .pods
                .iter()
                .filter_map(|(uid, entry)| {
                    let namespace = &entry.pod.metadata.namespace;
                    let touches = |list: Vec<(&'static str, &str)>| {
                        list.into_iter().any(|(resource, name)| named.contains(&Key::new(resource, namespace, name)))
                    };
                    touches(entry.pod.references()).then(|| (uid.clone(), touches(entry.pod.volume_references())))
                })
                .collect();
            for (uid, volume) in hit {
                self.event(&uid, Event::DependencyChanged { volume });
            }
        }
        if services {
            self.work.services_changed();
        }
        self.work.changed();
    }

    fn pod_changed(&mut self, key: Key, json: Option<Bytes>) {
        let name = (key.namespace, key.name);
        let old = self.names.get(&name).cloned();
        if let Some(uid) = &old
            && let Some(entry) = self.pods.get_mut(uid).filter(|entry| entry.pod.from_file)
        {
            // Its mirror is another: that one has to hear everything.
            let hears = json.as_deref().and_then(|json| Pod::parse(json).ok()).map(|mirror| mirror.metadata.uid);
            if entry.mirror != hears {
                entry.mirror = hears;
                entry.reported = None;
                self.pump(&uid.clone());
            }
            if let Some(pod) = json.as_deref().and_then(|json| self.ours(json)) {
                self.turn_away(&pod);
            }
            return;
        }
        let Some(pod) = json.as_deref().and_then(|json| self.ours(json)) else {
            if let Some(uid) = old {
                self.event(&uid, Event::Gone);
            }
            return;
        };
        let uid: Uid = pod.metadata.uid.as_str().into();
        if let Some(old) = old.filter(|old| *old != uid) {
            self.event(&old, Event::Gone);
        }
        match self.pods.get_mut(&uid) {
            Some(entry) => {
                let fields = pod.spec.volumes.iter().any(|v| v.downward_api.is_some() || v.projected.is_some());
                let volume =
                    fields && (entry.pod.metadata.labels != pod.metadata.labels || entry.pod.metadata.annotations != pod.metadata.annotations);
                for condition in &pod.status.conditions {
                    // Others' conditions matter to readiness gates.
                    if pod.spec.readiness_gates.iter().any(|g| g.condition_type == condition.r#type) {
                        entry.machine.conditions.insert(condition.r#type.clone(), (condition.status.clone(), Time::now()));
                    }
                }
                let images = |pod: &Pod| pod.all_containers().map(|c| c.image.clone()).collect::<Vec<_>>();
                let changed = entry.pod.metadata.generation != pod.metadata.generation || images(&entry.pod) != images(&pod);
                let mut pod = pod;
                let wanted = resize::keep(&mut pod, &entry.pod);
                entry.machine.resize.want(wanted);
                entry.asks = fit::asks(&pod);
                entry.pod = Arc::new(pod);
                // The node's own status reports come back here too: they are no reason to try anything again.
                if changed || volume {
                    self.event(&uid, Event::SpecChanged { volume })
                } else {
                    self.pump(&uid)
                }
                self.resize(&uid);
            }
            None => {
                let machine = if pod.status.container_statuses.is_empty() && pod.status.phase != "Failed" {
                    Machine::new(&pod, Time::now())
                } else {
                    // It ran here before: the mirror was lost, or the pod came back within the feed.
                    adopt::adopt(&pod, None, |container| self.work.highest_log(&pod.metadata.uid, container), Time::now())
                };
                self.insert(pod, machine);
                self.pump(&uid);
            }
        }
    }
}
