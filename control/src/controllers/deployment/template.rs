//! The identity of a pod template: its hash, and equality that ignores the label the hash is written to.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The label that ties pods and sets to a template.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Letters and digits that form no words and are not mistaken for each other (Kubernetes' safe encoding).
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The template without the hash label.
pub fn without_hash(mut template: Value) -> Value {
    let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) else { return template };
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
        if labels.is_empty() {
            metadata.remove("labels");
        }
    }
    metadata.retain(|_, value| !value.is_null());
    if metadata.is_empty()
        && let Some(template) = template.as_object_mut()
    {
        template.remove("metadata");
    }
    template
}

/// Ten characters that depend on the template (without the hash label) and the number of collisions met so far, not on the order of keys.
pub fn hash(template: &Value, collisions: i64) -> String {
    let mut digest = Sha256::new();
    feed(&mut digest, template);
    if collisions > 0 {
        digest.update(collisions.to_be_bytes());
    }
    let bytes: [u8; 32] = digest.finalize().into();
    let mut number = bytes.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let mut text = String::with_capacity(10);
    for _ in 0..10 {
        text.push(char::from(ALPHABET[(number % 27) as usize]));
        number /= 27;
    }
    text
}

fn feed(digest: &mut Sha256, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            digest.update(b"{");
            for (key, value) in entries {
                feed_text(digest, key);
                feed(digest, value);
            }
            digest.update(b"}");
        }
        Value::Array(items) => {
            digest.update(b"[");
            items.iter().for_each(|item| feed(digest, item));
            digest.update(b"]");
        }
        Value::String(text) => feed_text(digest, text),
        other => {
            digest.update(b"v");
            feed_text(digest, &other.to_string());
        }
    }
}

fn feed_text(digest: &mut Sha256, text: &str) {
    digest.update(b"s");
    digest.update((text.len() as u64).to_be_bytes());
    digest.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_label_is_ignored() {
        let with = json!({ "metadata": { "labels": { "app": "a", HASH_LABEL: "x" } }, "spec": { "a": 1 } });
        let without = json!({ "metadata": { "labels": { "app": "a" } }, "spec": { "a": 1 } });
        assert_eq!(without_hash(with), without_hash(without));
        let only = json!({ "metadata": { "labels": { HASH_LABEL: "x" } }, "spec": {} });
        assert_eq!(without_hash(only), json!({ "spec": {} }));
    }

    #[test]
    fn the_hash_is_stable_and_tells_templates_apart() {
        let a = json!({ "spec": { "containers": [{ "name": "a", "image": "b" }] } });
        assert_eq!(hash(&a, 0), "jwr96drqr4", "a change here would roll out every Deployment again after an upgrade");
        assert_ne!(hash(&a, 0), hash(&a, 1));
        assert_ne!(hash(&a, 0), hash(&json!({ "spec": { "containers": [{ "name": "ab", "image": "" }] } }), 0));
        assert_eq!(hash(&a, 0).len(), 10);
    }
}
