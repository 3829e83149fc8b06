//! What an agent that was killed has left, found from lists: pure.
//!
//! A pod's directory is made before anything else of the pod and removed after everything else, so a name below `pods/` that no pod has says what may be
//! left in the machine: processes, control groups, mounts, devices.

use coracle_runtime::{ContainerId, ContainerStatus};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Uids of pods that are no more, of which there is something.
pub fn strangers<'a>(
    known: &HashSet<String>,
    directories: impl IntoIterator<Item = String>,
    sandboxes: impl IntoIterator<Item = &'a String>,
) -> BTreeSet<String> {
    directories.into_iter().chain(sandboxes.into_iter().cloned()).filter(|uid| !known.contains(uid)).collect()
}

/// Containers that another of their name came after: of those that have ended one is kept for each name, as kubelet's `maxPerPodContainer` has it.
pub fn superseded(containers: &[ContainerStatus]) -> Vec<ContainerId> {
    let mut last: HashMap<&str, u32> = HashMap::new();
    for container in containers {
        let highest = last.entry(&container.name).or_default();
        *highest = container.attempt.max(*highest);
    }
    let older = containers.iter().filter(|container| last.get(&*container.name).is_some_and(|last| container.attempt < *last));
    older.map(|container| container.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_runtime::State;

    #[test]
    fn whoever_no_pod_knows_is_a_stranger_once() {
        let known = HashSet::from(["a".to_owned()]);
        let directories = ["a", "b", "c"].map(str::to_owned);
        let sandboxes = ["a", "c", "d"].map(str::to_owned);
        assert_eq!(strangers(&known, directories, &sandboxes).into_iter().collect::<Vec<_>>(), ["b", "c", "d"]);
        assert!(strangers(&known, [], &[]).is_empty());
    }

    #[test]
    fn the_last_of_each_name_stays() {
        let container = |name: &str, attempt: u32| ContainerStatus {
            id: format!("u/{name}/{attempt}"),
            name: name.into(),
            attempt,
            image: String::new(),
            image_digest: String::new(),
            state: State::Created,
            user: None,
        };
        let list = [container("a", 0), container("b", 0), container("a", 2), container("a", 1)];
        assert_eq!(superseded(&list), ["u/a/0", "u/a/1"]);
        assert!(superseded(&list[1..2]).is_empty());
    }
}
