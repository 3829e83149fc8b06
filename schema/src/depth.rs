//! How deep a value nests. Parsers bound that for texts; a JSON patch can nest a value again and again, and everything that walks a
//! value (dropping it included) recurses.

use serde_json::Value;

/// Deepest nesting that is walked: twice what a parser lets in.
pub const MAX_DEPTH: usize = 256;

/// The depth of a value (a scalar is 0), found without recursion; `None` when it exceeds [`MAX_DEPTH`].
pub fn depth(value: &Value) -> Option<usize> {
    let mut open: Vec<(&Value, usize)> = vec![(value, 0)];
    let mut deepest = 0;
    while let Some((value, depth)) = open.pop() {
        deepest = deepest.max(depth);
        if deepest > MAX_DEPTH {
            return None;
        }
        match value {
            Value::Array(list) => open.extend(list.iter().map(|v| (v, depth + 1))),
            Value::Object(map) => open.extend(map.values().map(|v| (v, depth + 1))),
            _ => {}
        }
    }
    Some(deepest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn depth_counts_nesting() {
        assert_eq!(depth(&json!(1)), Some(0));
        assert_eq!(depth(&json!({"a": [1, {"b": []}], "c": {}})), Some(3));
        let mut value = json!(1);
        for _ in 0..=MAX_DEPTH {
            value = json!([value]);
        }
        assert_eq!(depth(&value), None);
    }
}
