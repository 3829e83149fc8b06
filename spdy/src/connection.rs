//! Streams over one connection.
//!
//! [`Connection::run`] is the only thing that reads and writes; it ends with the connection, and everything about it ends when it is dropped. What a stream's owner has not read yet is
//! bounded; beyond that the connection is not read, since clients honour no window. Reading and writing wait for each other only where a peer asks for answers that it does not take.

use crate::{
    Error, Headers,
    frame::{Decoder, Encoder, Frame, PIECE, Status},
    stream::{Cell, Stream},
    wrong,
};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::{collections::HashMap, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{Notify, mpsc},
};

/// Pieces of one stream that wait for its owner: 256 KiB.
const WAITING: usize = 256 * 1024 / PIECE;
/// Pieces of all streams that wait to be written.
const QUEUE: usize = 16;
/// Answers (pings, resets, windows) that wait to be written.
const ANSWERS: usize = 256;
/// New streams that wait to be taken.
const BACKLOG: usize = 16;
/// Bytes written at once, about.
const BATCH: usize = 64 << 10;
/// The window that SPDY/3.1 begins with, for peers that keep to windows.
const WINDOW: u64 = 64 << 10;

/// What streams share.
pub(crate) struct Shared {
    pub table: Mutex<Table>,
    /// Of dropped streams that the other side still writes to.
    resets: Mutex<Vec<u32>>,
    dropped: Notify,
    pub answers: mpsc::Sender<Frame>,
    pub data: mpsc::Sender<Frame>,
}

#[derive(Default)]
pub(crate) struct Table {
    streams: HashMap<u32, Entry>,
    /// Set by a peer that keeps to windows.
    window: Option<u64>,
    last: u32,
}

struct Entry {
    /// Gone when the other side has said its last.
    inbound: Option<mpsc::Sender<Bytes>>,
    /// We may still write.
    open: bool,
    cell: Arc<Cell>,
}

impl Shared {
    /// We have said our last on a stream, or do not care for it any more.
    pub fn finished(&self, id: u32, dropped: bool) {
        let mut table = self.table.lock();
        let Some(entry) = table.streams.get_mut(&id) else { return };
        entry.open = false;
        if entry.inbound.is_none() {
            table.streams.remove(&id);
        } else if dropped {
            drop(table);
            self.resets.lock().push(id);
            self.dropped.notify_one();
        }
    }
}

/// A stream that the other side wants.
pub struct Incoming {
    stream: Stream,
    headers: Headers,
}

impl Incoming {
    /// Its headers.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.stream.id()
    }

    /// Takes it. Dropping an [`Incoming`] refuses it.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn accept(self) -> Result<Stream, Error> {
        let reply = Frame::SynReply { stream: self.stream.id(), headers: Headers::default(), fin: false };
        match self.stream.shared().answers.send(reply).await {
            Ok(()) => Ok(self.stream),
            Err(_) => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        }
    }
}

/// Streams that the other side opens.
pub struct Accept {
    incoming: mpsc::Receiver<Incoming>,
    shared: Arc<Shared>,
}

impl Accept {
    /// The next one; `None` when the connection is over.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Says that no more is to come, once what was written is on its way: the connection ends then.
    pub async fn close(&self) {
        let last = self.shared.table.lock().last;
        // An error means that it has ended already.
        _ = self.shared.data.send(Frame::GoAway { last, status: 0 }).await;
    }
}

/// Opens streams, on the client's side.
pub struct Opener(Arc<Shared>);

impl Opener {
    /// A new stream. What is written goes out at once; a refusal shows when it is read.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let stream = {
            let mut table = self.0.table.lock();
            let id = if table.last == 0 { 1 } else { table.last + 2 };
            table.enter(id, false, false, &self.0)
        };
        let syn = Frame::SynStream { stream: stream.id(), headers, fin: false, unidirectional: false };
        match self.0.data.send(syn).await {
            Ok(()) => Ok(stream),
            Err(_) => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        }
    }
}

impl Table {
    fn enter(&mut self, id: u32, fin: bool, mute: bool, shared: &Arc<Shared>) -> Stream {
        let (sender, inbound) = mpsc::channel(WAITING);
        let cell = Arc::new(Cell::new(self.window));
        self.last = id;
        self.streams.insert(id, Entry { inbound: (!fin).then_some(sender), open: !mute, cell: cell.clone() });
        Stream::new(id, inbound, cell, mute, shared.clone())
    }
}

/// See the module.
pub struct Connection<T> {
    io: T,
    shared: Arc<Shared>,
    answers: mpsc::Receiver<Frame>,
    data: mpsc::Receiver<Frame>,
    reader: Reader,
    alive: Duration,
}

struct Reader {
    shared: Arc<Shared>,
    /// None for a client, which takes no streams.
    incoming: Option<mpsc::Sender<Incoming>>,
    streams: usize,
}

fn connection<T>(io: T, incoming: Option<mpsc::Sender<Incoming>>, streams: usize, alive: Duration) -> Connection<T> {
    let ((answer, answers), (sender, data)) = (mpsc::channel(ANSWERS), mpsc::channel(QUEUE));
    let shared = Arc::new(Shared { table: Mutex::default(), resets: Mutex::default(), dropped: Notify::new(), answers: answer, data: sender });
    Connection { io, shared: shared.clone(), answers, data, reader: Reader { shared, incoming, streams }, alive }
}

/// The side that streams are opened to, at most so many at once. Every `alive` the other side is asked whether it is there: a connection that is gone fails then.
pub fn server<T: AsyncRead + AsyncWrite>(io: T, streams: usize, alive: Duration) -> (Connection<T>, Accept) {
    let (sender, incoming) = mpsc::channel(BACKLOG);
    let connection = connection(io, Some(sender), streams, alive);
    let shared = connection.shared.clone();
    (connection, Accept { incoming, shared })
}

/// The side that opens them.
pub fn client<T: AsyncRead + AsyncWrite>(io: T) -> (Connection<T>, Opener) {
    let connection = connection(io, None, 0, Duration::from_secs(3600));
    let shared = connection.shared.clone();
    (connection, Opener(shared))
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Serves until either side ends it. What it ran on comes back: where this side ended it, its writing half is shut down, and the other side may be in the middle of a word.
    ///
    /// # Errors
    /// The other side does not speak SPDY/3.1, or is gone.
    pub async fn run(self) -> Result<T, Error> {
        let Self { io, shared, answers, data, reader, alive } = self;
        let (mut read, mut write) = tokio::io::split(io);
        let done = tokio::select! {
            done = reader.run(&mut read) => done,
            done = written(&mut write, &shared, answers, data, alive) => done,
        };
        // Everybody who waits for something learns that it will not come.
        let streams = std::mem::take(&mut shared.table.lock().streams);
        streams.values().for_each(|entry| entry.cell.reset());
        done.map(|()| read.unsplit(write))
    }
}

async fn written<T: AsyncWrite>(
    io: &mut WriteHalf<T>,
    shared: &Shared,
    mut answers: mpsc::Receiver<Frame>,
    mut data: mpsc::Receiver<Frame>,
    alive: Duration,
) -> Result<(), Error> {
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    let mut ping = 2_u32;
    loop {
        let first = tokio::select! {
            biased;
            answer = answers.recv() => answer,
            data = data.recv() => data,
            () = shared.dropped.notified() => None,
            () = tokio::time::sleep(alive) => {
                // A server's pings are even; nobody waits for the answer, only for that it can be sent.
                ping = ping.wrapping_add(2);
                Some(Frame::Ping(ping))
            }
        };
        let mut next = first;
        let mut over = false;
        while let Some(frame) = next {
            over |= matches!(frame, Frame::GoAway { .. });
            encoder.encode(&frame, &mut out);
            next = if out.len() < BATCH { answers.try_recv().ok().or_else(|| data.try_recv().ok()) } else { None };
        }
        if data.is_empty() {
            // After what the streams themselves have still sent.
            let resets = std::mem::take(&mut *shared.resets.lock());
            for stream in resets {
                if shared.table.lock().streams.remove(&stream).is_some() {
                    encoder.encode(&Frame::Reset { stream, status: Status::Cancel as u32 }, &mut out);
                }
            }
        } else if !shared.resets.lock().is_empty() {
            shared.dropped.notify_one();
        }
        io.write_all_buf(&mut out).await?;
        io.flush().await?;
        if over {
            io.shutdown().await?;
            return Ok(());
        }
    }
}

impl Reader {
    async fn run<T: AsyncRead>(mut self, io: &mut ReadHalf<T>) -> Result<(), Error> {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        loop {
            while let Some(frame) = decoder.decode(&mut buffer)? {
                self.take(frame).await?;
            }
            buffer.reserve(PIECE);
            if io.read_buf(&mut buffer).await? == 0 {
                return if buffer.is_empty() { Ok(()) } else { wrong("the connection ended within a frame") };
            }
        }
    }

    async fn answer(&self, frame: Frame) -> Result<(), Error> {
        self.shared.answers.send(frame).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe).into())
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Error> {
        match frame {
            Frame::SynStream { stream, headers, fin, unidirectional } => self.opened(stream, headers, fin, unidirectional).await,
            Frame::Data { stream, payload, fin } => self.data(stream, payload, fin).await,
            Frame::SynReply { stream, fin, .. } | Frame::Headers { stream, fin, .. } => {
                if fin {
                    self.ended(stream);
                }
                Ok(())
            }
            Frame::Reset { stream, .. } => {
                if let Some(entry) = self.shared.table.lock().streams.remove(&stream) {
                    entry.cell.reset();
                }
                Ok(())
            }
            Frame::Settings { initial_window } => {
                if let Some(window) = initial_window {
                    let mut table = self.shared.table.lock();
                    let before = table.window.replace(u64::from(window)).unwrap_or(WINDOW);
                    table.streams.values().for_each(|entry| entry.cell.shift(before, u64::from(window)));
                }
                Ok(())
            }
            Frame::WindowUpdate { stream, delta } => {
                let mut table = self.shared.table.lock();
                let begun = *table.window.get_or_insert(WINDOW);
                if let Some(entry) = table.streams.get(&stream) {
                    entry.cell.grow(begun, u64::from(delta));
                }
                Ok(())
            }
            // Ours are even.
            Frame::Ping(id) if (id % 2 == 1) == self.incoming.is_some() => self.answer(Frame::Ping(id)).await,
            // What is open is served to its end.
            Frame::Ping(_) | Frame::GoAway { .. } => Ok(()),
        }
    }

    async fn opened(&mut self, id: u32, headers: Headers, fin: bool, mute: bool) -> Result<(), Error> {
        let Some(incoming) = &self.incoming else { return wrong("a server opened a stream, which none may here") };
        let stream = {
            let mut table = self.shared.table.lock();
            if id.is_multiple_of(2) || id <= table.last {
                return wrong(format!("stream {id} after {}: a client's are odd and grow", table.last));
            }
            if table.streams.len() < self.streams {
                Some(table.enter(id, fin, mute, &self.shared))
            } else {
                table.last = id;
                None
            }
        };
        match stream {
            // When nobody takes streams any more, dropping it refuses it.
            Some(stream) => _ = incoming.send(Incoming { stream, headers }).await,
            None => self.answer(Frame::Reset { stream: id, status: Status::Refused as u32 }).await?,
        }
        Ok(())
    }

    async fn data(&self, id: u32, payload: Bytes, fin: bool) -> Result<(), Error> {
        let (known, inbound) = {
            let table = self.shared.table.lock();
            (id <= table.last, table.streams.get(&id).and_then(|entry| entry.inbound.clone()))
        };
        match inbound {
            // An error means that its owner has gone; the other side is being told.
            Some(inbound) if !payload.is_empty() => _ = inbound.send(payload).await,
            Some(_) => {}
            // On its way when the stream was reset.
            None if known => return Ok(()),
            None => return self.answer(Frame::Reset { stream: id, status: Status::InvalidStream as u32 }).await,
        }
        if fin {
            self.ended(id);
        }
        Ok(())
    }

    /// The other side has said its last.
    fn ended(&self, id: u32) {
        let mut table = self.shared.table.lock();
        let Some(entry) = table.streams.get_mut(&id) else { return };
        entry.inbound = None;
        if !entry.open {
            table.streams.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
