//! The node's metrics under kubelet's and cAdvisor's names: `/metrics`, `/metrics/resource`, `/metrics/cadvisor`, `/metrics/probes`. Pure.

use super::{
    ContainerUse, PodUse, Snapshot,
    counters::Counts,
    text::{Text, seconds},
};
use crate::{
    machine::{Machine, PLATFORM},
    pods::views::View,
};
use coracle_runtime::{
    Stats,
    stats::{Group, Interface},
};
use std::sync::Arc;

pub use super::text::MEDIA_TYPE;

/// `/metrics/resource`: what the metrics server reads.
pub fn resource(snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    let containers = || snapshot.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    let of = |pod: &PodUse| [("namespace", pod.view.namespace.clone()), ("pod", pod.view.name.clone())];
    let mut say = |name, kind, help, labels: &[(&str, String)], value: f64| {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        text.sample(name, kind, help, &labels, value);
    };
    let inside = |pod: &PodUse, container: &ContainerUse| {
        let [namespace, name] = of(pod);
        [("container", container.view.name.clone()), namespace, name]
    };
    for (pod, container) in containers() {
        let help = "[STABLE] Cumulative cpu time consumed by the container in core-seconds";
        say("container_cpu_usage_seconds_total", "counter", help, &inside(pod, container), seconds(container.stats.cpu_nanos));
    }
    for (pod, container) in containers() {
        let help = "[STABLE] Current working set of the container in bytes";
        say("container_memory_working_set_bytes", "gauge", help, &inside(pod, container), container.stats.memory_bytes as f64);
    }
    for (pod, container) in containers() {
        let help = "[STABLE] Start time of the container since unix epoch in seconds";
        let Some(started) = container.view.started else { continue };
        say("container_start_time_seconds", "gauge", help, &inside(pod, container), started.0 as f64 / 1e3);
    }
    let (machine, none) = (&snapshot.machine, &[][..]);
    say(
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        none,
        seconds(machine.cpu_nanos),
    );
    say("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes", none, machine.working_set() as f64);
    let swap = machine.swap.0.saturating_sub(machine.swap.1);
    say("node_swap_usage_bytes", "gauge", "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems", none, swap as f64);
    for pod in &snapshot.pods {
        let help = "[STABLE] Cumulative cpu time consumed by the pod in core-seconds";
        say("pod_cpu_usage_seconds_total", "counter", help, &of(pod), seconds(pod.whole.cpu_nanos));
    }
    for pod in &snapshot.pods {
        let help = "[STABLE] Current working set of the pod in bytes";
        say("pod_memory_working_set_bytes", "gauge", help, &of(pod), pod.whole.memory_bytes as f64);
    }
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    say("resource_scrape_error", "gauge", help, none, 0.0);
    text.done()
}

/// One series of cAdvisor: a container, or a pod as a whole (whose container and image are empty).
struct Series<'a> {
    labels: [(&'static str, String); 6],
    stats: &'a Stats,
    container: Option<&'a ContainerUse>,
    pod: &'a PodUse,
}

impl<'a> Series<'a> {
    fn new(pod: &'a PodUse, container: Option<&'a ContainerUse>) -> Self {
        let stats = container.map_or(&pod.whole, |container| &container.stats);
        let name = container.map_or_else(String::new, |container| container.view.name.clone());
        let attempt = container.map_or(0, |container| container.view.attempt);
        // What has no group of its own is named as its log and id are.
        let uid = &pod.view.uid;
        let path = stats.group.as_ref().map(|group| group.path.to_string_lossy().into_owned());
        let id = path.unwrap_or_else(|| if container.is_some() { format!("/{uid}/{name}/{attempt}") } else { format!("/{uid}") });
        let whole = container.map_or_else(String::new, |container| format!("{uid}/{}/{attempt}", container.view.name));
        let labels = [
            ("container", name),
            ("id", id),
            ("image", container.map_or_else(String::new, |container| container.view.image.clone())),
            ("name", whole),
            ("namespace", pod.view.namespace.clone()),
            ("pod", pod.view.name.clone()),
        ];
        Self { labels, stats, container, pod }
    }
}

/// What of a group is one number: name, kind, help and where it is.
type Plain = (&'static str, &'static str, &'static str, fn(&Group) -> f64);

const PLAIN: [Plain; 11] = [
    ("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.", |group| group.throttled.0 as f64),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.", |group| group.throttled.1 as f64),
    ("container_cpu_cfs_throttled_seconds_total", "counter", "Total time duration the container has been throttled.", |group| {
        seconds(group.throttled.2)
    }),
    ("container_memory_cache", "gauge", "Number of bytes of page cache memory.", |group| group.cache_bytes as f64),
    ("container_memory_failcnt", "counter", "Number of memory usage hits limits", |group| group.memory_limit_hits as f64),
    ("container_memory_mapped_file", "gauge", "Size of memory mapped files in bytes.", |group| group.mapped_bytes as f64),
    ("container_memory_max_usage_bytes", "gauge", "Maximum memory usage recorded in bytes", |group| group.peak_bytes as f64),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", |group| group.rss_bytes as f64),
    ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory regardless of when it was accessed", |group| {
        group.usage_bytes as f64
    }),
    ("container_oom_events_total", "counter", "Count of out of memory events observed for the container", |group| group.oom_kills as f64),
    ("container_threads", "gauge", "Number of threads running inside the container", |group| group.tasks as f64),
];

/// What of a device is one number.
type Counted = (&'static str, &'static str, fn(&Interface) -> u64);

const DEVICE: [Counted; 8] = [
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |device| device.received.bytes),
    ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |device| device.received.errors),
    ("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", |device| device.received.dropped),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |device| device.received.packets),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |device| device.sent.bytes),
    ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |device| device.sent.errors),
    ("container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", |device| device.sent.dropped),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |device| device.sent.packets),
];

/// `/metrics/cadvisor`.
pub fn cadvisor(snapshot: &Snapshot, machine: &Machine, version: &str) -> String {
    let mut text = Text::default();
    let info = [("kernelVersion", machine.kernel.as_str()), ("osVersion", &machine.os_image), ("cadvisorVersion", ""), ("cadvisorRevision", version)];
    let help = "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.";
    text.sample("cadvisor_version_info", "gauge", help, &info, 1);
    let series: Vec<Series<'_>> = snapshot
        .pods
        .iter()
        .flat_map(|pod| std::iter::once(Series::new(pod, None)).chain(pod.containers.iter().map(move |container| Series::new(pod, Some(container)))))
        .collect();
    let mut say = |name, kind, help, series: &Series<'_>, more: &[(&'static str, &str)], value: f64| {
        let mut labels: Vec<(&str, &str)> = series.labels.iter().map(|(key, value)| (*key, value.as_str())).chain(more.iter().copied()).collect();
        labels.sort_unstable();
        text.sample(name, kind, help, &labels, value);
    };
    for series in &series {
        say("container_last_seen", "gauge", "Last time a container was seen by the exporter", series, &[], (snapshot.at.0 / 1000) as f64);
    }
    for series in &series {
        let value = seconds(series.stats.cpu_nanos);
        say("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", series, &[("cpu", "total")], value);
    }
    for series in &series {
        say("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", series, &[], series.stats.memory_bytes as f64);
    }
    for (name, kind, help, of) in PLAIN {
        for series in &series {
            let Some(group) = &series.stats.group else { continue };
            say(name, kind, help, series, &[], of(group));
        }
    }
    for series in &series {
        let Some(group) = &series.stats.group else { continue };
        let scope = if series.container.is_some() { "container" } else { "hierarchy" };
        for (kind, value) in [("pgfault", group.faults.0), ("pgmajfault", group.faults.1)] {
            let more = [("failure_type", kind), ("scope", scope)];
            say("container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.", series, &more, value as f64);
        }
    }
    for series in &series {
        let Some(started) = series.container.and_then(|container| container.view.started) else { continue };
        say(
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds.",
            series,
            &[],
            (started.0 / 1000) as f64,
        );
    }
    for series in &series {
        let Some(limit) = series.container.map(|container| container.view.memory_limit.unwrap_or(0)) else { continue };
        say("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", series, &[], limit as f64);
    }
    for series in &series {
        let (Some(disk), Some(container)) = (&series.pod.disk, series.container) else { continue };
        let used = disk.written.get(&container.view.name).copied().unwrap_or_default();
        say(
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container on this filesystem.",
            series,
            &[("device", "")],
            used.bytes as f64,
        );
    }
    for (name, help, of) in DEVICE {
        for series in series.iter().filter(|series| series.container.is_none()) {
            for interface in &series.pod.interfaces {
                say(name, "counter", help, series, &[("interface", &interface.name)], of(interface) as f64);
            }
        }
    }
    let own = [("boot_id", machine.boot_id.as_str()), ("machine_id", &machine.machine_id), ("system_uuid", &machine.system_uuid)];
    text.sample("machine_cpu_cores", "gauge", "Number of logical CPU cores.", &own, machine.cpus);
    text.sample("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", &own, machine.memory);
    let swap = snapshot.machine.swap.0;
    text.sample("machine_swap_bytes", "gauge", "Amount of swap memory available on the machine.", &own, swap);
    text.sample("container_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise", &[], 0);
    text.done()
}

/// `/metrics/probes`.
pub fn probes(counts: &Counts) -> String {
    let mut text = Text::default();
    let all = counts.probes.iter().flat_map(|(uid, probes)| probes.iter().map(move |(probed, outcomes)| (probed, uid, outcomes)));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(probed, uid, _)| (*probed, *uid));
    for (probed, uid, outcomes) in all {
        for (result, count) in [("failed", outcomes.failed), ("successful", outcomes.successful)] {
            let labels = [
                ("container", probed.container.as_str()),
                ("namespace", &probed.namespace),
                ("pod", &probed.pod),
                ("pod_uid", uid),
                ("probe_type", probed.kind),
                ("result", result),
            ];
            let help = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
            if count > 0 {
                text.sample("prober_probe_total", "counter", help, &labels, count);
            }
        }
    }
    text.done()
}

/// `/metrics`: the agent's own.
pub fn kubelet(snapshot: &Snapshot, views: &[Arc<View>], counts: &Counts, version: &str) -> String {
    let mut text = Text::default();
    for (signal, count) in &counts.evictions {
        let help = "[ALPHA] Cumulative number of pod evictions by eviction signal";
        text.sample("kubelet_evictions", "counter", help, &[("eviction_signal", signal)], count);
    }
    text.sample("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.", &[("node", &snapshot.node)], 1);
    let mut states = [("created", 0), ("exited", 0), ("running", 0)];
    for container in views.iter().flat_map(|view| &view.containers) {
        match (container.started.is_some(), container.created) {
            (true, _) => states[2].1 += 1,
            (false, true) if !container.alive => states[1].1 += 1,
            (false, true) => states[0].1 += 1,
            (false, false) => {}
        }
    }
    for (state, count) in states {
        let help = "[ALPHA] Number of containers currently running";
        text.sample("kubelet_running_containers", "gauge", help, &[("container_state", state)], count);
    }
    let help = "[ALPHA] Number of pods that have a running pod sandbox";
    text.sample("kubelet_running_pods", "gauge", help, &[], snapshot.pods.len());
    let help = "[ALPHA] Cumulative number of errors when starting containers";
    text.sample("kubelet_started_containers_errors_total", "counter", help, &[], counts.start_errors);
    text.sample("kubelet_started_containers_total", "counter", "[ALPHA] Cumulative number of containers started", &[], counts.started);
    text.sample("kubelet_started_pods_total", "counter", "[ALPHA] Cumulative number of pods started", &[], counts.pods);
    let build = [("git_version", version), ("major", "1"), ("minor", "36"), ("platform", PLATFORM)];
    let help = "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version and platform from which Kubernetes was built.";
    text.sample("kubernetes_build_info", "gauge", help, &build, 1);
    let agent = &snapshot.agent;
    text.sample("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", &[], seconds(agent.cpu_nanos));
    text.sample("process_open_fds", "gauge", "Number of open file descriptors.", &[], agent.descriptors);
    text.sample("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", &[], agent.rss);
    let started = snapshot.machine.booted as f64 + agent.started as f64 / 100.0;
    text.sample("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", &[], started);
    text.sample("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", &[], agent.virtual_bytes);
    text.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{counters::Counters, summary::tests::snapshot};
    use serde_json::json;

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
    }

    /// Every family has one head, and its samples follow it.
    fn well_formed(text: &str) {
        let mut seen = std::collections::HashSet::new();
        let mut family = "";
        for line in text.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(head) => {
                    family = head.split(' ').next().unwrap();
                    assert!(seen.insert(family), "{family} twice");
                }
                None if line.starts_with('#') => {}
                None => assert!(line.split(['{', ' ']).next() == Some(family) && line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}"),
            }
        }
    }

    #[test]
    fn what_the_metrics_server_reads() {
        let text = resource(&snapshot());
        well_formed(&text);
        has(&text, "container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"web\"} 1.5");
        has(&text, "container_memory_working_set_bytes{container=\"main\",namespace=\"default\",pod=\"web\"} 60");
        has(&text, "pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"web\"} 1.5");
        has(&text, "node_memory_working_set_bytes 700");
        has(&text, "container_start_time_seconds{container=\"main\",namespace=\"default\",pod=\"web\"} 1");
        has(&text, "resource_scrape_error 0");
    }

    #[test]
    fn cadvisors_names_and_labels() {
        let mut machine = Machine::read(std::path::Path::new("/"));
        machine.boot_id = "b".into();
        (machine.machine_id, machine.system_uuid, machine.cpus) = ("m".into(), "s".into(), 2);
        let text = cadvisor(&snapshot(), &machine, "v1");
        well_formed(&text);
        let own = "container=\"main\",VALUEid=\"/coracle/podu/main-1\",image=\"busybox:v1\"";
        let tail = ",name=\"u/main/1\",namespace=\"default\",pod=\"web\"}";
        has(&text, &format!("container_cpu_usage_seconds_total{{{}{tail} 1.5", own.replace("VALUE", "cpu=\"total\",")));
        has(&text, &format!("container_memory_working_set_bytes{{{}{tail} 60", own.replace("VALUE", "")));
        has(&text, &format!("container_cpu_cfs_throttled_seconds_total{{{}{tail} 7", own.replace("VALUE", "")));
        let pod = "container=\"\",id=\"/coracle/podu\",image=\"\"";
        has(&text, &format!("container_network_receive_bytes_total{{{pod},interface=\"eth0\",name=\"\",namespace=\"default\",pod=\"web\"}} 100"));
        has(&text, &format!("container_memory_rss{{{pod},name=\"\",namespace=\"default\",pod=\"web\"}} 40"));
        has(&text, "machine_cpu_cores{boot_id=\"b\",machine_id=\"m\",system_uuid=\"s\"} 2");
    }

    #[test]
    fn probes_and_the_agents_own() {
        let counters = Counters::default();
        let pod = serde_json::from_value(json!({ "metadata": { "name": "web", "namespace": "default", "uid": "u" } })).unwrap();
        counters.probed(&pod, "main", crate::pods::probes::Kind::Liveness, true);
        counters.probed(&pod, "main", crate::pods::probes::Kind::Liveness, true);
        counters.count(|counts| *counts.evictions.entry("memory.available").or_default() += 1);
        let text = probes(&counters.read());
        well_formed(&text);
        assert!(!text.contains("failed"));
        has(
            &text,
            "prober_probe_total{container=\"main\",namespace=\"default\",pod=\"web\",pod_uid=\"u\",probe_type=\"Liveness\",result=\"successful\"} 2",
        );
        counters.forget("u");
        assert_eq!(probes(&counters.read()), "");
        let snapshot = snapshot();
        let views: Vec<_> = snapshot.pods.iter().map(|pod| pod.view.clone()).collect();
        let text = kubelet(&snapshot, &views, &counters.read(), "v1.36.0");
        well_formed(&text);
        has(&text, "kubelet_running_pods 1");
        has(&text, "kubelet_running_containers{container_state=\"running\"} 1");
        has(&text, "kubelet_evictions{eviction_signal=\"memory.available\"} 1");
    }
}
