//! Frames: where a message ends on a byte stream, and whether it arrived whole.
//!
//! `version: u8 | length: u32 | crc32c: u32 | payload`, big endian; the checksum covers version, length and payload. QUIC already
//! protects packets; the checksum is for what stands before and after it (memory, a relay, a disk) and costs nothing beside TLS.
//! tokio-util's LengthDelimitedCodec was not taken: it has neither version nor checksum, and keeps an 8 KiB buffer a direction.

use crate::{Error, RecvHalf, SendHalf, Stream};
use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest payload of one frame, bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;
const VERSION: u8 = 1;
const HEADER: usize = 9;
/// What an idle reader keeps.
const READ_STEP: usize = 4096;

fn header(payload: &[u8]) -> [u8; HEADER] {
    let mut head = [0u8; HEADER];
    head[0] = VERSION;
    head[1..5].copy_from_slice(&(payload.len() as u32).to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..5]), payload);
    head[5..].copy_from_slice(&crc.to_be_bytes());
    head
}

/// Takes one whole frame off the front of `buffer`; `None` when more bytes are needed (and room for them is reserved).
///
/// # Errors
/// Another version, a length above [`MAX_PAYLOAD`], a wrong checksum.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Bytes>, Error> {
    let Some((head, rest)) = buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [version, l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    if version != VERSION {
        return Err(Error::Protocol(format!("frame of version {version}; this side speaks version {VERSION}: upgrade the older side")));
    }
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_PAYLOAD {
        return Err(Error::Protocol(format!("frame of {length} bytes; the limit is {MAX_PAYLOAD}")));
    }
    let Some(payload) = rest.get(..length) else {
        let missing = length - rest.len();
        buffer.reserve(missing);
        return Ok(None);
    };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..5]), payload);
    if crc != u32::from_be_bytes([c0, c1, c2, c3]) {
        return Err(Error::Protocol(format!("frame of {length} bytes has a wrong checksum")));
    }
    buffer.advance(HEADER);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Writes frames to any byte sink.
pub struct Writer<W> {
    to: W,
}

impl<W: AsyncWrite + Unpin + Send> Writer<W> {
    /// Frames onto `to`.
    pub fn new(to: W) -> Self {
        Self { to }
    }

    /// The sink.
    pub fn into_inner(self) -> W {
        self.to
    }
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send> SendHalf for Writer<W> {
    async fn send(&mut self, frame: Bytes) -> Result<(), Error> {
        if frame.len() > MAX_PAYLOAD {
            return Err(Error::Protocol(format!("cannot send a frame of {} bytes; the limit is {MAX_PAYLOAD}", frame.len())));
        }
        let head = header(&frame);
        let mut both = Buf::chain(&head[..], frame);
        self.to.write_all_buf(&mut both).await.map_err(closed)?;
        self.to.flush().await.map_err(closed)
    }

    async fn finish(&mut self) -> Result<(), Error> {
        self.to.shutdown().await.map_err(closed)
    }
}

/// Reads frames off any byte source.
pub struct Reader<R> {
    from: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin + Send> Reader<R> {
    /// Frames out of `from`.
    pub fn new(from: R) -> Self {
        Self { from, buffer: BytesMut::new() }
    }
}

#[async_trait]
impl<R: AsyncRead + Unpin + Send> RecvHalf for Reader<R> {
    async fn recv(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(frame) = decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_STEP);
            if self.from.read_buf(&mut self.buffer).await.map_err(closed)? == 0 {
                return match self.buffer.len() {
                    0 => Ok(None),
                    n => Err(Error::Closed(format!("the stream ended {n} bytes into a frame"))),
                };
            }
        }
    }
}

fn closed(error: std::io::Error) -> Error {
    Error::Closed(error.to_string())
}

/// Both directions of a framed stream.
pub struct Framed<R, W> {
    reader: Reader<R>,
    writer: Writer<W>,
}

impl<R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Framed<R, W> {
    /// Frames over a source and a sink.
    pub fn new(from: R, to: W) -> Self {
        Self { reader: Reader::new(from), writer: Writer::new(to) }
    }
}

#[async_trait]
impl<R: AsyncRead + Unpin + Send + 'static, W: AsyncWrite + Unpin + Send + 'static> Stream for Framed<R, W> {
    async fn send(&mut self, frame: Bytes) -> Result<(), Error> {
        self.writer.send(frame).await
    }
    async fn recv(&mut self) -> Result<Option<Bytes>, Error> {
        self.reader.recv().await
    }
    async fn finish(&mut self) -> Result<(), Error> {
        self.writer.finish().await
    }
    fn split(self: Box<Self>) -> (Box<dyn SendHalf>, Box<dyn RecvHalf>) {
        (Box::new(self.writer), Box::new(self.reader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(payload: &[u8]) -> Vec<u8> {
        let mut out = header(payload).to_vec();
        out.extend_from_slice(payload);
        out
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_frames(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6), step in 1usize..40) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|p| encoded(p)).collect();
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    got.push(frame.to_vec());
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn junk_never_panics_and_never_reserves_past_the_limit(junk in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&junk[..]);
            let _ = decode(&mut buffer);
            prop_assert!(buffer.capacity() <= 2 * MAX_PAYLOAD);
        }

        #[test]
        fn one_flipped_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 1..64), bit in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&payload);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut buffer = BytesMut::from(&bytes[..]);
            // a length that grew only asks for more bytes; nothing wrong is ever handed out
            prop_assert!(!matches!(decode(&mut buffer), Ok(Some(_))));
        }
    }

    #[tokio::test]
    async fn a_cut_frame_is_an_error_and_a_clean_end_is_not() {
        let bytes = encoded(b"hello");
        let mut whole = Reader::new(&bytes[..]);
        assert_eq!(whole.recv().await.unwrap().unwrap(), "hello");
        assert!(whole.recv().await.unwrap().is_none());
        let mut cut = Reader::new(&bytes[..bytes.len() - 1]);
        assert!(matches!(cut.recv().await, Err(Error::Closed(_))));
    }
}
