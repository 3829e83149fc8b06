//! Create, start and exit of /bin/true in a sandbox that is there, in turn with crun and runc doing the same with a bundle in the same pod's namespaces.
//! By `cargo xtask bench oci` or by hand; nothing is asserted.

use crate::world::{World, shims};
use coracle_runtime::Runtime;
use std::{
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

const ROUNDS: usize = 200;
/// What ours is measured by: name, and how much of its time ours may take.
const OTHERS: [(&str, &str); 2] = [("crun", "   (shall be at most 1.2)"), ("runc", "")];

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs it.
pub fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a tokio runtime");
    runtime.block_on(compare());
    ExitCode::SUCCESS
}

async fn compare() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let shim = *shims(&sandbox).first().expect("a shim");
    let bundle = world.path("bundle");
    let others: Vec<(&str, &str)> = OTHERS.into_iter().filter(|(name, _)| make(name, &bundle, &world.path("layer"), shim)).collect();
    let (mut ours, mut removals, mut theirs) = (Vec::new(), Vec::new(), vec![Vec::new(); others.len()]);
    for round in 0..ROUNDS {
        let spec = world.container(&sandbox, &["true"]);
        let began = Instant::now();
        let id = world.start(&spec).await.expect("a start");
        world.exit(&id).await;
        ours.push(began.elapsed());
        world.runtime.remove_container(&id).await.expect("a removal");
        removals.push(began.elapsed());
        for ((name, _), times) in others.iter().zip(&mut theirs) {
            let began = Instant::now();
            let id = format!("bench-{round}-{}", std::process::id());
            let output = Command::new(name).args(["run", &id]).current_dir(bundle.join(name)).output().expect("it starts");
            assert!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr));
            times.push(began.elapsed());
        }
    }
    let own = median(&mut ours);
    println!("create, start, exit of /bin/true in a sandbox    {own:.2?} ({:.2?} with its removal)", median(&mut removals));
    for ((name, aim), mut times) in others.into_iter().zip(theirs) {
        let its = median(&mut times);
        println!(
            "{:<48} {its:.2?}   ours takes {:.2} of that{aim}",
            format!("  {name} run, which removes, too"),
            own.as_secs_f64() / its.as_secs_f64()
        );
    }
}

/// A bundle of the program's own making, with the same command, root and namespaces; whether the program is there.
fn make(name: &str, bundle: &Path, root: &Path, shim: i32) -> bool {
    let bundle = bundle.join(name);
    std::fs::create_dir_all(&bundle).expect("a bundle");
    if !Command::new(name).arg("spec").current_dir(&bundle).status().is_ok_and(|status| status.success()) {
        println!("{name} is not here: apt-get install {name}");
        return false;
    }
    let config = std::fs::read_to_string(bundle.join("config.json")).expect("a config");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("a config");
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["process"]["terminal"] = serde_json::json!(false);
    config["root"] = serde_json::json!({ "path": root });
    for namespace in config["linux"]["namespaces"].as_array_mut().expect("namespaces") {
        let file = match namespace["type"].as_str() {
            Some("network") => "net",
            Some(other @ ("ipc" | "uts")) => other,
            _ => continue,
        };
        namespace["path"] = format!("/proc/{shim}/ns/{file}").into();
    }
    std::fs::write(bundle.join("config.json"), config.to_string()).expect("a config");
    true
}
