//! What registries say and images hold.

use crate::text;
use coracle_node::images::{
    component::{self, Layer},
    credentials::Keyring,
    floating,
    layer::{
        plan::{Count, Inside, Op, plan},
        tar::Entries,
    },
    manifest::{Config, Content, choose, content, read, total},
    parse,
    store::{Store, hex},
};
use oci_client::manifest::OciManifest;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, io::Read, os::unix::ffi::OsStrExt, path::Component};
use tempfile::TempDir;

/// Manifests, indexes and configs.
pub fn manifests(data: &[u8]) {
    match read(data) {
        Ok(OciManifest::Image(manifest)) => match content(&manifest, "i") {
            Ok(Content::Wasm(layer)) => assert!(layer.media_type.contains("wasm") && manifest.layers.iter().any(|l| std::ptr::eq(l, layer))),
            Ok(Content::Layers(layers)) => {
                assert!((1..=128).contains(&layers.len()) && layers.iter().all(|l| l.media_type.contains("tar")));
                if let Ok(all) = total(layers, 1 << 30, "i") {
                    assert!(all <= 1 << 30 && layers.iter().all(|layer| (0..=all as i64).contains(&layer.size)));
                }
            }
            Err(error) => assert!(matches!(error.reason, "ErrImagePull" | "UnsupportedImage")),
        },
        Ok(OciManifest::ImageIndex(index)) => {
            if let Some(chosen) = choose(&index) {
                assert!(chosen.platform.as_ref().is_none_or(|platform| platform.architecture.to_string() != "s390x"));
            }
        }
        Err(why) => assert!(!why.is_empty()),
    }
    if let Ok(config) = Config::read(data) {
        assert!(config.run.env.iter().all(|(name, _)| !name.contains('=')));
    }
}

thread_local! {
    static STORE: (TempDir, Store) = {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path()).expect("a store");
        (dir, store)
    };
}

/// A tar, compressed or not.
pub fn layers(data: &[u8]) {
    STORE.with(|(dir, store)| {
        let path = dir.path().join("layer");
        fs::write(&path, data).expect("a layer");
        let media_type = match data {
            [0x1f, 0x8b, ..] => "l.tar+gzip",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "l.tar+zstd",
            _ => "l.tar",
        };
        let found = component::find(store, "i", &[Layer { path: &path, media_type }]);
        if let Ok((digest, size)) = found {
            let blob = fs::read(store.blob(&digest).expect("a digest")).expect("it was kept");
            assert!(blob.len() as u64 == size && blob.starts_with(b"\0asm"));
            assert_eq!(digest, format!("sha256:{}", hex(&Sha256::digest(&blob))));
        }
        let names = |folder: &str| -> Vec<_> {
            let entries = fs::read_dir(dir.path().join(folder)).expect("a folder");
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect()
        };
        let mut top = names("");
        top.sort();
        assert_eq!(top, ["images", "layer"], "nothing is written elsewhere");
        for name in names("images/blobs/sha256") {
            assert!(name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name} is left over");
        }
        store.sweep().expect("blobs without a name go");
    });
}

/// A tar: whatever is in it, what is to be done stays within the image.
pub fn entries(data: &[u8]) {
    let inside = |at: &Inside| {
        let path = at.path();
        let plain = path.components().all(|part| matches!(part, Component::Normal(name) if name.len() <= 255 && !name.as_bytes().contains(&0)));
        assert!(plain && path.as_os_str().len() < 4096, "{path:?}");
    };
    let named = |at: &Inside| {
        inside(at);
        assert!(at.path().iter().all(|name| !name.as_bytes().starts_with(b".wh.")), "{at:?} is a whiteout");
    };
    let (mut entries, mut count, mut seen) = (Entries::new(data), Count::new(50), 0);
    while let Ok(Some(entry)) = entries.next() {
        seen += 512;
        assert!(seen <= data.len(), "entries out of nothing");
        let Ok(op) = plan(&entry, &mut count) else { continue };
        match &op {
            Op::Directory(at, meta) | Op::File(at, meta) | Op::Fifo(at, meta) => {
                named(at);
                let kept = |(name, _): &(Vec<u8>, Vec<u8>)| name == b"security.capability" || name.starts_with(b"user.");
                assert!(meta.mode <= 0o7777 && meta.uid != u32::MAX && meta.gid != u32::MAX && meta.xattrs.iter().all(kept));
                assert!(matches!(op, Op::Directory(..)) || at.split().is_some(), "the root is a directory");
            }
            Op::Symlink(at, target, _) => {
                named(at);
                assert!(at.split().is_some() && !target.as_os_str().is_empty() && !target.as_os_str().as_bytes().contains(&0));
            }
            Op::Hardlink(at, target) => {
                named(at);
                named(target);
                assert!(at != target && target.split().is_some());
            }
            Op::Whiteout(at) => {
                inside(at);
                assert!(at.split().is_some());
            }
            Op::Opaque(at) => inside(at),
            Op::Skip => {}
        }
        let mut content = Vec::new();
        if entries.read_to_end(&mut content).is_ok() {
            assert_eq!(content.len() as u64, entry.size);
        }
    }
}

/// A `.dockerconfigjson`, and the older form.
pub fn pull_secrets(data: &[u8]) {
    for key in [".dockerconfigjson", ".dockercfg"] {
        let mut keyring = Keyring::default();
        keyring.add(&BTreeMap::from([(key.to_string(), data.to_vec())]));
        let found = keyring.find("docker.io", "library/hello");
        assert!(found.len() <= data.len());
        assert_eq!(found, keyring.find("https://index.docker.io/v1/", "library/hello"), "one registry under all its names");
    }
}

/// Names of images.
pub fn references(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(reference) = parse(text) {
        let whole = reference.whole();
        let back = parse(&whole).unwrap_or_else(|e| panic!("{whole}: {e}"));
        assert_eq!(back.whole(), whole);
        assert_eq!(floating(text), floating(&whole), "{text:?} is {whole:?}");
    }
}
