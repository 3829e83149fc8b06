//! The CEL view of a kind: its fields and their types, for expressions that are checked against it.

use crate::schema::Schema;
use crate::structural::META_FIELDS;
use crate::types::{Shape, Type};
use coracle_cel::{Decl, ListKind, Shape as Of};
use std::collections::HashMap;
use std::sync::Arc;

impl Schema {
    /// The declaration of the kind's objects. What has more than one form in JSON (quantities, `IntOrString`, untyped parts) is of any type, and so is a
    /// type inside itself.
    pub fn declaration(&self) -> Arc<Decl> {
        let mut builder = Builder { kind: self.kind(), made: HashMap::new(), open: Vec::new() };
        let Some(shape) = self.structural() else { return builder.object(self.ty()) };
        let properties = shape.root().declared().into_iter().filter(|(name, ..)| !META_FIELDS.contains(name));
        Decl::object(self.kind(), builder.fields(self.ty()).into_iter().chain(properties))
    }
}

struct Builder<'s> {
    kind: &'s str,
    made: HashMap<String, Arc<Decl>>,
    /// Types that are being made.
    open: Vec<String>,
}

impl Builder<'_> {
    fn object(&mut self, ty: &Type) -> Arc<Decl> {
        if let Some(made) = self.made.get(&*ty.key) {
            return made.clone();
        }
        if self.open.iter().any(|key| **key == *ty.key) {
            return Decl::new(Of::Dyn);
        }
        self.open.push(ty.key.to_string());
        let fields = self.fields(ty);
        self.open.pop();
        let name = if self.open.is_empty() { self.kind.to_string() } else { format!("{}.{}", self.kind, ty.go) };
        let made = Decl::object(&name, fields);
        self.made.insert(ty.key.to_string(), made.clone());
        made
    }

    fn fields<'t>(&mut self, ty: &'t Type) -> Vec<(&'t str, Arc<Decl>, bool)> {
        ty.fields.iter().map(|field| (&*field.json, self.shape(&field.shape), field.flags.required)).collect()
    }

    fn shape(&mut self, shape: &Shape) -> Arc<Decl> {
        match shape {
            Shape::Bool(_) => Decl::new(Of::Bool),
            Shape::Int { .. } => Decl::new(Of::Int),
            Shape::Float => Decl::new(Of::Double),
            Shape::String(_) | Shape::Duration => Decl::new(Of::String),
            Shape::Bytes => Decl::new(Of::Bytes),
            Shape::Time | Shape::MicroTime => Decl::new(Of::DateTime),
            Shape::Quantity | Shape::IntOrString | Shape::Any(_) => Decl::new(Of::Dyn),
            Shape::Struct(link) => self.object(link.get()),
            Shape::List(_, element) => {
                let element = self.shape(element);
                Decl::new(Of::List(element, ListKind::Atomic))
            }
            Shape::Map(_, element) => {
                let element = self.shape(element);
                Decl::new(Of::Map(element))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Schemas;
    use coracle_cel::{Env, Program};

    #[test]
    fn expressions_are_checked_against_a_kind() {
        let decl = Schemas::builtin().get("apps", "v1", "Deployment").expect("known").declaration();
        let env = Env::new().with("object", decl.ty());
        let check = |source: &str| Program::compile(&env, source).map(|program| program.ty().to_string());
        assert_eq!(check("object.spec.template.spec.containers.map(c, c.image)"), Ok("list(string)".into()));
        assert_eq!(check("object.metadata.labels['a'] + object.metadata.__namespace__"), Ok("string".into()));
        assert!(check("object.spec.replica").is_err_and(|why| why.contains("undefined field 'replica'")));
        assert!(check("object.spec.replicas == 'x'").is_err_and(|why| why.contains("'(int, string)'")));
        let custom = Schemas::builtin().get("apiextensions.k8s.io", "v1", "CustomResourceDefinition").expect("known").declaration();
        assert!(Program::compile(&Env::new().with("object", custom.ty()), "object.spec.versions[0].schema.openAPIV3Schema.type == ''").is_ok());
    }
}
