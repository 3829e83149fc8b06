//! The entries of a tar, in a stream: ustar, pax (POSIX.1-2001) and GNU, as Go's `archive/tar` reads them, which is what images are made with.
//!
//! Not the tar crate's reader: that one splits pax records at newlines (file capabilities are binary), holds long names whole whatever size they claim, and in the
//! mode in which it does not, skips by the header's size where a pax record says another, so that the content of a file is read for entries.

use std::io::{self, Read};

/// What an entry says of the next one (a long name, pax records), bytes.
const HEADER: u64 = 1 << 20;
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its content is read from [`Entries`].
    File,
    /// Another name of a file before it.
    Hardlink,
    /// A symbolic link.
    Symlink,
    /// A character or block device.
    Device,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// Something else, by its type flag.
    Other(u8),
}

/// An entry as it stands there; nothing in it is to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub path: Vec<u8>,
    /// What it links to.
    pub link: Vec<u8>,
    /// Bytes of content.
    pub size: u64,
    /// Permissions, set-uid and the like.
    pub mode: i64,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entry by entry; between two, [`Read`] gives the content of the last.
pub struct Entries<R> {
    source: R,
    /// Of the current entry's content.
    left: u64,
    /// After it.
    padding: u64,
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<R: Read> Entries<R> {
    /// Of a plain tar.
    pub fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0 }
    }

    /// The next entry; none at the end mark, or where the source ends between two entries.
    #[allow(clippy::should_implement_trait, reason = "an entry's content is read from here, which an iterator would not allow")]
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let (mut long, mut link, mut pax) = (None, None, Vec::new());
        loop {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            let size = u64::try_from(number(&block[124..136])?).map_err(|_| invalid("an entry has a negative size"))?;
            let kind = block[156];
            match kind {
                b'L' => long = Some(text(&self.small(size)?).to_vec()),
                b'K' => link = Some(text(&self.small(size)?).to_vec()),
                b'x' | b'X' => pax = self.small(size)?,
                b'g' => self.hold(size),
                b'S' => return Err(invalid("it holds a sparse file in GNU's form, which no tool for images writes")),
                _ => return self.entry(&block, kind, size, (long, link), &pax).map(Some),
            }
        }
    }

    fn entry(&mut self, block: &[u8; BLOCK], flag: u8, size: u64, long: (Option<Vec<u8>>, Option<Vec<u8>>), pax: &[u8]) -> io::Result<Entry> {
        let path = long.0.unwrap_or_else(|| name(block));
        let kind = match flag {
            // Before there was a flag for directories.
            b'\0' if path.ends_with(b"/") => Kind::Directory,
            b'\0' | b'0' | b'7' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        let mut entry = Entry {
            kind,
            path,
            link: long.1.unwrap_or_else(|| text(&block[157..257]).to_vec()),
            size,
            mode: number(&block[100..108])?,
            uid: number(&block[108..116])?,
            gid: number(&block[116..124])?,
            mtime: (number(&block[136..148])?, 0),
            xattrs: Vec::new(),
        };
        for record in records(pax) {
            let (key, value) = record?;
            entry.say(key, value)?;
        }
        // Others have no content, whatever they say.
        if !matches!(entry.kind, Kind::File | Kind::Other(_)) {
            entry.size = 0;
        }
        self.hold(entry.size);
        Ok(entry)
    }

    fn hold(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// A header; none at the end.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match self.source.read(&mut block[have..])? {
                0 if have == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => have += n,
            }
        }
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let sum: i64 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { i64::from(*byte) }).sum();
        if number(&block[148..156])? != sum {
            return Err(invalid("it is no tar, or damaged: the checksum of a header is wrong"));
        }
        Ok(Some(block))
    }

    fn small(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > HEADER {
            return Err(invalid(format!("the name of an entry takes more than the {HEADER} bytes that are allowed")));
        }
        self.hold(size);
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        if io::copy(&mut (&mut self.source).take(rest), &mut io::sink())? < rest {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.source.read(&mut buffer[..most])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.left -= n as u64;
                Ok(n)
            }
        }
    }
}

impl Entry {
    /// Takes in a pax record. An empty value takes the record back (POSIX), which is to say nothing here.
    fn say(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let whole = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(|| invalid("a pax record is no number"));
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if key.starts_with(b"GNU.sparse.") {
            return Err(invalid("it holds a sparse file in pax form, which no tool for images writes"));
        }
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = value.to_vec(),
            b"linkpath" => self.link = value.to_vec(),
            b"size" => self.size = u64::try_from(whole()?).map_err(|_| invalid("an entry has a negative size"))?,
            b"uid" => self.uid = whole()?,
            b"gid" => self.gid = whole()?,
            b"mtime" => self.mtime = time(value).ok_or_else(|| invalid("a pax record is no time"))?,
            _ => {}
        }
        Ok(())
    }
}

/// `name`, with ustar's `prefix` in front.
fn name(block: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    match &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        true => [prefix, b"/", name].concat(),
        false => name.to_vec(),
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal digits, or GNU's base 256.
fn number(field: &[u8]) -> io::Result<i64> {
    let wrong = || invalid("it is no tar, or damaged: a header has a field that is no number");
    match field {
        [first, ..] if first & 0x80 != 0 => {
            let negative = first & 0x40 != 0;
            let digits = std::iter::once(if negative { *first } else { first & 0x7f }).chain(field[1..].iter().copied());
            let value = digits.fold(if negative { -1_i128 } else { 0 }, |value, byte| value.wrapping_mul(256) | i128::from(byte));
            i64::try_from(value).map_err(|_| wrong())
        }
        _ => {
            let digits = text(field).trim_ascii();
            if digits.is_empty() {
                return Ok(0);
            }
            let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())).ok_or_else(wrong)?;
            i64::from_str_radix(digits, 8).map_err(|_| wrong())
        }
    }
}

/// `<length> <key>=<value>\n`, one after another; the length counts all of it.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let read = || {
            let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some((&record[..equals], &record[equals + 1..], length))
        };
        match read() {
            Some((key, value, length)) => {
                bytes = &bytes[length..];
                Some(Ok((key, value)))
            }
            None => {
                bytes = &[];
                Some(Err(invalid("it has a pax header that is damaged")))
            }
        }
    })
}

/// `[-]<seconds>[.<fraction>]` as seconds (rounded down) and nanoseconds.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match whole.starts_with('-') && nanos > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests;
