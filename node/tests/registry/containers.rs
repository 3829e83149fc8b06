//! Container images: as skopeo makes them, over a line that breaks, onto a disk that is full, and with lies in them.

use super::{Node, Registry, WASM, With, content, keyring, tar_gz};
use coracle_node::images::{
    self, Images, Options,
    collect::{Outcome, Policy},
    credentials::Keyring,
};
use coracle_runtime::{ImageContent, LocalImage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::watch,
};

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: not tested");
    }
    root
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|why| panic!("{program}: {why}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn plain(gzip: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(gzip).read_to_end(&mut plain).unwrap();
    plain
}

/// An image: its blobs by digest, and its manifest.
struct Image {
    blobs: Vec<(String, Vec<u8>)>,
    manifest: Vec<u8>,
}

impl Image {
    fn new(layers: &[Vec<u8>], change: impl FnOnce(&mut Value, &mut Value)) -> Self {
        let diffs: Vec<String> = layers.iter().map(|layer| digest(&plain(layer))).collect();
        let mut config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux", "rootfs": { "type": "layers", "diff_ids": diffs },
            "config": { "Entrypoint": ["/bin/busybox"], "Cmd": ["sh"], "Env": ["PATH=/bin"], "WorkingDir": "/srv", "User": "7:8", "StopSignal": "SIGQUIT",
                "ExposedPorts": { "80/tcp": {} }, "Labels": { "a": "b" }, "Volumes": { "/data": {} } },
        });
        let mut list: Value = layers
            .iter()
            .map(|layer| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(layer), "size": layer.len() }))
            .collect();
        change(&mut config, &mut list);
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": list,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
        });
        let mut blobs: Vec<(String, Vec<u8>)> = layers.iter().map(|layer| (digest(layer), layer.clone())).collect();
        blobs.push((digest(&config), config));
        Self { blobs, manifest: manifest.to_string().into_bytes() }
    }

    /// As an OCI image layout in a directory.
    fn layout(&self, dir: &Path, name: &str) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let own = (digest(&self.manifest), self.manifest.clone());
        for (digest, bytes) in self.blobs.iter().chain([&own]) {
            fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        }
        let index = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": own.0,
            "size": own.1.len(), "annotations": { "org.opencontainers.image.ref.name": name } }] });
        fs::write(dir.join("index.json"), index.to_string()).unwrap();
    }
}

fn busybox() -> Vec<u8> {
    fs::read("/bin/busybox").expect("install Debian's package busybox-static")
}

fn base() -> Vec<u8> {
    tar_gz(&[("bin/busybox", &busybox()), ("etc/motd", b"base"), ("etc/gone", b"base")])
}

fn top() -> Vec<u8> {
    tar_gz(&[("etc/motd", b"top"), ("etc/.wh.gone", b""), ("srv/index.html", b"hello")])
}

/// Noise, so that it stays as large as it is.
fn noise(seed: u8, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(size)
    .collect()
}

impl Node {
    fn with_containers(&self) -> Options {
        Options { containers: true, ..self.options() }
    }
}

fn layers(image: &LocalImage) -> &[PathBuf] {
    match &image.content {
        ImageContent::Oci { layers } => layers,
        other => panic!("{other:?}"),
    }
}

fn read(image: &LocalImage, path: &str) -> Option<Vec<u8>> {
    let meta = |layer: &PathBuf| fs::symlink_metadata(layer.join(path)).ok().map(|meta| (layer.join(path), meta));
    let (path, meta) = layers(image).iter().find_map(meta)?;
    meta.is_file().then(|| fs::read(path).unwrap())
}

fn kept(node: &Node, what: &str) -> Vec<String> {
    let entries = fs::read_dir(node.dir.path().join("images").join(what)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_skopeo_pushes_is_pulled_shared_and_goes_when_nothing_needs_it() {
    if !root() {
        return;
    }
    let registry = Registry::start(With { password: true, ..With::default() }).await;
    let dir = tempfile::tempdir().unwrap();
    Image::new(&[base(), top()], |_, _| {}).layout(&dir.path().join("two"), "two");
    Image::new(&[base()], |_, _| {}).layout(&dir.path().join("one"), "one");
    let push = |from: &str, to: &str, how: &[&str]| {
        let (from, to) = (format!("oci:{}", dir.path().join(from).display()), format!("docker://{}", registry.name(to)));
        let fixed = ["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", "user:secret"];
        run("skopeo", &[&fixed[..], how, &[&from, &to]].concat());
    };
    push("two", "app:gzip", &[]);
    push("two", "app:docker", &["--format", "v2s2"]);
    push("two", "app:zstd", &["--format", "oci", "--dest-compress-format", "zstd"]);
    push("one", "base:v1", &[]);

    let node = Node::new();
    let images = Images::open(node.with_containers()).unwrap();
    let good = keyring(&registry.address, "user", "secret");
    let names = ["app:gzip", "app:docker", "app:zstd", "base:v1"].map(|name| registry.name(name));
    let pulls = names.iter().map(|name| images.pull(name, good.clone()));
    let pulled: Vec<LocalImage> = futures::future::join_all(pulls).await.into_iter().map(|pulled| pulled.unwrap().image).collect();
    for image in &pulled[..3] {
        assert_eq!(layers(image), layers(&pulled[0]), "one stack, however it came");
        assert_eq!(read(image, "etc/motd").unwrap(), b"top");
        assert_eq!(read(image, "etc/gone"), None);
        assert_eq!(read(image, "bin/busybox").unwrap(), busybox());
        let config = &image.config;
        assert_eq!((&*config.entrypoint[0], &*config.cmd[0], &*config.working_dir, &*config.user), ("/bin/busybox", "sh", "/srv", "7:8"));
        assert_eq!((&*config.stop_signal, &*config.exposed_ports[0], &*config.volumes[0]), ("SIGQUIT", "80/tcp", "/data"));
    }
    assert_eq!(layers(&pulled[3]), &layers(&pulled[0])[1..], "the base is shared");
    assert_eq!(kept(&node, "layers").len(), 2);
    // What came is not kept twice: manifests and configs only.
    let large =
        kept(&node, "blobs/sha256").iter().any(|blob| fs::metadata(node.dir.path().join("images/blobs/sha256").join(blob)).unwrap().len() > 4096);
    assert!(!large);

    // A pod holds its layers when the names are gone; after it, they go.
    let pod = node.dir.path().join("pods/uid-1");
    assert!(images.hold(&pod, &pulled[0]).unwrap());
    names.iter().for_each(|name| images::remove(node.dir.path(), name).unwrap());
    assert_eq!(read(&pulled[0], "etc/motd").unwrap(), b"top");
    fs::remove_dir_all(&pod).unwrap();
    drop(images);
    let images = Images::open(node.with_containers()).unwrap();
    assert!(kept(&node, "layers").is_empty() && kept(&node, "blobs/sha256").is_empty());
    assert!(!images.hold(&pod, &pulled[0]).unwrap(), "what is gone cannot be held");
    // A node without the runtime says so, and pulls nothing.
    let error = Node::new().images().pull(&registry.name("app:gzip"), good).await.unwrap_err();
    assert!(error.reason == "UnsupportedImage" && error.message.contains("WebAssembly only"), "{error}");
}

#[tokio::test]
async fn archives_are_imported_listed_pushed_and_removed() {
    if !root() {
        return;
    }
    let registry = Registry::start(With::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    Image::new(&[base(), top()], |_, _| {}).layout(&dir.path().join("layout"), "v1");
    let layout = format!("oci:{}", at("layout"));
    let name = registry.name("team/app:v1");
    run("skopeo", &["copy", "--quiet", &layout, &format!("docker-archive:{}:{name}", at("saved.tar"))]);
    run("skopeo", &["copy", "--quiet", &layout, &format!("oci-archive:{}", at("layout.tar"))]);
    run("gzip", &["-k", &at("saved.tar")]);

    let node = Node::new();
    let import = |file: &str, name: Option<&str>| images::import(node.dir.path(), Path::new(&at(file)), name);
    let saved = import("saved.tar", None).unwrap();
    assert_eq!(saved.iter().map(|named| &*named.reference).collect::<Vec<_>>(), [&*name]);
    let zipped = import("saved.tar.gz", Some("zipped:v1")).unwrap();
    assert!(import("layout.tar", None).unwrap_err().message.contains("--name"));
    let other = import("layout.tar", Some("other:v1")).unwrap();
    assert_eq!((saved[0].layers.clone(), saved[0].manifest.clone()), (zipped[0].layers.clone(), zipped[0].manifest.clone()));
    assert_eq!(saved[0].layers, other[0].layers);
    let images = Images::open(node.with_containers()).unwrap();
    assert_eq!(read(&images.lookup("other:v1").unwrap().unwrap(), "srv/index.html").unwrap(), b"hello");
    assert_eq!(images::list(node.dir.path()).unwrap().len(), 3);
    let status = images.status();
    let all = status.iter().flat_map(|image| image["names"].as_array().unwrap()).map(|name| name.as_str().unwrap()).collect::<Vec<_>>();
    assert!(all.contains(&&*name) && all.contains(&"docker.io/library/zipped:v1"), "{status:?}");
    assert!(all.contains(&&*format!("docker.io/library/zipped@{}", saved[0].manifest)), "{status:?}");

    images::push(node.options(), &name, &Keyring::default()).await.unwrap();
    let to = Node::new();
    let pulled = Images::open(to.with_containers()).unwrap().pull(&name, Keyring::default()).await.unwrap();
    assert_eq!((&pulled.image.digest, read(&pulled.image, "etc/motd").unwrap()), (&saved[0].manifest, b"top".to_vec()));
    let error = images::push(to.options(), &name, &Keyring::default()).await.unwrap_err();
    assert!(error.message.contains("from where it came"), "{error}");

    for name in [&*name, "zipped:v1", "other:v1"] {
        images::remove(node.dir.path(), name).unwrap();
    }
    assert!(kept(&node, "layers").is_empty() && kept(&node, "blobs/sha256").is_empty());
    // Neither image nor archive of images.
    for (file, content, why) in
        [("text", &b"#!/bin/sh"[..], "no archive of images"), ("empty.tar", &[0; 1024], "empty"), ("odd.tar", &plain(&top()), "neither")]
    {
        fs::write(at(file), content).unwrap();
        let error = import(file, Some("x:v1")).unwrap_err();
        assert!(error.message.contains(why), "{error}");
    }
    let lie = Image::new(&[base()], |_, list| list[0]["size"] = json!(7));
    lie.layout(&dir.path().join("lie"), "lie:v1");
    run("tar", &["-C", &at("lie"), "-cf", &at("lie.tar"), "."]);
    assert!(import("lie.tar", None).unwrap_err().message.contains("were promised"));
    assert!(kept(&node, "layers").is_empty() && kept(&node, "blobs/sha256").is_empty());
}

/// How a registry of ours treats those who ask for blobs.
#[derive(Clone, Copy, PartialEq)]
enum Habit {
    Good,
    /// Every answer breaks off after so many bytes.
    Drops(usize),
    /// The same, and ranges are not heard of.
    DropsOnce(usize),
    /// No layer is sent before so many of them were asked for.
    Together(usize),
}

/// Serves an image; its address, and the ranges that were asked for.
async fn serve(image: Image, habit: Habit) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (image, ranges) = (Arc::new(image), Arc::new(Mutex::new(Vec::new())));
    let asked = ranges.clone();
    let together = if let Habit::Together(layers) = habit { layers } else { 0 };
    let layers = Arc::new(watch::Sender::new(HashSet::new()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (image, ranges, layers) = (image.clone(), ranges.clone(), layers.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let (mut target, mut range, mut line) = (String::new(), String::new(), String::new());
                while stream.read_line(&mut line).await.unwrap_or(0) > 2 {
                    if let Some(rest) = line.strip_prefix("GET ") {
                        target = rest.split(' ').next().unwrap_or_default().to_owned();
                    }
                    if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
                        range = value.trim().trim_end_matches('-').to_owned();
                    }
                    line.clear();
                }
                let body = match image.blobs.iter().find(|(digest, _)| target.ends_with(digest)) {
                    Some((_, bytes)) => bytes.clone(),
                    None => image.manifest.clone(),
                };
                // The last one is the config.
                if let Some((layer, _)) = image.blobs.iter().rev().skip(1).find(|(digest, _)| target.ends_with(digest)) {
                    layers.send_modify(|asked| _ = asked.insert(layer.clone()));
                    let _ = layers.subscribe().wait_for(|asked| asked.len() >= together).await;
                }
                let first = !range.is_empty() && ranges.lock().unwrap().is_empty();
                let from = range.parse().unwrap_or(0).min(body.len());
                if !range.is_empty() {
                    ranges.lock().unwrap().push(range);
                }
                let (from, most) = match habit {
                    Habit::Good | Habit::Together(_) => (from, usize::MAX),
                    Habit::Drops(most) => (from, most),
                    Habit::DropsOnce(most) => (0, if first { usize::MAX } else { most }),
                };
                let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
                let rest = &body[from..];
                let head = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\n\r\n",
                    rest.len(),
                    body.len().saturating_sub(1),
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&rest[..rest.len().min(most)]).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_registry_that_drops_mid_layer_is_gone_on_with() {
    if !root() {
        return;
    }
    let large = noise(1, 1_000_000);
    let image = || Image::new(&[tar_gz(&[("noise", &large)])], |_, _| {});
    for (habit, fewest) in [(Habit::Drops(300_000), 3), (Habit::DropsOnce(300_000), 1)] {
        let (address, ranges) = serve(image(), habit).await;
        let node = Node::new();
        let images = Images::open(node.with_containers()).unwrap();
        let pulled = images.pull(&format!("{address}/a:v1"), Keyring::default()).await.unwrap();
        assert_eq!(read(&pulled.image, "noise").unwrap(), large);
        let ranges = ranges.lock().unwrap().clone();
        assert!(ranges.len() >= fewest && ranges[0] != "0", "{ranges:?}");
    }
    // It never says a byte more: an end is seen, and nothing stays.
    let (address, _) = serve(image(), Habit::Drops(0)).await;
    let node = Node::new();
    let options = Options { silence: Some(Duration::from_secs(2)), ..node.with_containers() };
    let error = Images::open(options).unwrap().pull(&format!("{address}/a:v1"), Keyring::default()).await.unwrap_err();
    assert_eq!(error.reason, "ErrImagePull");
    assert!(kept(&node, "layers").is_empty() && kept(&node, "blobs/sha256").is_empty());
}

#[tokio::test]
async fn layers_come_beside_each_other_and_are_stacked_in_their_order() {
    if !root() {
        return;
    }
    let numbers: Vec<Vec<u8>> = (0..6_u8).map(|number| vec![b'0' + number]).collect();
    let stacked: Vec<Vec<u8>> = numbers.iter().map(|number| tar_gz(&[("last", number), (std::str::from_utf8(number).unwrap(), b"x")])).collect();
    let node = Node::new();
    let images = Images::open(Options { silence: Some(Duration::from_secs(1)), ..node.with_containers() }).unwrap();
    // One after another, none of them would ever come.
    let (address, _) = serve(Image::new(&stacked, |_, _| {}), Habit::Together(3)).await;
    let pulled = images.pull(&format!("{address}/a:v1"), Keyring::default()).await.unwrap();
    assert_eq!((layers(&pulled.image).len(), read(&pulled.image, "last").unwrap()), (6, b"5".to_vec()));
    // Around a component as well.
    let mut parts = stacked[..2].to_vec();
    parts.push(tar_gz(&[("app.wasm", WASM)]));
    let component = Image::new(&parts, |config, _| config["config"]["Entrypoint"] = json!(["/app.wasm"]));
    let (address, _) = serve(component, Habit::Together(3)).await;
    assert_eq!(content(&images.pull(&format!("{address}/b:v1"), Keyring::default()).await.unwrap().image), WASM);
}

#[tokio::test]
async fn lies_are_found_out_and_leave_nothing() {
    if !root() {
        return;
    }
    let two = [base(), top()];
    let other = digest(b"another");
    let escape = || tar_gz(&[("x", b"y")]);
    let mut device = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Block);
    header.set_size(0);
    device.append_data(&mut header, "sda", &[][..]).unwrap();
    let device = device.into_inner().unwrap().finish().unwrap();
    for (image, why) in [
        (Image::new(&two, |config, _| config["rootfs"]["diff_ids"][1] = json!(other)), "config promises"),
        (Image::new(&two, |config, _| config["rootfs"]["diff_ids"] = json!([other])), "2 layers, and its config has digests for 1"),
        (Image::new(&two, |config, _| config["rootfs"]["diff_ids"][0] = json!("../../etc")), "no sha256 digest"),
        (Image::new(&two, |config, _| config["architecture"] = json!("s390x")), "s390x"),
        (Image::new(&two, |config, _| config["os"] = json!("windows")), "windows"),
        (Image::new(&two, |_, list| list[1]["size"] = json!(10)), "bytes of it, and the manifest says 10; push the image again"),
        (Image::new(&two, |_, list| list[1]["size"] = json!(1_000_000)), "bytes of it, and the manifest says 1000000; push the image again"),
        (Image::new(&two, |_, list| list[1]["size"] = json!(-1)), "together"),
        (Image::new(&two, |_, list| list[1]["size"] = json!(1_u64 << 40)), "together"),
        (Image::new(&two, |_, list| list[1]["digest"] = list[0]["digest"].clone()), "bytes of it, and the manifest says"),
        (
            Image::new(&[escape()], |_, list| list[0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")),
            "neither WebAssembly nor a tar",
        ),
        (Image::new(&[base(), device.clone()], |_, _| {}), "device node outside of /dev"),
    ] {
        let (address, _) = serve(image, Habit::Good).await;
        let node = Node::new();
        let error = Images::open(node.with_containers()).unwrap().pull(&format!("{address}/a:v1"), Keyring::default()).await.unwrap_err();
        assert!(error.message.contains(why), "{why}: {error}");
        assert!(kept(&node, "layers").is_empty() && kept(&node, "blobs/sha256").is_empty(), "{why}");
    }
}

/// A small ext4 in a file, mounted until dropped.
struct Disk {
    file: tempfile::TempDir,
    at: PathBuf,
}

impl Disk {
    fn mount(at: &Path, mebibytes: u64) -> Self {
        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("disk");
        fs::File::create(&path).unwrap().set_len(mebibytes << 20).unwrap();
        let text = path.to_str().unwrap();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text]);
        run("mount", &["-o", "loop", text, at.to_str().unwrap()]);
        Self { file, at: at.into() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        let _ = &self.file;
    }
}

#[tokio::test]
async fn a_full_disk_is_rolled_back_and_does_later() {
    if !root() {
        return;
    }
    let node = Node::new();
    let disk = Disk::mount(node.dir.path(), 64);
    let large = noise(2, 20 << 20);
    // One layer: of several, any may be the one that meets the end of the disk.
    let (address, _) = serve(Image::new(&[tar_gz(&[("noise", &large)])], |_, _| {}), Habit::Good).await;
    let images = Images::open(node.with_containers()).unwrap();
    let name = format!("{address}/a:v1");
    // Room for what comes, not for what it unpacks to; then not for that either.
    let filler = disk.at.join("filler");
    let free = || {
        let stat = rustix::fs::statvfs(&disk.at).unwrap();
        usize::try_from(stat.f_bavail * stat.f_frsize).unwrap()
    };
    let empty = free();
    for (room, what) in [(32 << 20, "unpack layer"), (8 << 20, "keep sha256:")] {
        // What was rolled back is taken away aside.
        let until = Instant::now() + Duration::from_secs(30);
        while free() + (1 << 20) < empty {
            assert!(Instant::now() < until, "{} of {empty} bytes are free again", free());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fs::write(&filler, vec![1; free() - room]).unwrap();
        run("sync", &["-f", filler.to_str().unwrap()]);
        let error = images.pull(&name, Keyring::default()).await.unwrap_err();
        assert!(error.reason == "ErrImagePull" && error.message.contains(what) && error.message.contains("free some space"), "{error}");
        assert!(kept(&node, "layers").is_empty() && kept(&node, "blobs/sha256").is_empty());
        fs::remove_file(&filler).unwrap();
    }
    let pulled = images.pull(&name, Keyring::default()).await.unwrap();
    assert_eq!(read(&pulled.image, "noise").unwrap(), large);
}

#[tokio::test]
async fn a_disk_that_fills_loses_the_images_that_nobody_uses() {
    if !root() {
        return;
    }
    let node = Node::new();
    let _disk = Disk::mount(node.dir.path(), 96);
    let images = Images::open(node.with_containers()).unwrap();
    for seed in 1..=3 {
        let (address, _) = serve(Image::new(&[tar_gz(&[("noise", &noise(seed, 12 << 20))])], |_, _| {}), Habit::Good).await;
        let pulled = images.pull(&format!("{address}/a:v{seed}"), Keyring::default()).await.unwrap();
        if seed == 1 {
            images.hold(&node.dir.path().join("pods/uid-1"), &pulled.image).unwrap();
        }
    }
    let names = || images::list(node.dir.path()).unwrap().into_iter().map(|named| named.reference).collect::<Vec<_>>();
    let all = names();
    let of = |tag: &str| all.iter().find(|name| name.ends_with(tag)).unwrap().clone();
    let stat = rustix::fs::statvfs(node.dir.path()).unwrap();
    let percent = 100 - stat.f_bavail * 100 / stat.f_blocks;
    let policy = |high, low| Policy { high, low, min_age: Duration::ZERO };
    let none = HashSet::new();
    assert_eq!(images.collect(&policy(99, 98), &none).unwrap(), Outcome::Fine);
    assert_eq!(names().len(), 3, "below the threshold");
    // One is held by a pod, one named by one: the third goes, though it was wanted last.
    let wanted = HashSet::from([of(":v2")]);
    assert_eq!(images.collect(&policy(percent, percent - 5), &wanted).unwrap(), Outcome::Fine);
    assert_eq!(names().len(), 2);
    assert!(!names().contains(&of(":v3")));
    let short = images.collect(&policy(1, 0), &wanted).unwrap();
    assert!(
        matches!(&short, Outcome::Short(message) if message.starts_with("Insufficient free disk space on the node's image filesystem (")),
        "{short:?}"
    );
    assert_eq!(names().len(), 2, "what is in use stays");
    let last = images.collect(&policy(1, 0), &none).unwrap();
    assert!(matches!(last, Outcome::Short(_)));
    assert_eq!(names(), [of(":v1")], "what a pod holds stays");
}
