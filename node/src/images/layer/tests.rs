use super::{tree::opaque, *};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, lgetxattr, statat};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
};
use tempfile::TempDir;

/// An entry as bytes, with anything in its header.
struct Raw {
    header: ::tar::Header,
    pax: Vec<(String, Vec<u8>)>,
    content: Vec<u8>,
}

fn raw(kind: u8, path: &str) -> Raw {
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::new(kind));
    header.as_ustar_mut().unwrap().name[..path.len().min(100)].copy_from_slice(&path.as_bytes()[..path.len().min(100)]);
    header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    let pax = if path.len() > 100 { vec![("path".into(), path.into())] } else { Vec::new() };
    Raw { header, pax, content: Vec::new() }
}

fn file(path: &str, content: &[u8]) -> Raw {
    Raw { content: content.to_vec(), ..raw(b'0', path) }
}

fn dir(path: &str) -> Raw {
    raw(b'5', path)
}

fn link(kind: u8, path: &str, target: &str) -> Raw {
    let mut entry = raw(kind, path);
    entry.header.set_link_name_literal(target).unwrap();
    entry
}

impl Raw {
    fn mode(mut self, mode: u32) -> Self {
        self.header.set_mode(mode);
        self
    }

    fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.header.set_uid(uid);
        self.header.set_gid(gid);
        self
    }

    fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.pax.push((key.into(), value.into()));
        self
    }
}

fn tar(entries: impl IntoIterator<Item = Raw>) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for mut entry in entries {
        if !entry.pax.is_empty() {
            builder.append_pax_extensions(entry.pax.iter().map(|(key, value)| (key.as_str(), value.as_slice()))).unwrap();
        }
        entry.header.set_size(entry.content.len() as u64);
        entry.header.set_cksum();
        builder.append(&entry.header, &*entry.content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    crate::images::store::digest_of(bytes)
}

/// A machine on which layers are unpacked one over another.
struct Place {
    dir: TempDir,
    layers: Vec<PathBuf>,
    budget: Budget,
}

impl Place {
    /// None where one may not make devices and give files away.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: not tested");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), b"untouched").unwrap();
        Some(Self { dir, layers: Vec::new(), budget: Budget::default() })
    }

    fn blob(&mut self, blob: &[u8], diff: &str) -> Result<PathBuf, Error> {
        let path = self.dir.path().join("blob");
        fs::write(&path, blob).unwrap();
        let into = self.dir.path().join(format!("layer{}", self.layers.len()));
        let _ = fs::remove_dir_all(&into);
        fs::create_dir(&into).unwrap();
        let lowers: Vec<PathBuf> = self.layers.iter().rev().cloned().collect();
        unpack(&path, diff, &into, &lowers, &mut self.budget, &AtomicBool::new(false))?;
        self.layers.push(into.clone());
        Ok(into)
    }

    fn add(&mut self, entries: impl IntoIterator<Item = Raw>) -> Result<PathBuf, Error> {
        let tar = tar(entries);
        self.blob(&tar, &digest(&tar))
    }

    fn refused(&mut self, entries: impl IntoIterator<Item = Raw>) -> plan::Refused {
        let entries: Vec<Raw> = entries.into_iter().collect();
        let first = entries[0].header.path_bytes().into_owned();
        match self.add(entries) {
            Err(Error::Refused { why, .. }) => {
                assert_eq!(fs::read(self.dir.path().join("outside")).unwrap(), b"untouched");
                why
            }
            other => panic!("{}: {other:?}", first.escape_ascii()),
        }
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let n = lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(n);
    Some(value)
}

fn hides(path: &Path) -> bool {
    let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn opaque_at(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

#[test]
fn all_that_an_entry_says_is_on_disk() {
    let Some(mut place) = Place::new() else { return };
    // A capability set with a newline in it: net_bind_service and more.
    let capability = [1, 0, 0, 2, 0x0a, 4, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("usr/{}/file", "long".repeat(40));
    let layer = place
        .add([
            dir("./").mode(0o751).owner(7, 8),
            dir("usr/").mode(0o1777).owner(3, 4),
            file("usr/su", b"#!").mode(0o6755).owner(1, 2).pax("SCHILY.xattr.security.capability", &capability).pax("mtime", b"12.5"),
            file("usr/note", b"x").pax("SCHILY.xattr.user.a", b"b=c\n").pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc").pax("uid", b"70000"),
            link(b'1', "usr/again", "/usr/su"),
            link(b'2', "usr/up", "../../../../etc/passwd").owner(5, 6),
            raw(b'6', "usr/pipe").mode(0o600),
            dir(&long[..long.len() - 5]),
            file(&long, b"deep"),
            dir("usr/late").pax("mtime", b"-1.25"),
            file("usr/late/x", b"y"),
            file("/absolute", b"within"),
            raw(b'3', "dev/null"),
        ])
        .unwrap();
    let meta = |path: &str| fs::symlink_metadata(layer.join(path)).unwrap();
    let of = |path: &str| (meta(path).uid(), meta(path).gid(), meta(path).mode() & 0o7777);
    assert_eq!(of(""), (7, 8, 0o751));
    assert_eq!(of("usr"), (3, 4, 0o1777));
    assert_eq!(of("usr/su"), (1, 2, 0o6755));
    assert_eq!((meta("usr/su").mtime(), meta("usr/su").mtime_nsec()), (12, 500_000_000));
    assert_eq!(xattr(&layer.join("usr/su"), "security.capability").unwrap(), capability);
    assert_eq!((meta("usr/su").ino(), meta("usr/su").nlink()), (meta("usr/again").ino(), 2));
    assert_eq!(xattr(&layer.join("usr/note"), "user.a").unwrap(), b"b=c\n");
    assert_eq!(xattr(&layer.join("usr/note"), "trusted.overlay.redirect"), None);
    assert_eq!(of("usr/note").0, 70_000);
    assert_eq!(fs::read_link(layer.join("usr/up")).unwrap(), Path::new("../../../../etc/passwd"));
    assert_eq!((of("usr/up").0, meta("usr/up").mtime()), (5, 1_000_000_000));
    assert_eq!(of("usr/pipe").2, 0o600);
    assert_eq!(fs::read(layer.join(&long)).unwrap(), b"deep");
    assert_eq!(fs::read(layer.join("absolute")).unwrap(), b"within");
    assert!(!layer.join("dev").exists());
    // What is made in a directory does not change its time.
    assert_eq!((meta("usr/late").mtime(), meta("usr/late").mtime_nsec()), (-2, 750_000_000));
    assert_eq!((meta("usr").mtime(), meta("").mtime()), (1_000_000_000, 1_000_000_000));
}

#[test]
fn whiteouts_hide_what_is_below_and_never_what_is_beside() {
    let Some(mut place) = Place::new() else { return };
    place.add([dir("d"), file("d/x", b"1"), dir("e"), file("e/x", b"1"), file("f", b"1"), dir("g"), file("g/x", b"1")]).unwrap();
    let layer = place
        .add([
            file("d/.wh.x", b""),
            file("d/.wh.y/", b""),
            dir("e"),
            file("e/own", b"2"),
            file("e/.wh..wh..opq", b""),
            file("f", b"2"),
            file(".wh.f", b""),
            file(".wh.g", b""),
            dir("g"),
            file("g/new", b"2"),
            file(".wh..wh.plnk/1.2", b"aufs"),
            dir("h"),
            file(".wh.h", b""),
            file(".wh.i", b""),
            file("i/j/k", b"2"),
        ])
        .unwrap();
    assert!(hides(&layer.join("d/x")) && hides(&layer.join("d/y")));
    assert!(opaque_at(&layer.join("e")) && layer.join("e/own").exists());
    assert_eq!(fs::read(layer.join("f")).unwrap(), b"2");
    assert!(opaque_at(&layer.join("g")) && opaque_at(&layer.join("h")) && opaque_at(&layer.join("i")), "what was hidden stays so");
    assert!(!layer.join(".wh..wh.plnk").exists() && !opaque(&layer));
    let whole = place.add([file(".wh..wh..opq", b""), file("only", b"3")]).unwrap();
    assert!(opaque(&whole));
}

#[test]
fn layers_are_one_tree_under_overlayfs() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let Some(mut place) = Place::new() else { return };
    place.add([dir("a").mode(0o700), file("a/old", b"1"), file("a/gone", b"1"), dir("b"), file("b/x", b"1"), file("c", b"1")]).unwrap();
    place.add([file("a/.wh.gone", b""), file("a/new", b"2"), dir("b"), file("b/.wh..wh..opq", b""), file("b/y", b"2"), file(".wh.c", b"")]).unwrap();
    let merged = place.dir.path().join("merged");
    fs::create_dir(&merged).unwrap();
    let lowers: Vec<&str> = place.layers.iter().rev().map(|path| path.to_str().unwrap()).collect();
    let options = format!("lowerdir={}", lowers.join(":"));
    if let Err(why) = mount(Some("overlay"), &merged, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str())) {
        eprintln!("no overlay mounts here ({why}): not tested");
        return;
    }
    let names = |path: &str| {
        let mut names: Vec<String> =
            fs::read_dir(merged.join(path)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let seen = (names(""), names("a"), names("b"), fs::metadata(merged.join("a")).unwrap().mode() & 0o7777);
    umount2(&merged, MntFlags::MNT_DETACH).unwrap();
    assert_eq!(seen, (vec!["a".into(), "b".into()], vec!["new".into(), "old".into()], vec!["y".into()], 0o700));
}

#[test]
fn hostile_entries_are_refused_by_rule() {
    use plan::Refused::*;
    let Some(mut place) = Place::new() else { return };
    let outside = place.dir.path().join("outside").to_str().unwrap().to_owned();
    let outer = place.dir.path().to_str().unwrap().to_owned();
    for (entries, why) in [
        (vec![file("../outside", b"x")], Traversal),
        (vec![file("a/../../outside", b"x")], Traversal),
        (vec![dir("..")], Traversal),
        (vec![file(".wh...", b"")], Whiteout),
        (vec![file("a/.wh..", b"")], Whiteout),
        (vec![file(".wh.", b"")], Whiteout),
        (vec![file(".wh.a/b", b"")], Whiteout),
        (vec![file("../.wh.outside", b"")], Traversal),
        (vec![link(b'2', "a", &outer), file("a/outside", b"x")], Symlinked),
        (vec![link(b'2', "a", "."), file("a/b", b"x")], Symlinked),
        (vec![link(b'2', "a", ".."), file("a/.wh.outside", b"")], Symlinked),
        (vec![link(b'2', "a", ".."), file("a/.wh..wh..opq", b"")], Symlinked),
        (vec![link(b'2', "a", ".."), dir("a/b/c")], Symlinked),
        (vec![link(b'2', "a", ".."), link(b'1', "b", "a/outside")], Symlinked),
        (vec![link(b'1', "b", "../outside")], Traversal),
        (vec![link(b'1', "b", &outside)], Link),
        (vec![dir("d"), link(b'1', "b", "d")], Link),
        (vec![file("d", b""), link(b'1', "d", "d")], Link),
        (vec![dir("d"), file("d/x", b""), link(b'1', "d", "d/x")], Link),
        (vec![link(b'1', "b", "/")], Link),
        (vec![file(".wh.w", b""), link(b'1', "b", "w")], Link),
        (vec![file("f", b""), file("f/x", b"")], NoDirectory),
        (vec![file("f", b""), dir("f/x/y")], NoDirectory),
        (vec![raw(b'3', "null")], Device),
        (vec![raw(b'4', "devil/sda")], Device),
        (vec![raw(b'3', "lib/dev/null")], Device),
        (vec![raw(b'9', "odd")], Kind(b'9')),
        (vec![file("/", b"x")], Root),
        (vec![link(b'2', "./", "/etc")], Root),
        (vec![raw(b'0', "")], Name),
        (vec![file("a", b"").pax("path", b"a\0b")], Name),
        (vec![link(b'2', "a", "")], Name),
        (vec![file(&"x".repeat(256), b"")], Long),
        (vec![file(&"d/".repeat(257), b"")], Long),
        (vec![file("a", b"").pax("uid", b"4294967295")], Owner(4_294_967_295, 0)),
        (vec![file("a", b"").pax("gid", b"-1")], Owner(0, -1)),
    ] {
        let first = entries[0].header.path_bytes().into_owned();
        assert_eq!(place.refused(entries), why, "{}", first.escape_ascii());
        assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 3, "the blob, the layer and what is outside of it");
    }
    // The same where the link is a layer below.
    place.add([link(b'2', "lib", "usr/lib"), dir("usr/lib")]).unwrap();
    assert_eq!(place.refused([file("lib/x", b"")]), Symlinked);
    place.add([dir("lib"), file("lib/x", b"")]).unwrap();
}

#[test]
fn later_entries_replace_earlier_ones_and_follow_no_link() {
    let Some(mut place) = Place::new() else { return };
    let outside = place.dir.path().join("outside").to_str().unwrap().to_owned();
    let layer = place
        .add([
            link(b'2', "f", &outside),
            file("f", b"new"),
            dir("d"),
            file("d/e/x", b""),
            file("d/e/y", b""),
            link(b'2', "d", &outside),
            dir("d"),
            file("d/z", b"2"),
            file("g", b"1"),
            link(b'1', "h", "g"),
            file("g", b"2"),
            link(b'2', "s", "nowhere"),
            link(b'1', "t", "s"),
        ])
        .unwrap();
    assert_eq!(fs::read(place.dir.path().join("outside")).unwrap(), b"untouched");
    assert_eq!(fs::read(layer.join("f")).unwrap(), b"new");
    assert_eq!(fs::read_dir(layer.join("d")).unwrap().count(), 1);
    assert_eq!((fs::read(layer.join("g")).unwrap(), fs::read(layer.join("h")).unwrap()), (b"2".to_vec(), b"1".to_vec()));
    assert_eq!(fs::read_link(layer.join("t")).unwrap(), Path::new("nowhere"));
}

#[test]
fn directories_that_are_not_mentioned_are_like_those_below() {
    let Some(mut place) = Place::new() else { return };
    place.add([dir("./").mode(0o711), dir("tmp").mode(0o1777).owner(1, 2), dir("tmp/a").mode(0o750)]).unwrap();
    place.add([dir("elsewhere")]).unwrap();
    let layer = place.add([file("tmp/a/b/c", b"")]).unwrap();
    let meta = |path: &str| fs::metadata(layer.join(path)).unwrap();
    assert_eq!((meta("tmp").mode() & 0o7777, meta("tmp").uid(), meta("tmp").mtime()), (0o1777, 1, 1_000_000_000));
    assert_eq!((meta("tmp/a").mode() & 0o7777, meta("tmp/a/b").mode() & 0o7777), (0o750, 0o755));
    assert_eq!(meta("").mode() & 0o7777, 0o711);
}

#[test]
fn bombs_are_refused_in_bytes_in_entries_and_in_ratio() {
    let Some(mut place) = Place::new() else { return };
    let zeros = |size: usize| tar([file("zeros", &vec![0; size])]);
    place.budget = Budget::new(1 << 20, 100);
    let large = zeros(2 << 20);
    let why = place.blob(&gzip(&large), &digest(&large)).unwrap_err();
    assert!(matches!(&why, Error::Invalid(why) if why.contains("unpacks to more than the 1048576 bytes")), "{why}");
    // All layers together.
    place.budget = Budget::new(3 << 20, 100);
    place.blob(&gzip(&large), &digest(&large)).unwrap();
    place.blob(&gzip(&large), &digest(&large)).unwrap_err();
    place.budget = Budget::default();
    let bomb = zeros(256 << 20);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bomb).unwrap();
    let (small, diff) = (encoder.finish().unwrap(), digest(&bomb));
    let why = place.blob(&small, &diff).unwrap_err();
    assert!(why.to_string().contains(&format!("more than the {} bytes", small.len() as u64 * RATIO.0 + RATIO.1)), "{why}");
    place.budget = Budget::new(1 << 30, 5);
    assert_eq!(place.refused((0..6).map(|n| file(&n.to_string(), b""))), plan::Refused::Entries(5));
}

#[test]
fn what_is_not_what_was_promised_is_refused() {
    let Some(mut place) = Place::new() else { return };
    let whole = tar([file("a", &[7; 5000])]);
    let diff = digest(&whole);
    assert!(place.blob(&whole, &digest(b"another")).unwrap_err().to_string().contains("digest"));
    // After the end mark.
    assert!(place.blob(&[&whole[..], b"more"].concat(), &diff).is_err());
    assert!(place.blob(&whole[..3000], &diff).unwrap_err().to_string().contains("ends in the middle"));
    assert!(place.blob(&whole[..300], &diff).is_err());
    assert!(place.blob(&gzip(&whole)[..40], &diff).is_err());
    let mut damaged = whole.clone();
    damaged[3] ^= 1;
    assert!(place.blob(&damaged, &digest(&damaged)).unwrap_err().to_string().contains("checksum"));
    assert!(place.blob(&[0xff; 2048], &digest(&[0xff; 2048])).is_err());
    for sparse in [raw(b'S', "s"), file("s", b"").pax("GNU.sparse.major", b"1")] {
        assert!(place.add([sparse]).unwrap_err().to_string().contains("sparse"));
    }
    // Nothing waits for it.
    let path = place.dir.path().join("blob");
    fs::write(&path, &whole).unwrap();
    let into = place.dir.path().join("cancelled");
    fs::create_dir(&into).unwrap();
    assert!(unpack(&path, &diff, &into, &[], &mut Budget::default(), &AtomicBool::new(true)).is_err());
    // By its first bytes, whatever it is called.
    for blob in [gzip(&whole), ruzstd::encoding::compress_to_vec(&*whole, ruzstd::encoding::CompressionLevel::Fastest)] {
        assert_eq!(fs::read(place.blob(&blob, &diff).unwrap().join("a")).unwrap(), [7; 5000]);
    }
}

#[test]
fn chains_are_of_all_that_is_below() {
    let (a, b) = (digest(b"a"), digest(b"b"));
    assert!(chain(&[]).is_empty());
    assert_eq!(chain(&[a.clone(), b.clone()]), [a.clone(), digest(format!("{a} {b}").as_bytes())]);
}

#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>, u32),
    Link(String),
    Dir(BTreeMap<String, Node>, u32),
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..2000), 0_u32..0o10000).prop_map(|(content, mode)| Node::File(content, mode)),
        "[a-z./]{1,30}".prop_map(Node::Link),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        (proptest::collection::btree_map("[a-zA-Z0-9 é._-]{1,60}[a-z]", inner, 0..5), 0_u32..0o10000).prop_map(|(map, mode)| Node::Dir(map, mode))
    })
}

fn entries(path: &str, node: &Node, list: &mut Vec<Raw>) {
    match node {
        Node::File(content, mode) => list.push(file(path, content).mode(*mode)),
        Node::Link(target) => list.push(link(b'2', path, target)),
        Node::Dir(map, mode) => {
            list.push(dir(&format!("{path}/")).mode(*mode));
            map.iter().for_each(|(name, node)| entries(&format!("{path}/{name}"), node, list));
        }
    }
}

fn compare(path: &Path, node: &Node) {
    let meta = fs::symlink_metadata(path).unwrap();
    assert_eq!(meta.mtime(), 1_000_000_000);
    match node {
        Node::File(content, mode) => assert_eq!((&fs::read(path).unwrap(), meta.permissions().mode() & 0o7777), (content, *mode)),
        Node::Link(target) => assert_eq!(fs::read_link(path).unwrap(), Path::new(target)),
        Node::Dir(map, mode) => {
            assert_eq!((fs::read_dir(path).unwrap().count(), meta.permissions().mode() & 0o7777), (map.len(), *mode));
            map.iter().for_each(|(name, node)| compare(&path.join(name), node));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_is_the_same_again(node in node(), compress: bool) {
        let Some(mut place) = Place::new() else { return Ok(()) };
        let mut list = Vec::new();
        entries("root", &node, &mut list);
        let tar = tar(list);
        let layer = place.blob(&if compress { gzip(&tar) } else { tar.clone() }, &digest(&tar)).unwrap();
        compare(&layer.join("root"), &node);
    }
}
