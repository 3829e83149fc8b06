use crate::world::{World, left, lines, until};
use coracle_runtime::{Runtime, State};
use std::time::Duration;

pub async fn a_container_prints_and_exits() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &["sh", "-c", "echo hello $WHO from $FROM; echo oops >&2; exit 3"]);
    spec.env = vec![("WHO".into(), "world".into())];
    let (code, reason, mut lines) = world.finish(&spec).await;
    assert_eq!((code, reason.as_str()), (3, "Error"));
    lines.sort();
    assert_eq!(lines, ["stderr F oops", "stdout F hello world from image"]);
    let (code, reason, _) = world.finish(&world.container(&sandbox, &["true"])).await;
    assert_eq!((code, reason.as_str()), (0, "Completed"));
    let list = world.runtime.list().await.unwrap();
    assert_eq!(list.len(), 1);
    let state = list[0].containers.iter().find(|status| status.id == spec.id()).map(|status| status.state.clone());
    assert!(matches!(&state, Some(State::Exited { code: 3, started: Some(_), .. })), "{state:?}");
}

pub async fn nothing_is_left_of_a_pod() {
    let world = World::new().await;
    let sandbox = world.pod(|sandbox| sandbox.linux.share_processes = true).await;
    let spec = world.container(&sandbox, &["sh", "-c", "sleep 1000 & sleep 1000"]);
    world.start(&spec).await.unwrap();
    assert!(!left(&sandbox).is_empty());
    world.runtime.remove_sandbox(&sandbox.pod.uid).await.unwrap();
    until("nothing left", || left(&sandbox).is_empty()).await;
    assert!(!sandbox.dir.join("runtime/oci").exists());
    assert!(spec.log_path.exists(), "logs are the agent's to remove");
    world.runtime.remove_sandbox(&sandbox.pod.uid).await.expect("twice is once");
    assert!(world.runtime.list().await.unwrap().is_empty());
}

pub async fn containers_are_stopped_with_grace_and_without() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let ready = |spec: &coracle_runtime::ContainerSpec| !lines(&spec.log_path).is_empty();
    let polite = world.container(&sandbox, &["sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"]);
    let deaf = world.container(&sandbox, &["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]);
    for spec in [&polite, &deaf] {
        world.start(spec).await.unwrap();
        until("a trap", || ready(spec)).await;
    }
    world.runtime.stop_container(&polite.id(), Duration::from_secs(20)).await.unwrap();
    assert_eq!(world.exit(&polite.id()).await, (7, "Error".into()));
    assert_eq!(lines(&polite.log_path), ["stdout F up", "stdout F bye"]);
    world.runtime.stop_container(&deaf.id(), Duration::from_millis(200)).await.unwrap();
    assert_eq!(world.exit(&deaf.id()).await, (137, "Error".into()));
    world.runtime.stop_container(&deaf.id(), Duration::ZERO).await.expect("twice is once");
}

pub async fn a_container_is_made_again_after_its_end() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &["sh", "-c", "touch /made; ls / | grep -c made"]);
    for attempt in 0..3 {
        spec.attempt = attempt;
        spec.log_path.set_file_name(format!("again{attempt}.log"));
        let (code, _, lines) = world.finish(&spec).await;
        assert_eq!((code, lines), (0, vec!["stdout F 1".to_owned()]));
        world.runtime.remove_container(&spec.id()).await.unwrap();
    }
    let containers = std::fs::read_dir(sandbox.dir.join("runtime/oci/containers")).unwrap().count();
    assert_eq!(containers, 0, "what it wrote is gone");
}

pub async fn logs_are_cut_and_rotated() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &["seq", "1", "5000"]);
    (spec.log_max_bytes, spec.log_max_files) = (50_000, 3);
    let (code, _, last) = world.finish(&spec).await;
    assert_eq!((code, last.last().map(String::as_str)), (0, Some("stdout F 5000")));
    let sizes: Vec<u64> = ["", ".1", ".2", ".3"]
        .iter()
        .filter_map(|end| std::fs::metadata(format!("{}{end}", spec.log_path.display())).ok())
        .map(|meta| meta.len())
        .collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes[1] >= 50_000 && sizes[1] < 51_000, "{sizes:?}");
    let long = world.container(&sandbox, &["sh", "-c", "seq -s, 1 6000; echo -n rest"]);
    let (_, _, lines) = world.finish(&long).await;
    let kinds: Vec<&str> = lines.iter().map(|line| &line[..8]).collect();
    assert_eq!(kinds, ["stdout P", "stdout F", "stdout P"], "a long line in parts, and one without an end");
    assert_eq!(lines.last().map(String::as_str), Some("stdout P rest"));
}
