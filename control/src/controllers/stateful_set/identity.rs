//! Who a pod of a StatefulSet is: its number, the names that follow from it, and how it is made.

use super::StatefulSet;
use crate::controllers::history::{REVISION_LABEL, Revision};
use coracle_apiserver::view::{Meta, Owner, pod::named_from_template};
use serde_json::{Value, json};

/// The label that holds a pod's own name.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label that holds a pod's number.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The set's name and the number in a pod's name (`web-3`).
pub fn parts(pod: &str) -> Option<(&str, i64)> {
    let (parent, number) = pod.rsplit_once('-')?;
    let digits = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
    Some((parent, number.parse::<i32>().ok().filter(|_| digits)?.into()))
}

/// The number of a pod of this set.
pub fn ordinal(set: &str, pod: &str) -> Option<i64> {
    parts(pod).filter(|(parent, _)| *parent == set).map(|(_, number)| number)
}

/// Whether a pod says of itself who it is.
pub fn matches(meta: &Meta<'_>) -> bool {
    meta.labels.get(POD_NAME).is_some_and(|name| **name == *meta.name)
}

/// The labels that say who a pod is.
pub fn labels(pod: &str, ordinal: i64) -> Value {
    json!({ POD_NAME: pod, POD_INDEX: ordinal.to_string() })
}

/// The name of the claim that a pod has from a claim template.
pub fn claim_name(template: &str, set: &str, ordinal: i64) -> String {
    format!("{template}-{set}-{ordinal}")
}

/// The pod of this number, made from a revision.
pub fn pod(set: &StatefulSet<'_>, owner: &Owner<'_>, revision: &Revision, ordinal: i64) -> Value {
    let meta = &set.metadata;
    let name = format!("{}-{ordinal}", meta.name);
    let mut pod = named_from_template(&revision.template(), &meta.namespace, &name, owner);
    for (label, value) in [(POD_NAME, json!(name)), (POD_INDEX, json!(ordinal.to_string())), (REVISION_LABEL, json!(revision.name))] {
        pod["metadata"]["labels"][label] = value;
    }
    pod["spec"]["hostname"] = json!(name);
    if let Some(spec) = pod["spec"].as_object_mut() {
        match &*set.spec.service_name {
            "" => drop(spec.remove("subdomain")),
            service => drop(spec.insert("subdomain".to_owned(), json!(service))),
        }
    }
    let templates: Vec<&str> = set.claim_templates().collect();
    if !templates.is_empty() {
        let claims = templates
            .iter()
            .map(|template| json!({ "name": template, "persistentVolumeClaim": { "claimName": claim_name(template, &meta.name, ordinal) } }));
        let own = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let own = own.into_iter().filter(|volume| !templates.iter().any(|template| volume["name"] == **template));
        pod["spec"]["volumes"] = claims.chain(own).collect();
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_names() {
        for (pod, expected) in
            [("web-0", Some(0)), ("web-12", Some(12)), ("web", None), ("web-x", None), ("web-", None), ("other-1", None), ("web-99999999999", None)]
        {
            assert_eq!(ordinal("web", pod), expected, "{pod}");
        }
        assert_eq!(ordinal("a-1", "a-1-2"), Some(2));
        assert_eq!(ordinal("a", "a-1-2"), None);
    }

    #[test]
    fn a_pod_knows_its_name_its_number_and_its_claims() {
        let set = json!({ "metadata": { "name": "web", "namespace": "n" },
            "spec": { "serviceName": "svc", "volumeClaimTemplates": [{ "metadata": { "name": "data" } }] } })
        .to_string();
        let set: StatefulSet<'_> = serde_json::from_str(&set).expect("a set");
        let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [],
            "hostname": "x", "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} }] } });
        let revision = Revision::of("web-abc", 1, &template);
        let pod = pod(&set, &Owner::default(), &revision, 3);
        assert_eq!((&pod["metadata"]["name"], &pod["metadata"].get("generateName")), (&json!("web-3"), &None));
        assert_eq!(pod["metadata"]["labels"], json!({ "app": "web", POD_NAME: "web-3", POD_INDEX: "3", "controller-revision-hash": "web-abc" }));
        assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("web-3"), &json!("svc")));
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data-web-3" } }, { "name": "tmp", "emptyDir": {} }])
        );
    }
}
