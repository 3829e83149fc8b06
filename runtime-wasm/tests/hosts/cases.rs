//! What the runtime promises, each as a pod that is run.

use crate::world::*;
use coracle_runtime::{Runtime, State};
use std::{future::Future, pin::Pin, time::Duration};

type Case = fn() -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const ALL: &[(&str, Case)] = &[$((stringify!($name), || Box::pin($name()))),*];
    };
}

cases![http_hello, cli_hello];

async fn http_hello() {
    let world = World::new().await;
    let image = world.built("hello");
    let (sandbox, id) = world.run(&image, |_| {}).await;
    assert!(matches!(world.state(&id).await, Some(State::Running { .. })));
    let (status, body) = get(sandbox.ip, 8080, "/").await.unwrap();
    assert_eq!((status, body.as_str()), (200, "Hello from a coracle\n"));
    world.runtime.stop_container(&id, Duration::from_secs(5)).await.unwrap();
    assert!(get(sandbox.ip, 8080, "/").await.is_err());
    assert_eq!(world.exit(&id).await.0, 0);
    world.runtime.remove_sandbox(&sandbox.pod.uid).await.unwrap();
    assert!(world.runtime.list().await.unwrap().is_empty());
}

async fn cli_hello() {
    let world = World::new().await;
    let (code, reason, log) = world.probe(&["hello"], |_| {}).await;
    assert_eq!((code, reason.as_str()), (0, "Completed"), "{log}");
    assert!(!log.is_empty());
}
