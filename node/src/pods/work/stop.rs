//! A container is stopped; lifecycle hooks.

use super::Work;
use crate::pods::{
    hook,
    machine::{Event, Exit},
    probe,
    spec::{Container, Handler, Pod},
    time::Time,
    views::View,
};
use std::{
    net::IpAddr,
    ops::Range,
    time::{Duration, Instant},
};

/// What a container has at least to stop in, whatever its hook and those before it left of its grace, unless that was shorter: kubelet's minimum.
const LEAST: Duration = Duration::from_secs(2);

impl Work {
    /// A running container, for commands.
    pub(super) fn inside(&self, pod: &Pod, container: &Container, attempt: u32) -> Option<probe::Inside<'_>> {
        let runtime = self.runtime(pod).ok()?.as_ref();
        Some(probe::Inside { runtime, id: format!("{}/{}/{attempt}", pod.metadata.uid, container.name) })
    }

    /// Runs a lifecycle hook; whether it went well. What went wrong is not for those who read events: it may hold secrets of the pod.
    pub(super) async fn hook(&self, pod: &Pod, (index, attempt): (usize, u32), container: &Container, handler: &Handler, ip: IpAddr) -> bool {
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

    /// Waits for the end of these containers of a pod.
    async fn turn(&self, uid: &str, before: Range<usize>) {
        let mut changes = self.views.changes();
        let runs = |view: &View| view.containers.get(before.clone()).is_some_and(|list| list.iter().any(|container| container.alive));
        while self.views.get(uid).is_some_and(|view| runs(&view)) && changes.changed().await.is_ok() {}
    }

    /// With `hook` the pod's address: its preStop hook is run first. Then it waits for the end of those that go before it, `after`. Both on the grace's account.
    pub(super) async fn stop(&self, pod: &Pod, container: usize, attempt: u32, grace: i64, hook: Option<IpAddr>, after: Range<usize>) -> Event {
        let name = pod.container(container).map_or("", |c| c.name.as_str());
        let id = format!("{}/{name}/{attempt}", pod.metadata.uid);
        let mut grace = Duration::from_millis(u64::try_from(grace).unwrap_or(0));
        let handler = pod.container(container).and_then(|c| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
        if !grace.is_zero() {
            let began = Instant::now();
            if let Some(((spec, handler), ip)) = handler.zip(hook)
                && let Ok(false) = tokio::time::timeout(grace, self.hook(pod, (container, attempt), spec, handler, ip)).await
            {
                self.note(pod, Some(container), true, "FailedPreStopHook", "PreStopHook failed");
            }
            _ = tokio::time::timeout(grace.saturating_sub(began.elapsed()), self.turn(&pod.metadata.uid, after)).await;
            grace = grace.saturating_sub(began.elapsed()).max(LEAST.min(grace));
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
}
