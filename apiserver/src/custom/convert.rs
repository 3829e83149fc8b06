//! Conversion between the versions of a kind: the name of the version alone, or by its webhook (`apiserver/conversion`).

use super::{Kind, Version};
use crate::{
    pipeline::{Core, metadata},
    resources::rules::{At, labels},
    webhook::{ClientConfig, Limits, failed},
};
use coracle_api::status::Status;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What a webhook may take for one request.
const LIMITS: Limits = Limits { within: Duration::from_secs(30), bytes: 16 << 20 };
/// Objects, and bytes of them, that one request carries at most; a single larger object goes alone.
const MAX_OBJECTS: usize = 100;
const MAX_BYTES: usize = 2 << 20;

/// `spec.conversion`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Conversion {
    /// All versions have the same shape.
    #[default]
    None,
    /// A webhook knows.
    Webhook {
        /// Where it is.
        config: ClientConfig,
        /// The first of `conversionReviewVersions` that this server speaks.
        review: Box<str>,
    },
}

impl Kind {
    /// An object in another version, if it takes no webhook to turn it into one.
    pub(crate) fn rename(&self, to: &Version, value: &Value) -> Option<Value> {
        let same = value["apiVersion"] == *to.api_version;
        if !same && self.conversion != Conversion::None {
            return None;
        }
        let mut value = value.clone();
        if !same {
            value["apiVersion"] = (*to.api_version).into();
            to.schema().fit(&mut value);
        }
        Some(value)
    }

    /// Turns objects into ones of another version and cuts them to its schema; those that are of it already stay as they are.
    pub(crate) async fn convert(&self, core: &Core, to: &Version, values: &mut [Value]) -> Result<(), Status> {
        let mut others: Vec<&mut Value> = values.iter_mut().filter(|value| value["apiVersion"] != *to.api_version).collect();
        match &self.conversion {
            Conversion::None => others.iter_mut().for_each(|value| value["apiVersion"] = (*to.api_version).into()),
            Conversion::Webhook { config, review } => {
                let mut rest = others.as_mut_slice();
                while !rest.is_empty() {
                    let (batch, more) = rest.split_at_mut(batch_of(rest));
                    self.ask(core, config, review, to, batch).await?;
                    rest = more;
                }
            }
        }
        others.into_iter().for_each(|value| to.schema().fit(value));
        Ok(())
    }

    /// One `ConversionReview`.
    async fn ask(&self, core: &Core, config: &ClientConfig, review: &str, to: &Version, batch: &mut [&mut Value]) -> Result<(), Status> {
        let uid = uuid::Uuid::new_v4().to_string();
        let api_version = format!("apiextensions.k8s.io/{review}");
        let objects: Vec<&Value> = batch.iter().map(|value| &**value).collect();
        let request = json!({
            "kind": "ConversionReview", "apiVersion": api_version,
            "request": {"uid": uid, "desiredAPIVersion": to.api_version, "objects": objects},
        });
        let from = batch.first().map(|value| value["apiVersion"].as_str().unwrap_or_default().to_owned()).unwrap_or_default();
        let about = |why: &str| failed(format!("conversion webhook for {from}, Kind={} {why}", self.kind));
        let answer = core.call_webhook(config, request.to_string().into(), LIMITS).await.map_err(|why| about(&format!("failed: {why}")))?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| about(&format!("failed: the answer is no JSON: {error}")))?;
        let converted = outcome(&answer, &api_version, &uid).map_err(|why| about(&format!("failed: {why}")))?;
        if converted.len() != batch.len() {
            return Err(about(&format!("returned {} objects, expected {}", converted.len(), batch.len())));
        }
        for (at, (value, new)) in batch.iter_mut().zip(converted).enumerate() {
            **value =
                accepted(value, new, &to.api_version).map_err(|why| about(&format!("returned invalid converted object at index {at}: {why}")))?;
        }
        Ok(())
    }
}

/// How many of these go into one request.
fn batch_of(values: &[&mut Value]) -> usize {
    let mut bytes = 0;
    let fits = values.iter().take(MAX_OBJECTS).take_while(|value| {
        bytes += value.to_string().len();
        bytes <= MAX_BYTES
    });
    fits.count().max(1)
}

/// The objects in an answer.
fn outcome(answer: &Value, api_version: &str, uid: &str) -> Result<Vec<Value>, String> {
    let response = &answer["response"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // The older version was never checked for these.
    let strict = api_version.ends_with("/v1");
    let shown = |version: &str, kind: &str| format!("{version}, Kind={kind}");
    if strict && (answer["apiVersion"] != api_version || answer["kind"] != "ConversionReview") {
        let (wanted, got) = (shown(api_version, "ConversionReview"), shown(&text(&answer["apiVersion"]), &text(&answer["kind"])));
        return Err(format!("expected webhook response of {wanted}, got {got}"));
    }
    if response.is_null() {
        return Err("no response provided".into());
    }
    if strict && response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(&response["uid"])));
    }
    let result = &response["result"];
    if result["status"] != "Success" {
        return Err(match text(&result["message"]) {
            message if message.is_empty() => format!("response.result.status was '{}', not 'Success'", text(&result["status"])),
            message => message,
        });
    }
    Ok(response["convertedObjects"].as_array().cloned().unwrap_or_default())
}

/// A converted object, with the original's metadata but for labels and annotations.
fn accepted(original: &Value, mut converted: Value, api_version: &str) -> Result<Value, String> {
    if converted["apiVersion"] != *api_version {
        let got = converted["apiVersion"].as_str().unwrap_or_default();
        return Err(format!("invalid groupVersion (expected {api_version}, received {got})"));
    }
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    if converted["kind"] != original["kind"] {
        return Err(format!("invalid kind (expected {}, received {})", text(original, "/kind"), text(&converted, "/kind")));
    }
    for (word, path) in [("name", "/metadata/name"), ("namespace", "/metadata/namespace"), ("UID", "/metadata/uid")] {
        let (was, is) = (text(original, path), text(&converted, path));
        if was != is {
            return Err(format!("must have the same {word}: {was} != {is}"));
        }
    }
    let metadata = match converted.get_mut("metadata") {
        None => return Err("missing metadata in converted object".into()),
        Some(Value::Object(metadata)) => std::mem::take(metadata),
        Some(_) => return Err("invalid metadata of type string in converted object".into()),
    };
    converted["metadata"] = original["metadata"].clone();
    let kept = metadata::of(&mut converted);
    for field in ["labels", "annotations"] {
        match metadata.get(field) {
            None | Some(Value::Null) => drop(kept.remove(field)),
            Some(new) => {
                check(field, new, kept.get(field))?;
                kept.insert(field.into(), new.clone());
            }
        }
    }
    Ok(converted)
}

/// Labels or annotations that a webhook gave: texts, and well-formed where they are new.
fn check(field: &str, new: &Value, old: Option<&Value>) -> Result<(), String> {
    let empty = Map::new();
    let Some(map) = new.as_object() else { return Err(format!("invalid metadata.{field} in converted object")) };
    if let Some(key) = map.iter().find(|(_, value)| !value.is_string()).map(|(key, _)| key) {
        return Err(format!("metadata.{field}[{key}] must be a string in converted object"));
    }
    if old.and_then(Value::as_object).unwrap_or(&empty) == map {
        return Ok(());
    }
    let mut causes = Vec::new();
    let object = json!({"metadata": {field: new}});
    let root = At::root(&object);
    let place = root.field("metadata");
    match field {
        "labels" => labels::label_map(&place.field(field), &mut causes),
        _ => labels::annotation_map(&place.field(field), &mut causes),
    }
    match causes.as_slice() {
        [] => Ok(()),
        [only] => Err(only.line()),
        several => Err(format!("[{}]", several.iter().map(|cause| cause.line()).collect::<Vec<_>>().join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Value {
        json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x", "uid": "u", "labels": {"k": "1"}, "resourceVersion": "5"}, "spec": 1})
    }

    #[test]
    fn a_webhook_changes_nothing_that_identifies() {
        let good =
            json!({"apiVersion": "a/v2", "kind": "A", "metadata": {"name": "x", "uid": "u", "labels": {"k": "2"}, "finalizers": ["no"]}, "spec": 2});
        let converted = accepted(&original(), good.clone(), "a/v2").expect("fine");
        assert_eq!(
            converted,
            json!({"apiVersion": "a/v2", "kind": "A", "metadata": {"name": "x", "uid": "u", "labels": {"k": "2"}, "resourceVersion": "5"}, "spec": 2})
        );
        for (path, value, why) in [
            ("/apiVersion", json!("a/v3"), "invalid groupVersion (expected a/v2, received a/v3)"),
            ("/kind", json!("B"), "invalid kind (expected A, received B)"),
            ("/metadata/name", json!("y"), "must have the same name: x != y"),
            ("/metadata/uid", json!("v"), "must have the same UID: u != v"),
            ("/metadata/labels", json!({"k": 1}), "metadata.labels[k] must be a string in converted object"),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).expect("there") = value;
            assert_eq!(accepted(&original(), bad, "a/v2"), Err(why.to_owned()));
        }
        let mut bad = good;
        bad["metadata"]["labels"] = json!({"-": "x"});
        assert!(accepted(&original(), bad, "a/v2").expect_err("a bad label").starts_with("metadata.labels: Invalid value: \"-\""));
    }

    #[test]
    fn an_answer_must_be_one_to_the_question() {
        let v1 = "apiextensions.k8s.io/v1";
        let good =
            json!({"apiVersion": v1, "kind": "ConversionReview", "response": {"uid": "1", "result": {"status": "Success"}, "convertedObjects": [1]}});
        assert_eq!(outcome(&good, v1, "1"), Ok(vec![json!(1)]));
        assert_eq!(outcome(&good, v1, "2"), Err("expected response.uid=\"2\", got \"1\"".into()));
        assert_eq!(outcome(&json!({"apiVersion": v1, "kind": "ConversionReview"}), v1, "1"), Err("no response provided".into()));
        assert_eq!(outcome(&json!({"kind": "X"}), v1, "1"), Err(format!("expected webhook response of {v1}, Kind=ConversionReview, got , Kind=X")));
        let refused =
            json!({"apiVersion": v1, "kind": "ConversionReview", "response": {"uid": "1", "result": {"status": "Failure", "message": "no"}}});
        assert_eq!(outcome(&refused, v1, "1"), Err("no".into()));
        let silent = json!({"response": {"result": {"status": "Failed"}}});
        assert_eq!(outcome(&silent, "apiextensions.k8s.io/v1beta1", "1"), Err("response.result.status was 'Failed', not 'Success'".into()));
    }
}
