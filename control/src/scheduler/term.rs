//! What a pod says about other pods, in a form that is kept: owned, with the values of `matchLabelKeys` filled in.
//!
//! Rules hold both ways: a pod that runs can keep a new one away, or draw it near. So the rules of every placed pod are at hand, parsed once.

use super::pod::{Pod, PodTerm};
use coracle_apiserver::view::selector::{LabelSelector, Labelled, Requirement};
use coracle_store::Meta;
use std::{collections::HashMap, sync::Arc};

/// Labels of namespaces, by name.
pub type Namespaces = HashMap<Arc<str>, Arc<Meta>>;

/// `core/v1 PodAffinityTerm`.
#[derive(Clone, Debug)]
pub struct Term {
    /// Nodes with the same value of this label are one place.
    pub topology_key: Box<str>,
    /// What it adds to a score; less than nothing for what it takes away.
    pub weight: i64,
    own: Box<str>,
    selector: Option<LabelSelector<'static>>,
    namespaces: Vec<Box<str>>,
    namespace_selector: Option<LabelSelector<'static>>,
}

/// Requirements that a label has the value (or another than) it has here.
pub fn like(labels: &Meta, key: &str, operator: &'static str) -> Option<Requirement<'static>> {
    let value = labels.labels.as_slice().label(key)?;
    Some(Requirement { key: key.to_owned().into(), operator: operator.into(), values: vec![value.to_owned().into()] })
}

impl Term {
    fn of(term: &PodTerm<'_>, weight: i64, own: &str, labels: &Meta) -> Self {
        let selector = term.label_selector.as_ref().map(|selector| {
            let mut selector = selector.detached();
            let equal = term.match_label_keys.iter().filter_map(|key| like(labels, key, "In"));
            let unequal = term.mismatch_label_keys.iter().filter_map(|key| like(labels, key, "NotIn"));
            selector.match_expressions.extend(equal.chain(unequal));
            selector
        });
        Self {
            topology_key: (*term.topology_key).into(),
            weight,
            own: own.into(),
            selector,
            namespaces: term.namespaces.iter().map(|namespace| (**namespace).into()).collect(),
            namespace_selector: term.namespace_selector.as_ref().map(LabelSelector::detached),
        }
    }

    fn in_namespace(&self, namespace: &str, namespaces: &Namespaces) -> bool {
        if self.namespaces.is_empty() && self.namespace_selector.is_none() {
            return *self.own == *namespace;
        }
        self.namespaces.iter().any(|name| **name == *namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.is_empty() || namespaces.get(namespace).is_some_and(|meta| selector.matches(meta.labels.as_slice())))
    }

    /// Whether it speaks of a pod of this namespace with these labels.
    pub fn speaks_of(&self, namespace: &str, labels: &Meta, namespaces: &Namespaces) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels.labels.as_slice())) && self.in_namespace(namespace, namespaces)
    }
}

/// All that a pod says about others.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Pods it must be near.
    pub attracting: Vec<Term>,
    /// Pods it must be away from.
    pub repelling: Vec<Term>,
    /// Pods it would be near or away from.
    pub preferred: Vec<Term>,
}

impl Rules {
    /// The rules of a pod with these labels.
    pub fn of(pod: &Pod<'_>, labels: &Meta) -> Self {
        let own = &*pod.metadata.namespace;
        let (near, away) = (&pod.spec.affinity.pod_affinity, &pod.spec.affinity.pod_anti_affinity);
        let required = |terms: &[PodTerm<'_>]| terms.iter().map(|term| Term::of(term, 1, own, labels)).collect();
        let signed = near.preferred.iter().map(|term| (1, term)).chain(away.preferred.iter().map(|term| (-1, term)));
        let preferred = signed.map(|(sign, term)| Term::of(&term.pod_affinity_term, sign * term.weight, own, labels)).collect();
        Self { attracting: required(&near.required), repelling: required(&away.required), preferred }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.attracting.is_empty() && self.repelling.is_empty() && self.preferred.is_empty()
    }
}
