//! `authorizer`: asks what a user may do.

use crate::eval::{Answer, Error, Run, error, no_overload};
use crate::functions::Library;
use crate::value::{Opaque, Val};
use coracle_api::names;

pub(super) const LIBRARY: Library = &[
    ("(kubernetes.authorization.Authorizer).path(string) -> kubernetes.authorization.PathCheck", path),
    ("(kubernetes.authorization.Authorizer).group(string) -> kubernetes.authorization.GroupCheck", group),
    ("(kubernetes.authorization.Authorizer).serviceAccount(string, string) -> kubernetes.authorization.Authorizer", service_account),
    ("(kubernetes.authorization.GroupCheck).resource(string) -> kubernetes.authorization.ResourceCheck", resource),
    ("(kubernetes.authorization.ResourceCheck).subresource(string) -> kubernetes.authorization.ResourceCheck", subresource),
    ("(kubernetes.authorization.ResourceCheck).namespace(string) -> kubernetes.authorization.ResourceCheck", namespace),
    ("(kubernetes.authorization.ResourceCheck).name(string) -> kubernetes.authorization.ResourceCheck", name),
    ("(kubernetes.authorization.ResourceCheck).fieldSelector(string) -> kubernetes.authorization.ResourceCheck", field_selector),
    ("(kubernetes.authorization.ResourceCheck).labelSelector(string) -> kubernetes.authorization.ResourceCheck", label_selector),
    ("(kubernetes.authorization.PathCheck).check(string) -> kubernetes.authorization.Decision", check),
    ("(kubernetes.authorization.ResourceCheck).check(string) -> kubernetes.authorization.Decision", check),
    ("(kubernetes.authorization.Decision).allowed() -> bool", allowed),
    ("(kubernetes.authorization.Decision).reason() -> string", reason),
    ("(kubernetes.authorization.Decision).errored() -> bool", errored),
    ("(kubernetes.authorization.Decision).error() -> string", error_text),
];

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Whose rights: of a service account (namespace, name), or of the one who makes the request.
    pub account: Option<(String, String)>,
    /// A path that is no resource.
    pub path: Option<String>,
    /// API group.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// Or empty.
    pub subresource: String,
    /// Or empty.
    pub namespace: String,
    /// Or empty.
    pub name: String,
    /// As text, or empty.
    pub field_selector: String,
    /// As text, or empty.
    pub label_selector: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// Why there is no proper answer.
    pub error: Option<String>,
}

/// Something that knows what users may do.
pub trait Authorizer {
    /// Answers one question.
    fn check(&self, check: &Check, verb: &str) -> Decision;
}

/// How far a question is put together.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Step {
    Authorizer(Check),
    Path(Check),
    Group(Check),
    Resource(Check),
    Decision(Decision),
}

impl Step {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Step::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Step::Path(_) => "kubernetes.authorization.PathCheck",
            Step::Group(_) => "kubernetes.authorization.GroupCheck",
            Step::Resource(_) => "kubernetes.authorization.ResourceCheck",
            Step::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

/// Values for `authorizer` and `authorizer.requestResource`.
impl<'a> Val<'a> {
    /// The value of `authorizer`.
    pub fn authorizer() -> Val<'a> {
        Val::opaque(Opaque::Authz(Step::Authorizer(Check::default())))
    }
    /// The value of `authorizer.requestResource`.
    pub fn resource_check(check: Check) -> Val<'a> {
        Val::opaque(Opaque::Authz(Step::Resource(check)))
    }
}

fn step<'v>(value: Option<&'v Val<'_>>) -> Result<&'v Step, Error> {
    match value {
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Authz(step) => Ok(step),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

/// The question so far and the text that is added to it.
fn adding<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Result<(Check, String), Error> {
    let Some(Val::String(text)) = args.get(1) else { return no_overload() };
    run.allocate(text.len() + size_of::<Check>())?;
    match step(args.first())? {
        Step::Authorizer(check) | Step::Group(check) | Step::Resource(check) => Ok((check.clone(), text.to_string())),
        _ => no_overload(),
    }
}

fn made<'a>(step: Step) -> Answer<'a> {
    Ok(Val::opaque(Opaque::Authz(step)))
}

fn path<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (check, path) = adding(run, args)?;
    if path.trim().is_empty() {
        return error("path must not be empty");
    }
    made(Step::Path(Check { path: Some(path), ..check }))
}

fn group<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (check, group) = adding(run, args)?;
    made(Step::Group(Check { group, ..check }))
}

fn service_account<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (check, namespace) = adding(run, args)?;
    let Some(Val::String(name)) = args.get(2) else { return no_overload() };
    if !names::dns_subdomain(name).is_empty() {
        return error("Invalid service account name");
    }
    if !names::dns_label(&namespace).is_empty() {
        return error("Invalid service account namespace");
    }
    made(Step::Authorizer(Check { account: Some((namespace, name.to_string())), ..check }))
}

fn resource<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (check, resource) = adding(run, args)?;
    if resource.trim().is_empty() {
        return error("resource must not be empty");
    }
    made(Step::Resource(Check { resource, ..check }))
}

fn subresource<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (check, subresource) = adding(run, args)?;
    made(Step::Resource(Check { subresource, ..check }))
}

fn namespace<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (check, namespace) = adding(run, args)?;
    made(Step::Resource(Check { namespace, ..check }))
}

fn name<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (check, name) = adding(run, args)?;
    made(Step::Resource(Check { name, ..check }))
}

fn field_selector<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (check, field_selector) = adding(run, args)?;
    made(Step::Resource(Check { field_selector, ..check }))
}

fn label_selector<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (check, label_selector) = adding(run, args)?;
    made(Step::Resource(Check { label_selector, ..check }))
}

fn check<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let Some(Val::String(verb)) = args.get(1) else { return no_overload() };
    let (Step::Path(check) | Step::Resource(check)) = step(args.first())? else { return no_overload() };
    let Some(authorizer) = run.activation.authorizer else { return error("no authorizer") };
    made(Step::Decision(authorizer.check(check, verb)))
}

fn decision<'v>(args: &'v [Val<'_>]) -> Result<&'v Decision, Error> {
    match step(args.first())? {
        Step::Decision(decision) => Ok(decision),
        _ => no_overload(),
    }
}

fn allowed<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(decision(args)?.allowed))
}

fn reason<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::text(decision(args)?.reason.clone()))
}

fn errored<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(decision(args)?.error.is_some()))
}

fn error_text<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::text(decision(args)?.error.clone().unwrap_or_default()))
}
