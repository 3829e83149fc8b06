use super::*;
use crate::images::{
    component::Layer,
    store::{Store, hex},
};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use std::{fs, io::Write};

const WASM: &[u8] = b"\0asm\x0d\0\x01\0";

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

fn wasm_file(dir: &Path, more: &[u8]) -> PathBuf {
    let path = dir.join("guest.wasm");
    fs::write(&path, [WASM, more].concat()).unwrap();
    path
}

/// A tar with raw header names, so that hostile ones are possible.
fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn find(layers: &[(&[u8], &str)]) -> Result<(String, u64), Error> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let paths: Vec<PathBuf> = (0..layers.len()).map(|n| dir.path().join(format!("layer{n}"))).collect();
    for (path, (content, _)) in paths.iter().zip(layers) {
        fs::write(path, content).unwrap();
    }
    let list: Vec<Layer> = paths.iter().zip(layers).map(|(path, (_, kind))| Layer { path, media_type: kind }).collect();
    component::find(&store, "img", &list)
}

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

#[test]
fn import_names_lists_and_removes() {
    let dir = tempfile::tempdir().unwrap();
    let file = wasm_file(dir.path(), b"one");
    let named = import(dir.path(), &file, Some("hello:v1")).unwrap().remove(0);
    assert_eq!(named.reference, "docker.io/library/hello:v1");
    let images = Images::open(Options { data_dir: dir.path().into(), ..Options::default() }).unwrap();
    let image = images.lookup("hello:v1").unwrap().unwrap();
    assert_eq!(image.digest, named.manifest);
    let coracle_runtime::ImageContent::Wasm { path, digest: wasm } = &image.content else { panic!("{image:?}") };
    assert_eq!(fs::read(path).unwrap(), fs::read(&file).unwrap());
    assert_eq!(*wasm, digest(&fs::read(&file).unwrap()));
    assert!(images.lookup("docker.io/library/hello:v1").unwrap().is_some(), "long and short names are one");
    assert!(images.lookup("hello:v2").unwrap().is_none());

    // The same content under two names stays until both are gone.
    import(dir.path(), &file, Some("other:v1")).unwrap();
    assert_eq!(list(dir.path()).unwrap().len(), 2);
    remove(dir.path(), "hello:v1").unwrap();
    assert!(images.lookup("other:v1").unwrap().is_some());
    remove(dir.path(), "other:v1").unwrap();
    assert!(!path.exists());
    assert!(remove(dir.path(), "other:v1").unwrap_err().message.contains("no image of that name"));
}

#[test]
fn bad_names_and_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = wasm_file(dir.path(), b"");
    for name in ["UPPER:v1", "", "a b", "hello:v1 "] {
        assert_eq!(import(dir.path(), &file, Some(name)).unwrap_err().reason, "InvalidImageName", "{name:?}");
    }
    let text = dir.path().join("text");
    for content in [&b"#!/bin/sh"[..], b"", b"\0as"] {
        fs::write(&text, content).unwrap();
        let error = import(dir.path(), &text, Some("x:v1")).unwrap_err();
        assert!(error.message.contains("is no WebAssembly file"), "{error}");
    }
    assert!(import(dir.path(), &dir.path().join("none"), Some("x:v1")).unwrap_err().message.contains("none"));
    assert!(list(dir.path()).unwrap().is_empty());
    let left = fs::read_dir(dir.path().join("images/blobs/sha256")).unwrap().count();
    assert_eq!(left, 0, "nothing half-written stays");
}

#[test]
fn a_cut_blob_is_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let named = import(dir.path(), &wasm_file(dir.path(), b"12345"), Some("hello:v1")).unwrap().remove(0);
    let store = Store::open(dir.path()).unwrap();
    fs::write(store.blob(&named.wasm).unwrap(), b"\0asm").unwrap();
    assert!(store.lookup("hello:v1").unwrap().is_none());
}

#[test]
fn floating_tags() {
    for (name, floats) in [("a", true), ("a:latest", true), ("a:v1", false), ("r.example:5000/a", true), ("r.example:5000/a:v1", false)] {
        assert_eq!(floating(name), floats, "{name}");
    }
}

#[test]
fn the_one_wasm_in_layers() {
    let want = (digest(WASM), WASM.len() as u64);
    assert_eq!(find(&[(&gzip(&tar(&[("app.wasm", WASM)])), GZIP)]).unwrap(), want);
    assert_eq!(find(&[(&tar(&[("./dir/app.wasm", WASM), ("README", b"x")]), TAR)]).unwrap(), want);
    let lower = gzip(&tar(&[("app.wasm", b"\0asmold"), ("b/other.wasm", WASM)]));
    let upper = gzip(&tar(&[("app.wasm", WASM), ("b/.wh.other.wasm", b"")]));
    assert_eq!(find(&[(&lower, DOCKER), (&upper, DOCKER)]).unwrap(), want, "replaced and whited out");
    let opaque = gzip(&tar(&[("b/.wh..wh..opq", b""), (".wh.app.wasm", b""), ("c.wasm", WASM)]));
    assert_eq!(find(&[(&lower, GZIP), (&opaque, GZIP)]).unwrap(), want);
}

#[test]
fn zstd_layers_of_any_number_of_frames() {
    let want = (digest(WASM), WASM.len() as u64);
    let whole = tar(&[("README", &[7; 300_000]), ("app.wasm", WASM)]);
    assert_eq!(find(&[(&zstd(&whole), ZSTD)]).unwrap(), want);
    // As written for lazy pulling: a frame for each part, and between and after them what is no content.
    let skippable = |content: &[u8]| [&[0x50, 0x2a, 0x4d, 0x18][..], &(content.len() as u32).to_le_bytes(), content].concat();
    let (one, two) = whole.split_at(1000);
    let many = [skippable(b"first"), zstd(one), skippable(b""), zstd(two), skippable(b"a table of contents")].concat();
    assert_eq!(find(&[(&many, ZSTD)]).unwrap(), want);

    // Cut short, not zstd, a frame to skip that is longer than the file, a window as large as a machine's memory, a bomb.
    let packed = zstd(&whole);
    assert!(find(&[(&packed[..packed.len() / 2], ZSTD)]).is_err());
    assert_eq!(find(&[(&gzip(&whole), ZSTD)]).unwrap(), want, "told by its first bytes");
    assert!(find(&[(&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 0], ZSTD)]).is_err());
    assert!(find(&[(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0, 0], ZSTD)]).is_err());
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(3 << 30);
    header.set_cksum();
    let zeros = zstd(&[0; 1 << 20]);
    let bomb = [zstd(header.as_bytes()), zeros.repeat(3 << 10)].concat();
    let error = find(&[(&bomb, ZSTD)]).unwrap_err();
    assert!(error.message.contains("unpack to more than"), "{error}");
}

#[test]
fn long_names_count_and_are_bounded() {
    let mut builder = tar::Builder::new(Vec::new());
    let long = format!("{}/app.wasm", "deep/".repeat(60));
    let mut header = tar::Header::new_gnu();
    header.set_size(WASM.len() as u64);
    builder.append_data(&mut header, &long, WASM).unwrap();
    let lower = builder.into_inner().unwrap();
    assert_eq!(find(&[(&lower, TAR)]).unwrap(), (digest(WASM), WASM.len() as u64));
    // The same name in pax records, and what it names is no wasm file any more.
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("path", long.as_bytes())]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_path("short").unwrap();
    header.set_cksum();
    builder.append(&header, &[][..]).unwrap();
    let error = find(&[(&lower, TAR), (&builder.into_inner().unwrap(), TAR)]).unwrap_err();
    assert!(error.message.contains("holds no .wasm file"), "{error}");

    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let bomb = gzip(&[header.as_bytes(), &vec![b'a'; 8 << 20][..]].concat());
    let error = find(&[(&bomb, GZIP)]).unwrap_err();
    assert!(error.message.contains("name of an entry"), "{error}");
}

#[test]
fn what_was_cut_off_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let named = import(dir.path(), &wasm_file(dir.path(), b"one"), Some("hello:v1")).unwrap().remove(0);
    let store = Store::open(dir.path()).unwrap();
    let blobs = dir.path().join("images/blobs/sha256");
    let kept = fs::read_dir(&blobs).unwrap().count();
    // What a pull leaves that was killed: a layer, a half of one, half a name.
    store.put(b"a layer").unwrap();
    fs::write(blobs.join(".tmp-1-0"), b"half").unwrap();
    fs::write(dir.path().join("images/names/.tmp-1-0"), serde_json::to_vec(&named).unwrap()).unwrap();
    assert_eq!(store.list().unwrap().len(), 1, "half a name is none");
    let pulling = store.lock().unwrap();
    let images = Images::open(Options { data_dir: dir.path().into(), ..Options::default() }).unwrap();
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), kept + 2, "not while something is pulled");
    drop((pulling, images));
    let images = Images::open(Options { data_dir: dir.path().into(), ..Options::default() }).unwrap();
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), kept);
    assert_eq!(fs::read_dir(dir.path().join("images/names")).unwrap().count(), 1);
    assert!(images.lookup("hello:v1").unwrap().is_some());
}

#[test]
fn no_or_many_wasm_files_say_what_to_do() {
    let error = find(&[(&gzip(&tar(&[("bin/sh", b"\x7fELF")])), GZIP)]).unwrap_err();
    assert!(error.reason == "UnsupportedImage" && error.message.contains("OCI container image"), "{error}");
    let error = find(&[(&tar(&[("a.wasm", WASM), ("b.wasm", WASM)]), TAR)]).unwrap_err();
    assert!(error.message.contains("holds 2 .wasm files (a.wasm, b.wasm)"), "{error}");
    let error = find(&[(&tar(&[("a.wasm", b"text")]), TAR)]).unwrap_err();
    assert!(error.message.contains("is no WebAssembly file"), "{error}");
    let error = find(&[(b"x", "application/vnd.oci.image.layer.v1.tar+lz4")]).unwrap_err();
    assert!(error.message.contains("gzip, zstd and plain tar"), "{error}");
}

#[test]
fn hostile_tars_write_nowhere_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let escape = format!("../../{}/escaped.wasm", dir.path().file_name().unwrap().to_str().unwrap());
    let error = find(&[(&tar(&[(&escape, WASM), ("/../x.wasm", WASM)]), TAR)]).unwrap_err();
    assert_eq!(error.reason, "UnsupportedImage", "{error}");
    assert!(!dir.path().join("escaped.wasm").exists());

    // A link named .wasm is no file, whatever it points at.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "app.wasm", "/etc/passwd").unwrap();
    assert!(find(&[(&builder.into_inner().unwrap(), TAR)]).is_err());

    // Cut short, garbage, a size that lies.
    let whole = tar(&[("app.wasm", &[WASM, &[0; 5000]].concat())]);
    assert!(find(&[(&whole[..1024], TAR)]).is_err());
    assert!(find(&[(&gzip(&whole)[..40], GZIP)]).is_err());
    assert!(find(&[(&[0xff; 4096], TAR)]).is_err());

    // A bomb: 3 GiB of zeros in a few megabytes of gzip, in a file that nobody asked for.
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(3 << 30);
    header.set_cksum();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..(3 << 10) {
        encoder.write_all(&zeros).unwrap();
    }
    let error = find(&[(&encoder.finish().unwrap(), GZIP)]).unwrap_err();
    assert!(error.message.contains("unpack to more than"), "{error}");
}

#[test]
fn what_was_imported_by_a_name_is_there_by_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let digest = import(dir.path(), &wasm_file(dir.path(), b"one"), Some("team/hello:v1")).unwrap().remove(0).manifest;
    let images = Images::open(Options { data_dir: dir.path().into(), ..Options::default() }).unwrap();
    let by = |name: String| images.lookup(&name).unwrap().map(|image| image.digest);
    assert_eq!(by(format!("team/hello@{digest}")), Some(digest.clone()));
    assert_eq!(by(format!("docker.io/team/hello@{digest}")), Some(digest.clone()));
    assert_eq!(by(format!("team/other@{digest}")), None, "another repository may not give it to everybody");
    assert_eq!(by(format!("team/hello@sha256:{}", "0".repeat(64))), None);
}
