//! Validation rules in CEL (`x-kubernetes-validations`): compiled once for a schema, evaluated about an object and what it was before
//! (`apiserver/schema/cel`).

use super::{ListType, Node, compare::Was, field_path};
use coracle_api::{
    cause::{Mistake, Path},
    status::Cause,
};
use coracle_cel::{Budget, Decl, Rule, RuleError, RuleText, Shape, Verdict, escape};
use serde_json::Value;
use std::sync::Arc;

/// A rule as it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    rule: Box<str>,
    message: Box<str>,
    message_expression: Box<str>,
    reason: Box<str>,
    field_path: Box<str>,
    optional_old_self: bool,
}

impl Text {
    pub(super) fn read(rule: &Value) -> Text {
        let text = |field: &str| rule[field].as_str().unwrap_or_default().into();
        Text {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: rule["optionalOldSelf"] == true,
        }
    }

    fn parts(&self) -> RuleText<'_> {
        RuleText { rule: &self.rule, message: &self.message, message_expression: &self.message_expression, optional_old_self: self.optional_old_self }
    }

    fn mistake(&self) -> Mistake {
        match &*self.reason {
            "FieldValueForbidden" => Mistake::Forbidden,
            "FieldValueRequired" => Mistake::Required,
            "FieldValueDuplicate" => Mistake::Duplicate,
            _ => Mistake::Invalid,
        }
    }
}

impl Node {
    /// The declaration of what is below a field's name, an element or an entry, as the declaration around it has it.
    pub fn below(decl: &Decl, name: Option<&str>) -> Option<Arc<Decl>> {
        match (&decl.shape, name) {
            (Shape::List(of, _) | Shape::Map(of), None) => Some(of.clone()),
            (_, Some(name)) => Some(decl.field(&escape(name)?)?.decl.clone()),
            _ => None,
        }
    }

    /// Compiles the rules of this very node.
    pub fn compile(&self, decl: &Arc<Decl>) -> Vec<Result<Rule, RuleError>> {
        self.rules.iter().map(|text| Rule::compile(decl, &text.parts())).collect()
    }

    /// Whether this very node has rules.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    fn rules_below(&self) -> bool {
        self.has_rules()
            || self.items().is_some_and(Node::rules_below)
            || self.additional_schema().is_some_and(Node::rules_below)
            || self.properties.iter().any(|(_, node)| node.rules_below())
    }
}

/// A rule, or why it is none; and its text.
type Written = (Result<Rule, String>, Box<str>);

/// The rules of a schema, along its tree.
#[derive(Debug)]
pub struct Rules {
    /// As the node has them; what could not be compiled says why.
    here: Box<[Written]>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
    properties: Box<[(Box<str>, Rules)]>,
}

/// One evaluation of all rules.
#[derive(Clone, Copy)]
pub struct Trial<'a> {
    /// The value.
    pub value: &'a Value,
    /// What it was before.
    pub old: Option<&'a Value>,
    /// Whether what has not changed is only warned of.
    pub ratchet: bool,
    /// Where it lies; empty for the whole object.
    pub base: &'a str,
}

impl Rules {
    /// Compiles the rules of a schema; None if it has none. `whole`: its values are whole objects.
    pub fn compile(node: &Node, whole: bool) -> Option<Rules> {
        node.rules_below().then(|| Self::of(node, whole, None))
    }

    /// Declarations are made for what has rules, and shared with what is below.
    fn of(node: &Node, whole: bool, decl: Option<Arc<Decl>>) -> Rules {
        let decl = decl.or_else(|| if node.has_rules() { node.declaration(whole) } else { None });
        let here = match (&decl, node.has_rules()) {
            (_, false) => Box::default(),
            (Some(decl), true) => {
                let compiled = node.compile(decl).into_iter().zip(&node.rules);
                compiled.map(|(rule, text)| (rule.map_err(why), normal(node, text))).collect()
            }
            (None, true) => {
                let why = "rule compiler initialization error: failed to convert to declType for CEL validation rules";
                [(Err(why.to_owned()), Box::default())].into()
            }
        };
        let below = |node: &Node, name: Option<&str>| {
            let around = decl.as_ref().and_then(|decl| Node::below(decl, name));
            node.rules_below().then(|| Self::of(node, node.embedded, around))
        };
        Rules {
            here,
            items: node.items().and_then(|items| below(items, None)).map(Box::new),
            additional: node.additional_schema().and_then(|entry| below(entry, None)).map(Box::new),
            properties: node.properties.iter().filter_map(|(name, node)| Some((name.clone(), below(node, Some(name))?))).collect(),
        }
    }

    /// Evaluates all rules about a value that is valid otherwise. Failures of what has not changed are warnings.
    pub fn check(&self, node: &Node, trial: Trial<'_>, budget: &mut Budget) -> (Vec<Cause>, Vec<String>) {
        let mut run = Run { budget, causes: Vec::new(), warnings: Vec::new(), stopped: false };
        let here = trial.old.filter(|_| trial.ratchet).map(|old| Was::new(node, old, trial.value));
        let place = Place { node, value: trial.value, old: trial.old, here, nearest: None };
        let root = Path::Root;
        let path = if trial.base.is_empty() { root } else { root.field(trial.base) };
        run.walk(self, place, path);
        (run.causes, run.warnings)
    }
}

/// What is shown of a rule that does not compile.
fn why(error: RuleError) -> String {
    let (RuleError::Rule(why) | RuleError::MessageExpression(why)) = error;
    format!("rule compile error: {why}")
}

fn normal(node: &Node, text: &Text) -> Box<str> {
    field_path(&text.field_path, node, true).map(|(normal, _)| normal.into()).unwrap_or_default()
}

/// A value at its place.
#[derive(Clone, Copy)]
struct Place<'a> {
    node: &'a Node,
    value: &'a Value,
    /// The value before that rules may compare it with.
    old: Option<&'a Value>,
    /// The same for what need not be valid as long as it does not change: this very value, or the nearest around it that can be told.
    here: Option<Was<'a>>,
    nearest: Option<Was<'a>>,
}

impl<'a> Place<'a> {
    fn step(self, node: &'a Node, value: &'a Value, old: Option<&'a Value>, here: Option<Was<'a>>) -> Place<'a> {
        let nearest = self.here.or(self.nearest);
        Place { node, value, old, here, nearest }
    }

    fn field(self, node: &'a Node, name: &str, value: &'a Value) -> Place<'a> {
        let old = self.old.and_then(|old| old.as_object()?.get(name));
        let below = self.step(node, value, old, self.here.and_then(|was| was.field(name)));
        // Type and kind are the same for old and new by conversion.
        match self.here.is_some() && self.nearest.is_none() && matches!(name, "apiVersion" | "kind") {
            true => Place { here: None, nearest: None, ..below },
            false => below,
        }
    }

    fn element(self, node: &'a Node, at: usize, value: &'a Value) -> Place<'a> {
        let here = self.here.and_then(|was| was.index(at));
        let old = self.old.filter(|_| self.node.list == ListType::Map).and_then(|old| Was::new(self.node, old, self.value).index(at)).map(Was::old);
        self.step(node, value, old, here)
    }

    fn unchanged(self) -> bool {
        self.here.or(self.nearest).is_some_and(Was::same)
    }
}

struct Run<'b> {
    budget: &'b mut Budget,
    causes: Vec<Cause>,
    warnings: Vec<String>,
    stopped: bool,
}

impl Run<'_> {
    fn walk(&mut self, rules: &Rules, place: Place<'_>, path: Path<'_>) {
        if place.value.is_null() {
            return;
        }
        self.here(rules, place, path);
        match place.value {
            Value::Array(list) => {
                let (Some(rules), Some(items)) = (&rules.items, place.node.items()) else { return };
                for (at, value) in list.iter().enumerate() {
                    if !self.stopped {
                        self.walk(rules, place.element(items, at, value), path.index(at));
                    }
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    if let (Some(rules), Some(entry), false) = (&rules.additional, place.node.additional_schema(), self.stopped) {
                        self.walk(rules, place.field(entry, name, value), path.key(name));
                    }
                    let rules = rules.properties.binary_search_by(|(its, _)| (**its).cmp(name)).ok().and_then(|at| rules.properties.get(at));
                    if let (Some((_, rules)), Some(property), false) = (rules, place.node.property(name), self.stopped) {
                        self.walk(rules, place.field(property, name, value), path.field(name));
                    }
                }
            }
            _ => {}
        }
    }

    fn here(&mut self, rules: &Rules, place: Place<'_>, path: Path<'_>) {
        let kind = Value::from(place.node.kind());
        let old = place.old.filter(|old| !old.is_null());
        for ((rule, below), text) in rules.here.iter().zip(&place.node.rules) {
            if self.stopped {
                return;
            }
            let rule = match rule {
                Ok(rule) => rule,
                Err(why) => {
                    self.causes.push(Cause::of(Mistake::Invalid, at(path, ""), Some(&kind), why));
                    continue;
                }
            };
            match rule.evaluate(place.value, old, self.budget) {
                Verdict::Holds | Verdict::Skipped => {}
                Verdict::Wrong(why) => self.causes.push(Cause::of(Mistake::Invalid, at(path, ""), Some(&kind), &why)),
                Verdict::Exhausted(why) => {
                    self.causes.push(Cause::of(Mistake::Invalid, at(path, ""), Some(&kind), &why));
                    self.stopped = true;
                }
                Verdict::Fails(message) => {
                    let mistake = text.mistake();
                    let bad = match (mistake, place.node.kind()) {
                        (Mistake::Forbidden | Mistake::Required, _) | (_, "object" | "array") => None,
                        _ => Some(place.value),
                    };
                    let detail = if mistake == Mistake::Duplicate { "" } else { &message };
                    let cause = Cause::of(mistake, at(path, below), bad, detail);
                    if !rule.uses_old_self() && place.unchanged() {
                        self.warnings.push(cause.line());
                    } else {
                        self.causes.push(cause);
                    }
                }
            }
        }
    }
}

/// A place as errors show it, and a path below it.
fn at(path: Path<'_>, below: &str) -> String {
    match (path, below) {
        (Path::Root, "") => "<nil>".to_owned(),
        (Path::Root, below) => below.to_owned(),
        (path, "") => path.to_string(),
        (path, below) => format!("{path}.{below}"),
    }
}
