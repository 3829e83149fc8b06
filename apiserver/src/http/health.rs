//! `/livez`, `/readyz` and `/healthz`: what is checked, all of it or one by one, with `?verbose` and `?exclude=NAME` (upstream's `apiserver/pkg/server/healthz`).
//!
//! The store is the check that upstream calls `etcd`, since scripts and manifests name it so.

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
    Store,
    /// It is not stopping.
    Shutdown,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Log => "log",
            Check::Store => "etcd",
            Check::Shutdown => "shutdown",
        }
    }

    async fn passes(self, core: &Core) -> Result<(), String> {
        match self {
            Check::Ping | Check::Log => Ok(()),
            Check::Shutdown if core.stopping.is_cancelled() => Err("process is shutting down".into()),
            Check::Shutdown => Ok(()),
            Check::Store => match tokio::time::timeout(PATIENCE, core.store.barrier()).await {
                Ok(done) => done.map_err(|error| error.to_string()),
                Err(_) => Err("the store does not answer".into()),
            },
        }
    }
}

/// What is checked for a path.
fn checks(endpoint: &str) -> &'static [Check] {
    match endpoint {
        "readyz" => &[Check::Ping, Check::Log, Check::Store, Check::Shutdown],
        _ => &[Check::Ping, Check::Log, Check::Store],
    }
}

/// The outcome of checks as text, and whether all passed; `failed` says which did not.
fn report(endpoint: &str, excluded: &[&str], verbose: bool, failed: impl Fn(Check) -> bool) -> (bool, String) {
    let (mut text, mut good) = (String::new(), true);
    let checks = checks(endpoint);
    for check in checks {
        let name = check.name();
        let line = match (excluded.contains(&name), failed(*check)) {
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
        excluded.iter().filter(|name| !checks.iter().any(|check| check.name() == **name)).map(|name| format!("{name:?}")).collect();
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
    if let [name] = rest {
        let check = checks(endpoint).iter().find(|check| check.name() == *name).ok_or_else(handle::no_such_path)?;
        return Ok(match check.passes(core).await {
            Ok(()) => respond::text(200, "ok"),
            Err(why) => respond::text(500, format!("internal server error: {why}\n")),
        });
    }
    if !rest.is_empty() {
        return Err(handle::no_such_path());
    }
    let query = route::query(raw_query);
    let excluded: Vec<&str> = query.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
    let mut failed = Vec::new();
    for check in checks(endpoint).iter().filter(|check| !excluded.contains(&check.name())) {
        if let Err(why) = check.passes(core).await {
            tracing::warn!(check = check.name(), endpoint, why, "a health check failed");
            failed.push(*check);
        }
    }
    let verbose = query.iter().any(|(key, _)| key == "verbose");
    let (good, text) = report(endpoint, &excluded, verbose, |check| failed.contains(&check));
    Ok(respond::text(if good { 200 } else { 500 }, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_read_as_upstreams() {
        let store = |check: Check| check == Check::Store;
        assert_eq!(report("livez", &[], false, |_| false), (true, "ok".into()));
        assert_eq!(report("livez", &[], true, |_| false), (true, "[+]ping ok\n[+]log ok\n[+]etcd ok\nlivez check passed\n".into()));
        let all = "[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n";
        assert_eq!(report("readyz", &[], false, store), (false, all.into()), "a failure is always told in full");
        let some = "[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nhealthz check passed\n";
        assert_eq!(report("healthz", &["b", "etcd", "a", "b"], true, store), (true, some.into()));
    }
}
