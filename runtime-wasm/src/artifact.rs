//! Compiled code on disk: one file for each (wasm digest, engine), made once, mapped by the hosts.
//!
//! `<data-dir>/wasm/artifacts/<sha256>-<engine key>.<kind>.<memory>.cwasm`: what one must know of an artifact without loading it is in its name, so
//! that name and content appear in one rename. The folder is the agent's alone (0700); files are readable by all, because hosts open them again through
//! their descriptor.

use crate::{
    classify::Verdict,
    compile::{Limits, MAX_WASM, Report},
    engine,
    wire::Kind,
};
use coracle_runtime::Error;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};
use tokio::{io::AsyncReadExt, process::Command, sync::Semaphore, time::timeout};

/// Refusals that are remembered, so that a pod in back-off does not compile the same broken file again and again.
const REMEMBERED: usize = 256;
const REPORT: u64 = 64 << 10;

/// A compiled file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The file.
    pub path: PathBuf,
    /// Names it: digest and engine.
    pub key: String,
    /// What it is.
    pub verdict: Verdict,
}

/// The folder.
pub struct Artifacts {
    dir: PathBuf,
    exe: PathBuf,
    engine: String,
    /// What the compiler is told of where and as whom it runs.
    place: Vec<OsString>,
    limits: Limits,
    compiling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    refused: Mutex<Vec<(String, String)>>,
    room: Semaphore,
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Http => "http",
        Kind::Command => "command",
        Kind::Module => "module",
    }
}

fn parse(name: &str) -> Option<(&str, Verdict)> {
    let mut parts = name.strip_suffix(".cwasm")?.split('.');
    let (key, kind, memory) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    let kind = [Kind::Http, Kind::Command, Kind::Module].into_iter().find(|known| kind_name(*known) == kind)?;
    parts.next().is_none().then_some((key, Verdict { kind, memory }))
}

fn trouble(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::again("CreateContainerError", format!("{what} {} failed: {error}", path.display()))
}

impl Artifacts {
    /// In `dir`, made by `exe`'s hidden compiler.
    pub fn new(dir: PathBuf, exe: PathBuf, place: Vec<OsString>, limits: Limits, at_once: usize) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        // What a killed agent left half done.
        for entry in fs::read_dir(&dir)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(entry.path())?;
            }
        }
        let engine = engine::key(&engine::compiler().map_err(|error| io::Error::other(format!("{error:#}")))?);
        Ok(Self { dir, exe, engine, place, limits, compiling: Mutex::default(), refused: Mutex::default(), room: Semaphore::new(at_once.max(1)) })
    }

    /// The key of the engine that artifacts are compiled for.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    fn key(&self, digest: &str) -> Result<String, Error> {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::fatal("InvalidImage", format!("{digest:?} is not the sha256 digest of a wasm file")));
        }
        Ok(format!("{hex}-{}", self.engine))
    }

    /// The artifact of that wasm file, if it is there.
    pub fn find(&self, digest: &str) -> Result<Option<Artifact>, Error> {
        let key = self.key(digest)?;
        let entries = fs::read_dir(&self.dir).map_err(|error| trouble("reading the artifact cache", &self.dir, &error))?;
        for entry in entries.flatten() {
            if let Some((found, verdict)) = entry.file_name().to_str().and_then(parse)
                && found == key
            {
                return Ok(Some(Artifact { path: entry.path(), key, verdict }));
            }
        }
        Ok(None)
    }

    /// The artifact of the wasm file at `path`, compiled if need be. Callers for the same digest share the work.
    pub async fn get(&self, path: &Path, digest: &str) -> Result<Artifact, Error> {
        if let Some(artifact) = self.find(digest)? {
            return Ok(artifact);
        }
        let flight = self.compiling.lock().entry(digest.to_owned()).or_default().clone();
        let result = {
            let _alone = flight.lock().await;
            self.make(path, digest).await
        };
        self.compiling.lock().retain(|other, flight| other != digest || Arc::strong_count(flight) > 2);
        result
    }

    async fn make(&self, path: &Path, digest: &str) -> Result<Artifact, Error> {
        if let Some(artifact) = self.find(digest)? {
            return Ok(artifact);
        }
        if let Some((_, why)) = self.refused.lock().iter().find(|(refused, _)| refused == digest) {
            return Err(Error::fatal("InvalidImage", why.clone()));
        }
        let _room = self.room.acquire().await.map_err(|_| Error::again("CreateContainerError", "the agent is stopping".to_owned()))?;
        let key = self.key(digest)?;
        let half = self.dir.join(format!("{key}.tmp"));
        let made = self.run(path, &half).await;
        let verdict = match made {
            Ok(verdict) => verdict,
            Err(error) => {
                _ = fs::remove_file(&half);
                if error.fatal {
                    let mut refused = self.refused.lock();
                    if refused.len() >= REMEMBERED {
                        refused.remove(0);
                    }
                    refused.push((digest.to_owned(), error.message.clone()));
                }
                return Err(error);
            }
        };
        let done = self.dir.join(format!("{key}.{}.{}.cwasm", kind_name(verdict.kind), verdict.memory));
        fs::set_permissions(&half, Permissions::from_mode(0o644)).map_err(|error| trouble("finishing artifact", &half, &error))?;
        fs::rename(&half, &done).map_err(|error| trouble("finishing artifact", &done, &error))?;
        Ok(Artifact { path: done, key, verdict })
    }

    async fn run(&self, path: &Path, half: &Path) -> Result<Verdict, Error> {
        let wasm = File::open(path).map_err(|error| trouble("opening wasm file", path, &error))?;
        let size = wasm.metadata().map_err(|error| trouble("looking at wasm file", path, &error))?.len();
        if size > MAX_WASM {
            return Err(Error::fatal(
                "InvalidImage",
                format!("the wasm file has {} MiB, the limit is {} MiB; strip it or split it", size >> 20, MAX_WASM >> 20),
            ));
        }
        let output = File::create(half).map_err(|error| trouble("writing artifact", half, &error))?;
        let written = output.try_clone().map_err(|error| trouble("writing artifact", half, &error))?;
        let mut command = Command::new(&self.exe);
        let Limits { memory, cpu_seconds, patience } = self.limits;
        command.arg(crate::COMPILER).arg(memory.to_string()).arg(cpu_seconds.to_string()).args(&self.place);
        command.env_clear().current_dir("/").stdin(wasm).stdout(output).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| trouble("starting the compiler", &self.exe, &error))?;
        let mut said = Vec::new();
        let stderr = child.stderr.take();
        let finished = timeout(patience, async {
            if let Some(stderr) = stderr {
                stderr.take(REPORT).read_to_end(&mut said).await?;
            }
            child.wait().await
        })
        .await;
        let status = match finished {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Err(trouble("waiting for the compiler", &self.exe, &error)),
            Err(_) => {
                _ = child.kill().await;
                return Err(Error::fatal("CompileError", format!("compiling took longer than {patience:?}; make the module smaller, or split it")));
            }
        };
        let said = String::from_utf8_lossy(&said);
        let report = said.lines().rev().find_map(|line| serde_json::from_str::<Report>(line).ok());
        match report {
            Some(Report::Compiled(verdict)) if status.success() => {
                // Before it gets its name: after a power cut the name would stand for half of it, and native code is mapped, not read.
                let synced = tokio::task::spawn_blocking(move || written.sync_all()).await.unwrap_or_else(|error| Err(io::Error::other(error)));
                synced.map_err(|error| trouble("writing artifact", half, &error))?;
                Ok(verdict)
            }
            Some(Report::Refused(why)) => Err(Error::fatal("InvalidImage", why)),
            Some(Report::Failed(why)) => Err(Error::again("CreateContainerError", format!("compiling the wasm file: {why}"))),
            _ => {
                let last: String = said.lines().last().unwrap_or_default().chars().take(300).collect();
                Err(Error::fatal(
                    "CompileError",
                    format!("the compiler ended with {status} (its memory and CPU time are limited); make the module smaller, or split it. {last}"),
                ))
            }
        }
    }

    /// Removes artifacts of files that are not in `keep`, and those of other engines.
    pub fn collect(&self, keep: &[String]) -> Result<(), Error> {
        let keep: Vec<String> = keep.iter().filter_map(|digest| self.key(digest).ok()).collect();
        let entries = fs::read_dir(&self.dir).map_err(|error| trouble("reading the artifact cache", &self.dir, &error))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((key, _)) = name.to_str().and_then(parse) else { continue };
            if !keep.iter().any(|kept| kept == key) {
                fs::remove_file(entry.path()).map_err(|error| trouble("removing artifact", &entry.path(), &error))?;
            }
        }
        self.refused.lock().clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_artifacts_are() {
        assert_eq!(parse("ab-cd.http.65536.cwasm"), Some(("ab-cd", Verdict { kind: Kind::Http, memory: 65536 })));
        for other in ["ab-cd.tmp", "ab-cd.http.cwasm", "ab-cd.what.1.cwasm", "ab-cd.http.1.2.cwasm"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
