//! FlowSchemas and PriorityLevelConfigurations, read from the store; and to which a request belongs.

use super::{Judged, gate::Room, lending::Span};
use crate::{
    auth::{Attributes, User},
    view::{Meta, Text, parse},
};
use coracle_store::Object;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// Resource id of FlowSchemas.
pub const SCHEMAS: &str = "flowschemas.flowcontrol.apiserver.k8s.io";
/// Resource id of PriorityLevelConfigurations.
pub const LEVELS: &str = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io";

#[derive(Deserialize, Default)]
#[serde(default)]
struct SchemaView<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    spec: SchemaSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SchemaSpec<'a> {
    #[serde(borrow)]
    priority_level_configuration: Named<'a>,
    matching_precedence: i64,
    distinguisher_method: Option<Distinguisher>,
    rules: Vec<RuleView<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    namespace: Text<'a>,
}
#[derive(Deserialize)]
struct Distinguisher {
    #[serde(rename = "type")]
    kind: By,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum By {
    #[serde(rename = "ByUser")]
    User,
    #[serde(rename = "ByNamespace")]
    Namespace,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RuleView<'a> {
    #[serde(borrow)]
    subjects: Vec<SubjectView<'a>>,
    resource_rules: Vec<On>,
    non_resource_rules: Vec<Paths>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SubjectView<'a> {
    #[serde(borrow)]
    user: Option<Named<'a>>,
    group: Option<Named<'a>>,
    service_account: Option<Named<'a>>,
}
#[derive(Clone, Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct On {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}
#[derive(Clone, Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Paths {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct LevelView<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
    spec: LevelSpec,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct LevelSpec {
    limited: Option<Limited>,
    exempt: Option<Shares>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Shares {
    nominal_concurrency_shares: Option<u64>,
    lendable_percent: Option<u64>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Limited {
    nominal_concurrency_shares: Option<u64>,
    lendable_percent: Option<u64>,
    borrowing_limit_percent: Option<u64>,
    limit_response: Response,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Response {
    queuing: Option<Queuing>,
}
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Queuing {
    queues: usize,
    queue_length_limit: usize,
}
impl Default for Queuing {
    fn default() -> Self {
        Self { queues: 64, queue_length_limit: 50 }
    }
}

/// Of whom a rule speaks.
#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    Account(String, String),
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    on: Vec<On>,
    paths: Vec<Paths>,
}

#[derive(Debug)]
struct Schema {
    name: Arc<str>,
    uid: Arc<str>,
    level: Arc<str>,
    by: Option<By>,
    rules: Vec<Rule>,
}

/// A priority level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// uid
    pub uid: Arc<str>,
    /// It never waits.
    pub exempt: bool,
    /// Its part of all seats, and what of it is lent or may be borrowed.
    pub span: Span,
    /// Who may wait; nobody where the level rejects.
    pub queue: Room,
}

/// All that is stored, in the order in which it is asked.
#[derive(Debug, Default)]
pub struct Rules {
    schemas: Vec<Schema>,
    /// By name.
    pub levels: BTreeMap<Arc<str>, Level>,
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|item| item == "*" || item == word)
}

impl Subject {
    fn of(view: &SubjectView<'_>) -> Option<Self> {
        match (&view.user, &view.group, &view.service_account) {
            (Some(user), ..) => Some(Self::User(user.name.to_string())),
            (_, Some(group), _) => Some(Self::Group(group.name.to_string())),
            (.., Some(account)) => Some(Self::Account(account.namespace.to_string(), account.name.to_string())),
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.in_group(name),
            Self::Account(namespace, name) => {
                let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                account.is_some_and(|(its, it)| its == namespace && (name == "*" || name == it))
            }
        }
    }
}

impl On {
    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let resource = || match asked.subresource {
            "" => has(&self.resources, asked.resource),
            sub => has(&self.resources, &format!("{}/{sub}", asked.resource)),
        };
        has(&self.verbs, asked.verb)
            && has(&self.api_groups, asked.group)
            && resource()
            && if asked.namespace.is_empty() { self.cluster_scope } else { has(&self.namespaces, asked.namespace) }
    }
}

impl Paths {
    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let covers = |url: &String| url == "*" || *url == asked.path || url.strip_suffix('*').is_some_and(|prefix| asked.path.starts_with(prefix));
        has(&self.verbs, asked.verb) && self.urls.iter().any(covers)
    }
}

impl Rule {
    fn matches(&self, user: &User, asked: &Attributes<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && if asked.path.is_empty() { self.on.iter().any(|on| on.matches(asked)) } else { self.paths.iter().any(|paths| paths.matches(asked)) }
    }
}

impl Rules {
    /// Reads what is stored; `total` seats are shared out. What cannot be read is left out.
    pub fn of(schemas: &[Arc<Object>], levels: &[Arc<Object>], total: usize) -> Self {
        let views: Vec<LevelView<'_>> = levels.iter().filter_map(|object| parse(object).ok()).collect();
        let shares = |view: &LevelView<'_>| match (&view.spec.limited, &view.spec.exempt) {
            (Some(limited), _) => limited.nominal_concurrency_shares.unwrap_or(30),
            (None, Some(exempt)) => exempt.nominal_concurrency_shares.unwrap_or(0),
            (None, None) => 0,
        };
        let sum: u64 = views.iter().map(shares).sum::<u64>().max(1);
        let level = |view: &LevelView<'_>| {
            let nominal = (total as u64 * shares(view)).div_ceil(sum) as usize;
            let room = |queuing: &Queuing| Room { flow: queuing.queue_length_limit, all: queuing.queues.saturating_mul(queuing.queue_length_limit) };
            let (lendable, borrowing, queuing) = match &view.spec.limited {
                Some(limited) => (limited.lendable_percent, limited.borrowing_limit_percent, limited.limit_response.queuing.as_ref()),
                None => (view.spec.exempt.as_ref().and_then(|exempt| exempt.lendable_percent), None, None),
            };
            Level {
                uid: Arc::from(&*view.metadata.uid),
                exempt: view.spec.limited.is_none(),
                span: Span::of(nominal, lendable, borrowing, total),
                queue: queuing.map(room).unwrap_or_default(),
            }
        };
        let levels = views.iter().map(|view| (Arc::from(&*view.metadata.name), level(view))).collect();
        let mut schemas: Vec<SchemaView<'_>> = schemas.iter().filter_map(|object| parse(object).ok()).collect();
        schemas.sort_by(|a, b| (a.spec.matching_precedence, &a.metadata.name).cmp(&(b.spec.matching_precedence, &b.metadata.name)));
        let rule = |view: RuleView<'_>| Rule {
            subjects: view.subjects.iter().filter_map(Subject::of).collect(),
            on: view.resource_rules,
            paths: view.non_resource_rules,
        };
        let schema = |view: SchemaView<'_>| Schema {
            name: (&*view.metadata.name).into(),
            uid: (&*view.metadata.uid).into(),
            level: (&*view.spec.priority_level_configuration.name).into(),
            by: view.spec.distinguisher_method.map(|method| method.kind),
            rules: view.spec.rules.into_iter().map(rule).collect(),
        };
        Self { schemas: schemas.into_iter().map(schema).collect(), levels }
    }

    /// By what a request is judged, its level and its flow. A schema whose level is not there is passed over.
    pub fn judge(&self, user: &User, asked: &Attributes<'_>) -> Option<(Judged, &str, &Arc<str>, String)> {
        let matches = |schema: &&Schema| self.levels.contains_key(&schema.level) && schema.rules.iter().any(|rule| rule.matches(user, asked));
        let schema = self.schemas.iter().find(matches)?;
        let Level { uid, .. } = self.levels.get(&schema.level)?;
        let flow = match schema.by {
            None => String::new(),
            Some(By::User) => user.name.clone(),
            Some(By::Namespace) => asked.namespace.to_owned(),
        };
        // Flows of different schemas are different flows.
        Some((Judged { schema: schema.uid.clone(), level: uid.clone() }, &schema.name, &schema.level, format!("{}/{flow}", schema.uid)))
    }
}
