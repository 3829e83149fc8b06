//! The agent and the supervisor: found or started, greeted, listened to, replaced.

use super::{Shared, failed};
use crate::{
    supervisor::SOCKET,
    wire::{Answer, Ask, Happened, Listed, ListedContainer, Page, VERSION},
};
use coracle_runtime::{Error, Event, SandboxId, State, log, wire};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    pin::Pin,
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};

/// To the supervisor.
pub type Connection = wire::connection::Connection<Ask, Answer>;
/// Before connecting again to a supervisor that cut us off, or did not answer; doubled each time.
const RECONNECT: Duration = Duration::from_millis(500);
const RECONNECT_AT_MOST: Duration = Duration::from_secs(30);

/// What was killed is gone within so many seconds.
const ENDING: i64 = 10;

/// A supervisor that was greeted.
pub struct Contact {
    /// To it.
    pub connection: Arc<Connection>,
    /// How many hosts it has.
    pub hosts: usize,
    /// Its process.
    pub pid: i32,
}

impl Contact {
    /// Asks it to end, with everything that runs; kills it where it does not.
    pub async fn end(&self, patience: Duration) {
        // The answer is the end of the connection.
        if timeout(patience, self.connection.ask(Ask::Shutdown, Vec::new())).await.is_err() {
            self.connection.dismiss();
            end_process(self.pid).await;
        }
    }
}

/// Kills a supervisor, and waits until it is gone; its hosts go with it.
async fn end_process(pid: i32) {
    let Some(process) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return };
    // After the process is held: the number may have been given away since.
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if words.split(|byte| *byte == 0).nth(1) != Some(crate::SUPERVISOR.as_bytes()) || pidfd_send_signal(&process, Signal::KILL).is_err() {
        return;
    }
    let bound = Timespec { tv_sec: ENDING, tv_nsec: 0 };
    // Readable once it has ended.
    let ended = move || poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&bound)).is_ok_and(|ready| ready > 0);
    if !tokio::task::spawn_blocking(ended).await.unwrap_or(false) {
        tracing::warn!(pid, "the wasm supervisor was killed and is still there");
    }
}

/// It did not answer.
pub fn silent(patience: Duration) -> Error {
    let message =
        format!("the wasm supervisor did not answer within {patience:?}; it is connected again, and replaced if it does not answer then either");
    Error::again("RunContainerError", message)
}

/// Everything that is there, page by page. `None` when the supervisor is gone, or is not understood.
pub async fn list(connection: &Connection) -> Option<Vec<Listed>> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let Ok(Answer::List(Page { items, next })) = connection.ask(Ask::List(after), Vec::new()).await? else { return None };
        all.extend(items);
        after = Some(match next {
            Some(next) => next,
            None => return Some(all),
        });
    }
}

impl Shared {
    /// Takes over a running supervisor, unless another task has connected meanwhile; what it runs. None: there is none that could be talked with.
    pub async fn adopt(self: Arc<Self>, stream: UnixStream) -> Result<Option<Vec<Listed>>, Error> {
        let mut held = self.contact.lock().await;
        if held.as_ref().is_none_or(|contact| contact.connection.is_lost()) {
            *held = self.greet(stream).await?;
        }
        match &*held {
            Some(contact) => self.learn(&contact.connection).await.map(Some),
            None => Ok(None),
        }
    }

    /// Greets a supervisor and listens to it from then on. None when it cannot be talked with; it is ended then.
    async fn greet(self: &Arc<Self>, stream: UnixStream) -> Result<Option<Contact>, Error> {
        let patience = self.options.patience;
        let pid = getsockopt(&stream, PeerCredentials).map_err(|error| failed("using", &self.run_dir, &error))?.pid();
        stream.set_nonblocking(true).map_err(|error| failed("using", &self.run_dir, &error))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let connection = Connection::new(stream.into(), sender).map_err(|error| failed("using", &self.run_dir, &error))?;
        let hello = match timeout(patience, connection.ask(Ask::Hello { version: VERSION }, Vec::new())).await {
            Ok(hello) => hello,
            Err(_) => {
                tracing::warn!(pid, ?patience, "the wasm supervisor found here does not answer: it is killed, its pods start anew");
                connection.dismiss();
                end_process(pid).await;
                return Ok(None);
            }
        };
        let Some(Ok(Answer::Hello { version, hosts, pid, engine, group })) = hello else { return Ok(None) };
        let contact = Contact { connection, hosts, pid };
        let ours = self.artifacts.engine();
        if (version, engine.as_str()) != (VERSION, ours) {
            // Its hosts could load nothing that is compiled from now on: no pod of theirs could be restarted, and none be added.
            tracing::warn!(
                pid,
                version,
                engine,
                ours,
                "the wasm supervisor found here is of another build, with another protocol or engine: it is ended, its pods start anew"
            );
            contact.end(patience).await;
            return Ok(None);
        }
        if let Err(why) = group {
            tracing::warn!(pid, why, "the wasm hosts are in no control group");
        }
        self.learn(&contact.connection).await.inspect_err(|_| contact.connection.dismiss())?;
        tokio::spawn(self.clone().follow(contact.connection.clone(), receiver));
        Ok(Some(contact))
    }

    /// Asks what is there, and remembers it.
    pub async fn learn(&self, connection: &Connection) -> Result<Vec<Listed>, Error> {
        let patience = self.options.patience;
        let Ok(list) = timeout(patience, list(connection)).await else {
            connection.give_up();
            return Err(silent(patience));
        };
        let list = list.ok_or_else(|| {
            Error::again(
                "ListError",
                "the wasm supervisor cut the connection instead of listing its pods; see supervisor.log in its run directory".to_owned(),
            )
        })?;
        for item in &list {
            match item {
                Listed::Sandbox(spec) => _ = self.sandboxes.lock().insert(spec.pod.uid.clone(), spec.ip),
                Listed::Container(container) => _ = self.known.lock().insert(container.status.id.clone(), (**container).clone()),
            }
        }
        self.weigh();
        Ok(list)
    }

    /// Turns what the supervisor says into events, until it is gone.
    /// (Boxed, since it may connect again, which begins another of its kind.)
    fn follow(self: Arc<Self>, connection: Arc<Connection>, happened: mpsc::UnboundedReceiver<Happened>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.follow_on(connection, happened))
    }

    async fn follow_on(self: Arc<Self>, connection: Arc<Connection>, mut happened: mpsc::UnboundedReceiver<Happened>) {
        let began = tokio::time::Instant::now();
        while let Some(happened) = happened.recv().await {
            match happened {
                Happened::Superseded => return,
                Happened::State { container, state } => {
                    let Some((sandbox, status)) = self.known.lock().get_mut(&container).map(|known| {
                        known.status.state = state;
                        (known.sandbox.clone(), known.status.clone())
                    }) else {
                        continue;
                    };
                    self.weigh();
                    _ = self.events.send(Event::Container { sandbox, status });
                }
                Happened::Notice { container, warning, reason, message } => {
                    let Some(ListedContainer { sandbox, status, .. }) = self.known.lock().get(&container).cloned() else { continue };
                    let kind = if warning { "Warning" } else { "Normal" };
                    _ = self.events.send(Event::Notice { sandbox, container: status.name, kind, reason, message });
                }
                Happened::LogFull(container) => {
                    let Some(ListedContainer { log, .. }) = self.known.lock().get(&container).cloned() else { continue };
                    match log::rotate(&log.path, log.max_bytes, log.max_files) {
                        Ok(file) => _ = connection.ask(Ask::Log(container), vec![Arc::new(file.into())]).await,
                        Err(error) => tracing::warn!(container, %error, "a log could not be rotated"),
                    }
                }
            }
        }
        // The channel ends with the connection.
        if connection.is_dismissed() {
            return;
        }
        // Either it cut us off (out of descriptors, most likely) and goes on, or it is gone with everything that ran.
        let mut pause = RECONNECT;
        if began.elapsed() < RECONNECT * 4 {
            // Connecting again at once would only be cut off again.
            tokio::time::sleep(pause).await;
        }
        let before: Vec<SandboxId> = self.sandboxes.lock().keys().cloned().collect();
        self.known.lock().clear();
        let found = loop {
            let Ok(stream) = UnixStream::connect(self.run_dir.join(SOCKET)) else { break Vec::new() };
            match self.clone().adopt(stream).await {
                Ok(found) => break found.unwrap_or_default(),
                // It is there and runs its pods: they are not said to be lost because it cannot be heard just now.
                Err(error) => tracing::warn!(%error, ?pause, "the wasm supervisor is there but does not answer; it is asked again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_AT_MOST);
        };
        let mut there = HashSet::new();
        for item in &found {
            match item {
                Listed::Sandbox(spec) => _ = there.insert(spec.pod.uid.as_str()),
                // What was said meanwhile is lost: the states are told again.
                Listed::Container(container) => {
                    _ = self.events.send(Event::Container { sandbox: container.sandbox.clone(), status: container.status.clone() });
                }
            }
        }
        for sandbox in before.into_iter().filter(|id| !there.contains(id.as_str())) {
            self.sandboxes.lock().remove(&sandbox);
            let message = "the wasm supervisor process ended and its pods with it".to_owned();
            _ = self.events.send(Event::SandboxLost { sandbox, message });
        }
    }

    /// The connection, made or made anew if need be; and the number of hosts.
    pub async fn connection(self: &Arc<Self>) -> Result<(Arc<Connection>, usize), Error> {
        let mut held = self.contact.lock().await;
        if let Some(contact) = held.as_ref().filter(|contact| !contact.connection.is_lost()) {
            return Ok((contact.connection.clone(), contact.hosts));
        }
        let socket = self.run_dir.join(SOCKET);
        let mut found = match UnixStream::connect(&socket) {
            Ok(stream) => self.greet(stream).await?,
            Err(_) => None,
        };
        if found.is_none() {
            self.spawn_supervisor(&socket)?;
            let stream = UnixStream::connect(&socket).map_err(|error| failed("connecting to", &socket, &error))?;
            found = self.greet(stream).await?;
        }
        let contact =
            found.ok_or_else(|| failed("talking to the wasm supervisor on", &socket, &"it ended at once; see supervisor.log beside the socket"))?;
        let found = (contact.connection.clone(), contact.hosts);
        *held = Some(contact);
        Ok(found)
    }

    /// Hangs up on a supervisor that does not answer, as if it had: it is connected again.
    pub async fn give_up(&self) {
        if let Some(contact) = &*self.contact.lock().await {
            contact.connection.give_up();
        }
    }

    /// Tells the control group what its pods request.
    pub fn weigh(&self) {
        let Some(group) = &self.group else { return };
        let known = self.known.lock();
        let running = known.values().filter(|container| !matches!(container.status.state, State::Exited { .. }));
        group.weigh(running.filter_map(|container| container.cpu_request_millis).sum());
    }

    fn spawn_supervisor(&self, socket: &Path) -> Result<(), Error> {
        if let Err(error) = fs::remove_file(socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed("removing", socket, &error));
        }
        let listener = UnixListener::bind(socket).map_err(|error| failed("listening on", socket, &error))?;
        let log = self.run_dir.join("supervisor.log");
        let file = File::create(&log).map_err(|error| failed("writing", &log, &error))?;
        let errors = file.try_clone().map_err(|error| failed("writing", &log, &error))?;
        let mut command = tokio::process::Command::new(&self.options.exe);
        command.arg(crate::SUPERVISOR).arg(&self.run_dir).arg(self.options.hosts.to_string()).arg(self.artifacts.engine());
        command.args(crate::place(self.group.as_ref().map(|group| group.path.as_path()), self.options.drop_to));
        command.env_clear().stdin(Stdio::from(OwnedFd::from(listener))).stdout(file).stderr(errors);
        let mut child = command.spawn().map_err(|error| failed("starting", &self.options.exe, &error))?;
        // Reaped if it ends before us; otherwise it stays.
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }
}
