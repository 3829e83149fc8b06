//! Makes and deletes the pods of a controller, and tells of it in events (Kubernetes' `RealPodControl`).

use super::{
    action::{Action, perform_one},
    runner::namespace_ends,
};
use coracle_api::Status;
use coracle_apiserver::client::Client;
use coracle_store::{Key, Object};
use futures::future::join_all;
use serde_json::Value;

/// Sizes of the batches in which `count` pods are made: 1, 2, 4, …
pub fn batches(count: usize) -> impl Iterator<Item = usize> {
    let (mut left, mut size) = (count, 1);
    std::iter::from_fn(move || {
        let batch = size.min(left);
        left -= batch;
        size *= 2;
        (batch > 0).then_some(batch)
    })
}

/// Makes pods for `about` in batches that double, so that a quota that is used up costs one refusal and not hundreds.
///
/// # Errors
/// The first refusal of the batch in which there was one; later batches are not tried.
pub async fn create(client: &Client, about: &Object, pods: impl ExactSizeIterator<Item = Value>) -> Result<(), Status> {
    let mut pods = pods;
    for size in batches(pods.len()) {
        let batch: Vec<Value> = pods.by_ref().take(size).collect();
        let made = join_all(batch.into_iter().map(|pod| client.create("pods", &about.key.namespace, pod))).await;
        let mut failure = None;
        for result in made {
            match result {
                Ok(pod) => client.event(about, "Normal", "SuccessfulCreate", &format!("Created pod: {}", pod.key.name)),
                Err(status) => {
                    if !namespace_ends(&status) {
                        client.event(about, "Warning", "FailedCreate", &format!("Error creating: {}", status.message));
                    }
                    failure = failure.or(Some(status));
                }
            }
        }
        if let Some(status) = failure {
            return Err(status);
        }
    }
    Ok(())
}

/// Deletes pods (key, uid) of `about`, all at once.
///
/// # Errors
/// The first refusal.
pub async fn delete(client: &Client, about: &Object, pods: Vec<(Key, String)>) -> Result<(), Status> {
    let deletions = pods.into_iter().map(|(key, uid)| async move {
        let name = key.name.clone();
        let result = perform_one(client, None, Action::Delete { key, uid, propagation: None, grace: None }).await;
        match &result {
            Ok(()) => client.event(about, "Normal", "SuccessfulDelete", &format!("Deleted pod: {name}")),
            Err(status) => client.event(about, "Warning", "FailedDelete", &format!("Error deleting: {}", status.message)),
        }
        result
    });
    join_all(deletions).await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_double_and_add_up() {
        assert_eq!(batches(10).collect::<Vec<_>>(), [1, 2, 4, 3]);
        assert_eq!(batches(0).count(), 0);
        assert_eq!(batches(500).sum::<usize>(), 500);
    }
}
