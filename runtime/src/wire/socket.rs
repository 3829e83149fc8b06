//! Frames with descriptors over a non-blocking Unix stream socket, without a runtime: small parents have none, the others wrap this in `AsyncFd`.
//!
//! The kernel hands descriptors over with the bytes they were sent with, or a little earlier (a read may cross from the end of one frame into the
//! beginning of the next), never out of order, and never those of two frames in one read. So they are queued read by read, and each frame
//! that says that it has some takes one read's. A receiver that has no room for them loses them: the message comes with fewer, and is refused by who
//! reads it, which disturbs one pod where hanging up would disturb all.
//! A stream rather than a seqpacket socket because a pod's environment may be larger than a packet.

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
};
use tokio::io::{Interest, Ready, unix::AsyncFd};

const MAGIC: u32 = 0x0c0_7ac1e;
/// Of the header; what is in the bodies has versions of its own.
const FRAMING: u16 = 1;
const HEADER: usize = 12;
/// The longest message. What `wire::bounds` lets through fits.
pub const MAX_BODY: usize = 16 << 20;
/// The kernel takes 253 descriptors in one message.
const MAX_FDS: usize = 250;
/// The most that come with one message.
pub const MAX_WAITING_FDS: usize = 4096;
/// What may wait for a peer that does not read, before it is given up.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Less than this waits: there is room for one more message, however long.
const ROOM: usize = 1 << 20;

struct Chunk {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<Arc<OwnedFd>>,
}

/// One end of a connection.
pub struct Link {
    fd: OwnedFd,
    input: Vec<u8>,
    /// What came with each read that brought some.
    fds: VecDeque<Vec<OwnedFd>>,
    output: VecDeque<Chunk>,
    waiting: usize,
    closed: bool,
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Link {
    /// Over a connected, non-blocking socket.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, input: Vec::new(), fds: VecDeque::new(), output: VecDeque::new(), waiting: 0, closed: false }
    }

    /// The socket itself, for a process that is started with it.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Two connected ends.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn pair() -> io::Result<(Self, Self)> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self::new(a), Self::new(b)))
    }

    /// Queues a message. Nothing is written before [`flush`](Self::flush).
    ///
    /// # Errors
    /// `InvalidInput`: it is too large, and nothing has happened. Any other: the other end has not read for long.
    pub fn send<M: Serialize>(&mut self, message: &M, fds: Vec<Arc<OwnedFd>>) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        if body.len() > MAX_BODY || fds.len() > MAX_WAITING_FDS {
            let what = format!("a message of {} bytes and {} descriptors is too large for the control socket", body.len(), fds.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        // Descriptors beyond what one message carries go ahead in empty frames.
        let ahead = if fds.is_empty() { 0 } else { (fds.len() - 1) / MAX_FDS };
        for chunk in fds.chunks(MAX_FDS).take(ahead) {
            self.queue(&[], chunk.to_vec());
        }
        self.queue(&body, fds.get(ahead * MAX_FDS..).unwrap_or_default().to_vec());
        if self.waiting > MAX_WAITING_BYTES {
            return Err(broken("the other end of the control socket does not read"));
        }
        Ok(())
    }

    fn queue(&mut self, body: &[u8], fds: Vec<Arc<OwnedFd>>) {
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&FRAMING.to_le_bytes());
        bytes.extend_from_slice(&(fds.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(body);
        self.waiting += bytes.len();
        self.output.push_back(Chunk { bytes, sent: 0, fds });
    }

    /// May the next message be queued? Whoever has many waits for this, so that a peer that is slow is not taken for one that does not read.
    pub fn has_room(&self) -> bool {
        self.waiting < ROOM
    }

    /// Is there something to write?
    pub fn pending(&self) -> bool {
        !self.output.is_empty()
    }

    /// Has the other end hung up?
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// `WouldBlock` when something is left; others end the connection.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(chunk) = self.output.front_mut() {
            let borrowed: Vec<BorrowedFd<'_>> = chunk.fds.iter().map(|fd| fd.as_fd()).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(broken("too many descriptors for one message"));
            }
            let bytes = chunk.bytes.get(chunk.sent..).unwrap_or_default();
            let sent = match rustix::net::sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            chunk.fds.clear();
            chunk.sent += sent;
            if chunk.sent >= chunk.bytes.len() {
                self.waiting = self.waiting.saturating_sub(chunk.bytes.len());
                self.output.pop_front();
            }
        }
        Ok(())
    }

    /// Reads what is there. `WouldBlock` when nothing is; `Ok` after something came or the other end hung up ([`closed`](Self::closed)).
    pub fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match rustix::net::recvmsg(&self.fd, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => {
                    self.closed = true;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        };
        let mut came = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                came.extend(fds);
            }
        }
        if !came.is_empty() || received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
            self.fds.push_back(came);
        }
        if self.fds.iter().map(Vec::len).sum::<usize>() > MAX_WAITING_FDS {
            return Err(broken("more descriptors on the control socket than any message takes"));
        }
        if received.bytes == 0 {
            self.closed = true;
        }
        self.input.extend_from_slice(buffer.get(..received.bytes).unwrap_or_default());
        Ok(())
    }

    /// The next whole message, if there is one, with its descriptors; with fewer than were sent when this process had no room for all.
    pub fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut at = 0;
        let mut reads = 0;
        loop {
            let Some(header) = self.input.get(at..at + HEADER) else { return Ok(None) };
            let word = |from: usize| u32::from_le_bytes(header[from..from + 4].try_into().expect("four bytes"));
            if word(0) != MAGIC {
                return Err(broken("not a frame of ours on the control socket"));
            }
            let length = word(8) as usize;
            if length > MAX_BODY {
                return Err(broken("frame too large on the control socket"));
            }
            reads += usize::from(u16::from_le_bytes(header[6..8].try_into().expect("two bytes")) > 0);
            let Some(body) = self.input.get(at + HEADER..at + HEADER + length) else { return Ok(None) };
            at += HEADER + length;
            if length == 0 {
                continue;
            }
            if reads > self.fds.len() {
                return Err(broken("a frame without its descriptors on the control socket"));
            }
            let message = serde_json::from_slice(body)?;
            let fds = self.fds.drain(..reads).flatten().collect();
            self.input.drain(..at);
            if self.input.is_empty() {
                self.input.shrink_to(4096);
            }
            return Ok(Some((message, fds)));
        }
    }
}

/// A [`Link`] under tokio.
pub struct AsyncLink(AsyncFd<Link>);

impl AsyncLink {
    /// Within a tokio runtime.
    #[allow(unsafe_code, reason = "tokio wants the promise that the descriptor stays the same")]
    pub fn new(link: Link) -> io::Result<Self> {
        // SAFETY: the link owns its descriptor, never replaces it, and is owned by the AsyncFd in turn.
        Ok(Self(unsafe { AsyncFd::register(link) }?))
    }

    /// The link itself: to queue messages, and to take those that have come.
    pub fn link(&mut self) -> &mut Link {
        self.0.get_mut()
    }

    /// Waits until something could be read or written, and does it. May be dropped at any time without loss.
    pub async fn turn(&mut self) -> io::Result<()> {
        let interest = if self.0.get_ref().pending() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let mut guard = self.0.ready_mut(interest).await?;
        if guard.ready().is_writable() && would_block(guard.get_inner_mut().flush())? {
            guard.clear_ready_matching(Ready::WRITABLE);
        }
        if guard.ready().is_readable() && would_block(guard.get_inner_mut().fill())? {
            guard.clear_ready_matching(Ready::READABLE);
        }
        Ok(())
    }

    /// Writes what the socket takes at once; [`turn`](Self::turn) writes the rest.
    pub fn flush(&mut self) -> io::Result<()> {
        would_block(self.link().flush()).map(|_| ())
    }
}

/// Whether it stopped because the socket is full or empty.
fn would_block(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Read, Seek, Write},
    };

    fn file(text: &str) -> Arc<OwnedFd> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Arc::new(file.into())
    }

    fn text(fd: OwnedFd) -> String {
        let mut file = File::from(fd);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    /// Moves everything that is queued, and gives the messages that arrive.
    fn carry(from: &mut Link, to: &mut Link) -> Vec<(String, Vec<OwnedFd>)> {
        let mut got = Vec::new();
        loop {
            let sent = from.flush();
            while to.fill().is_ok() {
                while let Some(message) = to.receive().unwrap() {
                    got.push(message);
                }
            }
            match sent {
                Ok(()) => return got,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[test]
    fn descriptors_stay_with_their_messages() {
        let (mut a, mut b) = Link::pair().unwrap();
        a.send(&"none", Vec::new()).unwrap();
        a.send(&"two", vec![file("1"), file("2")]).unwrap();
        a.send(&"x".repeat(3 << 20), vec![file("3")]).unwrap();
        a.send(&"none again", Vec::new()).unwrap();
        let got = carry(&mut a, &mut b);
        let seen: Vec<(usize, Vec<String>)> = got.into_iter().map(|(m, fds)| (m.len(), fds.into_iter().map(text).collect())).collect();
        assert_eq!(seen, [(4, vec![]), (3, vec!["1".into(), "2".into()]), (3 << 20, vec!["3".into()]), (10, vec![])]);
    }

    #[test]
    fn more_descriptors_than_one_message_carries() {
        let (mut a, mut b) = Link::pair().unwrap();
        let fds: Vec<_> = (0..600).map(|n| file(&n.to_string())).collect();
        a.send(&"many", fds).unwrap();
        let got = carry(&mut a, &mut b);
        assert_eq!(got.len(), 1);
        let texts: Vec<String> = got.into_iter().next().unwrap().1.into_iter().map(text).collect();
        assert_eq!(texts, (0..600).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn descriptors_without_room_are_missing_from_their_message_only() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        // The limit is the process's: not beside other tests.
        if std::env::var_os("CORACLE_LINK_CHILD").is_none() {
            let name = "wire::socket::tests::descriptors_without_room_are_missing_from_their_message_only";
            let child = std::process::Command::new(std::env::current_exe().unwrap()).args(["--exact", name]).env("CORACLE_LINK_CHILD", "1").output();
            let child = child.unwrap();
            assert!(child.status.success() && String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{child:?}");
            return;
        }
        let (mut a, mut b) = Link::pair().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // Held, so that sending them makes no room.
        let files: Vec<_> = (0..20).map(|n| file(&n.to_string())).collect();
        a.send(&"one", files[..1].to_vec()).unwrap();
        a.send(&"many", files.clone()).unwrap();
        a.send(&"none", Vec::new()).unwrap();
        a.send(&"another", files[1..2].to_vec()).unwrap();
        let next = File::open("/dev/null").unwrap();
        let top = next.as_raw_fd() as u64;
        drop(next);
        setrlimit(Resource::RLIMIT_NOFILE, top + 4, hard).unwrap();
        let got = carry(&mut a, &mut b);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let counts: Vec<(&str, usize)> = got.iter().map(|(message, fds)| (message.as_str(), fds.len())).collect();
        assert_eq!(counts, [("one", 1), ("many", 3), ("none", 0), ("another", 0)]);
        a.send(&"later", files[..1].to_vec()).unwrap();
        assert_eq!(carry(&mut a, &mut b).pop().map(|(_, fds)| fds.len()), Some(1));
    }

    #[test]
    fn hanging_up_is_seen_and_garbage_refused() {
        let (mut a, b) = Link::pair().unwrap();
        drop(b);
        a.fill().unwrap();
        assert!(a.closed());
        let (mut a, b) = Link::pair().unwrap();
        rustix::io::write(&b, b"GET / HTTP/1.1\r\n\r\n").unwrap();
        a.fill().unwrap();
        assert!(a.receive::<String>().is_err());
    }
}
