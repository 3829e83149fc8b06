use crate::world::{World, left, lines, shims, until};
use coracle_runtime::{ContainerSpec, Event, Mount, Runtime, State};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, time::Duration};

pub async fn containers_outlive_the_agent() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let counting = world.container(&sandbox, &["sh", "-c", "trap 'exit 5' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"]);
    let ending = world.container(&sandbox, &["sh", "-c", "sleep 0.3; echo last words; exit 4"]);
    for spec in [&counting, &ending] {
        world.start(spec).await.unwrap();
    }
    let dir = world.dir.clone();
    drop(world.runtime);
    // Nobody listens meanwhile.
    until("the end of one", || lines(&ending.log_path) == ["stdout F last words"]).await;
    let world = World::again(dir).await;
    let list = world.runtime.list().await.unwrap();
    let state = |id: &str| list[0].containers.iter().find(|status| status.id == id).map(|status| status.state.clone());
    until("the exit code", || fs::read_to_string(sandbox.dir.join("runtime/oci/state.json")).is_ok_and(|text| text.contains("\"code\":4"))).await;
    let list_again = world.runtime.list().await.unwrap();
    assert!(matches!(
        list_again[0].containers.iter().find(|status| status.id == ending.id()).map(|status| &status.state),
        Some(State::Exited { code: 4, .. })
    ));
    assert!(matches!(state(&counting.id()), Some(State::Running { .. })));
    // Events reach the new agent, and it can stop what the old one started, and start more.
    world.runtime.stop_container(&counting.id(), Duration::from_secs(10)).await.unwrap();
    assert_eq!(world.exit(&counting.id()).await.0, 5);
    let numbers: Vec<u32> = lines(&counting.log_path).iter().map(|line| line[9..].parse().unwrap()).collect();
    assert!(numbers.len() > 5 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no line is missing: {numbers:?}");
    assert_eq!(world.finish(&world.container(&sandbox, &["true"])).await.0, 0);
}

pub async fn what_was_being_made_is_the_next_agents() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    // It takes its time.
    let mount = |number| Mount { host_path: world.path("layer"), container_path: format!("/many/{number}"), ..Mount::default() };
    let slow = |code| ContainerSpec { mounts: (0..500).map(mount).collect(), ..world.container(&sandbox, &["sh", "-c", code]) };
    let (soon, late) = (slow("exit 4"), slow("exit 6"));
    let begun = async {
        while !soon.log_path.exists() || !late.log_path.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        started = async { tokio::join!(world.start(&soon), world.start(&late)) } => panic!("too fast: {started:?}"),
        () = begun => {}
    }
    let dir = world.dir.clone();
    drop(world.runtime);
    let world = World::again(dir).await;
    assert_eq!(world.runtime.list().await.unwrap()[0].containers.len(), 0, "nothing is there yet");
    world.start(&soon).await.expect("the one that is being made");
    assert_eq!(world.exit(&soon.id()).await.0, 4);
    until("the end of the other", || fs::read_to_string(sandbox.dir.join("runtime/oci/state.json")).is_ok_and(|text| text.contains("\"code\":6")))
        .await;
    world.start(&late).await.expect("the one that is over");
    assert_eq!(world.exit(&late.id()).await.0, 6, "which its agent hears");
}

pub async fn a_killed_shim_takes_its_pod_with_it() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    world.start(&world.container(&sandbox, &["sh", "-c", "sleep 1000 & sleep 1000"])).await.unwrap();
    kill(Pid::from_raw(shims(&sandbox)[0]), Signal::SIGKILL).unwrap();
    let uid = sandbox.pod.uid.clone();
    world.event(|event| matches!(event, Event::SandboxLost { sandbox, .. } if *sandbox == uid).then_some(())).await;
    until("nothing left", || left(&sandbox).is_empty()).await;
    world.runtime.run_sandbox(sandbox.clone()).await.expect("the same pod again");
    assert_eq!(world.finish(&world.container(&sandbox, &["true"])).await.0, 0);
}

pub async fn a_shim_killed_while_nobody_looks_is_cleaned_up() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    world.start(&world.container(&sandbox, &["sleep", "1000"])).await.unwrap();
    let dir = world.dir.clone();
    drop(world.runtime);
    kill(Pid::from_raw(shims(&sandbox)[0]), Signal::SIGKILL).unwrap();
    until("its end", || shims(&sandbox).is_empty()).await;
    let world = World::again(dir).await;
    assert!(world.runtime.list().await.unwrap().is_empty());
    until("nothing left", || left(&sandbox).is_empty()).await;
}

pub async fn a_removed_directory_ends_the_shim() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    world.start(&world.container(&sandbox, &["sleep", "1000"])).await.unwrap();
    fs::remove_dir_all(&sandbox.dir).unwrap();
    until("nothing left", || left(&sandbox).is_empty()).await;
}

pub async fn a_killed_parent_of_shims_is_replaced() {
    let world = World::new().await;
    let first = world.pod(|_| ()).await;
    let shim = shims(&first)[0];
    let status = fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let parent: i32 = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap();
    kill(Pid::from_raw(parent), Signal::SIGKILL).unwrap();
    until("its end", || !fs::read_to_string(format!("/proc/{parent}/comm")).is_ok_and(|name| name.trim() == "coracle-shims")).await;
    assert_eq!(world.finish(&world.container(&first, &["true"])).await.0, 0, "shims do not need it");
    // The first try may find that it is gone; the agent tries again, as for any other failure.
    let mut sandbox = world.sandbox();
    let mut made = world.runtime.run_sandbox(sandbox.clone()).await;
    if made.is_err() {
        sandbox = world.sandbox();
        made = world.runtime.run_sandbox(sandbox.clone()).await;
    }
    made.unwrap();
    assert_eq!(world.finish(&world.container(&sandbox, &["true"])).await.0, 0);
}
