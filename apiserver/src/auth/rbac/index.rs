//! Roles by name and bindings by subject, in memory.

use super::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES,
    parse::{self, Selector},
    rule::Rule,
};
use crate::auth::{Attributes, Decision, User, refusal};
use coracle_store::{Key, Object, Snapshot};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// A role's own rules and, for an aggregated one, whose rules it unites.
struct Role {
    rules: Arc<[Rule]>,
    labels: Box<[(Box<str>, Box<str>)]>,
    aggregates: Option<Box<[Selector]>>,
    /// For an aggregated role: the rules of every role it selects, through other aggregated ones too.
    united: Box<[Arc<[Rule]>]>,
}

struct Binding {
    key: Key,
    /// The role is a ClusterRole.
    cluster_role: bool,
    role: Box<str>,
    users: Box<[Box<str>]>,
    groups: Box<[Box<str>]>,
}

type ByName<T> = HashMap<Box<str>, T>;

/// Everything RBAC decides on. `Default` is empty and denies all.
#[derive(Default)]
pub struct Index {
    cluster_roles: ByName<Role>,
    /// namespace → name → rules
    roles: ByName<ByName<Arc<[Rule]>>>,
    bindings: HashMap<Key, Arc<Binding>>,
    by_user: ByName<Vec<Arc<Binding>>>,
    by_group: ByName<Vec<Arc<Binding>>>,
}

/// Rules that a user has, and through what.
pub(super) struct Grant<'a> {
    pub rules: &'a [Rule],
    binding: &'a Binding,
    subject: (&'static str, &'a str),
}

impl Index {
    /// The index of one revision.
    pub fn of(snapshot: &Snapshot) -> Index {
        let mut index = Index::default();
        for resource in [ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS] {
            for object in snapshot.range(resource, None, None) {
                index.put(object);
            }
        }
        index.aggregate();
        index
    }

    /// Takes one change in. `aggregate` must follow (once for many).
    pub(super) fn apply(&mut self, prev: Option<&Object>, new: Option<&Object>) {
        match (prev, new) {
            (_, Some(new)) => self.put(new),
            (Some(prev), None) => self.remove(&prev.key),
            (None, None) => {}
        }
    }

    fn put(&mut self, object: &Object) {
        self.set(&object.key, &object.meta.labels, &object.json);
    }

    pub(super) fn set(&mut self, key: &Key, labels: &[(Box<str>, Box<str>)], json: &[u8]) {
        self.remove(key);
        match &*key.resource {
            CLUSTER_ROLES => {
                let Some(role) = parse::read::<parse::Role>(key, json) else { return };
                let aggregates = role.aggregation_rule.map(|a| a.cluster_role_selectors.into());
                let role = Role { rules: role.rules.into(), labels: labels.into(), aggregates, united: Box::default() };
                self.cluster_roles.insert((*key.name).into(), role);
            }
            ROLES => {
                let Some(role) = parse::read::<parse::Role>(key, json) else { return };
                self.roles.entry((*key.namespace).into()).or_default().insert((*key.name).into(), role.rules.into());
            }
            ROLE_BINDINGS | CLUSTER_ROLE_BINDINGS => {
                let Some(binding) = parse::read::<parse::Binding>(key, json) else { return };
                self.bind(key.clone(), binding);
            }
            _ => {}
        }
    }

    fn bind(&mut self, key: Key, binding: parse::Binding) {
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        for subject in binding.subjects {
            match &*subject.kind {
                "User" => users.push(subject.name),
                "Group" => groups.push(subject.name),
                "ServiceAccount" => {
                    let namespace = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(&key.namespace);
                    users.push(format!("system:serviceaccount:{namespace}:{}", subject.name).into());
                }
                _ => {}
            }
        }
        let binding = Arc::new(Binding {
            cluster_role: &*binding.role_ref.kind == "ClusterRole",
            role: binding.role_ref.name,
            users: users.into(),
            groups: groups.into(),
            key: key.clone(),
        });
        for (names, by) in [(&binding.users, &mut self.by_user), (&binding.groups, &mut self.by_group)] {
            for name in names {
                by.entry(name.clone()).or_default().push(binding.clone());
            }
        }
        self.bindings.insert(key, binding);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        match &*key.resource {
            CLUSTER_ROLES => {
                self.cluster_roles.remove(&*key.name);
            }
            ROLES => {
                if let Some(of) = self.roles.get_mut(&*key.namespace) {
                    of.remove(&*key.name);
                    if of.is_empty() {
                        self.roles.remove(&*key.namespace);
                    }
                }
            }
            _ => {
                let Some(binding) = self.bindings.remove(key) else { return };
                for (names, by) in [(&binding.users, &mut self.by_user), (&binding.groups, &mut self.by_group)] {
                    for name in names {
                        if let Some(list) = by.get_mut(name) {
                            list.retain(|b| b.key != *key);
                            if list.is_empty() {
                                by.remove(name);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Recomputes what aggregated roles unite (there are three in a fresh cluster).
    pub(super) fn aggregate(&mut self) {
        let aggregated: Vec<Box<str>> = self.cluster_roles.iter().filter(|(_, r)| r.aggregates.is_some()).map(|(n, _)| n.clone()).collect();
        for name in aggregated {
            let mut members = BTreeSet::new();
            self.members(&name, &mut members);
            let united =
                members.iter().filter_map(|m| self.cluster_roles.get(*m)).filter(|r| r.aggregates.is_none()).map(|r| r.rules.clone()).collect();
            if let Some(role) = self.cluster_roles.get_mut(&name) {
                role.united = united;
            }
        }
    }

    fn members<'a>(&'a self, name: &str, into: &mut BTreeSet<&'a str>) {
        let Some(selectors) = self.cluster_roles.get(name).and_then(|r| r.aggregates.as_ref()) else { return };
        for (member, role) in &self.cluster_roles {
            if &**member != name && selectors.iter().any(|s| s.selects(&role.labels)) && into.insert(member) {
                self.members(member, into);
            }
        }
    }

    /// The rules of a cluster role, aggregated or not; `None` when there is none of this name.
    pub fn cluster_role(&self, name: &str) -> Option<Vec<&Rule>> {
        self.cluster_roles.get(name).map(|r| r.sets().flatten().collect())
    }

    /// The rules of a role.
    pub fn role(&self, namespace: &str, name: &str) -> Option<Vec<&Rule>> {
        self.roles.get(namespace)?.get(name).map(|r| r.iter().collect())
    }

    /// Everything the user has in a namespace (empty: at the cluster scope).
    pub(super) fn grants<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = Grant<'a>> + 'a {
        let users = self.by_user.get(user.name.as_str()).into_iter().flatten().map(|b| (b, ("User", user.name.as_str())));
        let groups = user.groups.iter().flat_map(|g| self.by_group.get(g.as_str()).into_iter().flatten().map(move |b| (b, ("Group", g.as_str()))));
        users
            .chain(groups)
            .filter(move |(b, _)| b.key.namespace.is_empty() || *b.key.namespace == *namespace)
            .flat_map(move |(binding, subject)| self.sets_of(binding).map(move |rules| Grant { rules, binding, subject }))
    }

    fn sets_of<'a>(&'a self, binding: &'a Binding) -> Box<dyn Iterator<Item = &'a [Rule]> + 'a> {
        match binding.cluster_role {
            true => Box::new(self.cluster_roles.get(&binding.role).into_iter().flat_map(Role::sets)),
            false => Box::new(self.roles.get(&*binding.key.namespace).and_then(|of| of.get(&binding.role)).into_iter().map(|r| &**r)),
        }
    }

    /// RBAC's decision alone: what no rule allows is denied.
    pub fn authorize(&self, user: &User, a: &Attributes<'_>) -> Decision {
        match self.grants(user, a.namespace).find(|g| g.rules.iter().any(|r| r.allows(a))) {
            Some(grant) => Decision::Allow { reason: grant.reason() },
            None => Decision::Deny { reason: refusal(user, a) },
        }
    }

    /// Every rule the user has in a namespace, for SelfSubjectRulesReview and escalation.
    pub fn rules_for<'a>(&'a self, user: &'a User, namespace: &'a str) -> Vec<&'a Rule> {
        self.grants(user, namespace).flat_map(|g| g.rules).collect()
    }
}

impl Role {
    fn sets(&self) -> impl Iterator<Item = &[Rule]> {
        // what an aggregated role has stored in `rules` is a copy of the members' (upstream's controller writes it)
        let own = self.aggregates.is_none().then_some(&*self.rules);
        own.into_iter().chain(self.united.iter().map(|r| &**r))
    }
}

impl Grant<'_> {
    fn reason(&self) -> String {
        let (b, (kind, subject)) = (self.binding, self.subject);
        let role = if b.cluster_role { "ClusterRole" } else { "Role" };
        match &*b.key.namespace {
            "" => format!("RBAC: allowed by ClusterRoleBinding {:?} of {role} {:?} to {kind} {subject:?}", b.key.name, b.role),
            ns => format!("RBAC: allowed by RoleBinding \"{}/{ns}\" of {role} {:?} to {kind} {subject:?}", b.key.name, b.role),
        }
    }
}
