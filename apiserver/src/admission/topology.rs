//! PodTopologyLabels: a pod gets the zone and region of the node that it is bound to as labels (KEP-4742).

use super::Plugin;
use crate::{pipeline::metadata, resources::Cx};
use coracle_api::status::Status;
use coracle_store::Key;
use serde_json::{Value, json};

/// The plugin.
pub struct PodTopologyLabels;

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }
    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        if old.is_some() || cx.row().id() != "pods" {
            return Ok(());
        }
        let node = match cx.subresource() {
            "" => &new["spec"]["nodeName"],
            // A binding's labels become the pod's.
            "binding" => &new["target"]["name"],
            _ => return Ok(()),
        };
        let node = node.as_str().filter(|name| !name.is_empty()).and_then(|name| cx.snapshot.get(&Key::new("nodes", "", name)));
        let labels = node.iter().flat_map(|node| &node.meta.labels).filter(|(key, _)| LABELS.contains(&&**key));
        give(new, labels.map(|(key, value)| (&**key, &**value)));
        Ok(())
    }
}

fn give<'l>(object: &mut Value, labels: impl Iterator<Item = (&'l str, &'l str)>) {
    for (key, value) in labels {
        metadata::of(object).entry("labels").or_insert_with(|| json!({}))[key] = value.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_place_win() {
        let mut pod = json!({"metadata": {"labels": {"app": "a", LABELS[1]: "elsewhere"}}});
        give(&mut pod, [(LABELS[1], "here")].into_iter());
        assert_eq!(pod["metadata"]["labels"], json!({"app": "a", LABELS[1]: "here"}));
        let mut binding = json!({"metadata": {"name": "a"}});
        give(&mut binding, std::iter::empty());
        assert_eq!(binding, json!({"metadata": {"name": "a"}}), "nothing is added where there is nothing to say");
    }
}
