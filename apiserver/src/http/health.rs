//! `/livez`, `/readyz` and `/healthz`: what is checked, all of it or one by one, with `?verbose` and `?exclude=NAME` (upstream's `apiserver/pkg/server/healthz`).
//!
//! The store is the check that upstream calls `etcd`, since scripts and manifests name it so; what a start does has the names of upstream's post-start hooks.

use super::{respond, route};
use crate::pipeline::{Core, handle};
use axum::body::Body;
use coracle_api::status::Status;
use http::Response;
use std::time::Duration;

/// How long a check of the store may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// That anything answers.
    Ping,
    /// The log of the program, which nothing here waits for.
    Log,
    /// A linearizable read goes through.
    Store(&'static str),
    /// Something that goes on from before the API was served: a task of this server that must not have ended.
    Task(&'static str, &'static str),
    /// Something that was done before the API was served.
    Started(&'static str),
    /// It is not stopping.
    Shutdown,
}

/// What a start has to do or to begin, by the names and in the order of upstream's post-start hooks; those of parts that do not exist here are left out.
const HOOKS: &[Check] = &[
    Check::Started("poststarthook/start-apiserver-admission-initializer"),
    Check::Task("poststarthook/generic-apiserver-start-informers", "controllers' watch"),
    Check::Task("poststarthook/priority-and-fairness-config-consumer", "priority levels"),
    Check::Started("poststarthook/priority-and-fairness-filter"),
    Check::Task("poststarthook/storage-object-count-tracker-hook", "metrics"),
    Check::Task("poststarthook/start-apiextensions-informers", "custom kinds"),
    Check::Task("poststarthook/start-apiextensions-controllers", "crd-names-controller"),
    Check::Task("poststarthook/crd-informer-synced", "custom kinds"),
    Check::Started("poststarthook/start-system-namespaces-controller"),
    Check::Started("poststarthook/start-cluster-authentication-info-controller"),
    Check::Started("poststarthook/storage-readiness"),
    Check::Task("poststarthook/start-service-ip-repair-controllers", "service-cidr-controller"),
    Check::Task("poststarthook/rbac/bootstrap-roles", "rbac rules"),
    Check::Started("poststarthook/scheduling/bootstrap-system-priority-classes"),
    Check::Started("poststarthook/priority-and-fairness-config-producer"),
    Check::Started("poststarthook/bootstrap-controller"),
    Check::Task("poststarthook/start-kubernetes-service-cidr-controller", "service-cidr-controller"),
    Check::Task("poststarthook/aggregator-reload-proxy-client-cert", "front proxy's certificate"),
    Check::Task("poststarthook/start-kube-aggregator-informers", API_SERVICES),
    Check::Task("poststarthook/apiservice-status-local-available-controller", API_SERVICES),
    Check::Task("poststarthook/apiservice-status-remote-available-controller", API_SERVICES),
    Check::Task("poststarthook/apiservice-registration-controller", API_SERVICES),
    Check::Task("poststarthook/apiservice-discovery-controller", API_SERVICES),
    Check::Task("poststarthook/kube-apiserver-autoregistration", API_SERVICES),
    Check::Started("autoregister-completion"),
    Check::Task("poststarthook/apiservice-openapi-controller", API_SERVICES),
    Check::Task("poststarthook/apiservice-openapiv3-controller", API_SERVICES),
];
const API_SERVICES: &str = "apiservice-controller";

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Log => "log",
            Check::Shutdown => "shutdown",
            Check::Store(name) | Check::Task(name, _) | Check::Started(name) => name,
        }
    }

    async fn passes(self, core: &Core) -> Result<(), String> {
        match self {
            Check::Ping | Check::Log | Check::Started(_) => Ok(()),
            Check::Task(_, task) if core.tasks.runs(task) => Ok(()),
            Check::Task(_, task) => Err(format!("{task} has ended")),
            Check::Shutdown if core.tasks.token().is_cancelled() => Err("process is shutting down".into()),
            Check::Shutdown => Ok(()),
            Check::Store(_) => match tokio::time::timeout(PATIENCE, core.store.barrier()).await {
                Ok(done) => done.map_err(|error| error.to_string()),
                Err(_) => Err("the store does not answer".into()),
            },
        }
    }
}

/// What is checked for a path, in the order it is told.
fn checks(endpoint: &str) -> impl Iterator<Item = Check> + Clone {
    let ready = endpoint == "readyz";
    let before = [Check::Store("etcd-readiness"), Check::Task("informer-sync", "controllers' watch")];
    let before = before.into_iter().filter(move |_| ready);
    let after = ready.then_some(Check::Shutdown);
    [Check::Ping, Check::Log, Check::Store("etcd")].into_iter().chain(before).chain(HOOKS.iter().copied()).chain(after)
}

/// The outcome of checks as text, and whether all passed; `failed` says which did not.
fn report(endpoint: &str, excluded: &[&str], verbose: bool, failed: impl Fn(Check) -> bool) -> (bool, String) {
    let (mut text, mut good) = (String::new(), true);
    for check in checks(endpoint) {
        let name = check.name();
        let line = match (excluded.contains(&name), failed(check)) {
            (true, _) => format!("[+]{name} excluded: ok\n"),
            (false, false) => format!("[+]{name} ok\n"),
            (false, true) => {
                good = false;
                // Anybody may ask; why it failed is in the log, and with the check itself.
                format!("[-]{name} failed: reason withheld\n")
            }
        };
        text.push_str(&line);
    }
    let mut unknown: Vec<String> =
        excluded.iter().filter(|name| !checks(endpoint).any(|check| check.name() == **name)).map(|name| format!("{name:?}")).collect();
    unknown.sort();
    unknown.dedup();
    if !unknown.is_empty() {
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(",")));
    }
    match (good, verbose) {
        (false, _) => (false, format!("{text}{endpoint} check failed\n")),
        (true, true) => (true, format!("{text}{endpoint} check passed\n")),
        (true, false) => (true, "ok".into()),
    }
}

/// Answers a path that begins with one of the three.
///
/// # Errors
/// 404 for a check that is none.
pub(super) async fn serve(core: &Core, endpoint: &str, rest: &[&str], raw_query: &str) -> Result<Response<Body>, Status> {
    if !rest.is_empty() {
        let name = rest.join("/");
        let check = checks(endpoint).find(|check| check.name() == name).ok_or_else(handle::no_such_path)?;
        return Ok(match check.passes(core).await {
            Ok(()) => respond::text(200, "ok"),
            Err(why) => respond::text(500, format!("internal server error: {why}\n")),
        });
    }
    let query = route::query(raw_query);
    let excluded: Vec<&str> = query.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
    let mut failed = Vec::new();
    for check in checks(endpoint).filter(|check| !excluded.contains(&check.name())) {
        let passed = check.passes(core).await;
        core.telemetry.checks.made(check.name(), endpoint, passed.is_ok());
        if let Err(why) = passed {
            tracing::warn!(check = check.name(), endpoint, why, "a health check failed");
            failed.push(check);
        }
    }
    let verbose = query.iter().any(|(key, _)| key == "verbose");
    let (good, text) = report(endpoint, &excluded, verbose, |check| failed.contains(&check));
    Ok(respond::text(if good { 200 } else { 500 }, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that are no hooks'.
    fn apart_from_hooks((good, text): (bool, String)) -> (bool, String) {
        let hook = |line: &&str| HOOKS.iter().any(|hook| *line == format!("[+]{} ok", hook.name()));
        assert_eq!(text.lines().filter(hook).count(), HOOKS.len(), "{text}");
        (good, text.lines().filter(|line| !hook(line)).map(|line| format!("{line}\n")).collect())
    }

    #[test]
    fn reports_read_as_upstreams() {
        let store = |check: Check| matches!(check, Check::Store(_));
        assert_eq!(report("livez", &[], false, |_| false), (true, "ok".into()));
        assert_eq!(apart_from_hooks(report("livez", &[], true, |_| false)), (true, "[+]ping ok\n[+]log ok\n[+]etcd ok\nlivez check passed\n".into()));
        let all = "[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\n[-]etcd-readiness failed: reason withheld\n[+]informer-sync ok\n[+]shutdown ok\nreadyz check failed\n";
        assert_eq!(apart_from_hooks(report("readyz", &[], false, store)), (false, all.into()), "a failure is always told in full");
        let some = "[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nhealthz check passed\n";
        assert_eq!(apart_from_hooks(report("healthz", &["b", "etcd", "a", "b"], true, |check| check == Check::Store("etcd"))), (true, some.into()));
        let hook = |check: Check| check.name() == "poststarthook/rbac/bootstrap-roles";
        let (good, text) = report("livez", &[], false, hook);
        assert!(!good && text.contains("[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n"), "{text}");
        assert!(report("livez", &["poststarthook/rbac/bootstrap-roles"], false, hook).0);
    }
}
