//! Quantities, such as `1.5Gi`.

use crate::eval::{Answer, Run, error, no_overload};
use crate::functions::Library;
use crate::value::{Opaque, Val};
use coracle_api::quantity::Quantity;
use std::cmp::Ordering;

pub(super) const LIBRARY: Library = &[
    ("quantity(string) -> kubernetes.Quantity", parse),
    ("isQuantity(string) -> bool", is_quantity),
    ("sign(kubernetes.Quantity) -> int", sign),
    ("(kubernetes.Quantity).sign() -> int", sign),
    ("(kubernetes.Quantity).isGreaterThan(kubernetes.Quantity) -> bool", greater),
    ("(kubernetes.Quantity).isLessThan(kubernetes.Quantity) -> bool", less),
    ("(kubernetes.Quantity).compareTo(kubernetes.Quantity) -> int", compare),
    ("(kubernetes.Quantity).asApproximateFloat() -> double", float),
    ("(kubernetes.Quantity).asInteger() -> int", integer),
    ("(kubernetes.Quantity).isInteger() -> bool", is_integer),
    ("(kubernetes.Quantity).add(kubernetes.Quantity) -> kubernetes.Quantity", add),
    ("(kubernetes.Quantity).add(int) -> kubernetes.Quantity", add),
    ("(kubernetes.Quantity).sub(kubernetes.Quantity) -> kubernetes.Quantity", sub),
    ("(kubernetes.Quantity).sub(int) -> kubernetes.Quantity", sub),
];

fn parse<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => match Quantity::parse(text) {
            Ok(quantity) => Ok(Val::opaque(Opaque::Quantity(quantity))),
            Err(why) => error(why.to_string()),
        },
        _ => no_overload(),
    }
}

fn is_quantity<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => Ok(Val::Bool(Quantity::parse(text).is_ok())),
        _ => no_overload(),
    }
}

fn quantity(value: Option<&Val<'_>>) -> Result<Quantity, crate::eval::Error> {
    match value {
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Quantity(quantity) => Ok(*quantity),
            _ => no_overload(),
        },
        Some(Val::Int(units)) => Ok(Quantity::from_units(*units)),
        _ => no_overload(),
    }
}

fn order(args: &[Val<'_>]) -> Result<Ordering, crate::eval::Error> {
    Ok(quantity(args.first())?.cmp(&quantity(args.get(1))?))
}

fn sign<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(quantity(args.first())?.cmp(&Quantity::ZERO) as i64))
}

fn greater<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(order(args)?.is_gt()))
}

fn less<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(order(args)?.is_lt()))
}

fn compare<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(order(args)? as i64))
}

fn float<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Double(quantity(args.first())?.approximate()))
}

fn integer<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let quantity = quantity(args.first())?;
    if quantity.is_whole() { Ok(Val::Int(quantity.units())) } else { error("cannot convert value to integer") }
}

fn is_integer<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(quantity(args.first())?.is_whole()))
}

fn add<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::opaque(Opaque::Quantity(quantity(args.first())?.plus(quantity(args.get(1))?))))
}

fn sub<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::opaque(Opaque::Quantity(quantity(args.first())?.minus(quantity(args.get(1))?))))
}
