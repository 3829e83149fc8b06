//! YAML on its way to JSON, as `sigs.k8s.io/yaml` does it: the values that JSON has, keys as text, anchors within bounds, keys that are
//! given twice named by their line.

use crate::untyped::{Duplicate, Reading};
use serde_json::Value;

/// What aliases may make of a document, bytes.
const BUDGET: usize = 8 << 20;
/// Duplicates whose line is looked up: each costs another look at the text.
const MAX_LINES: usize = 16;

/// Reads one document, with its duplicates: `line 9: key "foo" already set in map`.
///
/// # Errors
/// In Go's words, such as `yaml: line 2: mapping values are not allowed in this context`.
pub fn read(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut reading = Reading::new(BUDGET, None);
    let mut value = reading.value(serde_norway::Deserializer::from_slice(text)).map_err(|error| describe(&error))?;
    merge(&mut value);
    let duplicates = reading.duplicates.iter().enumerate().map(|(at, found)| locate(text, at, found)).collect();
    Ok((value, duplicates))
}

/// One duplicate with its line: the text is read again up to it.
fn locate(text: &[u8], at: usize, found: &Duplicate) -> String {
    let mut again = Reading::new(BUDGET, Some(at));
    let stopped = if at < MAX_LINES { again.value(serde_norway::Deserializer::from_slice(text)).err() } else { None };
    match stopped.as_ref().and_then(serde_norway::Error::location) {
        Some(place) => format!("line {}: key \"{}\" already set in map", place.line(), found.key),
        None => found.to_string(),
    }
}

/// The duplicates as one strict error, as Go's parser sums them up.
pub fn summary(duplicates: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))
}

fn describe(error: &serde_norway::Error) -> String {
    let text = error.to_string();
    // The parser names the place at the end, Go at the beginning.
    let why = text.split(" at line ").next().unwrap_or(&text);
    match error.location() {
        Some(place) => format!("yaml: line {}: {why}", place.line()),
        None => format!("yaml: {why}"),
    }
}

/// `<<` takes over the keys of one mapping, or of several, that the one it is in has not.
fn merge(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(merge),
        Value::Object(map) => {
            map.values_mut().for_each(merge);
            let sources = match map.remove("<<") {
                Some(Value::Object(source)) => vec![Value::Object(source)],
                Some(Value::Array(sources)) if sources.iter().all(Value::is_object) => sources,
                Some(other) => {
                    map.insert("<<".into(), other);
                    return;
                }
                None => return,
            };
            for source in sources {
                let Value::Object(source) = source else { continue };
                for (key, value) in source {
                    map.entry(key).or_insert(value);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_become_json() {
        let text = "a: &x {b: 1, c: ~}\nd: [*x, true, 1.5, 'yes', 0x10]\n1: one\ntrue: t\ne:\n  <<: *x\n  b: 2\nf: !tag {g: h}\n";
        let (value, duplicates) = read(text.as_bytes()).unwrap();
        let expected = json!({"a": {"b": 1, "c": null}, "d": [{"b": 1, "c": null}, true, 1.5, "yes", 16], "1": "one", "true": "t",
            "e": {"b": 2, "c": null}, "f": {"g": "h"}});
        assert_eq!((value, duplicates), (expected, vec![]));
        assert_eq!(read(b"").unwrap().0, Value::Null);
    }

    #[test]
    fn duplicates_are_named_by_their_line() {
        let text = "metadata:\n  name: a\nspec:\n  foo: 1\n  list:\n  - x: 1\n    x: 2\n  foo: 2\n";
        let (value, duplicates) = read(text.as_bytes()).unwrap();
        assert_eq!(value["spec"], json!({"foo": 2, "list": [{"x": 2}]}));
        assert_eq!(duplicates, ["line 7: key \"x\" already set in map", "line 8: key \"foo\" already set in map"]);
        assert_eq!(summary(&duplicates), "yaml: unmarshal errors:\n  line 7: key \"x\" already set in map\n  line 8: key \"foo\" already set in map");
        let many: String = (0..1000).map(|_| "a: 1\n").collect();
        assert_eq!(read(many.as_bytes()).unwrap().1.len(), 100);
    }

    #[test]
    fn what_is_broken_or_blows_up_is_refused() {
        assert_eq!(read(b"a: b: c").unwrap_err(), "yaml: line 1: mapping values are not allowed in this context");
        assert!(read(b"a: .nan").unwrap_err().contains("unsupported value"));
        assert!(read(b"? [a]\n: b").is_err() && read(b"a: *none").is_err() && read(b"a\n---\nb").is_err() && read(b"\xff").is_err());
        let deep = format!("a: {}1{}", "[".repeat(5000), "]".repeat(5000));
        assert!(read(deep.as_bytes()).is_err());
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for at in 1..10 {
            let last = at - 1;
            bomb.push_str(&format!("a{at}: &a{at} [{}]\n", vec![format!("*a{last}"); 10].join(", ")));
        }
        let why = read(bomb.as_bytes()).unwrap_err();
        assert!(why.contains("excessive aliasing") || why.contains("repetition limit"), "{why}");
    }
}
