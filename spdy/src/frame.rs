//! Frames (SPDY/3, 2.2): what comes on the wire, and what is put there.

use crate::{
    Error,
    headers::{Headers, Packer, Unpacker},
    wrong,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest control frame, bytes; a data frame may have the 16 MiB of the protocol, for it is handed on in parts.
const MAX_CONTROL: usize = 64 << 10;
/// Largest part of a data frame that is handed on, or written.
pub const PIECE: usize = 16 << 10;
const HEAD: usize = 8;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
const VERSION: u16 = 3;
/// The setting that is the window of new streams.
const INITIAL_WINDOW: u32 = 7;

/// Why a stream is reset (2.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub enum Status {
    ProtocolError = 1,
    InvalidStream = 2,
    Refused = 3,
    Cancel = 5,
    FlowControl = 7,
}

/// One frame, or a part of a data frame. Stream ids have 31 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// Odd from clients.
        stream: u32,
        /// Its headers.
        headers: Headers,
        /// The sender will send nothing on it.
        fin: bool,
        /// The receiver must send nothing on it.
        unidirectional: bool,
    },
    /// Accepts one.
    SynReply {
        /// Which.
        stream: u32,
        /// Headers of the answer.
        headers: Headers,
        /// The sender will send nothing on it.
        fin: bool,
    },
    /// Ends a stream in both directions.
    Reset {
        /// Which.
        stream: u32,
        /// A [`Status`], or another number.
        status: u32,
    },
    /// Settings; of them only this one means anything here.
    Settings {
        /// The window of each stream, bytes.
        initial_window: Option<u32>,
    },
    /// To be sent back by who did not choose it: clients choose odd ones.
    Ping(u32),
    /// No more streams are taken.
    GoAway {
        /// The last one that was.
        last: u32,
        /// 0: all is well.
        status: u32,
    },
    /// More headers of an open stream.
    Headers {
        /// Which.
        stream: u32,
        /// The headers.
        headers: Headers,
        /// The sender will send nothing more on it.
        fin: bool,
    },
    /// The stream may carry so many more bytes.
    WindowUpdate {
        /// Which.
        stream: u32,
        /// Bytes.
        delta: u32,
    },
    /// A data frame, or a part of one.
    Data {
        /// Which.
        stream: u32,
        /// At most [`PIECE`].
        payload: Bytes,
        /// The sender will send nothing more on it.
        fin: bool,
    },
}

/// Reads frames.
#[derive(Default)]
pub struct Decoder {
    headers: Unpacker,
    /// A data frame under way: stream, bytes to come, and whether it is the last.
    data: Option<(u32, usize, bool)>,
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Error> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        Some(word) => Ok(u32::from_be_bytes(*word)),
        None => wrong("a control frame is too short"),
    }
}

impl Decoder {
    /// Takes one frame off the front of `buffer`; `None` when more bytes are needed. Holds at most one control frame back.
    ///
    /// # Errors
    /// What is no SPDY/3.1. The connection is of no use then.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Error> {
        loop {
            if let Some((stream, left, last)) = self.data {
                if buffer.is_empty() && left > 0 {
                    return Ok(None);
                }
                let payload = buffer.split_to(left.min(buffer.len()).min(PIECE)).freeze();
                let left = left - payload.len();
                self.data = (left > 0).then_some((stream, left, last));
                return Ok(Some(Frame::Data { stream, payload, fin: last && left == 0 }));
            }
            let Some(head) = buffer.first_chunk::<HEAD>() else { return Ok(None) };
            let (first, flags, length) = (word(head, 0)?, head[4], (word(head, 4)? & 0xff_ffff) as usize);
            if first >> 31 == 0 {
                if first == 0 {
                    return wrong("data on stream 0");
                }
                buffer.advance(HEAD);
                self.data = Some((first, length, flags & FIN != 0));
                continue;
            }
            let (version, kind) = ((first >> 16 & 0x7fff) as u16, first & 0xffff);
            if version != VERSION {
                return wrong(format!("a frame of SPDY version {version}; only {VERSION} is spoken here"));
            }
            if length > MAX_CONTROL {
                return wrong(format!("a control frame of {length} bytes; the limit is {MAX_CONTROL}"));
            }
            if buffer.len() < HEAD + length {
                return Ok(None);
            }
            buffer.advance(HEAD);
            let body = buffer.split_to(length);
            if let Some(frame) = self.control(kind, flags, &body)? {
                return Ok(Some(frame));
            }
        }
    }

    /// `None` for kinds that are to be passed over.
    fn control(&mut self, kind: u32, flags: u8, body: &[u8]) -> Result<Option<Frame>, Error> {
        let stream = || match word(body, 0)? & 0x7fff_ffff {
            0 => wrong("a frame about stream 0"),
            stream => Ok(stream),
        };
        let fin = flags & FIN != 0;
        let exactly = |length| if body.len() == length { Ok(()) } else { wrong("a control frame of another length than its kind has") };
        Ok(Some(match kind {
            1 => {
                let (stream, unidirectional) = (stream()?, flags & UNIDIRECTIONAL != 0);
                let Some(block) = body.get(10..) else { return wrong("a control frame is too short") };
                Frame::SynStream { stream, headers: self.headers.unpack(block)?, fin, unidirectional }
            }
            2 => Frame::SynReply { stream: stream()?, headers: self.headers.unpack(body.get(4..).unwrap_or_default())?, fin },
            3 => {
                exactly(8)?;
                Frame::Reset { stream: stream()?, status: word(body, 4)? }
            }
            4 => {
                let entries = word(body, 0)? as usize;
                let pairs = body.get(4..).unwrap_or_default();
                if pairs.len() % 8 != 0 || pairs.len() / 8 != entries {
                    return wrong("a settings frame of another length than it says");
                }
                let of = |pair: &[u8]| Some((word(pair, 0).ok()? & 0xff_ffff, word(pair, 4).ok()?));
                let mut windows = pairs.chunks_exact(8).filter_map(of).filter(|(id, _)| *id == INITIAL_WINDOW);
                Frame::Settings { initial_window: windows.next_back().map(|(_, window)| window & 0x7fff_ffff) }
            }
            6 => {
                exactly(4)?;
                Frame::Ping(word(body, 0)?)
            }
            7 => {
                exactly(8)?;
                Frame::GoAway { last: word(body, 0)? & 0x7fff_ffff, status: word(body, 4)? }
            }
            8 => Frame::Headers { stream: stream()?, headers: self.headers.unpack(body.get(4..).unwrap_or_default())?, fin },
            9 => {
                exactly(8)?;
                match word(body, 4)? & 0x7fff_ffff {
                    0 => return wrong("a window that grows by nothing"),
                    delta => Frame::WindowUpdate { stream: stream()?, delta },
                }
            }
            _ => return Ok(None),
        }))
    }
}

/// Writes frames.
#[derive(Default)]
pub struct Encoder {
    headers: Packer,
}

fn head(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

impl Encoder {
    /// Appends one frame.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { stream, headers, fin, unidirectional } => {
                let block = self.headers.pack(headers);
                head(out, 1, u8::from(*fin) | u8::from(*unidirectional) << 1, block.len() + 10);
                out.put_u32(*stream);
                // Associated with none, of the highest priority.
                out.put_slice(&[0; 6]);
                out.put_slice(&block);
            }
            Frame::SynReply { stream, headers, fin } | Frame::Headers { stream, headers, fin } => {
                let block = self.headers.pack(headers);
                let kind = if matches!(frame, Frame::SynReply { .. }) { 2 } else { 8 };
                head(out, kind, u8::from(*fin), block.len() + 4);
                out.put_u32(*stream);
                out.put_slice(&block);
            }
            Frame::Settings { initial_window } => {
                head(out, 4, 0, 4 + initial_window.map_or(0, |_| 8));
                out.put_u32(u32::from(initial_window.is_some()));
                if let Some(window) = initial_window {
                    out.put_u32(INITIAL_WINDOW);
                    out.put_u32(*window);
                }
            }
            Frame::Ping(id) => {
                head(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Frame::Reset { stream: one, status: two }
            | Frame::GoAway { last: one, status: two }
            | Frame::WindowUpdate { stream: one, delta: two } => {
                let kind = match frame {
                    Frame::Reset { .. } => 3,
                    Frame::GoAway { .. } => 7,
                    _ => 9,
                };
                head(out, kind, 0, 8);
                out.put_u32(*one);
                out.put_u32(*two);
            }
            Frame::Data { stream, payload, fin } => {
                out.put_u32(*stream);
                out.put_u32(u32::from(*fin) << 24 | payload.len() as u32);
                out.put_slice(payload);
            }
        }
    }
}

#[cfg(test)]
mod tests;
