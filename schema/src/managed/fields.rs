//! Sets of fields, in the form in which `fieldsV1` holds them.
//!
//! A set is a trie of path elements as JSON: `{"f:spec":{"f:replicas":{}}}`. An empty node is a member; a node with others below it is one if it also
//! holds `"."`. Managed fields are read, compared and written in this form without being converted: most entries of most writes stay untouched.
//! (Typed path elements, as upstream has them, would be parsed and printed again for every manager of every object that is written.)

use super::element;
use serde_json::{Map, Value};

/// A node of the trie; the root is no member.
pub(crate) type Node = Map<String, Value>;

/// Marks a node with others below it as a member.
const SELF: &str = ".";

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FieldSet(Node);

/// One place of a set that is being built: whether it is a member, and what is below it.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub member: bool,
    pub below: Node,
}

impl Part {
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    /// Puts a part under a path element, if there is anything in it.
    pub(crate) fn put(&mut self, key: String, part: Part) {
        if !part.is_empty() {
            self.below.insert(key, Value::Object(node(part)));
        }
    }

    /// Everything of both.
    pub(crate) fn unite(&mut self, more: Part) {
        self.member |= more.member;
        unite(&mut self.below, more.below);
    }

    /// As the set of a whole object, which is itself no member.
    pub(crate) fn into_set(self) -> FieldSet {
        FieldSet(self.below)
    }
}

fn node(part: Part) -> Node {
    let mut below = part.below;
    if part.member && !below.is_empty() {
        below.insert(SELF.into(), Value::Object(Node::new()));
    }
    below
}

/// Whether the place of a node is itself in the set.
pub(crate) fn is_member(node: &Node) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// The path elements below a node.
pub(crate) fn below(node: &Node) -> impl Iterator<Item = (&str, &Node)> {
    node.iter().filter_map(|(key, below)| Some((key.as_str(), below.as_object()?))).filter(|(key, _)| *key != SELF)
}

fn has_below(node: &Node) -> bool {
    node.len() > usize::from(node.contains_key(SELF))
}

impl FieldSet {
    /// From `fieldsV1` as it was sent. None for what is no such set; path elements of kinds that nobody knows are left out, as upstream does.
    pub(crate) fn parse(sent: Value) -> Option<FieldSet> {
        let Value::Object(sent) = sent else { return None };
        Some(FieldSet(normal(sent)?.below))
    }

    /// From `fieldsV1` as it is stored: in our own form already.
    pub(crate) fn stored(stored: Value) -> FieldSet {
        match stored {
            Value::Object(root) => FieldSet(root),
            _ => FieldSet::default(),
        }
    }

    /// A set with this root.
    pub(crate) fn of(root: Node) -> FieldSet {
        FieldSet(root)
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn root(&self) -> &Node {
        &self.0
    }

    pub(crate) fn root_mut(&mut self) -> &mut Node {
        &mut self.0
    }

    /// Whether the place is in the set.
    pub(crate) fn has(&self, path: &[&str]) -> bool {
        let mut node = &self.0;
        for key in path {
            match node.get(*key) {
                Some(Value::Object(below)) => node = below,
                _ => return false,
            }
        }
        !path.is_empty() && is_member(node)
    }

    /// Adds one place.
    pub(crate) fn insert(&mut self, path: &[&str]) {
        let mut part = Part { member: true, below: Node::new() };
        for key in path.iter().rev() {
            let mut outer = Part::default();
            outer.put((*key).into(), part);
            part = outer;
        }
        unite(&mut self.0, part.below);
    }

    /// Adds what is in the other.
    pub(crate) fn unite(&mut self, more: FieldSet) {
        unite(&mut self.0, more.0);
    }

    /// Takes out the places that are in the other, place by place: what is below them stays.
    pub(crate) fn subtract(&mut self, gone: &FieldSet) {
        subtract(&mut self.0, &gone.0);
    }

    /// Takes out one place; what is below it stays.
    pub(crate) fn drop_one(&mut self, path: &[&str]) {
        let mut one = FieldSet::default();
        one.insert(path);
        self.subtract(&one);
    }

    /// Takes out one place and everything below it.
    pub(crate) fn forget(&mut self, path: &[&str]) {
        forget(&mut self.0, path);
    }

    /// Leaves nothing but these places and what is below them; `f:*` is any element.
    pub(crate) fn keep(&mut self, paths: &[Vec<String>]) {
        keep(&mut self.0, &paths.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    /// The places that are in both.
    pub(crate) fn common(&self, other: &FieldSet) -> FieldSet {
        FieldSet(common(&self.0, &other.0).below)
    }

    /// Every place in the words of messages (`.spec.containers[name="a"].image`), in upstream's order: what is here before what is deeper.
    pub(crate) fn paths(&self) -> Vec<(Vec<&str>, String)> {
        let mut out = Vec::new();
        list(&self.0, &mut Vec::new(), &mut String::new(), &mut out);
        out
    }
}

fn unite(set: &mut Node, more: Node) {
    for (key, more) in more {
        let Value::Object(more) = more else { continue };
        if key == SELF {
            continue;
        }
        match set.get_mut(&key) {
            Some(Value::Object(mine)) => {
                let member = is_member(mine) || is_member(&more);
                unite(mine, more);
                if member && !mine.is_empty() {
                    mine.insert(SELF.into(), Value::Object(Node::new()));
                }
            }
            _ => {
                set.insert(key, Value::Object(more));
            }
        }
    }
}

fn subtract(set: &mut Node, gone: &Node) {
    for (key, gone) in below(gone) {
        let Some(Value::Object(mine)) = set.get_mut(key) else { continue };
        let stays = is_member(mine) && !is_member(gone);
        subtract(mine, gone);
        settle(set, key, stays);
    }
}

/// After something was taken from below a node: it stays if it is still a member, or has something below it.
fn settle(set: &mut Node, key: &str, member: bool) {
    let Some(Value::Object(mine)) = set.get_mut(key) else { return };
    if has_below(mine) {
        if !member {
            mine.remove(SELF);
        }
    } else if member {
        mine.clear();
    } else {
        set.remove(key);
    }
}

fn forget(set: &mut Node, path: &[&str]) {
    match path {
        [] => {}
        [last] => {
            set.remove(*last);
        }
        [first, rest @ ..] => {
            let Some(Value::Object(mine)) = set.get_mut(*first) else { return };
            let member = is_member(mine);
            forget(mine, rest);
            settle(set, first, member);
        }
    }
}

fn keep(set: &mut Node, paths: &[&[String]]) {
    for (key, below) in std::mem::take(set) {
        let steps = paths.iter().filter_map(|path| path.split_first()).filter(|(first, _)| **first == key || *first == "f:*");
        let rest: Vec<&[String]> = steps.map(|(_, rest)| rest).collect();
        match below {
            below if rest.iter().any(|rest| rest.is_empty()) => drop(set.insert(key, below)),
            Value::Object(mut below) if key != SELF => {
                keep(&mut below, &rest);
                if !below.is_empty() {
                    set.insert(key, Value::Object(below));
                }
            }
            _ => {}
        }
    }
}

fn common(a: &Node, b: &Node) -> Part {
    let mut both = Part { member: is_member(a) && is_member(b), below: Node::new() };
    for (key, mine) in below(a) {
        if let Some(Value::Object(theirs)) = b.get(key) {
            both.put(key.into(), common(mine, theirs));
        }
    }
    both
}

fn list<'s>(set: &'s Node, keys: &mut Vec<&'s str>, path: &mut String, out: &mut Vec<(Vec<&'s str>, String)>) {
    let mut here: Vec<(element::Element, &str, &Node)> =
        below(set).filter_map(|(key, node)| Some((element::Element::parse(key)?, key, node))).collect();
    here.sort_by(|a, b| a.0.order(&b.0));
    let length = path.len();
    for (element, key, _) in here.iter().filter(|(_, _, node)| is_member(node)) {
        let mut keys = keys.clone();
        keys.push(key);
        out.push((keys, format!("{path}{element}")));
    }
    for (element, key, node) in here.iter().filter(|(_, _, node)| has_below(node)) {
        keys.push(key);
        path.push_str(&element.to_string());
        list(node, keys, path, out);
        path.truncate(length);
        keys.pop();
    }
}

/// A node as somebody sent it, in our own form.
fn normal(sent: Node) -> Option<Part> {
    let mut part = Part { member: sent.contains_key(SELF), below: Node::new() };
    for (key, below) in sent {
        let Value::Object(below) = below else { return None };
        if key == SELF {
            continue;
        }
        match element::normal(&key) {
            element::Known::Element(key) => {
                let below = normal(below)?;
                let mut one = Part::default();
                one.put(key, below);
                unite(&mut part.below, one.below);
            }
            element::Known::Stranger => {}
            element::Known::Nonsense => return None,
        }
    }
    part.member |= part.below.is_empty();
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> FieldSet {
        FieldSet::parse(value).expect("a set")
    }

    #[test]
    fn places_are_added_and_taken_one_by_one() {
        let mut fields = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        fields.subtract(&set(json!({"f:a": {}})));
        assert_eq!(fields.0, *json!({"f:a": {"f:b": {}}, "f:c": {}}).as_object().unwrap(), "what is below stays");
        fields.unite(set(json!({"f:a": {}, "f:c": {"f:d": {}}})));
        assert_eq!(fields.0, *json!({"f:a": {".": {}, "f:b": {}}, "f:c": {".": {}, "f:d": {}}}).as_object().unwrap());
        fields.subtract(&set(json!({"f:a": {"f:b": {}}, "f:c": {"f:d": {}, ".": {}}})));
        assert_eq!(fields.0, *json!({"f:a": {}}).as_object().unwrap(), "a member with nothing below it is an empty node");
        fields.subtract(&set(json!({"f:a": {"f:x": {}}})));
        assert!(fields.has(&["f:a"]) && !fields.has(&["f:a", "f:x"]) && !fields.has(&[]));
    }

    #[test]
    fn what_is_below_goes_too_when_it_is_forgotten() {
        let mut fields = set(json!({"f:status": {".": {}, "f:x": {}}, "f:metadata": {"f:labels": {"f:a": {}}}}));
        fields.forget(&["f:status"]);
        fields.forget(&["f:metadata", "f:labels"]);
        assert!(fields.is_empty());
    }

    #[test]
    fn what_is_out_of_reach_goes() {
        let mut fields = set(json!({"f:metadata": {"f:labels": {}}, "f:spec": {".": {}, "f:x": {}, "f:containers": {".": {}, "k:{\"name\":\"a\"}": {
            ".": {}, "f:image": {}, "f:resources": {".": {}, "f:limits": {}}}, "k:{\"name\":\"b\"}": {".": {}, "f:image": {}}}}}));
        fields.keep(&[["f:spec", "f:containers", "f:*", "f:resources"].map(String::from).to_vec()]);
        let left = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:resources": {".": {}, "f:limits": {}}}}}});
        assert_eq!(fields.into_value(), left);
    }

    #[test]
    fn common_places_and_their_paths() {
        let a = set(
            json!({"f:spec": {"f:replicas": {}, "f:ports": {"k:{\"port\":443}": {".": {}, "f:name": {}}, "k:{\"port\":80}": {}}, "f:set": {"v:1": {}}}}),
        );
        let paths: Vec<String> = a.common(&a).paths().into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, [".spec.replicas", ".spec.ports[port=80]", ".spec.ports[port=443]", ".spec.ports[port=443].name", ".spec.set[=1]"]);
        assert!(a.common(&set(json!({"f:spec": {}}))).is_empty());
    }

    #[test]
    fn what_is_sent_is_put_in_order_or_refused() {
        let sent = json!({"f:l": {"k:{ \"b\" : 1, \"a\":\"<\"}": {}}, "x:unknown": {"f:a": {}}, "f:e": {"z:": {}}});
        assert_eq!(set(sent).into_value(), json!({"f:l": {"k:{\"a\":\"\\u003c\",\"b\":1}": {}}, "f:e": {}}));
        for bad in [json!([]), json!({"f:a": 1}), json!({"k:nonsense": {}}), json!({"v:": {}}), json!({"f": {}}), json!({"i:x": {}})] {
            assert!(FieldSet::parse(bad.clone()).is_none(), "{bad}");
        }
    }
}
