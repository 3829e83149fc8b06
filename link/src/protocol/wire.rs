//! Reading and writing the fields of a message.

use crate::Error;
use bytes::{BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
/// Bounds of a program's arguments: how many, and how long each is (one of Linux's is at most 128 KiB, a query's less).
const LIST_MAX: (usize, usize) = (4096, 128 << 10);
/// Bound of names, uids and other short texts (Kubernetes names end at 253).
const NAME_MAX: usize = 1024;

pub(super) struct Writer(BytesMut);

impl Writer {
    pub(super) fn new(kind: u8) -> Self {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(VERSION);
        out.put_u8(kind);
        Self(out)
    }
    pub(super) fn u64(mut self, n: u64) -> Self {
        self.0.put_u64(n);
        self
    }
    pub(super) fn flag(mut self, flag: bool) -> Self {
        self.0.put_u8(u8::from(flag));
        self
    }
    pub(super) fn bytes(mut self, b: &[u8]) -> Self {
        self.0.reserve(b.len() + 4);
        self.0.put_u32(b.len() as u32);
        self.0.put_slice(b);
        self
    }
    pub(super) fn text(self, s: &str) -> Self {
        self.bytes(s.as_bytes())
    }
    pub(super) fn optional<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.flag(false),
            Some(value) => write(self.flag(true), value),
        }
    }
    pub(super) fn list(mut self, list: &[String]) -> Self {
        self.0.put_u32(list.len() as u32);
        list.iter().fold(self, |to, text| to.text(text))
    }
    pub(super) fn done(self) -> Bytes {
        self.0.freeze()
    }
}

pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Checks the version; gives the kind.
    pub(super) fn new(b: &'a [u8]) -> Result<(u8, Self), Error> {
        match b {
            [VERSION, kind, rest @ ..] => Ok((*kind, Self(rest))),
            [version, _, ..] => {
                Err(Error::Protocol(format!("message of version {version}; this side speaks version {VERSION}: upgrade the older side")))
            }
            _ => Err(Error::Protocol(format!("a message of {} bytes", b.len()))),
        }
    }
    fn take(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or_else(|| Error::Protocol(format!("{n} bytes announced, {} there", self.0.len())))?;
        self.0 = rest;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N)?.try_into().map_err(|_| Error::Protocol("short field".into()))
    }
    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.array()?))
    }
    pub(super) fn port(&mut self) -> Result<u16, Error> {
        u16::try_from(self.u64()?).map_err(|_| Error::Protocol("a 16-bit number is larger than 65535".into()))
    }
    pub(super) fn flag(&mut self) -> Result<bool, Error> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Error::Protocol(format!("a flag of value {other}"))),
        }
    }
    fn slice(&mut self) -> Result<&'a [u8], Error> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(length as usize)
    }
    pub(super) fn bytes(&mut self) -> Result<Bytes, Error> {
        self.slice().map(Bytes::copy_from_slice)
    }
    pub(super) fn text(&mut self, max: usize) -> Result<String, Error> {
        let slice = self.slice()?;
        if slice.len() > max {
            return Err(Error::Protocol(format!("a text of {} bytes; the limit here is {max}", slice.len())));
        }
        std::str::from_utf8(slice).map(str::to_string).map_err(|_| Error::Protocol("a text that is not UTF-8".into()))
    }
    pub(super) fn name(&mut self) -> Result<String, Error> {
        self.text(NAME_MAX)
    }
    pub(super) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<Option<T>, Error> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }
    pub(super) fn list(&mut self) -> Result<Vec<String>, Error> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        if length > LIST_MAX.0 {
            return Err(Error::Protocol(format!("a list of {length}; the limit is {}", LIST_MAX.0)));
        }
        (0..length).map(|_| self.text(LIST_MAX.1)).collect()
    }
    pub(super) fn end(self) -> Result<(), Error> {
        match self.0.len() {
            0 => Ok(()),
            n => Err(Error::Protocol(format!("{n} bytes after the message's end"))),
        }
    }
}
