//! Files that run, and files that cannot.

use crate::{cases, world::*};
use coracle_runtime::{ImageContent, Runtime};
use std::time::Duration;

cases![
    images_that_cannot_run_are_refused_with_a_reason,
    images_that_loop_at_start_time_out,
    images_are_compiled_once,
    images_are_collected,
    images_that_take_too_much_to_compile_are_refused,
];

async fn refusal(world: &World, name: &str, wasm: &[u8]) -> String {
    let image = world.image(name, wasm);
    let error = world.runtime.prepare(&image).await.unwrap_err();
    assert!(error.fatal, "{error}");
    error.message
}

async fn images_that_cannot_run_are_refused_with_a_reason() {
    let world = World::new().await;
    assert!(refusal(&world, "text", b"not wasm at all").await.contains("not WebAssembly"));
    let hello = std::fs::read(coracle_tests::guest("hello").unwrap()).unwrap();
    assert!(refusal(&world, "cut", &hello[..hello.len() / 2]).await.contains("truncated"));
    let mut broken = hello.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 64].fill(0xff);
    assert!(refusal(&world, "broken", &broken).await.contains("not valid"));
    let import = wat::parse_str(r#"(module (import "env" "secret" (func)) (func (export "_start")))"#).unwrap();
    assert!(refusal(&world, "import", &import).await.contains("\"env\""));
    let unknown = wat::parse_str(r#"(module (import "wasi_snapshot_preview1" "fd_teleport" (func)) (func (export "_start")))"#).unwrap();
    assert!(refusal(&world, "unknown", &unknown).await.contains("fd_teleport"));
    let large = wat::parse_str(r#"(module (memory 65536) (func (export "_start")))"#).unwrap();
    assert!(refusal(&world, "large", &large).await.contains("4096 MiB"));
    let neither = wat::parse_str("(component)").unwrap();
    assert!(refusal(&world, "neither", &neither).await.contains("neither"));
    let mut oci = world.image("oci", &neither);
    oci.content = ImageContent::Oci { layers: Vec::new() };
    assert!(world.runtime.supports(&oci).unwrap_err().message.contains("remove runtimeClassName"));
    // Nothing is left of the attempts.
    assert_eq!(std::fs::read_dir(world.dir.path().join("wasm/artifacts")).unwrap().count(), 0);
}

/// Ten megabytes of functions, seconds of compiling. (As text it would take longer to read than to compile.)
fn heavy() -> Vec<u8> {
    const FUNCTIONS: usize = 1800;
    fn sized(bytes: &[u8]) -> Vec<u8> {
        let (mut size, mut all) = (bytes.len(), Vec::new());
        while size >= 0x80 {
            all.push(size as u8 | 0x80);
            size >>= 7;
        }
        all.push(size as u8);
        all.extend_from_slice(bytes);
        all
    }
    // A section begins with how many things are in it.
    let section = |id: u8, items: Vec<u8>| {
        [vec![id], sized(&[&(FUNCTIONS as u16 | 0x80).to_le_bytes()[..1], &[(FUNCTIONS >> 7) as u8], &items[..]].concat())].concat()
    };
    // local 0 = (local 0 + 77) * (local 0 ^ local 1), again and again
    let step = [0x20, 0, 0x41, 0xcd, 0, 0x6a, 0x20, 0, 0x20, 1, 0x73, 0x6c, 0x21, 0];
    let function = sized(&[&[0][..], &step.repeat(400), &[0x20, 0, 0x0b]].concat());
    let types = [vec![1], sized(&[1, 0x60, 2, 0x7f, 0x7f, 1, 0x7f])].concat();
    let start = [&[7][..], &sized(b"\x01\x06_start\0\0")].concat();
    [b"\0asm\x01\0\0\0".to_vec(), types, section(3, vec![0; FUNCTIONS]), start, section(10, function.repeat(FUNCTIONS))].concat()
}

async fn images_that_take_too_much_to_compile_are_refused() {
    use coracle_runtime_wasm::compile::Limits;
    let heavy = heavy();
    let refused = async |limits: Limits| {
        let world = World::with(|options| options.compile = limits).await;
        let error = world.runtime.prepare(&world.image("heavy", &heavy)).await.unwrap_err();
        assert_eq!((error.reason.as_str(), error.fatal), ("CompileError", true), "{error}");
        assert_eq!(std::fs::read_dir(world.dir.path().join("wasm/artifacts")).unwrap().count(), 0, "nothing is left of it");
        // Nobody else pays for it.
        let (pod, _) = world.run(&world.image("light", &wat::parse_str("(module (func (export \"_start\")))").unwrap()), |_| {}).await;
        assert_eq!(world.exit(&format!("{}/main/0", pod.pod.uid)).await.0, 0);
        error.message
    };
    let limits = Limits::default();
    for message in [refused(Limits { memory: 64 << 20, ..limits }).await, refused(Limits { cpu_seconds: 1, ..limits }).await] {
        assert!(message.contains("its memory and CPU time are limited") && message.contains("make the module smaller"), "{message}");
    }
    let message = refused(Limits { patience: Duration::from_millis(300), ..limits }).await;
    assert!(message.contains("compiling took longer than 300ms") && message.contains("make the module smaller"), "{message}");
}

async fn images_that_loop_at_start_time_out() {
    let world = World::new().await;
    let component = r#"(component
        (core module $m (func $loop (loop (br 0))) (start $loop) (func (export "handle") (param i32 i32)))
        (core instance $i (instantiate $m))
        (import "wasi:http/types@0.2.0" (instance $types (export "incoming-request" (type (sub resource))) (export "response-outparam" (type (sub resource)))))
        (alias export $types "incoming-request" (type $request))
        (alias export $types "response-outparam" (type $out))
        (type $own-request (own $request))
        (type $own-out (own $out))
        (func $handle (param "request" $own-request) (param "response-out" $own-out) (canon lift (core func $i "handle")))
        (component $shim
            (import "request" (type $r (sub resource)))
            (import "out" (type $o (sub resource)))
            (import "handle" (func $h (param "request" (own $r)) (param "response-out" (own $o))))
            (export $er "incoming-request" (type $r))
            (export $eo "response-outparam" (type $o))
            (export "handle" (func $h) (func (param "request" (own $er)) (param "response-out" (own $eo)))))
        (instance $handler (instantiate $shim (with "request" (type $request)) (with "out" (type $out)) (with "handle" (func $handle))))
        (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;
    let image = world.image("looping", &wat::parse_str(component).unwrap());
    let sandbox = world.sandbox();
    world.runtime.run_sandbox(sandbox.clone()).await.unwrap();
    let mut spec = world.container(&sandbox, &image);
    spec.request_timeout = Duration::from_millis(300);
    let id = world.runtime.create_container(spec).await.unwrap();
    let error = world.runtime.start_container(&id).await.unwrap_err();
    assert!(error.reason == "StartError" && error.message.contains("without being ready"), "{error}");
    // Others are not disturbed, and it may be tried again.
    let (other, _) = world.run(&world.built("hello"), |_| {}).await;
    assert_eq!(get(other.ip, 8080, "/").await.unwrap().0, 200);
    assert!(world.runtime.start_container(&id).await.is_err());
}

async fn images_are_compiled_once() {
    let world = World::new().await;
    let image = world.built("web");
    let all = futures::future::join_all((0..8).map(|_| world.runtime.prepare(&image))).await;
    assert!(all.iter().all(Result::is_ok));
    let artifacts = world.dir.path().join("wasm/artifacts");
    let written = |dir: &std::path::Path| {
        let entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(entries.len(), 1);
        entries[0].metadata().unwrap().modified().unwrap()
    };
    let first = written(&artifacts);
    let world = world.restart_agent().await;
    world.runtime.prepare(&image).await.unwrap();
    assert_eq!(written(&artifacts), first);
}

async fn images_are_collected() {
    let world = World::new().await;
    let (hello, web) = (world.built("hello"), world.built("web"));
    world.runtime.prepare(&hello).await.unwrap();
    let (sandbox, _) = world.run(&web, |_| {}).await;
    world.runtime.collect_garbage(std::slice::from_ref(&hello.digest)).await.unwrap();
    let names: Vec<_> = std::fs::read_dir(world.dir.path().join("wasm/artifacts")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1);
    assert_eq!(get(sandbox.ip, 8080, "/").await.unwrap().0, 200, "what runs has its code mapped");
}
