//! Ranges of user ids for pods with users of their own (`hostUsers: false`, KEP-127): one for each, on disk as long as the pod's directory is there.

use super::Work;
use crate::pods::spec::Pod;
use coracle_runtime::Users;
use std::{collections::HashSet, fs, io, path::Path};

/// Ids of a pod, as kubelet has it.
const COUNT: u32 = 65_536;
/// The file in a pod's directory that has its range's number.
const FILE: &str = "users";

impl Work {
    /// The pod's range, the same at every call; none for a pod with the machine's users.
    ///
    /// # Errors
    /// It cannot be written down, or there is none left.
    pub(super) fn users(&self, pod: &Pod) -> io::Result<Option<Users>> {
        if pod.spec.host_users != Some(false) {
            return Ok(None);
        }
        let pods = self.options.data_dir.join("pods");
        let _alone = self.ranges.lock();
        range(&pods, &pod.metadata.uid).map(Some)
    }
}

fn read(dir: &Path) -> Option<u32> {
    fs::read_to_string(dir.join(FILE)).ok()?.trim().parse().ok()
}

fn range(pods: &Path, uid: &str) -> io::Result<Users> {
    let own = pods.join(uid);
    let number = match read(&own) {
        Some(number) => number,
        None => {
            let taken: HashSet<u32> = fs::read_dir(pods)?.flatten().filter_map(|entry| read(&entry.path())).collect();
            // The first is the machine's, and the last ids mean "nobody".
            let free = (1..u32::MAX / COUNT).find(|number| !taken.contains(number));
            let number = free.ok_or_else(|| io::Error::other("no range of user ids is left on this node"))?;
            let next = own.join("users.next");
            fs::write(&next, number.to_string())?;
            fs::rename(next, own.join(FILE))?;
            number
        }
    };
    Ok(Users { first: number.saturating_mul(COUNT), count: COUNT })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_has_a_range_of_its_own_for_as_long_as_it_is_there() {
        let pods = tempfile::tempdir().unwrap();
        let first = |uid: &str| {
            fs::create_dir_all(pods.path().join(uid)).unwrap();
            range(pods.path(), uid).unwrap().first / COUNT
        };
        assert_eq!(["a", "b", "a", "c"].map(first), [1, 2, 1, 3]);
        fs::remove_dir_all(pods.path().join("b")).unwrap();
        assert_eq!(["d", "c", "e"].map(first), [2, 3, 4]);
    }
}
