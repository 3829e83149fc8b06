//! The standard rules, and seats that come and go.

use super::{rules::Rules, *};
use crate::{auth::MASTERS, fixture::object, resources::flow_control::standard};
use coracle_store::Object;
use serde_json::{Value, json};

fn stored(resource: &str, objects: Vec<Value>) -> Vec<Arc<Object>> {
    let with_uid = |mut value: Value| {
        value["metadata"]["uid"] = value["metadata"]["name"].clone();
        object(resource, 1, value)
    };
    objects.into_iter().map(with_uid).collect()
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.into(), groups: groups.iter().map(|group| (*group).into()).chain(["system:authenticated".into()]).collect(), ..User::default() }
}

fn on(verb: &'static str, group: &'static str, resource: &'static str, namespace: &'static str) -> Attributes<'static> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes { verb, group, resource, subresource, namespace, ..Attributes::default() }
}

#[test]
fn the_standard_schemas_judge_as_upstream() {
    let rules = Rules::of(&stored(rules::SCHEMAS, standard::schemas()), &stored(rules::LEVELS, standard::levels()), 600);
    let node = user("system:node:n", &["system:nodes"]);
    let account = User::service_account("n", "a");
    for (user, asked, schema, level, flow) in [
        (user("root", &[MASTERS]), on("get", "", "pods", "n"), "exempt", "exempt", ""),
        (user("jane", &[]), on("list", "", "pods", ""), "global-default", "global-default", "jane"),
        (user("jane", &[]), Attributes { verb: "get", path: "/healthz", ..Attributes::default() }, "probes", "exempt", ""),
        (user("jane", &[]), Attributes { verb: "get", path: "/version", ..Attributes::default() }, "global-default", "global-default", "jane"),
        (node.clone(), on("patch", "", "nodes/status", ""), "system-node-high", "node-high", "system:node:n"),
        (node.clone(), on("update", "coordination.k8s.io", "leases", "kube-node-lease"), "system-node-high", "node-high", "system:node:n"),
        (node, on("get", "", "pods", "n"), "system-nodes", "system", "system:node:n"),
        (User::service_account("kube-system", "a"), on("list", "", "pods", "n"), "kube-system-service-accounts", "workload-high", "n"),
        (account.clone(), on("list", "", "pods", "n"), "service-accounts", "workload-low", "system:serviceaccount:n:a"),
        (User::default(), on("list", "", "pods", "n"), "", "", ""),
    ] {
        let judged = rules.judge(&user, &asked);
        let said = judged.as_ref().map_or(("", "", String::new()), |(judged, _, level, flow)| (&*judged.schema, &***level, flow.clone()));
        let expected = if schema.is_empty() { String::new() } else { format!("{schema}/{flow}") };
        assert_eq!(said, (schema, level, expected), "{user:?} {asked:?}");
    }
    // 600 seats among 245 shares.
    let seats = |name: &str| rules.levels.get(name).map_or((0, 0, 0), |level| (level.span.nominal, level.span.least, level.queue.all));
    assert_eq!([seats("workload-low"), seats("global-default"), seats("catch-all")], [(245, 24, 6_400), (49, 24, 6_400), (13, 13, 0)]);
    assert!(rules.levels["exempt"].exempt);
}

#[tokio::test]
async fn a_busy_level_has_the_seats_of_idle_ones() {
    let fairness = Fairness::new(600).expect("counts");
    fairness.set(Rules::of(&stored(rules::SCHEMAS, standard::schemas()), &stored(rules::LEVELS, standard::levels()), 600));
    let (jane, asked) = (user("jane", &[]), on("get", "", "pods", "n"));
    let limit = |name: &str| fairness.seats.lock()[name].0.lock().level.limit;
    let before = limit("global-default");
    let mut held = Vec::new();
    for _ in 0..before {
        held.push(fairness.enter(&jane, &asked).await.1.expect("a seat"));
    }
    let fairness = &fairness;
    let mut next = Box::pin(fairness.enter(&jane, &asked));
    assert!(futures::poll!(next.as_mut()).is_pending(), "one more waits");
    fairness.lend(Instant::now() + Duration::from_secs(10));
    let lent = limit("global-default");
    assert!(lent > before, "{lent} is more than {before}");
    held.push(next.await.1.expect("a seat that was lent"));
    drop(held);
    let all: usize = fairness.seats.lock().values().map(|seats| seats.0.lock().gate.wanted()).sum();
    assert_eq!(all, 0, "every seat came back");
    // Nodes come: what was lent is theirs again.
    let node = user("system:node:n", &["system:nodes"]);
    let held: Vec<_> = futures::future::join_all((0..30).map(|_| fairness.enter(&node, &asked))).await;
    fairness.lend(Instant::now() + Duration::from_secs(20));
    assert!(limit("system") >= held.len() && limit("global-default") <= lent);
}

/// One level with one seat, for everybody.
fn narrow(response: Value) -> Fairness {
    let level =
        json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": response}}});
    let everything = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
    let rule = json!({"subjects": [{"kind": "User", "user": {"name": "*"}}], "resourceRules": [everything]});
    let spec = json!({"priorityLevelConfiguration": {"name": "l"}, "distinguisherMethod": {"type": "ByUser"}, "rules": [rule]});
    let schema = json!({"metadata": {"name": "s"}, "spec": spec});
    let fairness = Fairness::new(1).expect("counts");
    let rules = Rules::of(&stored(rules::SCHEMAS, vec![schema]), &stored(rules::LEVELS, vec![level]), 1);
    fairness.set(rules);
    fairness
}

#[tokio::test]
async fn who_finds_no_seat_waits_or_is_sent_away() {
    let queue = json!({"type": "Queue", "queuing": {"queues": 1, "queueLengthLimit": 1}});
    let fairness = Arc::new(narrow(queue));
    let asked = on("get", "", "pods", "n");
    let (judged, first) = fairness.enter(&user("a", &[]), &asked).await;
    assert_eq!((&*judged.schema, &*judged.level), ("s", "l"));
    let first = first.expect("a seat");
    let other = Arc::clone(&fairness);
    let waiting = tokio::spawn(async move { other.enter(&user("b", &[]), &on("get", "", "pods", "n")).await.1.is_ok_and(|seat| seat.is_some()) });
    while fairness.waiting("l") == 0 {
        tokio::task::yield_now().await;
    }
    let (_, refused) = fairness.enter(&user("c", &[]), &asked).await;
    let refused = refused.err().expect("no room");
    assert_eq!((refused.code, refused.details.map(|details| details.retry_after_seconds)), (429, Some(1)));
    drop(first);
    assert!(waiting.await.expect("no panic"), "the seat goes on to who waited");
    assert!(fairness.enter(&user("c", &[]), &asked).await.1.is_ok_and(|seat| seat.is_some()), "and is free when that is done");
}

#[tokio::test]
async fn who_gives_up_takes_no_seat_along() {
    let fairness = Arc::new(narrow(json!({"type": "Queue", "queuing": {"queues": 1, "queueLengthLimit": 5}})));
    let asked = on("get", "", "pods", "n");
    let seat = fairness.enter(&user("a", &[]), &asked).await.1.expect("a seat");
    let other = Arc::clone(&fairness);
    let waiting = tokio::spawn(async move { other.enter(&user("b", &[]), &on("get", "", "pods", "n")).await.1.is_ok() });
    while fairness.waiting("l") == 0 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    assert!(waiting.await.is_err());
    drop(seat);
    assert!(fairness.enter(&user("c", &[]), &asked).await.1.is_ok_and(|seat| seat.is_some()));
    let reject = narrow(json!({"type": "Reject"}));
    let _seat = reject.enter(&user("a", &[]), &asked).await.1.expect("a seat");
    assert!(reject.enter(&user("b", &[]), &asked).await.1.is_err());
}
