//! What a registry says about an image, and what of it is wanted. Pure: bytes of others in, decisions out.

use super::{Error, store::WASM_LAYER};
use coracle_runtime::ImageConfig;
use oci_client::manifest::{ImageIndexEntry, OciDescriptor, OciImageIndex, OciImageManifest, OciManifest};
use serde::{Deserialize, de::IgnoredAny};
use std::collections::BTreeMap;

/// Layers of one image.
const LAYERS: usize = 128;
/// Layers that are a .wasm as they are.
const WASM_LAYERS: [&str; 4] = [
    WASM_LAYER,
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

const MANIFESTS: &[&str] = &["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: &[&str] = &["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Architectures of what runs on every machine.
const WASM: [&str; 2] = ["wasm", "wasm32"];

/// What may be asked for.
pub fn accepted() -> Vec<&'static str> {
    [MANIFESTS, INDEXES].concat()
}

/// Where an image's .wasm is.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In a layer of its own.
    Wasm(&'a OciDescriptor),
    /// Somewhere in these tar layers.
    Layers(&'a [OciDescriptor]),
}

/// A manifest or an index, of OCI or Docker.
///
/// # Errors
/// It is neither, or both: what is one thing to one reader and another to the next is refused (CVE-2021-41190).
pub fn read(bytes: &[u8]) -> Result<OciManifest, String> {
    #[derive(Deserialize)]
    struct Either {
        layers: Option<IgnoredAny>,
        manifests: Option<IgnoredAny>,
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let either: Either = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let said = either.media_type.as_deref().unwrap_or_default();
    let index = match (either.layers.is_some(), either.manifests.is_some()) {
        (true, true) => return Err("it is both a manifest and an index".into()),
        (false, false) => return Err("it is neither a manifest nor an index of such".into()),
        (_, index) => index,
    };
    let known = if index { INDEXES } else { MANIFESTS };
    if !said.is_empty() && !known.contains(&said) {
        return Err(format!("it says that it is of type {said:?}, and is not, or is not supported"));
    }
    match index {
        true => serde_json::from_slice(bytes).map(OciManifest::ImageIndex).map_err(|e| e.to_string()),
        false => serde_json::from_slice(bytes).map(OciManifest::Image).map_err(|e| e.to_string()),
    }
}

/// The manifest for this machine among an index's: for wasm, else for its operating system and architecture, the nearest variant first, else one that says
/// nothing of its platform. None that says to be for another.
pub fn choose(index: &OciImageIndex) -> Option<&ImageIndexEntry> {
    choose_for(index, crate::machine::architecture())
}

fn choose_for<'a>(index: &'a OciImageIndex, own: &str) -> Option<&'a ImageIndexEntry> {
    let rank = |entry: &ImageIndexEntry| {
        let Some(platform) = &entry.platform else { return Some(99) };
        let (os, architecture) = (platform.os.to_string(), platform.architecture.to_string());
        if WASM.contains(&&*architecture) {
            return Some(0);
        }
        if os != "linux" || architecture != own {
            return None;
        }
        // A machine runs what older ones do. What newer ones are is not looked up: the plain one is there as well.
        let variants: &[&str] = match own {
            "arm64" => &["v8", ""],
            "arm" => &["v7", "", "v6", "v5"],
            "amd64" => &["", "v1"],
            _ => &[""],
        };
        variants.iter().position(|variant| *variant == platform.variant.as_deref().unwrap_or_default()).map(|at| at + 1)
    };
    index.manifests.iter().filter_map(|entry| Some((rank(entry)?, entry))).min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
}

/// Where the .wasm is, by the layers' types, since some tools write an unknown config type. `reference` names the image in errors.
pub fn content<'a>(manifest: &'a OciImageManifest, reference: &str) -> Result<Content<'a>, Error> {
    let wasm: Vec<&OciDescriptor> = manifest.layers.iter().filter(|l| WASM_LAYERS.contains(&l.media_type.as_str())).collect();
    let unsupported = |message: String| Err(Error::new("UnsupportedImage", message));
    match wasm.as_slice() {
        [layer] => return Ok(Content::Wasm(layer)),
        [] => {}
        many => return unsupported(format!("image {reference} has {} wasm layers; it must have exactly one", many.len())),
    }
    if manifest.layers.is_empty() || manifest.layers.len() > LAYERS {
        let message = format!("image {reference} has {} layers; 1 to {LAYERS} are allowed", manifest.layers.len());
        return Err(Error::new("ErrImagePull", message));
    }
    if let Some(odd) = manifest.layers.iter().find(|l| !l.media_type.contains("tar") || l.media_type.ends_with("encrypted")) {
        return unsupported(format!(
            "image {reference} has a layer of type {}, which is neither WebAssembly nor a tar that can be read",
            odd.media_type
        ));
    }
    Ok(Content::Layers(&manifest.layers))
}

/// The bytes of layers together, which may be so many.
pub fn total(layers: &[OciDescriptor], allowed: u64, reference: &str) -> Result<u64, Error> {
    let all = layers.iter().fold(0_i64, |all, layer| all.saturating_add(layer.size.max(0)));
    match u64::try_from(all) {
        Ok(all) if all <= allowed && layers.iter().all(|layer| layer.size >= 0) => Ok(all),
        _ => Err(Error::new("ErrImagePull", format!("the layers of image {reference} have {all} bytes together; {allowed} are allowed"))),
    }
}

/// What an image of tars is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// One .wasm file in tars.
    Component,
    /// The root file system of a container.
    Container,
    /// It does not say: a component if it holds one .wasm file.
    Unclear,
}

/// By its platform, else by what it runs.
pub fn nature(config: &Config) -> Nature {
    if WASM.contains(&&*config.architecture) || config.os.starts_with("wasi") {
        return Nature::Component;
    }
    match config.run.entrypoint.first().or(config.run.cmd.first()) {
        Some(program) if program.ends_with(".wasm") => Nature::Component,
        Some(_) => Nature::Container,
        None => Nature::Unclear,
    }
}

/// Whether a container of that config can run on this machine.
pub fn runs_here(config: &Config, reference: &str) -> Result<(), Error> {
    let own = crate::machine::architecture();
    let like = |said: &str, own: &str| said.is_empty() || said == own;
    match like(&config.os, "linux") && like(&config.architecture, own) {
        true => Ok(()),
        false => {
            let (os, architecture) = (&config.os, &config.architecture);
            let message = format!("image {reference} is for {os:?} on {architecture:?}, and this node is \"linux\" on {own:?}");
            Err(Error::new("ErrImagePull", message))
        }
    }
}

/// Whether an image's config is one that [`Config`] reads.
pub fn has_config(manifest: &OciImageManifest) -> bool {
    let kind = &manifest.config.media_type;
    kind.contains("image.config") || kind.contains("container.image")
}

/// An image's config (`application/vnd.oci.image.config.v1+json`, or Docker's).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How it is run.
    pub run: ImageConfig,
    /// `linux`, `wasip2`, …; empty when it does not say.
    pub os: String,
    /// `amd64`, `wasm`, …; empty when it does not say.
    pub architecture: String,
    /// Digests of the layers as plain tars, the lowest first.
    pub diff_ids: Vec<String>,
}

impl Config {
    /// Reads it. Null, or nothing, is as good as empty.
    pub fn read(json: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Image {
            config: Option<Run>,
            os: Option<String>,
            architecture: Option<String>,
            rootfs: Option<RootFs>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct RootFs {
            diff_ids: Option<Vec<String>>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "PascalCase")]
        struct Run {
            entrypoint: Option<Vec<String>>,
            cmd: Option<Vec<String>>,
            env: Option<Vec<String>>,
            working_dir: Option<String>,
            user: Option<String>,
            exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
            stop_signal: Option<String>,
            labels: Option<BTreeMap<String, String>>,
            volumes: Option<BTreeMap<String, IgnoredAny>>,
        }
        let image: Image = serde_json::from_slice(json)?;
        let run = image.config.unwrap_or_default();
        let env = run.env.unwrap_or_default();
        Ok(Self {
            run: ImageConfig {
                entrypoint: run.entrypoint.unwrap_or_default(),
                cmd: run.cmd.unwrap_or_default(),
                env: env.iter().filter_map(|e| e.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect(),
                working_dir: run.working_dir.unwrap_or_default(),
                user: run.user.unwrap_or_default(),
                exposed_ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
                stop_signal: run.stop_signal.unwrap_or_default(),
                labels: run.labels.unwrap_or_default(),
                volumes: run.volumes.unwrap_or_default().into_keys().collect(),
            },
            os: image.os.unwrap_or_default(),
            architecture: image.architecture.unwrap_or_default(),
            diff_ids: image.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn manifest(layers: Value) -> OciImageManifest {
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:1", "size": 2});
        serde_json::from_value(json!({"schemaVersion": 2, "config": config, "layers": layers})).unwrap()
    }

    fn layer(kind: &str) -> Value {
        json!({"mediaType": kind, "digest": "sha256:1", "size": 1})
    }

    #[test]
    fn one_wasm_layer_or_tars() {
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        let both = manifest(json!([layer(tar), layer("application/wasm")]));
        assert!(matches!(content(&both, "i"), Ok(Content::Wasm(found)) if found.media_type == "application/wasm"));
        let tars = manifest(json!([layer(tar), layer(tar)]));
        assert!(matches!(content(&tars, "i"), Ok(Content::Layers(found)) if found.len() == 2));
        for (layers, reason) in [
            (json!([layer("application/wasm"), layer("application/wasm")]), "UnsupportedImage"),
            (json!([layer("text/html")]), "UnsupportedImage"),
            (json!([]), "ErrImagePull"),
            ((0..=LAYERS).map(|_| layer(tar)).collect(), "ErrImagePull"),
        ] {
            assert_eq!(content(&manifest(layers), "i").unwrap_err().reason, reason);
        }
    }

    #[test]
    fn wasm_is_preferred_in_an_index() {
        let entry = |arch: &str| json!({"mediaType": "m", "digest": arch, "size": 1, "platform": {"architecture": arch, "os": "linux"}});
        let index = |entries: Value| serde_json::from_value::<OciImageIndex>(json!({"schemaVersion": 2, "manifests": entries})).unwrap();
        let own = crate::machine::architecture();
        let chosen = |entries| choose(&index(entries)).map(|entry| entry.digest.clone());
        assert_eq!(chosen(json!([entry("s390x"), entry(own), entry("wasm")])).as_deref(), Some("wasm"));
        assert_eq!(chosen(json!([entry("s390x"), entry(own)])).as_deref(), Some(own));
        assert_eq!(chosen(json!([entry("s390x")])), None, "what is for other machines");
        let plain = json!({"mediaType": "m", "digest": "plain", "size": 1});
        assert_eq!(chosen(json!([entry("s390x"), plain, entry(own)])).as_deref(), Some(own));
        assert_eq!(chosen(json!([entry("s390x"), plain])).as_deref(), Some("plain"));
        assert_eq!(chosen(json!([])), None);
    }

    #[test]
    fn a_config_may_lack_anything() {
        let full = Config::read(br#"{"config":{"Entrypoint":["a"],"Cmd":["b"],"Env":["K=v=w","X"]}}"#).unwrap();
        assert_eq!((full.run.entrypoint, full.run.cmd), (vec!["a".into()], vec!["b".into()]));
        assert_eq!(full.run.env, [("K".into(), "v=w".into())]);
        let more = r#"{"os":"linux","architecture":"amd64","config":{"User":"1:2","WorkingDir":"/w","StopSignal":"3","Volumes":{"/v":{}},"ExposedPorts":{"80/tcp":{}},
            "Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":["sha256:1"]}}"#;
        let more = Config::read(more.as_bytes()).unwrap();
        assert_eq!((&*more.os, &*more.architecture, more.diff_ids), ("linux", "amd64", vec!["sha256:1".into()]));
        let run = more.run;
        assert_eq!((&*run.user, &*run.working_dir, &*run.stop_signal), ("1:2", "/w", "3"));
        assert_eq!((run.volumes, run.exposed_ports, run.labels), (vec!["/v".into()], vec!["80/tcp".into()], [("a".into(), "b".into())].into()));
        for empty in ["{}", r#"{"config":null}"#, r#"{"config":{"Cmd":null}}"#] {
            assert_eq!(Config::read(empty.as_bytes()).unwrap(), Config::default());
        }
        assert!(Config::read(b"7").is_err());
    }

    #[test]
    fn the_nearest_variant_is_chosen() {
        let entry = |os: &str, arch: &str, variant: &str| json!({"mediaType": "m", "digest": format!("{os}/{arch}/{variant}"), "size": 1, "platform": {"architecture": arch, "os": os, "variant": variant}});
        let entries = json!([
            entry("windows", "amd64", ""),
            entry("linux", "amd64", "v3"),
            entry("linux", "arm", "v5"),
            entry("linux", "arm", "v6"),
            entry("linux", "arm64", "v8"),
            entry("linux", "arm", "v8"),
            entry("linux", "amd64", ""),
        ]);
        let index: OciImageIndex = serde_json::from_value(json!({"schemaVersion": 2, "manifests": entries})).unwrap();
        for (own, digest) in [("amd64", Some("linux/amd64/")), ("arm64", Some("linux/arm64/v8")), ("arm", Some("linux/arm/v6")), ("riscv64", None)] {
            assert_eq!(choose_for(&index, own).map(|entry| &*entry.digest), digest, "{own}");
        }
    }

    #[test]
    fn what_is_two_things_at_once_is_refused() {
        let parse = |text: Value| read(text.to_string().as_bytes());
        let config = json!({"mediaType": "c", "digest": "sha256:1", "size": 2});
        assert!(matches!(parse(json!({"schemaVersion": 2, "config": config, "layers": []})), Ok(OciManifest::Image(_))));
        assert!(matches!(parse(json!({"schemaVersion": 2, "manifests": [], "mediaType": INDEXES[1]})), Ok(OciManifest::ImageIndex(_))));
        assert!(parse(json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []})).unwrap_err().contains("both"));
        assert!(parse(json!({"schemaVersion": 2, "config": config, "layers": [], "mediaType": INDEXES[0]})).unwrap_err().contains("is not"));
        assert!(parse(json!({"schemaVersion": 1, "fsLayers": []})).unwrap_err().contains("neither"));
    }

    #[test]
    fn wasm_or_container_by_platform_and_by_what_is_run() {
        let of = |text: &str| nature(&Config::read(text.as_bytes()).unwrap());
        for (text, what) in [
            (r#"{"architecture":"wasm","os":"wasip1","config":{"Cmd":["/app"]}}"#, Nature::Component),
            (r#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/app.wasm","x"]}}"#, Nature::Component),
            (r#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/bin/sh"],"Cmd":["a.wasm"]}}"#, Nature::Container),
            (r#"{"architecture":"amd64","os":"linux"}"#, Nature::Unclear),
        ] {
            assert_eq!(of(text), what, "{text}");
        }
        let foreign = Config::read(br#"{"architecture":"s390x","os":"linux"}"#).unwrap();
        assert!(runs_here(&foreign, "i").unwrap_err().message.contains("s390x"));
        assert!(runs_here(&Config::default(), "i").is_ok());
    }

    #[test]
    fn sizes_are_added_up_and_bounded() {
        let of = |sizes: [i64; 2]| manifest(sizes.map(|size| json!({"mediaType": "t", "digest": "d", "size": size})).as_slice().into());
        assert_eq!(total(&of([3, 4]).layers, 7, "i").unwrap(), 7);
        for sizes in [[3, 5], [i64::MAX, i64::MAX], [-1, 3]] {
            assert!(total(&of(sizes).layers, 7, "i").unwrap_err().message.contains("together"));
        }
    }
}
