//! What registries say and images hold.

use crate::text;
use coracle_node::images::{
    component::{self, Layer},
    credentials::Keyring,
    floating,
    manifest::{Config, Content, choose, content},
    parse,
    store::{Store, hex},
};
use oci_client::manifest::OciManifest;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs};
use tempfile::TempDir;

/// Manifests, indexes and configs.
pub fn manifests(data: &[u8]) {
    match serde_json::from_slice(data) {
        Ok(OciManifest::Image(manifest)) => match content(&manifest, "i") {
            Ok(Content::Wasm(layer)) => assert!(layer.media_type.contains("wasm") && manifest.layers.iter().any(|l| std::ptr::eq(l, layer))),
            Ok(Content::Layers(layers)) => assert!((1..=128).contains(&layers.len()) && layers.iter().all(|l| l.media_type.contains("tar"))),
            Err(error) => assert!(matches!(error.reason, "ErrImagePull" | "UnsupportedImage")),
        },
        Ok(OciManifest::ImageIndex(index)) => assert_eq!(choose(&index).is_none(), index.manifests.is_empty()),
        Err(_) => {}
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
