//! One expression of a policy: compiled, or the reason why it is not.

use coracle_cel::{Activation, Budget, CALL_LIMIT, Env, Error, Program, Type, Val};

/// An expression and what came of compiling it.
pub struct Expression {
    text: String,
    program: Result<Program, String>,
}

/// Why an expression gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed, as upstream words it.
    Expression(String),
    /// All expressions together took too much; no further one may run.
    Budget(String),
}

impl Failure {
    /// The words.
    pub fn message(self) -> String {
        match self {
            Failure::Expression(why) | Failure::Budget(why) => why,
        }
    }
}

impl Expression {
    /// Compiles an expression.
    pub fn of(env: &Env, text: &str) -> Expression {
        let program = Program::compile(env, text).map_err(|why| format!("compilation failed: {why}"));
        Expression { text: text.to_string(), program }
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it is compiled to.
    pub fn program(&self) -> Option<&Program> {
        self.program.as_ref().ok()
    }

    /// Why it cannot be compiled, in upstream's words (`compilation failed: ERROR: <input>:1:1: …`).
    pub fn error(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// The type of its value; anything when it cannot be compiled.
    pub fn ty(&self) -> Type {
        self.program().map_or(Type::Dyn, |program| program.ty().clone())
    }

    /// Why its value is none of the wanted types, or why there is none.
    pub fn unfit(&self, wanted: &[Type]) -> Option<String> {
        if let Some(error) = self.error() {
            return Some(error.to_string());
        }
        let found = self.ty();
        if wanted.contains(&found) {
            return None;
        }
        let list = wanted.iter().map(Type::to_string).collect::<Vec<_>>();
        Some(match list.as_slice() {
            [one] => format!("must evaluate to {one} but got {found}"),
            many => format!("must evaluate to one of [{}] but got {found}", many.join(" ")),
        })
    }

    /// Evaluates it and takes what that costs from the budget.
    ///
    /// # Errors
    /// Why there is no value.
    pub fn evaluate<'a>(&'a self, activation: &Activation<'a>, budget: &mut Budget) -> Result<Val<'a>, Failure> {
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return Err(Failure::Expression(format!("compilation error: {why}"))),
        };
        let (value, cost) = program.run(activation, CALL_LIMIT);
        if !budget.take(cost) {
            return Err(Failure::Budget("validation failed due to running out of cost budget, no further validation rules will be run".into()));
        }
        value.map_err(|why| match why {
            Error::Budget => Failure::Expression(format!("expression '{}' resulted in error: {}", self.text, Error::Budget)),
            Error::Cel(why) => Failure::Expression(format!("expression '{}' resulted in error: {why}", self.text)),
        })
    }
}
