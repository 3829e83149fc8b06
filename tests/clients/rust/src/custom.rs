//! Kinds of one's own, derived and discovered, and leases as locks.

use super::{namespace, refusal, soon};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::ConfigMap,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, CustomResource, CustomResourceExt as _, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    discovery::{Discovery, Scope, verbs},
    runtime::wait::{await_condition, conditions, delete::delete_and_finalize},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A boat of a small fleet.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "boats.example.com",
    version = "v1",
    kind = "Boat",
    namespaced,
    status = "BoatStatus",
    shortname = "bo",
    category = "fleet",
    scale(spec_replicas_path = ".spec.oars", status_replicas_path = ".status.oars", label_selector_path = ".status.selector"),
    printcolumn(name = "Oars", type_ = "integer", json_path = ".spec.oars"),
    selectable = ".spec.material"
)]
struct BoatSpec {
    /// What it is made of.
    material: Material,
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 8))]
    oars: i32,
    name: Option<String>,
}

/// What boats are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
enum Material {
    Willow,
    Hide,
}

/// What is seen of a boat.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct BoatStatus {
    #[serde(default)]
    oars: i32,
    #[serde(default)]
    selector: String,
}

fn two() -> i32 {
    2
}

pub async fn custom_resources(client: Client) -> Result<()> {
    let ns = namespace(&client, "kube-rs-custom").await?;
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions.create(&PostParams::default(), &Boat::crd()).await?;
    soon("the kind", await_condition(definitions.clone(), "boats.boats.example.com", conditions::is_crd_established())).await?;
    let boats = Api::<Boat>::namespaced(client.clone(), &ns);

    let boat = Boat::new("one", BoatSpec { material: Material::Willow, oars: 3, name: None });
    let made = boats.create(&PostParams::default(), &boat).await?;
    ensure!(made.metadata.generation == Some(1) && made.spec.oars == 3 && made.status.is_none(), "{made:?}");
    let seen = json!({"status": {"oars": 3, "selector": "boat=one"}, "spec": {"oars": 4}});
    let made = boats.patch_status("one", &PatchParams::default(), &Patch::Merge(seen)).await?;
    ensure!(made.spec.oars == 3 && made.metadata.generation == Some(1) && made.status.is_some_and(|status| status.oars == 3));
    let scale = boats.patch_scale("one", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 5}}))).await?;
    ensure!(scale.status.is_some_and(|status| status.replicas == 3 && status.selector.as_deref() == Some("boat=one")));
    let made = boats.get("one").await?;
    ensure!(made.spec.oars == 5 && made.metadata.generation == Some(2));

    let refused = refusal(boats.create(&PostParams::default(), &Boat::new("two", BoatSpec { oars: 9, ..boat.spec.clone() })).await)?;
    ensure!(refused.is_invalid() && refused.message.contains("spec.oars"), "{refused:?}");
    boats.create(&PostParams::default(), &Boat::new("two", BoatSpec { material: Material::Hide, ..boat.spec })).await?;
    let hides = boats.list(&ListParams::default().fields("spec.material=Hide")).await?;
    ensure!(hides.items.len() == 1 && hides.items[0].name_any() == "two", "a selectable field selects");

    discovered(&client, &ns).await?;
    let all = DeleteParams::default();
    soon("the kind goes with its objects", delete_and_finalize(definitions, "boats.boats.example.com", &all)).await?;
    ensure!(refusal(boats.get("one").await)?.code == 404);
    Ok(())
}

/// The same objects without their type, by discovery of both forms.
async fn discovered(client: &Client, namespace: &str) -> Result<()> {
    let kind = GroupVersionKind::gvk("boats.example.com", "v1", "Boat");
    for discovery in [Discovery::new(client.clone()).run().await?, Discovery::new(client.clone()).run_aggregated().await?] {
        let (resource, capabilities) = discovery.resolve_gvk(&kind).context("the kind is discovered")?;
        ensure!(resource.plural == "boats" && capabilities.scope == Scope::Namespaced && capabilities.supports_operation(verbs::WATCH));
        let mut subresources: Vec<&str> = capabilities.subresources.iter().map(|(resource, _)| resource.plural.as_str()).collect();
        subresources.sort_unstable();
        ensure!(subresources == ["boats/scale", "boats/status"] || subresources == ["scale", "status"], "{subresources:?}");
        ensure!(discovery.get("apps").is_some_and(|group| group.recommended_kind("Deployment").is_some()));
    }
    let resource = ApiResource::from_gvk(&kind);
    let boats = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let boat = boats.get("one").await?;
    ensure!(boat.data["spec"]["material"] == "Willow" && boat.types.is_some_and(|types| types.kind == "Boat"));
    let patch = json!([{"op": "replace", "path": "/spec/oars", "value": 1}, {"op": "test", "path": "/spec/oars", "value": 1}]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch)?);
    let turned = boats.patch("one", &PatchParams::default().dry_run(), &patch).await?;
    ensure!(turned.data["spec"]["oars"] == 1 && boats.get("one").await?.data["spec"]["oars"] == 5, "a dry run leaves no trace");
    Ok(())
}

/// One step of an election as client-go's: take the lease if it is free, by a write that names the version that was read.
async fn campaign(leases: &Api<Lease>, candidate: &str) -> kube::Result<bool> {
    let mut lease = leases.get("crown").await?;
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty()) {
        return Ok(spec.holder_identity.as_deref() == Some(candidate));
    }
    *spec = LeaseSpec {
        holder_identity: Some(candidate.into()),
        lease_duration_seconds: Some(15),
        acquire_time: Some(MicroTime(Timestamp::now())),
        renew_time: Some(MicroTime(Timestamp::now())),
        lease_transitions: Some(spec.lease_transitions.unwrap_or_default() + 1),
        ..LeaseSpec::default()
    };
    match leases.replace("crown", &PostParams::default(), &lease).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

pub async fn leases_elect_one(client: Client) -> Result<()> {
    let ns = namespace(&client, "kube-rs-lease").await?;
    let leases = Api::<Lease>::namespaced(client, &ns);
    let free = Lease { metadata: ObjectMeta { name: Some("crown".into()), ..ObjectMeta::default() }, spec: None };
    leases.create(&PostParams::default(), &free).await?;
    let mut transitions = 0;
    for _ in 0..5 {
        let names: Vec<String> = (0..8).map(|number| format!("candidate-{number}")).collect();
        let won: Vec<bool> = futures::future::try_join_all(names.iter().map(|name| campaign(&leases, name))).await?;
        ensure!(won.iter().filter(|won| **won).count() == 1, "exactly one wins: {won:?}");
        let lease = leases.get("crown").await?;
        let spec = lease.spec.clone().context("spec")?;
        let winner = won.iter().position(|won| *won).map(|index| names[index].clone());
        ensure!(spec.holder_identity == winner && spec.lease_transitions > Some(transitions), "{spec:?}");
        transitions = spec.lease_transitions.unwrap_or_default();
        let left = Lease {
            spec: Some(LeaseSpec { holder_identity: Some(String::new()), lease_transitions: Some(transitions), ..LeaseSpec::default() }),
            ..lease
        };
        leases.replace("crown", &PostParams::default(), &left).await?;
    }
    Ok(())
}

/// Server-side apply: fields have managers, and another's are taken by force alone.
pub async fn applied_fields_have_managers(client: Client) -> Result<()> {
    let ns = namespace(&client, "kube-rs-apply").await?;
    let maps = Api::<ConfigMap>::namespaced(client, &ns);
    let map = |data: serde_json::Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data});
    let (first, second) = (PatchParams::apply("first"), PatchParams::apply("second"));
    let made = maps.patch("applied", &first, &Patch::Apply(map(json!({"a": "1", "b": "1"})))).await?;
    ensure!(made.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some("first") && entry.operation.as_deref() == Some("Apply")));
    let again = maps.patch("applied", &first, &Patch::Apply(map(json!({"a": "1", "b": "1"})))).await?;
    ensure!(again.resource_version() == made.resource_version(), "what is applied again changes nothing");
    let refused = refusal(maps.patch("applied", &second, &Patch::Apply(map(json!({"b": "2"})))).await)?;
    ensure!(refused.code == 409 && refused.message.contains(r#"conflict with "first": .data.b"#), "{refused:?}");
    let taken = maps.patch("applied", &second.force(), &Patch::Apply(map(json!({"b": "2"})))).await?;
    ensure!(taken.data.is_some_and(|data| data["a"] == "1" && data["b"] == "2"));
    // What the first no longer names goes; what the second took stays.
    let left = maps.patch("applied", &first, &Patch::Apply(map(json!({})))).await?;
    let left: Vec<String> = left.data.unwrap_or_default().into_keys().collect();
    ensure!(left == ["b"], "{left:?}");
    Ok(())
}
