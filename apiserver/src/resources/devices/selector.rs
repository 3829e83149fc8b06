//! Which devices a selector of a DeviceClass or ResourceClaim selects: CEL about `device` (upstream's `dynamic-resource-allocation/cel`).
//!
//! What a driver says of a device without a domain is in the driver's own domain. A domain that nothing is said in is an empty map.

use coracle_api::quantity::Quantity;
use coracle_cel::{Activation, Env, Key, Map, Opaque, Program, Text, Type, Val};
use serde_json::Value;
use std::{collections::BTreeMap, rc::Rc};

/// What one selector may cost for one device.
pub const MOST_COST: u64 = coracle_cel::CALL_LIMIT;

/// A selector that was compiled, or why it could not be.
#[derive(Debug)]
pub struct Compiled(Result<Program, String>);

type Domains<'a> = BTreeMap<String, BTreeMap<Key<'a>, Val<'a>>>;

fn domains<'a>(driver: &str, said: &'a BTreeMap<String, Value>, read: impl Fn(&'a Value) -> Result<Val<'a>, String>) -> Result<Val<'a>, String> {
    let mut domains: Domains<'a> = BTreeMap::new();
    for (name, value) in said {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        let value = read(value).map_err(|why| format!("attribute {name}: {why}"))?;
        domains.entry(domain.to_owned()).or_default().insert(Key::String(Text::Shared(id.into())), value);
    }
    let map =
        |(domain, values): (String, BTreeMap<Key<'a>, Val<'a>>)| (Key::String(Text::Shared(domain.into())), Val::Map(Map::Own(Rc::new(values))));
    Ok(Val::Map(Map::Nested(Rc::new(domains.into_iter().map(map).collect()))))
}

fn attribute(value: &Value) -> Result<Val<'_>, String> {
    let field = |name: &str| value.get(name).filter(|value| !value.is_null());
    if let Some(number) = field("int").and_then(Value::as_i64) {
        return Ok(Val::Int(number));
    }
    if let Some(flag) = field("bool").and_then(Value::as_bool) {
        return Ok(Val::Bool(flag));
    }
    if let Some(text) = field("string").and_then(Value::as_str) {
        return Ok(Val::String(Text::Borrowed(text)));
    }
    if let Some(version) = field("version").and_then(Value::as_str) {
        return Val::semver(version).map_err(|why| format!("parse semantic version: {why}"));
    }
    Err("unsupported attribute value".into())
}

fn capacity(value: &Value) -> Result<Val<'_>, String> {
    let text = value["value"].as_str().ok_or("no quantity")?;
    let quantity = Quantity::parse(text).map_err(|error| error.to_string())?;
    Ok(Val::Opaque(Rc::new(Opaque::Quantity(quantity))))
}

/// The variable `device`.
fn device<'a>(
    driver: &'a str,
    attributes: &'a BTreeMap<String, Value>,
    capacities: &'a BTreeMap<String, Value>,
    shared: bool,
) -> Result<Val<'a>, String> {
    let fields = [
        ("driver", Val::text(driver)),
        ("allowMultipleAllocations", Val::Bool(shared)),
        ("attributes", domains(driver, attributes, attribute)?),
        ("capacity", domains(driver, capacities, capacity)?),
    ];
    Ok(Val::Map(Map::Own(Rc::new(fields.into_iter().map(|(name, value)| (Key::String(Text::Borrowed(name)), value)).collect()))))
}

impl Compiled {
    /// Compiles an expression.
    pub fn of(expression: &str) -> Self {
        let program = Program::compile(&Env::new().with("device", Type::Dyn), expression).map_err(|why| format!("compilation failed: {why}"));
        Self(program.and_then(|program| match program.ty() {
            Type::Bool | Type::Dyn => Ok(program),
            other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
        }))
    }

    /// Why it could not be compiled.
    pub fn error(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    /// Whether it selects a device of a driver, or why that cannot be said; and what that cost, which `limit` bounds.
    pub fn selects(
        &self,
        driver: &str,
        attributes: &BTreeMap<String, Value>,
        capacities: &BTreeMap<String, Value>,
        shared: bool,
        limit: u64,
    ) -> (Result<bool, String>, u64) {
        let program = match &self.0 {
            Ok(program) => program,
            Err(why) => return (Err(format!("CEL compile error: {why}")), 0),
        };
        let failed = |why: String| format!("CEL runtime error: {why}");
        let device = match device(driver, attributes, capacities, shared) {
            Ok(device) => device,
            Err(why) => return (Err(failed(why)), 0),
        };
        let mut activation = Activation::new();
        activation.bind("device", device);
        let (value, cost) = program.run(&activation, limit);
        let selects = match value {
            Ok(Val::Bool(selects)) => Ok(selects),
            Ok(_) => Err(failed("CEL result could not be converted to bool".into())),
            Err(why) => Err(failed(why.to_string())),
        };
        (selects, cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_look_at_attributes_and_capacities() {
        let said = |value: Value| serde_json::from_value::<BTreeMap<String, Value>>(value).expect("a map");
        let attributes = said(json!({
            "model": {"string": "a100"}, "other.com/index": {"int": 3}, "fast": {"bool": true}, "firmware": {"version": "1.10.0"},
        }));
        let capacities = said(json!({"memory": {"value": "40Gi"}}));
        let ask = |expression: &str| Compiled::of(expression).selects("gpu.example.com", &attributes, &capacities, false, MOST_COST).0;
        for (expression, selects) in [
            ("device.driver == 'gpu.example.com'", true),
            ("device.attributes['gpu.example.com'].model == 'a100'", true),
            ("device.attributes['other.com'].index > 3", false),
            ("device.attributes['gpu.example.com'].fast", true),
            ("device.attributes['gpu.example.com'].firmware.isGreaterThan(semver('1.9.0'))", true),
            ("device.capacity['gpu.example.com'].memory.compareTo(quantity('32Gi')) >= 0", true),
            ("has(device.attributes['gpu.example.com'].nothing)", false),
            ("'index' in device.attributes['nowhere.com']", false),
            ("!device.allowMultipleAllocations", true),
        ] {
            assert_eq!(ask(expression), Ok(selects), "{expression}");
        }
        assert_eq!(ask("device.attributes['gpu.example.com'].nothing == 1"), Err("CEL runtime error: no such key: nothing".into()));
        assert_eq!(ask("device.attributes['gpu.example.com'].model"), Err("CEL runtime error: CEL result could not be converted to bool".into()));
        assert!(ask("device.").is_err_and(|why| why.starts_with("CEL compile error: compilation failed: ERROR: <input>:1:8: Syntax error")));
        assert_eq!(Compiled::of("'text'").error(), Some("must evaluate to bool or the unknown type, not string"));
    }
}
