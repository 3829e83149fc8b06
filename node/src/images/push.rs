//! Pushing to OCI registries what is on this machine: wasm artifacts, and images that were imported.

use super::{
    Error, Options,
    credentials::Keyring,
    parse,
    pull::{DOCUMENT, SILENCE},
    registry::{chain, trust},
    store::Store,
};
use http::HeaderValue;
use oci_client::{
    Client,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    manifest::{OciImageManifest, OciManifest},
    secrets::RegistryAuth,
};
use tokio_util::io::ReaderStream;

fn failed(message: impl Into<String>) -> Error {
    Error::new("ErrImagePull", message)
}

/// Pushes a stored image with the manifest that it has here, byte for byte. Returns the manifest's URL.
pub async fn push(options: &Options, store: &Store, name: &str, keyring: &Keyring) -> Result<String, Error> {
    let reference = parse(name)?;
    let missing = || failed(format!("push {name}: no image of that name here; `coracle image list` shows them"));
    let named = store.find(name)?.ok_or_else(missing)?;
    let path = store.blob(&named.manifest).ok_or_else(missing)?;
    let bytes = std::fs::read(&path).map_err(|e| failed(format!("read {}: {e}", path.display())))?;
    let manifest: OciImageManifest = match super::manifest::read(&bytes) {
        Ok(OciManifest::Image(manifest)) if bytes.len() <= DOCUMENT => manifest,
        _ => return Err(failed(format!("push {name}: its manifest {} is damaged", path.display()))),
    };
    let blobs = manifest.layers.iter().chain([&manifest.config]);
    let mut files = Vec::new();
    for blob in blobs {
        let path = store.blob(&blob.digest).ok_or_else(missing)?;
        if !path.exists() {
            let message =
                format!("push {name}: {} is not here; of images that were pulled only what pods need is kept, push from where it came", blob.digest);
            return Err(failed(message));
        }
        files.push((blob, path));
    }
    let registry = reference.resolve_registry().to_string();
    let (roots, plain) = trust(options, &registry)?;
    let config = ClientConfig {
        protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
        extra_root_certificates: roots.into_iter().map(|data| Certificate { encoding: CertificateEncoding::Pem, data }).collect(),
        read_timeout: Some(options.silence.unwrap_or(SILENCE)),
        user_agent: concat!("coracle/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    let unusable = |e| failed(format!("set up a client for registry {registry}: {e}; look at its ca.crt"));
    let client = Client::try_from(config).map_err(unusable)?;
    let auth = match keyring.find(reference.registry(), reference.repository()).first() {
        Some((user, password)) => RegistryAuth::Basic((*user).into(), (*password).into()),
        None => RegistryAuth::Anonymous,
    };
    let refused = |why| failed(format!("push {name} to {registry}: {}", chain(&why)));
    client.store_auth_if_needed(&registry, &auth).await;
    for (blob, path) in files {
        let file = tokio::fs::File::open(&path).await.map_err(|e| failed(format!("read {}: {e}", path.display())))?;
        let size = file.metadata().await.map_err(|e| failed(format!("read {}: {e}", path.display())))?.len();
        let parts = futures::StreamExt::map(ReaderStream::with_capacity(file, 1 << 20), |part| part.map_err(Into::into));
        client.push_blob_stream(&reference, parts, &blob.digest, Some(size)).await.map_err(refused)?;
    }
    let kind = manifest.media_type.as_deref().unwrap_or("application/vnd.oci.image.manifest.v1+json");
    let kind = HeaderValue::try_from(kind).map_err(|e| failed(format!("push {name}: {e}")))?;
    client.push_manifest_raw(&reference, bytes, kind).await.map_err(refused)
}
