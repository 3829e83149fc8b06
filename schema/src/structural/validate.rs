//! Validation of a value against a schema, with the words of upstream's validator (`kube-openapi/pkg/validation`).
//!
//! Like upstream's, it counts how much of an alternative fitted, so that of `anyOf` and `oneOf` the mistakes of the nearest alternative are told.

use super::{Additional, Bound, Checks, Kind, Node, compare::Was, formats};
use coracle_api::{
    cause::{Mistake, Path, most_bytes, most_items, supported},
    names::quote,
    status::Cause,
};
use serde_json::{Number, Value};

/// A value to be validated.
#[derive(Clone, Copy)]
pub struct Validation<'a> {
    /// The value.
    pub value: &'a Value,
    /// What it was before; what has not changed since is not complained about.
    pub old: Option<&'a Value>,
    /// Where it lies in the object: empty, or a field such as `status`.
    pub base: &'a str,
}

impl Validation<'_> {
    /// One cause a mistake.
    pub fn run(self, node: &Node) -> Vec<Cause> {
        let was = self.old.map(|old| Was::new(node, old, self.value));
        let walk = Walk { base: self.base };
        walk.ratcheted(node, self.value, was, Path::Root).causes
    }
}

/// What was found at one place and below.
#[derive(Default)]
struct Found {
    causes: Vec<Cause>,
    /// How many checks were passed or made, as upstream counts them.
    fits: u32,
}

impl Found {
    fn add(&mut self, cause: Cause) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }

    fn merge(&mut self, other: Found) {
        self.fits += other.fits;
        other.causes.into_iter().for_each(|cause| self.add(cause));
    }

    fn valid(&self) -> bool {
        self.causes.is_empty()
    }
}

struct Walk<'b> {
    base: &'b str,
}

impl Walk<'_> {
    /// A mistake at a place: `Invalid value: 5: spec.n in body should be …`.
    fn at(&self, mistake: Mistake, path: Path<'_>, bad: Option<&Value>, detail: &str) -> Cause {
        let place = path.to_string();
        let place = match (self.base, place.as_str()) {
            ("", "") => "<nil>".to_owned(),
            ("", place) => place.to_owned(),
            (base, "") => base.to_owned(),
            (base, place) => format!("{base}.{place}"),
        };
        Cause::of(mistake, place, bad, detail)
    }

    /// A mistake that upstream reports about no place.
    fn nowhere(&self, detail: &str) -> Cause {
        let place = if self.base.is_empty() { "<nil>" } else { self.base };
        Cause::of(Mistake::Invalid, place, Some(&"".into()), detail)
    }

    fn ratcheted(&self, node: &Node, value: &Value, was: Option<Was<'_>>, path: Path<'_>) -> Found {
        let mut found = self.check(node, value, was, path);
        if !found.valid() && was.is_some_and(Was::same) {
            found.causes.clear();
        }
        found
    }

    fn check(&self, node: &Node, value: &Value, was: Option<Was<'_>>, path: Path<'_>) -> Found {
        let mut found = Found::default();
        let checks = node.checks.as_deref();
        let typed = self.kind(node, value, path);
        if value.is_null() {
            found.merge(typed.unwrap_or_default());
            self.choice(checks, value, path, &mut found);
            return found;
        }
        // Each check that applies counts once, and the whole once more.
        if let Some(typed) = typed {
            found.merge(typed);
            found.fits += 1;
        }
        found.merge(self.alternatives(checks, value, was, path));
        match value {
            Value::String(text) => {
                found.fits += 1;
                if let Some(checks) = checks {
                    self.text(checks, node, text, path, &mut found);
                }
            }
            Value::Number(number) => {
                found.fits += 2;
                self.number(node, checks, number, path, &mut found);
            }
            Value::Array(list) => {
                found.fits += 2;
                self.list(node, checks, list, was, path, &mut found);
            }
            _ => {}
        }
        self.choice(checks, value, path, &mut found);
        found.fits += 1;
        if let Value::Object(_) = value {
            self.object(node, checks, value, was, path, &mut found);
            found.fits += 1;
        }
        found.fits += 1;
        found
    }

    /// None where there is nothing to say about the type.
    fn kind(&self, node: &Node, value: &Value, path: Path<'_>) -> Option<Found> {
        let format = node.checks.as_ref().and_then(|checks| formats::checked(node.kind, node.int_or_string, checks.format.as_deref()?));
        let wanted: &[Kind] = match (node.int_or_string, &node.kind) {
            (true, _) => &[Kind::Integer, Kind::String],
            (false, Some(kind)) => std::slice::from_ref(kind),
            (false, None) => &[],
        };
        if wanted.is_empty() && format.is_none() {
            return None;
        }
        let mut found = Found { fits: 1, ..Found::default() };
        let words = || wanted.iter().map(|kind| kind.word()).collect::<Vec<_>>().join(",");
        let mut wrong = |wanted: &str, is: &str| {
            let detail = format!("{path} in body must be of type {wanted}: {}", quote(is));
            found = Found { fits: 0, causes: vec![self.at(Mistake::TypeInvalid, path, Some(&is.into()), &detail)] };
        };
        let Some(is) = Kind::of(value) else {
            if !wanted.is_empty() && !node.nullable {
                wrong(&words(), "null");
            }
            return Some(found);
        };
        let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let fits = wanted.contains(&is)
            || (is == Kind::Number && whole && wanted.contains(&Kind::Integer))
            || (is == Kind::Integer && wanted.contains(&Kind::Number));
        let spelled = matches!(is, Kind::String | Kind::Array);
        match format {
            Some(format) if !spelled && !fits => {
                let its = match is {
                    Kind::Integer => "int64",
                    Kind::Number => "float64",
                    _ => "",
                };
                if its != format {
                    wrong(format, its);
                } else {
                    wrong(&words(), is.word());
                }
            }
            Some(_) if spelled && !wanted.contains(&Kind::Number) && !wanted.contains(&Kind::Integer) => {}
            _ if !fits => wrong(&words(), is.word()),
            _ => {}
        }
        Some(found)
    }

    fn choice(&self, checks: Option<&Checks>, value: &Value, path: Path<'_>, found: &mut Found) {
        let Some(checks) = checks.filter(|checks| !checks.choices.is_empty()) else { return };
        let equal = |choice: &Value| match (choice, value) {
            (Value::Number(choice), Value::Number(number)) => match choice.as_i64() {
                // Go converts the value to the choice's type first.
                Some(choice) => number.as_f64().is_some_and(|number| number as i64 == choice),
                None => choice.as_f64() == number.as_f64(),
            },
            (choice, value) => !choice.is_null() && choice == value,
        };
        if !checks.choices.iter().any(equal) {
            let words: Vec<String> = checks.choices.iter().map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned)).collect();
            found.add(self.at(Mistake::NotSupported, path, Some(value), &supported(&words)));
        }
    }

    fn text(&self, checks: &Checks, node: &Node, text: &str, path: Path<'_>, found: &mut Found) {
        let length = text.chars().count() as i64;
        let bad = || Value::from(text);
        if let Some(max) = checks.max_length.filter(|max| length > *max) {
            found.add(self.at(Mistake::TooLong, path, None, &most_bytes(max)));
        } else if let Some(min) = checks.min_length.filter(|min| length < *min) {
            found.add(self.at(Mistake::Invalid, path, Some(&bad()), &format!("{path} in body should be at least {min} chars long")));
        } else if let Some(pattern) = &checks.pattern {
            let why = match pattern.matches(text) {
                Ok(true) => None,
                Ok(false) => Some(pattern.text().to_owned()),
                Err(error) => Some(format!("{}, but pattern is invalid: {error}", pattern.text())),
            };
            if let Some(why) = why {
                found.add(self.at(Mistake::Invalid, path, Some(&bad()), &format!("{path} in body should match '{why}'")));
            }
        }
        if let Some(format) = checks.format.as_deref().and_then(|format| formats::checked(node.kind, node.int_or_string, format)) {
            found.fits += 1;
            if !formats::matches(format, text) {
                let detail = format!("{path} in body must be of type {format}: {}", quote(text));
                found.add(self.at(Mistake::TypeInvalid, path, Some(&bad()), &detail));
            }
        }
    }

    fn number(&self, node: &Node, checks: Option<&Checks>, number: &Number, path: Path<'_>, found: &mut Found) {
        let kind = node.kind.filter(|_| !node.int_or_string);
        let format = checks.and_then(|checks| formats::checked(kind, node.int_or_string, checks.format.as_deref()?));
        let in_range = |value: f64, what: &str| -> Option<String> {
            let good = match (kind, format) {
                (Some(Kind::Integer), Some("int32")) => value.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value),
                (Some(Kind::Integer), _) => value.fract() == 0.0 && (-9.223_372_036_854_776e18..9.223_372_036_854_776e18).contains(&value),
                (_, Some("float")) => value.abs() <= f64::from(f32::MAX),
                _ => true,
            };
            let kind = kind.map_or("", Kind::word);
            match format {
                _ if good => None,
                Some(format) => Some(format!("{what} value must be of type {kind} with format {format} in {path}")),
                None => Some(format!("{what} value must be of type {kind} (default format) in {path}")),
            }
        };
        let float = number.as_f64().unwrap_or_default();
        if number.as_i64().is_none() || format.is_some() {
            in_range(float, "Checked").into_iter().for_each(|why| found.add(self.nowhere(&why)));
        }
        let Some(checks) = checks else { return };
        let bad = Value::Number(number.clone());
        if let Some(factor) = checks.multiple_of.as_ref().and_then(Number::as_f64) {
            let odd = in_range(factor, "MultipleOf");
            let native = number.as_i64().filter(|_| odd.is_none());
            odd.into_iter().for_each(|why| found.add(self.nowhere(&why)));
            let multiple = match native {
                Some(number) => match factor as i64 {
                    ..=0 => None,
                    factor => Some(number % factor == 0),
                },
                None if factor <= 0.0 => None,
                None => Some((if factor < 1.0 { 1.0 / factor * float } else { float / factor }).fract() == 0.0),
            };
            let shown = if native.is_some() { (factor as i64).to_string() } else { go_float(factor) };
            match multiple {
                Some(true) => {}
                Some(false) => found.add(self.at(Mistake::Invalid, path, Some(&bad), &format!("{path} in body should be a multiple of {shown}"))),
                None => {
                    let detail = format!("factor MultipleOf declared for {path} must be positive: {shown}");
                    found.add(self.at(Mistake::Invalid, path, Some(&Value::from(factor)), &detail));
                }
            }
        }
        for (bound, what, upper) in [(&checks.minimum, "Minimum boundary", false), (&checks.maximum, "Maximum boundary", true)] {
            let Some(Bound { limit, exclusive }) = bound else { continue };
            let odd = in_range(*limit, what);
            let native = number.as_i64().filter(|_| odd.is_none());
            odd.into_iter().for_each(|why| found.add(self.nowhere(&why)));
            let (order, shown) = match native {
                Some(number) => (number.cmp(&(*limit as i64)), (*limit as i64).to_string()),
                None => (float.partial_cmp(limit).unwrap_or(std::cmp::Ordering::Equal), go_float(*limit)),
            };
            let outside = if upper { order.is_gt() } else { order.is_lt() } || (*exclusive && order.is_eq());
            if outside {
                let word = match (upper, exclusive) {
                    (true, true) => "less than",
                    (true, false) => "less than or equal to",
                    (false, true) => "greater than",
                    (false, false) => "greater than or equal to",
                };
                found.add(self.at(Mistake::Invalid, path, Some(&bad), &format!("{path} in body should be {word} {shown}")));
            }
        }
    }

    fn list(&self, node: &Node, checks: Option<&Checks>, list: &[Value], was: Option<Was<'_>>, path: Path<'_>, found: &mut Found) {
        if let Some(items) = node.items.as_deref() {
            for (at, value) in list.iter().enumerate() {
                let below = was.and_then(|was| was.index(at));
                found.merge(self.ratcheted(items, value, below, path.index(at)));
            }
        }
        let (Some(checks), size) = (checks, list.len() as i64) else { return };
        if let Some(min) = checks.min_items.filter(|min| size < *min) {
            found.add(self.at(Mistake::Invalid, path, Some(&size.into()), &format!("{path} in body should have at least {min} items")));
        }
        if let Some(max) = checks.max_items.filter(|max| size > *max) {
            found.add(self.at(Mistake::TooMany, path, Some(&size.into()), &most_items(max)));
        }
        if checks.unique_items && list.iter().enumerate().any(|(at, value)| list.iter().take(at).any(|other| other == value)) {
            found.add(self.at(Mistake::Invalid, path, Some(&"".into()), &format!("{path} in body shouldn't contain duplicates")));
        }
    }

    fn object(&self, node: &Node, checks: Option<&Checks>, value: &Value, was: Option<Was<'_>>, path: Path<'_>, found: &mut Found) {
        let Value::Object(map) = value else { return };
        let size = map.len() as i64;
        if let Some(checks) = checks {
            if let Some(min) = checks.min_properties.filter(|min| size < *min) {
                found.add(self.at(Mistake::Invalid, path, Some(&size.into()), &format!("{path} in body should have at least {min} properties")));
            }
            if let Some(max) = checks.max_properties.filter(|max| size > *max) {
                found.add(self.at(Mistake::TooMany, path, Some(&size.into()), &most_items(max)));
            }
        }
        let top = matches!(path, Path::Root) && self.base.is_empty();
        for (name, value) in map {
            let schema = match (node.property(name), node.additional.as_deref()) {
                (Some(property), _) => property,
                (None, Some(Additional::Schema(schema))) => schema,
                (None, Some(Additional::Allowed(false))) => {
                    let detail = format!("{path}.{name} in body is a forbidden property");
                    found.add(self.at(Mistake::Invalid, path, Some(&name.as_str().into()), &detail));
                    continue;
                }
                (None, _) => continue,
            };
            // Type and kind are the same for old and new by conversion.
            let below = was.filter(|_| !(top && matches!(name.as_str(), "kind" | "apiVersion"))).and_then(|was| was.field(name));
            found.merge(self.ratcheted(schema, value, below, path.field(name)));
        }
        for name in checks.into_iter().flat_map(|checks| &checks.required) {
            if !map.contains_key(&**name) {
                found.add(self.at(Mistake::Required, path.field(name), None, ""));
            }
        }
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn alternatives(&self, checks: Option<&Checks>, value: &Value, was: Option<Was<'_>>, path: Path<'_>) -> Found {
        // One for the check itself, one for having been made.
        let mut found = Found { fits: 2, ..Found::default() };
        let Some(checks) = checks else { return found };
        let place = || quote(&path.to_string());
        if !checks.any_of.is_empty() {
            let mut nearest: Option<Found> = None;
            let mut fitting = None;
            for node in &checks.any_of {
                let result = self.check(node, value, was, path);
                if result.valid() {
                    fitting = Some(result);
                    break;
                }
                if nearest.as_ref().is_none_or(|nearest| result.fits > nearest.fits) {
                    nearest = Some(result);
                }
            }
            if fitting.is_none() {
                found.add(self.nowhere(&format!("{} must validate at least one schema (anyOf)", place())));
            }
            found.merge(fitting.or(nearest).unwrap_or_default());
        }
        if !checks.one_of.is_empty() {
            let mut nearest: Option<Found> = None;
            let mut first = None;
            let mut fitting = 0;
            for node in &checks.one_of {
                let result = self.check(node, value, was, path);
                if result.valid() {
                    fitting += 1;
                    nearest = None;
                    first.get_or_insert(result);
                } else if fitting == 0 && nearest.as_ref().is_none_or(|nearest| result.fits > nearest.fits) {
                    nearest = Some(result);
                }
            }
            let why = match fitting {
                1 => None,
                0 => Some("Found none valid".to_owned()),
                more => Some(format!("Found {more} valid alternatives")),
            };
            match why {
                None => found.merge(first.unwrap_or_default()),
                Some(why) => {
                    found.add(self.nowhere(&format!("{} must validate one and only one schema (oneOf). {why}", place())));
                    found.merge(nearest.unwrap_or_default());
                }
            }
        }
        if !checks.all_of.is_empty() {
            let mut fitting = 0;
            for node in &checks.all_of {
                let result = self.check(node, value, was, path);
                fitting += usize::from(result.valid());
                found.merge(result);
            }
            if fitting != checks.all_of.len() {
                let why = if fitting == 0 { ". None validated" } else { "" };
                found.add(self.nowhere(&format!("{} must validate all the schemas (allOf){why}", place())));
            }
        }
        if let Some(not) = &checks.not
            && self.check(not, value, was, path).valid()
        {
            found.add(self.nowhere(&format!("{} must not validate the schema (not)", place())));
        }
        found
    }
}

/// A number as Go's `%v` shows it: the shortest digits, with an exponent from a million on.
fn go_float(number: f64) -> String {
    if number == 0.0 || (1e-4..1e6).contains(&number.abs()) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}
