use super::*;
use crate::PodRef;
use std::path::PathBuf;

fn sandbox() -> SandboxSpec {
    let pod = PodRef { namespace: "default".into(), name: "hello".into(), uid: "u1".into() };
    SandboxSpec::new(pod, [10, 0, 0, 2].into(), PathBuf::from("/nowhere"))
}

fn container(reference: &str) -> ContainerSpec {
    let image = LocalImage {
        reference: reference.into(),
        digest: "sha256:00".into(),
        content: ImageContent::Wasm { path: PathBuf::new(), digest: "sha256:01".into() },
        config: Default::default(),
    };
    ContainerSpec::new("u1", "main", image)
}

fn state(event: Event) -> State {
    match event {
        Event::Container { status, .. } => status.state,
        other => panic!("{other:?} is not about a container"),
    }
}

#[tokio::test]
async fn a_workload_lives_and_dies_as_it_is_told() {
    let machine = MockRuntime::new("wasm");
    machine.run_sandbox(sandbox()).await.unwrap();
    let id = machine.create_container(container("hello:1")).await.unwrap();
    assert_eq!(id, "u1/main/0");
    machine.start_container(&id).await.unwrap();
    machine.start_container(&id).await.unwrap();
    assert!(matches!(state(machine.next_event().await), State::Running { .. }));
    assert!(machine.exit(&id, 3, "Error"));
    assert!(!machine.exit(&id, 3, "Error"), "it is gone already");
    assert!(matches!(state(machine.next_event().await), State::Exited { code: 3, .. }));
    assert_eq!(machine.count("start_container"), 2);
}

#[tokio::test]
async fn another_handle_finds_what_runs() {
    let machine = MockRuntime::new("wasm");
    machine.run_sandbox(sandbox()).await.unwrap();
    let id = machine.create_container(container("hello:1")).await.unwrap();
    machine.start_container(&id).await.unwrap();
    let after = machine.clone();
    drop(machine);
    let listed = after.list().await.unwrap();
    assert!(matches!(listed[0].containers[0].state, State::Running { .. }));
}

#[tokio::test]
async fn failures_are_counted_down_and_healed() {
    let machine = MockRuntime::new("wasm");
    machine.fail("run_sandbox", Some(1), Error::again("Boom", "once".into()));
    assert!(machine.run_sandbox(sandbox()).await.is_err());
    machine.run_sandbox(sandbox()).await.unwrap();
    machine.fail("list", None, Error::again("Boom", "always".into()));
    assert!(machine.list().await.is_err());
    assert!(machine.list().await.is_err());
    machine.heal("list");
    assert_eq!(machine.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn images_choose_behaviour() {
    let machine = MockRuntime::new("wasm");
    machine.behave("job:1", Behaviour::Exits(0));
    machine.run_sandbox(sandbox()).await.unwrap();
    let id = machine.create_container(container("job:1")).await.unwrap();
    machine.start_container(&id).await.unwrap();
    assert!(matches!(state(machine.next_event().await), State::Running { .. }));
    assert!(matches!(state(machine.next_event().await), State::Exited { code: 0, .. }));
    assert!(machine.running().is_empty());
}

#[tokio::test]
async fn programs_run_in_running_containers() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let machine = MockRuntime::new("oci");
    machine.run_sandbox(sandbox()).await.unwrap();
    let id = machine.create_container(container("hello:1")).await.unwrap();
    let all = Standard { stdin: true, stdout: true, stderr: true };
    let spec =
        |words: &str| ExecSpec { container: id.clone(), command: words.split(' ').map(String::from).collect(), streams: all, ..ExecSpec::default() };
    assert!(machine.exec(spec("cat")).await.is_err(), "it does not run yet");
    machine.start_container(&id).await.unwrap();
    assert!(machine.exec(spec("vi")).await.unwrap_err().message.contains("not found"));
    let mut session = machine.exec(spec("cat")).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"through").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut said = String::new();
    session.stdout.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!((said.as_str(), session.exit.await.unwrap()), ("through", 0));
    let mut session = machine.exec(spec("exit 7")).await.unwrap();
    drop(session.stdin.take());
    assert_eq!(session.exit.await.unwrap(), 7);
}
