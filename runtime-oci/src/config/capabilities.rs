//! Linux capabilities of a container: containerd's defaults, plus `add`, minus `drop`.

use coracle_runtime::Security;
use std::{
    collections::{BTreeSet, HashSet},
    fs,
};

/// All of them, by number (linux/capability.h).
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The names, as `CAP_…`, sorted. What this process has not itself (`have`) cannot be given.
///
/// On version 2 of control groups no rule keeps a made device from being opened, so nobody but a privileged container may make one.
pub fn of(security: &Security, unified: bool, have: &HashSet<String>) -> Vec<String> {
    let plain = |name: &str| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_").map_or(name.clone(), str::to_owned)
    };
    let has = |list: &[String], wanted: &str| list.iter().any(|name| plain(name) == wanted);
    let mut set: BTreeSet<String> = match () {
        () if security.privileged || has(&security.add, "ALL") => ALL.iter().map(ToString::to_string).collect(),
        () if has(&security.drop, "ALL") => BTreeSet::new(),
        () => DEFAULT.iter().map(ToString::to_string).collect(),
    };
    if !security.privileged {
        set.extend(security.add.iter().map(|name| plain(name)).filter(|name| name != "ALL"));
        // Kubernetes: what is added by name stays although all are dropped, and nothing else of it.
        let dropped = security.drop.iter().map(|name| plain(name)).filter(|name| name != "ALL");
        for name in dropped {
            set.remove(&name);
        }
        if has(&security.drop, "ALL") && has(&security.add, "ALL") {
            set.retain(|name| has(&security.add, name));
        }
        if unified {
            set.remove("MKNOD");
        }
    }
    set.into_iter().map(|name| format!("CAP_{name}")).filter(|name| have.contains(name)).collect()
}

/// The capabilities that this process may give away.
pub fn own() -> HashSet<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = |key: &str| status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(key)?.trim(), 16).ok()).unwrap_or(0);
    let mask = bits("CapPrm:") & bits("CapBnd:");
    ALL.iter().enumerate().filter(|(number, _)| mask & (1 << number) != 0).map(|(_, name)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(add: &[&str], drop: &[&str], privileged: bool, unified: bool) -> Vec<String> {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let have = ALL.iter().filter(|name| **name != "SYS_RESOURCE").map(|name| format!("CAP_{name}")).collect();
        of(&Security { add: list(add), drop: list(drop), privileged, ..Security::default() }, unified, &have)
    }

    #[test]
    fn added_dropped_and_all() {
        assert_eq!(names(&[], &[], false, false).len(), DEFAULT.len());
        assert_eq!(names(&[], &["ALL"], false, false), Vec::<String>::new());
        assert_eq!(names(&["net_bind_service"], &["ALL"], false, false), ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(names(&["CAP_SYS_TIME"], &["MKNOD"], false, false).len(), DEFAULT.len());
        assert_eq!(names(&["ALL"], &[], false, false).len(), ALL.len() - 1, "what we have not is not given");
        assert!(!names(&["ALL"], &["SYS_ADMIN"], false, false).contains(&"CAP_SYS_ADMIN".to_owned()));
        assert_eq!(names(&[], &["ALL"], true, true).len(), ALL.len() - 1);
    }

    #[test]
    fn devices_are_not_made_where_no_rule_guards_them() {
        assert!(names(&[], &[], false, false).contains(&"CAP_MKNOD".to_owned()));
        assert!(!names(&["ALL", "MKNOD"], &[], false, true).contains(&"CAP_MKNOD".to_owned()));
    }
}
