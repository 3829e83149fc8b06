//! RoleBinding and ClusterRoleBinding: whom they name, and the role that they can never change.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, list, text_or},
    rules::{At, Causes},
};
use coracle_api::{names, registry::Column, status::Cause};
use serde_json::{Value, json};

/// Hooks of `rolebindings` and `clusterrolebindings`.
pub struct Binding {
    /// A RoleBinding, which may bind a Role and belongs to a namespace.
    pub namespaced: bool,
}

const HEADINGS: &[Heading] = &[
    NAME,
    ("Role", "The role that is granted."),
    AGE,
    ("+Users", "Users to whom it is granted."),
    ("+Groups", "Groups to whom it is granted."),
    ("+ServiceAccounts", "Service accounts to whom it is granted."),
];

impl Hooks for Binding {
    fn validate(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        validate(self.namespaced, old, new, causes);
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        row(object)
    }
}

fn row(binding: &Value) -> Vec<Value> {
    let reference = &binding["roleRef"];
    let of = |kind: &str| -> Value {
        let named = |subject: &Value| match (kind, subject["namespace"].as_str()) {
            ("ServiceAccount", Some(namespace)) if !namespace.is_empty() => format!("{namespace}/{}", text_or(&subject["name"], "")),
            _ => text_or(&subject["name"], ""),
        };
        list(&binding["subjects"]).iter().filter(|subject| subject["kind"] == kind).map(named).collect::<Vec<_>>().join(", ").into()
    };
    vec![
        cells::name(binding),
        format!("{}/{}", text_or(&reference["kind"], ""), text_or(&reference["name"], "")).into(),
        age::of(binding),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn validate(namespaced: bool, old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let reference = root.field("roleRef");
    let group = reference.field("apiGroup");
    if group.text() != GROUP {
        group.unsupported(causes, &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let kind = reference.field("kind");
    if !kinds.contains(&kind.text()) {
        kind.unsupported(causes, kinds);
    }
    let name = reference.field("name");
    if name.required(causes, "") {
        name.syntax(causes, names::path_segment);
    }
    for subject in root.field("subjects").items() {
        let (name, group, namespace) = (subject.field("name"), subject.field("apiGroup"), subject.field("namespace"));
        name.required(causes, "");
        match subject.field("kind").text() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    name.syntax(causes, names::dns_subdomain);
                }
                if !group.is_empty() {
                    group.unsupported(causes, &[""]);
                }
                if !namespaced && namespace.is_empty() {
                    namespace.missing(causes, "");
                }
            }
            "User" | "Group" => {
                if group.text() != GROUP {
                    group.unsupported(causes, &[GROUP]);
                }
            }
            _ => subject.field("kind").unsupported(causes, &["ServiceAccount", "User", "Group"]),
        }
    }
    if let Some(old) = old
        && old["roleRef"] != *reference.value
    {
        // Upstream shows its own struct here, whose fields have other names.
        let shown = json!({"APIGroup": group.text(), "Kind": kind.text(), "Name": name.text()});
        reference.invalid_value(causes, shown, "cannot change roleRef");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    fn binding() -> Value {
        json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "view"}, "subjects": [
            {"kind": "User", "apiGroup": GROUP, "name": "ann"}, {"kind": "User", "apiGroup": GROUP, "name": "bob"},
            {"kind": "ServiceAccount", "namespace": "x", "name": "y"}]})
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        assert_eq!(cells::golden(&row(&binding()), "2026-01-02T03:04:05Z"), "b | ClusterRole/view | <unknown> | ann, bob |  | x/y");
    }

    #[test]
    fn the_role_cannot_change() {
        let mut new = binding();
        new["roleRef"]["name"] = "edit".into();
        let mut causes = Vec::new();
        validate(true, Some(&binding()), &new, &mut causes);
        assert_eq!(
            lines(&causes),
            [r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"ClusterRole","Name":"edit"}: cannot change roleRef"#]
        );
        new["roleRef"]["kind"] = "Role".into();
        new["subjects"] = json!([{"kind": "ServiceAccount", "name": "a"}, {"kind": "Robot"}]);
        let mut causes = Vec::new();
        validate(false, None, &new, &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[0].namespace: Required value",
                "subjects[1].name: Required value",
                "subjects[1].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ]
        );
    }
}
