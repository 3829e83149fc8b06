//! Who a controller is: each acts as its own service account of kube-system, so that RBAC's bootstrap roles
//! (`system:controller:…`) bound it as they do in Kubernetes.

use coracle_apiserver::auth::User;
use std::sync::Arc;

/// The user of a controller's service account.
pub fn service_account(name: &str) -> Arc<User> {
    Arc::new(User::service_account("kube-system", name))
}

/// The controller manager, whose certificate in Kubernetes the controllers share that have no service account.
pub fn controller_manager() -> Arc<User> {
    Arc::new(User { name: "system:kube-controller-manager".to_owned(), groups: vec!["system:authenticated".to_owned()], ..User::default() })
}

/// The scheduler, which in Kubernetes has a client certificate of its own.
pub fn scheduler() -> Arc<User> {
    Arc::new(User { name: "system:kube-scheduler".to_owned(), groups: vec!["system:authenticated".to_owned()], ..User::default() })
}
