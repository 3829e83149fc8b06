//! Containers that run are given other resources.

use super::{Work, linux};
use crate::pods::spec::{Pod, Resources};

impl Work {
    /// Gives what the pod says to these containers (place, number) and to the pod as a whole; what they have been given.
    pub(super) async fn resize(&self, pod: &Pod, containers: &[(usize, u32)]) -> Result<Vec<(usize, u32, Resources)>, String> {
        let runtime = self.runtime(pod)?;
        let (mut given, mut asked) = (Vec::new(), Vec::new());
        for (index, attempt) in containers {
            let Some(container) = pod.container(*index) else { continue };
            let id = format!("{}/{}/{attempt}", pod.metadata.uid, container.name);
            asked.push((id, linux::resources(pod, container, self.node_of_pods())?));
            given.push((*index, *attempt, container.resources.clone()));
        }
        runtime.resize(&pod.metadata.uid, linux::sandbox(pod, self.node_of_pods()).resources, asked).await.map_err(|why| why.message)?;
        Ok(given)
    }
}
