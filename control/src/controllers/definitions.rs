//! Gives CustomResourceDefinitions their names and says whether they are served (apiextensions' naming, establishing and api-approval controllers).
//!
//! Names are given out group by group, one definition after the other: whoever has a name keeps it, whoever wants one that is taken waits for it. A definition is
//! established as soon as its names are accepted; upstream's delay between the two is for servers that learn of it later, and here a server that has not
//! seen a definition looks at the store before it says that there is none.

pub mod cleanup;

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{
    custom::{
        DEFINITIONS,
        conditions::{Condition, approval, is_true, set},
    },
    view::{Map, Text, parse},
    webhook,
};
use coracle_store::{Key, Object, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// See the module.
pub struct Definitions {
    context: Context,
}

/// `spec.names` or `status.acceptedNames`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Names {
    plural: String,
    singular: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<String>,
    kind: String,
    list_kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Definition<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    spec: Spec,
    status: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata<'a> {
    #[serde(borrow)]
    annotations: Map<'a>,
    creation_timestamp: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    group: String,
    names: Names,
    conversion: Value,
}

/// Names that definitions of one group have.
#[derive(Default)]
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    fn add(&mut self, names: &Names) {
        self.resources.extend([&names.plural, &names.singular].into_iter().chain(&names.short_names).cloned());
        self.kinds.extend([names.kind.clone(), names.list_kind.clone()]);
    }
}

/// What a definition gets of what it asks for, and why not all of it: reason and message of a refusal, the last one as upstream has it.
fn claim(wanted: &Names, has: &Names, taken: &Taken) -> (Names, Option<(&'static str, String)>) {
    let mut names = has.clone();
    let mut refused = None;
    let free = |wanted: &str, has: &str, taken: &BTreeSet<String>| wanted == has || !taken.contains(wanted);
    let in_use = |name: &str| format!("{name:?} is already in use");
    let mut one = |wanted: &String, place: &mut String, taken: &BTreeSet<String>, reason: &'static str| match free(wanted, place, taken) {
        true => place.clone_from(wanted),
        false => refused = Some((reason, in_use(wanted))),
    };
    one(&wanted.plural, &mut names.plural, &taken.resources, "PluralConflict");
    one(&wanted.singular, &mut names.singular, &taken.resources, "SingularConflict");
    let new = wanted.short_names.iter().filter(|name| !has.short_names.contains(name));
    let conflicts: Vec<String> = new.filter(|name| taken.resources.contains(*name)).map(|name| in_use(name)).collect();
    match conflicts.as_slice() {
        [] => names.short_names.clone_from(&wanted.short_names),
        [only] => refused = Some(("ShortNamesConflict", only.clone())),
        several => refused = Some(("ShortNamesConflict", format!("[{}]", several.join(", ")))),
    }
    let mut one = |wanted: &String, place: &mut String, taken: &BTreeSet<String>, reason: &'static str| match free(wanted, place, taken) {
        true => place.clone_from(wanted),
        false => refused = Some((reason, in_use(wanted))),
    };
    one(&wanted.kind, &mut names.kind, &taken.kinds, "KindConflict");
    one(&wanted.list_kind, &mut names.list_kind, &taken.kinds, "ListKindConflict");
    names.categories.clone_from(&wanted.categories);
    (names, refused)
}

impl Definitions {
    /// Acting as the server itself, as upstream's controllers of definitions do.
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone() }
    }

    /// The status a definition should have.
    fn decide(&self, definition: &Definition<'_>, taken: &Taken) -> Value {
        let now = self.context.now();
        let mut status = definition.status.clone();
        if !status.is_object() {
            status = json!({});
        }
        let has: Names = serde_json::from_value(status["acceptedNames"].clone()).unwrap_or_default();
        let mut accepted = is_true(&status, "NamesAccepted");
        if definition.spec.names != has || !accepted {
            let (names, refused) = claim(&definition.spec.names, &has, taken);
            accepted = refused.is_none();
            let condition = match refused {
                None => Condition { kind: "NamesAccepted", status: "True", reason: "NoConflicts", message: "no conflicts found".into() },
                Some((reason, message)) => Condition { kind: "NamesAccepted", status: "False", reason, message },
            };
            status["acceptedNames"] = json!(names);
            set(&mut status, condition, now);
        }
        if !is_true(&status, "Established") {
            let bundle = definition.spec.conversion["webhook"]["clientConfig"]["caBundle"].as_str();
            let (state, reason, message) = match accepted {
                false => ("False", "NotAccepted", "not all names are accepted"),
                true if bundle.is_some_and(|bundle| webhook::check_bundle(bundle).is_err()) => {
                    ("False", "InvalidCABundle", "The conversion webhook CABundle is invalid")
                }
                true => ("True", "InitialNamesAccepted", "the initial names have been accepted"),
            };
            set(&mut status, Condition { kind: "Established", status: state, reason, message: message.into() }, now);
        }
        if let Some(condition) = approval(&definition.spec.group, &definition.metadata.annotations) {
            set(&mut status, condition, now);
        }
        status
    }
}

/// Stands for a group in the queue.
fn group_key(definition: &Key) -> Option<Key> {
    let (_, group) = definition.name.split_once('.')?;
    Some(Key::new(DEFINITIONS, "~group", group))
}

#[async_trait]
impl Controller for Definitions {
    fn name(&self) -> &'static str {
        "crd-names-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        if event.resource == DEFINITIONS {
            keys.extend(event.key().and_then(group_key));
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        keys.extend(snapshot.range(DEFINITIONS, None, None).filter_map(|object| group_key(&object.key)));
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let of_group = |object: &&Arc<Object>| object.key.name.split_once('.').is_some_and(|(_, group)| *group == *key.name);
        let objects: Vec<&Arc<Object>> = snapshot.range(DEFINITIONS, None, None).filter(of_group).collect();
        let mut definitions = Vec::new();
        let mut taken = Taken::default();
        for object in objects {
            let definition: Definition<'_> = parse(object)?;
            taken.add(&serde_json::from_value(definition.status["acceptedNames"].clone()).unwrap_or_default());
            definitions.push((object, definition));
        }
        // Who came first is first.
        definitions.sort_by(|(a, first), (b, second)| {
            (&*first.metadata.creation_timestamp, a.revision, &a.key.name).cmp(&(&*second.metadata.creation_timestamp, b.revision, &b.key.name))
        });
        for (object, definition) in definitions {
            let status = self.decide(&definition, &taken);
            taken.add(&serde_json::from_value(status["acceptedNames"].clone()).unwrap_or_default());
            if status != definition.status {
                perform(&self.context.client, Some(object), vec![Action::Status(status)]).await?;
            }
        }
        Ok(Next::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(plural: &str, singular: &str, short: &[&str], kind: &str) -> Names {
        Names {
            plural: plural.into(),
            singular: singular.into(),
            short_names: short.iter().map(|s| (*s).into()).collect(),
            kind: kind.into(),
            list_kind: format!("{kind}List"),
            categories: Vec::new(),
        }
    }

    #[test]
    fn names_go_to_whoever_has_them() {
        let mut taken = Taken::default();
        taken.add(&names("foos", "foo", &["f"], "Foo"));
        let nobody = Names::default();
        let (given, refused) = claim(&names("bars", "bar", &["b"], "Bar"), &nobody, &taken);
        assert_eq!((given, refused), (names("bars", "bar", &["b"], "Bar"), None));
        let (given, refused) = claim(&names("bars", "foo", &["b"], "Bar"), &nobody, &taken);
        assert_eq!(refused, Some(("SingularConflict", "\"foo\" is already in use".into())));
        assert_eq!((given.plural.as_str(), given.singular.as_str()), ("bars", ""));
        let (_, refused) = claim(&names("bars", "bar", &["f", "foo", "b"], "Bar"), &nobody, &taken);
        assert_eq!(refused, Some(("ShortNamesConflict", "[\"f\" is already in use, \"foo\" is already in use]".into())));
        let (_, refused) = claim(&names("bars", "bar", &[], "Foo"), &nobody, &taken);
        assert_eq!(refused, Some(("ListKindConflict", "\"FooList\" is already in use".into())));
        let own = names("foos", "foo", &["f"], "Foo");
        assert_eq!(claim(&own, &own, &taken), (own.clone(), None));
    }
}
