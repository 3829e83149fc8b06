//! CEL as Kubernetes has it: the Common Expression Language with the API server's libraries, limits and words. Pure.
//!
//! The `cel` crate parses. Checking against types, static cost estimates, the interpreter with its meter, and the libraries are here: upstream's behaviour in
//! all four is part of its API, and none of them can be had from a crate that does not know it. An expression is compiled once ([`Program`]) and run against
//! an [`Activation`]; JSON is borrowed, not converted.
//!
//! Nothing that a user writes makes this hang, swell or panic: text, depth, types, cost and work are bounded.

mod check;
mod cost;
mod eval;
mod expr;
mod functions;
mod library;
mod meter;
mod parse;
mod program;
mod rule;
mod scan;
mod types;
mod value;

pub use eval::{Activation, Error};
pub use library::authz::{Authorizer, Check, Decision};
pub use program::Program;
pub use rule::{Budget, Rule, RuleError, RuleText, Verdict, message_of};
pub use types::{Decl, Env, Field, ListKind, Shape, Type, escape};
pub use value::{Key, List, Map, Message, Opaque, Text, Val};

/// Limit of one run of one expression.
pub const CALL_LIMIT: u64 = 1_000_000;
/// Limit of all expressions about one object: of one policy binding, or of the rules of one custom resource.
pub const BUDGET: u64 = 10_000_000;
/// Limit of the match conditions of one webhook or policy about one request.
pub const CONDITIONS_BUDGET: u64 = 2_500_000;
/// Largest text that a message expression may make, in bytes.
pub const MAX_MESSAGE: usize = 5 * 1024;
/// Most that one rule of a custom resource definition may cost by estimate.
pub const ESTIMATE_LIMIT: u64 = 10_000_000;
/// Most that all rules of a custom resource definition may cost by estimate.
pub const ESTIMATE_TOTAL_LIMIT: u64 = 100_000_000;

#[cfg(test)]
mod tests;
