//! A command run in a container for the agent's own ends: exec probes and lifecycle hooks.

use coracle_runtime::{ContainerId, ExecSpec, Runtime, Session, Standard};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// As much of the output as is kept; the rest is read and dropped, so that the command does not wait.
const OUTPUT: usize = 10 << 10;
/// How long a command's output is read after its end, which something it has started may hold.
const LAST: Duration = Duration::from_millis(100);

/// Why a command did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It took too long, in kubelet's words.
    TimedOut(String),
    /// It could not be run, or was lost.
    Lost(String),
}

/// Runs it: exit code, and the beginning of what it wrote to both streams.
///
/// # Errors
/// See [`Trouble`]; the command is killed.
pub async fn run(runtime: &dyn Runtime, container: ContainerId, command: &[String], limit: Option<Duration>) -> Result<(i32, String), Trouble> {
    let streams = Standard { stdin: false, stdout: true, stderr: true };
    let spec = ExecSpec { container, command: command.to_vec(), streams, tty: false, timeout: None };
    let work = async {
        let Session { stdout, stderr, exit, .. } = runtime.exec(spec).await.map_err(|why| Trouble::Lost(why.message))?;
        let kept = Mutex::new(Vec::new());
        let reading = async { tokio::join!(read(stdout, &kept), read(stderr, &kept)) };
        tokio::pin!(reading);
        let mut exit = exit;
        // What it started in the background may hold the streams for ever; its own end is the command's.
        let code = tokio::select! {
            code = &mut exit => code,
            _ = &mut reading => {
                let code = exit.await.map_err(|why| Trouble::Lost(why.message))?;
                return Ok((code, text(&kept)));
            }
        };
        // What it wrote before its end is there already.
        _ = tokio::time::timeout(LAST, &mut reading).await;
        Ok((code.map_err(|why| Trouble::Lost(why.message))?, text(&kept)))
    };
    let Some(limit) = limit else { return work.await };
    let late = || Trouble::TimedOut(format!("command timed out: {:?} timed out after {}s", command.join(" "), limit.as_secs()));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

fn text(kept: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&kept.lock()).into_owned()
}

async fn read(stream: Option<Box<dyn AsyncRead + Send + Unpin>>, kept: &Mutex<Vec<u8>>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 4096];
    while let Ok(count) = stream.read(&mut buffer).await
        && count > 0
    {
        let mut kept = kept.lock();
        let room = OUTPUT.saturating_sub(kept.len());
        kept.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_runtime::{Error, mock::MockRuntime};
    use serde_json::json;

    /// One that runs, `u/c/0`.
    async fn container() -> MockRuntime {
        let runtime = MockRuntime::new("oci");
        let sandbox = json!({
            "pod": { "namespace": "n", "name": "p", "uid": "u" }, "hostname": "p", "ip": "10.0.0.2", "dns": { "servers": [], "searches": [], "options": [] },
            "labels": {}, "annotations": {}, "dir": "/nowhere",
        });
        let container = json!({
            "sandbox": "u", "name": "c", "attempt": 0, "command": [], "args": [], "env": [], "working_dir": null, "mounts": [], "ports": [], "resources": {},
            "image": { "reference": "i", "digest": "d", "content": { "Oci": { "layers": [] } } }, "log_path": "", "log_max_bytes": 0, "log_max_files": 0,
            "request_timeout": { "secs": 1, "nanos": 0 },
        });
        runtime.run_sandbox(serde_json::from_value(sandbox).unwrap()).await.unwrap();
        let id = runtime.create_container(serde_json::from_value(container).unwrap()).await.unwrap();
        runtime.start_container(&id).await.unwrap();
        runtime
    }

    async fn run_in(runtime: &MockRuntime, words: &[&str]) -> Result<(i32, String), Trouble> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        run(runtime, "u/c/0".into(), &words, Some(Duration::from_millis(1500))).await
    }

    #[tokio::test]
    async fn codes_words_and_time() {
        let runtime = container().await;
        assert_eq!(run_in(&runtime, &["exit", "3"]).await, Ok((3, String::new())));
        assert_eq!(run_in(&runtime, &["echo", "one", "two"]).await, Ok((0, "one two\n".into())));
        assert_eq!(run_in(&runtime, &["complain", "loudly"]).await, Ok((0, "loudly\n".into())));
        assert_eq!(run_in(&runtime, &["sleep", "9"]).await, Err(Trouble::TimedOut("command timed out: \"sleep 9\" timed out after 1s".into())));
        runtime.fail("exec", None, Error::again("ExecError", "not today".into()));
        assert_eq!(run_in(&runtime, &["exit", "0"]).await, Err(Trouble::Lost("not today".into())));
    }
}
