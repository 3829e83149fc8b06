//! What decides of a pod's volumes where it may run and what its node may read.

use super::Text;
use serde::Deserialize;

/// `core/v1 Volume`, as far as it decides where a pod goes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume<'a> {
    /// Name in the pod.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// A claim by name.
    pub persistent_volume_claim: Option<ClaimSource<'a>>,
    /// A claim of the pod's own, named after pod and volume.
    pub ephemeral: Option<Ephemeral>,
    /// An image's files.
    pub image: Option<ImageSource<'a>>,
}

/// `core/v1 PersistentVolumeClaimVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource<'a> {
    /// The claim, in the pod's namespace.
    #[serde(borrow)]
    pub claim_name: Text<'a>,
}

/// `core/v1 ImageVolumeSource`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ImageSource<'a> {
    /// The image.
    #[serde(borrow)]
    pub reference: Text<'a>,
}

/// `core/v1 EphemeralVolumeSource`: that there is one.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ephemeral {}

impl Volume<'_> {
    /// The claim that it is of in a pod of that name, and whether it is the pod's own.
    pub fn claim(&self, pod: &str) -> Option<(String, bool)> {
        match (&self.persistent_volume_claim, &self.ephemeral) {
            (Some(source), _) => Some((source.claim_name.to_string(), false)),
            (None, Some(_)) => Some((format!("{pod}-{}", self.name), true)),
            (None, None) => None,
        }
    }
}
