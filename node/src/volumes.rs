//! A pod's volumes on this node: `<data-dir>/pods/<uid>/volumes/<name>`.
//!
//! configMap, secret, projected and downwardAPI are directories whose whole content changes at once ([`atomic`]); emptyDir is a
//! plain directory, watched for its size (`limits`), or a mount with `medium: Memory` or `HugePages` (`memory`; the former on disk for an ordinary user, who cannot mount).
//! Mounting is idempotent and is how updates are made: call it again when an object changed or a token ages.

pub mod atomic;
mod host;
pub mod limits;
mod memory;
pub mod paths;
pub mod tokens;
pub mod walk;

use crate::{
    mirror::Objects,
    pods::{
        admit,
        downward::{self, Facts},
        env::{self, Data},
        spec::{Container, DownwardSource, EmptyDir, Item, Pod, Projected, TokenSource, Volume},
        time::{Due, Time},
    },
};
use atomic::{Access, File, Payload};
use coracle_api::amounts::{Amounts, of_containers, quantity};
use coracle_runtime::remove::remove_tree;
use std::{
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};
use tokens::Tokens;

/// Mode of files when nothing else is said.
const MODE: u32 = 0o644;

/// Why a volume cannot be mounted: the message of a `FailedMount` event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something it is made of is not there.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Missing {
        /// Volume's name.
        volume: String,
        /// What.
        source: env::Error,
    },
    /// It cannot be written, read or had.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {why}")]
    Failed {
        /// Volume's name.
        volume: String,
        /// Why.
        why: String,
    },
    /// No node of this kind mounts it.
    #[error("{0}")]
    Unsupported(String),
}

/// Where a pod's volumes are, given the pod's directory.
pub fn directory(pod_dir: &Path) -> PathBuf {
    pod_dir.join("volumes")
}

/// What mounting came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    /// When tokens want renewal.
    pub renewal: Option<Due>,
    /// emptyDirs that were to be memory and are on disk.
    pub on_disk: Vec<String>,
    /// emptyDirs that may grow only so large, and nothing but the node sees to it.
    pub limits: Vec<limits::Limit>,
}

/// Makes or updates all volumes of a pod.
pub async fn mount(pod: &Pod, pod_dir: &Path, facts: &Facts, objects: &dyn Objects, tokens: &dyn Tokens) -> Result<Mounted, Error> {
    let base = directory(pod_dir);
    let mut mounted = Mounted::default();
    let mut in_memory = Vec::new();
    for volume in &pod.spec.volumes {
        let path = base.join(paths::name(&volume.name).map_err(|why| failed(volume, why))?);
        let writer = Mounting { pod, volume, facts, objects, path: &path };
        if let Some(source) = &volume.empty_dir {
            writer.empty_dir()?;
            match &*source.medium {
                "" => {}
                "Memory" => {
                    let list = if writer.memory(source)? { &mut in_memory } else { &mut mounted.on_disk };
                    list.push(volume.name.clone());
                }
                medium => {
                    writer.huge_pages(medium)?;
                    in_memory.push(volume.name.clone());
                }
            }
            writer.give()?;
        } else if let Some(projected) = &volume.projected {
            if let Some(due) = writer.projected(projected, tokens).await? {
                mounted.renewal = Some(mounted.renewal.map_or(due, |r| if due.at < r.at { due } else { r }));
            }
        } else if let Some(source) = volume.host_path.as_ref().filter(|_| facts.host_paths) {
            host::check(source).map_err(|why| failed(volume, why))?;
        } else if volume.image.is_some() && facts.host_paths {
            // With the image of each container that has it.
        } else {
            writer.simple()?;
        }
    }
    mounted.limits = limits::of_pod(pod, &base, |name| !in_memory.iter().any(|other| other == name));
    Ok(mounted)
}

/// Removes all volumes, tokens with them. Blocks.
pub fn unmount(pod_dir: &Path) -> std::io::Result<()> {
    let volumes = directory(pod_dir);
    memory::tear_down(&volumes)?;
    remove_tree(&volumes)
}

/// Takes volumes out of the machine that are to be found again: what is memory goes, what is on disk stays. Blocks.
pub fn leave(pod_dir: &Path) -> std::io::Result<()> {
    memory::tear_down(&directory(pod_dir))
}

/// The most that a pod's containers may use together; none when one of them has no limit.
fn memory_limit(pod: &Pod) -> Option<i64> {
    let limit = |container: &Container| {
        container.resources.limits.get("memory").map(|memory| Amounts { memory: quantity(memory).units(), ..Amounts::default() })
    };
    let containers: Vec<Amounts> = pod.spec.containers.iter().map(limit).collect::<Option<_>>()?;
    let init: Vec<(Amounts, bool)> =
        pod.spec.init_containers.iter().map(|container| Some((limit(container)?, container.is_sidecar()))).collect::<Option<_>>()?;
    Some(of_containers(containers, init).memory)
}

fn failed(volume: &Volume, why: impl ToString) -> Error {
    Error::Failed { volume: volume.name.clone(), why: why.to_string() }
}

struct Mounting<'a> {
    pod: &'a Pod,
    volume: &'a Volume,
    facts: &'a Facts,
    objects: &'a dyn Objects,
    path: &'a Path,
}

impl Mounting<'_> {
    fn fail(&self, why: impl ToString) -> Error {
        failed(self.volume, why)
    }

    /// Whose group volumes are, where processes have any.
    fn group(&self) -> Option<u32> {
        self.pod.spec.security_context.fs_group.filter(|_| self.facts.host_paths)
    }

    /// Made once: what becomes of its mode afterwards is the containers' affair.
    fn empty_dir(&self) -> Result<(), Error> {
        if self.path.is_dir() { Ok(()) } else { paths::make(self.path, 0o777).map_err(|e| self.fail(e)) }
    }

    /// Gives a new emptyDir to the pod's group, and with it all that is made in it.
    fn give(&self) -> Result<(), Error> {
        let Some(group) = self.group() else { return Ok(()) };
        let meta = std::fs::metadata(self.path).map_err(|e| self.fail(e))?;
        if meta.gid() == group {
            return Ok(());
        }
        chown(self.path, None, Some(group)).and_then(|()| paths::make(self.path, meta.mode() & 0o7777 | 0o2770)).map_err(|e| self.fail(e))
    }

    /// Makes it a tmpfs as large as the smallest of its own limit, the pod's and the node's memory, as kubelet does. False: it stays on disk.
    fn memory(&self, source: &EmptyDir) -> Result<bool, Error> {
        let own = source.size_limit.as_ref().map(|limit| quantity(limit).units());
        let bytes = [own, memory_limit(self.pod)].into_iter().flatten().filter(|bytes| *bytes > 0).fold(self.facts.memory, i64::min);
        memory::set_up(self.path, memory::Medium::Memory { bytes: u64::try_from(bytes).unwrap_or(0) }).map_err(|e| self.fail(e))
    }

    /// Makes it a file system of huge pages, which its containers have within their own limits.
    fn huge_pages(&self, medium: &str) -> Result<(), Error> {
        let page = memory::page_size(medium, self.pod).map_err(|why| self.fail(why))?;
        match memory::set_up(self.path, memory::Medium::HugePages { page }).map_err(|e| self.fail(e))? {
            true => Ok(()),
            false => Err(self.fail(format!("medium {medium} needs a mount, which only root can make"))),
        }
    }

    fn write(&self, payload: &Payload) -> Result<(), Error> {
        atomic::write(self.path, payload, Access { exact: self.facts.host_paths, group: self.group() }).map_err(|e| self.fail(e))
    }

    /// configMap, secret, downwardAPI.
    fn simple(&self) -> Result<(), Error> {
        let mut payload = Payload::new();
        let volume = self.volume;
        if let Some(source) = &volume.config_map {
            let mode = source.default_mode.unwrap_or(MODE);
            let data = self.data("configmaps", &source.name, source.optional)?;
            self.select(data, &source.items, mode, "configmap", source.optional, &mut payload)?;
        } else if let Some(source) = &volume.secret {
            let mode = source.default_mode.unwrap_or(MODE);
            let data = self.data("secrets", &source.secret_name, source.optional)?;
            self.select(data, &source.items, mode, "secret", source.optional, &mut payload)?;
        } else if let Some(source) = &volume.downward_api {
            self.downward(source, source.default_mode.unwrap_or(MODE), &mut payload)?;
        } else {
            let other = || volume.other.keys().next().map_or("unknown", String::as_str);
            let kind = match volume {
                Volume { host_path: Some(_), .. } => "hostPath",
                Volume { image: Some(_), .. } => "image",
                _ => other(),
            };
            return Err(Error::Unsupported(admit::unsupported_volume(&volume.name, kind)));
        }
        self.write(&payload)
    }

    async fn projected(&self, projected: &Projected, tokens: &dyn Tokens) -> Result<Option<Due>, Error> {
        let mode = projected.default_mode.unwrap_or(MODE);
        let mut payload = Payload::new();
        let mut renewal: Option<Due> = None;
        for source in &projected.sources {
            if let Some(map) = &source.config_map {
                let data = self.data("configmaps", &map.name, map.optional)?;
                self.select(data, &map.items, mode, "configmap", map.optional, &mut payload)?;
            } else if let Some(secret) = &source.secret {
                let data = self.data("secrets", &secret.name, secret.optional)?;
                self.select(data, &secret.items, mode, "secret", secret.optional, &mut payload)?;
            } else if let Some(fields) = &source.downward_api {
                self.downward(fields, mode, &mut payload)?;
            } else if let Some(token) = &source.service_account_token {
                let due = self.token(token, mode, tokens, &mut payload).await?;
                renewal = Some(renewal.map_or(due, |r| if due.at < r.at { due } else { r }));
            } else {
                let kind = source.other.keys().next().map_or("unknown", String::as_str);
                return Err(Error::Unsupported(admit::unsupported_volume(&self.volume.name, &format!("projected {kind}"))));
            }
        }
        self.write(&payload)?;
        Ok(renewal)
    }

    async fn token(&self, source: &TokenSource, mode: u32, tokens: &dyn Tokens, payload: &mut Payload) -> Result<Due, Error> {
        let file = paths::relative(&source.path).map_err(|e| self.fail(e))?;
        let current = std::fs::read_to_string(self.path.join(atomic::DATA).join(&file)).ok();
        let now = Time::now();
        let (token, due) = match current.as_deref().map(|token| (token, tokens::renewal(token, now))) {
            Some((token, Some(due))) if !due.reached(now) => (token.to_string(), due),
            _ => match tokens.request(self.pod, source).await {
                Ok(token) => {
                    let due = tokens::renewal(&token, now).unwrap_or(Due::in_millis(now, 600_000));
                    (token, due)
                }
                // An aged token is better than none: cut off, the node keeps it and asks again.
                Err(why) => match current {
                    Some(token) => {
                        tracing::debug!(pod = %self.pod.long_name(), %why, "renew a service account token");
                        (token, Due::in_millis(now, 30_000))
                    }
                    None => return Err(self.fail(format!("failed to fetch token: {why}"))),
                },
            },
        };
        payload.insert(file, File { content: token.into_bytes(), mode });
        Ok(due)
    }

    fn data(&self, resource: &'static str, name: &str, optional: bool) -> Result<Data, Error> {
        match env::data(self.objects, resource, &self.pod.metadata.namespace, name) {
            Ok(data) => Ok(data),
            Err(env::Error::Missing { .. }) if optional => Ok(Data::new()),
            Err(source) => Err(Error::Missing { volume: self.volume.name.clone(), source }),
        }
    }

    fn select(&self, mut data: Data, items: &[Item], mode: u32, kind: &str, optional: bool, payload: &mut Payload) -> Result<(), Error> {
        if items.is_empty() {
            for (key, content) in data {
                let path = paths::relative(&key).map_err(|e| self.fail(e))?;
                payload.insert(path, File { content, mode });
            }
            return Ok(());
        }
        for item in items {
            let path = paths::relative(&item.path).map_err(|e| self.fail(e))?;
            match data.get_mut(&item.key) {
                Some(content) => {
                    payload.insert(path, File { content: content.clone(), mode: item.mode.unwrap_or(mode) });
                }
                None if optional => {}
                None => return Err(self.fail(format!("{kind} references non-existent {kind} key: {}", item.key))),
            }
        }
        Ok(())
    }

    fn downward(&self, source: &DownwardSource, mode: u32, payload: &mut Payload) -> Result<(), Error> {
        for item in &source.items {
            let path = paths::relative(&item.path).map_err(|e| self.fail(e))?;
            let text = if let Some(field) = &item.field_ref {
                downward::field(self.pod, self.facts, &field.field_path)
            } else if let Some(resource) = &item.resource_field_ref {
                downward::resource(self.pod, None, self.facts, resource)
            } else {
                Err(format!("file {} names neither fieldRef nor resourceFieldRef", item.path))
            };
            let content = text.map_err(|e| self.fail(e))?.into_bytes();
            payload.insert(path, File { content, mode: item.mode.unwrap_or(mode) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
