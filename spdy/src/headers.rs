//! Blocks of names and values: one zlib stream for a direction of a connection, flushed after every block (SPDY/3, 2.6.10).

use crate::{Error, dictionary::DICTIONARY, wrong};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Largest block as it is after decompression, bytes.
const MAX_BLOCK: usize = 64 << 10;
/// Most names of a block.
const MAX_NAMES: u32 = 128;
/// The smallest window that holds the dictionary, as a power of two.
const WINDOW_BITS: u8 = 11;

/// Names in lower case, each once, in order. Several values of a name are parted by NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(its, _)| its.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.split('\0').next())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into().to_ascii_lowercase(), value.into())).collect())
    }
}

fn plain(headers: &Headers) -> Vec<u8> {
    let mut block = (headers.0.len() as u32).to_be_bytes().to_vec();
    for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
        block.extend_from_slice(&(text.len() as u32).to_be_bytes());
        block.extend_from_slice(text.as_bytes());
    }
    block
}

fn parse(mut block: &[u8]) -> Result<Headers, Error> {
    fn number(block: &mut &[u8]) -> Result<u32, Error> {
        let Some((number, rest)) = block.split_first_chunk::<4>() else { return wrong("a header block ends early") };
        *block = rest;
        Ok(u32::from_be_bytes(*number))
    }
    fn text(block: &mut &[u8]) -> Result<String, Error> {
        let length = number(block)? as usize;
        let Some((text, rest)) = block.split_at_checked(length) else { return wrong("a header block ends early") };
        *block = rest;
        String::from_utf8(text.to_vec()).or_else(|_| wrong("a header is not text"))
    }
    let count = number(&mut block)?;
    if count > MAX_NAMES {
        return wrong(format!("{count} headers; the limit is {MAX_NAMES}"));
    }
    let mut headers = Headers::default();
    for _ in 0..count {
        let (name, value) = (text(&mut block)?, text(&mut block)?);
        if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) || headers.0.iter().any(|(its, _)| *its == name) {
            return wrong(format!("header name {name:?} is empty, not in lower case, or there twice"));
        }
        headers.0.push((name, value));
    }
    if block.is_empty() { Ok(headers) } else { wrong("a header block is longer than its headers") }
}

/// One direction's writer.
#[derive(Default)]
pub struct Packer(Option<Compress>);

impl Packer {
    /// The block of these headers.
    pub fn pack(&mut self, headers: &Headers) -> Vec<u8> {
        let zlib = self.0.get_or_insert_with(|| {
            let mut zlib = Compress::new_with_window_bits(Compression::default(), true, WINDOW_BITS);
            // Refused only in the middle of a stream.
            _ = zlib.set_dictionary(&DICTIONARY);
            zlib
        });
        let (block, before) = (plain(headers), zlib.total_in());
        let mut packed = Vec::with_capacity(block.len() + 64);
        loop {
            let done = usize::try_from(zlib.total_in() - before).unwrap_or(usize::MAX);
            let status = zlib.compress_vec(block.get(done..).unwrap_or_default(), &mut packed, FlushCompress::Sync);
            // A flush is done when it leaves room in the output.
            if status.is_err() || packed.len() < packed.capacity() {
                return packed;
            }
            packed.reserve(256);
        }
    }
}

/// One direction's reader.
pub struct Unpacker(Decompress);

impl Default for Unpacker {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Unpacker {
    /// The headers of a block. After an error nothing more can be read: what follows builds upon it.
    ///
    /// # Errors
    /// What is no zlib, no header block, or too large.
    pub fn unpack(&mut self, packed: &[u8]) -> Result<Headers, Error> {
        let zlib = &mut self.0;
        let before = zlib.total_in();
        let mut block = Vec::with_capacity(1024);
        loop {
            let done = usize::try_from(zlib.total_in() - before).unwrap_or(usize::MAX);
            let rest = packed.get(done..).unwrap_or_default();
            match zlib.decompress_vec(rest, &mut block, FlushDecompress::Sync) {
                Err(error) if error.needs_dictionary().is_some() => {
                    if zlib.set_dictionary(&DICTIONARY).is_err() {
                        return wrong("a header block was compressed with another dictionary");
                    }
                }
                Err(error) => return wrong(format!("a header block cannot be decompressed: {error}")),
                Ok(Status::StreamEnd) => return wrong("the stream of header blocks was ended"),
                Ok(_) if block.len() < block.capacity() => return parse(&block),
                Ok(_) if block.len() >= MAX_BLOCK => return wrong(format!("a header block of more than {MAX_BLOCK} bytes")),
                Ok(_) => block.reserve(block.len()),
            }
        }
    }
}
