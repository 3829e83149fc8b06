//! Programs run in containers, and attachments, as the agent holds them: ends of pipes or a terminal, and when it is over.
//!
//! Pipes are made here and their other ends handed to the shim with the request; a terminal is made in the container and sent back. What they carry does not pass the shim.

use super::{Connection, PATIENCE, Shim, ask};
use crate::wire::{Ask, Exec};
use coracle_runtime::{ContainerId, ContainerSpec, Error, ExecSpec, Resize, Session, Standard};
use parking_lot::Mutex;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
    sync::oneshot,
};

/// Those of one shim that are not over.
#[derive(Default)]
pub struct Sessions {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

/// An attachment's container, whose end is its own, and who waits for that.
type Open = (Option<ContainerId>, oneshot::Sender<i32>);

impl Sessions {
    fn open(&self, container: Option<ContainerId>) -> (u64, oneshot::Receiver<i32>) {
        let (sender, receiver) = oneshot::channel();
        let number = self.next.fetch_add(1, Relaxed);
        self.open.lock().insert(number, (container, sender));
        (number, receiver)
    }

    /// A program has ended.
    pub fn ended(&self, number: u64, code: i32) {
        if let Some((_, sender)) = self.open.lock().remove(&number) {
            _ = sender.send(code);
        }
    }

    /// A container has ended, and with it who is attached to it.
    pub fn container_ended(&self, id: &str, code: i32) {
        let mut open = self.open.lock();
        let over: Vec<u64> = open.iter().filter(|(_, (container, _))| container.as_deref() == Some(id)).map(|(number, _)| *number).collect();
        for (_, sender) in over.iter().filter_map(|number| open.remove(number)) {
            _ = sender.send(code);
        }
    }

    /// The shim has ended, and everything with it.
    pub fn lost(&self) {
        self.open.lock().clear();
    }
}

/// Ends with the session; kills its program, which may not have ended.
struct Guard {
    number: u64,
    sessions: Arc<Sessions>,
    /// None for an attachment.
    program: Option<Arc<Connection>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let open = self.sessions.open.lock().remove(&self.number).is_some();
        if let Some(connection) = self.program.take().filter(|_| open)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let number = self.number;
            runtime.spawn(async move { ask(&connection, Ask::EndExec(number), PATIENCE).await });
        }
    }
}

fn failed(reason: &str) -> impl Fn(io::Error) -> Error + '_ {
    move |error| Error::again(reason, error.to_string())
}

/// Runs a program in a container.
///
/// # Errors
/// The container does not run, or the program cannot be started.
pub async fn exec(shim: &Shim, spec: ExecSpec) -> Result<Session, Error> {
    let wrong = failed("ExecError");
    if !shim.known.lock().contains_key(&spec.container) {
        return Err(Error::again("ExecError", format!("container {} is not running", spec.container)));
    }
    let Standard { stdin, stdout, stderr } = spec.streams;
    let (mut ours, mut theirs) = (Streams::default(), Vec::new());
    let mut socket = None;
    if spec.tty {
        let (own, other) = tokio::net::UnixStream::pair().map_err(&wrong)?;
        socket = Some(own);
        let other = other.into_std().map_err(&wrong)?;
        other.set_nonblocking(false).map_err(&wrong)?;
        theirs.push(Arc::new(other.into()));
    } else {
        if stdin {
            let (sender, receiver) = pipe::pipe().map_err(&wrong)?;
            ours.stdin = Some(sender);
            theirs.push(Arc::new(receiver.into_blocking_fd().map_err(&wrong)?));
        }
        ours.outputs([stdout, stderr], true, &mut theirs).map_err(&wrong)?;
    }
    let (number, exit) = shim.sessions.open(None);
    let guard = Guard { number, sessions: shim.sessions.clone(), program: Some(shim.connection.clone()) };
    let exec = Exec {
        session: number,
        container: spec.container.clone(),
        command: spec.command.clone(),
        streams: [stdin, stdout, stderr],
        tty: spec.tty,
        timeout: spec.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
    };
    let asked = tokio::time::timeout(PATIENCE, shim.connection.ask(Ask::Exec(Box::new(exec)), theirs)).await;
    match asked {
        Ok(Some(answer)) => _ = answer.map_err(Error::from)?,
        Ok(None) => return Err(Error::again("ExecError", "the pod's shim process ended".into())),
        Err(_) => return Err(Error::again("ExecError", format!("the pod's shim process did not answer within {PATIENCE:?}"))),
    }
    let exit = Box::pin(async move {
        let code = exit.await.map_err(|_| Error::again("ExecError", "the pod's shim process ended".into()));
        drop(guard);
        code
    });
    match socket {
        Some(socket) => Ok(Terminal::session(receive(&socket).await.map_err(&wrong)?, spec.streams, exit).map_err(&wrong)?),
        None => Ok(ours.session(exit)),
    }
}

/// Attaches to a container.
///
/// # Errors
/// The container does not run.
pub async fn attach(shim: &Shim, id: &ContainerId, streams: Standard) -> Result<Session, Error> {
    let wrong = failed("AttachError");
    let Some(spec): Option<ContainerSpec> = shim.known.lock().get(id).cloned() else {
        return Err(Error::again("AttachError", format!("container {id} is not running")));
    };
    let (mut ours, mut theirs) = (Streams::default(), Vec::new());
    let (stdin, stdout, stderr) = (streams.stdin && spec.stdin, streams.stdout, streams.stderr && !spec.tty);
    ours.outputs([stdout, stderr], false, &mut theirs).map_err(&wrong)?;
    let (number, exit) = shim.sessions.open(Some(id.clone()));
    let guard = Guard { number, sessions: shim.sessions.clone(), program: None };
    let attach = Ask::Attach { container: id.clone(), stdin: stdin || spec.tty, stdout, stderr };
    let mut fds = match tokio::time::timeout(PATIENCE, shim.connection.ask_for(attach, theirs)).await {
        Ok(Some(answer)) => answer.map_err(Error::from)?.1,
        _ => return Err(Error::again("AttachError", "the pod's shim process ended".into())),
    };
    let exit = Box::pin(async move {
        let code = exit.await.map_err(|_| Error::again("AttachError", "the pod's shim process ended".into()));
        drop(guard);
        code
    });
    let mut session = ours.session(exit);
    match fds.pop() {
        Some(terminal) if spec.tty => {
            let terminal = Arc::new(Terminal::new(terminal).map_err(&wrong)?);
            session.stdin = stdin.then(|| Box::new(Typing(terminal.clone())) as _);
            session.resize = Some(terminal);
        }
        Some(input) if stdin => {
            let pipe = pipe::Sender::from_owned_fd(input).map_err(&wrong)?;
            let last = spec.stdin_once.then(|| Last { connection: shim.connection.clone(), container: id.clone() });
            session.stdin = Some(Box::new(Input { pipe: Some(pipe), last }));
        }
        _ => {}
    }
    Ok(session)
}

/// Our ends of pipes.
#[derive(Default)]
struct Streams {
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

impl Streams {
    /// Makes those for output and error; a program expects blocking ones.
    fn outputs(&mut self, held: [bool; 2], blocking: bool, theirs: &mut Vec<Arc<OwnedFd>>) -> io::Result<()> {
        for (held, end) in held.into_iter().zip([&mut self.stdout, &mut self.stderr]) {
            if held {
                let (sender, receiver) = pipe::pipe()?;
                *end = Some(receiver);
                theirs.push(Arc::new(if blocking { sender.into_blocking_fd()? } else { sender.into_nonblocking_fd()? }));
            }
        }
        Ok(())
    }

    fn session(self, exit: coracle_runtime::exec::Exit) -> Session {
        let stdin = self.stdin.map(|pipe| Box::new(Input { pipe: Some(pipe), last: None }) as _);
        Session {
            stdin,
            stdout: self.stdout.map(|pipe| Box::new(pipe) as _),
            stderr: self.stderr.map(|pipe| Box::new(pipe) as _),
            resize: None,
            exit,
        }
    }
}

/// With this attachment the container's input ends (`stdinOnce`).
struct Last {
    connection: Arc<Connection>,
    container: ContainerId,
}

impl Drop for Last {
    fn drop(&mut self) {
        let (connection, container) = (self.connection.clone(), std::mem::take(&mut self.container));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { ask(&connection, Ask::CloseInput(container), PATIENCE).await });
        }
    }
}

/// A pipe whose end is said by closing it.
struct Input {
    pipe: Option<pipe::Sender>,
    last: Option<Last>,
}

impl AsyncWrite for Input {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.pipe {
            Some(pipe) => Pin::new(pipe).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe = None;
        self.last = None;
        Poll::Ready(Ok(()))
    }
}

/// The end of a terminal that its user holds.
struct Terminal(AsyncFd<File>);

impl Terminal {
    #[allow(unsafe_code, reason = "tokio wants the promise that the descriptor stays the same")]
    fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // SAFETY: the file owns its descriptor, is never replaced, and is owned by the AsyncFd in turn.
        Ok(Self(unsafe { AsyncFd::register(File::from(fd)) }?))
    }

    fn session(fd: OwnedFd, streams: Standard, exit: coracle_runtime::exec::Exit) -> io::Result<Session> {
        let terminal = Arc::new(Self::new(fd)?);
        Ok(Session {
            stdin: streams.stdin.then(|| Box::new(Typing(terminal.clone())) as _),
            stdout: streams.stdout.then(|| Box::new(Screen(terminal.clone())) as _),
            stderr: None,
            resize: Some(terminal),
            exit,
        })
    }
}

impl Resize for Terminal {
    #[allow(unsafe_code, reason = "ioctl")]
    fn resize(&self, width: u16, height: u16) {
        let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the call reads one struct, which lives long enough.
        _ = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }
}

/// What is typed.
struct Typing(Arc<Terminal>);

impl AsyncWrite for Typing {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.0.poll_write_ready(context))?;
            if let Ok(written) = guard.try_io(|terminal| terminal.get_ref().write(bytes)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What is shown.
struct Screen(Arc<Terminal>);

impl AsyncRead for Screen {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.0.poll_read_ready(context))?;
            let bytes = buffer.initialize_unfilled();
            match guard.try_io(|terminal| terminal.get_ref().read(bytes)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has it open on the other side any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

/// The descriptor that comes over a socket.
async fn receive(socket: &tokio::net::UnixStream) -> io::Result<OwnedFd> {
    loop {
        socket.readable().await?;
        let received = socket.try_io(tokio::io::Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 64];
            let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            Ok((fd, got.bytes))
        });
        match received {
            Ok((Some(fd), _)) => return Ok(fd),
            Ok((None, _)) => return Err(io::Error::other("the program gave no terminal")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
