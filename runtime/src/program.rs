//! Containers that have no file system of their own: a hidden subcommand of this binary, run by a pod's shim like any container's process.
//!
//! This is how a component runs in a pod of processes. One runtime knows what to run ([`Programs`]), the other how a pod's process is run; neither knows the other.
//! What they agree on is here: a [`Program`] as plain data, the numbers of its descriptors, and the [`Word`]s it says.

use crate::{ContainerSpec, Error, LocalImage, Resources, SandboxSpec, Security, wire::Refusal};
use async_trait::async_trait;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::{os::fd::OwnedFd, sync::Arc};

/// Descriptor: what the program is told, to its end.
pub const ORDER: i32 = 0;
/// Descriptor: where the program says its [`Word`]s, one a line. (1 and 2 are the container's standard output and error.)
pub const WORDS: i32 = 3;
/// Descriptors from here on: what else it was given.
pub const GIVEN: i32 = 4;

/// The user and group that hosts of components are, unless a pod says otherwise: nobody's.
pub const NOBODY: u32 = 65_533;

/// Who a component is on this machine: its host, and whoever works on its files for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Groups besides.
    pub groups: Vec<u32>,
}

impl Default for Identity {
    fn default() -> Self {
        Self { uid: NOBODY, gid: NOBODY, groups: Vec::new() }
    }
}

impl Identity {
    /// The container's user and groups (`runAsUser`, `runAsGroup`, `fsGroup`, …), who share its volumes, but never root.
    pub fn of(security: &Security) -> Self {
        let uid = security.run_as_user.filter(|uid| *uid != 0);
        let gid = security.run_as_group.filter(|gid| *gid != 0);
        Self { uid: uid.unwrap_or(NOBODY), gid: gid.unwrap_or(NOBODY), groups: security.supplemental_groups.clone() }
    }
}

/// Memory that the program itself may take, beside what the container may.
pub const OWN_MEMORY: u64 = 32 << 20;

/// What the program's control group may have, for what its container may.
pub fn of_group(resources: Resources) -> Resources {
    Resources { memory_limit: resources.memory_limit.map(|limit| limit.saturating_add(OWN_MEMORY)), ..resources }
}

/// What the container may have of memory, for what the program's control group may.
pub fn of_container(group: Option<u64>) -> Option<u64> {
    group.map(|limit| limit.saturating_sub(OWN_MEMORY))
}

/// Tells the program that its control group has another limit. A signal that is ignored by who knows nothing of it.
pub const RESIZED: Signal = Signal::WINCH;

/// What is run. It begins as root in the pod's network, IPC and host-name namespaces and in the container's control group, with nothing open but the descriptors above.
#[derive(Clone, Debug)]
pub struct Program {
    /// The subcommand, which is the whole command line; there are no variables.
    pub subcommand: String,
    /// What it reads at [`ORDER`], then those from [`GIVEN`] on.
    pub descriptors: Vec<Arc<OwnedFd>>,
}

/// Makes programs of images.
#[async_trait]
pub trait Programs: Send + Sync + 'static {
    /// Can it run that image? Says why not, with the remedy.
    fn supports(&self, image: &LocalImage) -> Result<(), Error>;
    /// As [`Runtime::prepare`](crate::Runtime::prepare).
    async fn prepare(&self, image: &LocalImage) -> Result<(), Error>;
    /// What runs the container in that sandbox.
    ///
    /// # Errors
    /// It could never run: as [`Runtime::create_container`](crate::Runtime::create_container).
    async fn program(&self, spec: &ContainerSpec, sandbox: &SandboxSpec) -> Result<Program, Error>;
}

/// What a program says to who runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// It runs. Said once, and first, unless it failed.
    Started,
    /// It cannot run, and ends.
    Failed(Refusal),
    /// Worth an event on the pod.
    Notice {
        /// `Normal` or `Warning`.
        warning: bool,
        /// CamelCase.
        reason: String,
        /// For a human.
        message: String,
    },
    /// Why it ends, right before it does. Its exit code is the container's.
    Ended {
        /// As Kubernetes writes it: Completed, Error, OOMKilled, StartError.
        reason: String,
        /// For a human; may be empty.
        message: String,
    },
}

/// Of a message that crosses; with the rest of the line less than what a pipe takes in one piece.
const MESSAGE: usize = 1024;

impl Word {
    /// As a line with its end, which a pipe takes whole or not at all.
    pub fn line(mut self) -> Vec<u8> {
        if let Self::Failed(Refusal { message, .. }) | Self::Notice { message, .. } | Self::Ended { message, .. } = &mut self
            && message.len() > MESSAGE
        {
            message.truncate(message.floor_char_boundary(MESSAGE));
        }
        let mut line = serde_json::to_vec(&self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Words out of the bytes of a pipe.
#[derive(Debug, Default)]
pub struct Words(Vec<u8>);

/// A line that is longer is no word.
const LINE: usize = 8 << 10;

impl Words {
    /// The words that end with these bytes. What is not understood is left out.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Word> {
        self.0.extend_from_slice(bytes);
        let mut words = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            words.extend(serde_json::from_slice::<Word>(&line).ok());
        }
        if self.0.len() > LINE {
            self.0.clear();
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_the_pods_user_and_never_root() {
        let of = |user, group| {
            let security = Security { run_as_user: user, run_as_group: group, supplemental_groups: vec![7], ..Security::default() };
            let Identity { uid, gid, groups } = Identity::of(&security);
            assert_eq!(groups, [7]);
            (uid, gid)
        };
        assert_eq!(of(None, None), (NOBODY, NOBODY));
        assert_eq!(of(Some(1000), Some(0)), (1000, NOBODY));
        assert_eq!(of(Some(0), Some(100)), (NOBODY, 100));
    }

    #[test]
    fn words_come_back_from_a_pipe_in_any_pieces() {
        let said = [
            Word::Started,
            Word::Notice { warning: true, reason: "RequestFailed".into(), message: "a trap\n\"quoted\"".into() },
            Word::Ended { reason: "OOMKilled".into(), message: String::new() },
        ];
        let bytes: Vec<u8> = said.iter().cloned().flat_map(Word::line).collect();
        for size in [1, 7, 4096] {
            let mut words = Words::default();
            let heard: Vec<Word> = bytes.chunks(size).flat_map(|piece| words.push(piece)).collect();
            assert_eq!(heard, said, "in pieces of {size}");
        }
    }

    #[test]
    fn nothing_that_is_said_is_long_and_nonsense_is_not_kept() {
        let long = Word::Ended { reason: "Error".into(), message: "ä\u{1}".repeat(10_000) };
        assert!(long.line().len() <= 4096, "one write of a pipe is whole");
        let mut words = Words::default();
        assert!(words.push(b"{\"Unknown\":1}\n{]\n").is_empty());
        for _ in 0..100 {
            assert!(words.push(&[b'x'; 1000]).is_empty());
            assert!(words.0.len() <= LINE + 1000);
        }
        assert_eq!(words.push(b"\n\"Started\"\n"), [Word::Started]);
    }
}
