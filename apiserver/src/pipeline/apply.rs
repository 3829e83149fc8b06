//! Server-side apply: reading what is applied, and creating what is not there yet. The merge is the schema's ([`coracle_schema::managed`]).

use super::{Answer, Core, Request, Verb, create::Tried, decode, handle::attributes, managers, metadata, update::conflict};
use crate::auth::Attributes;
use coracle_api::{names, status::Status};
use coracle_schema::{FieldValidation, yaml};
use serde_json::Value;
use std::sync::Arc;

/// What a manager applies.
pub(super) struct Config {
    /// As it was sent: neither canonical nor defaulted.
    pub value: Value,
    /// `line 9: key "foo" already set in map`
    duplicates: Vec<String>,
}

impl Config {
    /// Reads YAML (JSON is YAML).
    ///
    /// # Errors
    /// 400 for what is no object.
    pub fn read(body: &[u8]) -> Result<Config, Status> {
        let wrong = |why: &str| Status::bad_request(format!("error decoding YAML: {why}"));
        let (value, duplicates) = match coracle_schema::read_json(body) {
            Ok((value, duplicates)) if duplicates.is_empty() => (value, duplicates),
            // Lines are YAML's.
            _ => yaml::read(body).map_err(|why| wrong(&why))?,
        };
        if !value.is_object() {
            return Err(wrong("the body must be an object"));
        }
        if decode::deeper_than(&value, decode::MAX_DEPTH) {
            return Err(Status::bad_request(format!("the object is nested deeper than {} levels", decode::MAX_DEPTH)));
        }
        Ok(Config { value, duplicates })
    }

    /// What field validation says of the text: unknown fields are errors anyway, keys that stand twice are errors or warnings.
    pub fn judge(&self, mode: FieldValidation) -> Result<Vec<String>, Status> {
        match mode {
            FieldValidation::Strict if !self.duplicates.is_empty() => {
                let why = yaml::summary(&self.duplicates);
                Err(Status::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {why}")))
            }
            FieldValidation::Warn => Ok(self.duplicates.clone()),
            _ => Ok(Vec::new()),
        }
    }

    fn metadata(&self, field: &str) -> Option<&str> {
        self.value.get("metadata")?.get(field)?.as_str().filter(|text| !text.is_empty())
    }
}

impl Core {
    /// Creates what was applied and is not there. None if it is there by now.
    pub(super) async fn create_applied(self: &Arc<Self>, request: &Request, config: &Config) -> Result<Option<Answer>, Status> {
        self.authorize(&request.user, &Attributes { verb: Verb::Create.as_str(), ..attributes(request) })?;
        let now = names::rfc3339(jiff::Timestamp::now());
        let (schema, versions) = (self.own_schema(request)?, self.versions(request));
        let writer = managers::writer(request, &now, &versions);
        let mut new = versions.settle(|| schema.apply(None, &config.value, &writer, request.write.force)).await??;
        request.warnings.extend(config.judge(request.write.field_validation)?);
        if let Some(uid) = config.metadata("uid") {
            let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(conflict(request, &why));
        }
        if config.metadata("resourceVersion").is_some() {
            return Err(conflict(request, "resourceVersion was specified, and no existing object was found"));
        }
        decode::patched(self, request, &mut new, None)?;
        metadata::agree_with_path(&mut new, &request.namespace, &request.name)?;
        self.to_stored(&request.resource, &mut new)?;
        match self.try_create(request, new).await? {
            Tried::Done(answer) => Ok(Some(answer)),
            Tried::Exists(_) | Tried::Lost => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Config {
        Config::read(text.as_bytes()).expect("reads")
    }

    #[test]
    fn yaml_and_json_are_read() {
        assert_eq!(read("a: 1\nb:\n- x\n").value, json!({"a": 1, "b": ["x"]}));
        assert_eq!(read("{\"a\": 1}").value, json!({"a": 1}));
        for bad in ["", "[]", "a: [", "- a"] {
            assert_eq!(Config::read(bad.as_bytes()).err().map(|status| status.code), Some(400), "{bad}");
        }
        assert!(Config::read("[".repeat(5_000).as_bytes()).is_err());
    }

    #[test]
    fn keys_that_stand_twice_are_named_with_their_line() {
        let twice = read("spec:\n  foo: 1\n  bar: 2\n  foo: 3\n");
        assert_eq!(twice.value, json!({"spec": {"foo": 3, "bar": 2}}), "the last one counts");
        let error = twice.judge(FieldValidation::Strict).expect_err("strict");
        assert!(error.message.ends_with("line 4: key \"foo\" already set in map"), "{}", error.message);
        assert_eq!(twice.judge(FieldValidation::Warn).expect("warns"), ["line 4: key \"foo\" already set in map"]);
        assert!(read("a: {b: 1}\nc: {b: 1}\n").judge(FieldValidation::Strict).expect("fine").is_empty());
        assert!(read("{\"a\": 1,\n\"a\": 2}").judge(FieldValidation::Strict).is_err());
    }
}
