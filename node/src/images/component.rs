//! The one .wasm in an OCI image's layers.
//!
//! Nothing is unpacked: entries are read in a stream and a .wasm file goes into the content store under its own digest, so a path in
//! a tar can lead nowhere. What later layers replace or remove (whiteouts) counts as in any OCI image. Sizes and counts are bounded,
//! compressed or not, and so are the names that tar keeps in entries of their own.

use super::{
    Error,
    layer::{self, tar},
    store::{LARGEST, Store},
};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
};

/// All layers together, bytes: as they come, and uncompressed.
pub const TOTAL: u64 = 2 << 30;
/// Entries in all layers together.
const ENTRIES: usize = 100_000;
/// A layer: its file and its media type.
pub struct Layer<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Such as `application/vnd.oci.image.layer.v1.tar+gzip`.
    pub media_type: &'a str,
}

/// Digest and size of the .wasm, kept in the store. `reference` names the image in errors.
pub fn find(store: &Store, reference: &str, layers: &[Layer]) -> Result<(String, u64), Error> {
    let mut found: BTreeMap<String, (String, u64)> = BTreeMap::new();
    let (mut left, mut entries) = (TOTAL, ENTRIES);
    for layer in layers {
        let file = File::open(layer.path).map_err(|e| Error::new("ErrImagePull", format!("open a layer of {reference}: {e}")))?;
        let file = BufReader::new(file);
        if !matches!(layer.media_type.rsplit_once(['+', '.']), Some((_, "gzip" | "zstd" | "tar"))) {
            let message = format!("image {reference} has a layer of type {}; gzip, zstd and plain tar are supported", layer.media_type);
            return Err(Error::new("UnsupportedImage", message));
        }
        let reader = layer::decoded(file).map_err(|e| Error::new("ErrImagePull", format!("read a layer of {reference}: {e}")))?;
        scan(store, reference, reader, &mut found, &mut left, &mut entries)?;
    }
    let unsupported = |message: String| Err(Error::new("UnsupportedImage", message));
    match found.len() {
        1 => Ok(found.into_values().next().unwrap_or_default()),
        0 => unsupported(format!(
            "image {reference} holds no .wasm file: it is an OCI container image, and this node runs WebAssembly only; \
             build the program for wasm32-wasip2, or run the pod on a node with the oci runtime"
        )),
        n => {
            let names: Vec<&str> = found.keys().map(String::as_str).take(5).collect();
            unsupported(format!("image {reference} holds {n} .wasm files ({}); it must hold exactly one", names.join(", ")))
        }
    }
}

struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(n as u64)
            .ok_or_else(|| io::Error::other(format!("its layers unpack to more than the {TOTAL} bytes that are allowed")))?;
        Ok(n)
    }
}

fn scan(
    store: &Store,
    reference: &str,
    reader: Box<dyn Read>,
    found: &mut BTreeMap<String, (String, u64)>,
    left: &mut u64,
    entries: &mut usize,
) -> Result<(), Error> {
    let bad = |why: String| Error::new("ErrImagePull", format!("read a layer of {reference}: {why}"));
    let mut limited = Limited { inner: reader, left: *left };
    {
        let mut archive = tar::Entries::new(&mut limited);
        while let Some(entry) = archive.next().map_err(|e| bad(e.to_string()))? {
            *entries = entries.checked_sub(1).ok_or_else(|| bad(format!("it has more than the {ENTRIES} entries that are allowed")))?;
            let path = Path::new(OsStr::from_bytes(&entry.path));
            let Some(path) = clean(path) else { continue };
            if whiteout(&path, found) {
                continue;
            }
            if entry.kind != tar::Kind::File {
                found.remove(&path);
                continue;
            }
            if !path.ends_with(".wasm") {
                continue;
            }
            let mut incoming = store.incoming(LARGEST)?;
            io::copy(&mut archive, &mut incoming).map_err(|e| bad(format!("{path}: {e}")))?;
            found.insert(path.clone(), incoming.keep_wasm(&format!("{path} in image {reference}"))?);
        }
    }
    *left = limited.left;
    Ok(())
}

/// The path within the image; `None` for what leads out of it.
fn clean(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::RootDir | Component::CurDir => {}
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// `.wh.x` removes `x` of lower layers, `.wh..wh..opq` all of its directory.
/// True when the entry is one of them.
fn whiteout(path: &str, found: &mut BTreeMap<String, (String, u64)>) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
    if name == ".wh..wh..opq" {
        found.retain(|p, _| !p.starts_with(&prefix));
    } else if let Some(name) = name.strip_prefix(".wh.") {
        let gone = format!("{prefix}{name}");
        found.retain(|p, _| *p != gone && !p.starts_with(&format!("{gone}/")));
    }
    name.starts_with(".wh.")
}
