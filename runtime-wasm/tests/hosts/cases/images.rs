//! Files that run, and files that cannot.

use crate::{cases, world::*};
use coracle_runtime::{ImageContent, Runtime};
use std::time::Duration;

cases![images_that_cannot_run_are_refused_with_a_reason, images_that_loop_at_start_time_out, images_are_compiled_once, images_are_collected,];

async fn refusal(world: &World, name: &str, wasm: &[u8]) -> String {
    let image = world.image(name, wasm);
    let error = world.runtime.prepare(&image).await.unwrap_err();
    assert!(error.fatal, "{error}");
    error.message
}

async fn images_that_cannot_run_are_refused_with_a_reason() {
    let world = World::new().await;
    assert!(refusal(&world, "text", b"not wasm at all").await.contains("not WebAssembly"));
    let hello = std::fs::read(guest("hello")).unwrap();
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
    assert!(world.runtime.supports(&oci).unwrap_err().message.contains("oci runtime"));
    // Nothing is left of the attempts.
    assert_eq!(std::fs::read_dir(world.dir.path().join("wasm/artifacts")).unwrap().count(), 0);
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
