//! What the checker says.

use super::come_to;
use crate::{Decl, Env, Program, Shape, Type};

#[test]
fn mistakes_in_upstreams_words() {
    come_to(&[
        ("a.b", "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')"),
        ("f(1)", "ERROR: <input>:1:2: undeclared reference to 'f' (in container '')"),
        ("1 + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'"),
        ("1 == 'a'", "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, string)'"),
        ("1 && true", "ERROR: <input>:1:1: expected type 'bool' but found 'int'"),
        ("'a'.nope()", "ERROR: <input>:1:9: undeclared reference to 'nope' (in container '')"),
        ("a b", "ERROR: <input>:1:3: Syntax error: extraneous input 'b' expecting <EOF>"),
        ("(1).b", "ERROR: <input>:1:4: type 'int' does not support field selection"),
        ("if", "ERROR: <input>:1:1: reserved identifier: if"),
        (
            "",
            "ERROR: <input>:1:1: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
        ),
    ]);
}

#[test]
fn a_pointer_shows_the_place() {
    let env = Env::new();
    let why = Program::compile(&env, "1 +\n  nope").expect_err("undeclared");
    assert_eq!(why, "ERROR: <input>:2:3: undeclared reference to 'nope' (in container '')\n |   nope\n | ..^");
}

#[test]
fn objects_have_the_fields_of_their_schema() {
    let spec = Decl::object("", [("replicas", Decl::new(Shape::Int), true), ("namespace", Decl::new(Shape::String), false)]);
    let root = Decl::object("", [("spec", spec, true), ("labels", Decl::new(Shape::Map(Decl::new(Shape::String))), false)]);
    let env = Env::new().with("self", root.ty());
    let ty = |source: &str| Program::compile(&env, source).map(|program| program.ty().to_string());
    assert_eq!(ty("self.spec.replicas > 1 && self.spec.__namespace__ != ''"), Ok("bool".into()));
    assert_eq!(ty("self.labels.map(k, self.labels[k])"), Ok("list(string)".into()));
    assert_eq!(
        ty("self.spec.replicas == 'a'").expect_err("wrong").lines().next(),
        Some("ERROR: <input>:1:20: found no matching overload for '_==_' applied to '(int, string)'")
    );
    assert_eq!(ty("self.spec.oops").expect_err("unknown").lines().next(), Some("ERROR: <input>:1:10: undefined field 'oops'"));
    assert_eq!(ty("has(self.spec.oops)").expect_err("unknown").lines().next(), Some("ERROR: <input>:1:4: undefined field 'oops'"));
    assert_eq!(ty("self.?spec.replicas.orValue(1)"), Ok("int".into()));
    assert_eq!(ty("[1, 2].map(x, x + 1)"), Ok("list(int)".into()));
    assert_eq!(ty("{}.a"), Ok("dyn".into()));
    assert_eq!(Program::compile(&Env::new().with("a.b", Type::Int), "a.b + 1").map(|program| program.ty().to_string()), Ok("int".into()));
}
