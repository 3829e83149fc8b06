//! What the process of a container says of itself, where it is a program of ours ([`coracle_runtime::program`]).

use coracle_runtime::program::{Word, Words};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// A pipe, and what has come out of it.
#[derive(Default)]
pub struct Told {
    pipe: Option<File>,
    words: Words,
    /// Not yet passed on.
    notices: Vec<(bool, String, String)>,
    /// Reason and message of the end.
    end: Option<(String, String)>,
}

/// Notices that wait to be passed on.
const MOST: usize = 64;

impl Told {
    /// From now on words come out of this pipe.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(&mut self, pipe: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        self.pipe = Some(pipe.into());
        Ok(())
    }

    /// Readable when something was said.
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads once; whether there may be more.
    pub fn read(&mut self, buffer: &mut [u8]) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        match pipe.read(buffer) {
            Ok(count) if count > 0 => {
                for word in self.words.push(buffer.get(..count).unwrap_or_default()) {
                    match word {
                        Word::Notice { warning, reason, message } if self.notices.len() < MOST => self.notices.push((warning, reason, message)),
                        Word::Ended { reason, message } => self.end = Some((reason, message)),
                        _ => {}
                    }
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            _ => {
                self.pipe = None;
                false
            }
        }
    }

    /// What is to be passed on: whether it is a warning, reason, message.
    pub fn notices(&mut self) -> Vec<(bool, String, String)> {
        std::mem::take(&mut self.notices)
    }

    /// Reason and message of the end, if it said so itself.
    pub fn end(&mut self) -> Option<(String, String)> {
        self.pipe = None;
        self.end.take()
    }
}
