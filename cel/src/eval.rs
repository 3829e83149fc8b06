//! The interpreter. It walks a checked expression, counts what that costs as upstream does, and stops at a limit.
//!
//! Two counters bound a run. *Cost* is Kubernetes' unit: a user sees it in errors, and limits are given in it. *Work* counts what cost leaves out but takes
//! time or memory all the same (elements copied, bytes looked at, deep comparisons), so that no expression can hang or swell, whatever the cost model
//! thinks it costs.

mod activation;
mod equality;
mod fold;

use crate::expr::{Call, Entry, Expr, Kind, Literal, MessageField};
use crate::value::{Key, List, Map, Message, Opaque, Text, Val};
use crate::{functions, meter};
use cel::common::ast::operators;
use std::collections::BTreeMap;
use std::rc::Rc;

pub use activation::Activation;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The expression's own fault, such as `no such key: a`. Logical operators may absorb it.
    Cel(String),
    /// It took more than it may. Nothing absorbs that.
    Budget,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Cel(why) => f.write_str(why),
            Error::Budget => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

impl std::error::Error for Error {}

pub(crate) type Answer<'a> = Result<Val<'a>, Error>;

pub(crate) fn error<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Cel(why.into()))
}

pub(crate) fn no_overload<T>() -> Result<T, Error> {
    error("no such overload")
}

/// Most work of one run; see the module. Some tenths of a second at the very most.
const WORK: u64 = 10_000_000;

/// One run.
pub(crate) struct Run<'r, 'a> {
    pub activation: &'r Activation<'a>,
    locals: Vec<Answer<'a>>,
    /// Cost of the expression so far, and its limit.
    cost: u64,
    limit: u64,
    /// Cost of variables that were evaluated on the way, each under a limit of its own.
    aside: u64,
    work: u64,
    pub(crate) patterns: BTreeMap<Rc<str>, Rc<regex::Regex>>,
}

impl<'r, 'a> Run<'r, 'a> {
    pub fn new(activation: &'r Activation<'a>, limit: u64) -> Self {
        Run { activation, locals: Vec::new(), cost: 0, limit, aside: 0, work: WORK, patterns: BTreeMap::new() }
    }

    /// What it cost, variables included.
    pub fn spent(&self) -> u64 {
        self.cost.saturating_add(self.aside)
    }

    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), Error> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Error::Budget) } else { Ok(()) }
    }

    /// Counts work that is about to be done: elements, or 16 bytes of text.
    pub(crate) fn work(&mut self, units: usize) -> Result<(), Error> {
        match self.work.checked_sub(units as u64) {
            Some(left) => {
                self.work = left;
                Ok(())
            }
            None => Err(Error::Budget),
        }
    }

    /// Counts memory that is about to be taken, so that all values of a run stay within some 40 MB.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Result<(), Error> {
        self.work(bytes / 4)
    }

    /// Counts memory for elements of a list.
    pub(crate) fn elements(&mut self, count: usize) -> Result<(), Error> {
        self.allocate(count.saturating_mul(size_of::<Val<'_>>()))
    }

    /// Counts memory for entries of a map.
    pub(crate) fn entries(&mut self, count: usize) -> Result<(), Error> {
        self.allocate(count.saturating_mul(3 * size_of::<Val<'_>>()))
    }

    /// Counts work on text.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), Error> {
        self.work(text.len() / 16)
    }

    pub fn eval(&mut self, expr: &'a Expr) -> Answer<'a> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(literal_value(literal)),
            Kind::Constant(inner) => {
                let cost = self.cost;
                self.cost = 0;
                let value = self.eval(inner);
                self.cost = cost;
                value
            }
            Kind::Local(place, _) => {
                self.charge(1)?;
                self.locals.get(*place as usize).cloned().unwrap_or_else(|| error("unknown local variable"))
            }
            Kind::Global(name) => self.global(name),
            Kind::Select { operand, field, test: true } => {
                let operand = self.eval(operand)?;
                Ok(Val::Bool(self.present(&operand, field)?.is_some()))
            }
            Kind::Select { operand, field, test: false } => {
                let operand = self.eval(operand)?;
                self.charge(1)?;
                self.select(&operand, field)
            }
            Kind::OptSelect { operand, field } => {
                let operand = self.eval(operand)?;
                self.charge(1)?;
                Ok(Val::Optional(self.present(&operand, field)?.map(Rc::new)))
            }
            Kind::Call(call) => self.call(call),
            Kind::List { elements, optional } => self.list(elements, optional),
            Kind::Map(entries) => self.map(entries),
            Kind::Message { name, fields } => self.message(name, fields),
            Kind::Comprehension(fold) => self.comprehension(fold),
            Kind::OptMap { operand, body, flat } => match self.eval(operand)? {
                Val::Optional(None) => Ok(Val::Optional(None)),
                Val::Optional(Some(value)) => {
                    let result = self.bound((*value).clone(), body)?;
                    match (flat, result) {
                        (true, result @ Val::Optional(_)) => Ok(result),
                        (true, _) => no_overload(),
                        (false, result) => Ok(Val::some(result)),
                    }
                }
                _ => no_overload(),
            },
            Kind::Bind { value, body } => {
                let value = self.eval(value)?;
                self.bound(value, body)
            }
        }
    }

    fn bound(&mut self, value: Val<'a>, body: &'a Expr) -> Answer<'a> {
        let place = self.locals.len();
        self.locals.push(Ok(value));
        let result = self.eval(body);
        self.locals.truncate(place);
        result
    }

    fn global(&mut self, name: &'a str) -> Answer<'a> {
        self.charge(1)?;
        if let Some((_, value)) = self.activation.globals.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        match name {
            "variables" if !self.activation.variables.is_empty() => Ok(Val::Variables),
            "bool" | "bytes" | "double" | "dyn" | "int" | "list" | "map" | "null_type" | "optional_type" | "string" | "type" | "uint" => {
                Ok(Val::Type(name.into()))
            }
            _ if name.contains('.') => Ok(Val::Type(name.into())),
            _ => error(format!("no such attribute(s): {name}")),
        }
    }

    /// `variables.name`
    fn variable(&mut self, name: &str) -> Option<Answer<'a>> {
        let activation = self.activation;
        let variable = activation.variables.iter().find(|variable| variable.name == name)?;
        if let Ok(known) = variable.value.try_borrow()
            && let Some(known) = &*known
        {
            return Some(known.clone());
        }
        let (locals, cost) = (std::mem::take(&mut self.locals), std::mem::replace(&mut self.cost, 0));
        let value = self.eval(&variable.program.root);
        self.locals = locals;
        self.aside = self.aside.saturating_add(std::mem::replace(&mut self.cost, cost));
        let value = value.map_err(|why| match why {
            Error::Cel(why) => Error::Cel(format!("composited variable \"{name}\" fails to evaluate: {why}")),
            Error::Budget => Error::Budget,
        });
        if let Ok(mut place) = variable.value.try_borrow_mut() {
            *place = Some(value.clone());
        }
        Some(value)
    }

    fn select(&mut self, operand: &Val<'a>, field: &str) -> Answer<'a> {
        match operand {
            Val::Optional(None) => Ok(Val::Optional(None)),
            Val::Optional(Some(value)) => Ok(Val::Optional(self.present(value, field)?.map(Rc::new))),
            Val::Map(_) | Val::Message(_) | Val::Variables => match self.present(operand, field)? {
                Some(value) => Ok(value),
                None => error(format!("no such key: {field}")),
            },
            _ => error(format!("no such key: {field}")),
        }
    }

    /// The field if it is there.
    fn present(&mut self, operand: &Val<'a>, field: &str) -> Result<Option<Val<'a>>, Error> {
        match operand {
            Val::Map(map) => map.field(field).transpose(),
            Val::Message(message) => Ok(message.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value.clone())),
            Val::Variables => self.variable(field).transpose(),
            Val::Optional(Some(value)) => self.present(&value.clone(), field),
            _ => Ok(None),
        }
    }

    fn list(&mut self, elements: &'a [Expr], optional: &[bool]) -> Answer<'a> {
        let mut list = Vec::with_capacity(elements.len());
        for (at, element) in elements.iter().enumerate() {
            let value = self.eval(element)?;
            match (optional.get(at), value) {
                (Some(true), Val::Optional(None)) => {}
                (Some(true), Val::Optional(Some(value))) => list.push((*value).clone()),
                (Some(true), other) => {
                    return error(format!("cannot initialize optional list element from non-optional value {}", other.type_name()));
                }
                (_, value) => list.push(value),
            }
        }
        self.charge(10)?;
        self.elements(list.len())?;
        Ok(Val::list(list))
    }

    fn map(&mut self, entries: &'a [Entry]) -> Answer<'a> {
        let mut map = BTreeMap::new();
        for entry in entries {
            let (key, mut value) = (self.eval(&entry.key)?, self.eval(&entry.value)?);
            let Some(key) = key.key() else { return error(format!("unsupported key type: {}", key.type_name())) };
            if entry.optional {
                match value {
                    Val::Optional(None) => continue,
                    Val::Optional(Some(inner)) => value = (*inner).clone(),
                    other => return error(format!("cannot initialize optional entry from non-optional value {}", other.type_name())),
                }
            }
            if map.insert(key, value).is_some() {
                return error("Failed with repeated key");
            }
        }
        self.charge(30)?;
        self.entries(map.len())?;
        Ok(Val::Map(Map::Own(Rc::new(map))))
    }

    fn message(&mut self, name: &'a str, given: &'a [MessageField]) -> Answer<'a> {
        let mut fields = Vec::with_capacity(given.len());
        for field in given {
            match (field.optional, self.eval(&field.value)?) {
                (true, Val::Optional(None)) => {}
                (true, Val::Optional(Some(value))) => fields.push((&*field.name, (*value).clone())),
                (true, other) => {
                    return error(format!("cannot initialize optional entry '{}' from non-optional value {}", field.name, other.type_name()));
                }
                (false, value) => fields.push((&*field.name, value)),
            }
        }
        self.charge(40)?;
        self.elements(fields.len())?;
        Ok(Val::Message(Rc::new(Message { name, fields })))
    }

    fn call(&mut self, call: &'a Call) -> Answer<'a> {
        let [first, rest @ ..] = call.args.as_slice() else { return self.dispatch(call, Vec::new()) };
        match (&*call.name, rest) {
            (operators::LOGICAL_AND, [second]) => self.logic(first, second, false),
            (operators::LOGICAL_OR, [second]) => self.logic(first, second, true),
            (operators::CONDITIONAL, [yes, no]) => match self.eval(first)? {
                Val::Bool(true) => self.eval(yes),
                Val::Bool(false) => self.eval(no),
                _ => no_overload(),
            },
            (operators::NOT_STRICTLY_FALSE, []) => {
                let value = self.eval(first);
                self.charge(1)?;
                match value {
                    Err(Error::Budget) => Err(Error::Budget),
                    Ok(Val::Bool(false)) => Ok(Val::Bool(false)),
                    _ => Ok(Val::Bool(true)),
                }
            }
            ("or", [second]) if call.member => match self.eval(first)? {
                Val::Optional(None) => self.eval(second),
                value @ Val::Optional(_) => Ok(value),
                _ => no_overload(),
            },
            ("orValue", [second]) if call.member => match self.eval(first)? {
                Val::Optional(None) => self.eval(second),
                Val::Optional(Some(value)) => Ok((*value).clone()),
                _ => no_overload(),
            },
            // A collection that is being built is nobody else's: it grows in place.
            (operators::ADD | "cel.@mapInsert", _) if is_accumulator(first) => self.grow(call, first, rest),
            _ => {
                let mut args = Vec::with_capacity(call.args.len());
                for arg in &call.args {
                    args.push(self.eval(arg)?);
                }
                self.dispatch(call, args)
            }
        }
    }

    fn logic(&mut self, first: &'a Expr, second: &'a Expr, decisive: bool) -> Answer<'a> {
        let first = match self.eval(first) {
            Ok(Val::Bool(value)) if value == decisive => return Ok(Val::Bool(decisive)),
            Err(Error::Budget) => return Err(Error::Budget),
            other => other,
        };
        let second = match self.eval(second) {
            Ok(Val::Bool(value)) if value == decisive => return Ok(Val::Bool(decisive)),
            Err(Error::Budget) => return Err(Error::Budget),
            other => other,
        };
        match (first?, second?) {
            (Val::Bool(_), Val::Bool(_)) => Ok(Val::Bool(!decisive)),
            _ => no_overload(),
        }
    }

    fn grow(&mut self, call: &'a Call, accumulator: &'a Expr, rest: &'a [Expr]) -> Answer<'a> {
        let mut args = vec![Val::Null];
        for arg in rest {
            args.push(self.eval(arg)?);
        }
        self.charge(1)?;
        let Kind::Local(place, _) = &accumulator.kind else { return no_overload() };
        // Taken out, so that there is one owner; the round's result takes its place.
        if let (Some(slot), Some(first)) = (self.locals.get_mut(*place as usize), args.first_mut()) {
            *first = std::mem::replace(slot, Ok(Val::Null))?;
        }
        match args.as_mut_slice() {
            [Val::List(List::Own(list, None)), Val::List(more)] if Rc::strong_count(list) == 1 => {
                self.charge(1)?;
                self.elements(more.len())?;
                let elements = more.iter().collect::<Result<Vec<_>, _>>()?;
                if let Some(list) = Rc::get_mut(list) {
                    list.extend(elements);
                }
                Ok(args.swap_remove(0))
            }
            [Val::Map(Map::Own(map)), more @ ..] if Rc::strong_count(map) == 1 => {
                self.charge(1)?;
                let entries = match more {
                    [key, value] => vec![(key.clone(), value.clone())],
                    [Val::Map(more)] => {
                        self.entries(more.len())?;
                        let value = |key: &Val<'a>| key.key().and_then(|key| more.get(&key)).unwrap_or(Ok(Val::Null));
                        more.keys().into_iter().map(|key| Ok((key.clone(), value(&key)?))).collect::<Result<_, Error>>()?
                    }
                    _ => return no_overload(),
                };
                self.entries(entries.len())?;
                for (key, value) in entries {
                    let Some(key) = key.key() else { return error(format!("unsupported key type: {}", key.type_name())) };
                    if let Some(map) = Rc::get_mut(map)
                        && map.insert(key.clone(), value).is_some()
                    {
                        return error(format!("insert failed: key {} already exists", show_key(&key)));
                    }
                }
                Ok(args.swap_remove(0))
            }
            _ => self.dispatch(call, args),
        }
    }

    /// Calls the first overload that fits the values.
    fn dispatch(&mut self, call: &Call, args: Vec<Val<'a>>) -> Answer<'a> {
        let Some(function) = call.function else { return no_overload() };
        for overload in &function.overloads {
            if overload.args.len() == args.len() && overload.args.iter().zip(&args).all(|(ty, value)| functions::fits(ty, value)) {
                let result = (overload.body)(self, &args);
                let cost = meter::call(function.name, overload.id, &args, result.as_ref().ok());
                self.charge(cost)?;
                return result;
            }
        }
        no_overload()
    }

    /// The argument as an opaque value; for bodies whose signature says that it is one.
    pub(crate) fn opaque<'v>(&self, value: &'v Val<'a>) -> Result<&'v Opaque, Error> {
        match value {
            Val::Opaque(opaque) => Ok(opaque),
            _ => no_overload(),
        }
    }
}

/// `@result`, which only expanded macros can name.
fn is_accumulator(expr: &Expr) -> bool {
    matches!(&expr.kind, Kind::Local(_, name) if name.starts_with('@'))
}

fn literal_value(literal: &Literal) -> Val<'_> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(value) => Val::Bool(*value),
        Literal::Int(value) => Val::Int(*value),
        Literal::Uint(value) => Val::Uint(*value),
        Literal::Double(value) => Val::Double(*value),
        Literal::String(text) => Val::String(Text::Borrowed(text)),
        Literal::Bytes(bytes) => Val::Bytes((**bytes).into()),
    }
}

pub(crate) fn show_key(key: &Key<'_>) -> String {
    match key {
        Key::Bool(value) => value.to_string(),
        Key::Int(value) => value.to_string(),
        Key::Uint(value) => value.to_string(),
        Key::String(text) => text.to_string(),
    }
}
