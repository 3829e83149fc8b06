//! What there is of kubelet's HTTP API, reached through `nodes/NAME/proxy`: read only.

use crate::{
    agent::Options,
    machine::Machine,
    mirror::Objects,
    pods::{spec::Pod, views::Views},
    stats::{Collector, counters::Counters, metrics, summary},
};
use bytes::Bytes;
use coracle_api::Status;
use serde_json::{Value, json};
use std::sync::Arc;

const JSON: &str = "application/json";

/// Answers it.
pub struct Kubelet {
    /// The agent's options.
    pub options: Arc<Options>,
    /// Pods on this node.
    pub views: Views,
    /// The machine's size.
    pub machine: Machine,
    /// What is used.
    pub collector: Arc<Collector>,
    /// What is counted.
    pub counters: Counters,
    /// Their objects.
    pub objects: Arc<dyn Objects>,
}

impl Kubelet {
    /// CPU and memory of the node and its pods: `stats/summary?only_cpu_and_memory=true`.
    pub async fn usage(&self) -> Bytes {
        Bytes::from(summary::summary(&self.collector.snapshot(false).await).to_string())
    }

    /// Media type and body of a GET.
    ///
    /// # Errors
    /// 404 for what kubelet does not have, or this node does not.
    pub async fn get(&self, path: &str, query: &str) -> Result<(&'static str, Bytes), Status> {
        let version = &self.options.version;
        let text = |text: String| Ok((metrics::MEDIA_TYPE, Bytes::from(text)));
        let json = |value: Value| Ok((JSON, Bytes::from(value.to_string())));
        match path.trim_matches('/') {
            "stats/summary" => {
                let all = !query.split('&').any(|pair| pair == "only_cpu_and_memory=true");
                json(summary::summary(&self.collector.snapshot(all).await))
            }
            "metrics" => text(metrics::kubelet(&self.collector.snapshot(false).await, &self.views.all(), &self.counters.read(), version)),
            "metrics/resource" => text(metrics::resource(&self.collector.snapshot(false).await)),
            "metrics/cadvisor" => text(metrics::cadvisor(&self.collector.snapshot(true).await, &self.machine, version)),
            "metrics/probes" => text(metrics::probes(&self.counters.read())),
            "healthz" | "healthz/ping" | "healthz/log" | "healthz/syncloop" => Ok(("text/plain; charset=utf-8", Bytes::from_static(b"ok"))),
            "pods" => json(self.pods(|_| true)),
            "runningpods" => {
                json(self.pods(|uid| self.views.get(uid).is_some_and(|view| view.containers.iter().any(|container| container.started.is_some()))))
            }
            "configz" => json(self.configuration()),
            "logs" => Err(none("the node keeps no log files of its own; those of containers are at containerLogs/NAMESPACE/POD/CONTAINER")),
            other => Err(none(&format!(
                "{other:?} is not served by this node; there are stats/summary, metrics, metrics/cadvisor, metrics/resource, metrics/probes, pods, \
                 runningpods, healthz, configz and containerLogs/NAMESPACE/POD/CONTAINER"
            ))),
        }
    }

    /// A PodList of what this node was given.
    fn pods(&self, wanted: impl Fn(&str) -> bool) -> Value {
        let own = |json: &Bytes| Pod::parse(json).is_ok_and(|pod| pod.spec.node_name == self.options.node_name && wanted(&pod.metadata.uid));
        let items = self.objects.list("pods", None).into_iter().filter(|(_, json)| own(json));
        let items: Vec<Value> = items.filter_map(|(_, json)| serde_json::from_slice(&json).ok()).collect();
        json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })
    }

    /// What of a KubeletConfiguration has a meaning here.
    fn configuration(&self) -> Value {
        let options = &self.options;
        let eviction = &options.eviction;
        let gc = &options.image_gc;
        json!({ "kubeletconfig": {
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "clusterDomain": options.cluster_domain, "clusterDNS": options.cluster_dns.iter().map(|server| server.ip()).collect::<Vec<_>>(),
            "maxPods": options.max_pods, "podPidsLimit": options.pod_max_pids.map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX)), "podCIDR": options.pod_cidr,
            "evictionHard": eviction.hard.to_map(), "evictionSoft": eviction.soft.as_ref().map(|soft| soft.to_map()),
            "evictionPressureTransitionPeriod": format!("{}s", eviction.transition.0.as_secs()),
            "evictionMaxPodGracePeriod": eviction.max_pod_grace_seconds,
            "systemReserved": options.system_reserved.to_map(), "kubeReserved": options.kube_reserved.to_map(),
            "featureGates": { "MemoryQoS": options.memory_qos }, "memoryReservationPolicy": if options.memory_qos { "TieredReservation" } else { "None" },
            "imageGCHighThresholdPercent": gc.high, "imageGCLowThresholdPercent": gc.low, "imageMinimumGCAge": format!("{}s", gc.min_age.as_secs()),
        } })
    }
}

fn none(message: &str) -> Status {
    Status::new(404, "NotFound", message.to_owned())
}
