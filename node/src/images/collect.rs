//! Images are removed when their disk fills: kubelet's rule (`ImageGCHighThresholdPercent` and its kin). Above the high threshold the least recently used go until
//! use is below the low one; never one in use, nor one that has just come.
//!
//! What is decided is pure ([`to_free`], [`order`]); what is freed is measured on the disk, since images share layers.

use super::{Error, Images, store::Named};
use crate::{
    events::{About, Recorder},
    mirror::Objects,
    pods::spec::Pod,
};
use std::{
    collections::HashSet,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// Between two looks at the disk: kubelet's `ImageGCPeriod`.
const PERIOD: Duration = Duration::from_secs(300);

/// When to remove images; the defaults are kubelet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Percent of the disk in use at which images are removed; 100: never.
    pub high: u64,
    /// Percent down to which they are.
    pub low: u64,
    /// Younger images stay.
    pub min_age: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { high: 85, low: 80, min_age: Duration::from_secs(120) }
    }
}

/// A disk, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// All of it.
    pub capacity: u64,
    /// What may still be written.
    pub available: u64,
}

impl Disk {
    fn of(path: &Path) -> std::io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self { capacity: stat.f_blocks.saturating_mul(stat.f_frsize), available: stat.f_bavail.saturating_mul(stat.f_frsize) })
    }

    /// Percent in use, as kubelet rounds it.
    fn percent(self) -> u64 {
        match self.capacity {
            0 => 0,
            capacity => 100 - (u128::from(self.available.min(capacity)) * 100 / u128::from(capacity)) as u64,
        }
    }
}

/// How many bytes are to be freed, if any.
pub fn to_free(disk: Disk, policy: &Policy) -> Option<u64> {
    if policy.high >= 100 || disk.capacity == 0 || disk.percent() < policy.high {
        return None;
    }
    let free = (u128::from(disk.capacity) * u128::from(100_u64.saturating_sub(policy.low)) / 100) as u64;
    Some(free.saturating_sub(disk.available)).filter(|bytes| *bytes > 0)
}

/// An image as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub reference: String,
    /// A pod needs it.
    pub in_use: bool,
    /// When it was last wanted.
    pub used: SystemTime,
    /// When it came.
    pub made: SystemTime,
}

/// What may go, in order.
pub fn order(mut images: Vec<Candidate>, now: SystemTime, policy: &Policy) -> Vec<String> {
    // A clock that was set back makes nothing old.
    images.retain(|image| !image.in_use && now.duration_since(image.made).is_ok_and(|age| age >= policy.min_age));
    images.sort_by(|a, b| (a.used, a.made, &a.reference).cmp(&(b.used, b.made, &b.reference)));
    images.into_iter().map(|image| image.reference).collect()
}

/// What a look at the disk came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is room, or there is now.
    Fine,
    /// Something is being pulled: another time.
    Busy,
    /// Too little could be removed; kubelet's words.
    Short(String),
}

impl Images {
    /// Removes every image that is not in use and has not just come: what kubelet does when the node itself runs short.
    pub fn remove_unused(&self, min_age: Duration, wanted: &HashSet<String>) -> Result<(), Error> {
        let store = &self.context.store;
        if !store.sweep()? {
            return Ok(());
        }
        let all = Policy { high: 0, low: 0, min_age };
        for reference in order(self.candidates(wanted)?, SystemTime::now(), &all) {
            tracing::info!(reference, "an image is removed: the node runs short of disk");
            store.remove(&reference)?;
        }
        Ok(())
    }

    fn candidates(&self, wanted: &HashSet<String>) -> Result<Vec<Candidate>, Error> {
        let store = &self.context.store;
        let (held, named) = (store.held()?, store.list()?);
        let wanted: HashSet<String> = wanted.iter().filter_map(|reference| Some(super::parse(reference).ok()?.whole())).collect();
        let used: HashSet<&str> = named.iter().filter(|named| wanted.contains(&named.reference)).map(|named| &*named.manifest).collect();
        let in_use = |named: &Named| used.contains(&*named.manifest) || held.manifests.contains(&named.manifest);
        named.iter().filter(|named| in_use(named)).for_each(|named| store.touch(named));
        let candidate = |named: &Named| Candidate {
            reference: named.reference.clone(),
            in_use: in_use(named),
            used: store.used(named).unwrap_or(SystemTime::now()),
            made: named.created.parse::<jiff::Timestamp>().map_or(SystemTime::UNIX_EPOCH, Into::into),
        };
        Ok(named.iter().map(candidate).collect())
    }

    /// Notes which images are in use and removes others if the disk is too full. `wanted` are the references that pods on this node name.
    pub fn collect(&self, policy: &Policy, wanted: &HashSet<String>) -> Result<Outcome, Error> {
        let (store, dir) = (&self.context.store, &self.context.options.data_dir);
        let look = || Disk::of(dir).map_err(|why| Error::new("ImageGCFailed", format!("look at the disk of {}: {why}", dir.display())));
        let candidates = self.candidates(wanted)?;
        let disk = look()?;
        let Some(amount) = to_free(disk, policy) else { return Ok(Outcome::Fine) };
        // Nothing could be freed while something is pulled.
        if !store.sweep()? {
            return Ok(Outcome::Busy);
        }
        let mut freed = look()?.available.saturating_sub(disk.available);
        for reference in order(candidates, SystemTime::now(), policy) {
            if freed >= amount {
                break;
            }
            tracing::info!(reference, "an image is removed: the disk is too full");
            store.remove(&reference)?;
            freed = look()?.available.saturating_sub(disk.available);
        }
        match freed >= amount {
            true => Ok(Outcome::Fine),
            false => Ok(Outcome::Short(format!(
                "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed to free sufficient space by deleting unused images \
                 (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
                disk.percent(),
                size(disk.capacity)
            ))),
        }
    }
}

/// Bytes for a human, as kubelet writes them.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Looks at the disk now and then, until cancelled. The first failure is only logged, as kubelet does.
pub async fn run(images: Images, policy: Policy, objects: Arc<dyn Objects>, recorder: Recorder, node: String, cancel: CancellationToken) {
    if policy.high >= 100 {
        return;
    }
    let about = About::node(&node);
    let mut failed = false;
    loop {
        let wanted = wanted(&*objects);
        let (own, rule) = (images.clone(), policy.clone());
        let failure = match tokio::task::spawn_blocking(move || own.collect(&rule, &wanted)).await {
            Ok(Ok(Outcome::Fine | Outcome::Busy)) => None,
            Ok(Ok(Outcome::Short(message))) => {
                recorder.record(about.clone(), true, "FreeDiskSpaceFailed", &message);
                Some(message)
            }
            Ok(Err(why)) => Some(why.message),
            Err(why) => Some(why.to_string()),
        };
        if let Some(message) = &failure {
            tracing::warn!("images could not be collected: {message}");
            if failed {
                recorder.record(about.clone(), true, "ImageGCFailed", message);
            }
        }
        failed = failure.is_some();
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// References that pods on this node name.
pub fn wanted(objects: &dyn Objects) -> HashSet<String> {
    let pods = objects.list("pods", None);
    let pods = pods.iter().filter_map(|(_, json)| Pod::parse(json).ok());
    pods.flat_map(|pod| {
        let volumes = pod.spec.volumes.iter().filter_map(|volume| volume.image.as_ref()).map(|source| source.reference.clone());
        pod.all_containers().map(|container| container.image.clone()).chain(volumes).collect::<Vec<_>>()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn down_to_the_low_threshold_once_the_high_one_is_reached() {
        let policy = Policy::default();
        let disk = |available| Disk { capacity: 100 * GIB, available };
        assert_eq!(to_free(disk(16 * GIB), &policy), None);
        assert_eq!(to_free(disk(15 * GIB), &policy), Some(5 * GIB));
        assert_eq!(to_free(disk(0), &policy), Some(20 * GIB));
        assert_eq!(to_free(disk(200 * GIB), &policy), None, "more than there is");
        assert_eq!(to_free(disk(0), &Policy { high: 100, ..policy.clone() }), None);
        assert_eq!(to_free(Disk { capacity: 0, available: 0 }, &policy), None);
    }

    #[test]
    fn the_least_recently_used_go_first_and_never_one_in_use() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let image = |reference: &str, used, made, in_use| Candidate { reference: reference.into(), in_use, used: at(used), made: at(made) };
        let images = vec![
            image("recent", 900, 100, false),
            image("used", 1, 1, true),
            image("young", 1, 950, false),
            image("old", 200, 100, false),
            image("older", 200, 50, false),
            image("from-the-future", 1, 5000, false),
        ];
        assert_eq!(order(images, at(1000), &Policy::default()), ["older", "old", "recent"]);
    }

    #[test]
    fn sizes_as_kubelet_writes_them() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (252 * GIB, "252.0 GiB"), (3 << 40, "3.0 TiB"), (3 << 50, "3072.0 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
