//! Canonical bytes: an object as it is stored and sent, with a hole where its resourceVersion goes.

use bytes::Bytes;
use serde_json::{Map, Value};

/// Canonical bytes (keys sorted, no whitespace) and the offset at which the decimal resourceVersion goes: inside
/// `"resourceVersion":""` of metadata. Any resourceVersion in `object` is ignored.
pub fn to_draft(object: &Value) -> (Bytes, u32) {
    let mut out = Vec::with_capacity(1024);
    let mut hole = 0;
    let empty = Map::new();
    let top = object.as_object().unwrap_or(&empty);
    let mut keys: Vec<&str> = top.keys().map(String::as_str).chain((!top.contains_key("metadata")).then_some("metadata")).collect();
    keys.sort_unstable();
    out.push(b'{');
    for (at, key) in keys.into_iter().enumerate() {
        separate(&mut out, at);
        string(key, &mut out);
        out.push(b':');
        match top.get(key) {
            Some(Value::Object(metadata)) if key == "metadata" => hole = write_metadata(metadata, &mut out),
            None => hole = write_metadata(&empty, &mut out),
            Some(value) => write(value, &mut out),
        }
    }
    out.push(b'}');
    (out.into(), u32::try_from(hole).unwrap_or(u32::MAX))
}

/// Canonical bytes of any value: keys sorted, no whitespace.
pub fn to_bytes(value: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    write(value, &mut out);
    out.into()
}

fn write_metadata(metadata: &Map<String, Value>, out: &mut Vec<u8>) -> usize {
    const NAME: &str = "resourceVersion";
    let mut keys: Vec<&str> = metadata.keys().map(String::as_str).filter(|k| *k != NAME).chain([NAME]).collect();
    keys.sort_unstable();
    let mut hole = 0;
    out.push(b'{');
    for (at, key) in keys.into_iter().enumerate() {
        separate(out, at);
        string(key, out);
        out.push(b':');
        match metadata.get(key) {
            Some(value) if key != NAME => write(value, out),
            _ => {
                out.push(b'"');
                hole = out.len();
                out.push(b'"');
            }
        }
    }
    out.push(b'}');
    hole
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            out.push(b'{');
            // serde_json's map is sorted unless some crate of the build asks for insertion order; then we sort.
            if map.keys().is_sorted() {
                map.iter().enumerate().for_each(|(at, (key, value))| entry(at, key, value, out));
            } else {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                entries.into_iter().enumerate().for_each(|(at, (key, value))| entry(at, key, value, out));
            }
            out.push(b'}');
        }
        Value::Array(list) => {
            out.push(b'[');
            for (at, value) in list.iter().enumerate() {
                separate(out, at);
                write(value, out);
            }
            out.push(b']');
        }
        Value::String(text) => string(text, out),
        // A number, a bool or null always serializes.
        scalar => serde_json::to_writer(&mut *out, scalar).unwrap_or_default(),
    }
}

fn entry(at: usize, key: &str, value: &Value, out: &mut Vec<u8>) {
    separate(out, at);
    string(key, out);
    out.push(b':');
    write(value, out);
}

fn separate(out: &mut Vec<u8>, at: usize) {
    if at > 0 {
        out.push(b',');
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    serde_json::to_writer(&mut *out, text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hole_is_where_the_resource_version_goes() {
        for object in [
            json!({"kind": "A", "metadata": {"name": "x", "uid": "1", "resourceVersion": "99"}, "spec": {"metadata": {"resourceVersion": "5"}}}),
            json!({"apiVersion": "v1"}),
            json!({"metadata": {}, "z": [1, null, "é\"\n"]}),
        ] {
            let (bytes, hole) = to_draft(&object);
            let (before, after) = bytes.split_at(hole as usize);
            let filled = [before, b"7", after].concat();
            let back: Value = serde_json::from_slice(&filled).unwrap();
            assert_eq!(back["metadata"]["resourceVersion"], "7");
            let mut expected = object.clone();
            expected["metadata"]["resourceVersion"] = "7".into();
            assert_eq!(back, expected);
            assert_eq!(filled, to_bytes(&expected), "same bytes as the plain writer");
        }
    }
}
