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
/// The same for one that cannot be read at the start.
const AT_START: Duration = Duration::from_secs(1);

/// Every pod of a directory, or of a single file. Names that begin with a dot are passed over; what is no pod is said in the log. Of two files with a pod of one name the first
/// counts. Blocks.
///
/// # Errors
/// The directory, or a file of it, cannot be read: then nobody knows which pods there are. What is not there has none.
pub fn all(path: &Path, node: &str) -> io::Result<Vec<Static>> {
    let of = |path: &Path, why: &io::Error| io::Error::new(why.kind(), format!("{}: {why}", path.display()));
    let mut pods: BTreeMap<(String, String), Static> = BTreeMap::new();
    for file in list(path).map_err(|why| of(path, &why))? {
        let text = match text(&file) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            text => text.map_err(|why| of(&file, &why))?,
        };
        match text.and_then(|text| read(&text, &file, node)) {
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
    Ok(pods.into_values().collect())
}

/// As [`all`], however long it takes until they can be read: what runs is left alone before it is known what shall.
pub async fn first(path: PathBuf, node: String) -> Vec<Static> {
    loop {
        let (from, node) = (path.clone(), node.clone());
        match tokio::task::spawn_blocking(move || all(&from, &node)).await.unwrap_or_else(|why| Err(io::Error::other(why))) {
            Ok(pods) => return pods,
            Err(why) => tracing::error!(%why, "read the static pods; it is tried again, and no pod is touched before"),
        }
        sleep(AT_START).await;
    }
}

fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) if why.kind() == io::ErrorKind::NotADirectory => return Ok(vec![path.to_path_buf()]),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut files: Vec<PathBuf> = paths.into_iter().filter(|path| !hidden(path) && path.is_file()).collect();
    files.sort();
    files.truncate(FILES);
    Ok(files)
}

/// What is in a file; why it is no manifest.
fn text(file: &Path) -> io::Result<Result<String, String>> {
    if fs::metadata(file)?.len() > MOST {
        return Ok(Err(format!("it is larger than {MOST} bytes")));
    }
    Ok(String::from_utf8(fs::read(file)?).map_err(|_| "it is no text".into()))
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
        let pods = tokio::task::spawn_blocking(move || all(&path, &node)).await.map_err(io::Error::other)??;
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

    #[test]
    fn what_cannot_be_read_is_not_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(&dir.path().join("none"), "n").unwrap().len(), 0, "what is not there has no pods");
        let file = dir.path().join("one.yaml");
        fs::write(&file, manifest("one")).unwrap();
        assert_eq!(all(&file, "n").unwrap().len(), 1, "a single file");
        fs::write(dir.path().join("bytes"), [0xff, 0xfe]).unwrap();
        fs::write(dir.path().join("large"), vec![b' '; usize::try_from(MOST).unwrap() + 1]).unwrap();
        assert_eq!(all(dir.path(), "n").unwrap().len(), 1, "what is no manifest is passed over");
        let around = dir.path().join("around");
        std::os::unix::fs::symlink("around", &around).unwrap();
        let why = all(&around, "n").unwrap_err().to_string();
        assert!(why.starts_with(&around.display().to_string()), "{why}");
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
