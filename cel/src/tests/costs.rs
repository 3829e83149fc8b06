//! Costs, static and at run time. The figures are facts of upstream's estimator.

use crate::{Activation, CALL_LIMIT, Decl, Env, ListKind, Program, Shape, Type};
use serde_json::json;
use std::sync::Arc;

fn estimate(root: &Arc<Decl>, source: &str) -> u64 {
    let env = Env::new().with("self", root.ty());
    Program::compile_estimated(&env, source, root).expect("compiles").1
}

fn field(decl: Arc<Decl>) -> Arc<Decl> {
    Decl::object("", [("value", decl, false)])
}

fn list(of: Arc<Decl>) -> Arc<Decl> {
    Decl::new(Shape::List(of, ListKind::Atomic))
}

#[test]
fn estimates_follow_upstream() {
    let ints = list(Decl::new(Shape::Int));
    // No bound on the list: 1.5 million numbers fit into a request.
    assert_eq!(estimate(&ints, "self.all(x, true)"), 4_718_591);
    assert_eq!(estimate(&ints.clone().bounded(10), "self.all(x, true)"), 32);
    let strings = list(Decl::new(Shape::String));
    assert_eq!(estimate(&strings, "self.all(x, true)"), 3_145_727);
    assert_eq!(estimate(&field(Decl::new(Shape::Int)), "self.value > 5 && true"), 3);
    assert_eq!(estimate(&field(Decl::new(Shape::String).bounded(40)), "self.value.startsWith('abc')"), 3);
    assert_eq!(estimate(&field(Decl::new(Shape::String).bounded(40)), "self.value.matches('abcd')"), 7);
}

fn cost(source: &str) -> u64 {
    let data = json!({"a": {"b": 1}, "list": [1, 2, 3], "text": "0123456789"});
    let program = Program::compile(&Env::new().with("self", Type::Dyn), source).expect("compiles");
    let mut activation = Activation::new();
    activation.bind_json("self", &data, None).expect("JSON");
    let (value, cost) = program.run(&activation, CALL_LIMIT);
    value.expect("evaluates");
    cost
}

#[test]
fn runs_cost_what_upstream_counts() {
    for (source, expected) in [
        ("true", 0),
        ("self", 1),
        ("self.a.b", 3),
        ("has(self.a)", 1),
        ("self.a.b == 1", 4),
        ("self.list[0]", 3),
        ("'a' + self.text", 4),
        ("[self.a.b]", 13),
        ("{'a': self}", 31),
        // What is constant is made once.
        ("[1, 2] + [3]", 1),
        ("duration('1h') == duration('60m')", 1),
        // Per round: the condition 2, the step 3.
        ("self.list.all(x, x > 0)", 2 + 3 * (2 + 3) + 1),
        ("self.text.matches('abcd')", 2 + 2),
        ("self.list.sum()", 2 + 3),
        ("1 in self.list", 2 + 3),
    ] {
        assert_eq!(cost(source), expected, "{source}");
    }
}
