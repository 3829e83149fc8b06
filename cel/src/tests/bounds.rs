//! No expression hangs, swells or panics.

use crate::{Activation, CALL_LIMIT, Env, Error, Program, Type, Val};
use proptest::prelude::*;
use serde_json::json;

/// Runs with `self` bound to JSON.
fn run(source: &str, data: &serde_json::Value) -> Result<String, Error> {
    let env = Env::new().with("self", Type::Dyn).with_mutations();
    let program = Program::compile(&env, source).expect("compiles");
    let mut activation = Activation::new();
    activation.bind_json("self", data, None).expect("JSON");
    program.run(&activation, CALL_LIMIT).0.map(|value| value.to_json().map_or_else(|why| why, |json| json.to_string()))
}

#[test]
fn loops_over_large_lists_are_cut_off() {
    let data = json!({"list": (0..100_000).collect::<Vec<_>>(), "text": "x".repeat(3 << 20), "words": vec!["word"; 200_000]});
    for source in [
        "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c >= 0)))",
        "self.list.map(a, self.list.map(b, self.list))",
        "self.list.map(a, self.list + self.list)",
        "self.list.map(a, self.text + self.text)",
        "self.list.map(a, self.text.replace('', self.text))",
        "self.text.replace('x', self.text)",
        "self.list.exists(a, self.text.size() < 0)",
        "self.list.exists(a, self.text.contains('y'))",
        "self.list.exists(a, self.text == self.text + 'y')",
        "self.list.exists(a, self.list == self.list + [1])",
        "self.list.exists(a, self.words.join('-') == '')",
        "self.list.exists(a, self.words.distinct().size() == 0)",
        "self.list.exists(a, self.text.matches('(x+x+)+y'))",
        "self.list.exists(a, self.text.findAll('x').size() == 0)",
        "self.list.exists(a, self.text.split('').size() == 0)",
        "self.list.exists(a, 'a'.matches('(a{1,100}){1,100}' + string(a)))",
        "lists.range(1000000000000)",
        "lists.range(100000).sortBy(a, -a).size() == 0 || lists.range(100000).map(a, lists.range(100000)).size() == 0",
        "self.list.map(a, '%s'.format([self.list]))",
        "self.list.transformMap(a, b, self.list.transformMap(c, d, d))",
        "[self.list].map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a)",
        "['a'].map(a, self.text + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a)",
    ] {
        assert_eq!(run(source, &data), Err(Error::Budget), "{source}");
    }
}

#[test]
fn nothing_absorbs_the_limit() {
    let data = json!({"list": (0..100_000).collect::<Vec<_>>()});
    assert_eq!(run("self.list.all(a, self.list.all(b, true)) || true", &data), Err(Error::Budget));
    assert_eq!(run("[1].exists(x, self.list.all(a, self.list.all(b, true)))", &data), Err(Error::Budget));
}

/// Longest text, bytes.
const MAX: usize = 32 * 1024;

#[test]
fn deep_and_long_texts_are_refused_or_run() {
    let env = Env::new().with("a", Type::Dyn);
    for source in [
        format!("1{}", "+1".repeat(15_000)),
        "-".repeat(30_000) + "1",
        format!("a{}", ".b".repeat(15_000)),
        format!("{}1{}", "(".repeat(15_000), ")".repeat(15_000)),
        format!("{}1{}", "[".repeat(200), "]".repeat(200)),
        "[".repeat(30_000),
        "a?1:".repeat(8_000) + "1",
        "a.optMap(x, x)".to_string() + &".optMap(x, x)".repeat(60),
        format!("{}1{}", "[1].map(x, ".repeat(60), ")".repeat(60)),
        "x".repeat(40_000),
    ] {
        if let Ok(program) = Program::compile(&env, &source) {
            let _ = program.run(&Activation::new(), CALL_LIMIT);
        }
    }
    // What the parser has to recover from, in every way it can, at the longest there may be.
    for piece in [
        "(",
        "[",
        "{",
        ")",
        "]",
        "}",
        "([{",
        "{1:",
        "a{b:",
        "a?",
        "a?(",
        "a?1:",
        "a&&",
        "a&&b||",
        "a<",
        "a in ",
        "'",
        "\"",
        "'''",
        "'\\",
        ",",
        "@",
        "@ a ",
        "a ",
        "1 ",
        "?",
        ":",
        "a.?b",
        "a[?",
        "has(",
        "[1].map(x,",
        "a.optMap(x,",
        "//",
        "!-",
        "-!",
        "1e",
        "0x",
        "1u",
        "b'",
        "r\"",
        "`",
        "if ",
        "\u{1f600}",
        "\u{feff}",
        "\0",
        "\r",
        "\\",
        "..",
        "==",
        "a.all(x,x.all(y,y)).",
        "\u{2028}",
        "b'\\377",
        "'\\U00110000'",
        "Object{",
        "x:",
    ] {
        let source = piece.repeat(MAX / piece.len());
        if let Err(why) = Program::compile(&env, &source) {
            assert!(why.starts_with("ERROR: <input>:") && why.len() < 4 * MAX, "{piece}: {} bytes", why.len());
        }
        let balanced = format!("{}{}", "f(".repeat(249), ")".repeat(249));
        let _ = Program::compile(&env, &format!("{balanced}{piece}{balanced}"));
    }
    let deep = format!("{}1{}", "(".repeat(251), ")".repeat(251));
    let why = Program::compile(&env, &deep).expect_err("too deep");
    assert!(why.starts_with("ERROR: <input>:1:251: expression recursion limit exceeded: 250"), "{why}");
    // Within the bound it works, on a small stack as well.
    let long = format!("true{}", " && true".repeat(3000));
    let nested = format!("{}1{}", "[1].map(x, ".repeat(40), ")".repeat(40));
    let sum = format!("1{}", "+1".repeat(240));
    let all = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        [long, nested, sum].iter().all(|source| {
            let program = Program::compile(&Env::new(), source).expect("compiles");
            program.run(&Activation::new(), CALL_LIMIT).0.is_ok()
        })
    });
    assert!(all.expect("thread").join().expect("no overflow"));
}

#[test]
fn types_that_double_are_refused() {
    let source = format!("[{{1: 1}}]{}", (0..40).map(|i| format!(".map(x{i}, {{x{i}: x{i}}})")).collect::<String>());
    let _ = Program::compile(&Env::new(), &source);
    let source = format!("[[{{}}]]{}", (0..40).map(|i| format!(".map(x{i}, [x{i}, x{i}])")).collect::<String>());
    let _ = Program::compile(&Env::new(), &source);
}

const SEEDS: [&str; 14] = [
    "self.list.all(x, x > 1 && x < 10) || has(self.a.b)",
    "self.text.split(',').map(x, x.trim()).filter(x, x != '').join(', ').replace('a', 'b', 2)",
    "'%s %d %.3f'.format([self.text, 1, 2.0]) + string(quantity('1Gi').add(1).asInteger())",
    "self.?a.?b.orValue({'k': [1, 2u, 3.0]}).size() == 1 ? timestamp('2020-01-01T00:00:00Z').getHours('+01:00') : 2",
    "{'a': 1, 'b': self}.transformMap(k, v, k != 'a', [v])",
    "[1, 2, 3].sortBy(x, -x).slice(0, 2).flatten(1).sum() % 7 - 9223372036854775807",
    "ip('::1').isLoopback() && cidr('10.0.0.0/8').containsIP('10.1.2.3') && url('https://a:1/b?c=d').getQuery().c[0] == 'd'",
    "self.a.matches('^(a|b)*$') && self.text.findAll('[a-z]+', 3).size() < 5",
    "optional.of(self).optMap(x, x.list).value().exists_one(i, i == 1)",
    "Object{spec: Object.spec{a: [?optional.none(), 1], ?b: optional.of('x')}}",
    "semver('1.2.3').compareTo(semver('v1.2', true)) == -1 && format.dns1123Label().validate(self.text).hasValue()",
    "duration('1h') + duration('30m') > duration('-1.5s') && b'\\xff\\u00e4' != bytes(self.text)",
    "self.list[?5].or(optional.of(self.list[0])).hasValue() && 'x' in self && !(3 in self.list)",
    "type(self.a) == map && dyn(self.list)[1] in [1, 2] && size(self.text) >= 0u",
];

fn attempt(source: &str, data: &serde_json::Value) {
    let env = Env::new().with("self", Type::Dyn).with_mutations();
    if let Ok(program) = Program::compile(&env, source) {
        let mut activation = Activation::new();
        activation.bind("self", Val::Null);
        let _ = program.run(&activation, CALL_LIMIT);
        activation.bind_json("self", data, None).expect("JSON");
        let _ = program.run(&activation, CALL_LIMIT).0.map(|value| value.to_json());
    }
}

/// A seed with parts cut out, doubled, swapped with another seed's, or overwritten.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..12usize, 0..SEEDS.len(), 0..5u8);
    (0..SEEDS.len(), prop::collection::vec(edit, 1..5)).prop_map(|(seed, edits)| {
        let mut text: Vec<char> = SEEDS[seed].chars().collect();
        for (at, from, length, other, kind) in edits {
            let at = at.index(text.len() + 1);
            let other: Vec<char> = SEEDS[other].chars().collect();
            let from = from.index(other.len());
            let piece = other[from..(from + length * 3).min(other.len())].to_vec();
            let end = (at + length).min(text.len());
            match kind {
                0 => drop(text.splice(at..end, [])),
                1 => drop(text.splice(at..at, piece)),
                2 => drop(text.splice(at..end, piece)),
                3 => drop(text.splice(at..at, text[at..end].to_vec())),
                _ => drop(text.splice(at..end, "(".chars())),
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_texts_do_no_harm(source in "[a-z0-9'\"(){}.,?:&|!+*/%=<> \\[\\]\\\\\u{e4}-]{0,40}") {
        attempt(&source, &json!({}));
    }

    #[test]
    fn mutated_expressions_do_no_harm(source in mutated()) {
        attempt(&source, &json!({"list": [1, 2, 3], "a": {"b": "c"}, "text": "a, b,c"}));
    }
}
