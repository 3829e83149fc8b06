//! The templates a StatefulSet or DaemonSet has had, kept as ControllerRevisions (Kubernetes' controller history): what `kubectl rollout
//! history` shows and `undo` goes back to.
//!
//! A revision holds a strategic merge patch that puts its template back. Its name is made from a hash of that patch, so that making it twice
//! is impossible; revisions are told apart by comparing patches, not hashes.

use super::{
    action::{Action, perform},
    deployment::template::hash,
    owned::Parent,
};
use coracle_api::Status;
use coracle_apiserver::{
    client::Client,
    view::{Meta, parse, selector::LabelSelector},
};
use coracle_store::Key;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Resource id of ControllerRevisions.
pub const REVISIONS: &str = "controllerrevisions.apps";
/// Ties a pod to the revision that it was made from.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// One ControllerRevision.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// The higher, the newer; a template that comes back gets a new number.
    pub number: i64,
    /// The hash in its name and labels.
    pub hash: String,
    /// RFC 3339.
    created: String,
    /// The patch.
    pub data: Value,
}

impl Revision {
    /// A revision of a template, for tests.
    #[cfg(test)]
    pub fn of(name: &str, number: i64, template: &Value) -> Self {
        let text = String::new;
        Self { name: name.to_owned(), uid: text(), number, hash: text(), created: text(), data: patch_of(template) }
    }

    /// The pod template that it puts back, without the patch directive.
    pub fn template(&self) -> Value {
        let mut template = self.data.pointer("/spec/template").cloned().unwrap_or_else(|| json!({}));
        if let Some(fields) = template.as_object_mut() {
            fields.remove("$patch");
        }
        template
    }
}

/// The patch that puts this pod template back.
pub fn patch_of(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// How the present template stands in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Present {
    /// It is the newest revision.
    Newest,
    /// It is an older revision, which gets a new number.
    Again {
        /// Its place in the history.
        at: usize,
        /// The number.
        number: i64,
    },
    /// It is in no revision yet.
    New {
        /// The number of the revision to be made.
        number: i64,
    },
}

/// Oldest first.
pub fn sort(revisions: &mut [Revision]) {
    revisions.sort_by(|a, b| (a.number, &a.created, &a.name).cmp(&(b.number, &b.created, &b.name)));
}

/// Looks for a patch in a sorted history.
pub fn present(revisions: &[Revision], data: &Value) -> Present {
    let number = revisions.last().map_or(1, |last| last.number + 1);
    match revisions.iter().rposition(|revision| revision.data == *data) {
        Some(at) if at + 1 == revisions.len() => Present::Newest,
        Some(at) => Present::Again { at, number },
        None => Present::New { number },
    }
}

/// The oldest revisions beyond `limit` among those that nothing `live` names; a negative limit keeps all.
pub fn surplus<'r>(revisions: &'r [Revision], live: &BTreeSet<&str>, limit: i64) -> impl Iterator<Item = &'r Revision> {
    let dead: Vec<&Revision> = revisions.iter().filter(|revision| !live.contains(&*revision.name)).collect();
    let count = usize::try_from(limit).map_or(0, |limit| dead.len().saturating_sub(limit));
    dead.into_iter().take(count)
}

/// What a revision is made from and named after.
pub struct Subject<'s, 'a> {
    /// The kind of the object.
    pub parent: &'s Parent,
    /// Its metadata.
    pub meta: &'s Meta<'a>,
    /// Its selector.
    pub selector: &'s LabelSelector<'a>,
    /// Its present pod template.
    pub template: &'s Value,
    /// How often a revision's name was taken by another template.
    pub collisions: i64,
    /// The label that the hash is written to.
    pub hash_label: &'static str,
}

/// A history that the present template is part of.
#[derive(Debug)]
pub struct History {
    /// Oldest first; never empty.
    pub revisions: Vec<Revision>,
    /// Which of them is the present template.
    pub update: usize,
    /// Name collisions so far, those of this time included.
    pub collisions: i64,
}

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    #[serde(default)]
    revision: i64,
    #[serde(default)]
    data: Value,
}

fn read(object: &coracle_store::Object, hash_label: &str) -> Result<Revision, Status> {
    let stored: Stored<'_> = parse(object)?;
    Ok(Revision {
        name: stored.metadata.name.to_string(),
        uid: stored.metadata.uid.to_string(),
        number: stored.revision,
        hash: stored.metadata.labels.get(hash_label).map(|text| text.to_string()).unwrap_or_default(),
        created: stored.metadata.creation_timestamp.to_string(),
        data: stored.data,
    })
}

impl Subject<'_, '_> {
    fn key(&self, name: &str) -> Key {
        Key::new(REVISIONS, &*self.meta.namespace, name)
    }

    /// The object of a revision that is to be made.
    fn object(&self, data: &Value, number: i64, collisions: i64) -> Value {
        let hash = hash(data, collisions);
        let stem = self.meta.name.get(..253 - 1 - hash.len()).unwrap_or(&self.meta.name);
        let mut labels = self.template.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
        labels.insert(self.hash_label.to_owned(), json!(hash));
        let annotations: Map<String, Value> = self.meta.annotations.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        let mut metadata = json!({
            "name": format!("{stem}-{hash}"), "namespace": self.meta.namespace, "labels": labels,
            "ownerReferences": [self.parent.reference(self.meta).to_json()],
        });
        if !annotations.is_empty() {
            metadata["annotations"] = Value::Object(annotations);
        }
        json!({ "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "data": data, "revision": number })
    }

    /// Reads the history, adopting revisions that nobody controls, and makes the present template its newest revision.
    ///
    /// # Errors
    /// A lost race or a refusal.
    pub async fn settle(&self, client: &Client) -> Result<History, Status> {
        let objects = self.parent.claim(client, REVISIONS, self.meta, self.selector, |_| true, |_| true).await?;
        let mut revisions = objects.iter().map(|object| read(object, self.hash_label)).collect::<Result<Vec<_>, _>>()?;
        sort(&mut revisions);
        let data = patch_of(self.template);
        let mut collisions = self.collisions;
        let update = match present(&revisions, &data) {
            Present::Newest => revisions.len() - 1,
            Present::Again { at, number } => {
                let mut again = revisions.remove(at);
                let patch = json!({ "metadata": { "uid": again.uid }, "revision": number });
                perform(client, None, vec![Action::Patch { key: self.key(&again.name), subresource: "", patch }]).await?;
                again.number = number;
                revisions.push(again);
                revisions.len() - 1
            }
            Present::New { number } => {
                let made = self.make(client, &data, number, &mut collisions).await?;
                revisions.push(made);
                revisions.len() - 1
            }
        };
        Ok(History { revisions, update, collisions })
    }

    async fn make(&self, client: &Client, data: &Value, number: i64, collisions: &mut i64) -> Result<Revision, Status> {
        loop {
            let object = self.object(data, number, *collisions);
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            match client.create(REVISIONS, &self.meta.namespace, object).await {
                Ok(made) => return read(&made, self.hash_label),
                Err(status) if status.reason == "AlreadyExists" => {
                    let there = client.get(REVISIONS, &self.meta.namespace, &name);
                    let there = there.map(|object| read(&object, self.hash_label)).transpose()?;
                    if let Some(same) = there.filter(|there| there.data == *data) {
                        return Ok(same);
                    }
                    *collisions += 1;
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// Deletes what the history limit no longer keeps.
    ///
    /// # Errors
    /// A refusal.
    pub async fn forget(&self, client: &Client, history: &History, live: &BTreeSet<&str>, limit: i64) -> Result<(), Status> {
        let delete =
            |revision: &Revision| Action::Delete { key: self.key(&revision.name), uid: revision.uid.clone(), propagation: None, grace: None };
        perform(client, None, surplus(&history.revisions, live, limit).map(delete).collect()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, number: i64, image: &str) -> Revision {
        Revision::of(name, number, &json!({ "spec": { "containers": [{ "name": "c", "image": image }] } }))
    }

    #[test]
    fn a_template_is_found_again_by_what_it_says() {
        let history = [revision("a", 1, "v1"), revision("b", 2, "v2")];
        assert_eq!(present(&[], &history[0].data), Present::New { number: 1 });
        assert_eq!(present(&history, &history[1].data), Present::Newest);
        assert_eq!(present(&history, &history[0].data), Present::Again { at: 0, number: 3 });
        assert_eq!(present(&history, &revision("c", 0, "v3").data), Present::New { number: 3 });
    }

    #[test]
    fn a_patch_gives_back_its_template() {
        let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [] } });
        let revision = Revision { data: patch_of(&template), ..revision("a", 1, "") };
        assert_eq!(revision.data["spec"]["template"]["$patch"], "replace");
        assert_eq!(revision.template(), template);
    }

    #[test]
    fn only_dead_revisions_are_forgotten_and_the_oldest_first() {
        let history = [revision("a", 1, "1"), revision("b", 2, "2"), revision("c", 3, "3"), revision("d", 4, "4")];
        let forgotten = |live: &[&str], limit| -> Vec<String> {
            surplus(&history, &live.iter().copied().collect(), limit).map(|revision| revision.name.clone()).collect()
        };
        assert_eq!(forgotten(&["d", "a"], 1), ["b"]);
        assert_eq!(forgotten(&["d"], 0), ["a", "b", "c"]);
        assert_eq!(forgotten(&["d"], 10), Vec::<String>::new());
        assert_eq!(forgotten(&["d"], -1), Vec::<String>::new());
    }

    #[test]
    fn equal_numbers_are_ordered_by_time_and_name() {
        let mut history = [revision("b", 1, ""), revision("a", 1, ""), revision("z", 0, "")];
        history[1].created = "2026-01-02T00:00:00Z".to_owned();
        sort(&mut history);
        assert_eq!(history.map(|revision| revision.name), ["z", "b", "a"]);
    }
}
