//! Sources of storage that pods (inline) and persistent volumes share: mostly fields that each cannot do without.

use super::secret_reference;
use crate::resources::rules::{At, Causes, syntax};
use coracle_api::names;
use serde_json::Value;

/// Who names the source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// A volume of a pod.
    Pod,
    /// A persistent volume of this name.
    Persistent(&'a str),
}

/// Kind of source → fields it cannot do without.
const REQUIRED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("hostPath", &["path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("local", &["path"]),
    ("nfs", &["server", "path"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];

/// The source of this kind at this place.
pub fn check(kind: &str, at: &At<'_, '_>, owner: Owner<'_>, causes: &mut Causes) {
    let before = causes.len();
    for field in REQUIRED.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, fields)| fields) {
        at.field(field).required(causes, "");
    }
    let whole = causes.len() == before;
    let persistent = owner != Owner::Pod;
    match kind {
        "hostPath" if whole => {
            at.field("path").syntax(causes, syntax::no_backsteps);
            at.field("type").one_of(causes, &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"]);
        }
        "local" if whole => at.field("path").syntax(causes, syntax::no_backsteps),
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let partition = at.field("partition");
            if partition.int().is_some_and(|n| !(0..=255).contains(&n)) {
                partition.invalid(causes, "must be between 0 and 255, inclusive");
            }
        }
        "gitRepo" => at.field("directory").optional_syntax(causes, syntax::descending_path),
        "nfs" => {
            let path = at.field("path");
            if !path.text().starts_with('/') {
                path.invalid(causes, "must be an absolute path");
            }
        }
        "glusterfs" if persistent => {
            let namespace = at.field("endpointsNamespace");
            if namespace.is_set() && namespace.is_empty() {
                namespace.invalid(causes, "if the endpointnamespace is set, it must be a valid namespace name");
            }
            namespace.optional_syntax(causes, names::dns_label);
        }
        "azureFile" if persistent => {
            let namespace = at.field("secretNamespace");
            if namespace.is_set() {
                namespace.required(causes, "");
            }
        }
        "cinder" => secret_of(at, persistent, causes),
        "iscsi" => iscsi(at, owner, causes),
        "fc" => fibre_channel(at, causes),
        "flocker" => flocker(at, causes),
        "quobyte" => quobyte(at, causes),
        "flexVolume" => flex(at, causes),
        "azureDisk" => azure_disk(at, causes),
        "storageos" => storage_os(at, persistent, causes),
        "csi" => csi(at, persistent, causes),
        _ => {}
    }
}

/// Where upstream reports mistakes of a source: two of them under another name than the field's.
pub fn place(kind: &str) -> &str {
    if kind == "gcePersistentDisk" { "persistentDisk" } else { kind }
}

/// As [`place`], of a second source.
pub fn second_place(kind: &str) -> &str {
    if kind == "cephfs" { "cephFS" } else { kind }
}

fn secret_of(at: &At<'_, '_>, persistent: bool, causes: &mut Causes) {
    let secret = at.field("secretRef");
    if secret.is_set() {
        secret.field("name").required(causes, "");
        if persistent {
            secret.field("namespace").required(causes, "");
        }
    }
}

/// `iqn.2026-01.com.example:x`, `eui.` and 16 or `naa.` and 32 letters or digits.
fn initiator(name: &str) -> bool {
    let exact = |rest: &str, length: usize| rest.chars().count() == length + 1 && rest.chars().skip(1).all(|c| c.is_ascii_alphanumeric());
    if let Some(rest) = name.strip_prefix("iqn.") {
        let bytes = rest.as_bytes();
        let date = bytes.len() > 8
            && bytes.iter().take(8).enumerate().all(|(at, c)| match at {
                4 => *c == b'-',
                7 => *c == b'.',
                _ => c.is_ascii_digit(),
            });
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        return date
            && rest.get(8..).and_then(|rest| rest.split_once(':')).is_some_and(|(authority, own)| {
                !authority.is_empty()
                    && authority.chars().all(good)
                    && !own.is_empty()
                    && !own.contains(|c: char| c.is_whitespace() || ",;*&$|".contains(c))
            });
    }
    name.strip_prefix("eui").is_some_and(|rest| exact(rest, 16)) || name.strip_prefix("naa").is_some_and(|rest| exact(rest, 32))
}

fn iscsi(at: &At<'_, '_>, owner: Owner<'_>, causes: &mut Causes) {
    let (portal, iqn, initiator_name) = (at.field("targetPortal"), at.field("iqn"), at.field("initiatorName"));
    // Upstream writes these two places in lower case.
    let shown = at.field("initiatorname");
    let shown = shown.with(initiator_name.value);
    if let Owner::Persistent(name) = owner
        && initiator_name.is_set()
        && name.len() + 1 + portal.text().len() > 64
    {
        let place = at.field("targetportal");
        place
            .with(portal.value)
            .invalid(causes, "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.");
    }
    for place in [iqn, shown] {
        let text = place.text();
        if !place.is_set() || text.is_empty() || initiator(text) {
            continue;
        }
        let known = ["iqn", "eui", "naa"].iter().any(|prefix| text.starts_with(prefix));
        let why = if known || owner != Owner::Pod { "must be valid format" } else { "must be valid format starting with iqn, eui, or naa" };
        place.invalid(causes, why);
    }
    let lun = at.field("lun");
    if lun.int().is_some_and(|lun| !(0..=255).contains(&lun)) {
        lun.invalid(causes, "must be between 0 and 255, inclusive");
    }
    let secret = at.field("secretRef");
    if (at.field("chapAuthDiscovery").is_true() || at.field("chapAuthSession").is_true()) && !secret.is_set() {
        secret.missing(causes, "");
    }
    if secret.is_set() && owner != Owner::Pod {
        secret.field("name").required(causes, "");
    }
}

fn fibre_channel(at: &At<'_, '_>, causes: &mut Causes) {
    let (wwns, wwids, lun) = (at.field("targetWWNs"), at.field("wwids"), at.field("lun"));
    match (wwns.is_empty(), wwids.is_empty()) {
        (true, true) => wwns.missing(causes, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => wwns.invalid(causes, "targetWWNs and wwids can not be specified simultaneously"),
        _ => {}
    }
    if !wwns.is_empty() {
        match lun.int() {
            None => lun.missing(causes, "lun is required if targetWWNs is specified"),
            Some(0..=255) => {}
            Some(_) => lun.invalid(causes, "must be between 0 and 255, inclusive"),
        }
    }
}

fn flocker(at: &At<'_, '_>, causes: &mut Causes) {
    let (name, uuid) = (at.field("datasetName"), at.field("datasetUUID"));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => at.missing(causes, "one of datasetName and datasetUUID is required"),
        (false, false) => at.invalid_value(causes, "resource", "datasetName and datasetUUID can not be specified simultaneously"),
        _ => {}
    }
    if name.text().contains('/') {
        name.invalid(causes, "must not contain '/'");
    }
}

fn quobyte(at: &At<'_, '_>, causes: &mut Causes) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (at.field("registry"), at.field("tenant"));
    if registry.is_empty() {
        registry.missing(causes, PAIRS);
    } else if tenant.len() >= 65 {
        tenant.missing(causes, "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for pair in registry.text().split(',') {
            let host = pair.rsplit_once(':').map(|(host, _)| host);
            if host.is_none_or(|host| host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
                registry.invalid(causes, PAIRS);
            }
        }
    }
    at.field("volume").required(causes, "");
}

fn flex(at: &At<'_, '_>, causes: &mut Causes) {
    let options = at.field("options");
    for (key, option) in options.entries() {
        let domain = format!(".{}", key.split_once('/').map_or(key, |(domain, _)| domain).to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            option.invalid_value(causes, key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn azure_disk(at: &At<'_, '_>, causes: &mut Causes) {
    at.field("cachingMode").one_of(causes, &["None", "ReadOnly", "ReadWrite"]);
    let (kind, uri) = (at.field("kind"), at.field("diskURI"));
    kind.one_of(causes, &["Dedicated", "Managed", "Shared"]);
    match kind.value.as_str() {
        Some("Managed") if !uri.text().starts_with("/subscriptions/") => {
            uri.unsupported(causes, &["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"]);
        }
        Some(kind) if kind != "Managed" && !uri.text().starts_with("https://") => {
            uri.unsupported(causes, &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"]);
        }
        _ => {}
    }
}

fn storage_os(at: &At<'_, '_>, persistent: bool, causes: &mut Causes) {
    let name = at.field("volumeName");
    if name.required(causes, "") {
        name.syntax(causes, names::dns_label);
    }
    at.field("volumeNamespace").optional_syntax(causes, names::dns_label);
    secret_of(at, persistent, causes);
}

/// Name of a CSI driver.
pub fn driver_name(at: &At<'_, '_>, causes: &mut Causes) {
    if !at.required(causes, "") {
        return;
    }
    if at.len() > 63 {
        at.too_long(causes, 63);
    }
    at.syntax(causes, |name| names::dns_subdomain(&name.to_lowercase()));
}

fn csi(at: &At<'_, '_>, persistent: bool, causes: &mut Causes) {
    driver_name(&at.field("driver"), causes);
    if !persistent {
        let secret = at.field("nodePublishSecretRef");
        let name = secret.field("name");
        if secret.is_set() && name.required(causes, "") {
            // Upstream names this place without the reference.
            let place = at.field("name");
            place.with(name.value).syntax(causes, names::dns_subdomain);
        }
        return;
    }
    at.field("volumeHandle").required(causes, "");
    for secret in ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"] {
        secret_reference(&at.field(secret), causes);
    }
}

/// Whether a value is there at all, for sources whose every field may be absent (`emptyDir: {}`).
pub fn is_given(spec: &Value, kind: &str) -> bool {
    spec.get(kind).is_some_and(|source| !source.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(kind: &str, owner: Owner<'_>, source: Value) -> Vec<String> {
        let mut causes = Vec::new();
        let whole = json!({ kind: source });
        let root = At::root(&whole);
        check(kind, &root.field(kind), owner, &mut causes);
        lines(&causes)
    }

    #[test]
    fn every_source_says_what_it_lacks() {
        let volume = Owner::Persistent("v");
        for (kind, source, want) in [
            ("rbd", json!({}), vec!["rbd.monitors: Required value", "rbd.image: Required value"]),
            ("hostPath", json!({"path": "/a/../b"}), vec!["hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"]),
            ("hostPath", json!({}), vec!["hostPath.path: Required value"]),
            ("nfs", json!({"server": "s", "path": "p"}), vec!["nfs.path: Invalid value: \"p\": must be an absolute path"]),
            ("fc", json!({}), vec!["fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"]),
            ("fc", json!({"targetWWNs": ["a"]}), vec!["fc.lun: Required value: lun is required if targetWWNs is specified"]),
            ("flocker", json!({}), vec!["flocker: Required value: one of datasetName and datasetUUID is required"]),
            (
                "flexVolume",
                json!({"driver": "d", "options": {"a.k8s.io/x": "1"}}),
                vec!["flexVolume.options[a.k8s.io/x]: Invalid value: \"a.k8s.io/x\": kubernetes.io and k8s.io namespaces are reserved"],
            ),
            (
                "azureDisk",
                json!({"diskName": "d", "diskURI": "u", "kind": "Managed"}),
                vec![
                    "azureDisk.diskURI: Unsupported value: \"u\": supported values: \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\"",
                ],
            ),
            ("csi", json!({"driver": "d"}), vec!["csi.volumeHandle: Required value"]),
            (
                "csi",
                json!({"driver": "d", "volumeHandle": "h", "nodeExpandSecretRef": {"name": "n"}}),
                vec!["csi.nodeExpandSecretRef.namespace: Required value"],
            ),
            (
                "quobyte",
                json!({"registry": "a", "volume": "v"}),
                vec!["quobyte.registry: Invalid value: \"a\": must be a host:port pair or multiple pairs separated by commas"],
            ),
            (
                "iscsi",
                json!({"targetPortal": "p", "iqn": "iqn.2026-01.com.example:x", "lun": 300}),
                vec!["iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive"],
            ),
            ("iscsi", json!({"targetPortal": "p", "iqn": "eui.0123456789abcdef"}), vec![]),
            ("iscsi", json!({"targetPortal": "p", "iqn": "xyz"}), vec!["iscsi.iqn: Invalid value: \"xyz\": must be valid format"]),
            ("portworxVolume", json!({"volumeID": "x"}), vec![]),
        ] {
            assert_eq!(wrong(kind, volume, source), want, "{kind}");
        }
        assert_eq!(wrong("csi", Owner::Pod, json!({"driver": "d"})), Vec::<String>::new());
        assert_eq!(
            wrong("iscsi", Owner::Pod, json!({"targetPortal": "p", "iqn": "xyz"})),
            ["iscsi.iqn: Invalid value: \"xyz\": must be valid format starting with iqn, eui, or naa"]
        );
    }
}
