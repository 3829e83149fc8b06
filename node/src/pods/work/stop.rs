//! A container is stopped; lifecycle hooks.

use super::Work;
use crate::pods::{
    hook,
    machine::{Event, Exit},
    probe,
    spec::{Container, Handler, Pod},
    time::Time,
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// What a container has at least when its preStop hook took all of the grace: kubelet's minimum.
const AFTER_HOOK: Duration = Duration::from_secs(2);

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

    /// With `hook` the pod's address: its preStop hook is run first, on the grace's account.
    pub(super) async fn stop(&self, pod: &Pod, container: usize, attempt: u32, grace: i64, hook: Option<IpAddr>) -> Event {
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
}
