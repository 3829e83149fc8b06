//! Saves the node: looks at the machine every ten seconds, frees what nobody needs, and then puts out one pod at a time until there is enough again.

use super::{
    Config, Observed, Resource,
    rank::{self, Candidate, critical, limited, over_limit},
    state::{Starved, State, relieved},
};
use crate::{
    events::{About, Recorder},
    images::Images,
    mirror::Objects,
    pods::{
        machine::{Eviction, Verdict},
        spec::Pod,
        step::EVICTED,
        time::Time,
        views::{View, Views},
    },
    registration::Pressure,
    stats::{Collector, counters::Counters, disk::OnDisk},
};
use coracle_runtime::{PodStats, cgroup::Trees};
use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks: kubelet's.
const PERIOD: Duration = Duration::from_secs(10);
/// How long a pod that was put out may take to be gone before the next look.
const CLEANUP: Duration = Duration::from_secs(30);

/// What the manager needs. Run once.
pub struct Manager {
    /// Thresholds.
    pub config: Config,
    /// The file system that is watched.
    pub data_dir: PathBuf,
    /// The Node's name.
    pub node: String,
    /// Pods.
    pub objects: Arc<dyn Objects>,
    /// Which of them run.
    pub views: Views,
    /// What they use.
    pub collector: Arc<Collector>,
    /// What can be freed.
    pub images: Images,
    /// Young images stay.
    pub image_age: Duration,
    /// The node's event list.
    pub recorder: Recorder,
    /// Counts evictions.
    pub counters: Counters,
    /// Where the pressures are told.
    pub pressure: watch::Sender<Pressure>,
}

/// A pod that runs.
struct Active {
    view: Arc<View>,
    pod: Pod,
    stats: PodStats,
    disk: Option<Arc<OnDisk>>,
}

impl Manager {
    /// Runs until cancelled; `evict` puts a pod out.
    pub async fn run(self, cancel: CancellationToken, evict: impl AsyncFn(Arc<str>, Eviction)) {
        let mut state = State::default();
        // Without control groups there are no pods of processes.
        let (trees, mut refused) = (Trees::find().map(|trees| trees.of(&["pids"])).ok(), None);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.round(&mut state, &evict) => {}
            }
            if let Some(trees) = &trees {
                refused = Some(self.forks(trees, refused.as_ref()));
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Looks, and acts until there is enough or nobody is left.
    async fn round(&self, state: &mut State, evict: &impl AsyncFn(Arc<str>, Eviction)) {
        loop {
            let outcome = state.look(&self.config, &self.observe(), Time::now());
            self.pressure.send_if_modified(|pressure| std::mem::replace(pressure, outcome.pressure) != outcome.pressure);
            let mut gone = self.greedy(evict).await;
            if gone.is_empty()
                && let Some(starved) = outcome.starved
            {
                gone.extend(self.relieve(&starved, evict).await);
            }
            if gone.is_empty() {
                return;
            }
            // What they held is given back before anybody else is put out.
            for uid in gone {
                _ = tokio::time::timeout(CLEANUP, self.ended(&uid)).await;
            }
        }
    }

    /// Tells of pods that have as many processes as they may and want more. `before`: how often each was refused one until the last look; at the first one
    /// of an agent there is nothing new, since pods may be older than it.
    fn forks(&self, trees: &Trees, before: Option<&HashMap<String, u64>>) -> HashMap<String, u64> {
        let mut now = HashMap::new();
        for (uid, group) in trees.pods() {
            let Some(view) = self.views.get(&uid) else { continue };
            let refused = trees.refused_forks(&group);
            let more = before.map_or(0, |before| refused.saturating_sub(before.get(&uid).copied().unwrap_or(0)));
            if more > 0 {
                let most = trees.most_pids(&group).map_or(String::new(), |most| format!(" ({most}, see --pod-max-pids)"));
                let message =
                    format!("processes of the pod were refused another process or thread {more} times: it has as many as a pod may have{most}");
                let about =
                    About { kind: "Pod", namespace: view.namespace.clone(), name: view.name.clone(), uid: uid.clone(), field_path: String::new() };
                self.recorder.record(about, true, "PidsLimitReached", &message);
            }
            now.insert(uid, refused);
        }
        now
    }

    fn observe(&self) -> Observed {
        Observed::read(&self.data_dir)
    }

    /// Pods that take more of the disk than they may.
    async fn greedy(&self, evict: &impl AsyncFn(Arc<str>, Eviction)) -> Vec<Arc<str>> {
        let mut gone = Vec::new();
        for active in self.active(limited, |_| true).await {
            if let Some(message) = active.disk.as_ref().and_then(|disk| over_limit(&active.pod, disk)) {
                self.counters.count(|counts| *counts.evictions.entry("ephemeralpodfs.limit").or_default() += 1);
                evict(active.view.uid.clone(), Eviction::of(message)).await;
                gone.push(active.view.uid.clone());
            }
        }
        gone
    }

    /// Frees what nobody needs; if that is not enough, one pod goes.
    async fn relieve(&self, starved: &Starved, evict: &impl AsyncFn(Arc<str>, Eviction)) -> Option<Arc<str>> {
        let resource = starved.signal.resource();
        let disk = matches!(resource, Resource::Disk | Resource::Inodes);
        self.recorder.record(About::node(&self.node), true, "EvictionThresholdMet", &format!("Attempting to reclaim {}", resource.name()));
        if disk {
            let (images, age, wanted) = (self.images.clone(), self.image_age, crate::images::collect::wanted(&*self.objects));
            match tokio::task::spawn_blocking(move || images.remove_unused(age, &wanted)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::warn!(%why, "remove unused images for want of disk"),
                Err(why) => tracing::warn!(%why, "remove unused images for want of disk"),
            }
            if relieved(&self.config, &self.observe()) {
                return None;
            }
        }
        let active = self.active(|pod| !critical(pod), |_| disk).await;
        let mut candidates: Vec<Candidate<'_>> =
            active.iter().map(|active| Candidate { pod: &active.pod, stats: Some(&active.stats), disk: active.disk.as_deref() }).collect();
        rank::order(&mut candidates, resource);
        let Some(first) = candidates.first() else {
            tracing::warn!(resource = resource.name(), "the node runs short, and no pod is left that could be evicted");
            return None;
        };
        let grace = match starved.hard {
            true => 1_000,
            false => first.pod.grace().min(self.config.max_pod_grace_seconds.saturating_mul(1000)),
        };
        let verdict = Verdict { reason: EVICTED.into(), message: rank::message(first, starved) };
        let uid: Arc<str> = first.pod.metadata.uid.as_str().into();
        self.counters.count(|counts| *counts.evictions.entry(starved.signal.name()).or_default() += 1);
        evict(uid.clone(), Eviction { verdict, grace, disruption: true }).await;
        Some(uid)
    }

    /// Pods that run and are `wanted`, with what they use; on disk too for those of `measured`.
    async fn active(&self, wanted: impl Fn(&Pod) -> bool, measured: impl Fn(&Pod) -> bool) -> Vec<Active> {
        let mut found = Vec::new();
        for view in self.views.all() {
            if !view.active || !view.containers.iter().any(|container| container.alive) {
                continue;
            }
            let Some(json) = self.objects.get("pods", &view.namespace, &view.name) else { continue };
            let Some(pod) = Pod::parse(&json).ok().filter(|pod| pod.metadata.uid == *view.uid && wanted(pod)) else { continue };
            let stats = self.collector.stats(&view).await;
            let disk = if measured(&pod) { Some(self.collector.disk(&view, &stats).await) } else { None };
            found.push(Active { view, pod, stats, disk });
        }
        found
    }

    /// Ends once nothing of the pod runs any more.
    async fn ended(&self, uid: &str) {
        let mut changes = self.views.changes();
        loop {
            let runs = self.views.get(uid).is_some_and(|view| view.active || view.containers.iter().any(|container| container.alive));
            if !runs || changes.changed().await.is_err() {
                return;
            }
        }
    }
}
