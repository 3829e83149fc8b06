//! How a pod ended, on disk until it is removed.
//!
//! A pod that is over gives its sandbox back at once, and with it goes what the runtime knows of its containers. Should the control plane not have heard of the end by
//! then (cut off, or its disk is full) and the agent or the machine be restarted, this tells it: otherwise a pod that succeeded would run again, or count as lost.

use super::spec::StoredStatus;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written {
    version: u32,
    status: Value,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    status: StoredStatus,
}

fn file(dir: &Path) -> PathBuf {
    dir.join("ended.json")
}

/// A report is a patch: what it removes is not there.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Keeps the last status of a pod, as it is reported, in its directory; durable when it returns.
///
/// # Errors
/// Those of the file system, with the path.
pub fn keep(dir: &Path, mut status: Value) -> Result<(), String> {
    let (path, new) = (file(dir), dir.join("ended.json.new"));
    without_nulls(&mut status);
    let write = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&Written { version: VERSION, status })?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|why| {
        _ = fs::remove_file(&new);
        format!("cannot write how the pod ended to {}: {why}", path.display())
    })
}

/// The status that was kept, if the pod of this directory has ended.
pub fn kept(dir: &Path) -> Option<StoredStatus> {
    let read: Read = serde_json::from_slice(&fs::read(file(dir)).ok()?).ok()?;
    (read.version == VERSION).then_some(read.status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_next_agent_knows_how_a_pod_ended() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pods/u");
        assert!(kept(&pod).is_none());
        let terminated = json!({ "exitCode": 3, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z" });
        let container = json!({ "name": "c", "restartCount": 2, "containerID": "coracle://u/c/2", "imageID": "i@sha256:d", "state": { "terminated": terminated }, "lastState": {} });
        keep(&pod, json!({ "phase": "Failed", "reason": null, "containerStatuses": [container] })).unwrap();
        let status = kept(&pod).unwrap();
        assert_eq!((status.phase.as_str(), status.container_statuses[0].state.terminated.as_ref().map(|t| t.exit_code)), ("Failed", Some(3)));
        // Half a file is none, and what cannot be written says where.
        fs::write(file(&pod), b"{\"version\":1,").unwrap();
        assert!(kept(&pod).is_none());
        fs::write(dir.path().join("file"), b"").unwrap();
        let why = keep(&dir.path().join("file/u"), json!({})).unwrap_err();
        assert!(why.contains("file/u/ended.json"), "{why}");
    }
}
