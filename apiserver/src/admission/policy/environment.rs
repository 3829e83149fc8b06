//! The variables that expressions of policies and webhooks may use, and their types.

use super::expression::Expression;
use coracle_cel::{Decl, Env, ListKind, Shape, Type};
use std::sync::{Arc, LazyLock};

fn string() -> Arc<Decl> {
    Decl::new(Shape::String)
}

fn list(of: Arc<Decl>) -> Arc<Decl> {
    Decl::new(Shape::List(of, ListKind::Atomic))
}

fn object(name: &str, fields: Vec<(&str, Arc<Decl>)>) -> Arc<Decl> {
    Decl::record(name, fields)
}

/// `request`: `admission.k8s.io/v1 AdmissionRequest` without the objects.
pub static REQUEST: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let kind = object("kubernetes.GroupVersionKind", vec![("group", string()), ("version", string()), ("kind", string())]);
    let resource = object("kubernetes.GroupVersionResource", vec![("group", string()), ("version", string()), ("resource", string())]);
    let extra = Decl::new(Shape::Map(list(string())));
    let user = object("kubernetes.UserInfo", vec![("username", string()), ("uid", string()), ("groups", list(string())), ("extra", extra)]);
    object(
        "kubernetes.AdmissionRequest",
        vec![
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", string()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", string()),
            ("name", string()),
            ("namespace", string()),
            ("operation", string()),
            ("userInfo", user),
            ("dryRun", Decl::new(Shape::Bool)),
            ("options", Decl::new(Shape::Dyn)),
        ],
    )
});

/// `namespaceObject`: what policies may see of a namespace.
pub static NAMESPACE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let (time, number) = (|| Decl::new(Shape::DateTime), || Decl::new(Shape::Int));
    let map = || Decl::new(Shape::Map(string()));
    let metadata = vec![
        ("name", string()),
        ("generateName", string()),
        ("namespace", string()),
        ("labels", map()),
        ("annotations", map()),
        ("UID", string()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", number()),
        ("deletionTimestamp", time()),
        ("generation", number()),
        ("resourceVersion", string()),
        ("finalizers", list(string())),
    ];
    let condition = vec![("status", string()), ("type", string()), ("lastTransitionTime", time()), ("message", string()), ("reason", string())];
    let conditions = list(object("kubernetes.NamespaceCondition", condition));
    object(
        "kubernetes.Namespace",
        vec![
            ("metadata", object("kubernetes.NamespaceMetadata", metadata)),
            ("spec", object("kubernetes.NamespaceSpec", vec![("finalizers", list(string()))])),
            ("status", object("kubernetes.NamespaceStatus", vec![("conditions", conditions), ("phase", string())])),
        ],
    )
});

/// The environment of one policy, which grows by its variables.
pub struct Scope {
    object: Type,
    params: Option<Type>,
    variables: Vec<(String, Type)>,
}

impl Scope {
    /// With `params` if the policy has some.
    pub fn new(params: bool) -> Scope {
        Scope { object: Type::Dyn, params: params.then_some(Type::Dyn), variables: Vec::new() }
    }
    /// With known types of the objects and the params.
    pub fn typed(object: Type, params: Option<Type>) -> Scope {
        Scope { object, params, variables: Vec::new() }
    }
    /// Adds `variables.name`, for what comes after it.
    pub fn define(&mut self, name: &str, expression: &Expression) {
        self.variables.push((name.to_string(), expression.ty()));
    }
    /// What an expression may use.
    pub fn environment(&self, authorizer: bool) -> Env {
        let mut env = Env::new()
            .with("object", self.object.clone())
            .with("oldObject", self.object.clone())
            .with("request", REQUEST.ty())
            .with("namespaceObject", NAMESPACE.ty());
        if let Some(params) = &self.params {
            env = env.with("params", params.clone());
        }
        if authorizer {
            env = env
                .with("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
                .with("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"));
        }
        if !self.variables.is_empty() {
            let fields = self.variables.iter().map(|(name, ty)| (name.as_str(), Decl::new(Shape::Typed(ty.clone()))));
            env = env.with("variables", Decl::record("kubernetes.variables", fields).ty());
        }
        env
    }
}
