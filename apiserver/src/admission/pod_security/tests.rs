//! The standard's checks, level by level and version by version.

use super::*;
use level::Version;
use serde_json::json;

fn found(level: Level, version: Version, pod: &Value) -> String {
    let pod = Pod { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] };
    standard::detail(&standard::violations(At { level, version }, &pod))
}

fn baseline(spec: Value) -> String {
    found(Level::Baseline, Version::Latest, &json!({"spec": spec}))
}

fn restricted(spec: Value) -> String {
    found(Level::Restricted, Version::Latest, &json!({"spec": spec}))
}

/// A pod that is let in everywhere, with something more on its first container.
fn good(more: Value) -> Value {
    let mut container = json!({"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
    for (name, value) in more.as_object().into_iter().flatten() {
        match (container[name].as_object_mut(), value.as_object()) {
            (Some(there), Some(more)) => there.extend(more.clone()),
            _ => container[name] = value.clone(),
        }
    }
    json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [container]})
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    let plain = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(baseline(plain.clone()), "");
    assert_eq!(
        restricted(plain.clone()),
        "allowPrivilegeEscalation != false (containers \"i\", \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (containers \"i\", \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or containers \"i\", \"a\", \"b\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or containers \"i\", \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(found(Level::Privileged, Version::Latest, &json!({"spec": {"hostPID": true}})), "");
    assert_eq!(restricted(good(json!({}))), "");
    // Older standards knew fewer checks.
    assert_eq!(
        found(Level::Restricted, Version::Minor(7), &json!({"spec": {"containers": [{"name": "a"}]}})),
        "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)"
    );
}

#[test]
fn what_baseline_forbids() {
    let one = |context: Value| baseline(json!({"containers": [{"name": "a", "securityContext": context}]}));
    let whole = |context: Value| baseline(json!({"securityContext": context, "containers": [{"name": "a"}]}));
    assert_eq!(baseline(json!({"hostNetwork": true, "hostIPC": true})), "host namespaces (hostNetwork=true, hostIPC=true)");
    assert_eq!(one(json!({"privileged": true})), "privileged (container \"a\" must not set securityContext.privileged=true)");
    assert_eq!(
        one(json!({"capabilities": {"add": ["NET_RAW", "CHOWN", "BPF"]}})),
        "non-default capabilities (container \"a\" must not include \"BPF\", \"NET_RAW\" in securityContext.capabilities.add)"
    );
    assert_eq!(one(json!({"procMount": "Unmasked"})), "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")");
    assert_eq!(
        baseline(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {}}]})),
        "hostPath volumes (volumes \"v\", \"w\")"
    );
    assert_eq!(
        baseline(json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 8080}, {"containerPort": 1}]}]})),
        "hostPort (container \"a\" uses hostPorts 80, 8080)"
    );
    assert_eq!(
        baseline(
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "g"}}}}]})
        ),
        "probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"g\", \"h\")"
    );
    assert_eq!(
        whole(json!({"seLinuxOptions": {"type": "t", "user": "u", "role": "r"}})),
        "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"t\"; user may not be set; role may not be set)"
    );
    assert_eq!(
        one(json!({"seccompProfile": {"type": "Unconfined"}})),
        "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")"
    );
    assert_eq!(whole(json!({"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]})), "forbidden sysctls (kernel.msgmax)");
    assert_eq!(
        baseline(
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}, "containers": [{"name": "a", "securityContext": {"windowsOptions": {"hostProcess": true}}}]})
        ),
        "hostProcess (pod and container \"a\" must not set securityContext.windowsOptions.hostProcess=true)"
    );
    let annotated = json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}},
        "spec": {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}});
    assert_eq!(
        found(Level::Baseline, Version::Latest, &annotated),
        "forbidden AppArmor profiles (pod and annotation must not set AppArmor profile type to \"Unconfined\", \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")"
    );
}

#[test]
fn versions_differ() {
    let at = |minor: u32, spec: Value| found(Level::Baseline, Version::Minor(minor), &json!({"spec": spec}));
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
    assert_eq!((at(31, sysctl.clone()).as_str(), at(32, sysctl).as_str()), ("forbidden sysctls (net.ipv4.tcp_rmem)", ""));
    let probe = json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]});
    assert_eq!(at(33, probe.clone()), "");
    assert_ne!(at(34, probe), "");
    let unmasked = json!({"hostUsers": false, "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]});
    assert_ne!(at(34, unmasked.clone()), "");
    assert_eq!(at(35, unmasked.clone()), "");
    assert!(restricted(unmasked).starts_with("allowPrivilegeEscalation != false"), "restricted forbids it in its own place");
    let engine = json!({"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}});
    assert_ne!(at(30, engine.clone()), "");
    assert_eq!(at(31, engine), "");
    let annotated = json!({"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}, "spec": {}});
    assert_eq!(
        found(Level::Baseline, Version::Minor(18), &annotated),
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"
    );
    assert_eq!(found(Level::Baseline, Version::Minor(19), &annotated), "");
}

#[test]
fn what_restricted_forbids() {
    assert_eq!(restricted(good(json!({"securityContext": {"runAsUser": 0}}))), "runAsUser=0 (container \"a\" must not set runAsUser=0)");
    assert_eq!(
        restricted(good(json!({"securityContext": {"runAsNonRoot": false}}))),
        "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)"
    );
    assert_eq!(
        restricted(good(json!({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN"]}}}))),
        "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)"
    );
    let mut volumes = good(json!({}));
    volumes["volumes"] = json!([{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}, {"name": "x", "secret": {}}]);
    assert_eq!(restricted(volumes), "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")");
    let mut root = good(json!({"securityContext": {"runAsUser": 0, "runAsNonRoot": false}}));
    root["hostUsers"] = json!(false);
    assert_eq!(restricted(root), "", "root in a user namespace is nobody outside");
    let mut windows = json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]});
    assert_eq!(restricted(windows.clone()), "");
    windows["os"]["name"] = json!("linux");
    assert_ne!(restricted(windows), "");
}

#[test]
fn labels_are_read_as_upstream_reads_them() {
    let of = |labels: Value| Policy::of(|name| labels[name].as_str().map(str::to_string));
    let label = |mode: &str| format!("pod-security.kubernetes.io/{mode}");
    assert!(of(json!({})).is_privileged());
    let policy = of(json!({label("enforce"): "restricted", label("enforce-version"): "v1.30"}));
    assert_eq!(
        (policy.enforce.to_string(), policy.warn.to_string(), policy.audit.to_string()),
        ("restricted:v1.30".into(), "restricted:v1.30".into(), "privileged:latest".into())
    );
    let policy = of(json!({label("enforce"): "baseline", label("warn"): "privileged"}));
    assert_eq!(policy.warn.level, Level::Privileged, "who does not want warnings gets none");
    let policy = of(json!({label("enforce"): "strict", label("warn-version"): "v1.08", label("audit"): "x"}));
    assert_eq!((policy.enforce.level, policy.audit.level, policy.warn.level), (Level::Restricted, Level::Privileged, Level::Privileged));
    let lines: Vec<String> = policy.wrong.iter().map(|cause| cause.line()).collect();
    assert_eq!(
        lines,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"x\": must be one of privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.08\": must be \"latest\" or \"v1.x\"",
        ]
    );
}

#[test]
fn only_containers_and_images_are_significant() {
    let pod = |image: &str| json!({"spec": {"containers": [{"name": "a", "image": image}]}});
    assert!(!is_significant(&pod("x"), &pod("x")) && is_significant(&pod("x"), &pod("y")));
    let mut debugged = pod("x");
    debugged["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "i"}]);
    assert!(is_significant(&pod("x"), &debugged) && !is_significant(&debugged, &debugged));
}
