//! Validation rules of custom resources (`x-kubernetes-validations`): one rule at one node of a schema.
//!
//! ```
//! use coracle_cel::{Budget, Decl, Rule, RuleText, Shape, Verdict};
//! use serde_json::json;
//!
//! let decl = Decl::object("", [("replicas", Decl::new(Shape::Int), true)]);
//! let text = RuleText { rule: "self.replicas <= 3 && (self.replicas >= oldSelf.replicas)", message: "may only grow, to three", ..RuleText::default() };
//! let rule = Rule::compile(&decl, &text).expect("a good rule");
//! // A rule about `oldSelf` waits until there is something old.
//! let mut budget = Budget::default();
//! assert_eq!(rule.evaluate(&json!({"replicas": 1}), None, &mut budget), Verdict::Skipped);
//! let verdict = rule.evaluate(&json!({"replicas": 1}), Some(&json!({"replicas": 2})), &mut budget);
//! assert_eq!(verdict, Verdict::Fails("may only grow, to three".into()));
//! ```

use crate::eval::{Activation, Error};
use crate::types::{Decl, Env, Type};
use crate::value::Val;
use crate::{BUDGET, CALL_LIMIT, MAX_MESSAGE, Program};
use serde_json::Value;
use std::rc::Rc;
use std::sync::Arc;

/// The parts of a rule as they are written; empty where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuleText<'t> {
    /// `rule`
    pub rule: &'t str,
    /// `message`
    pub message: &'t str,
    /// `messageExpression`
    pub message_expression: &'t str,
    /// `optionalOldSelf`: `oldSelf` is an optional, and the rule is evaluated on create too.
    pub optional_old_self: bool,
}

/// What is wrong with a rule: the detail of the cause, and which field it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// `rule`
    Rule(String),
    /// `messageExpression`
    MessageExpression(String),
}

/// What is left of the cost that all rules of one object may have together.
#[derive(Clone, Copy, Debug)]
pub struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Budget(BUDGET)
    }
}

impl Budget {
    /// A budget of this cost.
    pub fn new(cost: u64) -> Budget {
        Budget(cost)
    }
    /// What is left.
    pub fn left(&self) -> u64 {
        self.0
    }
    /// Takes a cost; false when it was more than there was, and then nothing is left.
    pub fn take(&mut self, cost: u64) -> bool {
        let enough = cost <= self.0;
        self.0 = self.0.saturating_sub(cost);
        enough
    }
}

/// What came of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It is about a change, and there is nothing old.
    Skipped,
    /// It does not hold; the message for the user.
    Fails(String),
    /// It could not be evaluated; the detail of the cause.
    Wrong(String),
    /// No further rules may be evaluated for this object; the detail of the cause.
    Exhausted(String),
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    program: Program,
    cost: u64,
    message_program: Option<(Program, u64)>,
    rule: Box<str>,
    message: Box<str>,
    optional_old_self: bool,
    decl: Arc<Decl>,
}

/// What is said when the budget does not suffice.
const EXHAUSTED: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

impl Rule {
    /// Compiles a rule for the node of a schema that `decl` declares.
    ///
    /// # Errors
    /// The first part that cannot be used, in upstream's words.
    pub fn compile(decl: &Arc<Decl>, text: &RuleText<'_>) -> Result<Rule, RuleError> {
        let old = if text.optional_old_self { Type::optional(decl.ty()) } else { decl.ty() };
        let env = Env::new().with("self", decl.ty()).with("oldSelf", old);
        let (program, cost) =
            Program::compile_estimated(&env, text.rule, decl).map_err(|why| RuleError::Rule(format!("compilation failed: {why}")))?;
        if *program.ty() != Type::Bool {
            return Err(RuleError::Rule("cel expression must evaluate to a bool".into()));
        }
        let message_program = match text.message_expression {
            "" => None,
            expression => {
                let wrong = |why: String| RuleError::MessageExpression(why);
                let compiled = Program::compile_estimated(&env, expression, decl)
                    .map_err(|why| wrong(format!("messageExpression compilation failed: {why}")))?;
                if *compiled.0.ty() != Type::String {
                    return Err(wrong("messageExpression must evaluate to a string".into()));
                }
                Some(compiled)
            }
        };
        let (rule, message) = (text.rule.trim().into(), text.message.trim().into());
        Ok(Rule { program, cost, message_program, rule, message, optional_old_self: text.optional_old_self, decl: decl.clone() })
    }

    /// The most that one evaluation of the rule may cost, by estimate.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The most that its message expression may cost; 0 without one.
    pub fn message_cost(&self) -> u64 {
        self.message_program.as_ref().map_or(0, |(_, cost)| *cost)
    }

    /// Whether it is about a change.
    pub fn uses_old_self(&self) -> bool {
        self.program.refers_to("oldSelf")
    }

    /// Evaluates the rule about a value that fits the schema; `old` is the value that it replaces, if there is a comparable one.
    pub fn evaluate(&self, new: &Value, old: Option<&Value>, budget: &mut Budget) -> Verdict {
        if budget.left() == 0 {
            return Verdict::Exhausted(EXHAUSTED.into());
        }
        if self.uses_old_self() && old.is_none() && !self.optional_old_self {
            return Verdict::Skipped;
        }
        let mut activation = Activation::new();
        if let Err(why) = self.bind(&mut activation, new, old) {
            return Verdict::Wrong(why.to_string());
        }
        let (value, cost) = self.program.run(&activation, CALL_LIMIT);
        let value = value.and_then(|value| if let Val::Bool(holds) = value { Ok(holds) } else { Err(Error::Cel("no such overload".into())) });
        if !budget.take(cost) && value != Err(Error::Budget) {
            return Verdict::Exhausted(EXHAUSTED.into());
        }
        let shown = if self.message.is_empty() { &self.rule } else { &self.message };
        match value {
            Ok(true) => Verdict::Holds,
            Ok(false) => self.failure(&activation, budget),
            Err(Error::Budget) => Verdict::Exhausted(format!(
                "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}",
                Error::Budget
            )),
            Err(Error::Cel(why)) if why.starts_with("no such overload") => {
                Verdict::Wrong(format!("'{why}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"))
            }
            Err(Error::Cel(why)) => Verdict::Wrong(format!("{why} evaluating rule: {shown}")),
        }
    }

    fn bind<'a>(&'a self, activation: &mut Activation<'a>, new: &'a Value, old: Option<&'a Value>) -> Result<(), Error> {
        activation.bind_json("self", new, Some(&self.decl))?;
        let old = old.map(|old| Val::of(old, Some(&self.decl))).transpose()?;
        match old {
            old if self.optional_old_self => activation.bind("oldSelf", Val::Optional(old.map(Rc::new))),
            Some(old) => activation.bind("oldSelf", old),
            None => {}
        }
        Ok(())
    }

    /// The message: made by the expression if that works, else the one that is written.
    fn failure<'a>(&'a self, activation: &Activation<'a>, budget: &mut Budget) -> Verdict {
        if let Some((program, _)) = &self.message_program {
            let (made, cost) = program.run(activation, CALL_LIMIT);
            if !budget.take(cost) {
                return Verdict::Exhausted(format!(
                    "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run: {}",
                    self.rule
                ));
            }
            if let Ok(made) = message_of(made) {
                return Verdict::Fails(made);
            }
        }
        if self.message.is_empty() { Verdict::Fails(format!("failed rule: {}", self.rule)) } else { Verdict::Fails(self.message.to_string()) }
    }
}

/// The text that a message expression makes.
///
/// # Errors
/// Why it cannot be used; the message that is written is shown then.
pub fn message_of(value: Result<Val<'_>, Error>) -> Result<String, String> {
    let text = match value {
        Ok(Val::String(text)) => text,
        Ok(_) => return Err("failed to evaluate to a string".into()),
        Err(why) => return Err(format!("failed to evaluate: {why}")),
    };
    let message = text.trim();
    match () {
        () if message.len() > MAX_MESSAGE => Err("evaluated to an overly long string".into()),
        () if message.contains('\n') => Err("should not contain line breaks".into()),
        () if message.is_empty() => Err("should evaluate to a non-empty string".into()),
        () => Ok(message.to_string()),
    }
}
