//! The standard as a table: which checks a level of which version has (`pod-security-admission/policy`, as of Kubernetes 1.36).

use super::{
    level::{At, Level, Version},
    rules::{self, Pod, Violation},
};

type Rule = fn(&Pod<'_>) -> Option<Violation>;

struct Check {
    id: &'static str,
    /// The first minor version of each of its forms, oldest first.
    forms: &'static [(u32, Rule)],
    /// A check of the level below that it takes the place of.
    instead_of: &'static str,
}

const fn check(id: &'static str, forms: &'static [(u32, Rule)], instead_of: &'static str) -> Check {
    Check { id, forms, instead_of }
}

/// By name, which is the order of their messages.
const BASELINE: &[Check] = &[
    check("appArmorProfile", &[(0, rules::app_armor)], ""),
    check("capabilities_baseline", &[(0, rules::capabilities_baseline)], ""),
    check("hostNamespaces", &[(0, rules::host_namespaces)], ""),
    check("hostPathVolumes", &[(0, rules::host_path_volumes)], ""),
    check("hostPorts", &[(0, rules::host_ports)], ""),
    check("hostProbesAndHostLifecycle", &[(34, rules::host_probes)], ""),
    check("privileged", &[(0, rules::privileged)], ""),
    check("procMount", &[(0, rules::proc_mount), (35, rules::proc_mount_outside_user_namespaces)], ""),
    check("seLinuxOptions", &[(0, rules::selinux), (31, rules::selinux_31)], ""),
    check("seccompProfile_baseline", &[(0, rules::seccomp_annotations), (19, rules::seccomp_baseline)], ""),
    check("sysctls", &[(0, rules::sysctls), (27, rules::sysctls_27), (29, rules::sysctls_29), (32, rules::sysctls_32)], ""),
    check("windowsHostProcess", &[(0, rules::host_process)], ""),
];

const RESTRICTED: &[Check] = &[
    check("allowPrivilegeEscalation", &[(8, rules::privilege_escalation), (25, rules::privilege_escalation_25)], ""),
    check("capabilities_restricted", &[(22, rules::capabilities_restricted), (25, rules::capabilities_restricted_25)], "capabilities_baseline"),
    check("procMount_restricted", &[(35, rules::proc_mount)], "procMount"),
    check("restrictedVolumes", &[(0, rules::restricted_volumes)], "hostPathVolumes"),
    check("runAsNonRoot", &[(0, rules::run_as_non_root), (35, rules::run_as_non_root_35)], ""),
    check("runAsUser", &[(23, rules::run_as_user), (35, rules::run_as_user_35)], ""),
    check("seccompProfile_restricted", &[(19, rules::seccomp_restricted), (25, rules::seccomp_restricted_25)], "seccompProfile_baseline"),
];

impl Check {
    fn rule(&self, version: Version) -> Option<Rule> {
        self.forms.iter().rev().find(|(minor, _)| Version::Minor(*minor) <= version).map(|(_, rule)| *rule)
    }
}

/// What about a pod a level forbids.
pub(super) fn violations(at: At, pod: &Pod<'_>) -> Vec<Violation> {
    let restricted: &[Check] = if at.level == Level::Restricted { RESTRICTED } else { &[] };
    let baseline: &[Check] = if at.level == Level::Privileged { &[] } else { BASELINE };
    let replaced = |id: &str| restricted.iter().any(|check| check.instead_of == id && check.rule(at.version).is_some());
    let rules = baseline.iter().filter(|check| !replaced(check.id)).chain(restricted).filter_map(|check| check.rule(at.version));
    rules.filter_map(|rule| rule(pod)).collect()
}

/// `host namespaces, privileged`
pub(super) fn reason(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason).collect::<Vec<_>>().join(", ")
}

/// `host namespaces (hostPID=true), privileged (container "a" must not …)`
pub(super) fn detail(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("{} ({})", violation.reason, violation.detail)).collect::<Vec<_>>().join(", ")
}
