//! Programs that the tests run: to their end, or beside the test until it is dropped.

use crate::Result;
use anyhow::{Context, ensure};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

/// What a program that ended left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Runs `command` to its end, with `input` on its standard input.
    pub fn of(command: &mut Command, input: &str) -> Result<Self> {
        let words = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {words}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input may be gone already.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Self { command: words, code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) })
    }

    /// Standard output, if the program succeeded.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == 0, "{} ended with {}\n{}\n{}", self.command, self.code, self.stdout, self.stderr);
        Ok(self.stdout)
    }

    /// Standard error, if the program failed.
    pub fn err(self) -> Result<String> {
        ensure!(self.code != 0, "{} was to fail, but printed\n{}\n{}", self.command, self.stdout, self.stderr);
        Ok(self.stderr)
    }
}

/// A program that runs beside the test; killed when dropped.
pub struct Background {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Background {
    /// Starts `command` in a process group of its own and collects the lines that it prints.
    pub fn start(command: &mut Command) -> Result<Self> {
        let words = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start {words}"))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [child.stdout.take().map(|stream| Box::new(stream) as _), child.stderr.take().map(|stream| Box::new(stream) as _)];
        for stream in streams.into_iter().flatten() {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
                    if let Ok(mut lines) = lines.lock() {
                        lines.push(line);
                    }
                }
            });
        }
        Ok(Self { child, lines })
    }

    /// Everything printed so far, both streams.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().map(|lines| lines.clone()).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) -> Result {
        Output::of(Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()), "")?.ok().map(drop)
    }

    /// Waits for its end, within `seconds`; the exit code (-1: by a signal).
    pub fn wait(&mut self, seconds: u64) -> Result<i32> {
        crate::eventually("the end of a program", seconds, || {
            let status = self.child.try_wait()?.context("it still runs")?;
            Ok(status.code().unwrap_or(-1))
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
