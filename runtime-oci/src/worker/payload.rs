//! The last step of a container's first process: finding the program and becoming it. What goes wrong is said through a pipe that the program's start closes.

use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use nix::{
    errno::Errno,
    unistd::{AccessFlags, access, execve},
};
use std::{
    collections::HashMap,
    ffi::CString,
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Executes the container's command line; the pipe takes the word of what went wrong.
#[derive(Clone)]
pub struct Payload(pub Rc<OwnedFd>);

impl Executor for Payload {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let args = process.args().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let why = execute(args, process.env().as_deref().unwrap_or_default());
        if let Ok(pipe) = self.0.try_clone() {
            _ = std::fs::File::from(pipe).write_all(why.as_bytes());
        }
        Err(ExecutorError::Other(why))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // Looked at when it is executed, which says the same in better words.
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // They are given to the program in their own order, and never were this process's: their names may be anything.
        Ok(())
    }
}

/// Returns only when it failed, with the reason as runc words it.
pub fn execute(args: &[String], env: &[String]) -> String {
    let Some(name) = args.first() else { return "no command specified".into() };
    let path = env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let program = match find(name, path) {
        Ok(program) => program,
        Err(why) => return why,
    };
    let text = |bytes: &[u8]| CString::new(bytes).ok();
    let (Some(path), Some(line)) = (
        text(std::os::unix::ffi::OsStrExt::as_bytes(program.as_os_str())),
        args.iter().map(|argument| text(argument.as_bytes())).collect::<Option<Vec<CString>>>(),
    ) else {
        return format!("exec: {name:?}: a NUL character in the command line");
    };
    let env: Vec<CString> = env.iter().filter_map(|variable| text(variable.as_bytes())).collect();
    let error = execve(&path, &line, &env).err().unwrap_or(Errno::EINVAL);
    format!("exec {}: {}", program.display(), word(error))
}

/// The program's path: as it is when it has a slash, else the first of PATH that can be executed.
fn find(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        let program = Path::new(name);
        return match nix::sys::stat::stat(program) {
            Err(error) => Err(format!("exec: {name:?}: stat {name}: {}", word(error))),
            Ok(_) => executable(program).map(|()| program.into()).map_err(|error| format!("exec: {name:?}: {}", word(error))),
        };
    }
    let mut denied = false;
    for dir in path.split(':') {
        let program = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match executable(&program) {
            Ok(()) => return Ok(program),
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    Err(if denied && !name.is_empty() {
        format!("exec: {name:?}: permission denied")
    } else {
        format!("exec: {name:?}: executable file not found in $PATH")
    })
}

fn executable(program: &Path) -> Result<(), Errno> {
    if program.is_dir() {
        return Err(Errno::EISDIR);
    }
    access(program, AccessFlags::X_OK)
}

/// As Go words the errors that people meet.
pub fn word(error: Errno) -> String {
    error.desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn programs_are_found_or_refused_in_runcs_words() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for dir in [&first, &second] {
            std::fs::create_dir(dir).unwrap();
        }
        let file = |dir: &Path, name: &str, mode: u32| {
            std::fs::write(dir.join(name), "").unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file(&first, "plain", 0o644);
        file(&second, "plain", 0o755);
        file(&first, "data", 0o644);
        std::fs::create_dir(first.join("dir")).unwrap();
        let path = format!("{}:{}", first.display(), second.display());
        assert_eq!(find("plain", &path).unwrap(), second.join("plain"));
        assert_eq!(find("data", &path).unwrap_err(), "exec: \"data\": permission denied");
        assert_eq!(find("none", &path).unwrap_err(), "exec: \"none\": executable file not found in $PATH");
        assert_eq!(find("", &path).unwrap_err(), "exec: \"\": executable file not found in $PATH");
        assert_eq!(find("/none/x", &path).unwrap_err(), "exec: \"/none/x\": stat /none/x: no such file or directory");
        let directory = first.join("dir");
        assert_eq!(find(directory.to_str().unwrap(), "").unwrap_err(), format!("exec: {directory:?}: is a directory"));
        file(&second, "empty", 0o755);
        let empty = second.join("empty");
        assert_eq!(execute(&[empty.to_str().unwrap().to_owned()], &[]), format!("exec {}: exec format error", empty.display()));
    }
}
