//! Narrow views of stored objects: each controller reads only the fields that it decides on, borrowed from the stored bytes.
//!
//! Whole typed objects (k8s-openapi's) were rejected: a pod parsed into one costs some hundred allocations and kilobytes, and
//! controllers look at thousands of them for a handful of fields.

pub mod budget;
pub mod int_or_percent;
pub mod pod;
pub mod selector;
pub mod volume;

use coracle_api::Status;
use coracle_store::Object;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};
use std::{borrow::Borrow, borrow::Cow, collections::BTreeMap, fmt, ops::Deref};

/// A string of a stored object: borrowed from its bytes, unless it holds an escape. (serde borrows a bare `Cow`, but not one inside an
/// `Option`, a list or a map.)
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    /// A copy that borrows nothing.
    pub fn detached(&self) -> Text<'static> {
        Text(Cow::Owned(self.0.to_string()))
    }
}
impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}
impl Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}
impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Text(Cow::Borrowed(text))
    }
}
impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Text(Cow::Owned(text))
    }
}
impl serde::Serialize for Text<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Labels or annotations.
pub type Map<'a> = BTreeMap<Text<'a>, Text<'a>>;

/// `metav1.OwnerReference`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner<'a> {
    /// `group/version` of the owner.
    #[serde(borrow)]
    pub api_version: Text<'a>,
    /// Kind of the owner.
    pub kind: Text<'a>,
    /// Name of the owner, in the same namespace or cluster-scoped.
    pub name: Text<'a>,
    /// The owner's identity; a namesake with another uid is not the owner.
    pub uid: Text<'a>,
    /// Whether this owner manages the object; at most one does.
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for this object.
    pub block_owner_deletion: bool,
}

impl Owner<'_> {
    /// The reference as it is written.
    pub fn to_json(&self) -> Value {
        let mut json = json!({ "apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid });
        if self.controller {
            json["controller"] = json!(true);
        }
        if self.block_owner_deletion {
            json["blockOwnerDeletion"] = json!(true);
        }
        json
    }

    /// API group of the owner; empty for core.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// `metav1.ObjectMeta`, the part that controllers look at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta<'a> {
    /// Name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: Text<'a>,
    /// Identity.
    pub uid: Text<'a>,
    /// Revision of the last write, decimal.
    pub resource_version: Text<'a>,
    /// Counts changes of the spec.
    pub generation: i64,
    /// RFC 3339.
    pub creation_timestamp: Text<'a>,
    /// Set while the object is being deleted.
    pub deletion_timestamp: Option<Text<'a>>,
    /// Grace of that deletion.
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels.
    pub labels: Map<'a>,
    /// Annotations.
    pub annotations: Map<'a>,
    /// What must happen before the object may go.
    pub finalizers: Vec<Text<'a>>,
    /// Who owns it.
    pub owner_references: Vec<Owner<'a>>,
}

impl<'a> Meta<'a> {
    /// The owner that manages this object, if any.
    pub fn controller(&self) -> Option<&Owner<'a>> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    /// Whether that owner has this uid.
    pub fn controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|owner| *owner.uid == *uid)
    }

    /// Whether deletion has begun.
    pub fn deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// Whether it carries this finalizer.
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| **f == *finalizer)
    }

    /// When it was made; the epoch if that cannot be read.
    pub fn created(&self) -> Timestamp {
        time(&self.creation_timestamp).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// A view of metadata alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Headed<'a> {
    /// The metadata.
    #[serde(borrow)]
    pub metadata: Meta<'a>,
}

/// One entry of `status.conditions` of any kind.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition<'a> {
    /// Such as `Ready`.
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// `True`, `False` or `Unknown`.
    pub status: Text<'a>,
    /// CamelCase word.
    pub reason: Text<'a>,
    /// Sentence for a person.
    pub message: Text<'a>,
    /// When `status` last changed.
    pub last_transition_time: Text<'a>,
    /// Deployments: when the condition was last renewed.
    pub last_update_time: Text<'a>,
    /// Jobs and pods: when it was last checked.
    pub last_probe_time: Text<'a>,
    /// Nodes: when the kubelet last said so.
    pub last_heartbeat_time: Text<'a>,
    /// The generation that it speaks of.
    pub observed_generation: i64,
}

impl Condition<'_> {
    /// The condition as it is written; empty fields are left out.
    pub fn to_json(&self) -> Value {
        let mut json = json!({ "type": self.kind, "status": self.status });
        for (name, text) in [
            ("reason", &self.reason),
            ("message", &self.message),
            ("lastTransitionTime", &self.last_transition_time),
            ("lastUpdateTime", &self.last_update_time),
            ("lastProbeTime", &self.last_probe_time),
            ("lastHeartbeatTime", &self.last_heartbeat_time),
        ] {
            if !text.is_empty() {
                json[name] = json!(text);
            }
        }
        if self.observed_generation != 0 {
            json["observedGeneration"] = json!(self.observed_generation);
        }
        json
    }

    /// Whether its status is `True`.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// When its status last changed, if that can be read.
    pub fn since(&self) -> Option<Timestamp> {
        time(&self.last_transition_time)
    }
}

/// The condition of this type.
pub fn condition<'c, 'a>(conditions: &'c [Condition<'a>], kind: &str) -> Option<&'c Condition<'a>> {
    conditions.iter().find(|c| *c.kind == *kind)
}

/// Reads a view of an object.
///
/// # Errors
/// 500, when the stored bytes do not have the view's shape.
pub fn parse<'a, T: Deserialize<'a>>(object: &'a Object) -> Result<T, Status> {
    parse_bytes(&object.json)
        .map_err(|error| Status::internal(format_args!("reading {} {}/{}: {error}", object.key.resource, object.key.namespace, object.key.name)))
}

/// Reads a view from bytes.
///
/// # Errors
/// What serde says about the bytes.
pub fn parse_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes)
}

/// A `metav1.Time` or `metav1.MicroTime`.
pub fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A `metav1.Time`: RFC 3339, whole seconds, UTC.
pub fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_borrowed_unless_escaped() {
        let json = br#"{"metadata":{"name":"a","labels":{"k":"v"},"annotations":{"n":"two\nlines"}}}"#;
        let view: Headed<'_> = parse_bytes(json).expect("parses");
        assert!(matches!(view.metadata.name.0, Cow::Borrowed("a")));
        assert!(matches!(view.metadata.labels.get("k").map(|v| &v.0), Some(Cow::Borrowed("v"))));
        assert_eq!(view.metadata.annotations.get("n").map(|v| &**v), Some("two\nlines"));
    }

    #[test]
    fn times_read_and_print_as_kubernetes_does() {
        let read = time("2026-01-02T03:04:05Z").expect("a time");
        assert_eq!(stamp(read), "2026-01-02T03:04:05Z");
        assert_eq!(stamp(time("2026-01-02T03:04:05.678901Z").expect("a micro time")), "2026-01-02T03:04:05Z");
        assert!(time("yesterday").is_none());
    }
}
