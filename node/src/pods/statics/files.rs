//! The files themselves: read at the start, and again when the kernel says that something changed (kubelet does the same, and looks every 20 s besides).

use super::{Static, read};
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;

/// A manifest is no larger.
const MOST: u64 = 1 << 20;
/// So many files are looked at.
const FILES: usize = 1024;
/// Files are often written one after the other.
const SETTLED: Duration = Duration::from_millis(100);
/// Wait before a directory that cannot be watched is tried again.
const AGAIN: Duration = Duration::from_secs(20);

/// Every pod of a directory, or of a single file. Names that begin with a dot are passed over; what is no pod is said in the log. Of two files with a pod of one name the first
/// counts. Blocks.
pub fn all(path: &Path, node: &str) -> Vec<Static> {
    let mut pods: BTreeMap<(String, String), Static> = BTreeMap::new();
    for file in list(path) {
        let pod = text(&file).map_err(|why| why.to_string()).and_then(|text| read(&text, &file, node));
        match pod {
            Ok(pod) => {
                let name = (pod.pod.metadata.namespace.clone(), pod.pod.metadata.name.clone());
                match pods.entry(name) {
                    Entry::Vacant(place) => _ = place.insert(pod),
                    Entry::Occupied(_) => tracing::error!(file = %file.display(), pod = %pod.pod.long_name(), "another file has a pod of that name"),
                }
            }
            Err(why) => tracing::error!(why, file = %file.display(), "read a static pod"),
        }
    }
    pods.into_values().collect()
}

fn list(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut files: Vec<PathBuf> = entries.filter(|path| !hidden(path) && path.is_file()).take(FILES).collect();
    files.sort();
    files
}

fn text(file: &Path) -> io::Result<String> {
    if fs::metadata(file)?.len() > MOST {
        return Err(io::Error::other(format!("it is larger than {MOST} bytes")));
    }
    fs::read_to_string(file)
}

/// Calls `changed` with what there is whenever that may have changed, until dropped. A directory that is not there is made.
pub async fn follow(path: PathBuf, node: String, changed: impl AsyncFn(Vec<Static>)) {
    loop {
        if let Err(why) = watch(&path, &node, &changed).await {
            tracing::error!(%why, path = %path.display(), "watch the static pods; it is tried again");
        }
        sleep(AGAIN).await;
    }
}

async fn watch(path: &Path, node: &str, changed: &impl AsyncFn(Vec<Static>)) -> io::Result<()> {
    let place = match path.parent() {
        Some(parent) if path.is_file() => parent,
        _ => path,
    };
    fs::create_dir_all(place)?;
    let inotify = Inotify::init()?;
    let ends = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE | WatchMask::CREATE | ends;
    inotify.watches().add(place, mask)?;
    let mut events = inotify.into_event_stream(vec![0; 4096])?;
    loop {
        // First what changed before it was watched.
        let (path, node) = (path.to_path_buf(), node.to_owned());
        let pods = tokio::task::spawn_blocking(move || all(&path, &node)).await.map_err(io::Error::other)?;
        changed(pods).await;
        let event = events.next().await.ok_or_else(|| io::Error::other("the kernel says nothing more"))??;
        if event.mask.intersects(inotify::EventMask::DELETE_SELF | inotify::EventMask::MOVE_SELF | inotify::EventMask::IGNORED) {
            return Err(io::Error::other("the directory is gone"));
        }
        sleep(SETTLED).await;
        // What came meanwhile is read with it.
        while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
            event?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: main, image: a}}]}}\n")
    }

    #[tokio::test]
    async fn changes_of_files_are_seen_and_junk_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifests");
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let following = tokio::spawn(follow(path.clone(), "n".into(), async move |pods: Vec<Static>| {
            _ = sender.send(pods.into_iter().map(|pod| pod.pod.metadata.name).collect::<Vec<_>>());
        }));
        let mut until = async |wanted: &[&str]| {
            let search = async { while receiver.recv().await.is_some_and(|names| names != wanted) {} };
            tokio::time::timeout(Duration::from_secs(30), search).await.expect("the change in time");
        };
        until(&[]).await;
        fs::write(path.join("b.yaml"), manifest("b")).unwrap();
        until(&["b-n"]).await;
        for (file, text) in [(".hidden", manifest("x")), ("junk", "{".into()), ("c.yaml", manifest("b")), ("a.json", manifest("a"))] {
            fs::write(path.join(file), text).unwrap();
        }
        until(&["a-n", "b-n"]).await;
        fs::remove_file(path.join("b.yaml")).unwrap();
        fs::remove_file(path.join("c.yaml")).unwrap();
        until(&["a-n"]).await;
        following.abort();
    }
}
