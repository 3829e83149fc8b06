//! Match conditions: expressions that all must be true before a policy or a webhook is asked (KEP-3716).

use super::expression::{Expression, Failure};
use coracle_cel::{Activation, Budget, CONDITIONS_BUDGET, Env, Val};
use serde_json::Value;

/// The conditions of one policy or webhook.
#[derive(Default)]
pub struct Conditions {
    list: Vec<Expression>,
}

impl Conditions {
    /// Reads and compiles `matchConditions`.
    pub fn of(env: &Env, list: &Value) -> Conditions {
        let expression = |condition: &Value| Expression::of(env, condition["expression"].as_str().unwrap_or_default());
        Conditions { list: list.as_array().into_iter().flatten().map(expression).collect() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether all are true. One that is false decides, whatever others fail on.
    ///
    /// # Errors
    /// What failed, when nothing is false; with `lenient` a failure is as good as false.
    pub fn hold<'a>(&'a self, activation: &Activation<'a>, lenient: bool) -> Result<bool, String> {
        let (mut budget, mut wrong) = (Budget::new(CONDITIONS_BUDGET), Vec::new());
        for condition in &self.list {
            match condition.evaluate(activation, &mut budget) {
                Ok(Val::Bool(true)) => {}
                Ok(Val::Bool(false)) => return Ok(false),
                Ok(_) => wrong.push(format!("expression '{}' resulted in error: not a bool", condition.text())),
                Err(Failure::Expression(why)) => wrong.push(why),
                Err(Failure::Budget(why)) => {
                    wrong.push(why);
                    break;
                }
            }
        }
        match wrong.as_slice() {
            [] => Ok(true),
            _ if lenient => Ok(false),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}
