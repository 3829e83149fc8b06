//! `tar` as kubectl asks for it: into standard output, out of standard input.

use super::tree::{Kind, Meta, Tree};
use std::io::{self, Read, Write};
use tar::{Archive, Builder, EntryType, Header};

/// Directories within each other.
const DEPTH: usize = 64;
/// Entries of one archive.
const ENTRIES: usize = 100_000;
/// Of a name in an extended header.
const NAME: u64 = 64 << 10;

/// Writes an archive of those paths. A link that is named is followed; one that is found is a link.
pub fn pack(tree: &Tree, paths: &[String], output: &mut impl Write) -> io::Result<()> {
    let mut builder = Builder::new(output);
    let mut left = ENTRIES;
    for path in paths {
        let meta = tree.look(path)?;
        put(tree, &mut builder, path, meta, 0, &mut left)?;
    }
    builder.finish()
}

fn put<W: Write>(tree: &Tree, builder: &mut Builder<W>, path: &str, meta: Meta, depth: usize, left: &mut usize) -> io::Result<()> {
    *left = left.checked_sub(1).ok_or_else(|| io::Error::other(format!("more than {ENTRIES} files")))?;
    let name = path.trim_matches('/');
    let name = if name.is_empty() { "." } else { name };
    let mut header = Header::new_gnu();
    header.set_mode(meta.mode);
    header.set_mtime(meta.modified);
    header.set_size(meta.size);
    match meta.kind {
        Kind::Directory => {
            if depth >= DEPTH {
                return Err(io::Error::other(format!("{path}: more than {DEPTH} directories within each other")));
            }
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, format!("{name}/"), io::empty())?;
            for (entry, meta) in tree.list(path)? {
                match put(tree, builder, &format!("{}/{entry}", path.trim_end_matches('/')), meta, depth + 1, left) {
                    // It went meanwhile, before anything of it was written.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    put => put?,
                }
            }
            Ok(())
        }
        Kind::File => {
            let file = tree.read(path)?;
            header.set_entry_type(EntryType::Regular);
            // As many bytes as were said, whatever becomes of the file meanwhile.
            builder.append_data(&mut header, name, file.chain(io::repeat(0)).take(meta.size))
        }
        Kind::Link => {
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, name, tree.link(path)?)
        }
        // Pipes and sockets have no content.
        Kind::Other => Ok(()),
    }
}

/// Takes an archive apart below `dir`, which is there.
pub fn unpack(tree: &Tree, dir: &str, input: &mut impl Read) -> io::Result<()> {
    if tree.look(dir)?.kind != Kind::Directory {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{dir}: Not a directory")));
    }
    let mut archive = Archive::new(&mut *input);
    let (mut name, mut target) = (None, None);
    // Raw: extended headers are read here, with a bound.
    for (number, entry) in archive.entries()?.raw(true).enumerate() {
        if number >= ENTRIES {
            return Err(io::Error::other(format!("more than {ENTRIES} entries")));
        }
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink) {
            if entry.header().entry_size()? > NAME {
                return Err(io::Error::other(format!("an extended header of more than {} KiB", NAME >> 10)));
            }
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            match kind {
                EntryType::GNULongName => name = Some(until_nul(&text)),
                EntryType::GNULongLink => target = Some(until_nul(&text)),
                EntryType::XHeader => {
                    name = record(&text, "path").or(name);
                    target = record(&text, "linkpath").or(target);
                }
                _ => {}
            }
            continue;
        }
        let path = name.take().unwrap_or_else(|| String::from_utf8_lossy(&entry.path_bytes()).into_owned());
        let link = target.take().or_else(|| entry.link_name_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        if path.split('/').any(|part| part == "..") || path.contains('\0') {
            return Err(io::Error::other(format!("{path}: leads out of the directory")));
        }
        let at = format!("{dir}/{path}");
        match kind {
            EntryType::Directory => tree.directory(&at)?,
            EntryType::Regular | EntryType::Continuous => {
                let mode = entry.header().mode()?;
                io::copy(&mut entry, &mut tree.create(&at, mode)?)?;
            }
            EntryType::Symlink => tree.symlink(&at, link.unwrap_or_default().as_ref())?,
            other => return Err(io::Error::other(format!("{path}: entries of type {other:?} are not for a component"))),
        }
    }
    // What follows the end is read, so that whoever sends it is not cut off.
    io::copy(input, &mut io::sink()).map(drop)
}

fn until_nul(text: &[u8]) -> String {
    String::from_utf8_lossy(text.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// The value of a pax record: `LENGTH key=value\n`, where the length counts the whole record.
fn record(mut text: &[u8], key: &str) -> Option<String> {
    let mut found = None;
    while let Some(space) = text.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(text.get(..space)?).ok()?.parse().ok()?;
        let body = text.get(space + 1..length.checked_sub(1)?)?;
        if let Some(value) = body.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) {
            found = Some(String::from_utf8_lossy(value).into_owned());
        }
        text = text.get(length..)?;
    }
    found
}
