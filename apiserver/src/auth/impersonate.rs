//! Acting as somebody else: `Impersonate-User`, `-Group`, `-Uid`, `-Extra-*`.

use super::{AUTHENTICATED, Attributes, Auth, Decision, UNAUTHENTICATED, User};
use coracle_api::status::Status;
use std::sync::Arc;

/// What the headers ask for; `name` empty means no impersonation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `Impersonate-User`
    pub name: String,
    /// `Impersonate-Uid`
    pub uid: String,
    /// `Impersonate-Group`, each
    pub groups: Vec<String>,
    /// `Impersonate-Extra-KEY`, keys in lower case and percent-decoded
    pub extra: Vec<(String, Vec<String>)>,
}

impl Auth {
    /// The user to go on as, if `user` may be each part of it (verb `impersonate` on users, groups, serviceaccounts, uids,
    /// userextras/KEY).
    ///
    /// # Errors
    /// 403 for the first part that is not allowed; 400 for groups, uid or extra without a user.
    pub fn impersonate(&self, user: &Arc<User>, wanted: Wanted) -> Result<Arc<User>, Status> {
        if wanted.name.is_empty() {
            return match wanted == Wanted::default() {
                true => Ok(user.clone()),
                false => Err(Status::bad_request("requested impersonation without impersonating a user: Impersonate-User is required")),
            };
        }
        let account = wanted.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        match account {
            Some((namespace, name)) => self.may(user, "", "serviceaccounts", "", namespace, name)?,
            None => self.may(user, "", "users", "", "", &wanted.name)?,
        }
        for group in &wanted.groups {
            self.may(user, "", "groups", "", "", group)?;
        }
        if !wanted.uid.is_empty() {
            self.may(user, "authentication.k8s.io", "uids", "", "", &wanted.uid)?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                self.may(user, "authentication.k8s.io", "userextras", key, "", value)?;
            }
        }
        let mut groups = wanted.groups;
        if let (Some((namespace, name)), true) = (account, groups.is_empty()) {
            groups = User::service_account(namespace, name).groups;
        }
        let marked = groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED);
        match wanted.name == User::anonymous().name {
            true if !marked => groups.push(UNAUTHENTICATED.into()),
            false if !marked => groups.push(AUTHENTICATED.into()),
            _ => {}
        }
        let user = User { name: wanted.name, uid: wanted.uid, groups, extra: wanted.extra };
        crate::audit::impersonated(&user);
        Ok(Arc::new(user))
    }

    fn may(&self, user: &User, group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> Result<(), Status> {
        let attributes = Attributes { verb: "impersonate", group, version: "v1", resource, subresource, namespace, name, ..Attributes::default() };
        match self.authorize(user, &attributes) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } => Err(Status::forbidden(group, resource, name, &reason)),
        }
    }
}
