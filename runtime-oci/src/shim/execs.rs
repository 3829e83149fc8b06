//! Programs that run in containers beside the first one (`exec`). Each belongs to a session of the agent's and ends with it.

use crate::wire::Happened;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use std::time::{Duration, Instant};

/// Programs at once, those that are being started included. Each takes a process and an answer; what they use of the machine is the container's.
pub const MOST: usize = 64;

/// One of them.
struct Exec {
    /// None: nobody waits for its end.
    session: Option<u64>,
    pid: Pid,
    due: Option<Instant>,
}

impl Exec {
    /// Its process and those it has started, as far as they stayed in its group.
    fn kill(&mut self) {
        // Not waited for yet, so that the number is its own.
        _ = killpg(self.pid, Signal::SIGKILL);
        _ = kill(self.pid, Signal::SIGKILL);
        self.due = None;
    }
}

/// All that run.
#[derive(Default)]
pub struct Execs(Vec<Exec>);

impl Execs {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Takes one that runs, which may take so long.
    pub fn add(&mut self, session: Option<u64>, pid: Pid, timeout: Option<Duration>) {
        let mut exec = Exec { session, pid, due: timeout.and_then(|timeout| Instant::now().checked_add(timeout)) };
        if session.is_none() {
            exec.kill();
        }
        self.0.push(exec);
    }

    /// Kills that session's.
    pub fn end(&mut self, session: u64) {
        for exec in self.0.iter_mut().filter(|exec| exec.session == Some(session)) {
            exec.kill();
        }
    }

    /// Kills all of them; nobody waits for their end any more.
    pub fn abandon(&mut self) {
        for exec in &mut self.0 {
            exec.session = None;
            exec.kill();
        }
    }

    /// Kills those whose time is over.
    pub fn enforce(&mut self) {
        for exec in self.0.iter_mut().filter(|exec| exec.due.is_some_and(|due| due <= Instant::now())) {
            exec.kill();
        }
    }

    /// When [`enforce`](Self::enforce) has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(|exec| exec.due).min()
    }

    /// It was waited for: whether it was one of these, and what to tell of it.
    pub fn exited(&mut self, pid: Pid, code: i32) -> Option<Option<Happened>> {
        let at = self.0.iter().position(|exec| exec.pid == pid)?;
        let session = self.0.swap_remove(at).session;
        Some(session.map(|session| Happened::Ended { session, code }))
    }
}
