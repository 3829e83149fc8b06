//! What an expression is about: variables, and whom `authorizer` asks.

use super::{Answer, Error};
use crate::{library::authz::Authorizer, program::Program, value::Val};
use std::cell::RefCell;

/// The values of variables for one evaluation, or for several that share lazily evaluated ones.
#[derive(Default)]
pub struct Activation<'a> {
    pub(super) globals: Vec<(&'a str, Val<'a>)>,
    pub(super) variables: Vec<Variable<'a>>,
    pub(crate) authorizer: Option<&'a dyn Authorizer>,
}

/// `variables.name`: evaluated at most once.
pub(super) struct Variable<'a> {
    pub(super) name: &'a str,
    pub(super) program: &'a Program,
    pub(super) value: RefCell<Option<Answer<'a>>>,
}

impl<'a> Activation<'a> {
    /// Nothing bound yet.
    pub fn new() -> Activation<'a> {
        Activation::default()
    }
    /// Binds a variable.
    pub fn bind(&mut self, name: &'a str, value: Val<'a>) {
        self.globals.push((name, value));
    }
    /// Binds a variable to JSON, as its declaration reads it.
    ///
    /// # Errors
    /// JSON that is not of the declaration.
    pub fn bind_json(&mut self, name: &'a str, value: &'a serde_json::Value, decl: Option<&'a crate::Decl>) -> Result<(), Error> {
        self.bind(name, Val::of(value, decl)?);
        Ok(())
    }
    /// Adds `variables.name`.
    pub fn define(&mut self, name: &'a str, program: &'a Program) {
        self.variables.push(Variable { name, program, value: RefCell::new(None) });
    }
    /// Gives `authorizer` something to ask.
    pub fn set_authorizer(&mut self, authorizer: &'a dyn Authorizer) {
        self.authorizer = Some(authorizer);
    }
}
