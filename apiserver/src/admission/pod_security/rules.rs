//! The checks of the Pod Security Standards, each a question about one pod. Texts are upstream's; a number in a name is the minor version that changed the rule.

use crate::resources::cells::list;
use coracle_api::sysctls::SAFE;
use serde_json::Value;
use std::collections::BTreeSet;

/// What is judged: a pod, or the template of pods.
pub(super) struct Pod<'a> {
    pub annotations: &'a Value,
    pub spec: &'a Value,
}

/// Why a pod is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

type Found = Option<Violation>;

fn violation(reason: &'static str, detail: String) -> Found {
    Some(Violation { reason, detail })
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |name| list(&spec[name]))
    }

    /// Names of the containers for which something holds.
    fn those(&self, holds: impl FnMut(&&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(holds).map(|container| text(&container["name"])).collect()
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    fn has_user_namespace(&self) -> bool {
        self.spec["hostUsers"] == false
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn plural<'t>(one: &'t str, many: &'t str, count: usize) -> &'t str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`
fn quoted<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `containers "a", "b"`
fn named(containers: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", containers.len()), quoted(containers))
}

/// `pod and container "a"`; None when it is neither.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    match (pod, containers.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".into()),
        (false, false) => Some(named(containers)),
        (true, false) => Some(format!("pod and {}", named(containers))),
    }
}

/// Whether the pod sets a profile of another type than the runtime's or the host's own, which of its containers do, and those types.
fn odd_profiles<'a>(pod: &Pod<'a>, field: &str) -> (bool, Vec<&'a str>, BTreeSet<&'a str>) {
    let mut types = BTreeSet::new();
    let mut odd = |context: &'a Value| {
        let profile = &context[field];
        let odd = !profile.is_null() && !matches!(text(&profile["type"]), "RuntimeDefault" | "Localhost");
        types.extend(odd.then(|| text(&profile["type"])));
        odd
    };
    let whole = odd(&pod.spec["securityContext"]);
    let containers = pod.those(|container| odd(&container["securityContext"]));
    (whole, containers, types)
}

pub(super) fn app_armor(pod: &Pod<'_>) -> Found {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let (whole, containers, values) = odd_profiles(pod, "appArmorProfile");
    let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let entries = pod.annotations.as_object().into_iter().flatten();
    let annotations: BTreeSet<String> = entries
        .filter(|(key, value)| key.starts_with(ANNOTATION) && !allowed(text(value)))
        .map(|(key, value)| format!("{key}={:?}", text(value)))
        .collect();
    let mut who: Vec<String> = setters(whole, &containers).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).into());
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len() + annotations.len());
    violation(
        reason,
        format!(
            "{} must not set AppArmor profile type to {}",
            who.join(" and "),
            quoted(values.into_iter().chain(annotations.iter().map(String::as_str)))
        ),
    )
}

/// Names of the containers that add capabilities which are not allowed, and those.
fn adding<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut forbidden = BTreeSet::new();
    let containers = pod.those(|container| {
        let added = list(&container["securityContext"]["capabilities"]["add"]).iter().map(text);
        let bad: Vec<&str> = added.filter(|added| !allowed.contains(added)).collect();
        forbidden.extend(&bad);
        !bad.is_empty()
    });
    (containers, forbidden)
}

fn must_not_include(containers: &[&str], forbidden: &BTreeSet<&str>) -> String {
    format!("{} must not include {} in securityContext.capabilities.add", named(containers), quoted(forbidden))
}

pub(super) fn capabilities_baseline(pod: &Pod<'_>) -> Found {
    const ALLOWED: &[&str] = &[
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (containers, forbidden) = adding(pod, ALLOWED);
    if containers.is_empty() { None } else { violation("non-default capabilities", must_not_include(&containers, &forbidden)) }
}

pub(super) fn capabilities_restricted(pod: &Pod<'_>) -> Found {
    let missing = pod.those(|container| !list(&container["securityContext"]["capabilities"]["drop"]).iter().any(|dropped| dropped == "ALL"));
    let (containers, forbidden) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&missing)));
    }
    if !containers.is_empty() {
        details.push(must_not_include(&containers, &forbidden));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn capabilities_restricted_25(pod: &Pod<'_>) -> Found {
    if pod.is_windows() { None } else { capabilities_restricted(pod) }
}

pub(super) fn host_namespaces(pod: &Pod<'_>) -> Found {
    let set: Vec<String> =
        ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|name| pod.spec[**name] == true).map(|name| format!("{name}=true")).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

pub(super) fn host_path_volumes(pod: &Pod<'_>) -> Found {
    let volumes: Vec<&str> =
        list(&pod.spec["volumes"]).iter().filter(|volume| !volume["hostPath"].is_null()).map(|volume| text(&volume["name"])).collect();
    if volumes.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", volumes.len()), quoted(&volumes)))
}

pub(super) fn host_ports(pod: &Pod<'_>) -> Found {
    let mut ports = BTreeSet::new();
    let containers = pod.those(|container| {
        let used: Vec<String> =
            list(&container["ports"]).iter().filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).map(|p| p.to_string()).collect();
        ports.extend(used.iter().cloned());
        !used.is_empty()
    });
    if containers.is_empty() {
        return None;
    }
    let (uses, what) = (plural("uses", "use", containers.len()), plural("hostPort", "hostPorts", ports.len()));
    violation("hostPort", format!("{} {uses} {what} {}", named(&containers), ports.into_iter().collect::<Vec<_>>().join(", ")))
}

pub(super) fn host_probes(pod: &Pod<'_>) -> Found {
    let (mut containers, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in pod.containers() {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|name| &container[name]);
        let handlers = ["postStart", "preStop"].map(|name| &container["lifecycle"][name]);
        for handler in probes.into_iter().chain(handlers) {
            for host in ["httpGet", "tcpSocket"].map(|name| text(&handler[name]["host"])).into_iter().filter(|host| !host.is_empty()) {
                containers.insert(text(&container["name"]));
                hosts.insert(host);
            }
        }
    }
    if containers.is_empty() {
        return None;
    }
    let containers: Vec<&str> = containers.into_iter().collect();
    let uses = plural("uses", "use", containers.len());
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    violation("probe or lifecycle host", format!("{} {uses} {what} {}", named(&containers), quoted(hosts)))
}

pub(super) fn privileged(pod: &Pod<'_>) -> Found {
    let containers = pod.those(|container| container["securityContext"]["privileged"] == true);
    if containers.is_empty() { None } else { violation("privileged", format!("{} must not set securityContext.privileged=true", named(&containers))) }
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Found {
    let mut kinds = BTreeSet::new();
    let containers = pod.those(|container| {
        let bad = container["securityContext"]["procMount"].as_str().filter(|kind| *kind != "Default");
        kinds.extend(bad);
        bad.is_some()
    });
    if containers.is_empty() {
        return None;
    }
    violation("procMount", format!("{} must not set securityContext.procMount to {}", named(&containers), quoted(kinds)))
}

pub(super) fn proc_mount_outside_user_namespaces(pod: &Pod<'_>) -> Found {
    if pod.has_user_namespace() { None } else { proc_mount(pod) }
}

fn selinux_of(pod: &Pod<'_>, allowed: &[&str]) -> Found {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |context: &Value| {
        let options = &context["seLinuxOptions"];
        let kind = text(&options["type"]);
        let (bad_type, sets_user, sets_role) = (!allowed.contains(&kind), !text(&options["user"]).is_empty(), !text(&options["role"]).is_empty());
        if bad_type {
            types.insert(kind.to_string());
        }
        user |= sets_user;
        role |= sets_role;
        bad_type || sets_user || sets_role
    };
    let whole = bad(&pod.spec["securityContext"]);
    let containers = pod.those(|container| bad(&container["securityContext"]));
    let who = setters(whole, &containers)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if user {
        what.push("user may not be set".into());
    }
    if role {
        what.push("role may not be set".into());
    }
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")))
}

pub(super) fn selinux(pod: &Pod<'_>) -> Found {
    selinux_of(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub(super) fn selinux_31(pod: &Pod<'_>) -> Found {
    selinux_of(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

pub(super) fn seccomp_annotations(pod: &Pod<'_>) -> Found {
    let keys = std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_string())
        .chain(pod.containers().map(|container| format!("container.seccomp.security.alpha.kubernetes.io/{}", text(&container["name"]))));
    let allowed = |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let forbidden: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = pod.annotations[key.as_str()].as_str().filter(|value| !allowed(value))?;
            Some(format!("{key}={value:?}"))
        })
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let what = plural("annotation", "annotations", forbidden.len());
    violation("seccompProfile", format!("forbidden {what} {}", forbidden.into_iter().collect::<Vec<_>>().join(", ")))
}

/// Who sets a profile that is not allowed, whether the pod sets one that is, and which containers set none.
fn seccomp<'a>(pod: &Pod<'a>) -> (Found, bool, Vec<&'a str>) {
    let (whole, containers, values) = odd_profiles(pod, "seccompProfile");
    let unset = pod.those(|container| container["securityContext"]["seccompProfile"].is_null());
    let found = setters(whole, &containers)
        .and_then(|who| violation("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values))));
    (found, !whole && !pod.spec["securityContext"]["seccompProfile"].is_null(), unset)
}

pub(super) fn seccomp_baseline(pod: &Pod<'_>) -> Found {
    seccomp(pod).0
}

pub(super) fn seccomp_restricted(pod: &Pod<'_>) -> Found {
    let (found, whole, unset) = seccomp(pod);
    if found.is_some() || whole || unset.is_empty() {
        return found;
    }
    let detail = format!("pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"", named(&unset));
    violation("seccompProfile", detail)
}

pub(super) fn seccomp_restricted_25(pod: &Pod<'_>) -> Found {
    if pod.is_windows() { None } else { seccomp_restricted(pod) }
}

fn sysctls_of(pod: &Pod<'_>, count: usize) -> Found {
    let set = list(&pod.spec["securityContext"]["sysctls"]).iter().map(|sysctl| text(&sysctl["name"]));
    let forbidden: Vec<&str> = set.filter(|name| !SAFE.iter().take(count).any(|known| known == name)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
}

pub(super) fn sysctls(pod: &Pod<'_>) -> Found {
    sysctls_of(pod, 5)
}

pub(super) fn sysctls_27(pod: &Pod<'_>) -> Found {
    sysctls_of(pod, 6)
}

pub(super) fn sysctls_29(pod: &Pod<'_>) -> Found {
    sysctls_of(pod, 10)
}

pub(super) fn sysctls_32(pod: &Pod<'_>) -> Found {
    sysctls_of(pod, 12)
}

pub(super) fn host_process(pod: &Pod<'_>) -> Found {
    let bad = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let who = setters(bad(&pod.spec["securityContext"]), &pod.those(|container| bad(&container["securityContext"])))?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

pub(super) fn privilege_escalation(pod: &Pod<'_>) -> Found {
    let containers = pod.those(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    if containers.is_empty() {
        return None;
    }
    violation("allowPrivilegeEscalation != false", format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&containers)))
}

pub(super) fn privilege_escalation_25(pod: &Pod<'_>) -> Found {
    if pod.is_windows() { None } else { privilege_escalation(pod) }
}

pub(super) fn restricted_volumes(pod: &Pod<'_>) -> Found {
    const ALLOWED: &[&str] = &["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"];
    let (mut volumes, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in list(&pod.spec["volumes"]) {
        let sources: Vec<&str> = volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).filter(|key| *key != "name").collect();
        if !sources.iter().any(|source| ALLOWED.contains(source)) {
            volumes.push(text(&volume["name"]));
            kinds.insert(sources.first().copied().unwrap_or("unknown"));
        }
    }
    if volumes.is_empty() {
        return None;
    }
    let (count, uses) = (volumes.len(), plural("uses", "use", volumes.len()));
    let what = plural("restricted volume type", "restricted volume types", kinds.len());
    violation("restricted volume types", format!("{} {} {uses} {what} {}", plural("volume", "volumes", count), quoted(&volumes), quoted(kinds)))
}

pub(super) fn run_as_non_root(pod: &Pod<'_>) -> Found {
    const REASON: &str = "runAsNonRoot != true";
    let whole = &pod.spec["securityContext"]["runAsNonRoot"];
    let of = |container: &&Value| container["securityContext"]["runAsNonRoot"].as_bool();
    if let Some(who) = setters(*whole == false, &pod.those(|container| of(container) == Some(false))) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let unset = pod.those(|container| of(container).is_none() && *whole != true);
    if unset.is_empty() { None } else { violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&unset))) }
}

pub(super) fn run_as_non_root_35(pod: &Pod<'_>) -> Found {
    if pod.has_user_namespace() { None } else { run_as_non_root(pod) }
}

pub(super) fn run_as_user(pod: &Pod<'_>) -> Found {
    let root = |context: &Value| context["runAsUser"] == 0;
    let who = setters(root(&pod.spec["securityContext"]), &pod.those(|container| root(&container["securityContext"])))?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

pub(super) fn run_as_user_35(pod: &Pod<'_>) -> Found {
    if pod.has_user_namespace() { None } else { run_as_user(pod) }
}
