//! Expressions and what comes of them, library by library.

mod bounds;
mod checking;
mod costs;

use crate::{Activation, CALL_LIMIT, Env, Program};

/// What an expression without variables comes to: its JSON, or its error. Checked as it is, so mistakes show too.
pub(super) fn outcome(source: &str) -> String {
    let program = match Program::compile(&Env::new().with_mutations(), source) {
        Ok(program) => program,
        Err(why) => return why.lines().next().unwrap_or_default().to_string(),
    };
    match program.run(&Activation::new(), CALL_LIMIT).0 {
        Ok(value) => value.to_json().map_or_else(|why| why, |json| json.to_string()),
        Err(why) => why.to_string(),
    }
}

fn all_true(expressions: &[&str]) {
    for expression in expressions {
        assert_eq!(outcome(expression), "true", "{expression}");
    }
}

fn come_to(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        assert_eq!(outcome(expression), *expected, "{expression}");
    }
}

#[test]
fn the_language() {
    all_true(&[
        "1 + 2 * 3 == 7 && 7 / 2 == 3 && -7 % 3 == -1 && 1u + 2u == 3u",
        "1.5 + 1.5 == 3.0 && 1 < 2.5 && 2u > 1 && dyn(1) == dyn(1.0) && dyn(1) != dyn('1')",
        "'a' + 'b' == 'ab' && 'a' < 'b' && b'a' + b'b' == b'ab' && [1] + [2] == [1, 2]",
        "{'a': 1, 'b': 2} == {'b': 2, 'a': 1} && {'a': 1}.a == 1 && {'a': 1}['a'] == 1 && 'a' in {'a': 1} && !('b' in {'a': 1})",
        "has({'a': 1}.a) && !has({'a': 1}.b) && [1, 2, 3][1] == 2 && 2 in [1, 2]",
        "true || 1 / 0 == 0",
        "1 / 0 == 0 || true",
        "!(false && 1 / 0 == 0) && !(1 / 0 == 0 && false)",
        "(true ? 1 : 2) == 1",
        "type(1) == int && type('') == string && type([]) == list && type({}) == map && type(null) == null_type && type(type(1)) == type",
        "int('42') == 42 && int(3.9) == 3 && uint(3) == 3u && double('1.5') == 1.5 && string(1.0) == '1' && string(true) == 'true' && bool('true')",
        "string(b'abc') == 'abc' && bytes('abc') == b'abc' && size('äöü') == 3 && size(b'äöü') == 6 && 'abc'.size() == 3 && size({1: 2}) == 1",
        "r'\\d' == '\\\\d' && '''a\nb''' == 'a\\nb' && '\\u00e4' == 'ä'",
        "dyn({1: 'a', 2: 'b'})[2u] == 'b' && dyn({1: 'a'})[1.0] == 'a'",
        "dyn(null) == null && [null][0] == null",
    ]);
    come_to(&[
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("-(-9223372036854775807 - 1)", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("[1][5]", "index out of bounds: 5"),
        ("{'a': 1}.b", "no such key: b"),
        ("{'a': 1}['b']", "no such key: b"),
        ("dyn('a') + dyn(1)", "no such overload"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("{'a': 1, 'a': 2}", "Failed with repeated key"),
        ("[{'a': [1, 2.5, 'x', true, null]}]", "ERROR: <input>:1:12: expected type 'int' but found 'double'"),
        ("[{'a': [dyn(1), 2.5]}]", "ERROR: <input>:1:17: expected type 'dyn' but found 'double'"),
    ]);
}

#[test]
fn macros() {
    all_true(&[
        "[1, 2, 3].all(x, x > 0) && ![1, 2, 3].all(x, x > 1) && [1, 2].exists(x, x == 2) && ![].exists(x, x == 1)",
        "[1, 2, 2].exists_one(x, x == 1) && ![1, 2, 2].exists_one(x, x == 2)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6] && [1, 2, 3].map(x, x > 1, x * 2) == [4, 6] && [1, 2, 3].filter(x, x > 1) == [2, 3]",
        "{'a': 1, 'b': 2}.all(k, k in ['a', 'b']) && {'a': 1}.exists(k, k == 'a') && {'a': 1, 'b': 2}.map(k, k).size() == 2",
        "[1, 2].map(x, [3, 4].map(y, x * y)) == [[3, 4], [6, 8]]",
        "[0, 1].exists(x, 1 / x == 1) && ![1, 0].all(x, 1 / x == 2)",
        "[1, 2, 3].all(i, v, i + 1 == v) && [5].exists(i, v, i == 0 && v == 5) && [1, 1].existsOne(i, v, i == 0)",
        "{'a': 1}.all(k, v, k == 'a' && v == 1) && {'a': 1, 'b': 2}.exists(k, v, v == 2)",
        "[1, 2].transformList(i, v, i * v) == [0, 2] && [1, 2].transformList(i, v, i > 0, v) == [2]",
        "{'a': 1}.transformList(k, v, k + string(v)) == ['a1']",
        "{'a': 1, 'b': 2}.transformMap(k, v, v + 1) == {'a': 2, 'b': 3} && [7].transformMap(i, v, v) == {0: 7}",
        "{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v) == {'b': 2}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
    ]);
    come_to(&[
        ("{'a': 'x', 'b': 'x'}.transformMapEntry(k, v, {v: k})", "insert failed: key x already exists"),
        ("[1].all(x.y, true)", "ERROR: <input>:1:10: argument must be a simple name"),
        ("[1].all(x, x, true)", "ERROR: <input>:1:8: duplicate variable name: x"),
        ("[0].all(x, 1 / x == 1)", "division by zero"),
        ("[0].map(x, 1 / x)", "division by zero"),
        ("has(a)", "ERROR: <input>:1:5: invalid argument to has() macro"),
        ("1.all(x, true)", "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"),
    ]);
}

#[test]
fn optionals() {
    all_true(&[
        "optional.of(1).hasValue() && !optional.none().hasValue() && optional.of(1).value() == 1",
        "{'a': 1}.?a == optional.of(1) && {'a': 1}.?b == optional.none() && {'a': 1}[?'b'].orValue(3) == 3 && [1][?0].value() == 1",
        "!{'a': {'b': 1}}.?x.b.hasValue() && {'a': {'b': 1}}.?a.b.value() == 1 && {'a': {'b': 1}}.?a.?c.orValue(2) == 2",
        "optional.of(2).optMap(x, x * 2).value() == 4 && !optional.none().optMap(x, x).hasValue()",
        "optional.of({'a': 1}).optFlatMap(x, x.?a).value() == 1 && optional.none().or(optional.of(1)).value() == 1",
        "optional.ofNonZeroValue('') == optional.none() && optional.ofNonZeroValue(0) == optional.none() && optional.ofNonZeroValue('a').hasValue()",
        "[?optional.of(1), ?optional.none(), 3] == [1, 3] && {?'a': optional.none(), ?'b': optional.of(1)} == {'b': 1}",
        "[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && ![].first().hasValue()",
        "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.of(1)].unwrapOpt() == [1]",
        "optional.of(1).orValue(1 / 0) == 1",
    ]);
    come_to(&[("optional.none().value()", "optional.none() dereference")]);
}

#[test]
fn strings() {
    all_true(&[
        "'hello'.charAt(1) == 'e' && 'hello'.charAt(5) == '' && 'häl'.charAt(1) == 'ä'",
        "'hello mellow'.indexOf('ello') == 1 && 'hello mellow'.indexOf('ello', 2) == 7 && 'hello'.indexOf('x') == -1 && 'hello'.indexOf('') == 0",
        "'hello mellow'.lastIndexOf('ello') == 7 && 'hello mellow'.lastIndexOf('ello', 6) == 1 && 'hello'.lastIndexOf('') == 5",
        "'TacoCat'.lowerAscii() == 'tacocat' && 'TacoCÆt'.upperAscii() == 'TACOCÆT' && ' \\ttrim\\n '.trim() == 'trim'",
        "'hello hello'.replace('he', 'we') == 'wello wello' && 'hello hello'.replace('he', 'we', 1) == 'wello hello' && 'ab'.replace('', '_') == '_a_b_' && 'a'.replace('a', 'b', 0) == 'a'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'abc'.split('') == ['a', 'b', 'c'] && 'a,b'.split(',', 0) == [] && 'abc'.split('', 2) == ['a', 'bc']",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && 'ta©o'.substring(2, 3) == '©'",
        "['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab' && [].join(',') == ''",
        "strings.quote('a\"b\\n') == '\"a\\\\\"b\\\\n\"'",
        "'abc'.contains('b') && 'abc'.startsWith('ab') && 'abc'.endsWith('bc')",
        "'%s is %d, %.2f, %x, %X, %b, %o, %e %.1f %%'.format(['a', 7, 1.5, 255, 'hi', 5, 8, 1234.5678, 12345.0]) == 'a is 7, 1.50, ff, 6869, 101, 10, 1.234568×10⁰³ 12,345.0 %'",
        "'%s %s %s'.format([[1, 'a'], {'k': true}, null]) == '[1, a] {k: true} null'",
        "'%s %s'.format([duration('90s'), timestamp('2020-01-02T03:04:05Z')]) == '90s 2020-01-02T03:04:05Z'",
    ]);
    come_to(&[
        ("'abc'.charAt(4)", "index out of range: 4"),
        ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
        ("'%d'.format([])", "index 0 out of range"),
        ("'%q'.format([1])", "could not parse formatting clause: unrecognized formatting clause \"q\""),
        ("'abc'.reverse()", "ERROR: <input>:1:14: found no matching overload for 'reverse' applied to 'string.()'"),
    ]);
}

#[test]
fn lists_and_sets() {
    all_true(&[
        "[1, 3].isSorted() && !['b', 'a'].isSorted() && [1, 2].sum() == 3 && [1.5].sum() == 1.5 && [1, 3, 2].max() == 3 && ['b', 'a'].min() == 'a'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && ['a'].indexOf('b') == -1",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3] && [[1], [2, 3]].flatten() == [1, 2, 3] && [[[1]], [[2]]].flatten(2) == [1, 2]",
        "[3, 1, 2].sort() == [1, 2, 3] && ['b', 'a'].sort() == ['a', 'b'] && [1, 2, 3].reverse() == [3, 2, 1] && lists.range(3) == [0, 1, 2]",
        "[{'n': 2}, {'n': 1}].sortBy(e, e.n) == [{'n': 1}, {'n': 2}] && [1, 2, 1, 3].distinct() == [1, 2, 3]",
        "sets.contains([1, 2, 3], [2]) && !sets.contains([1], [2]) && sets.equivalent([1, 2, 2], [2, 1]) && sets.intersects([1], [1, 2]) && !sets.intersects([], [1])",
    ]);
    come_to(&[
        ("[].max()", "max called on empty list"),
        ("[1, 2].slice(0, 5)", "cannot slice(0, 5), list is length 2"),
        ("['a'].sum()", "ERROR: <input>:1:10: found no matching overload for 'sum' applied to 'list(string).()'"),
    ]);
}

#[test]
fn times() {
    all_true(&[
        "timestamp('2023-10-01T12:30:45.123Z').getFullYear() == 2023 && timestamp('2023-10-01T12:30:45Z').getMonth() == 9",
        "timestamp('2023-10-01T12:30:45Z').getDate() == 1 && timestamp('2023-10-01T12:30:45Z').getDayOfMonth() == 0 && timestamp('2023-10-01T12:30:45Z').getDayOfWeek() == 0",
        "timestamp('2023-02-01T00:00:00Z').getDayOfYear() == 31 && timestamp('2023-10-01T12:30:45.123Z').getMilliseconds() == 123",
        "timestamp('2023-10-01T12:30:45Z').getHours('+05:30') == 18 && timestamp('2023-10-01T00:30:00Z').getHours('-01:00') == 23",
        "timestamp('2023-10-01T00:00:00Z') + duration('1h') == timestamp('2023-10-01T01:00:00Z')",
        "timestamp('2023-10-01T01:00:00Z') - timestamp('2023-10-01T00:00:00Z') == duration('3600s') && duration('1h30m') > duration('80m')",
        "duration('1h30m').getMinutes() == 90 && duration('-1.5s').getMilliseconds() == -1500 && string(duration('1.5s')) == '1.5s'",
        "string(timestamp('2023-10-01T01:00:00+01:00')) == '2023-10-01T00:00:00Z' && int(timestamp(100)) == 100 && timestamp(0) < timestamp(1)",
    ]);
    come_to(&[
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument"),
        ("timestamp('yesterday')", "ERROR: <input>:1:11: invalid timestamp argument"),
        ("duration('x' + '')", "type conversion error from 'string' to 'google.protobuf.Duration'"),
        ("timestamp(253402300799) + duration('1s')", "timestamp overflow"),
    ]);
}

#[test]
fn patterns() {
    all_true(&[
        "'abc123'.matches('^[a-z]+[0-9]+$') && matches('a', 'a') && 'abc 123'.find('[0-9]+') == '123' && 'x'.find('y') == ''",
        "'1, 2, 3'.findAll('[0-9]') == ['1', '2', '3'] && '1, 2, 3'.findAll('[0-9]', 2) == ['1', '2'] && 'a'.findAll('b') == []",
    ]);
    come_to(&[("'a'.matches('(')", "ERROR: <input>:1:13: invalid matches argument")]);
    assert!(outcome("'a'.matches('(' + '')").starts_with("Illegal regex: "));
}

#[test]
fn urls() {
    all_true(&[
        "url('https://user:pass@example.com:80/path/a b?query=val&k=1&k=2#frag').getScheme() == 'https'",
        "url('https://example.com:80/').getHost() == 'example.com:80' && url('https://[::1]:80/').getHostname() == '::1' && url('https://[::1]:80/').getPort() == '80'",
        "url('https://example.com/a b%2Fc').getEscapedPath() == '/a%20b%2Fc' && url('/path').getEscapedPath() == '/path' && url('/path').getScheme() == ''",
        "url('https://e.com/?k=1&k=a+b&l').getQuery() == {'k': ['1', 'a b'], 'l': ['']}",
        "isURL('https://example.com') && isURL('/absolute') && !isURL('relative/path') && !isURL('https://a:b/') && !isURL('')",
        "url('mailto:a@b.c').getScheme() == 'mailto' && url('https://a/') == url('https://a/')",
    ]);
    come_to(&[("url('../a')", "URL parse error during conversion from string: parse \"../a\": invalid URI for request")]);
}

#[test]
fn networks() {
    all_true(&[
        "isIP('127.0.0.1') && isIP('::1') && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0') && !isIP('01.2.3.4')",
        "ip('::1').family() == 6 && ip('1.2.3.4').family() == 4 && ip('127.0.0.1').isLoopback() && ip('0.0.0.0').isUnspecified()",
        "ip.isCanonical('::1') && !ip.isCanonical('::0001') && ip('1.2.3.4').isGlobalUnicast() && !ip('224.0.0.1').isGlobalUnicast()",
        "ip('224.0.0.1').isLinkLocalMulticast() && ip('169.254.1.1').isLinkLocalUnicast() && ip('fe80::1').isLinkLocalUnicast() && ip('ff02::1').isLinkLocalMulticast()",
        "cidr('192.168.0.0/24').containsIP('192.168.0.1') && !cidr('192.168.0.0/24').containsIP(ip('192.168.1.1')) && string(ip('1.2.3.4')) == '1.2.3.4'",
        "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && !cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/23'))",
        "cidr('192.168.1.7/24').ip() == ip('192.168.1.7') && cidr('192.168.1.7/24').masked() == cidr('192.168.1.0/24') && cidr('::/0').prefixLength() == 0",
        "isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0/33') && !isCIDR('10.0.0.0/08') && !isCIDR('10.0.0.0') && string(cidr('10.0.0.0/8')) == '10.0.0.0/8'",
    ]);
    come_to(&[("ip('::ffff:1.2.3.4')", "IPv4-mapped IPv6 address \"::ffff:1.2.3.4\" is not allowed")]);
}

#[test]
fn quantities_versions_formats() {
    all_true(&[
        "quantity('1.5Gi').isGreaterThan(quantity('1Gi')) && quantity('500m').isLessThan(quantity('1')) && quantity('1k').compareTo(quantity('1000')) == 0",
        "quantity('50k').asInteger() == 50000 && !quantity('50m').isInteger() && quantity('50m').asApproximateFloat() == 0.05",
        "quantity('1').add(quantity('1')).compareTo(quantity('2')) == 0 && quantity('1').sub(3).compareTo(quantity('-2')) == 0 && quantity('-1').sign() == -1",
        "isQuantity('1Mi') && !isQuantity('1 Mi') && quantity('1000m') == quantity('1')",
        "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3 && semver('1.2.3').isLessThan(semver('1.10.0'))",
        "semver('1.0.0-alpha').isLessThan(semver('1.0.0')) && semver('v1.2', true) == semver('1.2.0') && semver('01.02.03', true) == semver('1.2.3')",
        "isSemver('1.0.0') && !isSemver('v1.0') && isSemver('v1.0', true) && !isSemver('1.0-beta', true) && semver('1.0.0+b').compareTo(semver('1.0.0+c')) == 0",
        "!format.dns1123Label().validate('my-label').hasValue() && format.dns1123Label().validate('My.Label').hasValue()",
        "!format.dns1123LabelPrefix().validate('my-').hasValue() && format.named('uuid').value().validate('x').value() == ['does not match the UUID format']",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && !format.date().validate('2020-01-01').hasValue()",
        "!format.named('nope').hasValue() && !format.qualifiedName().validate('a.b/c').hasValue() && !format.uri().validate('https://a').hasValue() && format.byte().validate('?').hasValue()",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
    ]);
    come_to(&[("quantity('x')", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]);
}

#[test]
fn messages() {
    come_to(&[
        ("Object{spec: Object.spec{replicas: 3}}", r#"{"spec":{"replicas":3}}"#),
        ("[JSONPatch{op: 'add', path: '/a', value: {'x': 1}}]", r#"[{"op":"add","path":"/a","value":{"x":1}}]"#),
        ("JSONPatch{op: 1}", "ERROR: <input>:1:13: expected type of field 'op' is 'string' but provided type is 'int'"),
        ("JSONPatch{oops: 'a'}", "ERROR: <input>:1:15: undefined field 'oops'"),
        ("Pod{}", "ERROR: <input>:1:4: undeclared reference to 'Pod' (in container '')"),
    ]);
}
