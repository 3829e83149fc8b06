//! Expressions of users, in policies and custom resource definitions.

use crate::text;
use coracle_cel::{Activation, CALL_LIMIT, Decl, Env, Error, ListKind, Program, Shape};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

static SELF: LazyLock<(Arc<Decl>, Value)> = LazyLock::new(|| {
    let list = |of: Arc<Decl>, kind| Decl::new(Shape::List(of, kind)).bounded(8);
    let text = Decl::new(Shape::String).bounded(64);
    let item = Decl::object("", [("name", text.clone(), true), ("size", Decl::new(Shape::Int), false)]);
    let decl = Decl::object(
        "",
        [
            ("n", Decl::new(Shape::Int), true),
            ("x", Decl::new(Shape::Double), true),
            ("s", text.clone(), true),
            ("at", Decl::new(Shape::DateTime), true),
            ("numbers", list(Decl::new(Shape::Int), ListKind::Set), true),
            ("items", list(item, ListKind::Map(vec!["name".into()])), true),
            ("labels", Decl::new(Shape::Map(text)).bounded(8), true),
        ],
    );
    let items = json!([{"name": "a", "size": 1}, {"name": "b"}]);
    let data = json!({
        "n": 7, "x": 1.5, "s": "web-0", "at": "2026-01-02T03:04:05Z", "numbers": [3, 1, 2], "items": items, "labels": {"app": "web", "tier": ""}
    });
    (decl, data)
});

/// An expression about `self`, whose cost is what was estimated at the most, and which is the same whenever it runs.
pub fn expressions(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (decl, data) = &*SELF;
    let env = Env::new().with("self", decl.ty()).with_mutations();
    let (program, estimate) = match Program::compile_estimated(&env, text, decl) {
        Ok(program) => program,
        Err(why) => return assert!(why.starts_with("ERROR: <input>:"), "{why}"),
    };
    let run = || {
        let mut activation = Activation::new();
        activation.bind_json("self", data, Some(decl)).expect("it is of its declaration");
        let (value, cost) = program.run(&activation, CALL_LIMIT);
        (value.map(|value| value.to_json().map(|json| json.to_string())), cost)
    };
    let (value, cost) = run();
    assert_eq!(run(), (value.clone(), cost));
    if value != Err(Error::Budget) {
        assert!(cost <= CALL_LIMIT);
        // Upstream's estimate, which ours is, takes an escaped key for as long as the key; it can be twice that each time.
        let longer = 1 + text.matches("escapeKey").count() as u64;
        assert!(cost <= estimate.saturating_mul(longer), "it cost {cost} where {estimate} was the most");
    }
}
