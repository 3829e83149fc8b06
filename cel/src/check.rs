//! The checker: every expression gets a type, every call its overloads, and every mistake its place. Inference follows the reference checker of CEL, since
//! what it accepts and what it says is part of Kubernetes' API.

mod infer;

use crate::expr::{Call, Entry, Expr, Kind, Literal, MessageField, Positions};
use crate::functions::{self, Function, Overload};
use crate::library::{regex, time};
use crate::types::{Env, Type};
use cel::common::ast::operators;
use infer::most_general;
use std::cell::Cell;

/// Steps that walks over types may take in one expression.
const FUEL: u32 = 5_000_000;

/// What is known about the nodes of a checked expression, by their id.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Types; inference variables that nothing decided are `dyn`.
    pub types: Vec<Type>,
    /// Overloads that calls may take.
    pub overloads: Vec<Vec<&'static Overload>>,
}

impl Checked {
    pub fn ty(&self, expr: &Expr) -> &Type {
        self.types.get(expr.id as usize).unwrap_or(&Type::Dyn)
    }
    pub fn overloads(&self, expr: &Expr) -> &[&'static Overload] {
        self.overloads.get(expr.id as usize).map_or(&[], Vec::as_slice)
    }
}

/// Checks an expression, and resolves names in it.
///
/// # Errors
/// All mistakes, one a line pair, in upstream's form.
pub(crate) fn check(env: &Env, positions: &Positions, root: &mut Expr) -> Result<Checked, String> {
    let count = positions.offsets.len();
    let checked = Checked { types: vec![Type::Dyn; count], overloads: vec![Vec::new(); count] };
    let mut checker = Checker {
        env,
        positions,
        checked,
        found: Vec::new(),
        locals: Vec::new(),
        variables: Vec::new(),
        trail: Vec::new(),
        literals: Vec::new(),
        formats: 0,
        fuel: Cell::new(FUEL),
    };
    checker.expr(root);
    let mut checked = std::mem::take(&mut checker.checked);
    for ty in &mut checked.types {
        *ty = checker.substitute(ty, true);
    }
    checker.homogeneous();
    if checker.fuel.get() == 0 {
        return Err(positions.message(root.id, "the types of the expression are too complex"));
    }
    if !checker.found.is_empty() {
        checker.found.sort_by_key(|(at, _)| *at);
        checker.found.dedup();
        return Err(checker.found.into_iter().take(100).map(|(_, text)| text).collect::<Vec<_>>().join("\n"));
    }
    Ok(checked)
}

struct Checker<'e> {
    env: &'e Env,
    positions: &'e Positions,
    checked: Checked,
    /// Offset and text.
    found: Vec<(u32, String)>,
    locals: Vec<Type>,
    /// What inference variables stand for.
    variables: Vec<Option<Type>>,
    /// What they stood for before, to go back.
    trail: Vec<(u32, Option<Type>)>,
    /// Literals of collections outside `format` calls, whose parts must be of one type: the parts' nodes and types, and whether it is a list.
    literals: Vec<(bool, Vec<(u32, Type)>)>,
    /// Calls of `format` around.
    formats: u32,
    /// Steps left for walks over types, which nested maps can make very large.
    fuel: Cell<u32>,
}

impl Checker<'_> {
    fn wrong(&mut self, id: u32, message: &str) -> Type {
        let at = self.positions.offsets.get(id as usize).copied().unwrap_or_default();
        if self.found.len() < 1000 {
            self.found.push((at, self.positions.message(id, message)));
        }
        Type::Error
    }

    fn expr(&mut self, expr: &mut Expr) -> Type {
        let ty = self.kind(expr);
        if let Some(place) = self.checked.types.get_mut(expr.id as usize) {
            *place = ty.clone();
        }
        ty
    }

    fn kind(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        if let Some((name, ty)) = self.qualified(expr) {
            expr.kind = Kind::Global(name.into());
            return ty;
        }
        match &mut expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Constant(inner) => self.expr(inner),
            Kind::Local(place, _) => self.locals.get(*place as usize).cloned().unwrap_or(Type::Error),
            Kind::Global(name) => {
                let message = format!("undeclared reference to '{name}' (in container '')");
                self.wrong(id, &message)
            }
            Kind::Select { operand, field, test } => {
                let found = self.select(id, operand, field, false);
                if *test { Type::Bool } else { self.substitute(&found, false) }
            }
            Kind::OptSelect { operand, field } => {
                let found = self.select(id, operand, field, true);
                self.substitute(&found, false)
            }
            Kind::Call(call) => self.call(id, call),
            Kind::List { elements, optional } => self.list(elements, optional),
            Kind::Map(entries) => self.map(entries),
            Kind::Message { name, fields } => self.message(id, name, fields),
            Kind::Comprehension(_) => self.comprehension(expr),
            Kind::OptMap { operand, body, flat } => self.opt_map(id, operand, body, *flat),
            Kind::Bind { value, body } => {
                let ty = self.expr(value);
                self.scoped(vec![ty], |inner| inner.expr(body))
            }
        }
    }

    fn list(&mut self, elements: &mut [Expr], optional: &[bool]) -> Type {
        let (mut joined, mut parts) = (None, Vec::new());
        for (element, optional) in elements.iter_mut().zip(optional) {
            let ty = self.entry(element, *optional);
            parts.push((element.id, ty.clone()));
            joined = Some(self.join(joined, ty));
        }
        self.literal(true, parts);
        Type::list(joined.unwrap_or_else(|| self.fresh()))
    }

    fn map(&mut self, entries: &mut [Entry]) -> Type {
        let (mut keys, mut values, mut key_parts, mut value_parts) = (None, None, Vec::new(), Vec::new());
        for entry in entries {
            let ty = self.expr(&mut entry.key);
            key_parts.push((entry.key.id, ty.clone()));
            keys = Some(self.join(keys, ty));
            let ty = self.entry(&mut entry.value, entry.optional);
            value_parts.push((entry.value.id, ty.clone()));
            values = Some(self.join(values, ty));
        }
        self.literal(false, key_parts);
        self.literal(false, value_parts);
        Type::map(keys.unwrap_or_else(|| self.fresh()), values.unwrap_or_else(|| self.fresh()))
    }

    /// `Kind{field: value}`.
    fn message(&mut self, id: u32, name: &str, fields: &mut [MessageField]) -> Type {
        let ty = match self.env.named(name) {
            Some(ty @ Type::Message(_)) => ty,
            Some(_) => self.wrong(id, &format!("'{name}' is not a message type")),
            None => self.wrong(id, &format!("undeclared reference to '{name}' (in container '')")),
        };
        for field in fields {
            let value = self.entry(&mut field.value, field.optional);
            let Type::Message(name) = &ty else { continue };
            match self.env.message_field(name, &field.name) {
                None => _ = self.wrong(field.id, &format!("undefined field '{}'", field.name)),
                Some(wanted) if !self.assignable(&wanted, &value) => {
                    let message = format!("expected type of field '{}' is '{wanted}' but provided type is '{value}'", field.name);
                    self.wrong(field.id, &message);
                }
                Some(_) => {}
            }
        }
        ty
    }

    /// `optional.optMap(v, e)`; `flat` is `optFlatMap`, whose body gives an optional itself.
    fn opt_map(&mut self, id: u32, operand: &mut Expr, body: &mut Expr, flat: bool) -> Type {
        let found = self.expr(operand);
        let inner = match self.substitute(&found, false) {
            Type::Optional(of) => (*of).clone(),
            ty if ty.is_dyn() => Type::Dyn,
            other => self.no_overload(id, if flat { "optFlatMap" } else { "optMap" }, &[other], true),
        };
        let result = self.scoped(vec![inner], |inner| inner.expr(body));
        match (flat, self.substitute(&result, false)) {
            (false, result) => Type::optional(result),
            (true, result @ Type::Optional(_)) => result,
            (true, result) if result.is_dyn() => Type::Dyn,
            (true, other) => self.no_overload(id, "_?_:_", &[Type::Bool, other, Type::optional(Type::Dyn)], false),
        }
    }

    fn scoped<T>(&mut self, types: Vec<Type>, inside: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.locals.len();
        self.locals.extend(types);
        let result = inside(self);
        self.locals.truncate(before);
        result
    }

    /// A declared variable or type that this expression spells, dots included.
    fn qualified(&self, expr: &Expr) -> Option<(String, Type)> {
        let name = dotted(expr)?;
        if let Some(ty) = self.env.variable(&name) {
            return Some((name, ty.clone()));
        }
        let ty = self.env.named(&name)?;
        Some((name, Type::Type(Some(ty.into()))))
    }

    /// An element of a literal; what an optional one holds.
    fn entry(&mut self, expr: &mut Expr, optional: bool) -> Type {
        let ty = self.expr(expr);
        if !optional {
            return ty;
        }
        match self.substitute(&ty, false) {
            Type::Optional(of) => (*of).clone(),
            ty if ty.is_dyn() => ty,
            ty => self.wrong(expr.id, &format!("expected type 'optional_type({ty})' but found '{ty}'")),
        }
    }

    fn select(&mut self, id: u32, operand: &mut Expr, field: &str, optional: bool) -> Type {
        let found = self.expr(operand);
        let found = self.substitute(&found, false);
        let (target, was_optional) = match &found {
            Type::Optional(of) => ((**of).clone(), true),
            other => (other.clone(), false),
        };
        let result = match &target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(decl) => match decl.field(field) {
                Some(field) => field.decl.ty(),
                None => self.wrong(id, &format!("undefined field '{field}'")),
            },
            Type::Message(name) => match self.env.message_field(name, field) {
                Some(ty) => ty,
                None => self.wrong(id, &format!("undefined field '{field}'")),
            },
            Type::Var(_) => {
                self.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            ty if ty.is_dyn() => Type::Dyn,
            ty => {
                self.wrong(id, &format!("type '{ty}' does not support field selection"));
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(result) } else { result }
    }

    fn call(&mut self, id: u32, call: &mut Call) -> Type {
        // `a.b.c()` may be the function `a.b.c`.
        if call.member
            && let Some(prefix) = call.args.first().and_then(dotted)
            && let Some(function) = self.function(&format!("{prefix}.{}", call.name), false)
        {
            call.args.remove(0);
            (call.name, call.member) = (function.name.into(), false);
        }
        let formatting = u32::from(call.member && &*call.name == "format");
        self.formats += formatting;
        let types: Vec<Type> = call.args.iter_mut().map(|arg| self.expr(arg)).collect();
        self.formats -= formatting;
        let Some(function) = self.function(&call.name, call.member) else {
            if self.function(&call.name, !call.member).is_some() {
                return self.no_overload(id, &call.name, &types, call.member);
            }
            return self.wrong(id, &format!("undeclared reference to '{}' (in container '')", call.name));
        };
        call.function = Some(function);
        self.literal_argument(call);
        if matches!(function.name, operators::LOGICAL_AND | operators::LOGICAL_OR) {
            let mut ok = true;
            for (arg, ty) in call.args.iter().zip(&types) {
                if !self.assignable(ty, &Type::Bool) {
                    let ty = self.substitute(ty, true);
                    self.wrong(arg.id, &format!("expected type 'bool' but found '{ty}'"));
                    ok = false;
                }
            }
            self.take(id, function.overloads.iter().collect());
            return if ok { Type::Bool } else { Type::Error };
        }
        let (mut fitting, mut result): (Vec<&'static Overload>, Option<Type>) = (Vec::new(), None);
        for overload in &function.overloads {
            let mut fresh = Vec::new();
            let candidates: Vec<Type> = overload.args.iter().map(|ty| self.instantiate(ty, &mut fresh)).collect();
            if !self.all_assignable(&types, &candidates) {
                continue;
            }
            fitting.push(overload);
            let of = self.instantiate(&overload.result, &mut fresh);
            let of = self.substitute(&of, false);
            result = Some(match result {
                None => of,
                Some(known) if !known.is_dyn() && known != of => Type::Dyn,
                Some(known) => known,
            });
        }
        self.take(id, fitting);
        match result {
            // `type(x)` is a type of what x is.
            Some(_) if function.name == "type" => Type::Type(types.first().map(|ty| self.substitute(ty, false).into())),
            Some(ty) => ty,
            None => self.no_overload(id, function.name, &types, call.member),
        }
    }

    /// Texts that can be read now are: a pattern or a time that never works is a mistake.
    fn literal_argument(&mut self, call: &Call) {
        let Some(Expr { id, kind: Kind::Literal(Literal::String(text)) }) = call.args.last() else { return };
        let fine = match &*call.name {
            "matches" => regex::compile(text).is_ok(),
            "duration" => coracle_api::duration::parse(text).is_ok(),
            "timestamp" => time::parse_timestamp(text).is_some(),
            _ => true,
        };
        if !fine {
            self.wrong(*id, &format!("invalid {} argument", call.name));
        }
    }

    fn take(&mut self, id: u32, overloads: Vec<&'static Overload>) {
        if let Some(place) = self.checked.overloads.get_mut(id as usize) {
            *place = overloads;
        }
    }

    fn function(&self, name: &str, member: bool) -> Option<&'static Function> {
        if name.starts_with("jsonpatch.") && !self.env.mutation() {
            return None;
        }
        functions::find(name, member)
    }

    fn no_overload(&mut self, id: u32, name: &str, types: &[Type], member: bool) -> Type {
        let mut shown = types.iter().map(|ty| self.substitute(ty, true).to_string()).collect::<Vec<_>>().into_iter();
        let target = if member { format!("{}.", shown.next().unwrap_or_default()) } else { String::new() };
        let args = shown.collect::<Vec<_>>().join(", ");
        self.wrong(id, &format!("found no matching overload for '{name}' applied to '{target}({args})'"))
    }

    fn comprehension(&mut self, expr: &mut Expr) -> Type {
        let Kind::Comprehension(fold) = &mut expr.kind else { return Type::Error };
        let range = self.expr(&mut fold.range);
        let accumulator = self.expr(&mut fold.init);
        let range = self.substitute(&range, false);
        let (first, second) = match &range {
            Type::List(of) if fold.second => (Type::Int, (**of).clone()),
            Type::List(of) => ((**of).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Var(_) => {
                self.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)");
                (self.wrong(fold.range.id, &message), Type::Error)
            }
        };
        let mut scope = vec![accumulator.clone(), first];
        if fold.second {
            scope.push(second);
        }
        self.scoped(scope, |inner| {
            let condition = inner.expr(&mut fold.condition);
            inner.must_be(fold.condition.id, &Type::Bool, &condition);
            let step = inner.expr(&mut fold.step);
            inner.must_be(fold.step.id, &accumulator, &step);
        });
        let result = self.scoped(vec![accumulator], |inner| inner.expr(&mut fold.result));
        self.substitute(&result, false)
    }

    fn must_be(&mut self, id: u32, wanted: &Type, found: &Type) {
        if !self.assignable(wanted, found) {
            let (wanted, found) = (self.substitute(wanted, true), self.substitute(found, true));
            self.wrong(id, &format!("expected type '{wanted}' but found '{found}'"));
        }
    }

    /// The type of elements that stand in one literal.
    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        match previous {
            None => current,
            Some(previous) if self.assignable(&previous, &current) => most_general(previous, current),
            Some(_) => Type::Dyn,
        }
    }

    fn literal(&mut self, list: bool, parts: Vec<(u32, Type)>) {
        if self.formats == 0 && parts.len() > 1 {
            self.literals.push((list, parts));
        }
    }

    /// Kubernetes wants the parts of a literal to be of one type, except for what is formatted.
    fn homogeneous(&mut self) {
        for (list, parts) in std::mem::take(&mut self.literals) {
            let mut types = parts.into_iter().map(|(id, ty)| (id, self.substitute(&ty, true))).collect::<Vec<_>>().into_iter();
            let Some((_, first)) = types.next() else { continue };
            for (id, ty) in types {
                if ty != first && first != Type::Error && ty != Type::Error {
                    self.wrong(id, &format!("expected type '{first}' but found '{ty}'"));
                    if list {
                        break;
                    }
                }
            }
        }
    }
}

/// `a.b.c`, when that is all there is. A local variable is no name.
fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Global(name) => Some(name.to_string()),
        Kind::Select { operand, field, test: false } => Some(format!("{}.{field}", dotted(operand)?)),
        _ => None,
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
