//! Parameters: other objects that a binding gives to a policy.

use super::text;
use crate::pipeline::Core;
use coracle_api::registry::ResourceRef;
use coracle_api::selector::Selector;
use coracle_store::{Key, Object, Snapshot};
use serde_json::Value;

/// `paramKind`
pub struct ParamKind {
    api_version: String,
    kind: String,
}

/// `paramRef`
pub struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<Result<Selector, String>>,
    /// `parameterNotFoundAction: Deny`
    needed: bool,
}

impl ParamKind {
    pub(super) fn of(value: &Value) -> Option<ParamKind> {
        (!value.is_null()).then(|| ParamKind { api_version: text(&value["apiVersion"]), kind: text(&value["kind"]) })
    }

    pub(super) fn row(&self, core: &Core) -> Option<ResourceRef> {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        core.registry.by_kind(group, version, &self.kind).filter(|row| row.stored())
    }
}

impl ParamRef {
    pub(super) fn of(value: &Value) -> Option<ParamRef> {
        let selector = |selector: &Value| match selector {
            Value::Null => None,
            selector => Some(Selector::from_object(selector).map_err(|why| why.to_string())),
        };
        (!value.is_null()).then(|| ParamRef {
            name: text(&value["name"]),
            namespace: text(&value["namespace"]),
            selector: selector(&value["selector"]),
            needed: value["parameterNotFoundAction"] == "Deny",
        })
    }
}

/// The parameters with which a policy is evaluated under a binding: null once where it has none.
///
/// # Errors
/// A binding that cannot be used, in upstream's words.
pub(super) fn collect(
    kind: Option<&ParamKind>,
    at: Option<&ParamRef>,
    core: &Core,
    snapshot: &Snapshot,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let (Some(kind), Some(at)) = (kind, at) else { return Ok(vec![Value::Null]) };
    let Some(row) = kind.row(core) else {
        return Err(format!("paramKind kind `&ParamKind{{Kind:{},APIVersion:{},}}` not known", kind.kind, kind.api_version));
    };
    let namespace = match (row.namespaced(), at.namespace.as_str()) {
        (true, "") if namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "") => namespace,
        (true, named) => named,
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
    };
    let found: Vec<std::sync::Arc<Object>> = match (at.name.as_str(), &at.selector) {
        ("", Some(Ok(selector))) => {
            let scope = row.namespaced().then_some(namespace);
            snapshot.range(&row.id(), scope, None).filter(|object| selector.matches_pairs(&object.meta.labels)).cloned().collect()
        }
        ("", Some(Err(why))) => return Err(why.clone()),
        ("", None) => return Err("one of name or selector must be provided".into()),
        (name, _) => snapshot.get(&Key::new(row.id(), namespace, name)).into_iter().collect(),
    };
    if found.is_empty() && at.needed {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    found.iter().map(|object| serde_json::from_slice(&object.json).map_err(|why| why.to_string())).collect()
}
