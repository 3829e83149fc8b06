//! The objects every cluster has from its first moment: the system namespaces.

use crate::client::Client;
use coracle_api::status::Status;
use serde_json::json;

const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// Makes what is missing; safe at every start.
pub async fn run(client: &Client) -> Result<(), Status> {
    for name in NAMESPACES {
        if client.get("namespaces", "", name).is_some() {
            continue;
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        match client.create("namespaces", "", namespace).await {
            Err(status) if status.reason != "AlreadyExists" => return Err(status),
            _ => {}
        }
    }
    Ok(())
}
