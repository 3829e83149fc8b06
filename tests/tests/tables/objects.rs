//! One object of every kind, made by no controller and changed by none.

use coracle_tests::{Cluster, Result};

const OBJECTS: &str = include_str!("objects.yaml");
const BOAT: &str =
    "apiVersion: example.com/v1\nkind: Boat\nmetadata: {name: coracle, namespace: tables, labels: {table: 'yes'}}\nspec: {oars: 1, length: 1.5m}\n";

/// Selects them alone: what controllers make carries the labels of what it is made for.
pub const OURS: &str = "table=yes,!kubernetes.io/service-name,!endpoints.kubernetes.io/managed-by,!endpointslice.kubernetes.io/managed-by";

/// Makes them, in the namespace `tables`; the names of all resources that there are.
pub fn make(cluster: &Cluster) -> Result<Vec<String>> {
    cluster.kubectl_with(&["create", "-f", "-"], OBJECTS)?.ok()?;
    let volume = r#"{"status":{"phase":"Available"}}"#;
    cluster.kubectl(&["patch", "pv", "disk", "--subresource=status", "--type=merge", "-p", volume])?.ok()?;
    let service = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1","ipMode":"VIP"},{"hostname":"lb.example.com"}]}}}"#;
    cluster.kubectl(&["-n", "tables", "patch", "service", "balanced", "--subresource=status", "--type=merge", "-p", service])?.ok()?;
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/boats.example.com", "--timeout=30s"])?.ok()?;
    cluster.apply(BOAT)?;
    cluster.kubectl(&["label", "apiservice", "v1.apps", "table=yes"])?.ok()?;
    let names = cluster.kubectl(&["api-resources", "--verbs=create,list", "-o", "name"])?.ok()?;
    Ok(names.lines().filter(|name| !name.is_empty()).map(str::to_string).collect())
}
