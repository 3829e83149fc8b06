//! Create, start and exit of /bin/true in a sandbox that is there, beside crun doing the same with a bundle. By hand; nothing is asserted.

use crate::world::World;
use coracle_runtime::Runtime;
use std::{
    process::Command,
    time::{Duration, Instant},
};

const ROUNDS: usize = 200;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

pub async fn run() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let spec = world.container(&sandbox, &["true"]);
        let began = Instant::now();
        let id = world.start(&spec).await.expect("a start");
        world.exit(&id).await;
        times.push(began.elapsed());
        world.runtime.remove_container(&id).await.expect("a removal");
    }
    println!("shim: {:?}", median(times));
    // crun's own spec, with the same program and root.
    let bundle = world.path("bundle");
    std::fs::create_dir_all(&bundle).expect("a bundle");
    let made = Command::new("crun").arg("spec").current_dir(&bundle).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("crun is not here: apt-get install crun");
        return;
    }
    let config = std::fs::read_to_string(bundle.join("config.json")).expect("a config");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("a config");
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["process"]["terminal"] = serde_json::json!(false);
    config["root"] = serde_json::json!({ "path": world.path("layer") });
    std::fs::write(bundle.join("config.json"), config.to_string()).expect("a config");
    for runtime in ["crun", "runc"] {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let began = Instant::now();
            let status = Command::new(runtime).args(["run", &format!("bench-{round}-{}", std::process::id())]).current_dir(&bundle).status();
            if !status.is_ok_and(|status| status.success()) {
                println!("{runtime} failed");
                break;
            }
            times.push(began.elapsed());
        }
        if !times.is_empty() {
            println!("{runtime}: {:?}", median(times));
        }
    }
}
