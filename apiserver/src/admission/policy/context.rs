//! The values of an expression's variables for one request.

use super::environment::{NAMESPACE, REQUEST};
use super::expression::Expression;
use crate::admission::attributes::Attributes;
use crate::auth::{self, User};
use crate::pipeline::Core;
use coracle_api::registry::Registry;
use coracle_cel::{Activation, Authorizer, Check, Decision, Val};
use coracle_store::Snapshot;
use serde_json::Value;

/// What all policies and webhooks see of a request.
pub(in crate::admission) struct Subject<'a> {
    pub attributes: &'a Attributes<'a>,
    pub request: &'a Value,
    pub namespace: &'a Value,
    pub core: &'a Core,
    pub snapshot: &'a Snapshot,
}

impl Subject<'_> {
    pub fn registry(&self) -> &Registry {
        &self.core.registry
    }

    /// The values of what expressions may use; `object` is the object as it is by now, `variables` the policy's own.
    ///
    /// # Errors
    /// What of the request cannot be shown.
    pub fn activation<'a>(
        &'a self,
        variables: &'a [(String, Expression)],
        params: &'a Value,
        object: Option<&'a Value>,
    ) -> Result<Activation<'a>, String> {
        static NULL: Value = Value::Null;
        let mut activation = Activation::new();
        let a = self.attributes;
        let mut bind = |name, value, decl| activation.bind_json(name, value, decl).map_err(|why| why.to_string());
        bind("object", object.unwrap_or(&NULL), None)?;
        bind("oldObject", a.old.unwrap_or(&NULL), None)?;
        bind("request", self.request, Some(&**REQUEST))?;
        bind("namespaceObject", self.namespace, Some(&**NAMESPACE))?;
        bind("params", params, None)?;
        activation.bind("authorizer", Val::authorizer());
        activation.bind("authorizer.requestResource", Val::resource_check(self.requested()));
        activation.set_authorizer(self);
        for (name, expression) in variables {
            if let Some(program) = expression.program() {
                activation.define(name, program);
            }
        }
        Ok(activation)
    }

    fn requested(&self) -> Check {
        let a = self.attributes;
        Check {
            group: a.row.group.to_string(),
            resource: a.row.plural.to_string(),
            subresource: a.subresource.to_string(),
            namespace: a.namespace.to_string(),
            name: a.name.to_string(),
            ..Check::default()
        }
    }
}

impl Authorizer for Subject<'_> {
    fn check(&self, check: &Check, verb: &str) -> Decision {
        let account;
        let user = match &check.account {
            Some((namespace, name)) => {
                account = User::service_account(namespace, name);
                &account
            }
            None => self.attributes.user,
        };
        let asked = auth::Attributes {
            verb,
            group: &check.group,
            version: "*",
            resource: &check.resource,
            subresource: &check.subresource,
            namespace: &check.namespace,
            name: &check.name,
            path: check.path.as_deref().unwrap_or_default(),
            ..auth::Attributes::default()
        };
        match self.core.auth.authorize(user, &asked) {
            auth::Decision::Allow { reason } => Decision { allowed: true, reason, error: None },
            auth::Decision::Deny { reason } => Decision { allowed: false, reason, error: None },
        }
    }
}
