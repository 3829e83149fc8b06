//! Properties that hold for every kind of the table: objects are made up from the schema itself, messy on purpose.

use crate::protobuf::envelope;
use crate::types::{Field, Shape, Type};
use crate::{FieldValidation, Schema, Schemas, facts, json_merge_patch, to_bytes, to_draft};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::Arc;

mod diff;

/// A generator of values, seeded by proptest (xorshift: no more is needed to choose fields).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

/// Makes up values of a shape.
pub(crate) struct Maker {
    chance: Chance,
    /// Also nulls, zeros, other spellings and unknown fields.
    messy: bool,
    /// Fields still to be made: types that hold themselves would go on for ever.
    budget: u32,
}

impl Maker {
    pub(crate) fn new(seed: u64, messy: bool) -> Maker {
        Maker { chance: Chance(seed), messy, budget: 300 }
    }

    pub(crate) fn object(&mut self, ty: &Type, depth: u64) -> Map<String, Value> {
        let mut map = Map::new();
        for field in &ty.fields {
            // Small structs are filled, large ones are sampled.
            let rare = 1 + ty.fields.len() as u64 / 10 + depth / 4;
            if self.budget == 0 || !self.chance.one_in(rare) || matches!(&*field.json, "kind" | "apiVersion") {
                continue;
            }
            self.budget -= 1;
            let value = if self.messy && self.chance.one_in(12) { Value::Null } else { self.field(field, depth + 1) };
            map.insert(field.json.to_string(), value);
        }
        if self.messy && self.chance.one_in(20) {
            map.insert("zz".into(), json!({ "a": [null, {}] }));
        }
        map
    }

    fn field(&mut self, field: &Field, depth: u64) -> Value {
        let mut value = self.value(&field.shape, depth);
        if let (Shape::List(_, element), Value::Array(list)) = (&field.shape, &mut value) {
            match (&field.merge_key, &**element) {
                (Some(key), Shape::Struct(link)) => {
                    let shape = &link.get().field(key).unwrap().shape;
                    for item in list.iter_mut() {
                        let name = if matches!(shape, Shape::Int { .. }) {
                            json!(1 + self.chance.below(5))
                        } else {
                            json!(*self.chance.pick(&["a", "b", "c", "d"]))
                        };
                        if let Value::Object(item) = item {
                            item.insert(key.to_string(), name);
                        }
                    }
                    unique(list, |item| item.get(&**key).cloned());
                }
                _ if field.flags.patch_merge => unique(list, |item| Some(item.clone())),
                _ => {}
            }
        }
        value
    }

    fn value(&mut self, shape: &Shape, depth: u64) -> Value {
        match shape {
            Shape::Bool(_) => json!(self.chance.one_in(2)),
            Shape::Int { .. } => json!(self.chance.below(4)),
            Shape::Float => [json!(0.5), json!(1.0), json!(2)][self.chance.below(3) as usize].clone(),
            Shape::String(_) => json!(*self.chance.pick(&["", "a", "Always", "RollingUpdate", "ClientIP", "LoadBalancer", "User", "Container"])),
            Shape::Bytes => json!(*self.chance.pick(&["", "YQ==", "YWJj"])),
            Shape::Quantity if self.messy => [json!("0.5"), json!(1), json!("1000m"), json!("1024Mi"), json!("1e3"), json!(0.1), json!("1n")]
                [self.chance.below(7) as usize]
                .clone(),
            Shape::Quantity => json!(*self.chance.pick(&["1", "500m", "1Gi"])),
            Shape::Time | Shape::MicroTime => json!(*self.chance.pick(&["2024-05-01T10:00:00Z", "2024-05-01T12:00:00.25+02:00"])),
            Shape::Duration => json!("1m0s"),
            Shape::IntOrString => [json!(0), json!(80), json!("http"), json!("25%"), json!("")][self.chance.below(5) as usize].clone(),
            Shape::Any(of) if of.starts_with("JSONSchemaPropsOr") => match (&**of, self.chance.one_in(2)) {
                (_, true) => json!({ "type": "string", "required": ["a"], "additionalProperties": false }),
                ("JSONSchemaPropsOrBool", _) => json!(true),
                ("JSONSchemaPropsOrArray", _) => json!([{ "type": "string" }, {}]),
                _ => json!(["a", "b"]),
            },
            Shape::Any(_) => json!({ "b": [1, {"a": ""}], "a": {} }),
            Shape::Struct(link) => Value::Object(self.object(link.get(), depth)),
            Shape::List(_, element) => {
                let length = self.chance.below(if depth > 8 { 1 } else { 4 });
                (0..length).map(|_| if self.messy && self.chance.one_in(12) { Value::Null } else { self.value(element, depth) }).collect()
            }
            Shape::Map(_, element) => {
                let length = self.chance.below(4);
                (0..length)
                    .map(|_| ((*self.chance.pick(&["a", "b", "c", "cpu"])).to_owned(), self.value(element, depth)))
                    .collect::<Map<_, _>>()
                    .into()
            }
        }
    }
}

fn unique(list: &mut Vec<Value>, key: impl Fn(&Value) -> Option<Value>) {
    let mut seen: Vec<Option<Value>> = Vec::new();
    list.retain(|item| {
        let key = key(item);
        let new = !seen.contains(&key);
        seen.push(key);
        new
    });
}

/// Schemas of every kind of the table that is an object.
pub(crate) fn kinds() -> Vec<(Arc<Schema>, Arc<Type>)> {
    let schemas = Schemas::builtin();
    let types = facts::all().filter_map(|name| facts::named(&name)).filter(|ty| ty.kind.is_some());
    types
        .map(|ty| {
            let (group, version, kind) = ty.kind.clone().unwrap();
            // The list and discovery types of meta/v1 are kinds too, but of no group that can be asked for.
            (schemas.get(&group, &version, &kind), ty)
        })
        .filter_map(|(schema, ty)| Some((schema?, ty)))
        .collect()
}

fn canonical(schema: &Schema, value: &Value) -> Value {
    let mut value = value.clone();
    schema.canonicalize(&mut value, FieldValidation::Ignore).unwrap();
    value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_canonical_form_is_a_fixed_point_of_everything(seed in 1u64..) {
        for (schema, ty) in kinds() {
            let mut maker = Maker::new(seed, true);
            let made = Value::Object(maker.object(&ty, 0));
            let (decoded, _) = schema.decode(made.to_string().as_bytes(), FieldValidation::Warn).unwrap();
            prop_assert_eq!(&canonical(&schema, &made), &decoded, "a parsed body and its text agree");
            let mut again = decoded.clone();
            let warnings = schema.canonicalize(&mut again, FieldValidation::Strict).unwrap();
            prop_assert!(warnings.is_empty());
            prop_assert_eq!(&again, &decoded, "canonical of {}", ty.key);

            let mut filled = decoded.clone();
            schema.default(&mut filled);
            prop_assert_eq!(&canonical(&schema, &filled), &filled, "defaults of {} leave the canonical form", ty.key);
            let mut twice = filled.clone();
            schema.default(&mut twice);
            prop_assert_eq!(&twice, &filled, "defaults of {} twice", ty.key);

            let (bytes, _) = to_draft(&filled);
            let mut back: Value = serde_json::from_slice(&bytes).unwrap();
            back["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            let mut bare = filled.clone();
            let metadata = bare.as_object_mut().unwrap().entry("metadata").or_insert_with(|| json!({}));
            metadata.as_object_mut().unwrap().remove("resourceVersion");
            prop_assert_eq!(to_bytes(&back), to_bytes(&bare));
        }
    }

    #[test]
    fn json_to_protobuf_and_back_is_the_same_for_every_kind(seed in 1u64..) {
        for (schema, ty) in kinds() {
            let mut object = canonical(&schema, &Value::Object(Maker::new(seed, true).object(&ty, 0)));
            schema.default(&mut object);
            let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
            let encoded = envelope::seal(&text("apiVersion"), &text("kind"), &schema.encode_protobuf(&object));
            let (decoded, _) = schema.decode_protobuf(&encoded, FieldValidation::Strict).unwrap();
            prop_assert_eq!(&decoded, &object, "{}", ty.key);
            // What is cut off is refused or shorter, never a panic.
            let _ = schema.decode_protobuf(encoded.get(..seed as usize % encoded.len()).unwrap(), FieldValidation::Ignore);
        }
    }

    #[test]
    fn patches_made_by_a_diff_lead_from_one_object_to_the_other(seeds in (1u64.., 1u64..)) {
        for (schema, ty) in kinds() {
            let make = |seed| {
                let mut maker = Maker::new(seed, false);
                let mut object = canonical(&schema, &Value::Object(maker.object(&ty, 0)));
                schema.default(&mut object);
                object
            };
            let (from, to) = (make(seeds.0), make(seeds.1));
            let patch = diff::strategic(&ty, &from, &to);
            let merged = schema.strategic_merge(&from, &patch).unwrap();
            prop_assert_eq!(&canonical(&schema, &merged), &canonical(&schema, &to), "{}: {}", ty.key, patch);
            let patch = diff::plain(&from, &to);
            prop_assert_eq!(&json_merge_patch(&from, &patch), &to, "{}: {}", ty.key, patch);
            // Applying a patch twice changes nothing more.
            let patch = diff::strategic(&ty, &from, &to);
            let twice = schema.strategic_merge(&merged, &patch).unwrap();
            prop_assert_eq!(canonical(&schema, &twice), canonical(&schema, &to), "{} twice: {}", ty.key, patch);
        }
    }

    #[test]
    fn any_patch_is_survived(seeds in (1u64.., 1u64..), cut in 0usize..64) {
        let (schema, ty) = (Schemas::builtin().get("", "v1", "Pod").unwrap(), facts::named("core.v1.Pod").unwrap());
        let make = |seed| Value::Object(Maker::new(seed, true).object(&ty, 0));
        let (from, to) = (make(seeds.0), make(seeds.1));
        // Directives where none belong: every key of a patch is swapped for one in turn.
        let text = diff::strategic(&ty, &from, &to).to_string();
        let directives = ["$patch", "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers", "$setElementOrder", "containers"];
        let mut parts: Vec<&str> = text.split('"').collect();
        if parts.len() > 2 {
            let at = (cut * 2 + 1) % parts.len();
            parts[at] = directives[cut % directives.len()];
        }
        if let Ok(patch) = serde_json::from_str::<Value>(&parts.join("\"")) {
            let _ = schema.strategic_merge(&from, &patch);
        }
    }

    #[test]
    fn any_body_is_survived(seed in 1u64.., cut in 0usize..4096, byte in any::<u8>()) {
        for kind in ["Pod", "Service", "Secret", "Event", "Node"] {
            let schema = Schemas::builtin().get("", "v1", kind).unwrap();
            let ty = facts::named(&format!("core.v1.{kind}")).unwrap();
            let mut body = Value::Object(Maker::new(seed, true).object(&ty, 0)).to_string().into_bytes();
            let at = cut % body.len().max(1);
            body[at] = byte;
            let _ = schema.decode(&body, FieldValidation::Strict);
            body.truncate(at);
            let _ = schema.decode(&body, FieldValidation::Strict);
        }
    }
}
