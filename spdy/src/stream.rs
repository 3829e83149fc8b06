//! One stream, as bytes.

use crate::{
    connection::Shared,
    frame::{Frame, PIECE},
};
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::PollSender;

/// Bytes that are read before the other side is told that it may send as many more.
const GRANT: u32 = 32 << 10;

/// What the connection tells a stream.
pub(crate) struct Cell(Mutex<Flow>);

struct Flow {
    /// How much may be sent in all; none: the other side keeps to no windows.
    granted: Option<u64>,
    sent: u64,
    reset: bool,
    writer: Option<Waker>,
}

impl Cell {
    pub fn new(granted: Option<u64>) -> Self {
        Self(Mutex::new(Flow { granted, sent: 0, reset: false, writer: None }))
    }

    fn change(&self, change: impl FnOnce(&mut Flow)) {
        let writer = {
            let mut flow = self.0.lock();
            change(&mut flow);
            flow.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Nothing goes either way any more.
    pub fn reset(&self) {
        self.change(|flow| flow.reset = true);
    }

    /// So much more may be sent than the first window.
    pub fn grow(&self, first: u64, delta: u64) {
        self.change(|flow| flow.granted = Some(flow.granted.unwrap_or(first).saturating_add(delta)));
    }

    /// The first window is another.
    pub fn shift(&self, before: u64, now: u64) {
        self.change(|flow| flow.granted = Some((flow.granted.unwrap_or(before) + now).saturating_sub(before)));
    }

    /// How much may be sent now; pending while it is nothing.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let mut flow = self.0.lock();
        if flow.reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match flow.granted.map_or(u64::MAX, |granted| granted.saturating_sub(flow.sent)) {
            0 => {
                flow.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(Ok(usize::try_from(room).unwrap_or(usize::MAX))),
        }
    }
}

/// Both directions of a stream. Shutting it down half-closes it; dropping it, if the other side still writes, resets it.
pub struct Stream {
    id: u32,
    inbound: mpsc::Receiver<Bytes>,
    rest: Bytes,
    /// Read since the last word about windows.
    read: u32,
    outbound: PollSender<Frame>,
    cell: Arc<Cell>,
    finished: bool,
    shared: Arc<Shared>,
}

impl Stream {
    pub(crate) fn new(id: u32, inbound: mpsc::Receiver<Bytes>, cell: Arc<Cell>, finished: bool, shared: Arc<Shared>) -> Self {
        Self { id, inbound, rest: Bytes::new(), read: 0, outbound: PollSender::new(shared.data.clone()), cell, finished, shared }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The next bytes as they came, without a copy; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        if !self.rest.is_empty() {
            return Some(std::mem::take(&mut self.rest));
        }
        let piece = self.inbound.recv().await;
        self.taken(piece.as_ref().map_or(0, Bytes::len));
        piece
    }

    fn taken(&mut self, bytes: usize) {
        self.read += bytes as u32;
        // Where there is no room for the word it comes with the next bytes.
        if self.read >= GRANT && self.shared.answers.try_send(Frame::WindowUpdate { stream: self.id, delta: self.read }).is_ok() {
            self.read = 0;
        }
    }
}

fn gone<E>(_: E) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.inbound.poll_recv(cx)) {
                Some(piece) => {
                    self.taken(piece.len());
                    self.rest = piece;
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(self.rest.get(..length).unwrap_or_default());
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = ready!(self.cell.poll_room(cx))?;
        ready!(self.outbound.poll_reserve(cx)).map_err(gone)?;
        let length = buf.len().min(room).min(PIECE);
        let (stream, payload) = (self.id, Bytes::copy_from_slice(buf.get(..length).unwrap_or_default()));
        self.outbound.send_item(Frame::Data { stream, payload, fin: false }).map_err(gone)?;
        self.cell.0.lock().sent += length as u64;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        ready!(self.outbound.poll_reserve(cx)).map_err(gone)?;
        let stream = self.id;
        self.outbound.send_item(Frame::Data { stream, payload: Bytes::new(), fin: true }).map_err(gone)?;
        self.finished = true;
        self.shared.finished(stream, false);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.finished(self.id, true);
    }
}
