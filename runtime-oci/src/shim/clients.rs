//! Who is attached to a container: each gets a copy of what it writes.
//!
//! A client that reads slowly slows the container down, as a terminal would, or no program's output could be sent over a slow line; one that does not take what is
//! there in time is let go, so that nobody can hold a container up for long.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    time::{Duration, Instant},
};

/// A client that has not read what was there for so long is let go.
const STALLED: Duration = Duration::from_secs(5);
/// Clients of a container.
const MOST: usize = 32;

/// A pipe to a client, and what did not fit into it: pieces that all clients share, and how much of the first is written.
struct Pipe {
    fd: OwnedFd,
    pending: VecDeque<Rc<[u8]>>,
    written: usize,
    since: Instant,
}

impl Pipe {
    /// Writes what fits. Whether the client is there still.
    fn flush(&mut self) -> bool {
        while let Some(piece) = self.pending.front() {
            match rustix::io::write(&self.fd, piece.get(self.written..).unwrap_or_default()) {
                Ok(count) if self.written + count < piece.len() => self.written += count,
                Ok(_) => {
                    self.written = 0;
                    self.pending.pop_front();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return self.since.elapsed() < STALLED,
                Err(_) => return false,
            }
        }
        // Of a pipe that nothing is written to, only this tells that its reader is gone.
        let mut watched = [rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::empty())];
        _ = rustix::event::poll(&mut watched, Some(&rustix::event::Timespec::default()));
        !watched[0].revents().intersects(rustix::event::PollFlags::ERR | rustix::event::PollFlags::HUP)
    }
}

/// One client's pipes, by the stream: output, error.
struct Client([Option<Pipe>; 2]);

/// Those of one container.
#[derive(Default)]
pub struct Clients(Vec<Client>);

impl Clients {
    /// Takes one in.
    ///
    /// # Errors
    /// There are too many, or a pipe is none.
    pub fn add(&mut self, pipes: [Option<OwnedFd>; 2]) -> io::Result<()> {
        if self.0.len() >= MOST {
            return Err(io::Error::other(format!("{MOST} clients are attached to it already")));
        }
        for fd in pipes.iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        self.0.push(Client(pipes.map(|fd| fd.map(|fd| Pipe { fd, pending: VecDeque::new(), written: 0, since: Instant::now() }))));
        Ok(())
    }

    fn pipes(&self) -> impl Iterator<Item = &Pipe> {
        self.0.iter().flat_map(|client| client.0.iter().flatten())
    }

    /// Sends a copy of what was written to that stream.
    pub fn write(&mut self, which: usize, bytes: &[u8]) {
        if self.0.is_empty() {
            return;
        }
        let piece: Rc<[u8]> = bytes.into();
        for client in &mut self.0 {
            if let Some(Some(pipe)) = client.0.get_mut(which) {
                if pipe.pending.is_empty() {
                    pipe.since = Instant::now();
                }
                pipe.pending.push_back(piece.clone());
            }
        }
        self.flush();
    }

    /// Writes what fits, and lets go who has hung up or does not read.
    pub fn flush(&mut self) {
        for client in &mut self.0 {
            for pipe in &mut client.0 {
                if pipe.as_mut().is_some_and(|pipe| !pipe.flush()) {
                    *pipe = None;
                }
            }
        }
        self.0.retain(|client| client.0.iter().any(Option::is_some));
    }

    /// The stream has ended: those who have it all see its end.
    pub fn end(&mut self, which: usize) {
        for client in &mut self.0 {
            if let Some(pipe) = client.0.get_mut(which)
                && pipe.as_ref().is_some_and(|pipe| pipe.pending.is_empty())
            {
                *pipe = None;
            }
        }
        self.0.retain(|client| client.0.iter().any(Option::is_some));
    }

    /// Lets all of them go.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Does one of them have to read first before there is more of that stream?
    pub fn full(&self, which: usize) -> bool {
        self.0.iter().any(|client| client.0.get(which).is_some_and(|pipe| pipe.as_ref().is_some_and(|pipe| !pipe.pending.is_empty())))
    }

    /// Pipes to watch, and whether they are waited for: one that is not may still be hung up.
    pub fn watched(&self) -> Vec<(BorrowedFd<'_>, bool)> {
        self.pipes().map(|pipe| (pipe.fd.as_fd(), !pipe.pending.is_empty())).collect()
    }

    /// When one of them is to be let go.
    pub fn due(&self) -> Option<Instant> {
        self.pipes().filter(|pipe| !pipe.pending.is_empty()).map(|pipe| pipe.since + STALLED).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read};

    #[test]
    fn everybody_gets_all_and_who_hangs_up_is_gone() {
        let pair = || rustix::pipe::pipe().unwrap();
        let ((mut first, a), (second, b)) = (pair(), pair());
        let mut clients = Clients::default();
        clients.add([Some(a), None]).unwrap();
        clients.add([None, Some(b)]).unwrap();
        // More than a pipe takes.
        let text = vec![b'x'; 100_000];
        clients.write(0, &text);
        assert!(clients.full(0) && !clients.full(1) && clients.due().is_some());
        let mut got = Vec::new();
        while got.len() < text.len() {
            let mut buffer = [0; 4096];
            let count = rustix::io::read(&first, &mut buffer).unwrap();
            got.extend_from_slice(&buffer[..count]);
            clients.flush();
        }
        assert!(got == text && !clients.full(0));
        clients.end(0);
        first = {
            let mut file = File::from(first);
            assert_eq!(file.read(&mut [0; 8]).unwrap(), 0, "the end");
            file.into()
        };
        assert_eq!(clients.watched().len(), 1);
        drop((first, second));
        // Nothing has to be written for it.
        clients.flush();
        assert!(clients.watched().is_empty());
    }

    #[test]
    fn what_nobody_has_read_is_kept_once() {
        let mut clients = Clients::default();
        let readers: Vec<OwnedFd> = (0..MOST)
            .map(|_| {
                let (reader, writer) = rustix::pipe::pipe().unwrap();
                clients.add([Some(writer), None]).unwrap();
                reader
            })
            .collect();
        clients.write(0, &vec![b'x'; 1 << 20]);
        let pieces: Vec<&Rc<[u8]>> = clients.pipes().flat_map(|pipe| &pipe.pending).collect();
        assert_eq!((pieces.len(), Rc::strong_count(pieces[0])), (readers.len(), readers.len()));
    }
}
