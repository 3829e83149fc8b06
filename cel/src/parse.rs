//! From text to expressions: the `cel` crate parses, then the tree is lowered.
//!
//! The parser's tree can be as deep as its text is long (`1+1+1…`), so it lives and dies on a thread with a stack that is large enough; what comes out
//! has a bounded depth, and whatever walks it may recurse.

use crate::{
    expr::{Call, Comprehension, Entry, Expr, Kind, Literal, MessageField, Positions, display},
    scan::{self, Refusal},
};
use cel::common::ast::{self, EntryExpr, IdedExpr, LiteralValue, SourceInfo};
use std::sync::Arc;

/// Longest text of one expression, in bytes. Upstream's bound is 100,000 characters; nothing that long was ever an expression.
const MAX_SOURCE: usize = 32 * 1024;
/// Deepest nesting of expressions.
const MAX_DEPTH: u32 = 250;
/// Stack for the parser's tree of the longest text; only what is used takes memory.
const STACK: usize = 256 << 20;

/// A parsed expression.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub root: Expr,
    pub positions: Positions,
}

/// Parses an expression.
///
/// # Errors
/// What is wrong, in upstream's form (`ERROR: <input>:1:1: Syntax error: …`).
pub(crate) fn parse(source: &str) -> Result<Parsed, String> {
    match scan::check(source, MAX_SOURCE, MAX_DEPTH) {
        Ok(()) => {}
        Err(Refusal::Long) => {
            let why = format!("expression code point size exceeds limit: size: {}, limit {MAX_SOURCE}", source.chars().count());
            return Err(display(1, 0, "", &why));
        }
        Err(Refusal::Deep(at)) => {
            let before = source.get(..at).unwrap_or_default();
            let (line, column) = (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count());
            return Err(display(line, column, "", &format!("expression recursion limit exceeded: {MAX_DEPTH}")));
        }
    }
    let owned = source.to_string();
    let thread = std::thread::Builder::new().name("cel-parser".into()).stack_size(STACK).spawn(move || parse_here(&owned));
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(parsed)) => parsed,
        // A bug of the parser's, for the fuzzer to find; nothing here outlives it.
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => Err(display(1, 0, source, &format!("cannot parse now: {error}"))),
    }
}

fn parse_here(source: &str) -> Result<Parsed, String> {
    let parser = cel::parser::Parser::new().max_recursion_depth(250).enable_optional_syntax(true).enable_ident_escape_syntax(true);
    let (tree, info) = parser.parse_with_source_info(source).map_err(|errors| syntax_errors(source, &errors))?;
    let mut lowering =
        Lowering { info: &info, positions: Positions { source: Arc::from(source), offsets: Vec::new() }, locals: Vec::new(), depth: 0 };
    let lowered = lowering.expr(tree);
    let positions = lowering.positions;
    lowered.map(|root| Parsed { root, positions }).map_err(|error| match error {
        Error::At(offset, message) => {
            let positions = Positions { source: Arc::from(source), offsets: vec![offset] };
            positions.message(0, &message)
        }
    })
}

fn syntax_errors(source: &str, errors: &cel::parser::ParseErrors) -> String {
    let one = |error: &cel::parser::ParseError| {
        let (line, column) = (error.pos.0.max(1) as usize, error.pos.1.max(1) as usize);
        // The crate's own error in the clothes of the parser generator's.
        let message = match error.msg.find("Recursion limit of") {
            Some(_) => "expression recursion limit exceeded: 250".to_string(),
            None => error.msg.clone(),
        };
        let text = if error.msg.contains("Recursion limit of") { "" } else { source.lines().nth(line - 1).unwrap_or_default() };
        display(line, column - 1, text, &message)
    };
    let shown: Vec<String> = errors.errors.iter().take(100).map(one).collect();
    shown.join("\n")
}

enum Error {
    /// Offset in characters, and what is wrong there.
    At(u32, String),
}

struct Lowering<'s> {
    info: &'s SourceInfo,
    positions: Positions,
    /// Names of the locals in scope, innermost last.
    locals: Vec<String>,
    depth: u32,
}

type Lowered<T = Expr> = Result<T, Error>;

impl Lowering<'_> {
    fn offset(&self, id: u64) -> u32 {
        self.info.offset_for(id).map_or(0, |(start, _)| start)
    }

    fn node(&mut self, offset: u32, kind: Kind) -> Expr {
        let id = self.positions.offsets.len() as u32;
        self.positions.offsets.push(offset);
        Expr { id, kind }
    }

    fn expr(&mut self, tree: IdedExpr) -> Lowered {
        let at = self.offset(tree.id);
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::At(at, format!("expression recursion limit exceeded: {MAX_DEPTH}")));
        }
        let kind = self.kind(at, tree)?;
        self.depth -= 1;
        Ok(self.node(at, kind))
    }

    fn boxed(&mut self, tree: IdedExpr) -> Lowered<Box<Expr>> {
        self.expr(tree).map(Box::new)
    }

    fn all(&mut self, trees: Vec<IdedExpr>) -> Lowered<Vec<Expr>> {
        trees.into_iter().map(|tree| self.expr(tree)).collect()
    }

    /// With more locals in scope.
    fn scoped<T>(&mut self, names: &[&str], inside: impl FnOnce(&mut Self) -> Lowered<T>) -> Lowered<T> {
        let before = self.locals.len();
        self.locals.extend(names.iter().map(|name| (*name).to_string()));
        let result = inside(self);
        self.locals.truncate(before);
        result
    }

    fn kind(&mut self, at: u32, tree: IdedExpr) -> Lowered<Kind> {
        Ok(match tree.expr {
            ast::Expr::Unspecified => return Err(Error::At(at, "unspecified expression".into())),
            ast::Expr::Literal(literal) => Kind::Literal(lower_literal(literal)),
            ast::Expr::Ident(name) => self.ident(name),
            ast::Expr::Select(select) => {
                let operand = self.boxed(*select.operand)?;
                Kind::Select { operand, field: select.field.into(), test: select.test }
            }
            ast::Expr::Call(call) => self.call(at, call)?,
            ast::Expr::List(list) => {
                let mut optional = vec![false; list.elements.len()];
                for at in list.optional_indices {
                    if let Some(flag) = optional.get_mut(at) {
                        *flag = true;
                    }
                }
                Kind::List { elements: self.all(list.elements)?, optional }
            }
            ast::Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in map.entries {
                    if let EntryExpr::MapEntry(entry) = entry.expr {
                        entries.push(Entry { key: self.expr(entry.key)?, value: self.expr(entry.value)?, optional: entry.optional });
                    }
                }
                Kind::Map(entries)
            }
            ast::Expr::Struct(message) => {
                let mut fields = Vec::with_capacity(message.entries.len());
                for entry in message.entries {
                    let at = self.offset(entry.id);
                    if let EntryExpr::StructField(field) = entry.expr {
                        let value = self.expr(field.value)?;
                        let id = self.node(at, Kind::Literal(Literal::Null)).id;
                        fields.push(MessageField { id, name: field.field.into(), value, optional: field.optional });
                    }
                }
                Kind::Message { name: message.type_name.into(), fields }
            }
            ast::Expr::Comprehension(fold) => {
                let ast::ComprehensionExpr { iter_range, iter_var, iter_var2, accu_var, accu_init, loop_cond, loop_step, result } = *fold;
                let (range, init) = (self.expr(iter_range)?, self.expr(accu_init)?);
                let mut names = vec![accu_var.as_str(), iter_var.as_str()];
                names.extend(iter_var2.as_deref());
                let second = iter_var2.is_some();
                let (condition, step) = self.scoped(&names, |inner| Ok((inner.expr(loop_cond)?, inner.expr(loop_step)?)))?;
                let result = self.scoped(&[&accu_var], |inner| inner.expr(result))?;
                Kind::Comprehension(Box::new(Comprehension { range, second, init, condition, step, result }))
            }
        })
    }

    fn ident(&self, name: String) -> Kind {
        match self.locals.iter().rposition(|known| *known == name) {
            Some(place) => Kind::Local(place as u32, name.into()),
            None => Kind::Global(name.into()),
        }
    }

    fn call(&mut self, at: u32, call: ast::CallExpr) -> Lowered<Kind> {
        let member = call.target.is_some();
        let mut args = call.args;
        match (member, call.func_name.as_str(), args.len()) {
            (true, "optMap" | "optFlatMap", 2) => {
                let (target, mut names) = (call.target.map_or_else(IdedExpr::default, |target| *target), args.drain(..));
                let (variable, body) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
                let operand = self.boxed(target)?;
                let name = self.variable(variable)?;
                let body = self.scoped(&[&name], |inner| inner.boxed(body))?;
                return Ok(Kind::OptMap { operand, body, flat: call.func_name == "optFlatMap" });
            }
            (true, "all" | "exists" | "existsOne" | "exists_one" | "transformList" | "transformMap" | "transformMapEntry", 3)
            | (true, "transformList" | "transformMap" | "transformMapEntry", 4) => {
                let target = call.target.map_or_else(IdedExpr::default, |target| *target);
                return self.two_variables(at, &call.func_name, target, args);
            }
            (true, "sortBy", 2) => {
                let target = call.target.map_or_else(IdedExpr::default, |target| *target);
                return self.sort_by(at, target, args);
            }
            (false, ast::operators::OPT_SELECT, 2) => {
                if let Some(IdedExpr { expr: ast::Expr::Literal(LiteralValue::String(field)), .. }) = args.last() {
                    let field = field.inner().into();
                    let operand = args.into_iter().next().unwrap_or_default();
                    return Ok(Kind::OptSelect { operand: self.boxed(operand)?, field });
                }
            }
            _ => {}
        }
        let mut lowered = Vec::with_capacity(args.len() + usize::from(member));
        if let Some(target) = call.target {
            lowered.push(self.expr(*target)?);
        }
        for arg in args {
            lowered.push(self.expr(arg)?);
        }
        Ok(Kind::Call(Call { name: call.func_name.into(), member, args: lowered, function: None }))
    }

    fn variable(&self, tree: IdedExpr) -> Lowered<String> {
        let at = self.offset(tree.id);
        match tree.expr {
            ast::Expr::Ident(name) if !name.starts_with('@') && name != "__result__" => Ok(name),
            ast::Expr::Ident(_) => Err(Error::At(at, "iteration variable overwrites accumulator variable".into())),
            _ => Err(Error::At(at, "argument must be a simple name".into())),
        }
    }

    fn operator(&mut self, at: u32, name: &str, args: Vec<Expr>) -> Expr {
        self.node(at, Kind::Call(Call { name: name.into(), member: false, args, function: None }))
    }

    /// `range.transformList(index, value, filter, transform)` and its relatives, as upstream expands them.
    fn two_variables(&mut self, at: u32, name: &str, target: IdedExpr, args: Vec<IdedExpr>) -> Lowered<Kind> {
        use ast::operators::{ADD, CONDITIONAL, EQUALS, LOGICAL_AND, LOGICAL_NOT, LOGICAL_OR, NOT_STRICTLY_FALSE};
        let range = self.expr(target)?;
        let mut args = args.into_iter();
        let first = self.variable(args.next().unwrap_or_default())?;
        let second = self.variable(args.next().unwrap_or_default())?;
        if first == second {
            return Err(Error::At(at, format!("duplicate variable name: {first}")));
        }
        let (one, two) = (args.next().unwrap_or_default(), args.next());
        let accumulator = self.locals.len() as u32;
        let result = |lowering: &mut Self| lowering.node(at, Kind::Local(accumulator, "@result".into()));
        let boolean = |lowering: &mut Self, value: bool| lowering.node(at, Kind::Literal(Literal::Bool(value)));
        let number = |lowering: &mut Self, value: i64| lowering.node(at, Kind::Literal(Literal::Int(value)));
        let init = match name {
            "all" => boolean(self, true),
            "exists" => boolean(self, false),
            "existsOne" | "exists_one" => number(self, 0),
            "transformList" => self.node(at, Kind::List { elements: Vec::new(), optional: Vec::new() }),
            _ => self.node(at, Kind::Map(Vec::new())),
        };
        let names = ["@result", first.as_str(), second.as_str()];
        let (condition, step) = self.scoped(&names, |inner| {
            let one = inner.expr(one)?;
            let two = two.map(|two| inner.expr(two)).transpose()?;
            let accumulated = result(inner);
            Ok(match name {
                "all" | "exists" => {
                    let mut test = result(inner);
                    if name == "exists" {
                        test = inner.operator(at, LOGICAL_NOT, vec![test]);
                    }
                    let condition = inner.operator(at, NOT_STRICTLY_FALSE, vec![test]);
                    let operator = if name == "all" { LOGICAL_AND } else { LOGICAL_OR };
                    (condition, inner.operator(at, operator, vec![accumulated, one]))
                }
                "existsOne" | "exists_one" => {
                    let (increment, kept) = (number(inner, 1), result(inner));
                    let next = inner.operator(at, ADD, vec![accumulated, increment]);
                    (boolean(inner, true), inner.operator(at, CONDITIONAL, vec![one, next, kept]))
                }
                _ => (boolean(inner, true), inner.transformed(at, name, (&first, accumulator), accumulated, one, two)),
            })
        })?;
        let mut end = result(self);
        if matches!(name, "existsOne" | "exists_one") {
            let one = number(self, 1);
            end = self.operator(at, EQUALS, vec![end, one]);
        }
        Ok(Kind::Comprehension(Box::new(Comprehension { range, second: true, init, condition, step, result: end })))
    }

    /// The step of `transformList`, `transformMap` and `transformMapEntry`: what is accumulated and the next part, unless a filter leaves that out.
    fn transformed(&mut self, at: u32, name: &str, (key, accumulator): (&str, u32), accumulated: Expr, one: Expr, two: Option<Expr>) -> Expr {
        use ast::operators::{ADD, CONDITIONAL};
        let (filter, transform) = match two {
            Some(two) => (Some(one), two),
            None => (None, one),
        };
        let next = match name {
            "transformList" => {
                let element = self.node(at, Kind::List { elements: vec![transform], optional: vec![false] });
                self.operator(at, ADD, vec![accumulated, element])
            }
            "transformMap" => {
                let key = self.node(at, Kind::Local(accumulator + 1, key.into()));
                self.operator(at, "cel.@mapInsert", vec![accumulated, key, transform])
            }
            _ => self.operator(at, "cel.@mapInsert", vec![accumulated, transform]),
        };
        match filter {
            Some(filter) => {
                let kept = self.node(at, Kind::Local(accumulator, "@result".into()));
                self.operator(at, CONDITIONAL, vec![filter, next, kept])
            }
            None => next,
        }
    }

    /// `list.sortBy(e, key)` is `list.@sortByAssociatedKeys(list.map(e, key))` with the list bound once.
    fn sort_by(&mut self, at: u32, target: IdedExpr, args: Vec<IdedExpr>) -> Lowered<Kind> {
        let value = self.boxed(target)?;
        let mut args = args.into_iter();
        let variable = self.variable(args.next().unwrap_or_default())?;
        let key = args.next().unwrap_or_default();
        let input = self.locals.len() as u32;
        let body = self.scoped(&["@sortBy"], |inner| {
            let range = inner.node(at, Kind::Local(input, "@sortBy".into()));
            let init = inner.node(at, Kind::List { elements: Vec::new(), optional: Vec::new() });
            let (condition, step) = inner.scoped(&["@result", &variable], |inner| {
                let key = inner.expr(key)?;
                let element = inner.node(at, Kind::List { elements: vec![key], optional: vec![false] });
                let accumulated = inner.node(at, Kind::Local(input + 1, "@result".into()));
                let condition = inner.node(at, Kind::Literal(Literal::Bool(true)));
                Ok((condition, inner.operator(at, ast::operators::ADD, vec![accumulated, element])))
            })?;
            let result = inner.node(at, Kind::Local(input + 1, "@result".into()));
            let keys = inner.node(at, Kind::Comprehension(Box::new(Comprehension { range, second: false, init, condition, step, result })));
            let list = inner.node(at, Kind::Local(input, "@sortBy".into()));
            let call = Call { name: "@sortByAssociatedKeys".into(), member: true, args: vec![list, keys], function: None };
            Ok(Box::new(inner.node(at, Kind::Call(call))))
        })?;
        Ok(Kind::Bind { value, body })
    }
}

fn lower_literal(literal: LiteralValue) -> Literal {
    match literal {
        LiteralValue::Boolean(value) => Literal::Bool(value.into_inner()),
        LiteralValue::Bytes(value) => Literal::Bytes(value.into_inner().into()),
        LiteralValue::Double(value) => Literal::Double(value.into_inner()),
        LiteralValue::Int(value) => Literal::Int(value.into_inner()),
        LiteralValue::Null => Literal::Null,
        LiteralValue::String(value) => Literal::String(value.into_inner().into()),
        LiteralValue::UInt(value) => Literal::Uint(value.into_inner()),
    }
}
