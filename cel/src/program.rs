//! A compiled expression.

use crate::check::{self, Checked};
use crate::cost;
use crate::eval::{Activation, Error, Run};
use crate::expr::{Expr, Kind, Literal};
use crate::parse;
use crate::types::{Decl, Env, Type};
use crate::value::Val;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An expression that was parsed and checked, ready to run any number of times, from any thread.
#[derive(Debug)]
pub struct Program {
    pub(crate) root: Expr,
    ty: Type,
    globals: BTreeSet<Box<str>>,
}

impl Program {
    /// Compiles an expression.
    ///
    /// # Errors
    /// All mistakes, one below the other, each as upstream shows it (`ERROR: <input>:1:6: undefined field 'x'`, the line, a pointer).
    pub fn compile(env: &Env, source: &str) -> Result<Program, String> {
        Program::checked(env, source, |_, _| {})
    }

    /// As [`Program::compile`], with the most that a run may cost, given what the declaration of all variables' data says about sizes.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn compile_estimated(env: &Env, source: &str, root: &Arc<Decl>) -> Result<(Program, u64), String> {
        let mut cost = 0;
        let program = Program::checked(env, source, |expr, checked| cost = cost::estimate(expr, checked, root).max)?;
        Ok((program, cost))
    }

    fn checked(env: &Env, source: &str, look: impl FnOnce(&Expr, &Checked)) -> Result<Program, String> {
        let mut parsed = parse::parse(source)?;
        let checked = check::check(env, &parsed.positions, &mut parsed.root)?;
        look(&parsed.root, &checked);
        let (mut globals, ty) = (BTreeSet::new(), checked.ty(&parsed.root).clone());
        let mut root = parsed.root;
        if fold(&mut root) {
            wrap(&mut root);
        }
        collect(&mut root, &mut globals);
        Ok(Program { root, ty, globals })
    }

    /// The type of its value.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// Whether it reads this variable.
    pub fn refers_to(&self, name: &str) -> bool {
        self.globals.contains(name)
    }

    /// Runs it. The second part is what that cost, whatever came of it; `limit` bounds it.
    pub fn run<'a>(&'a self, activation: &Activation<'a>, limit: u64) -> (Result<Val<'a>, Error>, u64) {
        let mut run = Run::new(activation, limit);
        let value = run.eval(&self.root);
        (value, run.spent())
    }
}

/// Marks the largest parts that are constant; true if the whole is, and is then left to the caller.
fn fold(expr: &mut Expr) -> bool {
    if matches!(expr.kind, Kind::Literal(_) | Kind::Constant(_)) {
        return true;
    }
    let constant: Vec<bool> = expr.parts().into_iter().map(fold).collect();
    let all = !constant.is_empty() && constant.iter().all(|constant| *constant);
    let may_be = match &expr.kind {
        Kind::List { optional, .. } => !optional.contains(&true),
        Kind::Map(entries) => !entries.iter().any(|entry| entry.optional),
        Kind::Call(call) => !call.member && matches!(&*call.name, "bool" | "bytes" | "double" | "duration" | "int" | "string" | "timestamp" | "uint"),
        _ => false,
    };
    if all && may_be {
        return true;
    }
    expr.parts().into_iter().zip(constant).filter(|(_, constant)| *constant).for_each(|(part, _)| wrap(part));
    false
}

fn wrap(expr: &mut Expr) {
    if !matches!(expr.kind, Kind::Literal(_) | Kind::Constant(_)) {
        let id = expr.id;
        let kind = std::mem::replace(&mut expr.kind, Kind::Literal(Literal::Null));
        expr.kind = Kind::Constant(Box::new(Expr { id, kind }));
    }
}

fn collect(expr: &mut Expr, names: &mut BTreeSet<Box<str>>) {
    if let Kind::Global(name) = &expr.kind {
        names.insert(name.clone());
    }
    expr.parts().into_iter().for_each(|part| collect(part, names));
}
