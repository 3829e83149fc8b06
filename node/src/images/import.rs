//! Images from files: a .wasm, an archive of `docker save` (or podman's), an OCI image layout as a tar; compressed or not.
//!
//! An archive is read once, as a stream: its members go into the content store under their own digests, and what its index says is looked up there. So nothing in
//! it has to be trusted or in order, and what the index does not lead to is swept away at the end.

use super::{
    Error, component,
    layer::{self, Budget, tar},
    manifest::{self, Config, Content, Nature},
    parse,
    pull::{COMPRESSED, DOCUMENT},
    snapshots::Stack,
    store::{LARGEST, Named, Store, Stored, WASM_CONFIG, WASM_LAYER, digest_of, failed},
};
use coracle_runtime::ImageConfig;
use oci_client::manifest::{ImageIndexEntry, OciImageIndex, OciImageManifest, OciManifest};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::atomic::AtomicBool,
};

/// Members of an archive.
const MEMBERS: usize = 10_000;
/// Indexes within indexes, links to links.
const DEPTH: usize = 8;
/// The config of an imported component.
const CONFIG: &[u8] = br#"{"architecture":"wasm","os":"wasip2"}"#;

/// Imports all images of the file, or the one under that name.
pub fn import(store: &Store, file: &Path, name: Option<&str>) -> Result<Vec<Named>, Error> {
    if let Some(name) = name
        && parse(name)?.digest().is_some()
    {
        return Err(Error::new("InvalidImageName", format!("import {name}: name it NAME:TAG; its digest follows from its content")));
    }
    let lock = store.lock()?;
    let mut source = File::open(file).map_err(|e| failed("open", file, &e))?;
    let mut magic = Vec::new();
    source.by_ref().take(4).read_to_end(&mut magic).map_err(|e| failed("read", file, &e))?;
    let source = io::Cursor::new(magic.clone()).chain(source);
    let done = match &*magic {
        b"\0asm" => one_component(store, file, source, name).map(|named| vec![named]),
        _ => Archive::read(store, file, BufReader::new(source)).and_then(|archive| archive.images(name)),
    };
    drop(lock);
    // Members that belong to no image.
    store.sweep()?;
    done
}

fn one_component(store: &Store, file: &Path, mut source: impl Read, name: Option<&str>) -> Result<Named, Error> {
    let name = name.ok_or_else(|| Error::new("InvalidImageName", format!("import {}: give it a name with --name NAME:TAG", file.display())))?;
    let mut incoming = store.incoming(LARGEST)?;
    io::copy(&mut source, &mut incoming).map_err(|e| failed("import", file, &e))?;
    let (wasm, size) = incoming.keep_wasm(&file.display().to_string())?;
    let json = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": WASM_CONFIG, "digest": store.put(CONFIG)?, "size": CONFIG.len() },
        "layers": [{ "mediaType": WASM_LAYER, "digest": wasm, "size": size }],
    });
    let manifest = store.put(json.to_string().as_bytes())?;
    record(store, name, manifest, Stored { wasm, layers: Vec::new(), size }, ImageConfig::default())
}

fn record(store: &Store, name: &str, manifest: String, content: Stored, config: ImageConfig) -> Result<Named, Error> {
    let Stored { wasm, layers, size } = content;
    let (reference, created) = (parse(name)?.whole(), crate::pods::time::Time::now().rfc3339());
    let named = Named { version: 1, reference, manifest, wasm, layers, imported: true, size, config, created };
    store.record(&named)?;
    Ok(named)
}

enum Member {
    Blob(String, u64),
    Link(String),
}

struct Archive<'a> {
    store: &'a Store,
    file: &'a Path,
    members: HashMap<String, Member>,
}

/// `manifest.json` of `docker save`: one of its images.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl<'a> Archive<'a> {
    fn read(store: &'a Store, file: &'a Path, source: impl io::BufRead + 'static) -> Result<Self, Error> {
        let odd = |why: String| {
            let message = format!("{} is no WebAssembly file: it does not begin with \\0asm; and no archive of images: {why}", file.display());
            Error::new("InvalidImage", message)
        };
        let source = layer::decoded(source).map_err(|e| odd(e.to_string()))?;
        let mut entries = tar::Entries::new(source.take(layer::TOTAL));
        let mut members = HashMap::new();
        while let Some(entry) = entries.next().map_err(|e| odd(e.to_string()))? {
            let Some(path) = within("", Path::new(OsStr::from_bytes(&entry.path))) else { continue };
            if members.len() >= MEMBERS {
                return Err(odd(format!("it has more than the {MEMBERS} members that are allowed")));
            }
            let target = |folder: &str| within(folder, Path::new(OsStr::from_bytes(&entry.link)));
            let member = match entry.kind {
                tar::Kind::File => {
                    let mut incoming = store.incoming(COMPRESSED)?;
                    io::copy(&mut entries, &mut incoming).map_err(|e| failed("import", file, &e))?;
                    let (digest, size) = incoming.keep(None)?;
                    Member::Blob(digest, size)
                }
                tar::Kind::Hardlink => target("").map(Member::Link).ok_or_else(|| odd(format!("{path:?} links out of it")))?,
                tar::Kind::Symlink => {
                    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                    target(folder).map(Member::Link).ok_or_else(|| odd(format!("{path:?} links out of it")))?
                }
                _ => continue,
            };
            members.insert(path, member);
        }
        if members.is_empty() {
            return Err(odd("it is empty".into()));
        }
        Ok(Self { store, file, members })
    }

    fn wrong(&self, why: impl std::fmt::Display) -> Error {
        Error::new("InvalidImage", format!("import {}: {why}", self.file.display()))
    }

    fn images(&self, name: Option<&str>) -> Result<Vec<Named>, Error> {
        if self.members.contains_key("index.json") {
            return self.layout(name);
        }
        if self.members.contains_key("manifest.json") {
            return self.saved(name);
        }
        Err(self.wrong("it holds neither index.json (an OCI image layout) nor manifest.json (docker save)"))
    }

    /// OCI image layout.
    fn layout(&self, name: Option<&str>) -> Result<Vec<Named>, Error> {
        let index: OciImageIndex = self.json("index.json")?;
        let mut images: BTreeMap<String, Vec<ImageIndexEntry>> = BTreeMap::new();
        if let Some(name) = name {
            images.insert(name.into(), index.manifests);
        } else {
            for entry in index.manifests {
                let said = |key: &str| entry.annotations.as_ref().and_then(|notes| notes.get(key)).cloned();
                // The second may be no more than a tag.
                let own =
                    said("io.containerd.image.name").or_else(|| said("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/'])));
                if let Some(own) = own {
                    images.entry(own).or_default().push(entry);
                }
            }
        }
        if images.is_empty() {
            return Err(self.wrong("its images have no names; give one with --name NAME:TAG"));
        }
        images.into_iter().map(|(name, entries)| self.indexed(&name, entries)).collect()
    }

    fn indexed(&self, name: &str, mut entries: Vec<ImageIndexEntry>) -> Result<Named, Error> {
        for _ in 0..DEPTH {
            let index = OciImageIndex { schema_version: 2, media_type: None, manifests: entries, artifact_type: None, annotations: None };
            let platform = || self.wrong(format!("image {name} has nothing for linux/{}", crate::machine::architecture()));
            let entry = manifest::choose(&index).ok_or_else(platform)?;
            let bytes = self.blob(&entry.digest, DOCUMENT as u64)?;
            match manifest::read(&bytes).map_err(|why| self.wrong(format!("the manifest of {name}: {why}")))? {
                OciManifest::Image(manifest) => return self.image(name, &manifest, digest_of(&bytes)),
                OciManifest::ImageIndex(index) => entries = index.manifests,
            }
        }
        Err(self.wrong(format!("image {name} is an index of indexes more than {DEPTH} deep")))
    }

    /// `docker save`: the manifest is made here, as a registry would have it.
    fn saved(&self, name: Option<&str>) -> Result<Vec<Named>, Error> {
        let saved: Vec<Saved> = self.json("manifest.json")?;
        if name.is_some() && saved.len() != 1 {
            return Err(self.wrong(format!("it holds {} images; leave --name out, they have names of their own", saved.len())));
        }
        let mut all = Vec::new();
        for image in saved {
            let names = match name {
                Some(name) => vec![name.to_owned()],
                None => image.repo_tags.unwrap_or_default(),
            };
            if names.is_empty() {
                return Err(self.wrong("an image in it has no name; give one with --name NAME:TAG"));
            }
            let layers = image.layers.iter().map(|path| {
                let (digest, size) = self.member(path)?;
                Ok(json!({ "mediaType": self.media_type(&digest)?, "digest": digest, "size": size }))
            });
            let layers = layers.collect::<Result<Vec<_>, Error>>()?;
            let (config, size) = self.member(&image.config)?;
            let json = json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size }, "layers": layers,
            });
            let digest = self.store.put(json.to_string().as_bytes())?;
            let manifest: OciImageManifest = serde_json::from_value(json).map_err(|e| self.wrong(e))?;
            for name in names {
                all.push(self.image(&name, &manifest, digest.clone())?);
            }
        }
        Ok(all)
    }

    /// All of it is in the store.
    fn image(&self, name: &str, manifest: &OciImageManifest, digest: String) -> Result<Named, Error> {
        if parse(name)?.digest().is_some() {
            return Err(Error::new("InvalidImageName", format!("import {name}: name it NAME:TAG; its digest follows from its content")));
        }
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            let size = self.store.blob(&blob.digest).and_then(|path| path.metadata().ok()).map(|meta| meta.len());
            match size {
                Some(size) if i64::try_from(size) == Ok(blob.size) => {}
                Some(size) => return Err(self.wrong(format!("{} has {size} bytes where {} were promised", blob.digest, blob.size))),
                None => return Err(self.wrong(format!("image {name} needs {}, which is not in it", blob.digest))),
            }
        }
        let config = if manifest::has_config(manifest) { self.store.config(&manifest.config.digest, name)? } else { Config::default() };
        let component = |(wasm, size)| Stored { wasm, layers: Vec::new(), size };
        let content = match manifest::content(manifest, name)? {
            Content::Wasm(layer) => {
                let blob = self.open(&layer.digest)?;
                let mut incoming = self.store.incoming(LARGEST)?;
                io::copy(&mut &blob, &mut incoming).map_err(|e| failed("import", self.file, &e))?;
                component(incoming.keep_wasm(&format!("the layer of image {name}"))?)
            }
            Content::Layers(_) => match manifest::nature(&config) {
                Nature::Component => component(self.component(name, manifest)?),
                Nature::Container => self.container(name, manifest, &config)?,
                Nature::Unclear => match self.component(name, manifest) {
                    Err(why) if why.reason == "UnsupportedImage" => self.container(name, manifest, &config)?,
                    found => component(found?),
                },
            },
        };
        record(self.store, name, digest, content, config.run)
    }

    fn component(&self, name: &str, manifest: &OciImageManifest) -> Result<(String, u64), Error> {
        let paths: Vec<(PathBuf, &str)> =
            manifest.layers.iter().filter_map(|layer| Some((self.store.blob(&layer.digest)?, &*layer.media_type))).collect();
        let layers: Vec<component::Layer> = paths.iter().map(|(path, media_type)| component::Layer { path, media_type }).collect();
        component::find(self.store, name, &layers)
    }

    fn container(&self, name: &str, manifest: &OciImageManifest, config: &Config) -> Result<Stored, Error> {
        if !rustix::process::geteuid().is_root() {
            let message = format!(
                "image {name} is a container image, whose files have owners: import it as root; without root this machine runs WebAssembly only"
            );
            return Err(Error::new("UnsupportedImage", message));
        }
        manifest::runs_here(config, name)?;
        let stack = Stack::new(name, config, &manifest.layers, self.store)?;
        let size = manifest::total(&manifest.layers, COMPRESSED, name)?;
        let mut budget = Budget::default();
        for (index, layer) in manifest.layers.iter().enumerate() {
            let blob = self.store.blob(&layer.digest).ok_or_else(|| self.wrong("a layer has no sha256 digest"))?;
            self.store.unpack(&stack, index, &blob, &mut budget, &AtomicBool::new(false))?;
        }
        Ok(Stored { wasm: String::new(), layers: self.store.settle(&stack)?, size })
    }

    fn member(&self, path: &str) -> Result<(String, u64), Error> {
        let mut path = path.to_owned();
        for _ in 0..DEPTH {
            match self.members.get(&path) {
                Some(Member::Blob(digest, size)) => return Ok((digest.clone(), *size)),
                Some(Member::Link(target)) => path = target.clone(),
                None => break,
            }
        }
        Err(self.wrong(format!("{path:?} is not in it")))
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, Error> {
        let (digest, _) = self.member(path)?;
        let bytes = self.blob(&digest, DOCUMENT as u64)?;
        serde_json::from_slice(&bytes).map_err(|e| self.wrong(format!("{path}: {e}")))
    }

    fn open(&self, digest: &str) -> Result<File, Error> {
        let path = self.store.blob(digest).ok_or_else(|| self.wrong(format!("{digest:?} is no sha256 digest")))?;
        File::open(&path).map_err(|_| self.wrong(format!("{digest} is not in it")))
    }

    fn blob(&self, digest: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.open(digest)?.take(limit + 1).read_to_end(&mut bytes).map_err(|e| failed("import", self.file, &e))?;
        match bytes.len() as u64 > limit {
            true => Err(self.wrong(format!("{digest} has more than the {limit} bytes that are allowed"))),
            false => Ok(bytes),
        }
    }

    fn media_type(&self, digest: &str) -> Result<&'static str, Error> {
        let mut magic = Vec::new();
        self.open(digest)?.take(4).read_to_end(&mut magic).map_err(|e| failed("import", self.file, &e))?;
        Ok(match &*magic {
            [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
            [0x28, 0xb5, 0x2f, 0xfd] => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar",
        })
    }
}

/// A member's path as the index writes it; none for what leads out of the archive.
fn within(folder: &str, path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => _ = parts.pop()?,
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}
