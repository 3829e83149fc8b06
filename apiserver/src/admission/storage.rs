//! Storage: claims get the default class (DefaultStorageClass), what may be in use is held by a finalizer (StorageObjectInUseProtection), and a claim only grows
//! where its class lets it (PersistentVolumeClaimResize).

use super::{Plugin, lookup};
use crate::resources::{Cx, cells::list, volume};
use coracle_api::{quantity::Quantity, status::Status};
use coracle_store::Object;
use serde_json::Value;
use std::{cmp::Reverse, sync::Arc};

/// DefaultStorageClass.
pub struct DefaultStorageClass;
/// StorageObjectInUseProtection.
pub struct StorageObjectInUseProtection;
/// PersistentVolumeClaimResize.
pub struct PersistentVolumeClaimResize;

const CLASSES: &str = "storageclasses.storage.k8s.io";

/// Resource → the finalizer that the controller of volume protection takes away.
pub const FINALIZERS: &[(&str, &str)] = &[
    ("persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("persistentvolumes", "kubernetes.io/pv-protection"),
    ("volumeattributesclasses.storage.k8s.io", "kubernetes.io/vac-protection"),
];

fn is_claim(cx: &Cx<'_>) -> bool {
    cx.row().id() == "persistentvolumeclaims" && cx.subresource().is_empty()
}

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }
    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        let classed = new["spec"]["storageClassName"].is_string() || new["metadata"]["annotations"][volume::BETA_CLASS].is_string();
        if old.is_some() || classed || !is_claim(cx) {
            return Ok(());
        }
        const MARKS: &[&str] = &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
        if let Some(class) = default_of(cx, CLASSES, MARKS) {
            new["spec"]["storageClassName"] = class.into();
        }
        Ok(())
    }
}

/// The class that an annotation marks as the default: the newest, then the first by name.
pub(super) fn default_of(cx: &Cx<'_>, resource: &str, marks: &[&str]) -> Option<String> {
    let read = |object: &Arc<Object>| serde_json::from_slice::<Value>(&object.json).ok();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let marked = |class: &Value| marks.iter().any(|mark| class["metadata"]["annotations"][*mark] == "true");
    let found = cx.snapshot.range(resource, None, None).filter_map(read).filter(marked);
    let metadata = found.map(|class| (Reverse(text(&class["metadata"]["creationTimestamp"])), text(&class["metadata"]["name"])));
    metadata.min().map(|(_, name)| name)
}

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }
    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        if old.is_some() || !cx.subresource().is_empty() {
            return Ok(());
        }
        let id = cx.row().id();
        let Some((_, finalizer)) = FINALIZERS.iter().find(|(resource, _)| *resource == id) else { return Ok(()) };
        if !list(&new["metadata"]["finalizers"]).iter().any(|held| held == finalizer)
            && let Some(finalizers) = lookup::list(&mut new["metadata"], "finalizers")
        {
            finalizers.push((*finalizer).into());
        }
        Ok(())
    }
}

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
        if !is_claim(cx) || asked(new) <= asked(old) {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(lookup::forbidden(cx, new, "Only bound persistent volume claims can be expanded"));
        }
        let (before, class) = (volume::class_of(old), volume::class_of(new));
        let may = !class.is_empty() && class == before && lookup::object(cx, CLASSES, "", class)?.is_some_and(|c| c["allowVolumeExpansion"] == true);
        match may {
            true => Ok(()),
            false => {
                let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
                Err(lookup::forbidden(cx, new, why))
            }
        }
    }
}

fn asked(claim: &Value) -> Quantity {
    let text = claim.pointer("/spec/resources/requests/storage").and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or(Quantity::ZERO)
}
