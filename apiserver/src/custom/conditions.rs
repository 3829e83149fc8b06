//! `status.conditions` of a CustomResourceDefinition, with upstream's reasons and messages.

use crate::view::{Map, stamp};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Says that a definition in a group of Kubernetes' own was approved, or that it was not.
const APPROVED: &str = "api-approved.kubernetes.io";

/// One condition as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Such as `Established`.
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    /// CamelCase word.
    pub reason: &'static str,
    /// Sentence.
    pub message: String,
}

/// Whether a condition of a status is `True`.
pub fn is_true(status: &Value, kind: &str) -> bool {
    status["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}

/// Sets a condition; its time changes with its status only.
pub fn set(status: &mut Value, condition: Condition, now: Timestamp) {
    let Condition { kind, status: state, reason, message } = condition;
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(list) = status["conditions"].as_array_mut() else { return };
    let new = json!({"type": kind, "status": state, "reason": reason, "message": message, "lastTransitionTime": stamp(now)});
    match list.iter_mut().find(|c| c["type"] == kind) {
        None => list.push(new),
        Some(old) => {
            let since = old["lastTransitionTime"].clone();
            let moved = old["status"] != state || since.is_null();
            *old = new;
            if !moved {
                old["lastTransitionTime"] = since;
            }
        }
    }
}

/// How a definition in a protected group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// The annotation has neither a URL nor a reason.
    Invalid,
    /// It has the URL of the approval.
    Approved,
    /// It says that there is none.
    Bypassed,
    /// There is no annotation.
    Missing,
}

/// Whether a group is Kubernetes' own.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// What the annotation says, and what is said about it.
pub fn approval_state(annotation: &str) -> (Approval, String) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_url = annotation.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) && !rest.is_empty() && !rest.starts_with('/')
    });
    if annotation.is_empty() {
        (Approval::Missing, format!("protected groups must have approval annotation {APPROVED:?}, {SEE}"))
    } else if annotation.starts_with("unapproved") {
        (Approval::Bypassed, format!("not approved: {annotation:?}"))
    } else if is_url {
        (Approval::Approved, format!("approved in {annotation}"))
    } else {
        let why =
            format!("protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {SEE}");
        (Approval::Invalid, why)
    }
}

/// The condition that tells whether a definition may be in its group; None for groups that are anybody's.
pub fn approval(group: &str, annotations: &Map<'_>) -> Option<Condition> {
    if !is_protected(group) {
        return None;
    }
    let annotation = annotations.get(APPROVED).map_or("", |text| text);
    let (state, message) = approval_state(annotation);
    let (status, reason) = match state {
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
    };
    Some(Condition { kind: "KubernetesAPIApprovalPolicyConformant", status, reason, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conditions_time_changes_with_its_status() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let later: Timestamp = "2026-01-01T00:01:00Z".parse().expect("time");
        let condition = |status, reason| Condition { kind: "Established", status, reason, message: String::new() };
        let mut status = json!({});
        set(&mut status, condition("False", "Installing"), now);
        set(&mut status, condition("False", "NotAccepted"), later);
        assert_eq!(status["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        set(&mut status, condition("True", "InitialNamesAccepted"), later);
        assert_eq!(status["conditions"][0]["lastTransitionTime"], "2026-01-01T00:01:00Z");
        assert!(is_true(&status, "Established") && !is_true(&status, "NamesAccepted"));
    }

    #[test]
    fn kubernetes_own_groups_need_an_approval() {
        assert!(is_protected("k8s.io") && is_protected("a.k8s.io") && is_protected("x.kubernetes.io") && !is_protected("notk8s.io"));
        assert_eq!(approval_state("").0, Approval::Missing);
        assert_eq!(approval_state("unapproved, request not yet submitted").0, Approval::Bypassed);
        assert_eq!(approval_state("https://github.com/kubernetes/kubernetes/pull/78458").0, Approval::Approved);
        assert_eq!(approval_state("yes").0, Approval::Invalid);
    }
}
