//! What a registry says about an image, and what of it is wanted. Pure: bytes of others in, decisions out.

use super::{Error, component, store::WASM_LAYER};
use coracle_runtime::ImageConfig;
use oci_client::manifest::{ImageIndexEntry, OciDescriptor, OciImageIndex, OciImageManifest};
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

/// Where an image's .wasm is.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// In a layer of its own.
    Wasm(&'a OciDescriptor),
    /// Somewhere in these tar layers.
    Layers(&'a [OciDescriptor]),
}

/// The manifest for this machine among an index's: for wasm, else for its architecture, else the first.
pub fn choose(index: &OciImageIndex) -> Option<&ImageIndexEntry> {
    let of = |arch: &str| index.manifests.iter().find(|m| m.platform.as_ref().is_some_and(|p| p.architecture.to_string() == arch));
    of("wasm").or_else(|| of(crate::registration::architecture())).or(index.manifests.first())
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
    let all = manifest.layers.iter().fold(0_i64, |all, layer| all.saturating_add(layer.size));
    if u64::try_from(all).map_or(true, |all| all > component::TOTAL) {
        let message = format!("the layers of image {reference} have {all} bytes together; {} are allowed", component::TOTAL);
        return Err(Error::new("ErrImagePull", message));
    }
    if let Some(odd) = manifest.layers.iter().find(|l| !l.media_type.contains("tar")) {
        return unsupported(format!("image {reference} has a layer of type {}, which is neither WebAssembly nor a tar", odd.media_type));
    }
    Ok(Content::Layers(&manifest.layers))
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
        let own = crate::registration::architecture();
        let chosen = |entries| choose(&index(entries)).map(|entry| entry.digest.clone());
        assert_eq!(chosen(json!([entry("s390x"), entry(own), entry("wasm")])).as_deref(), Some("wasm"));
        assert_eq!(chosen(json!([entry("s390x"), entry(own)])).as_deref(), Some(own));
        assert_eq!(chosen(json!([entry("s390x")])).as_deref(), Some("s390x"));
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
}
